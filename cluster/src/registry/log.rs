//! The registry's log, as openraft asks for it.

use std::{
    fmt::Debug,
    io,
    ops::{Bound, Range, RangeBounds},
};

use openraft::{
    AnyError, LogState, RaftLogReader, StorageIOError,
    storage::{LogFlushed, RaftLogStorage},
};
use redb::ReadableTable;
use tokio::sync::oneshot;
use zeroize::Zeroizing;

use super::{
    raft::{Entry, LogId, StorageError, TypeConfig, Vote},
    record,
    sealing::{Place, Sealing},
    store::{Shared, Store},
    tables::{LOG, LOG_PLACE, Reading, StoreError, meta, put_meta},
    writer::{Durable, Job, Work},
};

/// The longest answer to [`limited_get_log_entries`](RaftLogReader::limited_get_log_entries), in encoded
/// bytes, unless its first entry alone is longer: what one request to append may carry.
const READ_BYTES_MAX: usize = 1 << 20;

/// The log's half of a [`Store`].
#[derive(Clone, Debug)]
pub(super) struct LogStore {
    store: Store,
    epoch: u64,
}

impl LogStore {
    pub(super) fn new(store: Store, epoch: u64) -> Self {
        Self { store, epoch }
    }

    /// The entries from `start` to before `end`, and no more than `bytes_max` unless the first is.
    async fn entries(
        &self,
        start: u64,
        end: u64,
        bytes_max: usize,
    ) -> Result<Vec<Entry>, StoreError> {
        let mut entries = Collected { entries: Vec::new(), room: bytes_max, is_full: false };
        // What leaves memory is on the disk, so memory is looked at first.
        let (in_memory, first) = {
            let tail = self.store.shared().tail.lock();
            let first = tail.first_index().map_or(end, |first| first.clamp(start, end));
            let found = tail.range(first, end);
            (found.map(|(entry, bytes)| (entry.clone(), bytes)).collect::<Vec<_>>(), first)
        };
        if start < first {
            let stored = self.store.aside(move |store| entries.read(store, start..first));
            entries = stored.await?;
        }
        for (entry, bytes) in in_memory {
            entries.take(entry, bytes);
        }
        Ok(entries.entries)
    }

    fn state(store: &Store) -> Result<LogState<TypeConfig>, StoreError> {
        let transaction = store.read()?;
        let purged: Option<LogId> = transaction.meta(meta::PURGED)?;
        let last = match transaction.open_table(LOG)?.last()? {
            Some((index, sealed)) => {
                let sealing = &store.shared().sealing;
                Some(unseal(sealing, index.value(), sealed.value())?.log_id)
            }
            None => purged,
        };
        let last = store.shared().tail.lock().last_id().max(last);
        Ok(LogState { last_purged_log_id: purged, last_log_id: last })
    }

