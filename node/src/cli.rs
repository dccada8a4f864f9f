//! The command line: what may follow `arc-relay`.
//!
//! Flags for settings are not written here: they come from the table in [`config`](crate::config), and
//! their values stay raw text, so that a bad one is reported with all other problems.

use std::path::{Path, PathBuf};

use clap::{Arg, ArgAction, ArgMatches, Args, FromArgMatches, Parser, Subcommand};
use clap_complete::Shell;

use crate::{
    agent,
    config::{Setting, settings},
};

/// `arc-relay`: alone it runs the relay, with a subcommand it does something else.
#[derive(Parser)]
#[command(name = "arc-relay", version, about = ABOUT, after_help = AFTER_HELP)]
pub struct Cli {
    /// Settings given as flags.
    #[command(flatten)]
    pub settings: SettingFlags,

    /// Settings file, which must exist [default: arc-relay.toml, if there is one]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Check the configuration, show what differs from the defaults, and exit
    #[arg(long)]
    pub check_config: bool,

    /// Print the settings as a Markdown table, for the README
    #[arg(long, hide = true)]
    pub config_table: bool,

    /// What to do instead of running the relay.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// What the binary does beside being a relay.
#[derive(Subcommand)]
pub enum Command {
    /// Act as an agent: register, send, listen
    #[command(subcommand)]
    Agent(agent::Command),
    /// Look after the agents of a relay: list, ban, import; revoke and reissue their tokens
    #[command(args_conflicts_with_subcommands = true, after_help = agent::EXIT_CODES)]
    Agents(agent::AgentsArgs),
    /// Look after the registry of a cluster: who keeps it, which keys sign
    #[command(subcommand)]
    Cluster(agent::ClusterCommand),
    /// Write all that the registry holds to an encrypted file
    #[command(after_help = agent::EXIT_CODES)]
    Backup(agent::BackupArgs),
    /// Measure a relay: connections, messages, latency, each checked for exact delivery
    #[command(after_help = agent::BENCH_HELP)]
    Bench(agent::BenchArgs),
    /// Found a new registry from a backup, every name and token intact
    Restore(RestoreArgs),
    /// Make the secret that the nodes of one cluster share, and print it
    Secret,
    /// Ask whether the relay with this configuration is up: exit code 0, or 1; for health checks
    Health(agent::HealthArgs),
    /// Show the nodes of a cluster, as one of them sees them
    #[command(after_help = agent::EXIT_CODES)]
    Status(agent::StatusArgs),
    /// List the nodes of a cluster, with all that they can be named by
    #[command(after_help = agent::EXIT_CODES)]
    Nodes(agent::NodesArgs),
    /// Show what happened, and with --follow what happens
    #[command(after_help = agent::EXIT_CODES)]
    Events(agent::EventsArgs),
    /// Send a node's agents elsewhere, and stop it; wait until it has left
    #[command(after_help = agent::EXIT_CODES)]
    Drain(agent::DrainArgs),
    /// Check whether this machine can run the node that is configured here, and say what to do
    #[command(after_help = agent::DOCTOR_EXIT_CODES)]
    Doctor(agent::DoctorArgs),
    /// Look after the certificates that agents are shown
    #[command(subcommand)]
    Tls(agent::TlsCommand),
    /// Print what completes these commands in a shell
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Print the manual page, or write one for each command into a folder
    Man {
        /// The folder, such as /usr/local/share/man/man1
        #[arg(value_name = "DIR")]
        folder: Option<PathBuf>,
    },
}

/// Options of `arc-relay restore`.
#[derive(Args)]
#[allow(clippy::doc_markdown)] // field comments are the help text, shown as they stand
pub struct RestoreArgs {
    /// The backup; CLUSTER_SECRET must be set to the one that it was taken with
    #[arg(value_name = "FILE")]
    pub file: PathBuf,

    /// The data directory to make, or to fill if it is empty
    #[arg(long, value_name = "DIR")]
    pub data_dir: PathBuf,

    /// Print JSON: one object that says what was restored
    #[arg(long)]
    pub json: bool,
}

/// Whether JSON was asked for, wherever a command has `--json`. `bench` writes it into a file: then only if
/// that is standard output.
pub fn wants_json(matches: &ArgMatches) -> bool {
    let here = if let Ok(json) = matches.try_get_one::<bool>("json") {
        json.is_some_and(|json| *json)
    } else {
        let file = matches.try_get_one::<PathBuf>("json").ok().flatten();
        file.is_some_and(|file| file == Path::new("-"))
    };
    here || matches.subcommand().is_some_and(|(_, matches)| wants_json(matches))
}

const ABOUT: &str = "A relay for AI agents: they register a name, connect over WebSocket, and send \
                     JSON to one agent, several, or all.\n\n\
                     Without options it listens for agents on port 8080 and keeps its data in \
                     ./arc-data.";

const AFTER_HELP: &str = "\
Examples:
  arc-relay                                   run with the defaults
  arc-relay --port 9000 --data-dir /var/lib/arc
  RATE_LIMIT_PER_MIN=600 arc-relay            settings may be variables, too
  arc-relay --config relay.toml --check-config

