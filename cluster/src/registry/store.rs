//! The registry's file: opening it, and who may ask what of it.
//!
//! Everything is in one file: the log and the vote of the consensus, the book that the log's entries
//! have made, and this node's name. A [`Store`] is a handle to it; its halves for openraft are the
//! [`LogStore`] and the [`StateMachine`]. One thread writes. What reads does so from a state that was
//! committed, and may wait for the disk: within a runtime it is done [aside](Store::aside).

use std::{
    fmt, io,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
};

use parking_lot::{Mutex, RwLock};
use redb::{Database, ReadTransaction, ReadableDatabase, ReadableTableMetadata};
use tokio::{
    sync::{Semaphore, mpsc, oneshot, watch},
    task::JoinSet,
};

pub(super) use super::tables::{SCHEMA, StoreError};
use super::{
    AgentPage, AgentRecord, KeyInfo,
    aside::aside,
    disk,
    facts::{Facts, Follow, Founded, VaultFact},
    image::Image,
    keys,
    log::LogStore,
    machine::{Restore, StateMachine},
    raft::Vote,
    record::{AgentEntry, RevokedEntry},
    sealing::{AtRest, Sealing},
    storage::WriteCounters,
    tables::{self, Reading, meta},
    tail::Tail,
    writer::{Job, Request, Writer},
};
use crate::{
    AgentId, Incarnation, NodeId, UnixMillis,
    database::Source,
    token::{Serial, TokenSigner},
};

/// How many jobs may wait for the writer. openraft waits for each append, vote and apply, so a few
/// do at a time.
const QUEUE_MAX: usize = 64;

/// How many may read at a time: a disk that hangs holds a thread for each, and others need some too.
const READERS_MAX: usize = 8;

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
        "{file} is damaged or no registry of arc-relay ({reason}): {mend}",
        file = file.display(),
        mend = mend(*others)
    )]
    Unreadable {
        /// The registry's file.
        file: PathBuf,
        /// What is wrong with it.
        reason: String,
        /// Whether other nodes may have what was in it.
        others: bool,
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
        "{file} was sealed with a key that is not at hand: if the node had a CLUSTER_SECRET when it \
         ran last, set it, or CLUSTER_SECRET_PREVIOUS, to what it was; if it had none, bring back the \
         registry.key that was beside the file",
        file = file.display()
    )]
    Sealed {
        /// The registry's file.
        file: PathBuf,
    },
}

impl OpenError {
    /// The same, on a node that is one of several if so: what it has lost, the others have.
    #[must_use]
    pub fn among_others(self, one_of_several: bool) -> Self {
        match self {
            Self::Unreadable { file, reason, .. } => {
                Self::Unreadable { file, reason, others: one_of_several }
            }
            other => other,
        }
    }
}

/// What to do about a file that is of no use.
fn mend(others: bool) -> String {
    if others {
        return "the other nodes have the names: empty DATA_DIR, all of it, and start this node again; \
                it joins as a new one and takes the place that it had. Restore a backup only if no other \
                node has them"
            .to_owned();
    }
    let files: Vec<_> = [disk::FILE].into_iter().chain(disk::TRACES).collect();
    format!(
        "empty its directory and restore a backup into it, or, to start with no names and a new \
         signing key, move away {} there, as many as there are",
        files.join(", ")
    )
}

/// The open file of the registry: a handle, whose clones are the same. When the last is dropped, the
/// file is closed, all of it durable.
#[derive(Clone)]
pub(super) struct Store(Arc<Handle>);

struct Handle {
    shared: Arc<Shared>,
    /// None only while this is dropped.
    requests: Option<mpsc::Sender<Request>>,
    writer: Option<Working>,
}

