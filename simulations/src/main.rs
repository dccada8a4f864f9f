//! The simulations' command line: one seed with a readable report, or many with a summary.

mod registries;

use std::{
    collections::BTreeMap,
    fmt,
    io::Write,
    num::NonZero,
    ops::RangeInclusive,
    process::ExitCode,
    sync::OnceLock,
    thread,
    time::{Duration, Instant},
};

use clap::Parser;
use simulations::{
    core::{Faults, Options},
    verdict::{self, Verdict},
    whole,
};
use tracing_subscriber::fmt::{format::Writer, time::FormatTime};

/// How many seconds things go wrong in, if nothing else is said.
const FAULTY_FOR: u64 = 14;

/// Simulates clusters of arc-relay under faults, and holds what happens against its promises.
#[derive(Debug, Parser)]
#[command(name = "simulations")]
struct Args {
    /// The rng seed of the run
    #[arg(long, default_value_t = 1, conflicts_with = "seeds")]
    seed: u64,
    /// Many seeds, such as 1..=1000: only a summary, and what fails
    #[arg(long, value_parser = range)]
    seeds: Option<RangeInclusive<u64>>,
    /// Nodes of the cluster; with many seeds 3 to 5, by seed
    #[arg(long)]
    nodes: Option<usize>,
    /// Regions that the nodes are in, in turn; with many seeds 1 or 2, by seed
    #[arg(long)]
    regions: Option<usize>,
    /// Agents
    #[arg(long, default_value_t = 20)]
    agents: usize,
    /// all, none, or some of loss,cut,block,one-way,partition,crash,hang,slow,skew,join,drain
    ///
    /// With --registry of loss,late,cut,one-way,partition,crash,majority,vote,hang,stall,slow,disk,
    /// wipe,skew
    #[arg(long, default_value = "all")]
    faults: String,
    /// Seconds in which things go wrong, before all is left to heal
    #[arg(long)]
    faulty_for: Option<u64>,
    /// The engines alone, without sockets: thousands of seeds in minutes. Of whole nodes each seed is a
    /// process of its own
    #[arg(long)]
    core: bool,
    #[command(flatten)]
    registry: registries::RegistryArgs,
    /// Tell what happens to this agent, by its number
    #[arg(long, conflicts_with = "seeds")]
    agent: Option<usize>,
    /// And to these messages, by their numbers
    #[arg(long, requires = "agent", value_delimiter = ',')]
    messages: Vec<usize>,
    /// Tell it from this second on
    #[arg(long, requires = "agent", default_value_t = 0)]
    from: u64,
    /// Go on after a seed that fails
    #[arg(long)]
    keep_going: bool,
}

/// What the clock of a run says, since its first line.
struct SimulatedTime;

