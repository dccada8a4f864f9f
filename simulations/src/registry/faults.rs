//! What goes wrong in a run, and when: drawn from the seed before the run begins.

use std::{collections::BTreeSet, fmt, str::FromStr, time::Duration};

use rand::{Rng, rngs::SmallRng, seq::SliceRandom};

use super::disk::Failing;

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FaultKind {
    /// Questions and answers are lost: whoever asks learns that there is none.
    Loss,
    /// Questions and answers take seconds.
    Late,
    /// A link breaks, and is made anew.
    Cut,
    /// Nothing gets from one node to another, which reaches it.
    OneWay,
    /// The nodes fall into two parts.
    Partition,
    /// A node dies without a word and starts again.
    Crash,
    /// Most of the voters die at once, and start again.
    Majority,
    /// The leader is cut off; those who vote for the next die as they have voted, and the next is not heard
    /// for a while, but the former one is.
    Vote,
    /// A node stands still, and goes on.
    Hang,
    /// A node's disk stands still, and goes on.
    Stall,
    /// Everything from and to a node takes long.
    Slow,
    /// A disk is full, or what is written does not reach it.
    Disk,
    /// A voter loses all that it had stored; once in a run.
    Wipe,
    /// The nodes' clocks differ.
    Skew,
}

/// All kinds, with the names that the command line knows.
pub const KINDS: [(FaultKind, &str); 14] = [
    (FaultKind::Loss, "loss"),
    (FaultKind::Late, "late"),
    (FaultKind::Cut, "cut"),
    (FaultKind::OneWay, "one-way"),
    (FaultKind::Partition, "partition"),
    (FaultKind::Crash, "crash"),
    (FaultKind::Majority, "majority"),
    (FaultKind::Vote, "vote"),
    (FaultKind::Hang, "hang"),
    (FaultKind::Stall, "stall"),
    (FaultKind::Slow, "slow"),
    (FaultKind::Disk, "disk"),
    (FaultKind::Wipe, "wipe"),
    (FaultKind::Skew, "skew"),
];

/// The kinds of faults that a run may have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Faults(pub BTreeSet<FaultKind>);

/// A word that names no kind of fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "no fault of the registry is called {0:?}: use all, none, or some of loss, late, cut, one-way, partition, \
     crash, majority, vote, hang, stall, slow, disk, wipe, skew, separated by commas"
)]
pub struct UnknownFault(String);

/// A fault of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) at: Duration,
    pub(super) until: Duration,
    pub(super) what: What,
}

/// What goes wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// One in so many questions or answers is lost.
    Loss(u32),
    /// One in so many takes seconds.
    Late(u32),
    Cut(usize, usize),
    /// Nothing gets from the first to the second of each.
    Block(Vec<(usize, usize)>),
    Crash(Vec<usize>),
    /// The leader is cut off, and [then](super::network::Network::trap) those crash who vote.
    Vote,
    Hang(usize),
    Stall(usize),
    Slow(usize),
    Disk(usize, Failing),
    Wipe(usize),
}

impl Faults {
    /// Every kind.
    pub fn all() -> Self {
        Self(KINDS.iter().map(|(kind, _)| *kind).collect())
    }

    /// The faults of a run with so many nodes, the first of which are voters.
    pub(super) fn plan(
        &self,
        rng: &mut SmallRng,
        nodes: usize,
        voters: usize,
        faulty_for: Duration,
    ) -> Vec<Fault> {
        let mut kinds: Vec<_> = self.0.iter().copied().filter(|k| *k != FaultKind::Skew).collect();
        let mut plan = Vec::new();
        let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let mut at = rng.random_range(0..800);
        while !kinds.is_empty() && at < millis(faulty_for) {
            let kind = kinds[rng.random_range(0..kinds.len())];
            if kind == FaultKind::Wipe {
                // One disk may be lost for good at a time; a second one is more than is promised.
                kinds.retain(|kind| *kind != FaultKind::Wipe);
            }
            let (what, longest) = draw(kind, rng, nodes, voters);
            // Nobody votes before the leader has been silent for long enough.
            let shortest = if kind == FaultKind::Vote { 2_000 } else { 100 };
            let until = at + rng.random_range(shortest..longest);
            let [from, until] = [at, until.min(millis(faulty_for))].map(Duration::from_millis);
            plan.push(Fault { at: from, until, what });
            at += rng.random_range(100..1_500);
        }
        plan
    }
}

