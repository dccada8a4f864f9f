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

use cluster::{AgentId, SessionId};
use parking_lot::{Mutex, RwLock};

use crate::session::Session;

/// Locks that the map is spread over, so that deliveries on many threads seldom meet.
const SHARDS: usize = 64;

/// All sessions of this node.
#[derive(Debug)]
pub struct Sessions {
    hasher: RandomState,
    shards: Vec<RwLock<HashMap<AgentId, Arc<Session>>>>,
    len: AtomicUsize,
    /// Grows with each change of the map.
    version: AtomicU64,
    snapshot: Mutex<Snapshot>,
}

#[derive(Debug, Default)]
struct Snapshot {
    version: u64,
    /// None while it is out of date, so that it keeps no ended session's socket open.
    sessions: Option<Arc<[Arc<Session>]>>,
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
            version: AtomicU64::new(0),
            snapshot: Mutex::default(),
        }
    }
}

impl Sessions {
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

    /// Takes the agent's session out of the map if it is older than `than`: nothing is delivered to
    /// it from now on, and its entry has nothing to give back.
    pub fn take_older(&self, agent: &AgentId, than: SessionId) -> Option<Arc<Session>> {
        self.take_if(agent, |session| session.id() < than)
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
        if let Some(sessions) = &snapshot.sessions
            && snapshot.version == version
        {
            return Arc::clone(sessions);
        }
        let mut sessions = Vec::with_capacity(self.len());
        for shard in &self.shards {
            sessions.extend(shard.read().values().cloned());
        }
        let sessions: Arc<[_]> = sessions.into();
        *snapshot = Snapshot { version, sessions: Some(Arc::clone(&sessions)) };
        sessions
    }

    fn take_if(
        &self,
        agent: &AgentId,
        is_meant: impl Fn(&Session) -> bool,
    ) -> Option<Arc<Session>> {
        let mut shard = self.shard(agent.as_str()).write();
        shard.get(agent).filter(|session| is_meant(session))?;
        let taken = shard.remove(agent);
        self.len.fetch_sub(1, Ordering::Relaxed);
        self.version.fetch_add(1, Ordering::Release);
        drop(shard);
        self.snapshot.lock().sessions = None;
        taken
    }

    fn shard(&self, agent: &str) -> &RwLock<HashMap<AgentId, Arc<Session>>> {
        let index = usize::try_from(self.hasher.hash_one(agent)).unwrap_or_default() % SHARDS;
        &self.shards[index]
    }
}

impl Entry {
    /// Gives the place back now; `false` if a newer session had taken it.
    pub fn give_back(self) -> bool {
        self.remove()
    }

    fn remove(&self) -> bool {
        let is_own = |entered: &Session| entered.id() == self.session.id();
        let taken = self.sessions.take_if(self.session.agent(), is_own);
        // Also if its place was taken before: an old list may have kept it.
        self.sessions.snapshot.lock().sessions = None;
        taken.is_some()
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.remove();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a failed unwrap is a failed test
mod tests {
    use cluster::NodeId;

    use super::*;
    use crate::session::testing;

    fn session(time: u64, agent: &str) -> Arc<Session> {
        testing::session(agent, time).0
    }

    #[test]
    fn the_newest_session_wins_and_a_late_goodbye_disturbs_nobody() {
        let sessions = Arc::new(Sessions::default());
        let (old, new) = (session(1, "bob"), session(2, "bob"));
        let Entered::Alone(old_entry) = sessions.enter(Arc::clone(&old)) else { panic!() };
        let Entered::TookOver(new_entry, replaced) = sessions.enter(Arc::clone(&new)) else {
            panic!()
        };
        assert_eq!(replaced.id(), old.id());
        drop(old_entry);
        assert_eq!(sessions.get("bob").unwrap().id(), new.id());
        assert_eq!((sessions.len(), sessions.all().len()), (1, 1));
        drop(new_entry);
        assert!(sessions.get("bob").is_none() && sessions.is_empty() && sessions.all().is_empty());
    }

    #[test]
    fn a_newer_session_elsewhere_takes_the_place_of_an_older_one() {
        let sessions = Arc::new(Sessions::default());
        let there = |time| SessionId { time, node: NodeId(2) };
        let bob = session(7, "bob");
        let Entered::Alone(entry) = sessions.enter(Arc::clone(&bob)) else { panic!() };
        assert!(sessions.take_older(bob.agent(), there(6)).is_none(), "that one is older");
        assert_eq!((sessions.len(), sessions.all().len()), (1, 1));
        assert!(sessions.take_older(bob.agent(), there(7)).is_some());
        assert!(sessions.get("bob").is_none() && sessions.all().is_empty());
        let next = sessions.enter(session(9, "bob"));
        assert!(!entry.give_back(), "its place was taken");
        assert_eq!((sessions.len(), sessions.all().len()), (1, 1));
        let Entered::Alone(next) = next else { panic!() };
        assert!(next.give_back() && sessions.is_empty());
    }

    #[test]
    fn a_session_that_enters_late_gives_way_to_a_newer_one() {
        let sessions = Arc::new(Sessions::default());
        let (old, new) = (session(1, "bob"), session(2, "bob"));
        let entry = sessions.enter(Arc::clone(&new));
        assert!(matches!(sessions.enter(old), Entered::Outdone));
        assert_eq!(sessions.get("bob").unwrap().id(), new.id());
        drop(entry);
        assert!(sessions.is_empty());
    }

    #[test]
    fn the_list_of_all_is_as_new_as_the_map() {
        let sessions = Arc::new(Sessions::default());
        let mut entries = Vec::new();
        for n in 1..=20 {
            entries.push(sessions.enter(session(1, &format!("agent-{n}"))));
            assert_eq!(sessions.all().len(), n);
        }
        assert!(Arc::ptr_eq(&sessions.all(), &sessions.all()), "made once per change");
        entries.truncate(5);
        assert_eq!(sessions.all().len(), 5);
    }
}
