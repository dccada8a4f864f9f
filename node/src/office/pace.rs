//! When news of subscriptions is told, and to whom, so that links have room for the rest.
//!
//! News can wait: what changes meanwhile is told together, and who missed some learns it from the next
//! digest. So the next turn begins when the peers have answered a ping behind the last one, which
//! says that their lanes are empty again, and rests for as long as that took: on a link that is slow
//! the messages of agents have half of the time. Pure.

use std::{collections::BTreeMap, time::Duration};

use cluster::NodeId;

use super::SUBSCRIPTIONS_EVERY;

/// So long all wait for a peer that does not answer: a turn on a link that carries 1 Mbit/s.
const PATIENCE: Duration = Duration::from_millis(500);

/// A peer that does not answer is told no more than this and one turn: what changes while a link
/// stands still for seconds is in it, unless somebody keeps changing much.
const UNANSWERED_MAX: usize = 128 << 10;

/// What this node spends on news, all peers together: 67 Mbit/s.
const BYTES_PER_SECOND: u64 = 8 << 20;

/// The turns so far, as far as they matter to the next.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// When the last one was.
    told: Duration,
    /// When it is paid for.
    paid: Duration,
    /// When it has rested for as long as the peers took.
    rested: Duration,
    /// Who has not answered.
    unanswered: BTreeMap<NodeId, Unanswered>,
}

/// What a peer was told and may not have.
#[derive(Debug)]
struct Unanswered {
    first: Duration,
    last: Duration,
    bytes: usize,
}

impl Pace {
    /// Whom to tell at `now`; none if it is not time yet. `answered` is for each linked peer when the
    /// last ping was sent that it has answered.
    pub(super) fn turn(
        &mut self,
        answered: &BTreeMap<NodeId, Duration>,
        now: Duration,
    ) -> Option<Vec<NodeId>> {
        let waits =
            |node: &NodeId, told: &Unanswered| answered.get(node).is_some_and(|at| *at < told.last);
        self.unanswered.retain(|node, told| waits(node, told));
        if self.unanswered.values().any(|told| now < told.first + PATIENCE) {
            self.rested = rest(self.told, now);
            return None;
        }
        if !self.unanswered.is_empty() {
            // Those who have answered are not to rest for those who have not.
            self.rested = Duration::ZERO;
        }
        if now < self.rested.max(self.paid) {
            return None;
        }
        let takes = |node: &NodeId| {
            self.unanswered.get(node).is_none_or(|told| told.bytes < UNANSWERED_MAX)
        };
        Some(answered.keys().copied().filter(takes).collect())
    }

    /// These peers were told so many bytes each, and pinged at `now`.
    pub(super) fn told(&mut self, peers: &[NodeId], bytes: usize, now: Duration) {
        for node in peers {
            let new = Unanswered { first: now, last: now, bytes: 0 };
            let told = self.unanswered.entry(*node).or_insert(new);
            told.last = now;
            told.bytes += bytes;
        }
        let spent_us = (bytes as u64).saturating_mul(peers.len() as u64).saturating_mul(1_000_000);
        self.paid = now + Duration::from_micros(spent_us / BYTES_PER_SECOND);
        (self.told, self.rested) = (now, rest(now, now));
    }
}

/// When a turn has rested that some had not answered at `now`; they may do so until the next round.
fn rest(told: Duration, now: Duration) -> Duration {
    told + 2 * (now.saturating_sub(told) + SUBSCRIPTIONS_EVERY)
}

#[cfg(test)]
mod tests;
