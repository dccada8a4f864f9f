//! The simulated links between nodes: ordered lanes with latency, that can be blocked and lost.
//!
//! What QUIC gives and takes: lanes are reliable and in order while the link lives; a blocked way
//! only delays what is on it, until a side gives up; what is then under way vanishes. Knows nothing of
//! engines: the world moves frames in and out.

use std::{collections::VecDeque, time::Duration};

use bytes::Bytes;
use cluster::wire::LANES;
use rand::{Rng, rngs::SmallRng};

use super::{
    event::{Life, Side},
    gossip::Table,
};

/// Lanes to one side: control, data, gossip.
pub(super) const ALL_LANES: usize = LANES + 2;

/// The lane of gossip.
pub(super) const GOSSIP: usize = LANES + 1;

/// What a lane carries.
#[derive(Clone, Debug)]
pub(super) enum Frame {
    /// An encoded frame of the wire.
    Wire(Bytes),
    /// News of the membership.
    Gossip(Table),
}

/// One connection between two nodes.
#[derive(Debug)]
pub(super) struct Link {
    pub ends: [End; 2],
    /// The lanes to each end.
    lanes: [[Lane; ALL_LANES]; 2],
}

/// One node's side of a link.
#[derive(Clone, Copy, Debug)]
pub(super) struct End {
    pub life: Life,
    pub state: EndState,
    pub heard: Duration,
    pub suspect: bool,
    /// Whether its node said goodbye on it.
    pub graceful: bool,
}

/// How far a side of a link is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EndState {
    Waiting,
    Up,
    Down,
}

#[derive(Debug, Default)]
struct Lane {
    frames: VecDeque<(Duration, Frame)>,
    last_due: Duration,
    /// Whether an arrival is in the world's queue.
    awaited: bool,
}

/// All links there ever were, and the ways between nodes.
#[derive(Debug)]
pub(super) struct Links {
    made: Vec<Link>,
    /// `current[node][peer]`: the link that the node uses.
    current: Vec<Vec<Option<Side>>>,
    /// How many faults block the way from one node to another.
    blocked: Vec<Vec<u32>>,
    latency: Vec<Vec<Duration>>,
    /// How much longer a slow node takes for each frame.
    pub slowness: Vec<Duration>,
    /// One frame in so many is lost and sent again; 0 for none.
    pub loss_one_in: u32,
}

/// How long a lost frame is missed before it is sent again, at most.
const RETRANSMISSION_MAX: Duration = Duration::from_millis(200);

/// By how much a frame may be late on the shortest way.
const JITTER_MIN: Duration = Duration::from_micros(50);

impl Links {
    /// Ways between nodes of these regions, with latencies drawn from `rng`.
    pub(super) fn new(regions: &[usize], rng: &mut SmallRng) -> Self {
        let nodes = regions.len();
        let mut latency = vec![vec![Duration::ZERO; nodes]; nodes];
        for a in 0..nodes {
            for b in 0..a {
                let near = regions[a] == regions[b];
                let micros = if near { 100..3_000 } else { 15_000..60_000 };
                latency[a][b] = Duration::from_micros(rng.random_range(micros));
                latency[b][a] = latency[a][b];
            }
        }
        Self {
            made: Vec::new(),
            current: vec![vec![None; nodes]; nodes],
            blocked: vec![vec![0; nodes]; nodes],
            latency,
            slowness: vec![Duration::ZERO; nodes],
            loss_one_in: 0,
        }
    }

    pub(super) fn latency(&self, from: usize, to: usize) -> Duration {
        self.latency[from][to]
    }

    pub(super) fn is_blocked(&self, from: usize, to: usize) -> bool {
        self.blocked[from][to] > 0
    }

    pub(super) fn nothing_is_blocked(&self) -> bool {
        self.blocked.iter().flatten().all(|faults| *faults == 0)
    }

    /// One more fault blocks the way.
    pub(super) fn block(&mut self, from: usize, to: usize) {
        self.blocked[from][to] += 1;
    }

    /// One fault fewer blocks the way. Says which lanes can move again, and when.
    pub(super) fn unblock(
        &mut self,
        from: usize,
        to: usize,
        now: Duration,
    ) -> Vec<(Side, usize, Duration)> {
        self.blocked[from][to] -= 1;
        let side = self.current[from][to].map(Side::other);
        let Some(side) = side.filter(|_| !self.is_blocked(from, to)) else { return Vec::new() };
        self.movable(side, now + self.latency[from][to])
    }

    /// The lanes to a side that have frames and no arrival awaited; awaited from now on.
    pub(super) fn movable(&mut self, to: Side, at: Duration) -> Vec<(Side, usize, Duration)> {
        let lanes = self.made[to.link].lanes[to.end].iter_mut().enumerate();
        let waiting = lanes.filter(|(_, lane)| !lane.awaited && !lane.frames.is_empty());
        let started = waiting.map(|(index, lane)| {
            lane.awaited = true;
            (to, index, at.max(lane.frames.front().map_or(at, |(due, _)| *due)))
        });
        started.collect()
    }

    /// A new link, dialled by the first.
    pub(super) fn dialled(&mut self, by: Life, to: Life, now: Duration) -> Side {
        let end = |life| End {
            life,
            state: EndState::Waiting,
            heard: now,
            suspect: false,
            graceful: false,
        };
        self.made.push(Link { ends: [end(by), end(to)], lanes: Default::default() });
        Side { link: self.made.len() - 1, end: 1 }
    }

