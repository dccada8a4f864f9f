//! A route that may be used, and whose word that rests on.

use std::{
    sync::atomic::{AtomicU32, Ordering::Relaxed},
    time::Duration,
};

use super::Route;
use crate::{NodeId, SessionId};

/// The ring that no route was verified under.
const DOUBTED: u32 = 0;

/// Who is responsible for an agent's presence, as the ring of this node's region has it now.
pub(in crate::mesh) trait RingView {
    /// Which of the rings that this node has known it is: each has the number after that of the one
    /// before; 1 is the lowest. One that comes back has another number than before.
    fn number(&self) -> u32;

    /// The owner of the agent's record; none if there is no node.
    fn owner(&self, agent: &str) -> Option<NodeId>;

    /// Whether the node owns the agent under every ring that came after the one of this number, as far
    /// as that is known still. An owner that was none in between may have missed what it should have
    /// told.
    fn has_owned_since(&self, number: u32, owner: NodeId, agent: &str) -> bool;
}

/// An owner that tells this node when the agent moves: its word is good until another owns the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::mesh) struct Vouched {
    owner: NodeId,
    ring: u32,
}

impl Vouched {
    /// The word of `node`, if it owns the agent under the present ring.
    pub(in crate::mesh) fn by(node: NodeId, agent: &str, ring: &impl RingView) -> Option<Self> {
        (ring.owner(agent) == Some(node)).then(|| Self { owner: node, ring: ring.number() })
    }

    /// Whether it is this node's.
    pub(in crate::mesh) fn is_by(&self, node: NodeId) -> bool {
        self.owner == node
    }
}

/// A route that may be used.
#[derive(Debug)]
pub(in crate::mesh) struct Known {
    session: SessionId,
    owner: NodeId,
    ring: AtomicU32,
    /// In which era it was made.
    since: u32,
    /// In which era it was vouched for last.
    confirmed: u32,
    used_s: AtomicU32,
}

impl Known {
    /// A route to `session`, used now, along which nothing was pushed before the era `since`; in the era
    /// `confirmed` its home was heard, and who vouches for it linked.
    pub(in crate::mesh) fn new(
        session: SessionId,
        vouched: Vouched,
        since: u32,
        confirmed: u32,
        now: Duration,
    ) -> Self {
        let Vouched { owner, ring } = vouched;
        Self {
            session,
            owner,
            ring: AtomicU32::new(ring),
            since,
            confirmed,
            used_s: AtomicU32::new(coarse_seconds(now)),
        }
    }

    /// Where it leads to.
    pub(in crate::mesh) fn session(&self) -> SessionId {
        self.session
    }

    /// The open route in its place, which is verified.
    pub(in crate::mesh) fn doubted<C>(&self, last_ask: u64) -> Route<C> {
        Route::doubted(self.session, self.since, last_ask)
    }

    /// Since which era.
    pub(in crate::mesh) fn since(&self) -> u32 {
        self.since
    }

    /// In which era it was vouched for last.
    pub(in crate::mesh) fn confirmed(&self) -> u32 {
        self.confirmed
    }

    /// Who vouches for it.
    pub(in crate::mesh) fn owner(&self) -> NodeId {
        self.owner
    }

    /// The home node of the session.
    pub(in crate::mesh) fn home(&self) -> NodeId {
        self.session.node
    }

    /// Whether who vouched for the route has owned the agent ever since; then the present ring is noted.
    pub(in crate::mesh) fn is_good(&self, agent: &str, ring: &impl RingView) -> bool {
        let (verified, present) = (self.ring.load(Relaxed), ring.number());
        if verified >= present || verified == DOUBTED {
            return verified != DOUBTED;
        }
        if !ring.has_owned_since(verified, self.owner, agent) {
            return false;
        }
        // Whoever came to doubt the route meanwhile is right.
        match self.ring.compare_exchange(verified, present, Relaxed, Relaxed) {
            Ok(_) => true,
            Err(by_another) => by_another != DOUBTED,
        }
    }

    /// From now on the route is verified before it is used.
    pub(in crate::mesh) fn doubt(&self) {
        self.ring.store(DOUBTED, Relaxed);
    }

    /// The owner confirms the route in this era.
    pub(in crate::mesh) fn confirm(&mut self, vouched: Vouched, era: u32) {
        (self.owner, self.confirmed) = (vouched.owner, era);
        *self.ring.get_mut() = vouched.ring;
    }

    /// Notes that the route was used. Writes at most once a second, so that senders on many threads do
    /// not fight for the line.
    pub(in crate::mesh) fn touch(&self, now: Duration) {
        let now = coarse_seconds(now);
        if self.used_s.load(Relaxed) != now {
            self.used_s.store(now, Relaxed);
        }
    }

    /// When it was last used, in whole seconds.
    pub(in crate::mesh) fn used_s(&self) -> u32 {
        self.used_s.load(Relaxed)
    }
}

/// Whole seconds of `now`.
pub(in crate::mesh) fn coarse_seconds(now: Duration) -> u32 {
    u32::try_from(now.as_secs()).unwrap_or(u32::MAX)
}
