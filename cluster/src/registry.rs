//! The book of names: which agent ids are taken, which tokens are good.
//!
//! [`Registry`] is what the rest of the relay sees of it, [`Administration`] what its operator does with
//! it, [`Shelf`](tls::acme::Shelf) what its certificates need of it. [`SharedRegistry`] is all three on every node: on one
//! that is alone, on the voters that keep the book by consensus, and on those that only observe. How its
//! parts go together is told in ARCHITECTURE.md.

mod administration;
mod aside;
mod asking;
mod backup;
mod book;
#[cfg(test)]
mod book_tests;
mod bootstrap;
mod carry;
#[cfg(test)]
mod cluster_tests;
mod command;
#[cfg(test)]
mod conformance;
mod consensus;
mod deciding;
mod disk;
#[cfg(test)]
mod disk_tests;
mod duties;
mod elections;
mod facade;
mod facts;
mod heard;
mod hello;
mod image;
mod keys;
mod log;
mod machine;
#[cfg(any(test, feature = "memory"))]
mod memory;
mod message;
mod network;
mod news;
mod proposer;
mod quiet;
mod raft;
mod record;
mod releases;
mod request;
mod restoring;
mod salvage;
mod saved;
mod sealing;
mod serving;
mod shared;
mod simulated;
mod standing;
mod status;
mod storage;
mod store;
#[cfg(test)]
mod store_tests;
mod tables;
mod tail;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod voters;
mod writer;

pub use administration::{Administration, AgentPage, Imported, KeyInfo, KeyRotation, VoterChange};
pub use backup::{BackupError, BackupHeader, BackupReader, BackupWriter, SealError};
pub use carry::Carry;
pub use command::{Claim, RegistryId};
pub use hello::slots as voter_slots;
#[cfg(any(test, feature = "memory"))]
pub use memory::MemoryRegistry;
pub use restoring::{
    OfflineBackup, OfflineError, RestoreError, Restored, back_up_offline, restore,
};
pub use sealing::AtRest;
pub use shared::{Place, Settings, SharedRegistry};
pub use simulated::{SimulatedDisk, gives_vote};
pub use status::{RegistryStatus, Role, VoterStatus, Waiting};
pub use storage::{StorageReport, WRITE_BUCKETS, WriteCounts};
pub use store::OpenError;

use async_trait::async_trait;

use crate::{
    AgentId, UnixMillis,
    token::{Grant, Serial, TokenError},
};

pub use crate::token::KeyId;

/// An agent id and the token that speaks for it.
#[derive(Clone)]
pub struct Registration {
    /// The registered id.
    pub agent: AgentId,
    /// `tok_` and opaque text; never written to a log.
    pub token: String,
}

/// Why a name could not be registered; nothing has happened then.
#[derive(Debug, thiserror::Error)]
pub enum RegisterError {
    /// Somebody registered the id before; ids are never reused.
    #[error("this agent id is registered already, and ids are never reused: choose another")]
    Taken,
    /// The relay keeps the id for itself.
    #[error("this agent id is the relay's own: choose another")]
    Reserved,
    /// The registry cannot decide or write now.
    #[error("the registry cannot register names now: {0}")]
    Unavailable(String),
}

/// Why an administrative change was not made.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// No agent of that id was ever registered.
    #[error("no agent of this id is registered")]
    UnknownAgent,
    /// The agent is banned, and gets no token.
    #[error("this agent is banned: lift the ban first")]
    Banned,
    /// What was asked for would do harm; the text says which and what to do.
    #[error("{0}")]
    Refused(String),
    /// No token of that serial was ever issued.
    #[error("no token of this serial was ever issued")]
    UnknownToken,
    /// The registry cannot decide or write now.
    #[error("the registry cannot be changed now: {0}")]
    Unavailable(String),
}

/// What is revoked.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Revocation {
    /// One token, and all tokens narrowed from it.
    Token(Serial),
    /// Every token that the agent has been issued until now.
    Agent(AgentId),
}

/// What the registry knows of one agent.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct AgentRecord {
    /// When the id was registered.
    pub registered_at: UnixMillis,
    /// Serial of the token issued last.
    pub serial: Serial,
    /// Whether that token is revoked.
    pub revoked: bool,
    /// Whether the agent is banned.
    pub banned: bool,
}

/// The book of names, as the relay that serves agents sees it.
#[async_trait]
pub trait Registry: Send + Sync + 'static {
    /// Registers `wanted`, or an id of the registry's choosing, and issues its first token. When
    /// this returns `Ok` the name is durable on a majority of the voters.
    ///
    /// The same `claim` once more has the same outcome, with the same token's serial. Answers within
    /// two seconds; after `Unavailable` the name stays free unless the claim is
    /// [repeatable](Claim::is_repeatable), whose owner may come again for the outcome.
    async fn register(
        &self,
        wanted: Option<AgentId>,
        claim: Claim,
    ) -> Result<Registration, RegisterError>;

    /// How many ids are registered.
    fn registered_agents(&self) -> u64;

    /// Checks a token's signature, expiry and revocation, in memory.
    fn verify(&self, token: &str, now: UnixMillis) -> Result<Grant, TokenError>;

    /// Whether a token that was good once has been revoked since, by serial, with its agent, by a ban
    /// or with the key that signed it.
    fn is_revoked(&self, grant: &Grant) -> bool;

    /// Changes whenever something was revoked; whoever holds open sessions looks through them then.
    fn revocations(&self) -> tokio::sync::watch::Receiver<u64>;

    /// How the registry is, for operators.
    fn status(&self) -> RegistryStatus;

    /// What its file costs; none if it keeps none.
    fn storage(&self) -> Option<StorageReport> {
        None
    }
}