    /// Whether a handshake between the two is under way.
    pub(super) fn is_dialling(&self, a: Life, b: Life) -> bool {
        let recent = self.made.iter().rev().take(4 * self.latency.len());
        recent.into_iter().any(|link| {
            let lives = [link.ends[0].life, link.ends[1].life];
            let waits = link.ends.iter().any(|end| end.state == EndState::Waiting);
            waits && (lives == [a, b] || lives == [b, a])
        })
    }

    pub(super) fn end(&mut self, side: Side) -> &mut End {
        &mut self.made[side.link].ends[side.end]
    }

    pub(super) fn life(&self, side: Side) -> Life {
        self.made[side.link].ends[side.end].life
    }

    pub(super) fn state(&self, side: Side) -> EndState {
        self.made[side.link].ends[side.end].state
    }

    pub(super) fn is_suspect(&self, side: Side) -> bool {
        self.made[side.link].ends[side.end].suspect
    }

    pub(super) fn said_goodbye(&self, side: Side) -> bool {
        self.made[side.link].ends[side.end].graceful
    }

    /// The link that a node uses to a peer, as its own side.
    pub(super) fn current(&self, node: usize, peer: usize) -> Option<Side> {
        self.current[node][peer]
    }

    /// All links that a node uses: peer and own side.
    pub(super) fn all_of(&self, node: usize) -> Vec<(usize, Side)> {
        let peers = self.current[node].iter().enumerate();
        peers.filter_map(|(peer, side)| Some((peer, (*side)?))).collect()
    }

    /// The side is up: its node uses the link from now on.
    pub(super) fn up(&mut self, side: Side, now: Duration) {
        let peer = self.life(side.other()).node;
        let end = self.end(side);
        end.state = EndState::Up;
        end.heard = now;
        let node = end.life.node;
        self.current[node][peer] = Some(side);
    }

    /// The side is gone: what was on the way to it vanishes, and of what it sent all but a part of
    /// each lane that is far enough on its way. Returns the frames that vanished.
    pub(super) fn down(&mut self, side: Side, rng: &mut SmallRng) -> Vec<Frame> {
        let peer = self.life(side.other()).node;
        let end = self.end(side);
        end.state = EndState::Down;
        let node = end.life.node;
        if self.current[node][peer] == Some(side) {
            self.current[node][peer] = None;
        }
        let other_is_down = self.state(side.other()) == EndState::Down;
        let mut vanished = Vec::new();
        let [to_first, to_second] = &mut self.made[side.link].lanes;
        let (to_it, from_it) =
            if side.end == 0 { (to_first, to_second) } else { (to_second, to_first) };
        for lane in to_it {
            vanished.extend(lane.frames.drain(..).map(|(_, frame)| frame));
        }
        for lane in from_it {
            let kept = if other_is_down { 0 } else { rng.random_range(0..=lane.frames.len()) };
            vanished.extend(lane.frames.drain(kept..).map(|(_, frame)| frame));
        }
        vanished
    }

    /// Sends a frame from a node on its side of a link. Says when it arrives, if it is the lane's
    /// first.
    pub(super) fn send(
        &mut self,
        from: Side,
        lane: usize,
        frame: Frame,
        now: Duration,
        rng: &mut SmallRng,
    ) -> Option<Duration> {
        let to = from.other();
        let (sender, receiver) = (self.life(from).node, self.life(to).node);
        let base = self.latency[sender][receiver];
        let jitter = (base / 2 + JITTER_MIN).mul_f64(rng.random());
        let again = if self.loss_one_in > 0 && rng.random_ratio(1, self.loss_one_in) {
            base * 2 + RETRANSMISSION_MAX.mul_f64(rng.random())
        } else {
            Duration::ZERO
        };
        let slow = self.slowness[receiver] + self.slowness[sender];
        let lane = &mut self.made[to.link].lanes[to.end][lane];
        lane.last_due = lane.last_due.max(now + base + jitter + again + slow);
        lane.frames.push_back((lane.last_due, frame));
        if lane.awaited {
            return None;
        }
        lane.awaited = true;
        Some(lane.last_due)
    }

    /// The frames of a lane that have reached a side, and when the next one will. Nothing moves on a
    /// blocked way, nor to a side that is not up.
    pub(super) fn arrived(
        &mut self,
        to: Side,
        lane: usize,
        now: Duration,
    ) -> (Vec<Frame>, Option<Duration>) {
        let way = (self.life(to.other()).node, self.life(to).node);
        let stands = self.is_blocked(way.0, way.1) || self.state(to) != EndState::Up;
        let lane = &mut self.made[to.link].lanes[to.end][lane];
        lane.awaited = false;
        if stands {
            return (Vec::new(), None);
        }
        let due = lane.frames.iter().take_while(|(due, _)| *due <= now).count();
        let frames = lane.frames.drain(..due).map(|(_, frame)| frame).collect();
        let next = lane.frames.front().map(|(due, _)| *due);
        lane.awaited = next.is_some();
        (frames, next)
    }

    /// Whether nothing that a node sent is still on its way.
    pub(super) fn is_flushed(&self, node: usize) -> bool {
        self.all_of(node).iter().all(|(_, side)| {
            let to = side.other();
            self.made[to.link].lanes[to.end].iter().all(|lane| lane.frames.is_empty())
        })
    }
}
