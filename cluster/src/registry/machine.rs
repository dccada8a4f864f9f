//! The registry's book, as openraft asks for it.

use std::{fmt, sync::Arc};

use openraft::{
    EntryPayload, RaftSnapshotBuilder, Snapshot, StorageIOError, storage::RaftStateMachine,
};
use tokio::sync::oneshot;

use super::{
    RegistryId,
    book::Book,
    command::Outcome,
    disk,
    facts::{Facts, Follow, Founded},
    image::{self, Image},
    log::any,
    raft::{Entry, LogId, Membership, SnapshotMeta, StorageError, TypeConfig},
    store::{Shared, Store},
    tables::{self, Head, Reading, StoreError, meta, put_meta},
    writer::{Durable, Job, Work},
};
use crate::{NodeId, UnixMillis};

/// The book's half of a [`Store`].
#[derive(Clone)]
pub(super) struct StateMachine {
    store: Store,
    epoch: u64,
    follow: Arc<dyn Follow>,
}

impl StateMachine {
    pub(super) fn new(store: Store, epoch: u64, follow: Arc<dyn Follow>) -> Self {
        Self { store, epoch, follow }
    }

    /// The book as it is now.
    fn snapshot(store: &Store) -> Result<Snapshot<TypeConfig>, StoreError> {
        let transaction = store.read()?;
        let last_log_id = transaction.applied()?;
        let meta = SnapshotMeta {
            last_log_id,
            last_membership: transaction.membership()?,
            snapshot_id: last_log_id.map_or_else(String::new, |id| id.to_string()),
        };
        let image = Image::pin(&transaction, store.sealing())?;
        Ok(Snapshot { meta, snapshot: Box::new(image) })
    }
}

impl RaftSnapshotBuilder<TypeConfig> for StateMachine {
    async fn build_snapshot(&mut self) -> Result<Snapshot<TypeConfig>, StorageError> {
        Ok(self.store.aside(Self::snapshot).await.map_err(|error| reading(&error))?)
    }
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotBuilder = Self;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, Membership), StorageError> {
        let state = self.store.aside(|store| {
            let transaction = store.read()?;
            Ok((transaction.applied()?, transaction.membership()?))
        });
        Ok(state.await.map_err(|error| reading(&error))?)
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<Vec<Outcome>>, StorageError>
    where
        I: IntoIterator<Item = Entry> + Send,
        I::IntoIter: Send,
    {
        let (reply, done) = oneshot::channel();
        let entries = entries.into_iter().collect();
        let apply = Apply { entries, follow: self.follow.clone(), applied: None, reply };
        self.store.send(self.epoch, Box::new(apply)).await;
        let outcomes = done.await.unwrap_or_else(|_| Err(self.store.shared().closed()));
        Ok(outcomes.map_err(|error| writing(&error))?)
    }

    async fn get_snapshot_builder(&mut self) -> Self {
        self.clone()
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<Image>, StorageError> {
        // Those who receive one make it themselves; openraft asks only on its way in chunks, which
        // is not taken.
        let image = self.store.aside(Store::export).await.map_err(|error| reading(&error))?;
        Ok(Box::new(image))
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        image: Box<Image>,
    ) -> Result<(), StorageError> {
        let (reply, done) = oneshot::channel();
        let install = Install {
            applied: meta.last_log_id,
            membership: meta.last_membership.clone(),
            image: Some(*image),
            store: self.store.clone(),
            follow: self.follow.clone(),
            reply,
        };
        self.store.send(self.epoch, Box::new(install)).await;
        let done = done.await.unwrap_or_else(|_| Err(self.store.shared().closed()));
        Ok(done.map_err(|error| writing(&error))?)
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot<TypeConfig>>, StorageError> {
        // Made when asked for: to keep one would keep the file from using its space anew.
        let snapshot = self.store.aside(Self::snapshot).await.map_err(|error| reading(&error))?;
        Ok(snapshot.meta.last_log_id.is_some().then_some(snapshot))
    }
}

impl fmt::Debug for StateMachine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StateMachine({:?})", self.store)
    }
}

type Outcomes = Vec<Vec<Outcome>>;

/// Entries that become part of the book.
struct Apply {
    entries: Vec<Entry>,
    follow: Arc<dyn Follow>,
    applied: Option<Applied>,
    reply: oneshot::Sender<Result<Outcomes, StoreError>>,
}

/// What came of them.
struct Applied {
    from: u64,
    to: u64,
    outcomes: Outcomes,
    facts: Facts,
}

