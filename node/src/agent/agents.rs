//! `arc-relay agents …`: what an operator does to agents and their tokens.

use std::{
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use cluster::AgentId;
use hyper::Method;
use serde_json::value::RawValue;

use super::{
    admin::AdminArgs,
    confirm::Consent,
    failure::Failure,
    message::moment,
    output::Output,
    progress::Progress,
    register::hand_over,
    secret::SecretFile,
    text::{counted, escaped, or_dash},
};
use crate::admin::{
    Agent, AgentBanned, AgentPage, AgentRevoked, Credentials, Imported, ImportedName, TokenRevoked,
};

/// Agents that are asked for at a time.
const PAGE: usize = 1_000;

/// Names that are sent at a time: some 300 KB of the longest.
const IMPORT_STEP: usize = 5_000;

/// Bytes of a file of names: a million of them.
const NAMES_BYTES_MAX: u64 = 128 << 20;

/// Options of `arc-relay agents`: without a command, all are listed.
#[derive(clap::Args, Clone, Debug)]
pub struct AgentsArgs {
    #[command(subcommand)]
    command: Option<AgentsCommand>,

    #[command(flatten)]
    list: ListArgs,
}

/// What an operator can do to agents, on the ops port.
#[derive(clap::Subcommand, Clone, Debug)]
#[allow(clippy::doc_markdown)] // the comments are the help text, shown as they stand
enum AgentsCommand {
    /// List all agents
    #[command(after_help = super::EXIT_CODES)]
    List(ListArgs),
    /// Show what the relay knows of an agent
    #[command(after_help = super::EXIT_CODES)]
    Show(AgentArgs),
    /// Revoke all tokens of an agent, or one token; open sessions end at once
    #[command(after_help = super::EXIT_CODES)]
    Revoke(RevokeArgs),
    /// Refuse all tokens of an agent, later ones too, until the ban is lifted
    #[command(after_help = super::EXIT_CODES)]
    Ban(BanArgs),
    /// Lift a ban: what was not revoked is good again
    #[command(after_help = super::EXIT_CODES)]
    Unban(AgentArgs),
    /// Issue one more token for a registered agent
    #[command(after_help = super::EXIT_CODES)]
    Reissue(ReissueArgs),
    /// Take names from a JSON list: ["a-name", {"agent_id": "another"}]; reissue gives them tokens
    #[command(after_help = super::EXIT_CODES)]
    Import(ImportArgs),
}

/// Options of `agents list`.
#[derive(clap::Args, Clone, Debug)]
pub(super) struct ListArgs {
    #[command(flatten)]
    admin: AdminArgs,
}

/// Options of what is done to one agent.
#[derive(clap::Args, Clone, Debug)]
pub(super) struct AgentArgs {
    /// The agent
    #[arg(value_name = "AGENT_ID")]
    agent: AgentId,

    #[command(flatten)]
    admin: AdminArgs,
}

/// Options of `agents ban`.
#[derive(clap::Args, Clone, Debug)]
pub(super) struct BanArgs {
    #[command(flatten)]
    agent: AgentArgs,

    #[command(flatten)]
    consent: Consent,
}

/// Options of `agents revoke`.
#[derive(clap::Args, Clone, Debug)]
pub(super) struct RevokeArgs {
    /// Agent whose tokens shall all be refused from now on
    #[arg(value_name = "AGENT_ID", required_unless_present = "serial")]
    agent: Option<AgentId>,

    /// Revoke one token instead, by its serial
    #[arg(long, value_name = "N", conflicts_with = "agent")]
    serial: Option<u64>,

    #[command(flatten)]
    consent: Consent,

    #[command(flatten)]
    admin: AdminArgs,
}

/// Options of `agents reissue`.
#[derive(clap::Args, Clone, Debug)]
pub(super) struct ReissueArgs {
    /// Agent that needs a token
    #[arg(value_name = "AGENT_ID")]
    agent: AgentId,

    /// Write the token to this new file, readable by you alone, rather than to the terminal
    #[arg(long, value_name = "FILE")]
    save: Option<PathBuf>,

    #[command(flatten)]
    admin: AdminArgs,
}

/// Options of `agents import`.
#[derive(clap::Args, Clone, Debug)]
pub(super) struct ImportArgs {
    /// The list; - is standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,

    #[command(flatten)]
    admin: AdminArgs,
}

pub(super) async fn run(args: AgentsArgs, output: &mut Output) -> Result<(), Failure> {
    match args.command.unwrap_or(AgentsCommand::List(args.list)) {
        AgentsCommand::List(args) => list(&args.admin, output).await,
        AgentsCommand::Show(args) => show(&args, output).await,
        AgentsCommand::Revoke(args) => revoke(&args, output).await,
        AgentsCommand::Ban(BanArgs { agent, consent }) => {
            let name = &agent.agent;
            consent.ask(&format!(
                "{name} is cut off, and every token of it refused, until the ban is lifted"
            ))?;
            ban(&agent, Method::POST, output).await
        }
        AgentsCommand::Unban(args) => ban(&args, Method::DELETE, output).await,
        AgentsCommand::Reissue(args) => reissue(&args, output).await,
        AgentsCommand::Import(args) => import(&args, output).await,
    }
}

/// One line an agent, or one JSON object.
async fn list(admin: &AdminArgs, output: &mut Output) -> Result<(), Failure> {
    let mut after = String::new();
    loop {
        let path = format!("/agents?limit={PAGE}{after}");
        let AgentPage { agents, next } = admin.ask(Method::GET, &path).await?;
        // Nobody is promised a table who may not see it.
        if after.is_empty() && !admin.ops.json {
            output.result(&row("REGISTERED", "SERIAL", "STATE", "AGENT")).await?;
        }
        for agent in &agents {
            let line = if admin.ops.json { json(agent) } else { listed(agent) };
            output.result(&line).await?;
        }
        match next.map(|next| next.parse::<AgentId>()) {
            None => return Ok(()),
            Some(Ok(next)) => after = format!("&after={next}"),
            Some(Err(error)) => return Err(Failure::NotRelay(error.to_string())),
        }
    }
}

async fn show(args: &AgentArgs, output: &mut Output) -> Result<(), Failure> {
    let path = format!("/agents/{}", args.agent);
    let answer: Box<RawValue> = args.admin.ask(Method::GET, &path).await?;
    args.admin.ops.show(&answer, |agent: Agent| told(&agent), output).await
}

async fn revoke(args: &RevokeArgs, output: &mut Output) -> Result<(), Failure> {
    let admin = &args.admin;
    let Some(agent) = &args.agent else {
        args.consent.ask("who has this token is cut off for good, and needs another one")?;
        let path = format!("/tokens/{}/revoke", args.serial.unwrap_or_default());
        let answer: Box<RawValue> = admin.ask(Method::POST, &path).await?;
        let told = |done: TokenRevoked| format!("revoked token {}", done.serial);
        return admin.ops.show(&answer, told, output).await;
    };
    args.consent.ask(&format!("{agent} is cut off for good, until it is given a new token"))?;
    let answer: Box<RawValue> = admin.ask(Method::POST, &format!("/agents/{agent}/revoke")).await?;
    let told = |done: AgentRevoked| format!("revoked all tokens of {}", escaped(&done.agent_id));
    admin.ops.show(&answer, told, output).await
}

async fn ban(args: &AgentArgs, method: Method, output: &mut Output) -> Result<(), Failure> {
    let path = format!("/agents/{}/ban", args.agent);
    let answer: Box<RawValue> = args.admin.ask(method, &path).await?;
    let told = |AgentBanned { agent_id, banned }: AgentBanned| {
        let agent = escaped(&agent_id);
        if banned { format!("banned {agent}") } else { format!("lifted the ban of {agent}") }
    };
    args.admin.ops.show(&answer, told, output).await
}

async fn reissue(args: &ReissueArgs, output: &mut Output) -> Result<(), Failure> {
    let file = args.save.as_deref().map(SecretFile::create).transpose()?;
    let path = format!("/agents/{}/reissue", args.agent);
    let credentials: Credentials = args.admin.ask(Method::POST, &path).await?;
    let said = format!("issued a new token for {}", args.agent);
    hand_over(&credentials, &said, file, args.admin.ops.json, output).await
}

async fn import(args: &ImportArgs, output: &mut Output) -> Result<(), Failure> {
    let names = names(&args.file)?;
    let progress = Progress::count("names imported", names.len() as u64);
    let mut imported = Imported::default();
    for some in names.chunks(IMPORT_STEP) {
        let step: Imported = args.admin.tell(Method::POST, "/agents/import", &some).await?;
        imported.added += step.added;
        imported.existing.extend(step.existing);
        progress.add(some.len());
    }
    drop(progress);
    if args.admin.ops.json {
        return output.result(&serde_json::to_string(&imported).unwrap_or_default()).await;
    }
    let Imported { added, existing } = imported;
    let known = match existing.len() {
        0 => String::new(),
        known => format!("; registered already: {known}"),
    };
    output.result(&format!("imported {}{known}", counted(added, "name"))).await
}

/// The ids of a list, all of which can be ids.
fn names(path: &Path) -> Result<Vec<AgentId>, Failure> {
    let text = read(path)?;
    let failed = |reason: String| Failure::Names { path: path.to_owned(), reason };
    let names: Vec<ImportedName> =
        serde_json::from_str(&text).map_err(|error| failed(escaped(&error.to_string())))?;
    let id = |(number, name): (usize, ImportedName)| {
        name.into_id().parse().map_err(|error| failed(format!("name {number}: {error}")))
    };
    (1..).zip(names).map(id).collect()
}

fn read(path: &Path) -> Result<String, Failure> {
    let mut text = String::new();
    if path == Path::new("-") {
        let stdin = io::stdin().lock().take(NAMES_BYTES_MAX);
        return { stdin }.read_to_string(&mut text).map(|_| text).map_err(Failure::Stdin);
    }
    let file =
        File::open(path).and_then(|file| file.take(NAMES_BYTES_MAX).read_to_string(&mut text));
    file.map_err(|source| Failure::Read { path: path.to_owned(), source })?;
    Ok(text)
}

fn json(agent: &Agent) -> String {
    serde_json::to_string(agent).unwrap_or_default()
}

fn listed(agent: &Agent) -> String {
    let registered = moment(Some(agent.registered_at));
    row(&registered, &or_dash(agent.serial), state(agent), &escaped(&agent.agent_id))
}

/// Columns of the same width on all pages; an id comes last, because it may be long.
fn row(registered: &str, serial: &str, state: &str, agent: &str) -> String {
    format!("{registered:<24}  {serial:>8}  {state:<9}  {agent}")
}

fn state(agent: &Agent) -> &'static str {
    match agent {
        Agent { banned: true, .. } => "banned",
        Agent { serial: None, .. } => "no token",
        Agent { revoked: true, .. } => "revoked",
        Agent { connected: true, .. } => "connected",
        _ => "-",
    }
}

fn told(agent: &Agent) -> String {
    let yes = |is: bool| if is { "yes" } else { "no" };
    format!(
        "agent       {}\nregistered  {}\nserial      {}\nrevoked     {}\nbanned      {}\nconnected   {}",
        escaped(&agent.agent_id),
        moment(Some(agent.registered_at)),
        or_dash(agent.serial),
        yes(agent.revoked),
        yes(agent.banned),
        agent.node.as_ref().map_or_else(
            || yes(agent.connected).to_owned(),
            |node| format!("yes, to {}", escaped(node))
        )
    )
}
