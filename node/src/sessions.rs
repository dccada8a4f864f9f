//! The sessions that live on this node, by agent.
//!
//! Owns the rule of takeover: one live session per agent, the newest wins. An entry is a drop guard
//! and removes only itself, so the late goodbye of an old session never disturbs its successor.

use std::{
    collections::{HashMap, hash_map::RandomState},
    hash::BuildHasher,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use cluster::{AgentId, UnixMillis};
use parking_lot::{Mutex, RwLock};

use crate::session::{Session, SessionId};

/// Locks that the map is spread over, so that deliveries on many threads seldom meet.
const SHARDS: usize = 64;

/// All sessions of this node.
#[derive(Debug)]
pub struct Sessions {
    hasher: RandomState,
    shards: Vec<RwLock<HashMap<AgentId, Arc<Session>>>>,
    len: AtomicUsize,
    last_id: AtomicU64,
    /// Grows with each change of the map.
    version: AtomicU64,
    snapshot: Mutex<Snapshot>,
}

#[derive(Debug)]
struct Snapshot {
    version: u64,
    sessions: Arc<[Arc<Session>]>,
}

/// A session's place in the map; given back when dropped.
#[derive(Debug)]
pub struct Entry {
    sessions: Arc<Sessions>,
    session: Arc<Session>,
}

/// What came of entering a session.
#[derive(Debug)]
pub enum Entered {
    /// The agent had no session here.
    Alone(Entry),
    /// The session took over from an older one, which is to be closed.
    TookOver(Entry, Arc<Session>),
    /// A newer session was there already: this one is to be closed.
    Outdone,
}

impl Default for Sessions {
    fn default() -> Self {
        Self {
            hasher: RandomState::new(),
            shards: (0..SHARDS).map(|_| RwLock::default()).collect(),
            len: AtomicUsize::new(0),
            last_id: AtomicU64::new(0),
            version: AtomicU64::new(0),
            snapshot: Mutex::new(Snapshot { version: 0, sessions: Arc::from([]) }),
        }
    }
}

impl Sessions {
    /// A new session id, higher than all before it, whatever the clock does.
    pub fn next_id(&self, now: UnixMillis) -> SessionId {
        let floor = now.0 << 20;
        let next = |last: u64| Some(floor.max(last + 1));
        let last = self.last_id.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
        SessionId(floor.max(last.unwrap_or_default() + 1))
    }

    /// Makes the session the one that its agent's messages go to, if it is the agent's newest.
    pub fn enter(self: &Arc<Self>, session: Arc<Session>) -> Entered {
        let mut shard = self.shard(session.agent().as_str()).write();
        let older = match shard.get(session.agent()) {
            Some(other) if other.id() > session.id() => return Entered::Outdone,
            _ => shard.insert(session.agent().clone(), Arc::clone(&session)),
        };
        if older.is_none() {
            self.len.fetch_add(1, Ordering::Relaxed);
        }
        self.version.fetch_add(1, Ordering::Release);
        drop(shard);
        let entry = Entry { sessions: Arc::clone(self), session };
        match older {
            Some(older) => Entered::TookOver(entry, older),
            None => Entered::Alone(entry),
        }
    }

    /// The agent's live session, if it has one here.
    pub fn get(&self, agent: &str) -> Option<Arc<Session>> {
        self.shard(agent).read().get(agent).cloned()
    }

    /// How many agents have a session here.
    pub fn len(&self) -> usize {
        self.len.load(Ordering::Relaxed)
    }

    /// Whether no agent has a session here.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All sessions that were entered before this call. The list is made once per change of the
    /// map and shared: a broadcast walks it without a lock.
    pub fn all(&self) -> Arc<[Arc<Session>]> {
        let mut snapshot = self.snapshot.lock();
        let version = self.version.load(Ordering::Acquire);
        if snapshot.version != version {
            let mut sessions = Vec::with_capacity(self.len());
            for shard in &self.shards {
                sessions.extend(shard.read().values().cloned());
            }
            *snapshot = Snapshot { version, sessions: sessions.into() };
        }
        Arc::clone(&snapshot.sessions)
    }

    fn remove(&self, session: &Session) {
        let mut shard = self.shard(session.agent().as_str()).write();
        if shard.get(session.agent()).is_some_and(|entered| entered.id() == session.id()) {
            shard.remove(session.agent());
            self.len.fetch_sub(1, Ordering::Relaxed);
            self.version.fetch_add(1, Ordering::Release);
        }
    }

    fn shard(&self, agent: &str) -> &RwLock<HashMap<AgentId, Arc<Session>>> {
        let index = usize::try_from(self.hasher.hash_one(agent)).unwrap_or_default() % SHARDS;
        &self.shards[index]
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.sessions.remove(&self.session);
    }
}