impl FormatTime for SimulatedTime {
    #[allow(clippy::disallowed_methods)] // who reads the log is no part of the run
    fn format_time(&self, line: &mut Writer<'_>) -> fmt::Result {
        static FIRST: OnceLock<tokio::time::Instant> = OnceLock::new();
        let now = tokio::time::Instant::now();
        let since = now.duration_since(*FIRST.get_or_init(|| now));
        write!(line, "{:8.3}", since.as_secs_f64())
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    // What the nodes themselves log, for who looks into a run: RUST_LOG=node=debug,cluster=trace.
    if std::env::var_os("RUST_LOG").is_some() {
        let filter = tracing_subscriber::EnvFilter::from_default_env();
        tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_timer(SimulatedTime)
            .with_writer(std::io::stderr)
            .init();
    }
    #[allow(clippy::disallowed_methods)] // how long runs take is no part of them
    let clock = Instant::now();
    if args.registry.registry {
        let sound = registries::run(&args, clock);
        return if sound { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    if let Err(error) = args.faults.parse::<Faults>() {
        say(&error.to_string());
        return ExitCode::FAILURE;
    }
    let sound = match &args.seeds {
        Some(seeds) if args.core => many(&args, seeds.clone(), clock),
        Some(seeds) => many_of_whole_nodes(&args, seeds.clone(), clock),
        None if args.core => one(&args, clock),
        None => one_of_whole_nodes(&args, clock),
    };
    if sound { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs one seed; says whether it keeps the promises.
fn one(args: &Args, clock: Instant) -> bool {
    let verdict = verdict::judge(args.seed, &args.options(args.seed));
    let took = clock.elapsed();
    if let Some(agent) = args.agent {
        say(&verdict.story(agent, &args.messages, Duration::from_secs(args.from)));
    }
    say(&verdict.report());
    say(&format!("  took       {:.0} ms", took.as_secs_f64() * 1e3));
    if let Some(explanation) = verdict.explanation() {
        say(&explanation);
    }
    verdict.breaches.is_empty()
}

/// Runs one seed of whole nodes; says whether it keeps the promises.
fn one_of_whole_nodes(args: &Args, clock: Instant) -> bool {
    let report = whole::run(args.seed, &args.options(args.seed));
    let took = clock.elapsed();
    if let Some(agent) = args.agent {
        let from = Duration::from_secs(args.from);
        let story = report.story(&[agent], &args.messages, from, Duration::MAX);
        say(&story.join("\n"));
    }
    say(&report.text());
    say(&format!("  took       {:.0} ms", took.as_secs_f64() * 1e3));
    if let Some(explanation) = report.explanation() {
        say(&explanation);
    }
    report.breaches.is_empty()
}

/// Runs many seeds; says whether all keep the promises.
fn many(args: &Args, seeds: RangeInclusive<u64>, clock: Instant) -> bool {
    let (mut ran, mut failed, mut messages) = (0_u64, Vec::new(), 0);
    let mut broken: BTreeMap<&str, u64> = BTreeMap::new();
    for seed in seeds {
        let verdict = verdict::judge(seed, &args.options(seed));
        ran += 1;
        messages += verdict.outcome.history.messages.len();
        let Some(breach) = verdict.breaches.first() else { continue };
        *broken.entry(breach.promise).or_default() += 1;
        failed.push(seed);
        if args.keep_going {
            say(&brief(&verdict));
        } else {
            say(&verdict.explanation().unwrap_or_default());
            break;
        }
    }
    summarize(clock, ran, &format!("{messages} messages, "), &failed, &broken);
    failed.is_empty()
}

/// Runs many seeds of whole nodes, each in a process of its own; says whether all keep the promises.
fn many_of_whole_nodes(args: &Args, seeds: RangeInclusive<u64>, clock: Instant) -> bool {
    let program = match std::env::current_exe() {
        Ok(program) => program,
        Err(error) => {
            say(&format!("cannot find this very program to run it for each seed: {error}"));
            return false;
        }
    };
    let batch = whole::Batch {
        program,
        arguments: args.of_one_run(),
        at_a_time: thread::available_parallelism().map_or(1, NonZero::get),
        keeps_going: args.keep_going,
    };
    let outcomes = batch.run(seeds, |outcome| {
        if !outcome.holds {
            say(&if args.keep_going { outcome.brief() } else { outcome.report.clone() });
        }
    });
    let outcomes = match outcomes {
        Ok(outcomes) => outcomes,
        Err(error) => {
            say(&format!("cannot run this very program for each seed: {error}"));
            return false;
        }
    };
    let failed: Vec<_> = outcomes.iter().filter(|outcome| !outcome.holds).collect();
    let mut broken = BTreeMap::new();
    for promise in failed.iter().filter_map(|outcome| outcome.broken()) {
        *broken.entry(promise).or_default() += 1;
    }
    let numbers: Vec<u64> = failed.iter().map(|outcome| outcome.seed).collect();
    summarize(clock, outcomes.len() as u64, "of whole nodes, ", &numbers, &broken);
    failed.is_empty()
}

fn summarize(clock: Instant, ran: u64, what: &str, failed: &[u64], broken: &BTreeMap<&str, u64>) {
    let took = clock.elapsed();
    let rate = 60.0 * f64::from(u32::try_from(ran).unwrap_or(u32::MAX)) / took.as_secs_f64();
    say(&format!(
        "{ran} seeds in {:.1} s ({rate:.0} a minute), {what}{} failed {failed:?}",
        took.as_secs_f64(),
        failed.len()
    ));
    for (promise, times) in broken {
        say(&format!("  {times} seeds broke first: {promise}"));
    }
}

fn brief(verdict: &Verdict) -> String {
    let first = verdict.breaches.first().map(ToString::to_string).unwrap_or_default();
    format!("seed {}: {} breaches; {first}", verdict.seed, verdict.breaches.len())
}

impl Args {
    fn options(&self, seed: u64) -> Options {
        let base = Options {
            agents: self.agents,
            faults: self.faults.parse().unwrap_or_default(),
            faulty_for: Duration::from_secs(self.faulty_for.unwrap_or(FAULTY_FOR)),
            ..Options::default()
        };
        let varied = base.varied(seed);
        Options {
            nodes: self.nodes.unwrap_or(varied.nodes),
            regions: self.regions.unwrap_or(varied.regions),
            ..varied
        }
    }
}

impl Args {
    /// What a run is told that is one of many, beside its seed.
    fn of_one_run(&self) -> Vec<String> {
        let (agents, faulty_for) =
            (self.agents.to_string(), self.faulty_for.unwrap_or(FAULTY_FOR).to_string());
        let mut told = vec!["--agents".into(), agents, "--faulty-for".into(), faulty_for];
        told.extend(["--faults".into(), self.faults.clone()]);
        for (name, number) in [("--nodes", self.nodes), ("--regions", self.regions)] {
            told.extend(number.into_iter().flat_map(|n| [name.to_owned(), n.to_string()]));
        }
        told
    }
}

/// A range as Rust writes it, `1..=1000` or `1..1001`.
fn range(text: &str) -> Result<RangeInclusive<u64>, String> {
    let error = || format!("{text:?} is no range of seeds: write 1..=1000");
    let (from, to) = text.split_once("..").ok_or_else(error)?;
    let from: u64 = from.parse().map_err(|_| error())?;
    let last = match to.strip_prefix('=') {
        Some(last) => last.parse().map_err(|_| error())?,
        None => to.parse::<u64>().ok().and_then(|end| end.checked_sub(1)).ok_or_else(error)?,
    };
    Ok(from..=last)
}

/// Writes a line. If nobody reads any more, there is nobody to tell.
fn say(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}
