//! What one survivor of a lost majority has: its book, and all that stands in its log behind that.
//!
//! Entries behind the book may have been acknowledged or not; who is left alone cannot know. A name
//! that nobody holds a token of does less harm than one that is given twice, so all of them count. Nothing
//! of that is written to the survivor's file: the others may come back after all.

use std::{path::Path, sync::Arc};

use openraft::{RaftLogReader, RaftSnapshotBuilder, storage::RaftStateMachine};
use redb::{Database, backends::InMemoryBackend};

use super::{
    facts::{Facts, Follow},
    image::Image,
    raft::StorageError,
    sealing::AtRest,
    store::{OpenError, Store},
};
use crate::{
    UnixMillis,
    database::{self, FileError, Source},
};

/// How many entries are applied at once.
const ENTRIES: u64 = 64;

/// What redb may keep of the copy beside the copy itself.
const CACHE_BYTES: usize = 16 << 20;

/// Everything that a survivor has.
pub(super) struct Salvaged {
    /// All of it as one book.
    pub(super) image: Image,
    /// How many entries were behind the survivor's book.
    pub(super) entries: u64,
    /// What the image reads; must outlive it.
    pub(super) copy: Store,
}

/// Why nothing could be saved.
#[derive(Debug, thiserror::Error)]
pub(super) enum SalvageError {
    #[error("cannot make a copy in memory: {0}")]
    Open(#[from] OpenError),
    #[error("cannot read the registry: {0}")]
    Storage(#[from] StorageError),
}

/// Copies the book of `survivor` into memory, some 150 bytes a name, and does there what its log says.
pub(super) async fn salvage(survivor: &Store, now: UnixMillis) -> Result<Salvaged, SalvageError> {
    let snapshot = survivor.machine(Arc::new(Nobody)).build_snapshot().await?;
    let copy = Store::open(Memory, &AtRest::generate(), false, now)?.store;
    let (mut log, mut machine) = (survivor.log(), copy.machine(Arc::new(Nobody)));
    machine.install_snapshot(&snapshot.meta, snapshot.snapshot).await?;
    let first = snapshot.meta.last_log_id.map_or(0, |id| id.index + 1);
    let mut next = first;
    loop {
        let entries = log.try_get_log_entries(next..next + ENTRIES).await?;
        let Some(last) = entries.last() else { break };
        next = last.log_id.index + 1;
        machine.apply(entries).await?;
    }
    let image = *machine.build_snapshot().await?.snapshot;
    Ok(Salvaged { image, entries: next - first, copy })
}

/// Nobody holds anything of the copy in memory.
struct Nobody;

impl Follow for Nobody {
    fn applied(&self, _: u64, _: u64, _: Facts) {}

    fn replaced(&self, _: u64, _: Facts) {}
}

/// Nothing, each time it is opened.
struct Memory;

impl Source for Memory {
    fn open(&self) -> Result<Database, FileError> {
        let opened = database::builder(CACHE_BYTES).create_with_backend(InMemoryBackend::new());
        opened.map_err(|error| FileError::Unreadable(error.to_string()))
    }

    fn path(&self) -> &Path {
        Path::new("memory")
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a failed unwrap is a failed test
mod tests {
    use openraft::storage::RaftLogStorageExt;

    use super::{
        super::store_tests::{Bench, NOW, bytes, register},
        *,
    };

    #[tokio::test]
    async fn what_is_in_the_log_alone_is_saved_too() {
        let mut bench = Bench::founded().await;
        bench.commit(vec![register("abc")]).await;
        let behind: Vec<_> =
            (0..ENTRIES + 3).map(|n| bench.entry(vec![register(&format!("name-{n}"))])).collect();
        bench.log.blocking_append(behind.clone()).await.unwrap();
        let before = bench.bytes();
        let saved = salvage(&bench.store, NOW).await.unwrap();
        assert_eq!(saved.entries, ENTRIES + 3);
        assert_eq!(bench.bytes(), before, "the survivor is as it was");
        bench.machine.apply(behind).await.unwrap();
        assert_eq!(bytes(saved.image), bench.bytes());
        drop(saved.copy);
    }
}
