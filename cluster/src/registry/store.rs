//! The registry's file: who may ask what of it.

use std::{io, path::PathBuf, sync::Arc};

use tokio::sync::watch;

use super::{
    AgentPage, AgentRecord, KeyInfo,
    facts::{Facts, Follow, Founded},
    image::Image,
    log::LogStore,
    machine::StateMachine,
    sealing::{AtRest, Sealing},
};
use crate::{
    AgentId, Incarnation, UnixMillis,
    database::Source,
    token::{KeyId, TokenSigner},
};

/// The version of the tables and records as a whole, stored beside them.
pub(super) const SCHEMA: u32 = 2;

/// Why the registry could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The directory or file cannot be made, read or written.
    #[error("cannot use the data directory {dir}", dir = dir.display())]
    Io {
        /// The data directory.
        dir: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Another process has the file open.
    #[error("another arc-relay runs on this data directory: {dir}", dir = .0.display())]
    InUse(PathBuf),
    /// The file is damaged, or was never a registry.
    #[error(
        "{file} is damaged or no registry of arc-relay ({reason}): restore it from a backup, or \
         move it away to start with an empty registry and a new signing key",
        file = file.display()
    )]
    Unreadable {
        /// The registry's file.
        file: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Another release of arc-relay wrote the file.
    #[error(
        "{file} was written by another release of arc-relay (schema {found}, this one has {SCHEMA}): \
         use that release",
        file = file.display()
    )]
    Schema {
        /// The registry's file.
        file: PathBuf,
        /// The version that the file has.
        found: u32,
    },
    /// What is secret in the file was sealed with a key that this node does not have.
    #[error(
        "{file} was sealed with a secret that is not at hand: set CLUSTER_SECRET, or \
         CLUSTER_SECRET_PREVIOUS, to what it was, or bring registry.key back beside it",
        file = file.display()
    )]
    Sealed {
        /// The registry's file.
        file: PathBuf,
    },
}

/// Why the file could not be read or written.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct StoreError(pub(super) String);

/// The open file of the registry: a handle, whose clones are the same.
#[derive(Clone)]
pub(super) struct Store(Arc<Shared>);

struct Shared {}

/// A registry's file that was opened.
pub(super) struct Opened {
    pub(super) identity: Incarnation,
    pub(super) store: Store,
    /// None: the node has no book yet.
    pub(super) founded: Option<Founded>,
    /// All that is held in memory.
    pub(super) facts: Facts,
    /// The last entry that is in it.
    pub(super) index: u64,
}

impl Store {
    /// Opens the file, or makes it, and begins a new life of the node. Blocks, for as long as it takes
    /// to read the whole file.
    ///
    /// `had_one` tells that the data directory has been used, so that an empty file is refused.
    pub(super) fn open(
        _source: impl Source,
        _at_rest: &AtRest,
        _had_one: bool,
        _now: UnixMillis,
    ) -> Result<Opened, OpenError> {
        todo!()
    }

    /// The log's half for openraft. Those given out before a [`reopen`](Self::reopen) fail after it.
    pub(super) fn log(&self) -> LogStore {
        todo!()
    }

    /// The book's half for openraft; `follow` is told of every change.
    pub(super) fn machine(&self, _follow: Arc<dyn Follow>) -> StateMachine {
        todo!()
    }

    /// Why the file is of no use, from the first failure until it was opened anew.
    pub(super) fn failure(&self) -> watch::Receiver<Option<String>> {
        todo!()
    }

    /// Opens the file anew after a failure: the last index that is in it, and all of it that is held in
    /// memory, which may be less than was applied before.
    pub(super) async fn reopen(&self) -> Result<(u64, Facts), OpenError> {
        todo!()
    }

    /// Writes what may still be in the system's memory, and closes the file.
    pub(super) async fn close(&self) {
        todo!()
    }

    /// Whether there is neither a book nor a log nor a vote: it may be founded, or joined to others.
    pub(super) fn is_empty(&self) -> Result<bool, StoreError> {
        todo!()
    }

    pub(super) fn agent(&self, _agent: &AgentId) -> Result<Option<AgentRecord>, StoreError> {
        todo!()
    }

    /// The agents behind `after` in the order of their ids, at most `limit`.
    pub(super) fn agents(
        &self,
        _after: Option<&AgentId>,
        _limit: usize,
    ) -> Result<AgentPage, StoreError> {
        todo!()
    }

    /// The keys that have not retired, the one that signs first.
    pub(super) fn keys(&self) -> Result<Vec<KeyInfo>, StoreError> {
        todo!()
    }

    /// What signs now; none before the founding.
    pub(super) fn signer(&self) -> Result<Option<(KeyId, TokenSigner)>, StoreError> {
        todo!()
    }

    /// Who is to keep the book; nobody: each node follows its own seeds.
    pub(super) fn wanted_voters(&self) -> Result<Vec<String>, StoreError> {
        todo!()
    }

    /// The time of the last entry that is in the book.
    pub(super) fn log_time(&self) -> Result<UnixMillis, StoreError> {
        todo!()
    }

    /// The whole book as it is now.
    pub(super) fn export(&self) -> Result<Image, StoreError> {
        todo!()
    }

    /// What seals at rest, for other files of this node.
    pub(super) fn sealing(&self) -> Arc<Sealing> {
        todo!()
    }
}
