//! `arc-relay agents …`: what an operator does to agents and their tokens, over the ops port's admin
//! interface.

use std::path::PathBuf;

use cluster::AgentId;
use hyper::{Method, header::HeaderValue};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::value::RawValue;

use super::{
    args::OpsArgs,
    failure::Failure,
    http::Call,
    message::moment,
    output::Output,
    register::{Credentials, hand_over},
    secret::{Secret, SecretFile},
    text::{escaped, on_one_line},
};

/// Where a relay with its defaults keeps its admin token.
const TOKEN_FILE: &str = "admin.token";

/// How to reach the ops port, and with what right.
#[derive(clap::Args, Clone, Debug)]
#[allow(clippy::doc_markdown)] // field comments are the help text, shown as they stand
pub(super) struct AdminArgs {
    #[command(flatten)]
    ops: OpsArgs,

    /// File with the relay's admin token; without it, ARC_ADMIN_TOKEN, then admin.token in DATA_DIR
    #[arg(long, value_name = "FILE")]
    admin_token_file: Option<PathBuf>,

    /// Admin token; best given by the variable, because other users may see options
    #[arg(long, value_name = "TOKEN", env = "ARC_ADMIN_TOKEN", hide_env_values = true)]
    admin_token: Option<Secret>,

    /// The relay's data directory
    #[arg(long, value_name = "DIR", env = "DATA_DIR", default_value = "./arc-data")]
    data_dir: PathBuf,
}

/// Options of `agents revoke`.
#[derive(clap::Args, Clone, Debug)]
pub struct RevokeArgs {
    /// Agent whose tokens shall all be refused from now on
    #[arg(value_name = "AGENT_ID", required_unless_present = "serial")]
    agent: Option<AgentId>,

    /// Revoke one token instead, by its serial
    #[arg(long, value_name = "N", conflicts_with = "agent")]
    serial: Option<u64>,

    #[command(flatten)]
    admin: AdminArgs,
}

/// Options of `agents reissue`.
#[derive(clap::Args, Clone, Debug)]
pub struct ReissueArgs {
    /// Agent that needs a token
    #[arg(value_name = "AGENT_ID")]
    agent: AgentId,

    /// Write the token to this new file, readable by you alone, rather than to the terminal
    #[arg(long, value_name = "FILE")]
    save: Option<PathBuf>,

    #[command(flatten)]
    admin: AdminArgs,
}

/// Options of `agents show`.
#[derive(clap::Args, Clone, Debug)]
pub struct ShowArgs {
    /// Agent to look up
    #[arg(value_name = "AGENT_ID")]
    agent: AgentId,

    #[command(flatten)]
    admin: AdminArgs,
}

/// What the relay knows of an agent.
#[derive(Deserialize)]
struct Record {
    agent_id: String,
    registered_at: Option<u64>,
    serial: u64,
    revoked: bool,
    connected: bool,
    #[serde(default)]
    node: Option<String>,
}

pub(super) async fn revoke(args: &RevokeArgs, output: &mut Output) -> Result<(), Failure> {
    let (path, said) = match (args.serial, &args.agent) {
        (Some(serial), _) => {
            (format!("/tokens/{serial}/revoke"), format!("revoked token {serial}"))
        }
        (None, agent) => {
            let agent = agent.as_ref().map_or("", AgentId::as_str);
            (format!("/agents/{agent}/revoke"), format!("revoked all tokens of {agent}"))
        }
    };
    let answer: Box<RawValue> = ask(&args.admin, Method::POST, &path).await?;
    let line = if args.admin.ops.json { on_one_line(answer.get()) } else { said };
    output.result(&line).await
}

pub(super) async fn reissue(args: &ReissueArgs, output: &mut Output) -> Result<(), Failure> {
    let file = args.save.as_deref().map(SecretFile::create).transpose()?;
    let path = format!("/agents/{}/reissue", args.agent);
    let credentials: Credentials = ask(&args.admin, Method::POST, &path).await?;
    let said = format!("issued a new token for {}", args.agent);
    hand_over(&credentials, &said, file, args.admin.ops.json, output).await
}

pub(super) async fn show(args: &ShowArgs, output: &mut Output) -> Result<(), Failure> {
    let path = format!("/agents/{}", args.agent);
    let answer: Box<RawValue> = ask(&args.admin, Method::GET, &path).await?;
    if args.admin.ops.json {
        return output.result(&on_one_line(answer.get())).await;
    }
    let record: Record =
        serde_json::from_str(answer.get()).map_err(|e| Failure::NotRelay(e.to_string()))?;
    output.result(&told(&record)).await
}

async fn ask<T: DeserializeOwned>(
    args: &AdminArgs,
    method: Method,
    path: &str,
) -> Result<T, Failure> {
    let authorization = Some(authorization(args)?);
    args.ops.ask(Call { method, path, authorization, body: None }).await
}

fn authorization(args: &AdminArgs) -> Result<HeaderValue, Failure> {
    let given = args.admin_token.as_ref().filter(|token| !token.is_empty());
    let token = match (&args.admin_token_file, given) {
        (Some(path), _) => Secret::read(path)?,
        (None, Some(token)) => token.clone(),
        (None, None) => Secret::read(&args.data_dir.join(TOKEN_FILE))?,
    };
    token.bearer("admin token")
}

fn told(record: &Record) -> String {
    let yes = |is: bool| if is { "yes" } else { "no" };
    format!(
        "agent       {}\nregistered  {}\nserial      {}\nrevoked     {}\nconnected   {}",
        escaped(&record.agent_id),
        moment(record.registered_at),
        record.serial,
        yes(record.revoked),
        record.node.as_ref().map_or_else(
            || yes(record.connected).to_owned(),
            |node| format!("yes, to {}", escaped(node))
        )
    )
}
