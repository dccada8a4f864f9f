//! The client in the relay's own binary: `arc-relay agent …` for agents; `arc-relay agents …`,
//! `cluster …`, `backup`, `health`, `status` and `tls` for their operator.
//!
//! Owns its options, its output and its exit codes. Starts no task and no logging, reads no
//! configuration of the relay, and shows a token to nobody but the user who asked for it.

mod admin;
mod agents;
mod args;
mod backup;
mod cluster;
pub(crate) mod connect;
pub(crate) mod failure;
mod health;
mod http;
mod listen;
mod message;
mod output;
mod ping;
mod recovery;
mod register;
mod secret;
mod send;
mod session;
pub(crate) mod status;
mod subscribe;
mod table;
mod text;
mod tls;
pub(crate) mod url;

#[cfg(test)]
mod end_to_end_tests;
#[cfg(test)]
mod test_relay;

use std::{net::SocketAddr, process::ExitCode};

pub use self::{
    agents::AgentsCommand, backup::BackupArgs, cluster::ClusterCommand, health::HealthArgs,
    status::StatusArgs, tls::TlsCommand,
};
use self::{failure::Failure, output::Output};
use crate::clock::Clock;

/// The table of exit codes, as `--help` shows it.
pub const EXIT_CODES: &str = failure::EXIT_CODES;

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

/// Runs a command of `arc-relay agent` and tells how it ended, on standard error and by exit code.
///
/// A write to a pipe that nobody reads may still be waiting when this returns: end the runtime with
/// `shutdown_background`, or the process stays until somebody reads.
pub async fn run(command: Command) -> ExitCode {
    let mut output = Output::of_process();
    let outcome = carry_out(command, &mut output, &Clock::system(), listen::interrupted()).await;
    output.conclude(outcome).await
}

/// Runs a command of `arc-relay agents`, like [`run`].
pub async fn run_agents(command: AgentsCommand) -> ExitCode {
    let mut output = Output::of_process();
    let outcome = agents::run(command, &mut output).await;
    output.conclude(outcome).await
}

/// Runs a command of `arc-relay cluster`, like [`run`].
pub async fn run_cluster(command: ClusterCommand) -> ExitCode {
    let mut output = Output::of_process();
    let outcome = cluster::run(command, &mut output).await;
    output.conclude(outcome).await
}

/// Runs `arc-relay backup` of a running relay, like [`run`].
pub async fn run_backup(args: BackupArgs) -> ExitCode {
    let mut output = Output::of_process();
    let outcome = backup::run(&args, &mut output).await;
    output.conclude(outcome).await
}

/// Runs `arc-relay status`, like [`run`].
pub async fn run_status(args: StatusArgs) -> ExitCode {
    let mut output = Output::of_process();
    let outcome = status::run(&args, &mut output).await;
    output.conclude(outcome).await
}

/// Runs `arc-relay health` of the relay whose ops listener is bound to `ops`, like [`run`].
pub async fn run_health(args: HealthArgs, ops: SocketAddr) -> ExitCode {
    let mut output = Output::of_process();
    let outcome = health::run(&args, ops, &mut output).await;
    output.conclude(outcome).await
}

/// Runs `arc-relay tls`, like [`run`], with exit codes of its own.
pub async fn run_tls(command: TlsCommand) -> ExitCode {
    tls::run(command, Output::of_process(), &Clock::system()).await
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
