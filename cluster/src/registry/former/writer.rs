//! The one thread that owns the registry's database.
//!
//! Requests wait in a bounded queue; the thread takes all that wait, decides them in one transaction,
//! commits it durably once, and only then answers them. So a thousand claims cost a few writes to
//! the disk, no runtime thread ever waits for one, and a failed commit leaves no trace in memory.

use std::sync::Arc;

use redb::{Database, Durability};
use tokio::sync::{mpsc, oneshot};

use super::{
    super::{AdminError, OpenError, RegisterError, standing::Standing},
    book::{Book, Change, Decided, Issuer},
    store::{self, StoreError},
};
use crate::{UnixMillis, database::Source};

/// The most requests decided in one transaction: bounds what one failed commit can refuse, and how
/// long the first waits for the signatures of the rest (about 20 ms).
pub(in super::super) const BATCH_MAX: usize = 256;

/// The registry cannot answer; the text says why.
#[derive(Clone, Debug)]
pub(in super::super) struct Unavailable(pub(in super::super) String);

impl From<Unavailable> for RegisterError {
    fn from(Unavailable(reason): Unavailable) -> Self {
        Self::Unavailable(reason)
    }
}

impl From<Unavailable> for AdminError {
    fn from(Unavailable(reason): Unavailable) -> Self {
        Self::Unavailable(reason)
    }
}

/// One request on its way through a transaction.
pub(in super::super) trait Job: Send {
    /// Decides inside the transaction, and keeps the answer back.
    fn decide(&mut self, book: &mut Book<'_>) -> Result<(), StoreError>;

    /// Gives the answer, now that the transaction has become durable or has failed.
    fn settle(self: Box<Self>, outcome: Result<(), Unavailable>);
}

/// A request, and whoever waits for its answer.
pub(in super::super) struct Request<T, E, F> {
    work: F,
    answer: Option<Result<T, E>>,
    reply: oneshot::Sender<Result<T, E>>,
}

impl<T, E, F> Request<T, E, F>
where
    F: FnMut(&mut Book<'_>) -> Decided<T, E>,
{
    pub(in super::super) fn new(work: F) -> (Self, oneshot::Receiver<Result<T, E>>) {
        let (reply, answer) = oneshot::channel();
        (Self { work, answer: None, reply }, answer)
    }
}

impl<T, E, F> Job for Request<T, E, F>
where
    T: Send,
    E: From<Unavailable> + Send,
    F: FnMut(&mut Book<'_>) -> Decided<T, E> + Send,
{
    fn decide(&mut self, book: &mut Book<'_>) -> Result<(), StoreError> {
        // Who no longer waits would never learn the token of the name that it took.
        if !self.reply.is_closed() {
            self.answer = Some((self.work)(book)?);
        }
        Ok(())
    }

    fn settle(self: Box<Self>, outcome: Result<(), Unavailable>) {
        let answer = match outcome {
            Ok(()) => self.answer,
            Err(unavailable) => Some(Err(unavailable.into())),
        };
        if let Some(answer) = answer {
            // An error means that nobody waits any more.
            let _ = self.reply.send(answer);
        }
    }
}

/// What the writer's thread holds.
pub(in super::super) struct Writer<S> {
    pub(in super::super) source: S,
    /// None after a failure, until the source could be opened again.
    pub(in super::super) database: Option<Database>,
    pub(in super::super) issuer: Issuer,
    pub(in super::super) standing: Arc<Standing>,
    pub(in super::super) now: Arc<dyn Fn() -> UnixMillis + Send + Sync>,
    /// Whether the last write failed, which has been said.
    pub(in super::super) failing: bool,
}

impl<S: Source> Writer<S> {
    /// Works until the last sender is gone.
    pub(in super::super) fn run(mut self, mut jobs: mpsc::Receiver<Box<dyn Job>>) {
        let mut batch = Vec::with_capacity(BATCH_MAX);
        while jobs.blocking_recv_many(&mut batch, BATCH_MAX) > 0 {
            let outcome = self.write(&mut batch);
            self.tell(outcome.as_ref().err());
            for job in batch.drain(..) {
                job.settle(outcome.clone());
            }
        }
    }

    fn write(&mut self, batch: &mut [Box<dyn Job>]) -> Result<(), Unavailable> {
        let database = match self.database.take() {
            Some(database) => database,
            None => self.reopen().map_err(|error| Unavailable(error.to_string()))?,
        };
        let now = (self.now)();
        let change = commit(&database, batch, &self.issuer, now)
            .map_err(|error| Unavailable(error.to_string()))?;
        if let Some(Change { registered, newly_revoked }) = change {
            self.standing.follow(registered, newly_revoked);
        }
        self.database = Some(database);
        Ok(())
    }

    /// A failed commit may have reached the disk after all, so memory is filled from it anew.
    fn reopen(&self) -> Result<Database, OpenError> {
        let database = store::open(&self.source)?;
        let (registered, revoked) =
            store::standing(&database).map_err(|error| unreadable(&self.source, &error))?;
        self.standing.replace(registered, revoked);
        Ok(database)
    }

    /// Says when writing begins to fail, and when it succeeds again.
    fn tell(&mut self, failure: Option<&Unavailable>) {
        let file = self.source.path().display();
        match failure {
            Some(Unavailable(error)) if !self.failing => {
                tracing::error!(error, %file, "the registry cannot be written");
            }
            None if self.failing => tracing::info!(%file, "the registry can be written again"),
            _ => {}
        }
        self.failing = failure.is_some();
    }
}

/// An error while reading what should be a registry, told to whoever starts the relay.
pub(in super::super) fn unreadable(source: &impl Source, error: &StoreError) -> OpenError {
    let file = source.path().to_owned();
    match error {
        StoreError::Schema(found) => OpenError::Schema { file, found: *found },
        other => OpenError::Unreadable { file, reason: other.to_string() },
    }
}

fn commit(
    database: &Database,
    batch: &mut [Box<dyn Job>],
    issuer: &Issuer,
    now: UnixMillis,
) -> Result<Option<Change>, StoreError> {
    let mut transaction = database.begin_write()?;
    transaction.set_durability(Durability::Immediate)?;
    let mut book = Book::open(&transaction, issuer, now)?;
    for job in batch {
        job.decide(&mut book)?;
    }
    let change = book.close()?;
    if change.is_some() {
        transaction.commit()?;
    } else {
        transaction.abort()?;
    }
    Ok(change)
}
