//! Whole nodes keep the relay's promises, and a seed is a run: the simulations' program, as CI and
//! engineers call it. Each run is a process of its own, since only then it is repeatable.

use std::{
    process::Command,
    time::{SystemTime, UNIX_EPOCH},
};

use simulations::whole::{Batch, Outcome};

/// The program, for runs with all kinds of faults, two at a time.
fn batch() -> Batch {
    Batch {
        program: env!("CARGO_BIN_EXE_simulations").into(),
        arguments: Vec::new(),
        at_a_time: 2,
        keeps_going: true,
    }
}

/// Runs seeds, and returns their reports.
fn all_hold(seeds: &[u64]) -> Vec<String> {
    let outcomes = batch().run(seeds.iter().copied(), |_| ()).expect("the program runs");
    for Outcome { seed, holds, report } in &outcomes {
        assert!(holds, "seed {seed} fails:\n{report}");
    }
    outcomes.into_iter().map(|outcome| outcome.report).collect()
}

/// The identity of all that happened in a run.
fn digest(report: &str) -> &str {
    let line = report.lines().find(|line| line.trim_start().starts_with("digest"));
    line.expect("a report has a digest")
}

#[test]
fn seeds_that_found_something_hold_now() {
    let lines = include_str!("../whole_seeds").lines().filter(|line| !line.starts_with('#'));
    let seed = |line: &str| line.split_whitespace().next()?.parse().ok();
    let seeds: Vec<u64> =
        lines.map(|line| seed(line).unwrap_or_else(|| panic!("no seed: {line}"))).collect();
    assert!(!seeds.is_empty());
    all_hold(&seeds);
}

#[test]
fn a_seed_is_a_run_bit_for_bit() {
    let reports = all_hold(&[1, 1, 5]);
    assert_eq!(digest(&reports[0]), digest(&reports[1]));
    assert_ne!(digest(&reports[0]), digest(&reports[2]));
}

#[test]
#[allow(clippy::disallowed_methods)] // fresh seeds must come from somewhere; a failure prints them
fn fresh_seeds_hold() {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970");
    let first = now.as_secs();
    all_hold(&[first, first + 1, first + 2]);
}

#[test]
fn many_seeds_are_runs_of_whole_nodes() {
    let mut program = Command::new(env!("CARGO_BIN_EXE_simulations"));
    let calm = ["--seeds", "3..=4", "--nodes", "2", "--agents", "3", "--faults", "none"];
    let output = program.args(calm).args(["--faulty-for", "1"]).output().expect("it runs");
    let report = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && report.starts_with("2 seeds in "), "{report}");
    assert!(report.contains("whole nodes") && report.ends_with("0 failed []\n"), "{report}");
}
