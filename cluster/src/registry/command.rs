//! What is written to the registry's log, and what comes of it.
//!
//! One entry of the log is one [`Batch`]. Everything that decides is in it: applied to the same book, it
//! has the same outcome on every voter, whatever their clocks and settings say.

use std::fmt;

use rand::Rng;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::Revocation;
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
    #[serde(with = "byte_array")]
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

/// Which nodes are given a value of the vault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Audience {
    /// Voters alone.
    Voters,
    /// Every node.
    All,
}

/// What came of a command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Outcome {
    Done,
    /// A token is to be signed, by the key that signs now.
    Issued(Issued),
    Taken,
    /// The claim was given up before, or what it got was replaced.
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
    #[allow(clippy::struct_field_names)] // when the token was issued; `at` says nothing
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

/// `N` bytes as `MessagePack`'s bytes; serde would make an array of numbers of them.
pub(super) mod byte_array {
    use std::fmt;

    use serde::{Deserializer, Serializer, de};

    pub(in super::super) fn serialize<S: Serializer, const N: usize>(
        bytes: &[u8; N],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(bytes)
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>, const N: usize>(
        deserializer: D,
    ) -> Result<[u8; N], D::Error> {
        struct Bytes<const N: usize>;

        impl<const N: usize> de::Visitor<'_> for Bytes<N> {
            type Value = [u8; N];

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{N} bytes")
            }

            fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<[u8; N], E> {
                bytes.try_into().map_err(|_| E::invalid_length(bytes.len(), &self))
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

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a failed unwrap is a failed test
mod tests {
    use data_encoding::HEXLOWER;

    use super::{
        super::{
            raft::{Entry, VoterAddress},
            record::{from_bytes, to_bytes},
        },
        *,
    };

    fn id(text: &str) -> AgentId {
        text.parse().unwrap()
    }

    fn secret(bytes: &[u8]) -> Secret {
        Secret(Zeroizing::new(bytes.to_vec()))
    }

    fn commands() -> Vec<Command> {
        let claim = Claim { id: [9; 16], repeatable: false };
        let expires = Some(UnixMillis(5));
        let retires_at = UnixMillis(6);
        let put = |value| Command::PutVault {
            key: "cert".into(),
            expected: 1,
            value,
            audience: Audience::All,
        };
        vec![
            Command::Found { registry: RegistryId(7), key: secret(b"key") },
            Command::Register { agent: id("abc"), claim, expires },
            Command::Release { agent: id("abc"), claim },
            Command::Reissue { agent: id("abc"), expires: None },
            Command::Revoke(Revocation::Token(Serial(1))),
            Command::Revoke(Revocation::Agent(id("abc"))),
            Command::Ban(id("abc")),
            Command::Unban(id("abc")),
            Command::Import(vec![id("abc"), id("def")]),
            Command::AddKey { secret: secret(b"key"), retires_at },
            put(Some(secret(b"pem"))),
            put(None),
            Command::WantVoters(Some(vec!["a:1".into()])),
            Command::WantVoters(None),
        ]
    }

    fn outcomes() -> Vec<Outcome> {
        let (serial, issued_at) = (Serial(1), UnixMillis(2));
        vec![
            Outcome::Done,
            Outcome::Issued(Issued { agent: id("abc"), serial, issued_at, expires: None }),
            Outcome::Taken,
            Outcome::Released,
            Outcome::UnknownAgent,
            Outcome::UnknownToken,
            Outcome::Banned,
            Outcome::Imported { added: 1, existing: vec![id("abc")] },
            Outcome::Key(KeyId(1)),
            Outcome::Version(1),
            Outcome::Conflict(2),
            Outcome::Unfounded,
            Outcome::Malformed,
        ]
    }

    fn frozen<T>(values: &[T], bytes: &[&str])
    where
        T: Serialize + for<'de> Deserialize<'de> + PartialEq + fmt::Debug,
    {
        let written: Vec<_> =
            values.iter().map(|value| HEXLOWER.encode(&to_bytes(value))).collect();
        assert_eq!(written, bytes);
        for value in values {
            assert_eq!(from_bytes::<T>(&to_bytes(value)).as_ref(), Some(value));
        }
    }

    #[test]
    fn the_bytes_of_commands_are_frozen() {
        frozen(&commands(), &COMMANDS);
        frozen(&outcomes(), &OUTCOMES);
    }

    #[test]
    fn the_bytes_of_entries_are_frozen() {
        let leader_id = openraft::CommittedLeaderId::new(2, 3);
        let log_id = openraft::LogId { leader_id, index: 4 };
        let batch = Batch { time: UnixMillis(5), commands: vec![Command::Ban(id("abc"))] };
        let nodes = std::collections::BTreeMap::from([(3, VoterAddress { seed: "a:1".into() })]);
        let membership = openraft::Membership::new(vec![[3].into()], nodes);
        let entry = |payload| Entry { log_id, payload };
        frozen(
            &[
                entry(openraft::EntryPayload::Blank),
                entry(openraft::EntryPayload::Normal(batch)),
                entry(openraft::EntryPayload::Membership(membership)),
            ],
            &ENTRIES,
        );
    }

    const COMMANDS: [&str; 14] = [
        "0181a5466f756e6492c41000000000000000000000000000000007c4036b6579",
        "0181a8526567697374657293a361626392c41009090909090909090909090909090909c205",
        "0181a752656c6561736592a361626392c41009090909090909090909090909090909c2",
        "0181a75265697373756592a3616263c0",
        "0181a65265766f6b6581a5546f6b656e01",
        "0181a65265766f6b6581a54167656e74a3616263",
        "0181a342616ea3616263",
        "0181a5556e62616ea3616263",
        "0181a6496d706f727492a3616263a3646566",
        "0181a64164644b657992c4036b657906",
        "0181a85075745661756c7494a46365727401c40370656da3416c6c",
        "0181a85075745661756c7494a46365727401c0a3416c6c",
        "0181aa57616e74566f7465727391a3613a31",
        "0181aa57616e74566f74657273c0",
    ];
    const OUTCOMES: [&str; 13] = [
        "01a4446f6e65",
        "0181a649737375656494a36162630102c0",
        "01a554616b656e",
        "01a852656c6561736564",
        "01ac556e6b6e6f776e4167656e74",
        "01ac556e6b6e6f776e546f6b656e",
        "01a642616e6e6564",
        "0181a8496d706f72746564920191a3616263",
        "0181a34b657901",
        "0181a756657273696f6e01",
        "0181a8436f6e666c69637402",
        "01a9556e666f756e646564",
        "01a94d616c666f726d6564",
    ];
    const ENTRIES: [&str; 3] = [
        "01929292020304a5426c616e6b",
        "0192929202030481a64e6f726d616c92059181a342616ea3616263",
        "0192929202030481aa4d656d6265727368697092919103810391a3613a31",
    ];

    #[test]
    fn nothing_shows_a_secret_or_a_claim() {
        let shown = format!("{:?}", commands());
        assert!(!shown.contains("[9, 9") && !shown.contains("107, 101, 121"), "{shown}");
    }
}
