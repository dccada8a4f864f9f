//! All routes of this node, and the pushing of messages along them.
//!
//! Owns the locks, the room that waiting messages share, and the numbers of questions and fences;
//! what is done with a route, [`Route`] decides. Never asks anybody itself: what has to be asked is
//! returned as [`Need`]s, to be done when no lock is held.
//!
//! Whatever is pushed because of a route is pushed while the lock of its shard is held, so that a
//! settlement and the messages after it cannot change places. Locks, in their order: the broadcasts'
//! gate, shards (several only for reading, ascending); then what [`RouteOut`] takes. Nothing in [`RouteOut`] may call back.
//!
//! A node that falls silent, or whose link is lost, may be in a million routes. That touches only those
//! that are open; a known one is judged by [`Heard`] when it is used next.

mod events;
mod heard;
#[cfg(test)]
mod model;
mod room;
mod shard;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod unit_tests;

use std::{
    hash::BuildHasher,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use bytes::Bytes;
use parking_lot::{RwLock, RwLockReadGuard, RwLockWriteGuard};
use smallvec::SmallVec;

use self::{
    heard::Heard,
    room::{Charge, Room, Taken},
    shard::{Keyed, Shard},
};
use super::{
    Lost, Message, Outgoing, Pushed,
    route::{self, RingView, Waiting, Whom},
};
use crate::{
    AgentId, NodeId,
    wire::{Body, Data, Direct, Names},
};

/// How many parts the routes are locked in; one bit of a `u64` each.
const SHARDS: usize = 64;

/// How many targets one frame has room for.
const TARGETS_MAX: usize = 256;

/// How many questions go to others than owners from one tick to the next, one to all nodes counted for each:
/// 26 MB a second. Where many who are nowhere are written to while no owner can say so, as while a node
/// is silent, each node would else ask all others for each of them five times a second.
pub(super) const ASKED_OF_OTHERS_MAX: usize = 16_384;

/// How many shards further on open routes are gone through when the questions ran out.
const SHARDS_PER_TURN: usize = 7;

/// What the routes do to the rest of the node. Called with locks held: never blocks, never calls the
/// routes.
pub(super) trait RouteOut {
    /// Puts a frame onto a data lane to a peer. What finds the lane full is counted there.
    fn data(&self, to: NodeId, lane: u8, frame: &Data<'_>) -> Pushed;

    /// Gives the message to the agent's session on this node; `false` if there is none.
    fn here(&self, agent: &AgentId, from: &AgentId, followed: bool, body: &Body<'_>) -> bool;

    /// Nothing waits for the agent's session on this node any more, if it has one: from now on
    /// messages from this node may go to it directly.
    fn unfenced(&self, agent: &AgentId);

    /// So many messages to one agent each were lost.
    fn lost(&self, why: Lost, messages: u64);

    /// This message is one of those that are lost.
    fn missed(&self, _why: Lost, _body: &Body<'_>) {}
}

/// Something to be asked for a route. Every answer goes to [`Routes::located`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Need {
    /// The number of the question, unique on this node.
    pub(super) ask: u64,
    /// Whose place.
    pub(super) agent: AgentId,
    /// Whom to ask. Who cannot be asked is as good as one who cannot say: [`Located::Unsettled`].
    pub(super) whom: Whom,
}

/// What has to be asked; mostly nothing.
pub(super) type Needs = SmallVec<[Need; 1]>;

type Route = route::Route<Charge>;

/// The routes of this node to agents that have no session here, or whose session here still waits for
/// messages from a former home.
pub(super) struct Routes {
    me: NodeId,
    shards: Box<[RwLock<Shard>; SHARDS]>,
    hasher: Keyed,
    /// How many routes are open.
    open: AtomicUsize,
    asks: AtomicU64,
    epochs: AtomicU64,
    /// How many questions went to others than owners since the last tick.
    asked_of_others: AtomicUsize,
    /// The shard whose open routes are gone through first.
    first: AtomicUsize,
    /// Grows when a node is heard of (again), and when messages may come back that nobody waits for any
    /// more. A direct message carries the era in which it was pushed, and comes back with it; so it can
    /// be told whether it belongs to the route as that is now.
    era: AtomicU32,
    heard: ArcSwap<Heard>,
    room: Arc<Room>,
    /// Held for reading while a broadcast finds out whom to leave out and is pushed.
    gate: RwLock<()>,
    /// How many times a shard was looked through for idle routes; each in turn.
    sweep: AtomicUsize,
}

/// What an event is handled with.
struct Cx<'a, O> {
    out: &'a O,
    now: Duration,
}

impl Routes {
    /// No routes; `me` is this node.
    pub(super) fn new(me: NodeId) -> Self {
        let hasher = Keyed(me.0);
        Self {
            me,
            shards: Box::new(std::array::from_fn(|_| RwLock::new(Shard::new(hasher)))),
            hasher,
            open: AtomicUsize::new(0),
            asks: AtomicU64::new(0),
            epochs: AtomicU64::new(0),
            asked_of_others: AtomicUsize::new(0),
            first: AtomicUsize::new(0),
            era: AtomicU32::new(0),
            heard: ArcSwap::from_pointee(Heard::new(hasher)),
            room: Arc::default(),
            gate: RwLock::new(()),
            sweep: AtomicUsize::new(0),
        }
    }

    /// Sends a message to agents, each named once, that have no session here, or a fenced one. To
    /// several with one home goes one frame; for that the locks of all their shards are held.
    pub(super) fn direct(
        &self,
        message: &Outgoing<'_>,
        targets: &[&str],
        ring: &impl RingView,
        out: &impl RouteOut,
        now: Duration,
    ) -> Needs {
        let cx = Cx { out, now };
        let mut kept = Kept { message, shared: None };
        let mut needs = Needs::new();
        if let [target] = targets {
            let shard = self.shards[self.shard_of(target)].read();
            let home = shard.usable(target, &self.heard.load(), ring, now);
            let pushed = home.map(|home| self.push(home, message, targets, false, &cx));
            drop(shard);
            if !pushed.is_some_and(is_there) {
                needs.extend(self.enter(target, &mut kept, ring, &cx));
            }
        } else {
            for target in self.direct_known(message, targets, ring, &cx) {
                needs.extend(self.enter(target, &mut kept, ring, &cx));
            }
        }
        needs
    }

    /// Pushes along the routes that are known; returns the other targets.
    fn direct_known<'t>(
        &self,
        message: &Outgoing<'_>,
        targets: &[&'t str],
        ring: &impl RingView,
        cx: &Cx<'_, impl RouteOut>,
    ) -> SmallVec<[&'t str; 8]> {
        let locked = self.read_shards_of(targets);
        // Not before: whoever waits for the locks says that a link is lost.
        let heard = self.heard.load();
        let mut rest = SmallVec::new();
        let mut known: SmallVec<[(NodeId, &str); 16]> = SmallVec::new();
        for &target in targets {
            let index = self.shard_of(target);
            let shard = locked.iter().find(|(i, _)| *i == index);
            match shard.and_then(|(_, shard)| shard.usable(target, &heard, ring, cx.now)) {
                Some(home) => known.push((home, target)),
                None => rest.push(target),
            }
        }
        known.sort_by_key(|(home, _)| *home);
        for group in known.chunk_by(|a, b| a.0 == b.0).flat_map(|group| group.chunks(TARGETS_MAX)) {
            let names: SmallVec<[&str; 16]> = group.iter().map(|(_, name)| *name).collect();
            let Some((home, _)) = group.first() else { continue };
            if !is_there(self.push(*home, message, &names, false, cx)) {
                rest.extend(names);
            }
        }
        rest
    }

    /// The shards of these agents, locked for reading in ascending order, each once.
    fn read_shards_of(
        &self,
        targets: &[&str],
    ) -> SmallVec<[(usize, RwLockReadGuard<'_, Shard>); 8]> {
        let wanted = targets.iter().fold(0_u64, |bits, target| bits | 1 << self.shard_of(target));
        self.shards
            .iter()
            .enumerate()
            .filter(|(index, _)| wanted >> index & 1 == 1)
            .map(|(index, shard)| (index, shard.read()))
            .collect()
    }

    /// The message has no route that may be used, as far as could be seen without the write lock.
    fn enter(
        &self,
        target: &str,
        kept: &mut Kept<'_>,
        ring: &impl RingView,
        cx: &Cx<'_, impl RouteOut>,
    ) -> Option<Need> {
        let Ok(agent) = target.parse::<AgentId>() else {
            cx.out.lost(Lost::Offline, 1);
            cx.out.missed(Lost::Offline, &kept.message.body);
            return None;
        };
        let message = kept.message;
        let mut shard = self.lock(target);
        if let Some(home) = shard.usable(target, &self.heard.load(), ring, cx.now) {
            if is_there(self.push(home, message, &[target], false, cx)) {
                return None;
            }
            // The link is gone with all that was in it; the news is on its way.
            shard.known.remove(target);
        }
        if !shard.open.contains_key(target) {
            let route = match shard.known.get(target) {
                Some(known) => known.doubted(self.last_ask()),
                // It may have come or been unfenced since the caller looked; later messages go there
                // directly.
                None if cx.out.here(&agent, message.from, message.followed, &message.body) => {
                    return None;
                }
                None => self.unknown(&mut shard, &agent, cx.now),
            };
            self.open(&mut shard, &agent, route);
        }
        self.queue(&mut shard, &agent, kept, cx);
        self.advance(&mut shard, &agent, cx)
    }

    /// Sends a broadcast: `push` pushes it to all other nodes, for all their agents but those it is
    /// given; these get it along their routes, behind what waits there. Returns them as well, for
    /// they may have a session here.
    ///
    /// When [`moved`](Self::moved) or [`arrived_here`](Self::arrived_here) has returned, whatever is
    /// pushed leaves out the agents whose routes they have fenced. `push` must not call the routes.
    pub(super) fn broadcast(
        &self,
        message: &Outgoing<'_>,
        out: &impl RouteOut,
        now: Duration,
        push: impl FnOnce(&[AgentId]),
    ) -> (Vec<AgentId>, Needs) {
        let _gate = self.gate.read();
        let (mut except, mut needs) = (Vec::new(), Needs::new());
        if self.open.load(Ordering::Acquire) > 0 {
            let cx = Cx { out, now };
            let mut kept = Kept { message, shared: None };
            for index in 0..SHARDS {
                self.hold_back(index, &mut kept, &cx, &mut except, &mut needs);
            }
        }
        push(&except);
        (except, needs)
    }

    fn hold_back(
        &self,
        index: usize,
        kept: &mut Kept<'_>,
        cx: &Cx<'_, impl RouteOut>,
        except: &mut Vec<AgentId>,
        needs: &mut Needs,
    ) {
        let message = kept.message;
        // Mostly none does: the others who send are not kept waiting to find that out.
        if self.shards[index].read().who_hold_back(message).next().is_none() {
            return;
        }
        let mut shard = self.shards[index].write();
        let first = except.len();
        except.extend(shard.who_hold_back(message).cloned());
        for agent in except.iter().skip(first) {
            self.queue(&mut shard, agent, kept, cx);
            needs.extend(self.advance(&mut shard, agent, cx));
        }
    }
}

impl Routes {
    fn last_ask(&self) -> u64 {
        self.asks.load(Ordering::Relaxed)
    }

    fn next_epoch(&self) -> u64 {
        self.epochs.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Whether there is room for one more question to all nodes.
    fn may_ask_others(&self) -> bool {
        let more = |asked: usize| self.with_one_more(asked);
        self.asked_of_others.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }

    /// A tick's time has passed: as much again may be asked. If there was no room for all questions, those
    /// that came last then come earlier.
    fn may_ask_again(&self) {
        if self.with_one_more(self.asked_of_others.swap(0, Ordering::Relaxed)).is_none() {
            self.first.fetch_add(SHARDS_PER_TURN, Ordering::Relaxed);
        }
    }

    fn with_one_more(&self, asked: usize) -> Option<usize> {
        let nodes = self.heard.load().count().clamp(1, ASKED_OF_OTHERS_MAX);
        Some(asked + nodes).filter(|sum| *sum <= ASKED_OF_OTHERS_MAX)
    }

    fn era(&self) -> u32 {
        self.era.load(Ordering::Relaxed)
    }

    fn next_era(&self) -> u32 {
        self.era.fetch_add(1, Ordering::Relaxed) + 1
    }

    fn is_heard(&self, node: NodeId) -> bool {
        node == self.me || self.heard.load().since(node).is_some()
    }

    /// Since which era the node is linked and was never silent.
    fn heard_since(&self, node: NodeId) -> u32 {
        self.heard.load().since(node).unwrap_or_default()
    }

    fn change_heard(&self, change: impl Fn(&mut Heard)) {
        self.heard.rcu(|heard| {
            let mut next = Heard::clone(heard);
            change(&mut next);
            next
        });
    }

    /// Pushes a message to the home of these agents, whose shards are locked.
    fn push(
        &self,
        home: NodeId,
        message: &Outgoing<'_>,
        targets: &[&str],
        resent: bool,
        cx: &Cx<'_, impl RouteOut>,
    ) -> Pushed {
        let frame = Data::Direct(Direct {
            followed: message.followed,
            resent,
            era: self.era(),
            from: message.from.as_str(),
            targets: Names::List(targets),
            body: message.body.clone(),
        });
        cx.out.data(home, message.lane, &frame)
    }

    /// The agent's shard, locked; if its route has ended with a link, there is none any more.
    fn lock(&self, agent: &str) -> RwLockWriteGuard<'_, Shard> {
        let mut shard = self.shards[self.shard_of(agent)].write();
        if shard.known.get(agent).is_some_and(|known| self.heard.load().has_ended(known)) {
            shard.known.remove(agent);
        }
        shard
    }

    /// From bits that the maps in a shard make no use of to place an agent.
    fn shard_of(&self, agent: &str) -> usize {
        (self.hasher.hash_one(agent) >> 32) as usize % SHARDS
    }
}

impl<O: RouteOut> Cx<'_, O> {
    fn lose(&self, why: Lost, messages: &[Waiting<Charge>]) {
        // A follower that is away misses nothing.
        let is_lost =
            |waiting: &&Waiting<Charge>| why != Lost::Offline || !waiting.message.followed;
        let mut lost = 0;
        for waiting in messages.iter().filter(is_lost) {
            self.out.missed(why, &Body::Shared(waiting.message.body.clone()));
            lost += 1;
        }
        if lost > 0 {
            self.out.lost(why, lost);
        }
    }
}

fn is_there(pushed: Pushed) -> bool {
    pushed != Pushed::NoLink
}

/// A message that may have to be kept, copied once at the most, and charged for once.
struct Kept<'a> {
    message: &'a Outgoing<'a>,
    shared: Option<(Bytes, Arc<Taken>)>,
}

impl Kept<'_> {
    /// The message for one more recipient, and what it takes of the room; none if there is none.
    fn keep(&mut self, room: &Arc<Room>) -> Option<(Message, Charge)> {
        if self.shared.is_none() {
            let body = &self.message.body;
            let taken = room.take_for_body(body.as_slice().len())?;
            self.shared = Some((body.to_shared(), taken));
        }
        let (body, taken) = self.shared.clone()?;
        let charge = room.take_for_recipient(taken)?;
        let Outgoing { from, followed, .. } = *self.message;
        Some((Message { from: from.clone(), followed, body }, charge))
    }
}
