//! The scale model's command line: runs it, and writes its tables and plots.

use std::{alloc::System, io::Write, path::PathBuf, time::Instant};

use cap::Cap;
use clap::Parser;
use simulations::{
    entropy,
    scale::{self, Plan},
};

/// Counts what is allocated, and limits nothing.
#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, usize::MAX);

/// Models how a hundred nodes in three regions carry a million agents.
#[derive(Debug, Parser)]
#[command(name = "scale")]
struct Args {
    /// The rng seed of the run
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// A few nodes and agents instead, in seconds
    #[arg(long)]
    small: bool,
    /// Agents, instead of a million
    #[arg(long)]
    agents: Option<usize>,
    /// Where the tables and plots go; without it the tables are printed
    #[arg(long)]
    write: Option<PathBuf>,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let plan = if args.small { Plan::small(args.seed) } else { Plan::full(args.seed) };
    let plan = Plan { agents: args.agents.unwrap_or(plan.agents), ..plan };
    #[allow(clippy::disallowed_methods)] // how long it takes is no part of the results
    let clock = Instant::now();
    let mut tell = |what: &str| {
        let mebibytes = ALLOCATOR.allocated() >> 20;
        let _ = writeln!(
            std::io::stderr(),
            "{:6.1} s {mebibytes:5} MiB  {what}",
            clock.elapsed().as_secs_f64()
        );
    };
    let allocated = || ALLOCATOR.allocated();
    let findings = entropy::seeded(args.seed, || scale::run(&plan, allocated, &mut tell))?;
    tell("done");
    match args.write {
        Some(folder) => findings.write(&folder)?,
        None => writeln!(std::io::stdout(), "{}", findings.text())?,
    }
    Ok(())
}