/// The writer at work.
enum Working {
    Thread(JoinHandle<()>),
    /// On a simulated disk; ends when this is dropped.
    Task(#[allow(dead_code)] JoinSet<()>), // only held
}

/// What the handles and the writer share.
pub(super) struct Shared {
    /// None after a failure, until it was opened anew. Written by the writer alone.
    pub(super) database: RwLock<Option<Database>>,
    pub(super) sealing: Arc<Sealing>,
    /// The log's last entries, some of which may still be on their way to the disk.
    pub(super) tail: Mutex<Tail>,
    /// Grows each time the file is opened anew: halves given out before are of no use then.
    epoch: AtomicU64,
    failure: watch::Sender<Option<String>>,
    /// The places of those who read aside.
    readers: Arc<Semaphore>,
    pub(super) writes: WriteCounters,
}

/// A registry's file that was opened.
pub(super) struct Opened {
    pub(super) identity: Incarnation,
    pub(super) store: Store,
    /// All that is held in memory.
    pub(super) facts: Facts,
    /// The last entry that is in it.
    pub(super) index: u64,
}

/// Why a registry was not restored; nothing has happened then.
#[derive(Debug, thiserror::Error)]
pub(super) enum RestoreError {
    #[error("there is a registry already: restore into an empty data directory")]
    NotEmpty,
    #[error("it holds no registry that was founded")]
    Unfounded,
    #[error("cannot write the registry: {0}")]
    Store(#[from] StoreError),
}

impl Store {
    /// Opens the file, or makes it, and begins a new life of the node. Blocks, for as long as it takes
    /// to read the whole file.
    ///
    /// `had_one` tells that the data directory has been used, so that an empty file is refused.
    pub(super) fn open(
        source: impl Source,
        at_rest: &AtRest,
        had_one: bool,
        now: UnixMillis,
    ) -> Result<Opened, OpenError> {
        let database = disk::open(&source)?;
        let (identity, sealing) = disk::start(&database, &source, at_rest, had_one, now)?;
        let memory = database.begin_read().map_err(StoreError::from);
        let memory = memory.and_then(|transaction| disk::memory(&transaction, &sealing));
        let (index, facts) = memory.map_err(|error| disk::unusable(&source, error))?;
        let shared = Arc::new(Shared::new(database, sealing));
        let (requests, queue) = mpsc::channel(QUEUE_MAX);
        let dir = source.dir().to_owned();
        let writer = Writer { source, shared: shared.clone(), unflushed: false };
        let writer =
            Working::start(writer, queue).map_err(|source| OpenError::Io { dir, source })?;
        let handle = Handle { shared, requests: Some(requests), writer: Some(writer) };
        Ok(Opened { identity, store: Self(Arc::new(handle)), facts, index })
    }

    /// The log's half for openraft. Those given out before a [`reopen`](Self::reopen) fail after it.
    pub(super) fn log(&self) -> LogStore {
        LogStore::new(self.clone(), self.shared().epoch())
    }

    /// The book's half for openraft; `follow` is told of every change. Of no use after a
    /// [`reopen`](Self::reopen), as the [`log`](Self::log) is.
    pub(super) fn machine(&self, follow: Arc<dyn Follow>) -> StateMachine {
        StateMachine::new(self.clone(), self.shared().epoch(), follow)
    }

    /// Why the file is of no use, from the first failure until it was opened anew.
    pub(super) fn failure(&self) -> watch::Receiver<Option<String>> {
        self.shared().failure.subscribe()
    }

    /// Opens the file anew after a failure: the last entry that is in the book, and all of it that is
    /// held in memory, which may be less than was applied before: the log has the rest.
    pub(super) async fn reopen(&self) -> Result<(u64, Facts), OpenError> {
        let (reply, answer) = oneshot::channel();
        self.request(Request::Reopen(reply)).await;
        answer.await.unwrap_or_else(|_| {
            let reason = io::Error::other("its writer has stopped: restart the relay");
            Err(OpenError::Io { dir: PathBuf::new(), source: reason })
        })
    }

    /// Makes everything durable, and closes the file; nothing can be read or written then.
    pub(super) async fn close(&self) {
        let (reply, answer) = oneshot::channel();
        self.request(Request::Close(reply)).await;
        let _ = answer.await; // an error means that the writer has stopped, and closed it
    }

    /// Makes the book of `image` this node's own, as a registry of its own that descends from that one,
    /// kept by `node` alone: which one it is now. For a file that holds nothing yet.
    pub(super) async fn restore(
        &self,
        image: Image,
        node: NodeId,
        now: UnixMillis,
    ) -> Result<Founded, RestoreError> {
        if !self.is_empty()? {
            return Err(RestoreError::NotEmpty);
        }
        let (restore, founded, done) =
            Restore::new(image, node, now).ok_or(RestoreError::Unfounded)?;
        self.send(self.shared().epoch(), Box::new(restore)).await;
        done.await.unwrap_or_else(|_| Err(self.shared().closed()))?;
        Ok(founded)
    }

