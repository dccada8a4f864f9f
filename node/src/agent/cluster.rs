//! `arc-relay cluster …`: who keeps the registry, and which keys sign its tokens.

use std::{fmt::Write as _, time::Duration};

use hyper::Method;
use serde_json::value::RawValue;

use super::{
    admin::AdminArgs,
    args::duration,
    confirm::Consent,
    failure::Failure,
    message::moment,
    output::Output,
    text::{escaped, or_dash},
};
use crate::admin::{Key, Keys, RegistryReport, Rotated, Rotation, VoterChange};

/// What an operator can do to the registry, on the ops port of any node.
#[derive(clap::Subcommand, Clone, Debug)]
pub enum ClusterCommand {
    /// Show who keeps the registry, or change it
    #[command(args_conflicts_with_subcommands = true, after_help = super::EXIT_CODES)]
    Voters(VotersArgs),
    /// Show the keys that sign tokens, or let a new one sign
    #[command(alias = "key", args_conflicts_with_subcommands = true, after_help = super::EXIT_CODES)]
    Keys(KeysArgs),
}

/// Options of `cluster voters`.
#[derive(clap::Args, Clone, Debug)]
pub struct VotersArgs {
    #[command(subcommand)]
    change: Option<VotersChange>,

    #[command(flatten)]
    admin: AdminArgs,
}

/// What is wanted of the voters.
#[derive(clap::Subcommand, Clone, Debug)]
#[allow(clippy::doc_markdown)] // the comments are the help text, shown as they stand
enum VotersChange {
    /// Let these and no others keep the registry, whatever the nodes' SEEDS say
    Set {
        /// 1, 3 or 5 nodes, each by its seed as written in SEEDS, its id, its name, or the address that
        /// it advertises
        #[arg(value_name = "SEED,SEED,SEED", required = true, value_delimiter = ',')]
        seeds: Vec<String>,

        #[command(flatten)]
        consent: Consent,

        #[command(flatten)]
        admin: AdminArgs,
    },
    /// Follow the nodes' own SEEDS again
    Follow {
        #[command(flatten)]
        consent: Consent,

        #[command(flatten)]
        admin: AdminArgs,
    },
    /// Let one node take another's place
    Replace {
        /// The voter that goes, by seed, node id, name or advertised address
        old: String,

        /// The node that comes, likewise
        new: String,

        #[command(flatten)]
        consent: Consent,

        #[command(flatten)]
        admin: AdminArgs,
    },
}

/// Options of `cluster keys`.
#[derive(clap::Args, Clone, Debug)]
pub struct KeysArgs {
    #[command(subcommand)]
    change: Option<KeysChange>,

    #[command(flatten)]
    admin: AdminArgs,
}

/// What is wanted of the keys.
#[derive(clap::Subcommand, Clone, Debug)]
enum KeysChange {
    /// Let a new key sign from now on; agents whose tokens end with the old one need new tokens
    Rotate {
        /// How long what the present key signed is good: 30d, 12h
        #[arg(long, value_name = "TIME", value_parser = duration, allow_hyphen_values = true)]
        retire_after: Duration,

        #[command(flatten)]
        consent: Consent,

        #[command(flatten)]
        admin: AdminArgs,
    },
}

pub(super) async fn run(command: ClusterCommand, output: &mut Output) -> Result<(), Failure> {
    match command {
        ClusterCommand::Voters(VotersArgs { change: Some(change), .. }) => {
            change_voters(change, output).await
        }
        ClusterCommand::Voters(VotersArgs { change: None, admin }) => {
            let answer: Box<RawValue> = admin.ask(Method::GET, "/registry").await?;
            admin.ops.show(&answer, |report| voters(&report), output).await
        }
        ClusterCommand::Keys(KeysArgs { change: Some(change), .. }) => {
            let KeysChange::Rotate { retire_after, consent, admin } = change;
            let left = humantime::format_duration(retire_after);
            consent.ask(&format!(
                "every token that was issued until now ends in {left}: agents need new ones before"
            ))?;
            rotate(&admin, retire_after, output).await
        }
        ClusterCommand::Keys(KeysArgs { change: None, admin }) => {
            let answer: Box<RawValue> = admin.ask(Method::GET, "/registry/keys").await?;
            admin.ops.show(&answer, |keys: Keys| listed(&keys.keys), output).await
        }
    }
}

