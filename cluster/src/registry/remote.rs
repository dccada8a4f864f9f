//! What the voter and the observers of the registry say to each other.
//!
//! Requests go from an observer to the voter and are answered once; news go from the voter to every
//! observer. All of it travels in mutually authenticated links. Serialised as `MessagePack`; a test
//! freezes the bytes.

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{
    AdminError, Administration, AgentRecord, Claim, LocalRegistry, RegisterError, Registration,
    Registry, Revocation, standing::Revoked,
};
use crate::{
    AgentId, UnixMillis,
    token::{Serial, TokenVerifier},
};

/// How deep the values are nested at most.
const DEPTH_MAX: usize = 8;

/// What an observer asks of the voter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Request {
    Register(Option<AgentId>),
    Reissue(AgentId),
    RevokeToken(Serial),
    RevokeAgent(AgentId),
    Agent(AgentId),
}

/// What the voter answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Answer {
    Registered { agent: AgentId, token: String },
    Revoked,
    Agent(Option<Record>),
    Taken,
    Reserved,
    UnknownAgent,
    UnknownToken,
    Unavailable(String),
}

/// An [`AgentRecord`] on its way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    registered_at: UnixMillis,
    serial: Serial,
    revoked: bool,
}

/// What an observer keeps of the registry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct View {
    /// The public key that verifies tokens, 32 bytes.
    pub(super) key: Vec<u8>,
    /// How many names there are.
    pub(super) registered: u64,
    /// The revoked tokens.
    pub(super) tokens: Vec<Serial>,
    /// Of each agent with revoked tokens, the last that is.
    pub(super) agents: Vec<(AgentId, Serial)>,
}

impl View {
    /// What the voter knows now.
    pub(super) fn of(registry: &LocalRegistry) -> Self {
        let mut view = Self::new(registry.verifier(), registry.registered_agents());
        registry.with_revoked(|revoked| {
            view.tokens = revoked.tokens.iter().copied().collect();
            view.agents =
                revoked.agents.iter().map(|(agent, until)| (agent.clone(), *until)).collect();
        });
        view.tokens.sort_unstable();
        view.agents.sort_unstable();
        view
    }

    fn new(verifier: &TokenVerifier, registered: u64) -> Self {
        Self { key: verifier.key_bytes(), registered, tokens: Vec::new(), agents: Vec::new() }
    }

    /// The revocations in it.
    pub(super) fn revoked(&self) -> Revoked {
        Revoked {
            tokens: self.tokens.iter().copied().collect(),
            agents: self.agents.iter().cloned().collect(),
        }
    }
}

/// Answers what an observer asks.
pub(super) async fn answer(registry: &LocalRegistry, request: Request) -> Answer {
    match request {
        Request::Register(wanted) => registered(registry.register(wanted, Claim::random()).await),
        Request::Reissue(agent) => reissued(registry.reissue(&agent).await),
        Request::RevokeToken(serial) => revoked(registry.revoke(Revocation::Token(serial)).await),
        Request::RevokeAgent(agent) => revoked(registry.revoke(Revocation::Agent(agent)).await),
        Request::Agent(agent) => match registry.agent(&agent).await {
            Ok(record) => Answer::Agent(record.map(|record| Record {
                registered_at: record.registered_at,
                serial: record.serial,
                revoked: record.revoked,
            })),
            Err(error) => refused(error),
        },
    }
}

fn registered(result: Result<Registration, RegisterError>) -> Answer {
    match result {
        Ok(Registration { agent, token }) => Answer::Registered { agent, token },
        Err(RegisterError::Taken) => Answer::Taken,
        Err(RegisterError::Reserved) => Answer::Reserved,
        Err(RegisterError::Unavailable(why)) => Answer::Unavailable(why),
    }
}

fn reissued(result: Result<Registration, AdminError>) -> Answer {
    match result {
        Ok(Registration { agent, token }) => Answer::Registered { agent, token },
        Err(error) => refused(error),
    }
}

fn revoked(result: Result<(), AdminError>) -> Answer {
    result.map_or_else(refused, |()| Answer::Revoked)
}

fn refused(error: AdminError) -> Answer {
    match error {
        AdminError::UnknownAgent | AdminError::Banned => Answer::UnknownAgent,
        AdminError::UnknownToken => Answer::UnknownToken,
        AdminError::Unavailable(why) | AdminError::Refused(why) => Answer::Unavailable(why),
    }
}

impl Answer {
    /// As the one who asked for a registration reads it.
    pub(super) fn into_registration(self) -> Result<Registration, RegisterError> {
        match self {
            Self::Registered { agent, token } => Ok(Registration { agent, token }),
            Self::Taken => Err(RegisterError::Taken),
            Self::Reserved => Err(RegisterError::Reserved),
            other => Err(RegisterError::Unavailable(other.why())),
        }
    }