/// What goes wrong, and how many milliseconds at most.
fn draw(kind: FaultKind, rng: &mut SmallRng, nodes: usize, voters: usize) -> (What, u64) {
    let node = rng.random_range(0..nodes);
    let voter = rng.random_range(0..voters);
    let other = (node + rng.random_range(1..nodes)) % nodes;
    match kind {
        FaultKind::Loss => (What::Loss(rng.random_range(3..30)), 3_000),
        FaultKind::Late => (What::Late(rng.random_range(3..20)), 3_000),
        FaultKind::Cut => (What::Cut(node, other), 101),
        FaultKind::OneWay => {
            let to_all = rng.random_bool(0.5);
            let others = (0..nodes).filter(|it| *it != node && (to_all || *it == other));
            let turned = rng.random_bool(0.5);
            let way = |it| if turned { (it, node) } else { (node, it) };
            (What::Block(others.map(way).collect()), 7_000)
        }
        FaultKind::Partition => {
            let part: Vec<bool> = (0..nodes).map(|_| rng.random_bool(0.5)).collect();
            let apart = |a: usize, b: usize| part[a] != part[b];
            let ways = (0..nodes).flat_map(|a| (0..nodes).map(move |b| (a, b)));
            (What::Block(ways.filter(|(a, b)| apart(*a, *b)).collect()), 7_000)
        }
        FaultKind::Crash => {
            let node = if rng.random_bool(0.8) { voter } else { node };
            (What::Crash(vec![node]), 4_000)
        }
        FaultKind::Majority => {
            let mut all: Vec<usize> = (0..voters).collect();
            all.shuffle(rng);
            let least = voters / 2 + 1;
            all.truncate(rng.random_range(least..=voters));
            (What::Crash(all), 2_000)
        }
        FaultKind::Vote => (What::Vote, 4_500),
        FaultKind::Hang => (What::Hang(node), 3_000),
        FaultKind::Stall => (What::Stall(voter), 3_000),
        FaultKind::Slow => (What::Slow(node), 4_000),
        FaultKind::Disk => {
            let failing = if rng.random_bool(0.5) { Failing::Full } else { Failing::Sync };
            (What::Disk(voter, failing), 4_000)
        }
        FaultKind::Wipe => (What::Wipe(voter), 2_000),
        FaultKind::Skew => unreachable!("clocks differ all the time"),
    }
}

impl What {
    /// Whether the nodes that it befalls do nothing meanwhile, or cannot write.
    pub(super) fn stops(&self) -> bool {
        !matches!(self, Self::Loss(_) | Self::Late(_) | Self::Slow(_))
    }

    /// Nodes that it befalls, and ways between nodes.
    pub(super) fn touches(&self, nodes: usize) -> (Vec<usize>, Vec<(usize, usize)>) {
        match self {
            Self::Loss(_) | Self::Late(_) => ((0..nodes).collect(), Vec::new()),
            Self::Cut(a, b) => (Vec::new(), vec![(*a, *b)]),
            Self::Block(ways) => (Vec::new(), ways.clone()),
            // What it does are faults of their own.
            Self::Vote => (Vec::new(), Vec::new()),
            Self::Crash(crashed) => (crashed.clone(), Vec::new()),
            Self::Hang(node)
            | Self::Stall(node)
            | Self::Slow(node)
            | Self::Disk(node, _)
            | Self::Wipe(node) => (vec![*node], Vec::new()),
        }
    }
}

impl FromStr for Faults {
    type Err = UnknownFault;

    fn from_str(text: &str) -> Result<Self, UnknownFault> {
        match text {
            "all" => return Ok(Self::all()),
            "none" => return Ok(Self::default()),
            _ => {}
        }
        let named = |word: &str| {
            let found = KINDS.iter().find(|(_, name)| *name == word);
            found.map(|(kind, _)| *kind).ok_or_else(|| UnknownFault(word.to_owned()))
        };
        text.split(',').map(named).collect::<Result<_, _>>().map(Self)
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::all() {
            return f.write_str("all");
        }
        let chosen = KINDS.iter().filter(|(kind, _)| self.0.contains(kind));
        let names: Vec<&str> = chosen.map(|(_, name)| *name).collect();
        f.write_str(if names.is_empty() { "none" } else { "" })?;
        f.write_str(&names.join(","))
    }
}
