//! Whole nodes keep the relay's promises, and a seed is a run: the simulations' program, as CI and
//! engineers call it. Each run is a process of its own, since only then it is repeatable.

use std::{
    process::{Command, Output},
    thread,
    time::{SystemTime, UNIX_EPOCH},
};

/// Seeds whose runs have a bit of everything: crashes, drains, partitions, loss, two regions.
const SEEDS: [u64; 3] = [1, 5, 8];

/// What may go wrong in seeds that are drawn anew: see `regressions.rs`.
const FRESH_FAULTS: &str = "loss,cut,crash,slow,skew,join,drain";

fn run(seed: u64, faults: &str) -> Output {
    let mut program = Command::new(env!("CARGO_BIN_EXE_simulations"));
    let program = program.args(["--seed", &seed.to_string(), "--faults", faults]);
    program.output().expect("the program runs")
}

/// Runs seeds two at a time, and returns their reports.
fn all_hold(seeds: &[u64], faults: &'static str) -> Vec<String> {
    let both = |pair: &[u64]| {
        let started: Vec<_> = pair
            .iter()
            .copied()
            .map(|seed| (seed, thread::spawn(move || run(seed, faults))))
            .collect();
        let ended = started.into_iter().map(|(seed, run)| (seed, run.join().expect("it ends")));
        ended.collect::<Vec<_>>()
    };
    let pairs = seeds.chunks(2).flat_map(both);
    let mut reports = Vec::new();
    for (seed, output) in pairs {
        let report = String::from_utf8_lossy(&output.stdout).into_owned();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "seed {seed} fails:\n{report}\n{errors}");
        reports.push(report);
    }
    reports
}

/// The identity of all that happened in a run.
fn digest(report: &str) -> &str {
    let line = report.lines().find(|line| line.trim_start().starts_with("digest"));
    line.expect("a report has a digest")
}

#[test]
fn known_seeds_hold() {
    all_hold(&SEEDS, "all");
}

#[test]
fn a_seed_is_a_run_bit_for_bit() {
    let reports = all_hold(&[SEEDS[0], SEEDS[0], SEEDS[1]], "all");
    assert_eq!(digest(&reports[0]), digest(&reports[1]));
    assert_ne!(digest(&reports[0]), digest(&reports[2]));
}

#[test]
#[allow(clippy::disallowed_methods)] // fresh seeds must come from somewhere; a failure prints them
fn fresh_seeds_hold() {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970");
    let first = now.as_secs();
    all_hold(&[first, first + 1, first + 2], FRESH_FAULTS);
}