impl Job for Apply {
    fn write(&mut self, work: &Work<'_>) -> Result<Durable, StoreError> {
        let mut book = Book::open(work.transaction, work.sealing)?;
        let from = work.transaction.applied()?.map_or(0, |id| id.index);
        let (mut last, mut outcomes) = (None, Vec::with_capacity(self.entries.len()));
        for entry in std::mem::take(&mut self.entries) {
            last = Some(entry.log_id);
            outcomes.push(match entry.payload {
                EntryPayload::Blank => Vec::new(),
                EntryPayload::Normal(batch) => book.apply(batch)?,
                EntryPayload::Membership(membership) => {
                    let stored = Membership::new(last, membership);
                    put_meta(work.transaction, meta::MEMBERSHIP, &stored)?;
                    Vec::new()
                }
            });
        }
        let facts = book.close()?;
        let to = last.map_or(from, |id| id.index);
        if let Some(last) = last {
            put_meta(work.transaction, meta::APPLIED, &last)?;
        }
        // What takes something away from somebody is not forgotten for the moment in which the log
        // is replayed after a crash.
        let durable = if facts.is_count_only() { Durable::No } else { Durable::Yes };
        self.applied = Some(Applied { from, to, outcomes, facts });
        Ok(durable)
    }

    fn settle(self: Box<Self>, outcome: Result<(), StoreError>, shared: &Shared) {
        let answer = match (outcome, self.applied) {
            (Ok(()), Some(Applied { from, to, outcomes, facts })) => {
                self.follow.applied(from, to, facts);
                Ok(outcomes)
            }
            (Ok(()), None) => Err(shared.closed()),
            (Err(error), _) => Err(error),
        };
        // An error means that nobody waits any more.
        let _ = self.reply.send(answer);
    }
}

/// Another voter's book in place of this one's.
struct Install {
    applied: Option<LogId>,
    membership: Membership,
    image: Option<Image>,
    store: Store,
    follow: Arc<dyn Follow>,
    reply: oneshot::Sender<Result<(), StoreError>>,
}

impl Job for Install {
    fn write(&mut self, work: &Work<'_>) -> Result<Durable, StoreError> {
        if let Some(image) = self.image.take() {
            let head = image.head().clone();
            replace(work, &head, image)?;
        }
        if let Some(applied) = &self.applied {
            put_meta(work.transaction, meta::APPLIED, applied)?;
        }
        put_meta(work.transaction, meta::MEMBERSHIP, &self.membership)?;
        Ok(Durable::Yes)
    }

    fn settle(self: Box<Self>, outcome: Result<(), StoreError>, _: &Shared) {
        let told = outcome.and_then(|()| {
            let (index, all) = self.store.memory()?;
            self.follow.replaced(index, all);
            Ok(())
        });
        let _ = self.reply.send(told);
    }
}

/// A book in place of none, kept by one node alone.
pub(super) struct Restore {
    head: Head,
    image: Option<Image>,
    node: NodeId,
    reply: oneshot::Sender<Result<(), StoreError>>,
}

impl Restore {
    /// None if the image is of no registry. A restored registry is a new one, which descends from that
    /// of the image.
    #[allow(clippy::type_complexity)] // the job, what it makes, and when that is done
    pub(super) fn new(
        image: Image,
        node: NodeId,
        now: UnixMillis,
    ) -> Option<(Self, Founded, oneshot::Receiver<Result<(), StoreError>>)> {
        let mut head = image.head().clone();
        let Founded { registry, mut lineage } = head.founded.take()?;
        lineage.push(registry);
        let founded = Founded { registry: RegistryId::random(), lineage };
        head.founded = Some(founded.clone());
        head.time = head.time.max(now);
        // Whoever was to keep the former one is not there.
        head.wanted_voters = Vec::new();
        let (reply, done) = oneshot::channel();
        Some((Self { head, image: Some(image), node, reply }, founded, done))
    }
}

impl Job for Restore {
    fn write(&mut self, work: &Work<'_>) -> Result<Durable, StoreError> {
        if let Some(image) = self.image.take() {
            replace(work, &self.head, image)?;
        }
        disk::settle_alone(work.transaction, self.node)?;
        Ok(Durable::Yes)
    }

    fn settle(self: Box<Self>, outcome: Result<(), StoreError>, _: &Shared) {
        let _ = self.reply.send(outcome);
    }
}

fn replace(work: &Work<'_>, head: &Head, image: Image) -> Result<(), StoreError> {
    tables::clear_book(work.transaction)?;
    put_meta(work.transaction, meta::HEAD, head)?;
    image::insert(work.transaction, work.sealing, image.into_rows())
}

fn reading(error: &StoreError) -> StorageIOError<u64> {
    StorageIOError::read_state_machine(any(error))
}

fn writing(error: &StoreError) -> StorageIOError<u64> {
    StorageIOError::write_state_machine(any(error))
}
