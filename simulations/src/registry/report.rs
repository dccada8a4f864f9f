//! A run of the registry, judged, for who reads it.

use std::{
    fmt::Write,
    hash::{DefaultHasher, Hash, Hasher},
};

use cluster::AgentId;

use super::{
    Options,
    history::{History, Outcome, What},
    promises::{self, Breach, PROMISES},
};

/// Lines that are shown of what happened around a breach.
const SHOWN: usize = 150;

/// Breaches of one promise that are shown.
const SHOWN_OF_A_PROMISE: usize = 3;

/// What came of a run.
#[derive(Debug)]
pub struct Report {
    /// The run's seed.
    pub seed: u64,
    /// The identity of all that happened: equal runs have equal ones.
    pub digest: u64,
    /// What breaks the promises.
    pub breaches: Vec<Breach>,
    /// How many names' histories could not be decided: too much may have happened to them.
    pub undecided: usize,
    options: Options,
    history: History,
    carried: u64,
}

impl Report {
    pub(super) fn new(seed: u64, options: Options, (history, carried): (History, u64)) -> Self {
        // Not std's RandomState: the same in every process.
        let mut digest = DefaultHasher::new();
        (&history.lines, &history.names.len(), carried).hash(&mut digest);
        let digest = digest.finish();
        let breaches = promises::breaches(&history);
        let undecided = promises::undecided(&history);
        Self { seed, digest, breaches, undecided, options, history, carried }
    }

    /// The command that repeats the run.
    pub fn command(&self) -> String {
        let Options { voters, observers, faults, faulty_for, snapshot_every } = &self.options;
        format!(
            "cargo run --release -p simulations -- --registry --voters {voters} --observers {observers} \
             --faults {faults} --faulty-for {} --snapshot-every {snapshot_every} --seed {}",
            faulty_for.as_secs(),
            self.seed
        )
    }

    /// How many histories of names the run has.
    pub fn names(&self) -> usize {
        self.history.agents().len()
    }

    /// How many times somebody asked for something.
    pub fn calls(&self) -> usize {
        self.history.calls.len()
    }

    /// What the run showed.
    pub fn text(&self) -> String {
        let history = &self.history;
        let Options { voters, observers, faults, snapshot_every, .. } = &self.options;
        let count = |is: fn(&Outcome) -> bool| {
            history.calls.iter().filter(|call| is(&call.outcome)).count()
        };
        let registers = history.calls.iter().filter(|it| matches!(it.what, What::Register { .. }));
        let lines = [
            ("seed", self.seed.to_string()),
            (
                "cluster",
                format!(
                    "{voters} voters, {observers} observers, a snapshot every {snapshot_every} entries, faults: {faults}"
                ),
            ),
            ("time", format!("{:.1} s simulated", history.ended.as_secs_f64())),
            ("nodes", format!("{} crashes, {} disks lost", history.crashes, history.wipes)),
            (
                "calls",
                format!(
                    "{} ({} registrations) about {} names",
                    history.calls.len(),
                    registers.count(),
                    self.names()
                ),
            ),
            (
                "outcomes",
                format!(
                    "{} granted, {} taken, {} replaced, {} done, {} read, {} unavailable, {} given up, {} died",
                    count(|it| matches!(it, Outcome::Granted(..))),
                    count(|it| matches!(it, Outcome::Taken)),
                    count(|it| matches!(it, Outcome::Replaced)),
                    count(|it| matches!(it, Outcome::Done)),
                    count(|it| matches!(it, Outcome::Read(_))),
                    count(|it| matches!(it, Outcome::Unavailable(_))),
                    count(|it| matches!(it, Outcome::GaveUp)),
                    count(|it| matches!(it, Outcome::Died)),
                ),
            ),
            ("undecided", format!("{} of {} histories of names", self.undecided, self.names())),
            ("probes", format!("{} of what was revoked", history.probes.len())),
            ("network", format!("{} messages", self.carried)),
            ("digest", format!("{:016x}", self.digest)),
        ];
        let mut text = String::new();
        for (name, value) in lines {
            let _ = writeln!(text, "  {name:<10} {value}");
        }
        for (name, _) in PROMISES {
            let broken = self.breaches.iter().filter(|breach| breach.promise == name).count();
            let verdict =
                if broken == 0 { "holds".to_owned() } else { format!("BROKEN {broken} times") };
            let _ = writeln!(text, "  {verdict:<16} {name}");
        }
        text
    }

    /// What happened to an agent, and to the cluster.
    pub fn story(&self, agent: Option<&AgentId>) -> Vec<String> {
        let concerns = |of: &Option<AgentId>| of.is_none() || of.as_ref() == agent;
        let lines = self.history.lines.iter().filter(|(_, of, _)| concerns(of));
        lines.map(|(at, _, text)| format!("{:>10.3} s  {text}", at.as_secs_f64())).collect()
    }

    /// The breaches, what happened around the first, and the command that repeats the run.
    pub fn explanation(&self) -> Option<String> {
        let first = self.breaches.first()?;
        let mut text = format!("seed {} breaks a promise\n", self.seed);
        let (mut shown, mut promise) = (0, "");
        for breach in &self.breaches {
            shown = if breach.promise == promise { shown + 1 } else { 0 };
            promise = breach.promise;
            if shown < SHOWN_OF_A_PROMISE {
                let _ = writeln!(text, "  {breach}");
            }
        }
        let lines = self.story(first.agent.as_ref());
        for line in lines.iter().take(SHOWN) {
            let _ = writeln!(text, "    {line}");
        }
        if lines.len() > SHOWN {
            let _ = writeln!(text, "    … {} more lines", lines.len() - SHOWN);
        }
        let _ = writeln!(text, "  repeat it: {}", self.command());
        Some(text)
    }
}
