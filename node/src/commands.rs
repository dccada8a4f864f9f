//! What an agent can ask of the relay itself (PROTOCOL section 6).

use std::collections::{BTreeSet, HashMap};

use cluster::AgentId;
use serde_json::value::RawValue;

use crate::message::Scanned;

/// A command, read and checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Answer with the same payload.
    Ping,
    /// Follow these agents.
    Subscribe(BTreeSet<AgentId>),
    /// Follow these agents no longer.
    Unsubscribe(BTreeSet<AgentId>),
    /// Say whom the agent follows.
    ListSubscriptions,
}

/// Why a message to the relay is no command.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// It has no `type`, or one that names no command.
    #[error("unknown command: \"type\" must be ping, subscribe, unsubscribe or list_subscriptions")]
    Unknown,
    /// The payload does not name the agents.
    #[error("the payload must name the agents: {{\"agents\": [\"some-agent\"]}}: {0}")]
    Payload(String),
}

impl CommandError {
    /// Of what is wrong with a payload not more is said than a line, however long the payload.
    fn payload(why: &str) -> Self {
        Self::Payload(why.chars().take(WHY_CHARS_MAX).collect())
    }

    /// The error's code, as agents see it.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Unknown => "unknown_command",
            Self::Payload(_) => "invalid_message",
        }
    }
}

/// Characters said about a payload that is wrong.
const WHY_CHARS_MAX: usize = 160;

impl Command {
    /// Reads a message whose only target is the relay.
    pub fn read(message: &Scanned<'_>) -> Result<Self, CommandError> {
        let agents = || read_agents(message.payload.unwrap_or("null"));
        match message.kind_text().as_deref() {
            Some("ping") => Ok(Self::Ping),
            Some("subscribe") => Ok(Self::Subscribe(agents()?)),
            Some("unsubscribe") => Ok(Self::Unsubscribe(agents()?)),
            Some("list_subscriptions") => Ok(Self::ListSubscriptions),
            _ => Err(CommandError::Unknown),
        }
    }
}

/// The agents that a payload names. Of a field that it repeats the last one counts, as in all messages.
fn read_agents(payload: &str) -> Result<BTreeSet<AgentId>, CommandError> {
    let malformed = |error: serde_json::Error| CommandError::payload(&error.to_string());
    let fields: HashMap<String, &RawValue> = serde_json::from_str(payload).map_err(malformed)?;
    let named = fields.get("agents").or_else(|| fields.get("subscribe_to"));
    let named = named.ok_or_else(|| CommandError::payload("there are none"))?;
    let ids: Vec<String> = serde_json::from_str(named.get()).map_err(malformed)?;
    let parse = |id: &String| {
        id.parse().map_err(|error| CommandError::payload(&format!("{error}; not {id:?}")))
    };
    ids.iter().map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::scan;

    fn read(kind: &str, payload: &str) -> Result<Command, CommandError> {
        let text = format!(r#"{{"to":["relay"],"type":{kind},"payload":{payload}}}"#);
        Command::read(&scan(text.as_bytes()).unwrap())
    }

    #[test]
    fn commands_by_their_type() {
        let two = ["abc", "def"].map(|id| id.parse().unwrap()).into();
        assert_eq!(read(r#""ping""#, "1"), Ok(Command::Ping));
        assert_eq!(read(r#""\u0070ing""#, "1"), Ok(Command::Ping));
        assert_eq!(read(r#""list_subscriptions""#, "null"), Ok(Command::ListSubscriptions));
        assert_eq!(
            read(r#""subscribe""#, r#"{"agents":["def","abc","def"]}"#),
            Ok(Command::Subscribe(two))
        );
        assert_eq!(
            read(r#""unsubscribe""#, r#"{"subscribe_to":["abc"],"x":1}"#),
            Ok(Command::Unsubscribe(["abc".parse().unwrap()].into()))
        );
        assert_eq!(read(r#""quit""#, "1"), Err(CommandError::Unknown));
        let no_type = scan(br#"{"to":["relay"]}"#).map(|m| Command::read(&m));
        assert_eq!(no_type, Ok(Err(CommandError::Unknown)));
    }

    #[test]
    fn payloads_that_name_no_agents() {
        for payload in [
            "null",
            "[]",
            r#"[["abc"]]"#,
            r#"{"agents":"abc"}"#,
            r#"{"agents":["A B"]}"#,
            r#"{"agents":["abc"],"agents":null}"#,
            "{}",
        ] {
            let error = read(r#""subscribe""#, payload).unwrap_err();
            assert_eq!(error.code(), "invalid_message", "{payload}");
        }
    }

    #[test]
    fn of_a_repeated_field_the_last_counts() {
        let abc = ["abc".parse().unwrap()].into();
        let payload = r#"{"agents":7,"x":[[["deep"]]],"\u0061gents":["abc"],"y":"\ud800"}"#;
        assert_eq!(read(r#""subscribe""#, payload), Ok(Command::Subscribe(abc)));
    }
}
