//! The `arc-relay` binary: reads the command line and the configuration, then hands over.
//!
//! Owns the process: its exit code, its logging, its limit on open files and its runtime. What goes
//! wrong before there is logging is said on stderr.

use std::{
    env,
    io::{self, Write},
    process::ExitCode,
};

use anyhow::Context;
use clap::Parser;
use node::{
    agent,
    cli::{Cli, Command},
    config::{self, Loaded, Problems, Sources},
    files,
    life::LifeError,
    logging,
    run::RunError,
};
use tls::mesh::Secret;
use tracing::{info, warn};

/// Exit code for what an operator must mend, so that starting again is no use: a configuration that may
/// not be used, or a data directory that runs twice. clap uses it for bad flags too.
const BAD_CONFIGURATION: u8 = 2;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match cli.command {
        Some(Command::Agent(command)) => act(agent::run(command)),
        Some(Command::Agents(command)) => act(agent::run_agents(command)),
        Some(Command::Cluster(command)) => act(agent::run_cluster(command)),
        Some(Command::Backup(args)) => act(agent::run_backup(args)),
        Some(Command::Secret) => new_secret().map(|()| ExitCode::SUCCESS),
        Some(Command::Status(args)) => act(agent::run_status(args)),
        None => start(cli).map(|()| ExitCode::SUCCESS),
    };
    match done {
        Ok(code) => code,
        Err(error) => {
            // Nothing can be done if stderr is closed, too.
            let _ = writeln!(io::stderr(), "arc-relay: {error:#}");
            let displaced =
                |error: &RunError| matches!(error, RunError::Life(LifeError::Displaced));
            if error.is::<Problems>() || error.downcast_ref().is_some_and(displaced) {
                ExitCode::from(BAD_CONFIGURATION)
            } else {
                ExitCode::FAILURE
            }
        }
    }
}

fn start(cli: Cli) -> anyhow::Result<()> {
    if cli.config_table {
        return print(&config::markdown_table());
    }
    let directory = env::current_dir().context("cannot tell the working directory")?;
    let sources = Sources::gather(cli.settings.0, cli.config.as_deref(), &directory);
    if cli.check_config {
        return print(&format!("{}\n", config::check(&sources)?));
    }
    run(config::load(&sources)?)
}

fn run(Loaded { mut config, notices, .. }: Loaded) -> anyhow::Result<()> {
    let _log = logging::init(&config.log)?;
    for notice in notices {
        if notice.is_warning() { warn!("{notice}") } else { info!("{notice}") }
    }
    if let Some(shortage) =
        files::shortage(config.limits.max_connections, files::raise_file_limit())
    {
        warn!("{shortage}");
        config.limits.max_connections = shortage.fits;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    Ok(runtime.block_on(node::run::run(config))?)
}

/// Runs a client's command, which needs no more than one thread.
fn act(command: impl Future<Output = ExitCode>) -> anyhow::Result<ExitCode> {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_all().build().context("cannot start the runtime")?;
    let code = runtime.block_on(command);
    // A write to a pipe that nobody reads may never end.
    runtime.shutdown_background();
    Ok(code)
}

fn new_secret() -> anyhow::Result<()> {
    let secret = Secret::generate().reveal();
    print(&format!("{}\n", *secret))
}

fn print(text: &str) -> anyhow::Result<()> {
    io::stdout().write_all(text.as_bytes()).context("cannot write to stdout")
}
