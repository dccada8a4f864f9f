//! `agent register`: a name for ever, and the token that speaks for it (PROTOCOL section 2).

use std::{path::PathBuf, time::Duration};

use cluster::AgentId;
use hyper::{Method, StatusCode, header::HeaderValue};
use rand::Rng as _;

use super::{
    args::{DEFAULT_RELAY, RelayArgs},
    connect::Connector,
    failure::Failure,
    http::{self, Call},
    output::Output,
    secret::{Secret, SecretFile},
    text::{escaped, shell_word},
};
use crate::admin::Credentials;

/// How often a relay is asked that cannot decide, or is lost before it has answered.
const ATTEMPTS: u32 = 5;

/// How long to wait before it is asked again, if it does not say.
const PAUSE: Duration = Duration::from_secs(1);

/// The longest wait that it may ask for.
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// Options of `agent register`.
#[derive(clap::Args, Clone, Debug)]
#[allow(clippy::doc_markdown)] // field comments are the help text, shown as they stand
pub struct Args {
    /// Name to register, 3 to 64 characters a-z, 0-9 and '-'; without one the relay chooses
    #[arg(value_name = "AGENT_ID")]
    agent: Option<AgentId>,

    /// The same as an option
    #[arg(long = "agent-id", value_name = "AGENT_ID", conflicts_with = "agent")]
    agent_option: Option<AgentId>,

    /// Registration key, where the relay asks for one
    #[arg(long, value_name = "KEY", env = "REGISTRATION_KEY", hide_env_values = true)]
    key: Option<Secret>,

    /// Write the token to this new file, readable by you alone, rather than to the terminal
    #[arg(long, value_name = "FILE")]
    save: Option<PathBuf>,

    /// Print one JSON object: {"agent_id","token"}
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    relay: RelayArgs,
}

pub(super) async fn run(args: &Args, output: &mut Output) -> Result<(), Failure> {
    let url = args.relay.url()?;
    let connector = args.relay.connector()?;
    let key = args.key.as_ref().filter(|key| !key.is_empty());
    let authorization = key.map(|key| key.bearer("registration key")).transpose()?;
    let file = args.save.as_deref().map(SecretFile::create).transpose()?;
    let path = url.register_path();
    let body = serde_json::json!({ "agent_id": wanted(args) }).to_string();
    let call = Call {
        method: Method::POST,
        path: &path,
        authorization,
        idempotency_key: Some(attempt()?),
        body: Some(body),
    };
    let credentials = ask(&connector, args.relay.timeout, &call, output).await?;
    let said = format!("registered {}", escaped(&credentials.agent_id));
    hand_over(&credentials, &said, file, args.json, output).await?;
    if !args.json {
        output.result(&next_step(args, &url.to_string())).await?;
    }
    Ok(())
}

/// Asks until the outcome is known, or the relay has been asked often enough. The key lets the relay
/// answer as it would have the first time.
async fn ask(
    connector: &Connector,
    limit: Duration,
    call: &Call<'_>,
    output: &mut Output,
) -> Result<Credentials, Failure> {
    for asked in 1.. {
        let failure = match http::call(connector, limit, call.clone()).await {
            Ok(credentials) => return Ok(credentials),
            Err(failure) => failure,
        };
        let wait = match &failure {
            _ if asked >= ATTEMPTS => return Err(failure),
            Failure::Refused { status: StatusCode::SERVICE_UNAVAILABLE, retry_after, .. } => {
                retry_after.unwrap_or(PAUSE).min(PAUSE_MAX)
            }
            // Whoever could not be reached at first is not there; later, it is starting again.
            Failure::Dial { .. } if asked == 1 => return Err(failure),
            Failure::Dial { .. } | Failure::Http(_) | Failure::Timeout { .. } => PAUSE,
            _ => return Err(failure),
        };
        output.note(&format!("{failure}; asking again in {wait:?}")).await;
        tokio::time::sleep(wait).await;
    }
    Err(Failure::NotRelay("it never decides".into()))
}

/// A key for one attempt: what is secret in it keeps others from asking for the token.
pub(super) fn attempt() -> Result<HeaderValue, Failure> {
    let key = format!("{:032x}", rand::rng().random::<u128>());
    let mut key = HeaderValue::from_str(&key).map_err(|_| Failure::UnusableSecret("key"))?;
    key.set_sensitive(true);
    Ok(key)
}

/// Gives the user the credentials: as JSON, in a file, or as the line that sets the variable.
pub(super) async fn hand_over(
    credentials: &Credentials,
    said: &str,
    file: Option<SecretFile>,
    json: bool,
    output: &mut Output,
) -> Result<(), Failure> {
    let stored = match file {
        Some(file) => file.store(&credentials.token),
        None => return print(credentials, said, json, output).await,
    };
    match stored {
        Ok(_) if json => print(credentials, said, json, output).await,
        Ok(path) => output.result(&format!("{said}; its token is in {}", path.display())).await,
        // The token exists once in the world, and here: better shown than lost.
        Err(failure) => {
            print(credentials, said, json, output).await?;
            Err(failure)
        }
    }
}

async fn print(
    credentials: &Credentials,
    said: &str,
    json: bool,
    output: &mut Output,
) -> Result<(), Failure> {
    if json {
        let object = serde_json::to_string(credentials);
        return output.result(&object.unwrap_or_default()).await;
    }
    let token = shell_word(&escaped(&credentials.token));
    output.result(&format!("{said}\n\n  export ARC_TOKEN={token}\n")).await?;
    output.result("Keep the token: whoever has it is this agent, and it is not shown again.").await
}

fn wanted(args: &Args) -> Option<&str> {
    args.agent.as_ref().or(args.agent_option.as_ref()).map(AgentId::as_str)
}

/// The command to try next, with the options it needs.
fn next_step(args: &Args, url: &str) -> String {
    let mut command = "Next:\n\n  arc-relay agent listen".to_owned();
    if let Some(path) = &args.save {
        command.push_str(" --token-file ");
        command.push_str(&shell_word(&path.to_string_lossy()));
    }
    if url != DEFAULT_RELAY {
        command.push_str(" --relay ");
        command.push_str(&shell_word(url));
    }
    command
}
