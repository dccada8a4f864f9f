//! What is written to the registry's log, and what comes of it.
//!
//! One entry of the log is one [`Batch`]. Everything that decides is in it: applied to the same book, it
//! has the same outcome on every voter, whatever their clocks and settings say.

use std::fmt;

use rand::Rng;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{Audience, Revocation};
use crate::{
    AgentId, UnixMillis,
    token::{KeyId, Serial},
};

/// Names one founding of a registry: random, so that no two are taken for each other.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RegistryId(pub u128);

/// Names one attempt to register, so that it can be repeated until its outcome is known.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Claim {
    pub(super) id: [u8; 16],
    pub(super) repeatable: bool,
}

/// What one entry of the log says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Batch {
    /// The leader's wall clock; the book's own time never goes back.
    pub(super) time: UnixMillis,
    pub(super) commands: Vec<Command>,
}

/// One change that somebody wants.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) enum Command {
    /// The first of all: makes the empty book a registry.
    Found {
        registry: RegistryId,
        key: Secret,
    },
    /// Takes a name and issues its first token.
    Register {
        agent: AgentId,
        claim: Claim,
        expires: Option<UnixMillis>,
    },
    /// Gives a name back that was taken by this claim, of which nobody was told.
    Release {
        agent: AgentId,
        claim: Claim,
    },
    /// Issues one more token.
    Reissue {
        agent: AgentId,
        expires: Option<UnixMillis>,
    },
    Revoke(Revocation),
    Ban(AgentId),
    Unban(AgentId),
    /// Takes names without tokens.
    Import(Vec<AgentId>),
    /// A new key signs; the present one retires then.
    AddKey {
        secret: Secret,
        retires_at: UnixMillis,
    },
    PutVault {
        key: String,
        expected: u64,
        value: Option<Secret>,
        audience: Audience,
    },
    /// Who is to keep the book, if not the leader's seeds.
    WantVoters(Option<Vec<String>>),
}

/// What came of a command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Outcome {
    Done,
    /// A token is to be signed, by the key that signs now.
    Issued(Issued),
    Taken,
    /// The claim was given up before.
    Released,
    UnknownAgent,
    UnknownToken,
    Banned,
    Imported {
        added: u64,
        existing: Vec<AgentId>,
    },
    Key(KeyId),
    /// The new version; 0 if the value was removed.
    Version(u64),
    /// The present version, which is not the expected one.
    Conflict(u64),
    /// Before the founding, or a second one.
    Unfounded,
    /// It holds what no release of arc-relay proposes.
    Malformed,
}

/// What a token says; who knows the key can sign it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Issued {
    pub(super) agent: AgentId,
    pub(super) serial: Serial,
    pub(super) issued_at: UnixMillis,
    pub(super) expires: Option<UnixMillis>,
}

/// Bytes that are erased from memory when dropped, and never shown.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Secret(pub(super) Zeroizing<Vec<u8>>);

impl Serialize for Secret {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bytes;

        impl serde::de::Visitor<'_> for Bytes {
            type Value = Secret;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("bytes")
            }

            fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<Secret, E> {
                Ok(Secret(Zeroizing::new(bytes.to_vec())))
            }
        }

        deserializer.deserialize_bytes(Bytes)
    }
}

impl RegistryId {
    /// A new one.
    pub fn random() -> Self {
        Self(rand::rng().random())
    }
}

impl Claim {
    /// One attempt of somebody who will not come again.
    pub fn random() -> Self {
        Self { id: rand::rng().random(), repeatable: false }
    }

    /// The attempt that `key` names, a secret of whoever wants the name: the same key and `agent`
    /// make the same claim.
    pub fn repeatable(key: &str, agent: Option<&AgentId>) -> Self {
        let agent = agent.map_or("", AgentId::as_str);
        let text = [key.as_bytes(), b"\0", agent.as_bytes()].concat();
        let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &text);
        let id = hash.as_ref().first_chunk().copied().unwrap_or_default();
        Self { id, repeatable: true }
    }

    /// Whether whoever made it may come again for its outcome.
    pub fn is_repeatable(&self) -> bool {
        self.repeatable
    }
}

impl fmt::Display for RegistryId {
    /// Thirty-two hexadecimal digits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for RegistryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RegistryId({self})")
    }
}

impl fmt::Debug for Claim {
    /// Without its id, which is as good as a password to whoever may repeat it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Claim").field("repeatable", &self.repeatable).finish_non_exhaustive()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(hidden)")
    }
}
