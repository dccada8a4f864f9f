//! The registry's log, as openraft asks for it.

use std::{fmt::Debug, ops::RangeBounds};

use openraft::{
    LogState, RaftLogReader,
    storage::{LogFlushed, RaftLogStorage},
};

use super::raft::{Entry, LogId, StorageError, TypeConfig, Vote};

/// The log's half of a [`Store`](super::store::Store).
#[derive(Clone)]
pub(super) struct LogStore {}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<R: RangeBounds<u64> + Clone + Debug + Send>(
        &mut self,
        _range: R,
    ) -> Result<Vec<Entry>, StorageError> {
        todo!()
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, StorageError> {
        todo!()
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, _vote: &Vote) -> Result<(), StorageError> {
        todo!()
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, StorageError> {
        todo!()
    }

    async fn append<I>(&mut self, _: I, _: LogFlushed<TypeConfig>) -> Result<(), StorageError>
    where
        I: IntoIterator<Item = Entry> + Send,
        I::IntoIter: Send,
    {
        todo!()
    }

    async fn truncate(&mut self, _since: LogId) -> Result<(), StorageError> {
        todo!()
    }

    async fn purge(&mut self, _upto: LogId) -> Result<(), StorageError> {
        todo!()
    }
}
