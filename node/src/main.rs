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
use clap::{CommandFactory as _, FromArgMatches as _};
use node::{
    agent::{self, BackupArgs, DoctorArgs, FailureReport, HealthArgs, Output},
    backup::{self, BackupFileError, Done},
    cli::{self, Cli, Command, RestoreArgs, SettingFlags},
    clock::Clock,
    config::{self, Loaded, Problems, Sources},
    files,
    life::LifeError,
    logging, manual,
    run::RunError,
};
use tls::mesh::Secret;
use tracing::{info, warn};

/// Exit code for what may go well the next time.
const FAILED: u8 = 1;

/// Exit code for what an operator must mend, so that starting again is no use: a configuration that may
/// not be used, or a copy of the data directory that runs elsewhere. clap uses it for bad flags too. A data
/// directory that another process has open is not of these: that process may be about to end.
const BAD_CONFIGURATION: u8 = 2;

/// How long threads that block may hold up the end of the process: what they have to save, they have.
const LAST_THREADS: Duration = Duration::from_secs(5);

fn main() -> ExitCode {
    let read = Cli::command().try_get_matches().and_then(|matches| {
        let json = cli::wants_json(&matches);
        Cli::from_arg_matches(&matches).map(|cli| (cli, json))
    });
    match read {
        Ok((cli, json)) => carry_out(cli, json).unwrap_or_else(|error| fail(&error, json)),
        Err(error) => misread(&error),
    }
}

fn carry_out(cli: Cli, json: bool) -> anyhow::Result<ExitCode> {
    let output = || Output::of_process(json);
    match cli.command {
        Some(Command::Agent(command)) => act(agent::run(command, output())),
        Some(Command::Agents(args)) => act(agent::run_agents(args, output())),
        Some(Command::Cluster(command)) => act(agent::run_cluster(command, output())),
        Some(Command::Backup(BackupArgs { offline: Some(data_dir), file, force, .. })) => {
            let (from, to) = (&data_dir, &file);
            back_up_offline(cli.settings, cli.config.as_deref(), from, to, force, json)
        }
        Some(Command::Backup(args)) => act(agent::run_backup(args, output())),
        Some(Command::Bench(args)) => act_on_all_cores(agent::run_bench(args, output())),
        Some(Command::Restore(args)) => restore(cli.settings, cli.config.as_deref(), &args),
        Some(Command::Health(args)) => health(cli.settings, cli.config.as_deref(), args, output()),
        Some(Command::Doctor(args)) => doctor(cli.settings, cli.config.as_deref(), args, output()),
        Some(Command::Secret) => new_secret().map(|()| ExitCode::SUCCESS),
        Some(Command::Status(args)) => act(agent::run_status(args, output())),
        Some(Command::Nodes(args)) => act(agent::run_nodes(args, output())),
        Some(Command::Events(args)) => act(agent::run_events(args, output())),
        Some(Command::Drain(args)) => act(agent::run_drain(args, output())),
        Some(Command::Tls(command)) => act(agent::run_tls(command, output())),
        Some(Command::Completions { shell }) => {
            print_bytes(&manual::completions(shell)).map(|()| ExitCode::SUCCESS)
        }
        Some(Command::Man { folder }) => man(folder.as_deref()).map(|()| ExitCode::SUCCESS),
        None => start(cli).map(|()| ExitCode::SUCCESS),
    }
}

/// Tells why it did not go well; the exit code for it.
fn fail(error: &anyhow::Error, json: bool) -> ExitCode {
    let displaced = |error: &RunError| matches!(error, RunError::Life(LifeError::Displaced));
    let (code, exit_code) = if error.is::<Problems>() {
        ("invalid_configuration", BAD_CONFIGURATION)
    } else if error.downcast_ref().is_some_and(displaced) {
        ("displaced", BAD_CONFIGURATION)
    } else if let Some(error) = error.downcast_ref::<BackupFileError>() {
        (error.code(), if error.is_misuse() { BAD_CONFIGURATION } else { FAILED })
    } else {
        ("failed", FAILED)
    };
    let text = format!("{error:#}");
    let report = FailureReport::new(code, text.clone(), exit_code);
    say(&if json { report.json() } else { format!("arc-relay: {text}") });
    ExitCode::from(exit_code)
}

/// Tells that the command line is not understood, or what it asks to be told of it.
fn misread(error: &clap::Error) -> ExitCode {
    let json = error.use_stderr() && env::args_os().any(|argument| argument == "--json");
    if !json {
        error.exit();
    }
    let text = error.render().to_string();
    let told = text.split("\n\nUsage:").next().unwrap_or_default();
    let told = told.strip_prefix("error: ").unwrap_or(told).trim().to_owned();
    say(&FailureReport::new("usage", told, BAD_CONFIGURATION).json());
    ExitCode::from(BAD_CONFIGURATION)
}

fn say(line: &str) {
    // Nothing can be done if stderr is closed, too.
    let _ = writeln!(io::stderr(), "{line}");
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
    json: bool,
) -> anyhow::Result<ExitCode> {
    let mesh = config::load(&sources(settings, config)?)?.config.mesh;
    let clock = Clock::system();
    let done = act(backup::back_up_offline(data_dir, file, force, &mesh, &clock))??;
    print_done(done, json)
}

fn restore(
    settings: SettingFlags,
    config: Option<&Path>,
    args: &RestoreArgs,
) -> anyhow::Result<ExitCode> {
    let mesh = config::load(&sources(settings, config)?)?.config.mesh;
    let clock = Clock::system();
    let done = act(backup::restore(&args.file, &args.data_dir, &mesh, &clock))??;
    print_done(done, args.json)
}

fn print_done(Done { told, json }: Done, as_json: bool) -> anyhow::Result<ExitCode> {
    let told = if as_json { json } else { told };
    print(&format!("{told}\n")).map(|()| ExitCode::SUCCESS)
}

fn health(
    settings: SettingFlags,
    config: Option<&Path>,
    args: HealthArgs,
    output: Output,
) -> anyhow::Result<ExitCode> {
    let config = config::load(&sources(settings, config)?)?.config;
    act(agent::run_health(args, (config.stats_host, config.stats_port).into(), output))
}

fn doctor(
    settings: SettingFlags,
    config: Option<&Path>,
    args: DoctorArgs,
    output: Output,
) -> anyhow::Result<ExitCode> {
    let sources = sources(settings, config)?;
    act(agent::run_doctor(args, &sources, output))
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
