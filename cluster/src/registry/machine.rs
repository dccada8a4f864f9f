//! The registry's book, as openraft asks for it.

use openraft::{RaftSnapshotBuilder, Snapshot, storage::RaftStateMachine};

use super::{
    command::Outcome,
    image::Image,
    raft::{Entry, LogId, Membership, SnapshotMeta, StorageError, TypeConfig},
};

/// The book's half of a [`Store`](super::store::Store).
#[derive(Clone)]
pub(super) struct StateMachine {}

impl RaftSnapshotBuilder<TypeConfig> for StateMachine {
    async fn build_snapshot(&mut self) -> Result<Snapshot<TypeConfig>, StorageError> {
        todo!()
    }
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotBuilder = Self;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, Membership), StorageError> {
        todo!()
    }

    async fn apply<I>(&mut self, _entries: I) -> Result<Vec<Vec<Outcome>>, StorageError>
    where
        I: IntoIterator<Item = Entry> + Send,
        I::IntoIter: Send,
    {
        todo!()
    }

    async fn get_snapshot_builder(&mut self) -> Self {
        self.clone()
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<Image>, StorageError> {
        todo!()
    }

    async fn install_snapshot(
        &mut self,
        _meta: &SnapshotMeta,
        _image: Box<Image>,
    ) -> Result<(), StorageError> {
        todo!()
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot<TypeConfig>>, StorageError> {
        todo!()
    }
}