    /// Has the writer do `change`, which is durable then.
    async fn write(&self, change: Change) -> Result<(), StoreError> {
        let (reply, done) = oneshot::channel();
        self.store.send(self.epoch, Box::new(Changing { change, reply })).await;
        done.await.unwrap_or_else(|_| Err(self.store.shared().closed()))
    }
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<R: RangeBounds<u64> + Clone + Debug + Send>(
        &mut self,
        range: R,
    ) -> Result<Vec<Entry>, StorageError> {
        let start = match range.start_bound() {
            Bound::Included(start) => *start,
            Bound::Excluded(start) => start.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(end) => end.saturating_add(1),
            Bound::Excluded(end) => *end,
            Bound::Unbounded => u64::MAX,
        };
        Ok(self.entries(start, end, usize::MAX).await.map_err(|error| reading(&error))?)
    }

    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> Result<Vec<Entry>, StorageError> {
        Ok(self.entries(start, end, READ_BYTES_MAX).await.map_err(|error| reading(&error))?)
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, StorageError> {
        Ok(self.store.aside(Self::state).await.map_err(|error| reading(&error))?)
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), StorageError> {
        let written = self.write(Change::Vote(*vote)).await;
        Ok(written.map_err(|error| StorageIOError::write_vote(any(&error)))?)
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, StorageError> {
        let vote = self.store.aside(|store| store.read()?.meta(meta::VOTE));
        Ok(vote.await.map_err(|error| StorageIOError::read_vote(any(&error)))?)
    }

    async fn append<I>(
        &mut self,
        entries: I,
        flushed: LogFlushed<TypeConfig>,
    ) -> Result<(), StorageError>
    where
        I: IntoIterator<Item = Entry> + Send,
        I::IntoIter: Send,
    {
        let mut append = Append { entries: Vec::new(), flushed };
        {
            let mut tail = self.store.shared().tail.lock();
            if !self.store.shared().is_open(self.epoch) {
                return Err(writing(&self.store.shared().closed()).into());
            }
            for entry in entries {
                let bytes = Zeroizing::new(record::to_bytes(&entry));
                let (id, length) = (entry.log_id, bytes.len());
                tail.push(entry, length);
                append.entries.push((id, bytes));
            }
        }
        self.store.send(self.epoch, Box::new(append)).await;
        Ok(())
    }

    async fn truncate(&mut self, since: LogId) -> Result<(), StorageError> {
        self.write(Change::Truncate(since)).await.map_err(|error| writing(&error))?;
        Ok(())
    }

    async fn purge(&mut self, upto: LogId) -> Result<(), StorageError> {
        self.write(Change::Purge(upto)).await.map_err(|error| writing(&error))?;
        Ok(())
    }
}

/// Entries as far as there is room for them.
struct Collected {
    entries: Vec<Entry>,
    room: usize,
    /// Whether one had no room.
    is_full: bool,
}

impl Collected {
    /// Takes those of `range` that are on the disk.
    fn read(mut self, store: &Store, range: Range<u64>) -> Result<Self, StoreError> {
        for row in store.read()?.open_table(LOG)?.range(range)? {
            let (index, sealed) = row?;
            let entry = unseal(&store.shared().sealing, index.value(), sealed.value())?;
            self.take(entry, sealed.value().len());
            if self.is_full {
                break;
            }
        }
        Ok(self)
    }

    /// Takes an entry, if there was room for all so far and is for this one; the first always has.
    fn take(&mut self, entry: Entry, bytes: usize) {
        self.is_full |= bytes > self.room && !self.entries.is_empty();
        if !self.is_full {
            self.room = self.room.saturating_sub(bytes);
            self.entries.push(entry);
        }
    }
}

/// New entries at the log's end.
struct Append {
    entries: Vec<(LogId, Zeroizing<Vec<u8>>)>,
    flushed: LogFlushed<TypeConfig>,
}

impl Job for Append {
    fn write(&mut self, work: &Work<'_>) -> Result<Durable, StoreError> {
        let mut log = work.transaction.open_table(LOG)?;
        for (id, bytes) in &self.entries {
            let key = id.index.to_be_bytes();
            let sealed = work.sealing.seal(Place(LOG_PLACE, &key), bytes)?;
            log.insert(id.index, sealed.as_slice())?;
        }
        Ok(Durable::Yes)
    }

    fn settle(self: Box<Self>, outcome: Result<(), StoreError>, shared: &Shared) {
        let ids: Vec<_> = self.entries.iter().map(|(id, _)| *id).collect();
        match (&outcome, ids.first()) {
            (Ok(()), _) => shared.tail.lock().flushed(&ids),
            (Err(_), Some(first)) => shared.tail.lock().truncate(first.index),
            (Err(_), None) => {}
        }
        self.flushed.log_io_completed(outcome.map_err(io::Error::other));
    }
}

/// What else is written to the log, and to what stands beside it.
enum Change {
    Vote(Vote),
    /// This entry and all behind it are no more.
    Truncate(LogId),
    /// This entry and all before it are no more.
    Purge(LogId),
}

struct Changing {
    change: Change,
    reply: oneshot::Sender<Result<(), StoreError>>,
}

impl Job for Changing {
    fn write(&mut self, work: &Work<'_>) -> Result<Durable, StoreError> {
        match &self.change {
            Change::Vote(vote) => {
                put_meta(work.transaction, meta::VOTE, vote)?;
                Ok(Durable::Yes)
            }
            Change::Truncate(since) => {
                work.transaction.open_table(LOG)?.retain_in(since.index.., |_, _| false)?;
                Ok(Durable::Yes)
            }
            Change::Purge(upto) => {
                put_meta(work.transaction, meta::PURGED, upto)?;
                work.transaction.open_table(LOG)?.retain_in(..=upto.index, |_, _| false)?;
                // What stands in the log longer than it must does no harm.
                Ok(Durable::No)
            }
        }
    }

    fn settle(self: Box<Self>, outcome: Result<(), StoreError>, shared: &Shared) {
        if outcome.is_ok() {
            match self.change {
                Change::Vote(_) => {}
                Change::Truncate(since) => shared.tail.lock().truncate(since.index),
                Change::Purge(upto) => shared.tail.lock().purge(upto.index),
            }
        }
        // An error means that nobody waits any more.
        let _ = self.reply.send(outcome);
    }
}

fn unseal(sealing: &Sealing, index: u64, sealed: &[u8]) -> Result<Entry, StoreError> {
    let key = index.to_be_bytes();
    let opened = sealing.open(Place(LOG_PLACE, &key), sealed);
    let opened = opened.ok_or(StoreError::Unsealable("log"))?;
    record::from_bytes(&opened).ok_or(StoreError::Damaged("log"))
}

fn reading(error: &StoreError) -> StorageIOError<u64> {
    StorageIOError::read_logs(any(error))
}

fn writing(error: &StoreError) -> StorageIOError<u64> {
    StorageIOError::write_logs(any(error))
}

/// As openraft keeps errors.
pub(super) fn any(error: &StoreError) -> AnyError {
    AnyError::new(error)
}
