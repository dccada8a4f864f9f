//! A model of the membership: tables of heartbeats that nodes exchange over their links.
//!
//! As in the real one, a node is alive while its heartbeat grows, however its links are; news takes
//! random ways and times, and in the end all that can reach each other see the same.

use std::time::Duration;

use cluster::membership::MemberState;

/// How often a node tells others.
pub(super) const GOSSIP_EVERY: Duration = Duration::from_millis(400);

/// How many it tells at once.
pub(super) const TOLD_AT_ONCE: usize = 3;

/// Whose heartbeat has not grown for so long is dead.
const DEAD_AFTER: Duration = Duration::from_millis(3_500);

/// What a node knows of all, itself among them; by place in the world.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Table(pub(super) Vec<Option<Row>>);

/// What is known of one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub life: u64,
    pub beats: u64,
    pub leaving: bool,
    pub left: bool,
    /// When the heartbeat was last seen to grow, by the clock of the table's node.
    pub grew: Duration,
}

impl Row {
    fn rank(&self) -> (u64, bool, u64) {
        (self.life, self.left, self.beats)
    }
}

impl Table {
    pub(super) fn new(nodes: usize) -> Self {
        Self(vec![None; nodes])
    }

    /// The node's own heart beats.
    pub(super) fn beat(&mut self, me: usize, life: u64, leaving: bool, now: Duration) {
        let beats = self.0[me].as_ref().map_or(0, |row| row.beats) + 1;
        self.0[me] = Some(Row { life, beats, leaving, left: false, grew: now });
    }

    /// Takes what another tells; a node's own row is its own.
    pub(super) fn hear(&mut self, me: usize, told: &Self, now: Duration) {
        for (node, (mine, theirs)) in self.0.iter_mut().zip(&told.0).enumerate() {
            let Some(theirs) = theirs.as_ref().filter(|_| node != me) else { continue };
            if mine.as_ref().is_none_or(|mine| mine.rank() < theirs.rank()) {
                let leaving = theirs.leaving
                    || mine.as_ref().is_some_and(|mine| mine.life == theirs.life && mine.leaving);
                *mine = Some(Row { leaving, grew: now, ..theirs.clone() });
            }
        }
    }

    /// A peer said goodbye in that life.
    pub(super) fn farewell(&mut self, peer: usize, life: u64) {
        if let Some(row) = self.0[peer].as_mut().filter(|row| row.life == life) {
            row.left = true;
        }
    }

    /// A linked peer says that it stops soon.
    pub(super) fn leaves(&mut self, peer: usize, life: u64) {
        if let Some(row) = self.0[peer].as_mut().filter(|row| row.life == life) {
            row.leaving = true;
        }
    }

    /// How all known nodes are: place, life, state.
    pub(super) fn view(&self, me: usize, now: Duration) -> Vec<(usize, u64, MemberState)> {
        let rows = self.0.iter().enumerate();
        let known = rows.filter_map(|(node, row)| Some((node, row.as_ref()?)));
        known.map(|(node, row)| (node, row.life, row.state(node == me, now))).collect()
    }
}

impl Row {
    fn state(&self, is_me: bool, now: Duration) -> MemberState {
        if self.left {
            MemberState::Left
        } else if !is_me && now.saturating_sub(self.grew) > DEAD_AFTER {
            MemberState::Dead
        } else if self.leaving {
            MemberState::Leaving
        } else {
            MemberState::Alive
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_heart_that_beats_somewhere_is_alive_here() {
        let second = Duration::from_secs(1);
        let (mut a, mut b) = (Table::new(2), Table::new(2));
        a.beat(0, 1, false, Duration::ZERO);
        b.hear(1, &a, Duration::ZERO);
        assert_eq!(b.view(1, second * 3), [(0, 1, MemberState::Alive)]);
        assert_eq!(b.view(1, second * 4), [(0, 1, MemberState::Dead)]);
        b.hear(1, &a, second * 4);
        assert_eq!(b.view(1, second * 4), [(0, 1, MemberState::Dead)], "old news");
        a.beat(0, 1, true, Duration::ZERO);
        b.hear(1, &a, second * 4);
        assert_eq!(b.view(1, second * 4), [(0, 1, MemberState::Leaving)]);
        b.farewell(0, 1);
        assert_eq!(b.view(1, second * 4), [(0, 1, MemberState::Left)]);
    }

    #[test]
    fn a_new_life_beats_an_old_goodbye() {
        let mut b = Table::new(2);
        let mut a = Table::new(2);
        a.beat(0, 1, false, Duration::ZERO);
        b.hear(1, &a, Duration::ZERO);
        b.farewell(0, 1);
        let mut reborn = Table::new(2);
        reborn.beat(0, 2, false, Duration::ZERO);
        b.hear(1, &reborn, Duration::ZERO);
        b.hear(1, &a, Duration::ZERO);
        assert_eq!(b.view(1, Duration::ZERO), [(0, 2, MemberState::Alive)]);
    }
}
