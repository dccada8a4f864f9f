//! The seeds that have found something, and twenty that nobody has seen before.

use std::fmt::Write;

use rand::Rng;
use simulations::{
    core::{Faults, KINDS, Options},
    verdict::{self, Verdict},
};

/// Seeds that are drawn anew each time.
const FRESH: usize = 20;

/// A line of the file of seeds.
fn parsed(line: &str) -> Option<(u64, Options)> {
    let mut words = line.split_whitespace();
    let seed = words.next()?.parse().ok()?;
    let mut number = || words.next()?.parse::<usize>().ok();
    let (nodes, regions, agents) = (number()?, number()?, number()?);
    let faults = words.next()?.parse().ok()?;
    Some((seed, Options { nodes, regions, agents, faults, ..Options::default() }))
}

/// Fails with all that was found.
fn assert_sound(verdicts: impl Iterator<Item = Verdict>) {
    let mut found = String::new();
    for explanation in verdicts.filter_map(|verdict| verdict.explanation()) {
        let _ = writeln!(found, "{explanation}");
    }
    assert!(found.is_empty(), "{found}");
}

#[test]
fn seeds_that_found_something_find_nothing_now() {
    let lines = include_str!("../seeds").lines().filter(|line| !line.starts_with('#'));
    let runs: Vec<(u64, Options)> =
        lines.map(|line| parsed(line).unwrap_or_else(|| panic!("no seed: {line}"))).collect();
    assert!(!runs.is_empty());
    assert_sound(runs.iter().map(|(seed, options)| verdict::judge(*seed, options)));
}

#[test]
fn fresh_seeds_find_nothing() {
    let seeds: Vec<u64> = (0..FRESH).map(|_| u64::from(rand::rng().random::<u32>())).collect();
    println!("fresh seeds: {seeds:?}");
    // All kinds together leave little time to each; so every other seed has one kind to itself.
    let one_kind = |seed: u64| {
        let kinds = KINDS.len() as u64;
        let (kind, _) = KINDS[usize::try_from(seed / 2 % kinds).unwrap_or_default()];
        Faults([kind].into())
    };
    let run = |seed: u64| {
        let faults = if seed.is_multiple_of(2) { Faults::all() } else { one_kind(seed) };
        verdict::judge(seed, &Options { faults, ..Options::default() }.varied(seed))
    };
    assert_sound(seeds.into_iter().map(run));
}

#[test]
fn one_seed_is_one_run() {
    let options = Options::default();
    let digest = |seed| verdict::judge(seed, &options).outcome.digest;
    assert_eq!(digest(7), digest(7));
    assert_ne!(digest(7), digest(8));
}
