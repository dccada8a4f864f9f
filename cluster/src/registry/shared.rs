//! The registry as every node has it, whether it keeps the book or asks those who do.

use std::{collections::BTreeSet, path::Path, sync::Arc, time::Duration};

use parking_lot::Mutex;

use super::{Carry, OpenError, RegistryId, Waiting, duties, heard::Heard, hello::Hello};
use crate::{Incarnation, NodeId, UnixMillis};

/// How the registry is kept.
#[derive(Clone)]
pub struct Settings {
    /// How long a token is good; none means for ever.
    pub token_ttl: Option<Duration>,
    /// The wall clock.
    pub now: Arc<dyn Fn() -> UnixMillis + Send + Sync>,
    /// `CLUSTER_SECRET`, which seals what is stored; none: a key in the data directory does.
    pub secret: Option<zeroize::Zeroizing<String>>,
    /// `CLUSTER_SECRET_PREVIOUS`.
    pub previous_secret: Option<zeroize::Zeroizing<String>>,
}

/// A node's place among the others.
pub struct Place {
    /// The way to the others; none for a node that has none.
    pub carry: Option<Arc<dyn Carry>>,
    /// The seeds, as the node's own list has them.
    pub seeds: Vec<String>,
    /// Which of them is this node; none: it observes.
    pub slot: Option<String>,
}

impl Place {
    /// Of a node that is alone: it founds a registry at once, and is its only voter.
    pub fn alone() -> Self {
        Self { carry: None, seeds: Vec::new(), slot: None }
    }

    pub(super) fn is_alone(&self) -> bool {
        self.carry.is_none()
    }
}

/// The registry as one node has it.
pub struct SharedRegistry {
    identity: Incarnation,
    place: std::sync::OnceLock<Place>,
    heard: Heard,
    waiting: Mutex<Option<Waiting>>,
}

impl SharedRegistry {
    /// Opens what is stored in `data_dir`, or makes an empty store there. Blocks on the disk, and
    /// reads the whole file to check it.
    ///
    /// # Errors
    /// The directory cannot be used, or holds what is no registry of this release and these secrets.
    pub fn open(data_dir: &Path, settings: Settings) -> Result<Arc<Self>, OpenError> {
        let _ = (data_dir, settings);
        Ok(Arc::new(Self {
            identity: Incarnation::default(),
            place: std::sync::OnceLock::new(),
            heard: Heard::new(),
            waiting: Mutex::default(),
        }))
    }

    /// This node's name for ever, and which of its lives this is.
    pub fn identity(&self) -> Incarnation {
        self.identity
    }

    /// Which registry this node knows, and those that it was restored from, oldest first.
    pub fn lineage(&self) -> (Option<RegistryId>, Vec<RegistryId>) {
        (None, Vec::new())
    }

    /// All that the registry does on this node, until it is dropped. It never ends by itself; a disk
    /// that fails is tried again and again.
    ///
    /// Its place is known when this returns; nothing is done before the future is polled.
    pub fn serve(self: Arc<Self>, place: Place) -> impl Future<Output = ()> + Send {
        let _ = self.place.set(place);
        async move { std::future::pending().await }
    }

    /// These nodes live, linked or not.
    pub fn living(&self, nodes: &[NodeId]) {
        let _ = nodes;
    }

    /// A peer was linked: what it is to be told first.
    pub fn linked(&self, _peer: NodeId) -> Vec<Vec<u8>> {
        Vec::new()
    }

    /// A peer is not linked any more.
    pub fn unlinked(&self, peer: NodeId) {
        self.heard.lost(peer);
    }

    /// A peer told something; what it is to be told in return.
    pub fn told(&self, _from: NodeId, _body: &[u8]) -> Vec<Vec<u8>> {
        Vec::new()
    }

    /// A peer asked something.
    pub async fn asked(&self, _from: NodeId, _body: Vec<u8>) -> Vec<u8> {
        Vec::new()
    }

    /// Returns when tokens can be verified here.
    pub async fn informed(&self) {
        std::future::pending().await
    }

    /// The linked nodes that know another registry, neither of the two restored from the other: their
    /// links are to be cut.
    pub fn strangers(&self) -> BTreeSet<NodeId> {
        duties::strangers(self)
    }

    /// Whether there is anything of a registry in the store: a log, a vote or a book.
    pub(super) fn is_stored(&self) -> bool {
        false
    }

    /// Who is to keep the book instead of the leader's seeds, by an operator's command.
    pub(super) fn wanted_voters(&self) -> Option<Vec<String>> {
        None
    }

    /// The wall clock.
    pub(super) fn now(&self) -> UnixMillis {
        UnixMillis(0)
    }

    pub(super) fn place(&self) -> &Place {
        static ALONE: Place = Place { carry: None, seeds: Vec::new(), slot: None };
        self.place.get().unwrap_or(&ALONE)
    }

    /// What the others have said of themselves.
    pub(super) fn heard(&self) -> &Heard {
        &self.heard
    }

    /// What this node says of itself now; told to all linked nodes whenever it changes.
    pub(super) fn hello(&self) -> Option<Hello> {
        None
    }

    /// What operators are to read of what this node waits for.
    pub(super) fn set_waiting(&self, waiting: Option<Waiting>) {
        *self.waiting.lock() = waiting;
    }
}