  curl -X POST localhost:8080/register -d '{\"agent_id\": \"my-agent\"}'

Where settings come from, first one wins:
  1. flags             --rate-limit-per-min 600
  2. environment       RATE_LIMIT_PER_MIN=600
  3. .env              RATE_LIMIT_PER_MIN=600
  4. arc-relay.toml    rate_limit_per_min = 600
  5. the defaults above

As a service of systemd:
  settings in /etc/arc-relay/environment, data in /var/lib/arc-relay
  systemctl status arc-relay                  how it is
  journalctl -u arc-relay -f                  what it logs

Exit codes: 0 all went well, 1 the relay could not run, 2 what starting it again does not mend: bad
options or configuration, or a copy of its data directory that runs elsewhere.";

/// The settings that were given as flags: variable and raw text.
#[derive(Clone, Default)]
pub struct SettingFlags(pub Vec<(String, String)>);

impl Args for SettingFlags {
    fn augment_args(command: clap::Command) -> clap::Command {
        command.args(settings().iter().map(flag))
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for SettingFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let given = settings().iter().filter_map(|setting| {
            let text = matches.get_one::<String>(setting.variable)?;
            Some((setting.variable.into(), text.clone()))
        });
        Ok(Self(given.collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

fn flag(setting: &'static Setting) -> Arg {
    let Setting { variable, help, default, .. } = setting;
    let arg = Arg::new(*variable)
        .long(setting.flag())
        .value_name(setting.value_name)
        .help(format!("{help} [env: {variable}] [default: {default}]"))
        .help_heading(setting.group.heading())
        .action(ArgAction::Set)
        .allow_hyphen_values(true);
    match setting.bare {
        Some(bare) => arg.num_args(0..=1).require_equals(true).default_missing_value(bare),
        None => arg,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a test's panic is its verdict
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn given(arguments: &[&str]) -> Result<Vec<(String, String)>, clap::Error> {
        let arguments = ["arc-relay"].iter().chain(arguments);
        Cli::try_parse_from(arguments).map(|cli| cli.settings.0)
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn json_is_wanted_by_whoever_says_so() {
        let wants = |line: &str| {
            let words = std::iter::once("arc-relay").chain(line.split(' '));
            wants_json(&Cli::command().try_get_matches_from(words).unwrap())
        };
        for line in [
            "agents --json",
            "agents show ann-1 --json",
            "agent listen --json",
            "backup f --json",
            "bench --json -",
            "cluster voters follow --json",
            "doctor --json",
            "health --whole --json",
            "restore f --data-dir d --json",
            "tls check --json",
        ] {
            assert!(wants(line), "{line}");
        }
        for line in ["status", "agent send --json {}", "bench --json file", "secret"] {
            assert!(!wants(line), "{line}");
        }
    }

    #[test]
    fn flags_are_kept_as_raw_text() {
        let pair = |name: &str, text: &str| (name.to_owned(), text.to_owned());
        assert_eq!(given(&[]).unwrap(), []);
        assert_eq!(given(&["--port", "http"]).unwrap(), [pair("PORT", "http")]);
        assert_eq!(given(&["--port=-1"]).unwrap(), [pair("PORT", "-1")]);
        assert_eq!(given(&["--port", "-1"]).unwrap(), [pair("PORT", "-1")]);
    }

    #[test]
    fn a_switch_may_stand_alone() {
        let text = |arguments| given(arguments).unwrap().into_iter().map(|(_, text)| text).next();
        assert_eq!(text(&["--behind-proxy"]).as_deref(), Some("true"));
        assert_eq!(text(&["--behind-proxy=false"]).as_deref(), Some("false"));
        assert_eq!(text(&["--behind-proxy", "--check-config"]).as_deref(), Some("true"));
    }

    #[test]
    fn unknown_flags_and_repeated_flags_are_refused() {
        assert!(given(&["--prot", "1"]).is_err());
        assert!(given(&["--port", "1", "--port", "2"]).is_err());
    }

    #[test]
    fn help_names_every_setting_with_its_variable_and_default() {
        let help = Cli::command().term_width(1_000).render_help().to_string();
        for setting in settings() {
            let (flag, Setting { variable, default, .. }) = (setting.flag(), setting);
            assert!(help.contains(&format!("--{flag}")), "{flag}");
            assert!(
                help.contains(&format!("[env: {variable}] [default: {default}]")),
                "{variable}"
            );
            assert!(help.contains(setting.group.heading()), "{variable}");
        }
    }
}
