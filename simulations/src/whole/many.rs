//! Many seeds of whole nodes: each in a process of its own, since only then a run is repeatable.

use std::{
    io,
    path::PathBuf,
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use parking_lot::Mutex;

use crate::promises::PROMISES;

/// How seeds are run.
#[derive(Clone, Debug)]
pub struct Batch {
    /// The simulations' program.
    pub program: PathBuf,
    /// What it is told beside the seed.
    pub arguments: Vec<String>,
    /// Runs at a time; each keeps one core busy.
    pub at_a_time: usize,
    /// Whether the other seeds are run when one has failed.
    pub keeps_going: bool,
}

/// What came of a seed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The seed.
    pub seed: u64,
    /// Whether all promises were kept.
    pub holds: bool,
    /// All that the program said.
    pub report: String,
}

impl Batch {
    /// Runs all seeds, and calls `told` with each outcome, in whichever order they come. Returns the
    /// outcomes by seed.
    ///
    /// # Errors
    /// The program cannot be run.
    pub fn run(
        &self,
        seeds: impl Iterator<Item = u64> + Send,
        told: impl Fn(&Outcome) + Sync,
    ) -> io::Result<Vec<Outcome>> {
        let (left, stop) = (Mutex::new(seeds), AtomicBool::new(false));
        let runner = || {
            let mut outcomes = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                let Some(seed) = left.lock().next() else { break };
                let outcome = self.run_one(seed)?;
                told(&outcome);
                if !outcome.holds && !self.keeps_going {
                    stop.store(true, Ordering::Relaxed);
                }
                outcomes.push(outcome);
            }
            Ok(outcomes)
        };
        let outcomes: io::Result<Vec<_>> = thread::scope(|scope| {
            let runners: Vec<_> = (0..self.at_a_time.max(1)).map(|_| scope.spawn(runner)).collect();
            let ended = runners.into_iter().map(|runner| {
                runner.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            });
            ended.collect()
        });
        let mut outcomes = outcomes?.concat();
        outcomes.sort_by_key(|outcome| outcome.seed);
        Ok(outcomes)
    }

    fn run_one(&self, seed: u64) -> io::Result<Outcome> {
        let mut program = Command::new(&self.program);
        let output = program.args(&self.arguments).args(["--seed", &seed.to_string()]).output()?;
        let mut report = String::from_utf8_lossy(&output.stdout).into_owned();
        report.push_str(&String::from_utf8_lossy(&output.stderr));
        Ok(Outcome { seed, holds: output.status.success(), report })
    }
}

impl Outcome {
    /// The first promise that was broken; none if all hold, or if the run itself failed.
    pub fn broken(&self) -> Option<&'static str> {
        let breach = self.breach()?;
        PROMISES.iter().map(|(name, _)| *name).find(|name| breach.starts_with(name))
    }

    /// One line for a seed that failed.
    pub fn brief(&self) -> String {
        let why = self.breach().or_else(|| self.report.lines().last()).unwrap_or("it said nothing");
        format!("seed {}: {why}", self.seed)
    }

    /// The first breach, in the words of the report.
    fn breach(&self) -> Option<&str> {
        let mut lines =
            self.report.lines().skip_while(|line| !line.ends_with(super::report::BREAKS));
        lines.nth(1).map(str::trim)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;

    use super::*;

    /// A program that fails for seeds that end in a 3.
    fn batch(keeps_going: bool) -> Batch {
        let script = "echo ran; case $2 in *3) echo 'seed 3 breaks a promise'; \\
                      echo '  order is kept between two sessions: a before b'; exit 1;; esac";
        let arguments = ["-c", script, "sh"].map(str::to_owned).into();
        Batch { program: "sh".into(), arguments, at_a_time: 2, keeps_going }
    }

    #[test]
    fn every_seed_is_run_once() {
        let told = AtomicU64::new(0);
        let count = |_: &Outcome| {
            told.fetch_add(1, Ordering::Relaxed);
        };
        let outcomes = batch(true).run(1..=14, count).expect("it runs");
        assert!(outcomes.iter().map(|outcome| outcome.seed).eq(1..=14));
        assert_eq!(told.load(Ordering::Relaxed), 14);
        let failed: Vec<_> = outcomes.iter().filter(|outcome| !outcome.holds).collect();
        assert_eq!(failed.iter().map(|outcome| outcome.seed).collect::<Vec<_>>(), [3, 13]);
        assert_eq!(failed[0].broken(), Some("order is kept between two sessions"));
        assert_eq!(failed[0].brief(), "seed 3: order is kept between two sessions: a before b");
        assert_eq!(outcomes[0].broken(), None);
    }

    #[test]
    fn the_first_that_fails_ends_it() {
        let outcomes = batch(false).run(1..=1_000, |_| ()).expect("it runs");
        assert!(outcomes.len() < 10 && outcomes.iter().any(|outcome| !outcome.holds));
    }
}
