//! What must be answered from memory: how many names there are, and what is revoked.
//!
//! Written only after the disk has it, so that it never says more than a restart would.

use std::{
    collections::{HashMap, HashSet},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
};

use parking_lot::RwLock;
use tokio::sync::watch;

use crate::{
    AgentId,
    token::{Grant, Serial},
};

/// The revocations in force.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Revoked {
    pub(super) tokens: HashSet<Serial>,
    /// The last revoked serial of an agent; what it was issued later is good.
    pub(super) agents: HashMap<AgentId, Serial>,
}

impl Revoked {
    fn covers(&self, agent: &AgentId, serial: Serial) -> bool {
        self.tokens.contains(&serial)
            || self.agents.get(agent).is_some_and(|until| serial <= *until)
    }

    fn is_empty(&self) -> bool {
        self.tokens.is_empty() && self.agents.is_empty()
    }

    fn extend(&mut self, more: Self) {
        self.tokens.extend(more.tokens);
        self.agents.extend(more.agents);
    }
}

/// The part of the book that is held in memory, shared by the writer and those who ask.
#[derive(Debug)]
pub(super) struct Standing {
    registered: AtomicU64,
    /// Spares the usual relay, where nothing is revoked, the lock.
    any_revoked: AtomicBool,
    revoked: RwLock<Revoked>,
    changes: watch::Sender<u64>,
}

impl Standing {
    pub(super) fn new(registered: u64, revoked: Revoked) -> Self {
        Self {
            registered: AtomicU64::new(registered),
            any_revoked: AtomicBool::new(!revoked.is_empty()),
            revoked: RwLock::new(revoked),
            changes: watch::Sender::new(0),
        }
    }

    pub(super) fn registered(&self) -> u64 {
        self.registered.load(Ordering::Relaxed)
    }

    pub(super) fn is_revoked(&self, grant: &Grant) -> bool {
        self.any_revoked.load(Ordering::Acquire)
            && self.revoked.read().covers(grant.agent(), grant.serial())
    }

    pub(super) fn with_revoked(&self, look: impl FnOnce(&Revoked)) {
        look(&self.revoked.read());
    }

    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Follows a durable change.
    pub(super) fn follow(&self, registered: u64, newly_revoked: Revoked) {
        self.registered.store(registered, Ordering::Relaxed);
        if !newly_revoked.is_empty() {
            self.revoked.write().extend(newly_revoked);
            self.announce();
        }
    }

    /// Takes over what the disk says, after it had been out of reach.
    pub(super) fn replace(&self, registered: u64, revoked: Revoked) {
        self.registered.store(registered, Ordering::Relaxed);
        if *self.revoked.read() != revoked {
            *self.revoked.write() = revoked;
            self.announce();
        }
    }

    fn announce(&self) {
        self.any_revoked.store(!self.revoked.read().is_empty(), Ordering::Release);
        self.changes.send_modify(|version| *version += 1);
    }
}
