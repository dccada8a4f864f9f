//! The registry keeps its promises on many nodes, and a seed is a run: the simulations' program, as CI
//! and engineers call it. Each run is a process of its own, since only then it is repeatable.

use std::{
    process::Command,
    time::{SystemTime, UNIX_EPOCH},
};

use simulations::whole::Batch;

/// Seeds that are drawn anew each time, and for how many seconds things go wrong in them.
const FRESH: u64 = 20;
const FAULTY_FOR: &str = "5";

/// Runs at a time.
const AT_A_TIME: usize = 2;

/// Runs these seeds, and fails with all that was found.
fn assert_sound(seeds: impl Iterator<Item = u64> + Send, arguments: &[&str]) {
    let arguments = [&["--registry"], arguments].concat();
    let batch = Batch {
        program: env!("CARGO_BIN_EXE_simulations").into(),
        arguments: arguments.into_iter().map(str::to_owned).collect(),
        at_a_time: AT_A_TIME,
        keeps_going: true,
    };
    let outcomes = batch.run(seeds, |_| ()).expect("the program runs");
    let found: String =
        outcomes.into_iter().filter(|it| !it.holds).map(|outcome| outcome.report).collect();
    assert!(found.is_empty(), "{found}");
}

#[test]
fn seeds_that_found_something_find_nothing_now() {
    let lines = include_str!("../registry_seeds").lines().filter(|line| !line.starts_with('#'));
    let mut ran = 0;
    for line in lines {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [seed, voters, every, faults, faulty_for, ..] = words[..] else {
            panic!("no seed: {line}")
        };
        let seed: u64 = seed.parse().unwrap_or_else(|_| panic!("no seed: {line}"));
        let named = ["--voters", voters, "--snapshot-every", every, "--faults", faults];
        assert_sound(std::iter::once(seed), &[&named[..], &["--faulty-for", faulty_for]].concat());
        ran += 1;
    }
    assert!(ran > 0);
}

#[test]
#[allow(clippy::disallowed_methods)] // fresh seeds must come from somewhere; a failure prints them
fn fresh_seeds_find_nothing() {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970");
    let first = now.as_secs();
    assert_sound(first..first + FRESH, &["--faulty-for", FAULTY_FOR]);
}

#[test]
fn a_seed_is_a_run_bit_for_bit() {
    let digest = |seed: &str| {
        let mut program = Command::new(env!("CARGO_BIN_EXE_simulations"));
        let program = program.args(["--registry", "--seed", seed, "--faulty-for", "3"]);
        let output = program.output().expect("the program runs");
        let report = String::from_utf8_lossy(&output.stdout).into_owned();
        let mut lines = report.lines();
        let digest = lines.find(|line| line.trim_start().starts_with("digest")).map(str::to_owned);
        digest.unwrap_or_else(|| panic!("a report has a digest: {report}"))
    };
    assert_eq!(digest("7"), digest("7"));
    assert_ne!(digest("7"), digest("8"));
}
