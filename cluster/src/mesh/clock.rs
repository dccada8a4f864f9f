//! Mesh time: the wall clock, moved forward to the fastest peer's, and session ids made of it.
//!
//! So a session that an agent opens after a hop to another node has the higher id, though that
//! node's clock be behind, and its messages have no earlier time than those before. Never goes back
//! when the wall clock does, as far as session ids tell; takes no lock, and never reads a clock.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use crate::{NodeId, SessionId, UnixMillis, link::CLOCK_SKEW_MAX};

/// How far peers may move mesh time from the wall clock: what one of the fastest clocks that links allow
/// has moved, one of the slowest must follow.
const AHEAD_MAX: Duration = Duration::from_secs(2 * CLOCK_SKEW_MAX.as_secs());

/// What is known of the peers' clocks, and the last session id that was made.
#[derive(Debug, Default)]
pub(super) struct MeshTime {
    /// How far ahead of the wall clock, in milliseconds.
    offset: AtomicU64,
    last: AtomicU64,
}

impl MeshTime {
    /// A peer's mesh time was `remote` when it sent what came just now, at `wall` here. What the
    /// way took is not made up for: two nodes that both guessed it would drive each other forward.
    pub(super) fn learn(&self, wall: UnixMillis, remote: UnixMillis) {
        let ahead = remote.0.saturating_sub(wall.0).min(millis(AHEAD_MAX));
        self.offset.fetch_max(ahead, Relaxed);
    }

    /// Mesh time when the wall clock says `wall`.
    pub(super) fn now(&self, wall: UnixMillis) -> UnixMillis {
        UnixMillis(wall.0.saturating_add(self.offset.load(Relaxed)))
    }

    /// The time of a message that is accepted when the wall clock says `wall`: mesh time, but no
    /// further from the clock than a peer's may be that is linked.
    pub(super) fn stamp(&self, wall: UnixMillis) -> UnixMillis {
        let ahead = self.offset.load(Relaxed).min(millis(CLOCK_SKEW_MAX));
        UnixMillis(wall.0.saturating_add(ahead))
    }

    /// The id of a session that opens now: higher than all before it here.
    pub(super) fn next_session(&self, wall: UnixMillis, node: NodeId) -> SessionId {
        let floor = SessionId::floor(self.now(wall));
        let next = |last: u64| floor.max(last.saturating_add(1));
        let last = self.last.fetch_update(Relaxed, Relaxed, |last| Some(next(last)));
        // It cannot fail; either way it says what was last.
        let time = next(last.unwrap_or_else(|last| last));
        SessionId { time, node }
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_who_is_ahead_is_believed_and_only_so_far() {
        let time = MeshTime::default();
        let wall = UnixMillis(1_000_000);
        time.learn(wall, UnixMillis(999_000));
        assert_eq!(time.now(wall), wall, "a peer that is behind changes nothing");
        time.learn(wall, UnixMillis(1_002_000));
        time.learn(wall, UnixMillis(1_001_000));
        assert_eq!(time.now(wall), UnixMillis(1_002_000), "the largest offset stays");
        assert_eq!(time.stamp(wall), UnixMillis(1_002_000));
        time.learn(wall, UnixMillis(u64::MAX));
        assert_eq!(time.now(wall), UnixMillis(1_060_000), "at most 60 s");
        assert_eq!(time.stamp(wall), UnixMillis(1_030_000), "and messages at most 30 s");
    }

    #[test]
    fn a_session_opened_after_a_hop_is_the_higher_though_the_clock_is_behind() {
        let (ahead, behind) = (MeshTime::default(), MeshTime::default());
        let first = ahead.next_session(UnixMillis(20_000), NodeId(9));
        behind.learn(UnixMillis(5_000), ahead.now(UnixMillis(20_000)));
        let second = behind.next_session(UnixMillis(5_001), NodeId(1));
        assert!(second > first);
    }

    /// Nodes whose clocks are 30 s apart are linked, and one's time is moved by a third's.
    #[test]
    fn who_is_last_of_all_follows_who_is_first() {
        let walls = [15_000, 45_000, 75_000].map(UnixMillis);
        let [behind, right, ahead] = <[MeshTime; 3]>::default();
        right.learn(walls[1], ahead.now(walls[2]));
        let first =
            right.next_session(walls[1], NodeId(9)).max(ahead.next_session(walls[2], NodeId(9)));
        behind.learn(walls[0], right.now(walls[1]));
        assert!(behind.next_session(walls[0], NodeId(10)) > first);
    }

    proptest! {
        #[test]
        fn session_ids_only_grow(walls in prop::collection::vec(0u64..100, 1..50)) {
            let time = MeshTime::default();
            let ids: Vec<SessionId> = walls
                .iter()
                .map(|wall| time.next_session(UnixMillis(*wall), NodeId(1)))
                .collect();
            prop_assert!(ids.windows(2).all(|pair| pair[0] < pair[1]));
            for (wall, id) in walls.iter().zip(&ids) {
                prop_assert!(id.time >= SessionId::floor(UnixMillis(*wall)));
            }
        }
    }
}
