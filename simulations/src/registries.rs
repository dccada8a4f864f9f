//! The command line's registries: one seed with a report, or many, each in a process of its own.

use std::{
    fmt,
    num::NonZero,
    ops::RangeInclusive,
    thread,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use simulations::{
    registry::{self, Options},
    whole::{Batch, Outcome},
};

use super::say;

/// What only registries have.
#[derive(Debug, clap::Args)]
pub(super) struct RegistryArgs {
    /// The registry on many nodes: its consensus, its store, and what nodes say to each other
    #[arg(long, conflicts_with = "core")]
    pub(super) registry: bool,
    /// Nodes that keep the book; by the seed 3 or 5
    #[arg(long, requires = "registry")]
    voters: Option<usize>,
    /// Nodes that only observe
    #[arg(long, requires = "registry")]
    observers: Option<usize>,
    /// Entries of the log between two snapshots; by the seed 40 or 10,000
    #[arg(long, requires = "registry")]
    snapshot_every: Option<u64>,
    /// Only what failed, and how much was looked at: for who runs many
    #[arg(long, requires = "registry", hide = true)]
    brief: bool,
}

/// Runs what the command line says; says whether all promises hold.
pub(super) fn run(args: &super::Args, clock: Instant) -> bool {
    match &args.seeds {
        Some(seeds) => many(args, seeds.clone(), clock),
        None => match options(args) {
            Ok(options) => one(args, &options, clock),
            Err(error) => {
                say(&error);
                false
            }
        },
    }
}

fn options(args: &super::Args) -> Result<Options, String> {
    let base = Options::of(args.seed);
    Ok(Options {
        voters: args.registry.voters.unwrap_or(base.voters),
        observers: args.registry.observers.unwrap_or(base.observers),
        faults: args.faults.parse().map_err(|error: registry::UnknownFault| error.to_string())?,
        faulty_for: args.faulty_for.map_or(base.faulty_for, Duration::from_secs),
        snapshot_every: args.registry.snapshot_every.unwrap_or(base.snapshot_every),
    })
}

fn one(args: &super::Args, options: &Options, clock: Instant) -> bool {
    let report = registry::run(args.seed, options);
    let took = clock.elapsed();
    if args.registry.brief {
        let (names, undecided, calls) = (report.names(), report.undecided, report.calls());
        say(&Counts([names, undecided, calls]).to_string());
    } else {
        say(&report.text());
        say(&format!("  took       {:.0} ms", took.as_secs_f64() * 1e3));
    }
    if let Some(explanation) = report.explanation() {
        say(&explanation);
    }
    report.breaches.is_empty()
}

/// Each in a process of its own: only then is it what the seed alone is.
fn many(args: &super::Args, seeds: RangeInclusive<u64>, clock: Instant) -> bool {
    let counts = Mutex::new(Counts::default());
    let told = |outcome: &Outcome| {
        counts.lock().add(&outcome.report);
        if !outcome.holds {
            say(&format!("seed {}: {}", outcome.seed, outcome.report));
        }
    };
    let outcomes = std::env::current_exe().and_then(|program| {
        let arguments = arguments(args);
        let at_a_time = thread::available_parallelism().map_or(1, NonZero::get);
        Batch { program, arguments, at_a_time, keeps_going: args.keep_going }.run(seeds, told)
    });
    let outcomes = match outcomes {
        Ok(outcomes) => outcomes,
        Err(error) => {
            say(&format!("cannot run this very program for each seed: {error}"));
            return false;
        }
    };
    let failed = outcomes.iter().filter(|outcome| !outcome.holds);
    let failed: Vec<u64> = failed.map(|outcome| outcome.seed).collect();
    say(&format!(
        "{} seeds in {:.1} s, {}, {} failed {failed:?}",
        outcomes.len(),
        clock.elapsed().as_secs_f64(),
        counts.into_inner(),
        failed.len()
    ));
    failed.is_empty()
}

/// What a run is told that is one of many, beside its seed.
fn arguments(args: &super::Args) -> Vec<String> {
    let mut arguments = vec!["--registry".into(), "--brief".into()];
    arguments.extend(["--faults".into(), args.faults.clone()]);
    let numbers = [
        ("--voters", args.registry.voters.map(|it| it.to_string())),
        ("--observers", args.registry.observers.map(|it| it.to_string())),
        ("--snapshot-every", args.registry.snapshot_every.map(|it| it.to_string())),
        ("--faulty-for", args.faulty_for.map(|it| it.to_string())),
    ];
    for (name, number) in numbers {
        arguments.extend(number.into_iter().flat_map(|number| [name.to_owned(), number]));
    }
    arguments
}

/// How many names, names that could not be decided, and calls there were.
#[derive(Default)]
struct Counts([usize; 3]);

impl Counts {
    /// Adds what the first line of a brief report says.
    fn add(&mut self, report: &str) {
        let words = report.lines().next().unwrap_or_default().split_whitespace();
        for (sum, number) in
            self.0.iter_mut().zip(words.filter_map(|word| word.parse::<usize>().ok()))
        {
            *sum += number;
        }
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self([names, undecided, calls]) = self;
        write!(f, "{names} histories of names, {undecided} undecided, {calls} calls")
    }
}
