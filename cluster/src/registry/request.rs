//! What a node asks of the voter that leads, or of any voter, for its agents and its administrator.

use serde::{Deserialize, Serialize};
use tls::acme::ShelfError;

use super::{
    AdminError, AgentPage, AgentRecord, Claim, Imported, KeyInfo, KeyRotation, RegisterError,
    Registration, Revocation, VoterChange,
    command::{Audience, Secret},
};
use crate::{AgentId, NodeId};

/// What is asked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) enum Request {
    Register { agent: AgentId, claim: Claim },
    Release { agent: AgentId, claim: Claim },
    Reissue(AgentId),
    Revoke(Revocation),
    Ban(AgentId),
    Unban(AgentId),
    Import(Vec<AgentId>),
    RotateKey { retire_after_ms: u64 },
    ChangeVoters(VoterChange),
    PutVault { key: String, expected: u64, value: Option<Secret>, audience: Audience },
    Agent(AgentId),
    Agents { after: Option<AgentId>, limit: u32 },
    Keys,
}

/// What is answered.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Answer {
    Done,
    Registered {
        agent: AgentId,
        token: String,
    },
    Taken,
    Reserved,
    /// The claim was given up, or what it got was replaced, before it was answered.
    Released,
    UnknownAgent,
    UnknownToken,
    Banned,
    Imported(Imported),
    Rotated(KeyRotation),
    Version(u64),
    Conflict(u64),
    Agent(Option<AgentRecord>),
    Agents(AgentPage),
    Keys(Vec<KeyInfo>),
    /// It would do harm.
    Refused(String),
    /// Another leads, and nothing was done.
    NotLeader(Option<NodeId>),
    /// Nothing was decided, as far as is known.
    Unavailable {
        why: String,
        /// Whether it may have been done all the same, or may be still.
        unknown: bool,
    },
}

impl Request {
    /// Whether any voter can answer it from its own book.
    pub(super) fn is_for_any_voter(&self) -> bool {
        matches!(self, Self::Agents { .. } | Self::Keys)
    }

    /// Whether it may be asked once more while it is not known what became of it: done twice, it does
    /// the same, and gets the same answer.
    pub(super) fn is_repeatable(&self) -> bool {
        !matches!(self, Self::RotateKey { .. } | Self::Import(_) | Self::PutVault { .. })
    }
}

impl Answer {
    pub(super) fn into_registration(self) -> Result<Registration, RegisterError> {
        match self {
            Self::Registered { agent, token } => Ok(Registration { agent, token }),
            Self::Taken => Err(RegisterError::Taken),
            Self::Reserved => Err(RegisterError::Reserved),
            other => Err(RegisterError::Unavailable(other.why())),
        }
    }

    pub(super) fn into_reissued(self) -> Result<Registration, AdminError> {
        match self {
            Self::Registered { agent, token } => Ok(Registration { agent, token }),
            other => Err(other.into_error()),
        }
    }

    pub(super) fn into_done(self) -> Result<(), AdminError> {
        match self {
            Self::Done => Ok(()),
            other => Err(other.into_error()),
        }
    }

    pub(super) fn into_version(self) -> Result<u64, ShelfError> {
        match self {
            Self::Version(version) => Ok(version),
            Self::Conflict(_) => Err(ShelfError::Conflict),
            other => Err(ShelfError::Unavailable(other.into_error().to_string())),
        }
    }

    /// As whoever asked for something else reads it.
    pub(super) fn into_error(self) -> AdminError {
        match self {
            Self::UnknownAgent => AdminError::UnknownAgent,
            Self::UnknownToken => AdminError::UnknownToken,
            Self::Banned => AdminError::Banned,
            Self::Refused(why) => AdminError::Refused(why),
            other => AdminError::Unavailable(other.why()),
        }
    }

    fn why(self) -> String {
        match self {
            Self::Unavailable { why, .. } | Self::Refused(why) => why,
            Self::Released => {
                "this attempt was given up, or its token was replaced, before it was answered: try again"
                    .into()
            },
            Self::NotLeader(_) => "no node leads it now".into(),
            other => format!("a voter gave an answer that fits no question: {}", other.kind()),
        }
    }

    /// What it is, without what it holds: a token must not get into a log.
    fn kind(&self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Registered { .. } => "registered",
            Self::Taken => "taken",
            Self::Reserved => "reserved",
            Self::Released => "released",
            Self::UnknownAgent => "unknown agent",
            Self::UnknownToken => "unknown token",
            Self::Banned => "banned",
            Self::Imported(_) => "imported",
            Self::Rotated(_) => "rotated",
            Self::Version(_) => "version",
            Self::Conflict(_) => "conflict",
            Self::Agent(_) => "agent",
            Self::Agents(_) => "agents",
            Self::Keys(_) => "keys",
            Self::Refused(_) => "refused",
            Self::NotLeader(_) => "not the leader",
            Self::Unavailable { .. } => "unavailable",
        }
    }
}

impl std::fmt::Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Answer({})", self.kind())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_of_a_value_is_a_version_or_said_in_words() {
        assert_eq!(Answer::Version(3).into_version(), Ok(3));
        assert_eq!(Answer::Conflict(3).into_version(), Err(ShelfError::Conflict));
        let unavailable = Answer::NotLeader(None).into_version();
        let why = "the registry cannot be changed now: no node leads it now".to_owned();
        assert_eq!(unavailable, Err(ShelfError::Unavailable(why)));
    }
}
