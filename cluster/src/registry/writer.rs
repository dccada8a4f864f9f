//! The one thread that writes the registry's file.
//!
//! Jobs wait in a bounded queue; the thread takes all that wait, does them in one transaction, commits
//! it once, and only then settles them. So whatever comes at a time shares one flush of the disk, and
//! no runtime thread ever waits for one. After a failure every job fails until the file was opened
//! anew: what a disk that failed holds is not known before.

use std::{sync::Arc, time::Instant};

use redb::{Durability, ReadableDatabase, WriteTransaction};
use tokio::sync::{mpsc, oneshot};

use super::{
    disk,
    facts::Facts,
    sealing::Sealing,
    store::{OpenError, Shared},
    tables::StoreError,
};
use crate::database::{self, Source, Turns};

/// The most jobs in one transaction: bounds how long the first waits for the rest.
const BATCH_MAX: usize = 64;

/// What is asked of the writer.
pub(super) enum Request {
    /// To be done while the store is in this epoch; see [`Shared::epoch`].
    Job(u64, Box<dyn Job>),
    /// Open the file anew.
    Reopen(oneshot::Sender<Result<(u64, Facts), OpenError>>),
    /// Make everything durable, and close the file.
    Close(oneshot::Sender<()>),
}

/// One thing to write.
pub(super) trait Job: Send {
    /// Writes within the transaction. Whether that must be durable before anybody is told.
    fn write(&mut self, work: &Work<'_>) -> Result<Durable, StoreError>;

    /// Tells whoever waits, now that the transaction has been committed or has failed.
    fn settle(self: Box<Self>, outcome: Result<(), StoreError>, shared: &Shared);
}

/// Where jobs write.
pub(super) struct Work<'t> {
    pub(super) transaction: &'t WriteTransaction,
    pub(super) sealing: &'t Sealing,
}

/// Whether what was written must reach the disk before anybody is told of it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Durable {
    /// If it is lost, the log has it.
    No,
    Yes,
}

/// What the thread holds.
pub(super) struct Writer<S> {
    pub(super) source: S,
    pub(super) shared: Arc<Shared>,
    /// Whether something was committed that is not durable yet.
    pub(super) unflushed: bool,
}

impl<S: Source> Writer<S> {
    /// Works until the last sender is gone.
    pub(super) fn run(mut self, mut requests: mpsc::Receiver<Request>) {
        let mut waiting = Vec::with_capacity(BATCH_MAX);
        while requests.blocking_recv_many(&mut waiting, BATCH_MAX) > 0 {
            self.serve(waiting.drain(..));
        }
    }

    /// The same within a runtime, turn by turn.
    pub(super) async fn run_in_turns(
        mut self,
        mut requests: mpsc::Receiver<Request>,
        turns: Turns,
    ) {
        let mut waiting = Vec::with_capacity(BATCH_MAX);
        while requests.recv_many(&mut waiting, BATCH_MAX).await > 0 {
            turns().await;
            self.serve(waiting.drain(..));
        }
    }

    fn serve(&mut self, waiting: impl Iterator<Item = Request>) {
        let mut jobs = Vec::with_capacity(BATCH_MAX);
        for request in waiting {
            match request {
                Request::Job(epoch, job) => jobs.push((epoch, job)),
                Request::Reopen(reply) => {
                    self.work(&mut jobs);
                    // An error means that nobody waits any more.
                    let _ = reply.send(self.reopen());
                }
                Request::Close(reply) => {
                    self.work(&mut jobs);
                    self.close();
                    let _ = reply.send(());
                }
            }
        }
        self.work(&mut jobs);
    }

    fn work(&mut self, jobs: &mut Vec<(u64, Box<dyn Job>)>) {
        let epoch = self.shared.epoch();
        let (mut present, former): (Vec<_>, Vec<_>) =
            jobs.drain(..).partition(|(of, _)| *of == epoch);
        for (_, job) in former {
            let reason = "the file has been opened anew since".to_owned();
            job.settle(Err(StoreError::Closed(reason)), &self.shared);
        }
        if present.is_empty() {
            return;
        }
        #[allow(clippy::disallowed_methods)] // measured for people: nothing is decided by it
        let begun = Instant::now();
        let outcome = self.commit(&mut present);
        match &outcome {
            Ok(()) => self.shared.writes.wrote(begun.elapsed()),
            Err(error) => {
                self.shared.writes.failed();
                self.fail(error);
            }
        }
        for (_, job) in present {
            job.settle(outcome.clone(), &self.shared);
        }
    }

    fn commit(&mut self, jobs: &mut [(u64, Box<dyn Job>)]) -> Result<(), StoreError> {
        let database = self.shared.database.read();
        let database = database.as_ref().ok_or_else(|| self.shared.closed())?;
        let mut transaction = database::begin_write(database)?;
        let mut durable = Durable::No;
        for (_, job) in jobs {
            let work = Work { transaction: &transaction, sealing: &self.shared.sealing };
            if job.write(&work)? == Durable::Yes {
                durable = Durable::Yes;
            }
        }
        transaction.set_durability(match durable {
            Durable::Yes => Durability::Immediate,
            Durable::No => Durability::None,
        })?;
        transaction.commit()?;
        self.unflushed = durable == Durable::No;
        Ok(())
    }

    /// Nothing more is read or written: a failed commit may or may not have reached the disk.
    fn fail(&mut self, error: &StoreError) {
        if self.shared.database.write().take().is_none() {
            return;
        }
        self.unflushed = false;
        let file = self.source.path().display();
        tracing::error!(%error, %file, "the registry cannot be written");
        self.shared.failed(&error.to_string());
    }

    fn reopen(&mut self) -> Result<(u64, Facts), OpenError> {
        self.close();
        let database = disk::open(&self.source)?;
        let read = |database: &redb::Database| {
            let transaction = database.begin_read()?;
            disk::memory(&transaction, &self.shared.sealing)
        };
        let memory = read(&database).map_err(|error| disk::unusable(&self.source, error))?;
        self.shared.opened(database);
        tracing::info!(file = %self.source.path().display(), "the registry's file is open again");
        Ok(memory)
    }
}

impl<S> Writer<S> {
    fn close(&mut self) {
        let Some(database) = self.shared.database.write().take() else { return };
        if self.unflushed
            && let Err(error) = flush(&database)
        {
            tracing::error!(%error, "the registry's last changes must be replayed from its log");
        }
        self.unflushed = false;
        self.shared.failed("it was closed");
    }
}

impl<S> Drop for Writer<S> {
    /// Whatever ends the thread, nobody takes the file for open.
    fn drop(&mut self) {
        self.close();
    }
}

/// An empty durable commit makes all that went before durable.
fn flush(database: &redb::Database) -> Result<(), StoreError> {
    let mut transaction = database::begin_write(database)?;
    transaction.set_durability(Durability::Immediate)?;
    Ok(transaction.commit()?)
}