async fn change_voters(change: VotersChange, output: &mut Output) -> Result<(), Failure> {
    let (change, consequence, consent, admin) = match change {
        VotersChange::Set { seeds, consent, admin } => {
            let consequence = format!("only {} keep the names then", seeds.join(", "));
            (VoterChange::Set { seeds }, consequence, consent, admin)
        }
        VotersChange::Follow { consent, admin } => {
            let consequence = "only the nodes that SEEDS names keep the names then".to_owned();
            (VoterChange::Follow {}, consequence, consent, admin)
        }
        VotersChange::Replace { old, new, consent, admin } => {
            let consequence = format!("{old} keeps the names no more, and {new} does");
            (VoterChange::Replace { old, new }, consequence, consent, admin)
        }
    };
    consent.ask(&consequence)?;
    let answer: Box<RawValue> = admin.tell(Method::PUT, "/registry/voters", &change).await?;
    let told = |report: RegistryReport| {
        format!("wanted; `arc-relay cluster voters` shows the progress\n\n{}", voters(&report))
    };
    admin.ops.show(&answer, told, output).await
}

async fn rotate(
    admin: &AdminArgs,
    retire_after: Duration,
    output: &mut Output,
) -> Result<(), Failure> {
    let rotation = Rotation { retire_after_seconds: retire_after.as_secs() };
    let answer: Box<RawValue> = admin.tell(Method::POST, "/registry/keys", &rotation).await?;
    let told = |Rotated { signs, retires }: Rotated| {
        let end = moment(retires.retires_at);
        format!("key {} signs now; tokens of key {} are good until {end}", signs.id, retires.id)
    };
    admin.ops.show(&answer, told, output).await
}

/// The registry and its voters, as one node sees them.
fn voters(report: &RegistryReport) -> String {
    let available = if report.available { "yes" } else { "no" };
    // Writing into a `String` cannot fail.
    let mut text = format!(
        "registry   {}\nthis node  {}\nleader     {}\navailable  {available}\n",
        or_dash(report.id.as_deref().map(escaped)),
        escaped(&report.role),
        or_dash(report.leader.as_deref().map(escaped)),
    );
    if let Some(waiting) = &report.waiting {
        let _ = writeln!(text, "waiting    {}", escaped(&waiting.reason));
    }
    if let Some(failure) = &report.failure {
        let _ = writeln!(text, "failure    {}", escaped(failure));
    }
    let _ = write!(text, "\n{:<16}  {:<7}  {:>6}  SEED", "NODE", "VOTES", "LAG");
    for voter in &report.voters {
        let votes = if voter.votes { "yes" } else { "not yet" };
        let lag = or_dash(voter.lag);
        let (node, seed) = (escaped(&voter.node), escaped(&voter.seed));
        let _ = write!(text, "\n{node:<16}  {votes:<7}  {lag:>6}  {seed}");
    }
    text
}

fn listed(keys: &[Key]) -> String {
    let mut text = format!("{:>3}  {:<24}  {:<24}  PUBLIC", "KEY", "CREATED", "RETIRES");
    for key in keys {
        let (created, retires) = (moment(Some(key.created_at)), moment(key.retires_at));
        let _ =
            write!(text, "\n{:>3}  {created:<24}  {retires:<24}  {}", key.id, escaped(&key.public));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::{Voter, Waiting};

    #[test]
    fn a_registry_is_told_with_what_it_waits_for() {
        let voter = |seed: &str, votes, lag| Voter {
            node: "00000000000000a1".into(),
            seed: seed.into(),
            votes,
            lag,
        };
        let waiting = Waiting { reason: "for c:1".into(), seeds: vec!["c:1".into()] };
        let report = RegistryReport {
            id: Some("ab".into()),
            role: "leader".into(),
            available: true,
            waiting: Some(waiting),
            leader: None,
            term: 1,
            applied: 7,
            voters: vec![voter("a:1", true, Some(0)), voter("b\u{1b}:1", false, None)],
            failure: None,
        };
        let expected = "\
registry   ab
this node  leader
leader     -
available  yes
waiting    for c:1

NODE              VOTES       LAG  SEED
00000000000000a1  yes           0  a:1
00000000000000a1  not yet       -  b\\u{1b}:1";
        assert_eq!(voters(&report), expected);
    }

    #[test]
    fn keys_are_a_table() {
        let key = |id, retires_at| Key { id, public: "0af".into(), created_at: 0, retires_at };
        let expected = "\
KEY  CREATED                   RETIRES                   PUBLIC
  1  1970-01-01T00:00:00.000Z  -                         0af
  0  1970-01-01T00:00:00.000Z  1970-01-01T00:00:01.000Z  0af";
        assert_eq!(listed(&[key(1, None), key(0, Some(1_000))]), expected);
    }
}
