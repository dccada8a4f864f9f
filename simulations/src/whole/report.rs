//! A run of whole nodes, judged, for who reads it.

use std::{fmt::Write, time::Duration};

use super::seen::{Line, Record};
use crate::{
    core::Options,
    promises::{Breach, PROMISES},
};

/// How the line ends that comes before a report's first breach.
pub(super) const BREAKS: &str = "breaks a promise";

/// Lines that are shown of what happened around a breach.
const SHOWN: usize = 120;

/// What came of a run.
#[derive(Debug)]
pub struct Report {
    /// The run's seed.
    pub seed: u64,
    /// The identity of all that happened: equal runs have equal ones.
    pub digest: u64,
    /// What breaks the promises.
    pub breaches: Vec<Breach>,
    options: Options,
    record: Record,
}

impl Report {
    pub(super) fn new(seed: u64, options: Options, record: Record, breaches: Vec<Breach>) -> Self {
        Self { seed, digest: record.digest, breaches, options, record }
    }

    /// The command that repeats the run.
    pub fn command(&self) -> String {
        let Options { nodes, regions, agents, faults, faulty_for } = &self.options;
        format!(
            "cargo run --release -p simulations -- --nodes {nodes} --regions {regions} \
             --agents {agents} --faults {faults} --faulty-for {} --seed {}",
            faulty_for.as_secs(),
            self.seed
        )
    }

    /// What the run showed: sessions, messages, faults, and each promise.
    pub fn text(&self) -> String {
        let history = &self.record.history;
        let delivered: usize = history.sessions.iter().map(|s| s.received.len()).sum();
        let Options { nodes, regions, agents, faults, .. } = &self.options;
        let lines = [
            ("seed", self.seed.to_string()),
            (
                "cluster",
                format!(
                    "{nodes} whole nodes in {regions} regions, {agents} agents, faults: {faults}"
                ),
            ),
            ("time", format!("{} s simulated", history.ended.as_secs())),
            (
                "nodes",
                format!(
                    "{} crashes, {} stops, {} restarts",
                    history.crashes, history.stops, history.restarts
                ),
            ),
            (
                "sessions",
                format!(
                    "{} opened, {} taken over (4009)",
                    history.sessions.len(),
                    history.replaced.len()
                ),
            ),
            ("messages", format!("{} sent, {delivered} deliveries", history.messages.len())),
            (
                "network",
                format!("{} datagrams, {} KiB", self.record.packets, self.record.bytes / 1024),
            ),
            ("counted", format!("{:?}", history.lost)),
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

    /// What happened to some agents and messages, and to the cluster, in a part of the run.
    pub fn story(
        &self,
        agents: &[usize],
        messages: &[usize],
        from: Duration,
        until: Duration,
    ) -> Vec<String> {
        let wanted = |line: &&Line| {
            (from..=until).contains(&line.at)
                && match (line.agent, line.message) {
                    (_, Some(message)) => messages.contains(&message),
                    (Some(agent), None) => agents.contains(&agent),
                    (None, None) => true,
                }
        };
        let lines = self.record.lines.iter().filter(wanted);
        lines.map(|line| format!("{:>10.3} s  {}", line.at.as_secs_f64(), line.text)).collect()
    }

    /// The first breach, what happened around it, and the command that repeats the run.
    pub fn explanation(&self) -> Option<String> {
        let breach = self.breaches.first()?;
        let lines = self.story(&breach.agents, &breach.messages, breach.from, breach.until);
        let mut text = format!("seed {} {BREAKS}\n  {breach}\n", self.seed);
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
