//! The registry on a simulated disk, so that whole runs are repeatable.
//!
//! Everything is as on a real one but who does it: the writer has no thread of its own, and what would
//! block is done at once, so that one thread under one clock does everything in one order.

use std::{io, path::Path, sync::Arc};

use async_trait::async_trait;
use redb::{Database, StorageBackend};

use openraft::raft::VoteResponse;

use super::{
    OpenError, Settings, SharedRegistry,
    consensus::LogLimits,
    message::{self, Question},
};
use crate::{
    AgentId,
    database::{self, FileError, Source, Turns},
};

/// What redb may keep of the disk in memory.
const CACHE_BYTES: usize = 1 << 20;

/// A disk that is simulated: it outlives the registries that are opened on it.
#[async_trait]
pub trait SimulatedDisk: Send + Sync + 'static {
    /// What redb reads and writes.
    type Content: StorageBackend;

    /// Opens what lies on it; whoever had it open has lost it.
    ///
    /// # Errors
    /// The disk cannot be used.
    fn open(&self) -> io::Result<Self::Content>;

    /// Returns when the disk does what it is asked next.
    async fn turn(&self);
}

impl SharedRegistry {
    /// As [`open`](Self::open), on a simulated disk; `data_dir` is for what is not in the registry's
    /// file. A snapshot is made every `snapshot_every` entries of the log. To be served on a runtime
    /// of one thread.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_simulated(
        disk: Arc<impl SimulatedDisk>,
        data_dir: &Path,
        settings: Settings,
        snapshot_every: u64,
    ) -> Result<Arc<Self>, OpenError> {
        let limits = LogLimits { snapshot_every, kept: snapshot_every / 4 };
        Self::open_limited(Simulated(disk), data_dir, false, settings, limits)
    }

    /// The names that are to be given back: should this node die now, they may stay taken for nobody.
    pub fn names_to_give_back(&self) -> Vec<AgentId> {
        self.releases().names().into_iter().map(|(agent, _)| agent).collect()
    }
}

/// Whether what one node asked of another and was answered is that node's vote for it.
pub fn gives_vote(question: &[u8], answer: &[u8]) -> bool {
    matches!(message::from_bytes(question), Some(Question::Vote(_)))
        && message::from_bytes(answer)
            .is_some_and(|response: VoteResponse<u64>| response.vote_granted)
}

/// A simulated disk where the registry looks for its file.
struct Simulated<D>(Arc<D>);

impl<D: SimulatedDisk> Source for Simulated<D> {
    fn open(&self) -> Result<Database, FileError> {
        let content = self.0.open().map_err(FileError::Io)?;
        let opened = database::builder(CACHE_BYTES).create_with_backend(content);
        opened.map_err(|error| FileError::Unreadable(error.to_string()))
    }

    fn path(&self) -> &Path {
        Path::new("simulated")
    }

    fn turns(&self) -> Option<Turns> {
        let disk = Arc::clone(&self.0);
        Some(Box::new(move || {
            let disk = Arc::clone(&disk);
            Box::pin(async move { disk.turn().await })
        }))
    }
}