    /// Whether there is neither a book nor a log nor a vote: it may be founded, or joined to others.
    pub(super) fn is_empty(&self) -> Result<bool, StoreError> {
        let transaction = self.read()?;
        let vote: Option<Vote> = transaction.meta(meta::VOTE)?;
        let logged = transaction.open_table(tables::LOG)?.len()? > 0;
        Ok(vote.is_none() && !logged && transaction.applied()?.is_none())
    }

    /// What is known of an agent; none if the id was never registered.
    pub(super) fn agent(&self, agent: &AgentId) -> Result<Option<AgentRecord>, StoreError> {
        let transaction = self.read()?;
        let agents = transaction.open_table(tables::AGENTS)?;
        let Some(stored) = agents.get(agent.as_str())? else { return Ok(None) };
        Standings::open(&transaction)?.record(agent.as_str(), stored.value()).map(Some)
    }

    /// The agents behind `after` in the order of their ids, at most `limit`.
    pub(super) fn agents(
        &self,
        after: Option<&AgentId>,
        limit: usize,
    ) -> Result<AgentPage, StoreError> {
        use std::ops::Bound::{Excluded, Unbounded};
        let transaction = self.read()?;
        let standings = Standings::open(&transaction)?;
        let table = transaction.open_table(tables::AGENTS)?;
        let start = after.map_or(Unbounded, |agent| Excluded(agent.as_str()));
        let mut rows = table.range::<&str>((start, Unbounded))?;
        let mut page = AgentPage { agents: Vec::new(), more: false };
        for row in rows.by_ref().take(limit) {
            let (id, stored) = row?;
            let agent = id.value().parse().map_err(|_| StoreError::Damaged("agent"))?;
            page.agents.push((agent, standings.record(id.value(), stored.value())?));
        }
        page.more = rows.next().is_some();
        Ok(page)
    }

    /// The keys that have not retired, the one that signs first.
    pub(super) fn keys(&self) -> Result<Vec<KeyInfo>, StoreError> {
        keys::infos(&self.read()?)
    }

    /// What signs now; none before the founding.
    pub(super) fn signer(&self) -> Result<Option<TokenSigner>, StoreError> {
        keys::signer(&self.read()?, &self.shared().sealing)
    }

    /// The value at `key` in the vault; none if there is none.
    pub(super) fn vault(&self, key: &str) -> Result<Option<VaultFact>, StoreError> {
        disk::vault(&self.read()?, &self.shared().sealing, key)
    }

    /// Whether `node` keeps the book alone, by what the book says.
    pub(super) fn is_kept_alone_by(&self, node: NodeId) -> Result<bool, StoreError> {
        Ok(self.read()?.membership()?.membership().voter_ids().eq([node.0]))
    }

    /// What the book knows beside its rows: which registry it is, its time, when a key retires, and who is
    /// to keep it.
    #[cfg(test)]
    pub(super) fn head(&self) -> Result<super::tables::Head, StoreError> {
        self.read()?.head()
    }

    /// The last entry that is in the book, and all of it that is held in memory.
    pub(super) fn memory(&self) -> Result<(u64, Facts), StoreError> {
        disk::memory(&self.read()?, &self.shared().sealing)
    }

    /// The whole book as it is now.
    pub(super) fn export(&self) -> Result<Image, StoreError> {
        Image::pin(&self.read()?, self.sealing())
    }

    /// What seals at rest, for other files of this node.
    pub(super) fn sealing(&self) -> Arc<Sealing> {
        self.shared().sealing.clone()
    }

    pub(super) fn shared(&self) -> &Shared {
        &self.0.shared
    }

    /// Does what reads the file beside the runtime's threads, which carry agents and wait for no disk.
    pub(super) async fn aside<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Self) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let place = Arc::clone(&self.shared().readers).acquire_owned().await;
        let store = self.clone();
        let done = aside(move || {
            let done = read(&store);
            drop(place); // who gave up waiting does not give it back
            done
        });
        done.await.unwrap_or_else(|error| Err(StoreError::Failed(error.to_string())))
    }

    /// A transaction that reads what was committed last.
    pub(super) fn read(&self) -> Result<ReadTransaction, StoreError> {
        let database = self.shared().database.read();
        let database = database.as_ref().ok_or_else(|| self.shared().closed())?;
        Ok(database.begin_read()?)
    }

