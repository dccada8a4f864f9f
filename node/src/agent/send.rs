//! `agent send`: one message, and the certainty that the relay has taken it (PROTOCOL section 4).

use std::{io::Read as _, str::FromStr};

use cluster::AgentId;
use serde_json::value::{RawValue, to_raw_value};

use super::{
    args::{RelayArgs, TokenArgs},
    connect::within,
    failure::Failure,
    message::Outgoing,
    output::Output,
};

/// More than any relay takes in one message; bounds what is read from standard input.
const STDIN_BYTES_MAX: u64 = 16 << 20;

/// Options of `agent send`.
#[derive(clap::Args, Clone, Debug)]
#[command(group = clap::ArgGroup::new("content").required(true))]
pub struct Args {
    /// Text to send, as a JSON string; '-' reads standard input
    #[arg(value_name = "MESSAGE", group = "content", allow_negative_numbers = true)]
    message: Option<String>,

    /// Send this JSON, byte for byte; '-' reads standard input
    #[arg(long, value_name = "JSON", group = "content", allow_negative_numbers = true)]
    payload: Option<String>,

    /// MESSAGE is JSON, as with --payload
    // Not the id by which others say that they want JSON.
    #[arg(id = "json-message", long = "json")]
    json: bool,

    /// Recipients, separated by commas or in several options; '*' is everybody
    #[arg(long, value_name = "AGENT_ID", value_delimiter = ',', default_value = "*")]
    to: Vec<Recipient>,

    /// Type of the message, such as question or answer
    #[arg(long = "type", value_name = "TYPE")]
    kind: Option<String>,

    /// Id of the message that this one answers
    #[arg(long = "ref", value_name = "ID")]
    reference: Option<String>,

    #[command(flatten)]
    relay: RelayArgs,

    #[command(flatten)]
    token: TokenArgs,
}

/// Whom a message may name. Checked here because a relay drops what it sends to nobody in silence.
#[derive(Clone, Debug)]
struct Recipient(String);

impl FromStr for Recipient {
    type Err = cluster::InvalidAgentId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        if text != "*" {
            text.parse::<AgentId>()?;
        }
        Ok(Self(text.to_owned()))
    }
}

pub(super) async fn run(args: &Args, output: &mut Output) -> Result<(), Failure> {
    let dialer = args.relay.dialer(&args.token)?;
    let payload = payload(args)?;
    let to: Vec<String> = args.to.iter().map(|recipient| recipient.0.clone()).collect();
    let message = Outgoing {
        to: &to,
        kind: args.kind.as_deref(),
        reference: args.reference.as_deref(),
        payload: Some(&payload),
    };
    let mut session = dialer.open().await?;
    within(args.relay.timeout, "word from the relay that it took the message", async {
        session.send(&message).await?;
        session.settle().await
    })
    .await?;
    let sender = session.agent.clone();
    session.close().await;
    if args.relay.verbose {
        output.note(&format!("{sender} sent to {}: {}", to.join(", "), payload.get())).await;
    }
    output.result(&format!("sent to {}", audience(&to))).await
}

fn audience(to: &[String]) -> String {
    if to.iter().any(|id| id == "*") { "everybody".to_owned() } else { to.join(", ") }
}

fn payload(args: &Args) -> Result<Box<RawValue>, Failure> {
    let (text, json) = match (&args.payload, &args.message) {
        (Some(json), _) => (json, true),
        (None, Some(text)) => (text, args.json),
        (None, None) => return to_raw_value("").map_err(Failure::Payload),
    };
    let content = if text == "-" { from_stdin()? } else { text.clone() };
    let payload = if json { RawValue::from_string(content) } else { to_raw_value(&content) };
    payload.map_err(Failure::Payload)
}

/// All of standard input, without the line end that `echo` adds.
fn from_stdin() -> Result<String, Failure> {
    let mut text = String::new();
    std::io::stdin()
        .lock()
        .take(STDIN_BYTES_MAX)
        .read_to_string(&mut text)
        .map_err(Failure::Stdin)?;
    let line = text.strip_suffix('\n').map(|line| line.strip_suffix('\r').unwrap_or(line));
    Ok(line.map(str::to_owned).unwrap_or(text))
}