    /// As the one who asked for a new token reads it.
    pub(super) fn into_reissued(self) -> Result<Registration, AdminError> {
        match self {
            Self::Registered { agent, token } => Ok(Registration { agent, token }),
            other => Err(other.into_error()),
        }
    }

    /// As the one who revoked reads it.
    pub(super) fn into_revoked(self) -> Result<(), AdminError> {
        match self {
            Self::Revoked => Ok(()),
            other => Err(other.into_error()),
        }
    }

    /// As the one who asked for an agent reads it.
    pub(super) fn into_record(self) -> Result<Option<AgentRecord>, AdminError> {
        match self {
            Self::Agent(record) => Ok(record.map(|record| AgentRecord {
                registered_at: record.registered_at,
                serial: record.serial,
                revoked: record.revoked,
                banned: false,
            })),
            other => Err(other.into_error()),
        }
    }

    fn into_error(self) -> AdminError {
        match self {
            Self::UnknownAgent => AdminError::UnknownAgent,
            Self::UnknownToken => AdminError::UnknownToken,
            other => AdminError::Unavailable(other.why()),
        }
    }

    fn why(self) -> String {
        match self {
            Self::Unavailable(why) => why,
            other => format!("its voter gave an answer that fits no question: {}", other.kind()),
        }
    }

    /// What it is, without what it holds: a token must not get into a log.
    fn kind(&self) -> &'static str {
        match self {
            Self::Registered { .. } => "registered",
            Self::Revoked => "revoked",
            Self::Agent(_) => "agent",
            Self::Taken => "taken",
            Self::Reserved => "reserved",
            Self::UnknownAgent => "unknown agent",
            Self::UnknownToken => "unknown token",
            Self::Unavailable(_) => "unavailable",
        }
    }
}

/// The bytes of a request, an answer or news.
pub(super) fn to_bytes(value: &impl Serialize) -> Vec<u8> {
    rmp_serde::to_vec(value).unwrap_or_default() // writing these plain values to memory cannot fail
}

/// What the bytes say; none if they are nothing that this release knows.
pub(super) fn from_bytes<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    let mut reader = rmp_serde::Deserializer::new(bytes);
    // Nothing here is nested deeper; a stranger's nesting must not exhaust the stack.
    reader.set_max_depth(DEPTH_MAX);
    T::deserialize(&mut reader).ok()
}

#[cfg(test)]
mod tests {
    use data_encoding::HEXLOWER;

    use super::*;

    fn id(text: &str) -> AgentId {
        text.parse().unwrap()
    }

    #[test]
    fn the_bytes_are_frozen() {
        let hex = |bytes: Vec<u8>| HEXLOWER.encode(&bytes);
        let requests = [
            (Request::Register(None), "81a85265676973746572c0"),
            (Request::Register(Some(id("abc"))), "81a85265676973746572a3616263"),
            (Request::Reissue(id("abc")), "81a752656973737565a3616263"),
            (Request::RevokeToken(Serial(7)), "81ab5265766f6b65546f6b656e07"),
            (Request::RevokeAgent(id("abc")), "81ab5265766f6b654167656e74a3616263"),
            (Request::Agent(id("abc")), "81a54167656e74a3616263"),
        ];
        for (request, bytes) in requests {
            assert_eq!(hex(to_bytes(&request)), bytes);
            assert_eq!(from_bytes(&to_bytes(&request)), Some(request));
        }
        let view = View {
            key: vec![1, 2],
            registered: 3,
            tokens: vec![Serial(4)],
            agents: vec![(id("abc"), Serial(5))],
        };
        assert_eq!(hex(to_bytes(&view)), "949201020391049192a361626305");
        assert_eq!(from_bytes(&to_bytes(&view)), Some(view));
    }

    #[test]
    fn answers_come_back_as_they_were() {
        let record = Record { registered_at: UnixMillis(1), serial: Serial(2), revoked: true };
        for answer in [
            Answer::Registered { agent: id("abc"), token: "tok_x".into() },
            Answer::Revoked,
            Answer::Agent(Some(record)),
            Answer::Agent(None),
            Answer::Taken,
            Answer::Unavailable("disk".into()),
        ] {
            assert_eq!(from_bytes(&to_bytes(&answer)), Some(answer));
        }
        assert_eq!(from_bytes::<Answer>(b"\xc1 no MessagePack"), None);
    }

    #[test]
    fn an_answer_that_fits_no_question_shows_no_token() {
        let answer = Answer::Registered { agent: id("abc"), token: "tok_secret".into() };
        let error = answer.into_revoked().unwrap_err().to_string();
        assert!(error.contains("registered") && !error.contains("secret"), "{error}");
    }
}
