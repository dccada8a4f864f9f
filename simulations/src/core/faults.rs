//! What goes wrong in a run, and when: drawn from the seed before the run begins.

use std::{collections::BTreeSet, str::FromStr, time::Duration};

use rand::{Rng, rngs::SmallRng, seq::IndexedRandom};

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FaultKind {
    /// Packets are lost and sent again, which delays what is behind them.
    Loss,
    /// A link breaks, and is made anew.
    Cut,
    /// Two nodes do not reach each other.
    Block,
    /// One node does not reach another, which reaches it.
    OneWay,
    /// The nodes fall into two parts.
    Partition,
    /// A node dies without a word and starts again.
    Crash,
    /// A node stands still, and goes on.
    Hang,
    /// A node takes long for everything.
    Slow,
    /// The nodes' clocks differ.
    Skew,
    /// A node comes later than the others.
    Join,
    /// A node is told to stop, and starts again.
    Drain,
}

/// All kinds, with the names that the command line knows.
pub const KINDS: [(FaultKind, &str); 11] = [
    (FaultKind::Loss, "loss"),
    (FaultKind::Cut, "cut"),
    (FaultKind::Block, "block"),
    (FaultKind::OneWay, "one-way"),
    (FaultKind::Partition, "partition"),
    (FaultKind::Crash, "crash"),
    (FaultKind::Hang, "hang"),
    (FaultKind::Slow, "slow"),
    (FaultKind::Skew, "skew"),
    (FaultKind::Join, "join"),
    (FaultKind::Drain, "drain"),
];

/// The kinds of faults that a run may have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Faults(pub BTreeSet<FaultKind>);

/// A word that names no kind of fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "no fault is called {0:?}: use all, none, or some of loss, cut, block, one-way, partition, \
     crash, hang, slow, skew, join, drain, separated by commas"
)]
pub struct UnknownFault(String);

impl Faults {
    /// Every kind.
    pub fn all() -> Self {
        Self(KINDS.iter().map(|(kind, _)| *kind).collect())
    }

    fn has(&self, kind: FaultKind) -> bool {
        self.0.contains(&kind)
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

impl std::fmt::Display for Faults {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if *self == Self::all() {
            return f.write_str("all");
        }
        let chosen = KINDS.iter().filter(|(kind, _)| self.has(*kind));
        let names: Vec<&str> = chosen.map(|(_, name)| *name).collect();
        f.write_str(if names.is_empty() { "none" } else { "" })?;
        f.write_str(&names.join(","))
    }
}

/// A fault of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub at: Duration,
    pub until: Duration,
    pub what: What,
}

/// What goes wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum What {
    /// One packet in so many is lost.
    Loss {
        one_in: u32,
    },
    /// The link between the two breaks.
    Cut(usize, usize),
    /// Nothing gets from the first to the second of each.
    Block(Vec<(usize, usize)>),
    Crash(usize),
    Hang(usize),
    Slow(usize, Duration),
    Drain(usize),
}

/// Clocks differ by at most twice this: a link refuses a difference of over 30 s.
const SKEW_MAX_MS: i64 = 14_500;

/// The faults of a run, between `from` and `until`.
pub(crate) fn plan(
    kinds: &Faults,
    nodes: usize,
    from: Duration,
    until: Duration,
    rng: &mut SmallRng,
) -> Vec<Fault> {
    let at_moments: Vec<FaultKind> = kinds
        .0
        .iter()
        .copied()
        .filter(|kind| !matches!(kind, FaultKind::Skew | FaultKind::Join))
        .collect();
    if at_moments.is_empty() || nodes < 2 {
        return Vec::new();
    }
    let count = rng.random_range(1..=7);
    let draw = |_| {
        let at = from + until.saturating_sub(from).mul_f64(rng.random());
        // Short ones are as interesting as long ones.
        let lasts = Duration::from_secs_f64(9.0 * rng.random::<f64>().powi(2) + 0.05);
        let what = at_moments.choose(rng).map(|kind| draw(*kind, nodes, rng));
        what.map(|what| Fault { at, until: (at + lasts).min(until), what })
    };
    (0..count).filter_map(draw).collect()
}

fn draw(kind: FaultKind, nodes: usize, rng: &mut SmallRng) -> What {
    let one = rng.random_range(0..nodes);
    let other = (one + rng.random_range(1..nodes)) % nodes;
    match kind {
        FaultKind::Loss => What::Loss { one_in: rng.random_range(5..200) },
        FaultKind::Cut => What::Cut(one, other),
        FaultKind::Block => What::Block(vec![(one, other), (other, one)]),
        FaultKind::OneWay => What::Block(vec![(one, other)]),
        FaultKind::Crash => What::Crash(one),
        FaultKind::Hang => What::Hang(one),
        FaultKind::Drain => What::Drain(one),
        FaultKind::Slow => What::Slow(one, Duration::from_millis(rng.random_range(1..60))),
        FaultKind::Partition | FaultKind::Skew | FaultKind::Join => {
            let mut here: Vec<bool> = (0..nodes).map(|_| rng.random()).collect();
            (here[one], here[other]) = (true, false);
            let pairs = (0..nodes).flat_map(|a| (0..nodes).map(move |b| (a, b)));
            What::Block(pairs.filter(|(a, b)| here[*a] != here[*b]).collect())
        }
    }
}

/// How far each node's clock is from the true time, in milliseconds.
pub(crate) fn skews(kinds: &Faults, nodes: usize, rng: &mut SmallRng) -> Vec<i64> {
    let range = if kinds.has(FaultKind::Skew) { -SKEW_MAX_MS..=SKEW_MAX_MS } else { 0..=0 };
    (0..nodes).map(|_| rng.random_range(range.clone())).collect()
}

/// The node that comes late, if one does.
pub(crate) fn late(kinds: &Faults, nodes: usize, rng: &mut SmallRng) -> Option<usize> {
    let comes_late = kinds.has(FaultKind::Join) && nodes > 2 && rng.random_ratio(1, 3);
    comes_late.then(|| rng.random_range(0..nodes))
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn names_and_kinds_are_one() {
        for text in ["all", "none", "crash", "loss,partition,drain"] {
            assert_eq!(text.parse::<Faults>().expect(text).to_string(), text);
        }
        assert!("crash,flood".parse::<Faults>().is_err());
    }

    #[test]
    fn a_plan_is_the_seeds_and_ends_in_time() {
        let (from, until) = (Duration::from_secs(2), Duration::from_secs(16));
        let plan_of =
            |seed| plan(&Faults::all(), 4, from, until, &mut SmallRng::seed_from_u64(seed));
        assert_eq!(plan_of(3), plan_of(3));
        let all: Vec<Fault> = (0..200).flat_map(plan_of).collect();
        assert!(all.iter().all(|fault| fault.at >= from && fault.until <= until));
        assert!(all.iter().any(|fault| matches!(&fault.what, What::Block(ways) if ways.len() > 2)));
    }
}
