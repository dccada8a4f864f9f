//! A run, judged: what it promised and broke, and how to see it again.

use std::{fmt::Write, time::Duration};

use crate::{
    core::{self, About, Options, Outcome},
    promises::{self, Breach, PROMISES},
};

/// Lines of a trace that are shown of its beginning and of its end.
const SHOWN: usize = 60;

/// A run that was judged.
#[derive(Debug)]
pub struct Verdict {
    /// The run's seed.
    pub seed: u64,
    /// What was simulated.
    pub options: Options,
    /// What came of it.
    pub outcome: Outcome,
    /// What breaks the promises.
    pub breaches: Vec<Breach>,
}

/// Runs a seed of the pure core and judges it.
pub fn judge(seed: u64, options: &Options) -> Verdict {
    let outcome = core::run(seed, options, None);
    let breaches = promises::breaches(&outcome.history);
    Verdict { seed, options: options.clone(), outcome, breaches }
}

impl Verdict {
    /// The command that repeats the run.
    pub fn command(&self) -> String {
        let Options { nodes, regions, agents, faults, faulty_for } = &self.options;
        format!(
            "cargo run --release -p simulations -- --core --nodes {nodes} --regions {regions} \
             --agents {agents} --faults {faults} --faulty-for {} --seed {}",
            faulty_for.as_secs(),
            self.seed
        )
    }

    /// What the run showed, for who reads it: sessions, messages, faults, and each promise.
    pub fn report(&self) -> String {
        let history = &self.outcome.history;
        let count = |n: usize, what: &str| format!("{n} {what}");
        let delivered: usize = history.sessions.iter().map(|s| s.received.len()).sum();
        let replaced = history.replaced.len();
        let mut text = String::new();
        let mut line = |name: &str, value: String| {
            let _ = writeln!(text, "  {name:<10} {value}");
        };
        line("seed", self.seed.to_string());
        let Options { nodes, regions, agents, faults, .. } = &self.options;
        line(
            "cluster",
            format!("{nodes} nodes in {regions} regions, {agents} agents, faults: {faults}"),
        );
        line("time", format!("{} s simulated", history.ended.as_secs()));
        line(
            "nodes",
            format!(
                "{} crashes, {} stops, {} restarts, {} links made",
                history.crashes, history.stops, history.restarts, history.links
            ),
        );
        line(
            "sessions",
            format!("{} opened, {replaced} taken over (4009)", history.sessions.len()),
        );
        line(
            "messages",
            format!(
                "{}, {delivered} deliveries, {} frames between nodes",
                count(history.messages.len(), "accepted"),
                history.frames
            ),
        );
        line("counted", format!("{:?}", history.lost));
        line("digest", format!("{:016x}", self.outcome.digest));
        for (name, _) in PROMISES {
            let broken = self.breaches.iter().filter(|breach| breach.promise == name).count();
            let verdict =
                if broken == 0 { "holds".to_owned() } else { format!("BROKEN {broken} times") };
            let _ = writeln!(text, "  {verdict:<16} {name}");
        }
        text
    }

    /// What happened to one agent, and to some messages, from a moment on.
    pub fn story(&self, agent: usize, messages: &[usize], from: Duration) -> String {
        let until = self.outcome.history.ended;
        let agents = [agent].into();
        let about = About { agents, messages: messages.iter().copied().collect(), from, until };
        core::run(self.seed, &self.options, Some(about)).lines.join("\n")
    }

    /// The first breach, what happened around it, and the command that repeats the run. Runs the seed
    /// once more to write it down.
    pub fn explanation(&self) -> Option<String> {
        let breach = self.breaches.first()?;
        let about = About {
            agents: breach.agents.iter().copied().collect(),
            messages: breach.messages.iter().copied().collect(),
            from: breach.from,
            until: breach.until,
        };
        let again = core::run(self.seed, &self.options, Some(about));
        let mut text = format!("seed {} breaks a promise\n  {breach}\n", self.seed);
        if again.digest != self.outcome.digest {
            text.push_str("  (the second run was another: the simulation is not repeatable)\n");
        }
        let lines = &again.lines;
        let left_out = lines.len().saturating_sub(2 * SHOWN);
        for (index, line) in lines.iter().enumerate() {
            if left_out == 0 || index < SHOWN || index >= SHOWN + left_out {
                let _ = writeln!(text, "    {line}");
            } else if index == SHOWN {
                let _ = writeln!(text, "    … {left_out} lines …");
            }
        }
        let _ = writeln!(text, "  repeat it: {}", self.command());
        Some(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_a_run() {
        let options = Options { nodes: 3, agents: 6, ..Options::default() };
        let digest = |seed| core::run(seed, &options, None).digest;
        assert_eq!(digest(1), digest(1));
        assert_ne!(digest(1), digest(2));
    }
}
