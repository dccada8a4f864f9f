//! What only the administrator asks of the book of names.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;
use serde::{Deserialize, Serialize};

use super::{AdminError, AgentRecord, KeyId, Registration, Revocation};
use crate::{AgentId, UnixMillis};

/// What only the administrator asks of the book of names. Every change is durable on a majority of
/// the voters when its method returns `Ok`, and all nodes in reach have heard of it within a second.
#[async_trait]
pub trait Administration: Send + Sync + 'static {
    /// What is known of an agent; none if the id was never registered.
    async fn agent(&self, agent: &AgentId) -> Result<Option<AgentRecord>, AdminError>;

    /// The agents behind `after` in the order of their ids, at most `limit`, 1 to 1,000.
    async fn agents(&self, after: Option<AgentId>, limit: usize) -> Result<AgentPage, AdminError>;

    /// Issues one more token for a registered agent, for example after its last was revoked. Does not
    /// revoke the others.
    async fn reissue(&self, agent: &AgentId) -> Result<Registration, AdminError>;

    /// Revokes one token or all that an agent has. The id stays taken.
    async fn revoke(&self, what: Revocation) -> Result<(), AdminError>;

    /// Refuses all tokens of an agent, later ones too, until [`unban`](Self::unban).
    async fn ban(&self, agent: &AgentId) -> Result<(), AdminError>;

    /// Lifts a ban: what was not revoked is good again.
    async fn unban(&self, agent: &AgentId) -> Result<(), AdminError>;

    /// Takes names for ids that have no token yet: [`reissue`](Self::reissue) gives them one.
    async fn import(&self, agents: Vec<AgentId>) -> Result<Imported, AdminError>;

    /// The signing keys, the one that signs first.
    async fn keys(&self) -> Result<Vec<KeyInfo>, AdminError>;

    /// Lets a new key sign from now on; what the present one signed is good for `retire_after` more.
    async fn rotate_key(&self, retire_after: Duration) -> Result<KeyRotation, AdminError>;

    /// Changes who keeps the book, step by step, each step safe; [`Registry::status`](super::Registry::status)
    /// shows the progress.
    async fn change_voters(&self, change: VoterChange) -> Result<(), AdminError>;

    /// All that the book holds at one moment, as chunks of bytes; for [backups](crate::registry).
    /// Secrets are in it.
    async fn export(&self) -> Result<BoxStream<'static, Result<Bytes, AdminError>>, AdminError>;
}

/// Some of the agents.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentPage {
    /// In the order of their ids.
    pub agents: Vec<(AgentId, AgentRecord)>,
    /// Whether there are more behind the last.
    pub more: bool,
}

/// What became of an import.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Imported {
    /// How many names are new.
    pub added: u64,
    /// Those that were registered already; they are as they were.
    pub existing: Vec<AgentId>,
}

/// A key that signs tokens, or did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyInfo {
    /// Its number, which its tokens carry.
    pub id: KeyId,
    /// The public half, 32 bytes.
    pub public: Vec<u8>,
    /// Since when there is this key.
    pub created_at: UnixMillis,
    /// When its tokens end; none: not decided.
    pub retires_at: Option<UnixMillis>,
}

/// A change of keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyRotation {
    /// The key that signs now.
    pub signs: KeyInfo,
    /// The key that signed before.
    pub retires: KeyInfo,
}

/// What the operator wants of the voters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum VoterChange {
    /// These seeds and no others are to be the voters; 1, 3 or 5, as written in `SEEDS`.
    Set(Vec<String>),
    /// Follow each node's own `SEEDS` again.
    FollowSeeds,
    /// The node at `new`, a seed or an advertised address, takes the place of the voter at `old`.
    Replace {
        /// The voter that goes, by address or node id.
        old: String,
        /// The node that comes.
        new: String,
    },
}
