//! Where nodes keep together what their certificates are made of.

use std::{collections::HashMap, sync::Arc, time::Duration};

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::watch;
use zeroize::Zeroizing;

/// A few small secrets that all nodes of a cluster share, each replaced only by who knows its present
/// version.
#[async_trait]
pub trait Shelf: Send + Sync + 'static {
    /// The value at `key`, of those that every node is given, as this node knows it.
    fn get(&self, key: &str) -> Option<Value>;

    /// The value at `key`, as this node knows it, also of those that only nodes which may order are given:
    /// these may lie on the disk.
    async fn look_up(&self, key: &str) -> Option<Value>;

    /// Replaces the value at `key` if its version is `expected` (0: there is none); `None` removes it.
    /// `for_all`: every node is given it, else only those that may order. The new version.
    async fn put(
        &self,
        key: &str,
        expected: u64,
        value: Option<Zeroizing<Vec<u8>>>,
        for_all: bool,
    ) -> Result<u64, ShelfError>;

    /// Changes whenever a value has changed here.
    fn changes(&self) -> watch::Receiver<u64>;

    /// Returns when all live nodes know what this node knows now; else, at the deadline counted from
    /// now, who does not, in words.
    async fn spread(&self, deadline: Duration) -> Result<(), String>;

    /// Whether this node is the one that orders.
    fn leads(&self) -> watch::Receiver<bool>;
}

/// A value and its version.
#[derive(Clone, Debug)]
pub struct Value {
    /// Grows with each change; never 0.
    pub version: u64,
    /// What it is.
    pub bytes: Arc<Zeroizing<Vec<u8>>>,
}

/// Why a value was not put.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ShelfError {
    /// Somebody else was faster.
    #[error("another node has changed it meanwhile")]
    Conflict,
    /// The shelf cannot be written now.
    #[error("{0}")]
    Unavailable(String),
}

/// A shelf in memory, for tests and simulations. Clones are other nodes' views of the same shelf; one of
/// them leads.
#[derive(Clone)]
pub struct MemoryShelf {
    shared: Arc<Shared>,
    leads: Arc<watch::Sender<bool>>,
}

struct Shared {
    values: Mutex<HashMap<String, Value>>,
    version: watch::Sender<u64>,
}

impl MemoryShelf {
    /// An empty shelf, as its leader sees it.
    pub fn new() -> Self {
        let shared = Shared { values: Mutex::default(), version: watch::Sender::new(0) };
        Self { shared: Arc::new(shared), leads: Arc::new(watch::Sender::new(true)) }
    }

    /// The same shelf as another node sees it, which does not lead yet.
    #[must_use]
    pub fn at_another_node(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), leads: Arc::new(watch::Sender::new(false)) }
    }

    /// Makes this node the leader, or takes that from it.
    pub fn lead(&self, leads: bool) {
        self.leads.send_replace(leads);
    }
}

impl Default for MemoryShelf {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait]
impl Shelf for MemoryShelf {
    fn get(&self, key: &str) -> Option<Value> {
        self.shared.values.lock().get(key).cloned()
    }

    async fn look_up(&self, key: &str) -> Option<Value> {
        self.get(key)
    }

    async fn put(
        &self,
        key: &str,
        expected: u64,
        value: Option<Zeroizing<Vec<u8>>>,
        _: bool,
    ) -> Result<u64, ShelfError> {
        let mut values = self.shared.values.lock();
        if values.get(key).map_or(0, |value| value.version) != expected {
            return Err(ShelfError::Conflict);
        }
        let version = *self.shared.version.borrow() + 1;
        match value {
            Some(bytes) => {
                values.insert(key.to_owned(), Value { version, bytes: Arc::new(bytes) });
            }
            None => {
                values.remove(key);
            }
        }
        drop(values);
        self.shared.version.send_replace(version);
        Ok(version)
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.shared.version.subscribe()
    }

    async fn spread(&self, _: Duration) -> Result<(), String> {
        Ok(())
    }

    fn leads(&self) -> watch::Receiver<bool> {
        self.leads.subscribe()
    }
}
