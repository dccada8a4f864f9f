//! The client in the relay's own binary: `arc-relay agent …` for agents; `arc-relay agents …`,
//! `backup`, `bench`, `cluster …`, `doctor`, `drain`, `events`, `health`, `nodes`, `status` and `tls` for
//! their operator.
//!
//! Owns its options, its output and its exit codes. Starts no task (but for `bench`) and no logging, reads no
//! configuration of the relay (but for `doctor`, which judges it), and shows a token to nobody but the user
//! who asked for it.

mod admin;
mod agents;
mod args;
mod backup;
mod bench;
mod cluster;
mod confirm;
pub(crate) mod connect;
mod doctor;
mod drain;
mod events;
pub(crate) mod failure;
mod health;
mod http;
mod listen;
mod message;
mod nodes;
mod output;
mod paint;
mod ping;
pub(crate) mod progress;
mod recovery;
mod register;
mod screen;
mod secret;
mod send;
mod session;
pub(crate) mod status;
mod subscribe;
mod table;
pub(crate) mod text;
mod tls;
pub(crate) mod url;
mod whole;

#[cfg(test)]
mod end_to_end_tests;
#[cfg(test)]
mod test_relay;

use std::{net::SocketAddr, process::ExitCode};

use self::failure::Failure;
pub(crate) use self::paint::Paint;
pub use self::{
    agents::AgentsArgs,
    backup::BackupArgs,
    bench::BenchArgs,
    cluster::ClusterCommand,
    confirm::Consent,
    doctor::{DoctorArgs, EXIT_CODES as DOCTOR_EXIT_CODES},
    drain::DrainArgs,
    events::EventsArgs,
    failure::FailureReport,
    health::HealthArgs,
    nodes::NodesArgs,
    output::Output,
    status::StatusArgs,
    tls::TlsCommand,
};
use crate::{clock::Clock, config::Sources};

/// The table of exit codes, as `--help` shows it.
pub const EXIT_CODES: &str = failure::EXIT_CODES;

/// What the help of `bench` says after its options.
pub const BENCH_HELP: &str = bench::HELP;

/// What an agent can do from the command line.
///
/// One agent has one live session: a command run with the token of an agent that listens elsewhere
/// takes its place there (PROTOCOL section 3).
#[derive(clap::Subcommand, Clone, Debug)]
pub enum Command {
    /// Register a name and get its token
    #[command(after_help = failure::EXIT_CODES)]
    Register(register::Args),
    /// Connect, and measure how long the relay takes to answer
    #[command(after_help = failure::EXIT_CODES)]
    Ping(ping::Args),
    /// Send one message, and wait until the relay has taken it
    #[command(after_help = failure::EXIT_CODES)]
    Send(send::Args),
    /// Print messages as they come; reconnects by itself, and Ctrl-C ends it
    #[command(after_help = failure::EXIT_CODES)]
    Listen(listen::Args),
    /// Follow other agents, or see whom you follow
    #[command(after_help = failure::EXIT_CODES)]
    Subscribe(subscribe::Args),
}

/// Runs a command of `arc-relay agent` and tells `output` how it ended, and the system by exit code.
///
/// A write to a pipe that nobody reads may still be waiting when this returns: end the runtime with
/// `shutdown_background`, or the process stays until somebody reads.
pub async fn run(command: Command, mut output: Output) -> ExitCode {
    let outcome = carry_out(command, &mut output, &Clock::system(), listen::interrupted()).await;
    output.conclude(outcome).await
}

/// Runs a command of `arc-relay agents`, like [`run`].
pub async fn run_agents(args: AgentsArgs, mut output: Output) -> ExitCode {
    let outcome = agents::run(args, &mut output).await;
    output.conclude(outcome).await
}

/// Runs a command of `arc-relay cluster`, like [`run`].
pub async fn run_cluster(command: ClusterCommand, mut output: Output) -> ExitCode {
    let outcome = cluster::run(command, &mut output).await;
    output.conclude(outcome).await
}

/// Runs `arc-relay backup` of a running relay, like [`run`].
pub async fn run_backup(args: BackupArgs, mut output: Output) -> ExitCode {
    let outcome = backup::run(&args, &mut output).await;
    output.conclude(outcome).await
}

/// Runs `arc-relay bench`, like [`run`], on a runtime of several threads.
pub async fn run_bench(args: BenchArgs, mut output: Output) -> ExitCode {
    let stop = listen::interrupted();
    let outcome = bench::run(&args, &mut output, &Clock::system(), stop).await;
    output.conclude(outcome).await
}

/// Runs `arc-relay status`, like [`run`].
pub async fn run_status(args: StatusArgs, mut output: Output) -> ExitCode {
    let outcome = status::run(&args, &mut output, listen::interrupted()).await;
    output.conclude(outcome).await
}

/// Runs `arc-relay nodes`, like [`run`].
pub async fn run_nodes(args: NodesArgs, mut output: Output) -> ExitCode {
    let outcome = nodes::run(&args, &mut output).await;
    output.conclude(outcome).await
}

/// Runs `arc-relay events`, like [`run`].
pub async fn run_events(args: EventsArgs, mut output: Output) -> ExitCode {
    let outcome = events::run(&args, &mut output, listen::interrupted()).await;
    output.conclude(outcome).await
}

/// Runs `arc-relay doctor` for the node that `sources` configure, like [`run`], with exit codes of its own.
pub async fn run_doctor(args: DoctorArgs, sources: &Sources, mut output: Output) -> ExitCode {
    doctor::run(&args, sources, &Clock::system(), &mut output).await
}

/// Runs `arc-relay drain`, like [`run`].
pub async fn run_drain(args: DrainArgs, mut output: Output) -> ExitCode {
    let outcome = drain::run(&args, &mut output).await;
    output.conclude(outcome).await
}

/// Runs `arc-relay health` of the relay whose ops listener is bound to `ops`, like [`run`].
pub async fn run_health(args: HealthArgs, ops: SocketAddr, mut output: Output) -> ExitCode {
    let outcome = health::run(&args, ops, &mut output).await;
    output.conclude(outcome).await
}

/// Runs `arc-relay tls`, like [`run`], with exit codes of its own.
pub async fn run_tls(command: TlsCommand, output: Output) -> ExitCode {
    tls::run(command, output, &Clock::system()).await
}

/// `stop` ends what would go on for ever.
async fn carry_out(
    command: Command,
    output: &mut Output,
    clock: &Clock,
    stop: impl Future<Output = ()>,
) -> Result<(), Failure> {
    match command {
        Command::Register(args) => register::run(&args, output).await,
        Command::Ping(args) => ping::run(&args, output, clock).await,
        Command::Send(args) => send::run(&args, output).await,
        Command::Listen(args) => listen::run(&args, output, clock, stop).await,
        Command::Subscribe(args) => subscribe::run(&args, output).await,
    }
}
