//! What is going to happen, in the order in which it will.

use std::{cmp::Reverse, collections::BinaryHeap, time::Duration};

use cluster::SessionId;

/// One life of a node: which node, and how often it was started before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Life {
    /// The node's place in the world.
    pub node: usize,
    /// 1 for its first life.
    pub number: u64,
}

/// One side of one link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Side {
    /// The link's place in the world.
    pub link: usize,
    /// 0 for the side that dialled, 1 for the other.
    pub end: usize,
}

impl Side {
    pub(super) fn other(self) -> Self {
        Self { link: self.link, end: 1 - self.end }
    }
}

/// Something that happens at a moment.
#[derive(Clone, Debug)]
pub(super) enum Event {
    /// The engine's tick, and the look at what links have been silent.
    Tick(Life),
    /// A node tells a few peers whom it has heard of.
    Gossip(Life),
    /// A node pings its links.
    Ping(Life),
    /// A node dials the peers that it has no link to.
    Dial(Life),
    /// The first frame of a lane has reached this side.
    Arrive { to: Side, lane: usize },
    /// The handshake is done on this side.
    Established(Side),
    /// This side learns that the other has closed, or knows nothing of the link any more.
    Ended(Side),
    /// The task of a session that was taken over ends.
    Goodbye { life: Life, agent: usize, session: SessionId },
    /// An agent does something.
    Act(usize),
    /// The agent's client connects to a node.
    Connect { agent: usize, node: usize },
    /// A draining node takes its next step.
    Drain(Life),
    /// A crashed or drained node starts again.
    Start(usize),
    /// A hung node runs on.
    Resume(Life),
    /// A planned fault begins.
    Begin(usize),
    /// A planned fault is over.
    End(usize),
    /// All faults are over: from here on the cluster heals.
    Heal,
    /// Every agent writes to all others.
    Probe,
}

/// Events by time; those of one moment in the order in which they were put in.
#[derive(Debug, Default)]
pub(super) struct Queue {
    heap: BinaryHeap<Reverse<Entry>>,
    put: u64,
}

#[derive(Debug)]
struct Entry {
    key: (Duration, u64),
    event: Event,
}

impl Queue {
    pub(super) fn put(&mut self, at: Duration, event: Event) {
        self.put += 1;
        self.heap.push(Reverse(Entry { key: (at, self.put), event }));
    }

    /// The next event, unless it is after `end`.
    pub(super) fn next(&mut self, end: Duration) -> Option<(Duration, Event)> {
        if self.heap.peek()?.0.key.0 > end {
            return None;
        }
        let Reverse(entry) = self.heap.pop()?;
        Some((entry.key.0, entry.event))
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.key.cmp(&other.key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_put_first_comes_first_of_one_moment() {
        let mut queue = Queue::default();
        let second = Duration::from_secs(1);
        for (at, agent) in [(2, 0), (1, 1), (1, 2), (3, 3)] {
            queue.put(second * at, Event::Act(agent));
        }
        let mut order = Vec::new();
        while let Some((_, Event::Act(agent))) = queue.next(second * 2) {
            order.push(agent);
        }
        assert_eq!(order, [1, 2, 0]);
    }
}
