//! The `arc-relay` binary: reads the command line and the configuration, then hands over.
//!
//! Owns the process: its exit code, its logging, its limit on open files and its runtime. What goes
//! wrong before there is logging is said on stderr.

use std::{
    env,
    io::{self, Write},
    path::Path,
    process::ExitCode,
    time::Duration,
};

use anyhow::Context;
use clap::Parser;
use node::{
    agent::{self, BackupArgs, DoctorArgs, HealthArgs},
    backup::{self, BackupFileError},
    cli::{Cli, Command, RestoreArgs, SettingFlags},
    clock::Clock,
    config::{self, Loaded, Problems, Sources},
    files,
    life::LifeError,
    logging, manual,
    run::RunError,
};
use tls::mesh::Secret;
use tracing::{info, warn};

/// Exit code for what an operator must mend, so that starting again is no use: a configuration that may
/// not be used, or a data directory that runs twice. clap uses it for bad flags too.
const BAD_CONFIGURATION: u8 = 2;

/// How long threads that block may hold up the end of the process: what they have to save, they have.
const LAST_THREADS: Duration = Duration::from_secs(5);

fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match cli.command {
        Some(Command::Agent(command)) => act(agent::run(command)),
        Some(Command::Agents(args)) => act(agent::run_agents(args)),
        Some(Command::Cluster(command)) => act(agent::run_cluster(command)),
        Some(Command::Backup(BackupArgs { offline: Some(data_dir), file, force, .. })) => {
            back_up_offline(cli.settings, cli.config.as_deref(), &data_dir, &file, force)
        }
        Some(Command::Backup(args)) => act(agent::run_backup(args)),
        Some(Command::Bench(args)) => act_on_all_cores(agent::run_bench(args)),
        Some(Command::Restore(args)) => restore(cli.settings, cli.config.as_deref(), &args),
        Some(Command::Health(args)) => health(cli.settings, cli.config.as_deref(), args),
        Some(Command::Doctor(args)) => doctor(cli.settings, cli.config.as_deref(), args),
        Some(Command::Secret) => new_secret().map(|()| ExitCode::SUCCESS),
        Some(Command::Status(args)) => act(agent::run_status(args)),
        Some(Command::Nodes(args)) => act(agent::run_nodes(args)),
        Some(Command::Events(args)) => act(agent::run_events(args)),
        Some(Command::Drain(args)) => act(agent::run_drain(args)),
        Some(Command::Tls(command)) => act(agent::run_tls(command)),
        Some(Command::Completions { shell }) => {
            print_bytes(&manual::completions(shell)).map(|()| ExitCode::SUCCESS)
        }
        Some(Command::Man { folder }) => man(folder.as_deref()).map(|()| ExitCode::SUCCESS),
        None => start(cli).map(|()| ExitCode::SUCCESS),
    };
    match done {
        Ok(code) => code,
        Err(error) => {
            // Nothing can be done if stderr is closed, too.
            let _ = writeln!(io::stderr(), "arc-relay: {error:#}");
            let displaced =
                |error: &RunError| matches!(error, RunError::Life(LifeError::Displaced));
            if error.is::<Problems>()
                || error.downcast_ref().is_some_and(displaced)
                || error.downcast_ref().is_some_and(BackupFileError::is_misuse)
            {
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
    let sources = sources(cli.settings, cli.config.as_deref())?;
    if cli.check_config {
        return print(&format!("{}\n", config::check(&sources)?));
    }
    run(config::load(&sources)?)
}

fn sources(settings: SettingFlags, file: Option<&Path>) -> anyhow::Result<Sources> {
    let directory = env::current_dir().context("cannot tell the working directory")?;
    Ok(Sources::gather(settings.0, file, &directory))
}

fn back_up_offline(
    settings: SettingFlags,
    config: Option<&Path>,
    data_dir: &Path,
    file: &Path,
    force: bool,
) -> anyhow::Result<ExitCode> {
    let mesh = config::load(&sources(settings, config)?)?.config.mesh;
    let clock = Clock::system();
    let told = act(backup::back_up_offline(data_dir, file, force, &mesh, &clock))??;
    print(&format!("{told}\n")).map(|()| ExitCode::SUCCESS)
}

fn restore(
    settings: SettingFlags,
    config: Option<&Path>,
    args: &RestoreArgs,
) -> anyhow::Result<ExitCode> {
    let mesh = config::load(&sources(settings, config)?)?.config.mesh;
    let clock = Clock::system();
    let told = act(backup::restore(&args.file, &args.data_dir, &mesh, &clock))??;
    print(&format!("{told}\n")).map(|()| ExitCode::SUCCESS)
}

fn health(
    settings: SettingFlags,
    config: Option<&Path>,
    args: HealthArgs,
) -> anyhow::Result<ExitCode> {
    let config = config::load(&sources(settings, config)?)?.config;
    act(agent::run_health(args, (config.stats_host, config.stats_port).into()))
}

fn doctor(
    settings: SettingFlags,
    config: Option<&Path>,
    args: DoctorArgs,
) -> anyhow::Result<ExitCode> {
    let sources = sources(settings, config)?;
    act(agent::run_doctor(args, &sources))
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
    let ended = runtime.block_on(node::run::run(config));
    // The look-up of a name cannot be given up, and nobody waits for it any more.
    runtime.shutdown_timeout(LAST_THREADS);
    Ok(ended?)
}

/// Runs a command that needs no more than one thread.
fn act<T>(command: impl Future<Output = T>) -> anyhow::Result<T> {
    act_on(&mut tokio::runtime::Builder::new_current_thread(), command)
}

/// Runs a command that has work for every core.
fn act_on_all_cores<T>(command: impl Future<Output = T>) -> anyhow::Result<T> {
    act_on(&mut tokio::runtime::Builder::new_multi_thread(), command)
}

fn act_on<T>(
    runtime: &mut tokio::runtime::Builder,
    command: impl Future<Output = T>,
) -> anyhow::Result<T> {
    let runtime = runtime.enable_all().build().context("cannot start the runtime")?;
    let done = runtime.block_on(command);
    // A write to a pipe that nobody reads may never end.
    runtime.shutdown_background();
    Ok(done)
}

fn new_secret() -> anyhow::Result<()> {
    let secret = Secret::generate().reveal();
    print(&format!("{}\n", *secret))
}

fn man(folder: Option<&Path>) -> anyhow::Result<()> {
    let Some(folder) = folder else {
        return print_bytes(&manual::page().context("cannot make the manual page")?);
    };
    let pages = manual::pages(folder)
        .with_context(|| format!("cannot write manual pages into {}", folder.display()))?;
    print(&format!("wrote {pages} pages into {}\n", folder.display()))
}

fn print(text: &str) -> anyhow::Result<()> {
    print_bytes(text.as_bytes())
}

fn print_bytes(text: &[u8]) -> anyhow::Result<()> {
    match io::stdout().write_all(text) {
        // `… | head -1` has had all that it wanted.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written.context("cannot write to stdout"),
    }
}