    /// Gives the writer a job, which it drops if it has stopped.
    pub(super) async fn send(&self, epoch: u64, job: Box<dyn Job>) {
        self.request(Request::Job(epoch, job)).await;
    }

    async fn request(&self, request: Request) {
        if let Some(requests) = &self.0.requests {
            // An error means that the writer has stopped: whoever waits for the answer sees that.
            let _ = requests.send(request).await;
        }
    }
}

impl Shared {
    fn new(database: Database, sealing: Sealing) -> Self {
        Self {
            database: RwLock::new(Some(database)),
            sealing: Arc::new(sealing),
            tail: Mutex::default(),
            epoch: AtomicU64::new(0),
            failure: watch::Sender::new(None),
            readers: Arc::new(Semaphore::new(READERS_MAX)),
            writes: WriteCounters::default(),
        }
    }

    /// Which opening of the file this is.
    pub(super) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// Whether what was given out in `epoch` is still of use.
    pub(super) fn is_open(&self, epoch: u64) -> bool {
        self.epoch() == epoch && self.failure.borrow().is_none()
    }

    /// Why nothing can be read or written now.
    pub(super) fn closed(&self) -> StoreError {
        let reason = self.failure.borrow().clone();
        StoreError::Closed(reason.unwrap_or_else(|| "its writer has stopped".to_owned()))
    }

    /// Notes that the file is of no use any more; the first reason is kept.
    pub(super) fn failed(&self, reason: &str) {
        self.failure.send_if_modified(|failure| {
            let first = failure.is_none();
            if first {
                *failure = Some(reason.to_owned());
            }
            first
        });
    }

    /// Notes that the file was opened anew.
    pub(super) fn opened(&self, database: Database) {
        *self.database.write() = Some(database);
        let mut tail = self.tail.lock();
        *tail = Tail::default();
        self.epoch.fetch_add(1, Ordering::AcqRel);
        drop(tail);
        self.failure.send_replace(None);
    }
}

impl Working {
    fn start(writer: Writer<impl Source>, queue: mpsc::Receiver<Request>) -> io::Result<Self> {
        if let Some(turns) = writer.source.turns() {
            let mut task = JoinSet::new();
            task.spawn(writer.run_in_turns(queue, turns));
            return Ok(Self::Task(task));
        }
        let thread = thread::Builder::new().name("registry".to_owned());
        thread.spawn(move || writer.run(queue)).map(Self::Thread)
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        drop(self.requests.take());
        let Some(Working::Thread(writer)) = self.writer.take() else { return };
        // The last handle may have been in a job: then the thread ends when it is done with that.
        if writer.thread().id() != thread::current().id() && writer.join().is_err() {
            tracing::error!("the registry's writer had panicked");
        }
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Store(failure: {:?})", *self.shared().failure.borrow())
    }
}

/// The tables that say how an agent stands.
struct Standings {
    tokens: redb::ReadOnlyTable<u64, &'static [u8]>,
    agents: redb::ReadOnlyTable<&'static str, &'static [u8]>,
    banned: redb::ReadOnlyTable<&'static str, ()>,
}

impl Standings {
    fn open(transaction: &ReadTransaction) -> Result<Self, StoreError> {
        Ok(Self {
            tokens: transaction.open_table(tables::REVOKED_TOKENS)?,
            agents: transaction.open_table(tables::REVOKED_AGENTS)?,
            banned: transaction.open_table(tables::BANNED)?,
        })
    }

    fn record(&self, agent: &str, stored: &[u8]) -> Result<AgentRecord, StoreError> {
        let entry = AgentEntry::from_bytes(stored).ok_or(StoreError::Damaged("agent"))?;
        Ok(AgentRecord {
            registered_at: entry.registered_at,
            serial: entry.serial,
            revoked: self.is_revoked(agent, entry.serial)?,
            banned: self.banned.get(agent)?.is_some(),
        })
    }

    fn is_revoked(&self, agent: &str, serial: Serial) -> Result<bool, StoreError> {
        if self.tokens.get(serial.0)?.is_some() {
            return Ok(true);
        }
        let Some(stored) = self.agents.get(agent)? else { return Ok(false) };
        let entry = RevokedEntry::from_bytes(stored.value());
        Ok(serial <= entry.ok_or(StoreError::Damaged("revoked agent"))?.until)
    }
}
