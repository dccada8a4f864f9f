//! `agent subscribe`: whom this agent follows (PROTOCOL section 6). Subscriptions belong to the
//! agent and outlive the connection, so that `listen` may come later.

use cluster::AgentId;
use serde::Deserialize;
use serde_json::value::to_raw_value;

use super::{
    args::{RelayArgs, TokenArgs},
    connect::within,
    failure::Failure,
    message::{Outgoing, RELAY, Received},
    output::Output,
    text::{escaped, on_one_line},
};

/// Options of `agent subscribe`.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// Agents to follow
    #[arg(value_name = "AGENT_ID", required_unless_present = "list")]
    agents: Vec<AgentId>,

    /// Follow them no longer
    #[arg(long, conflicts_with = "list")]
    remove: bool,

    /// Show whom you follow
    #[arg(long, conflicts_with = "agents")]
    list: bool,

    /// Print the relay's answer as it is
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    relay: RelayArgs,

    #[command(flatten)]
    token: TokenArgs,
}

/// A command to the relay, the answer's type, and how to begin telling it.
struct Wish {
    command: &'static str,
    answer: &'static str,
    said: &'static str,
}

pub(super) async fn run(args: &Args, output: &mut Output) -> Result<(), Failure> {
    let dialer = args.relay.dialer(&args.token)?;
    let wish = wish(args);
    let ids: Vec<&str> = args.agents.iter().map(AgentId::as_str).collect();
    let agents = to_raw_value(&serde_json::json!({ "agents": ids })).map_err(Failure::Payload)?;
    let to = [RELAY.to_owned()];
    let command = Outgoing {
        to: &to,
        kind: Some(wish.command),
        reference: None,
        payload: (!args.list).then_some(&*agents),
    };
    let mut session = dialer.open().await?;
    let answered = session.command(&command, wish.answer);
    let answer = within(args.relay.timeout, "answer from the relay", answered).await?;
    session.close().await;
    let line = if args.json { on_one_line(&answer.text) } else { told(&wish, &answer) };
    output.result(&line).await
}

fn wish(args: &Args) -> Wish {
    match (args.list, args.remove) {
        (true, _) => {
            Wish { command: "list_subscriptions", answer: "subscriptions", said: "following" }
        }
        (false, true) => {
            Wish { command: "unsubscribe", answer: "unsubscribed", said: "no longer following" }
        }
        (false, false) => {
            Wish { command: "subscribe", answer: "subscribed", said: "now following" }
        }
    }
}

/// The relay's answer in words: the agents it names and, where it says so, how many there are.
fn told(wish: &Wish, answer: &Received) -> String {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Told {
        agents: Vec<String>,
        count: Option<u64>,
    }
    let told: Told = answer.payload().unwrap_or_default();
    let agents = if told.agents.is_empty() { "nobody".into() } else { told.agents.join(", ") };
    match told.count {
        Some(count) => escaped(&format!("{} {agents} (count: {count})", wish.said)),
        None => escaped(&format!("{} {agents}", wish.said)),
    }
}
