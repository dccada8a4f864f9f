//! What membership counts, to be read by whoever shows it.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::{Change, MemberState};

/// Counters of a node's membership since its start.
#[derive(Debug, Default)]
pub struct MemberCounters {
    changes: [AtomicU64; MemberState::ALL.len()],
    restarts: AtomicU64,
    gossip_dropped: AtomicU64,
    gossip_malformed: AtomicU64,
}

impl MemberCounters {
    /// How often a member came into this state.
    pub fn changes(&self, to: MemberState) -> u64 {
        self.changes[to as usize].load(Relaxed)
    }

    /// How often a newer life of a node took the place of a member.
    pub fn restarts(&self) -> u64 {
        self.restarts.load(Relaxed)
    }

    /// Messages of gossip that found too many waiting.
    pub fn gossip_dropped(&self) -> u64 {
        self.gossip_dropped.load(Relaxed)
    }

    /// Messages of gossip that were none.
    pub fn gossip_malformed(&self) -> u64 {
        self.gossip_malformed.load(Relaxed)
    }

    pub(super) fn changed(&self, change: &Change) {
        match change {
            Change::State { now, .. } => self.changes[*now as usize].fetch_add(1, Relaxed),
            Change::Restarted { .. } => self.restarts.fetch_add(1, Relaxed),
            Change::Forgotten { .. }
            | Change::NameConflict { .. }
            | Change::OwnIdTaken { .. }
            | Change::OwnAddressTaken { .. } => 0,
        };
    }

    pub(super) fn dropped_gossip(&self) {
        self.gossip_dropped.fetch_add(1, Relaxed);
    }

    pub(super) fn malformed_gossip(&self) {
        self.gossip_malformed.fetch_add(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Generation, Incarnation, NodeId};

    #[test]
    fn each_state_and_restarts_are_counted_apart() {
        let counters = MemberCounters::default();
        let member = Incarnation { node: NodeId(1), generation: Generation(1) };
        let changed = |now| Change::State { member, name: "a".into(), was: None, now };
        counters.changed(&changed(MemberState::Alive));
        counters.changed(&changed(MemberState::Dead));
        counters.changed(&changed(MemberState::Dead));
        counters.changed(&Change::Restarted { member, name: "a".into() });
        let counts = MemberState::ALL.map(|state| counters.changes(state));
        assert_eq!((counts, counters.restarts()), ([1, 0, 0, 0, 2], 1));
    }
}
