//! All routes of this node, and the pushing of messages along them.
//!
//! Owns the locks, the room that waiting messages share, and the numbers of questions and fences;
//! what is done with a route, [`Route`] decides. Never asks anybody itself: what has to be asked is
//! returned as [`Need`]s, to be done when no lock is held.
//!
//! Whatever is pushed because of a route is pushed while the lock of its shard is held, so that a
//! settlement and the messages after it cannot change places. Locks, in their order: the broadcasts'
//! gate, shards (several only for reading, ascending), the set of heard nodes; then what [`RouteOut`]
//! takes. Nothing in [`RouteOut`] may call back.

use std::{
    collections::{HashMap, HashSet},
    hash::BuildHasher,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use parking_lot::{RwLock, RwLockReadGuard, RwLockWriteGuard};
use siphasher::sip::SipHasher13;
use smallvec::SmallVec;

use super::{
    Lost, Message, Outgoing, Pushed,
    route::{self, Known, Next, Place, RingView, Vouched, Waiting, Whom, coarse_seconds},
};
use crate::{
    AgentId, NodeId, SessionId,
    wire::{Body, Data, Direct, Located, Names},
};

/// How many parts the routes are locked in; one bit of a `u64` each.
const SHARDS: usize = 64;

/// How many routes are kept, in whole shards: some 150 MB of them at the most.
const ROUTES_MAX: usize = 1_000_000;

/// A route that nobody uses for so long is forgotten.
const IDLE: Duration = Duration::from_mins(10);

/// How many bytes wait in all routes together.
const WAITING_BYTES_MAX: usize = 32 << 20;

/// What a waiting message is charged beside its body, so that messages to agents that do not exist
/// are paid for with their routes: 65,536 of them at the most.
const WAITING_OVERHEAD_BYTES: usize = 512;

/// How many targets one frame has room for.
const TARGETS_MAX: usize = 256;

/// What the routes do to the rest of the node. Called with locks held: never blocks, never calls the
/// routes.
pub(super) trait RouteOut {
    /// Puts a frame onto a data lane to a peer. What finds the lane full is counted there.
    fn data(&self, to: NodeId, lane: u8, frame: &Data<'_>) -> Pushed;

    /// The number of this node's last broadcast on a lane, for [`Direct::after`].
    fn last_broadcast(&self, lane: u8) -> u64;

    /// Gives the message to the agent's session on this node; `false` if there is none.
    fn here(&self, agent: &AgentId, from: &AgentId, followed: bool, body: &Body<'_>) -> bool;

    /// Everything that waited for the agent's session on this node was given to it: from now on
    /// messages from this node may go to it directly.
    fn unfenced(&self, agent: &AgentId);

    /// So many messages to one agent each were lost.
    fn lost(&self, why: Lost, messages: u64);
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
    /// Nodes that are linked and not silent.
    heard: RwLock<HashSet<NodeId, Keyed>>,
    room: Arc<Room>,
    /// Held for reading while a broadcast finds out whom to leave out and is pushed.
    gate: RwLock<()>,
    /// Which shard is looked through for idle routes next.
    sweep: AtomicUsize,
}

struct Shard {
    known: HashMap<AgentId, Known, Keyed>,
    open: HashMap<AgentId, Route, Keyed>,
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
        let shard =
            || Shard { known: HashMap::with_hasher(hasher), open: HashMap::with_hasher(hasher) };
        Self {
            me,
            shards: Box::new(std::array::from_fn(|_| RwLock::new(shard()))),
            hasher,
            open: AtomicUsize::new(0),
            asks: AtomicU64::new(0),
            epochs: AtomicU64::new(0),
            heard: RwLock::new(HashSet::with_hasher(hasher)),
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
            let pushed =
                shard.usable(target, ring, now).map(|to| cx.push(to, message, targets, false));
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
        let mut rest = SmallVec::new();
        let mut known: SmallVec<[(NodeId, &str); 16]> = SmallVec::new();
        for &target in targets {
            let index = self.shard_of(target);
            let shard = locked.iter().find(|(i, _)| *i == index);
            match shard.and_then(|(_, shard)| shard.usable(target, ring, cx.now)) {
                Some(home) => known.push((home, target)),
                None => rest.push(target),
            }
        }
        known.sort_by_key(|(home, _)| *home);
        for group in known.chunk_by(|a, b| a.0 == b.0).flat_map(|group| group.chunks(TARGETS_MAX)) {
            let names: SmallVec<[&str; 16]> = group.iter().map(|(_, name)| *name).collect();
            let Some((home, _)) = group.first() else { continue };
            if !is_there(cx.push(*home, message, &names, false)) {
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
            return None;
        };
        let message = kept.message;
        let mut shard = self.lock(target);
        if let Some(home) = shard.usable(target, ring, cx.now) {
            if is_there(cx.push(home, message, &[target], false)) {
                return None;
            }
            // The link is gone with all that was in it; the news is on its way.
            shard.known.remove(target);
        }
        if !shard.open.contains_key(target) {
            let route = match shard.known.get(target) {
                Some(known) => Route::doubted(known.session(), self.last_ask()),
                // It may have come or been unfenced since the caller looked; later messages go there
                // directly.
                None if cx.out.here(&agent, message.from, message.followed, &message.body) => {
                    return None;
                }
                None => Route::unknown(self.last_ask()),
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
        if self.shards[index].read().open.is_empty() {
            return;
        }
        let message = kept.message;
        let mut shard = self.shards[index].write();
        let first = except.len();
        except.extend(
            shard
                .open
                .iter()
                .filter(|(agent, route)| {
                    *agent != message.from && route.holds_back(message.from.as_str(), message.lane)
                })
                .map(|(agent, _)| agent.clone()),
        );
        for agent in except.iter().skip(first) {
            self.queue(&mut shard, agent, kept, cx);
            needs.extend(self.advance(&mut shard, agent, cx));
        }
    }
}

/// Events.
impl Routes {
    /// `from` gives a message back, for agents that are not there.
    pub(super) fn bounced(
        &self,
        from: NodeId,
        lane: u8,
        direct: &Direct<'_>,
        out: &impl RouteOut,
        now: Duration,
    ) -> Needs {
        let cx = Cx { out, now };
        let Ok(sender) = direct.from.parse::<AgentId>() else {
            out.lost(Lost::Stale, direct.targets.iter().count() as u64);
            return Needs::new();
        };
        let message =
            Outgoing { from: &sender, lane, followed: direct.followed, body: direct.body.clone() };
        let mut kept = Kept { message: &message, shared: None };
        let mut needs = Needs::new();
        for target in direct.targets.iter() {
            let mut shard = self.lock(target);
            let Some(agent) = shard.agent(target) else {
                out.lost(Lost::Stale, 1);
                continue;
            };
            if let Some(session) = shard.session(target).filter(|session| session.node == from) {
                self.open(&mut shard, &agent, Route::doubted(session, self.last_ask()));
            }
            if let Err(why) =
                self.take_back(&mut shard, &agent, from, direct.resent, &mut kept, now)
            {
                out.lost(why, 1);
            }
            needs.extend(self.advance(&mut shard, &agent, &cx));
        }
        needs
    }

    /// Keeps a message that came back, unless it did so before: sent a third time, it might reach the
    /// node it first came back from, behind younger messages that met a newer session there.
    fn take_back(
        &self,
        shard: &mut Shard,
        agent: &AgentId,
        from: NodeId,
        resent: bool,
        kept: &mut Kept<'_>,
        now: Duration,
    ) -> Result<(), Lost> {
        let route = shard.open.get_mut(agent).ok_or(Lost::Stale)?;
        route.refused(from, self.next_epoch());
        if resent {
            return Err(Lost::Stale);
        }
        let waiting = self.waiting(kept, now).ok_or(Lost::RouteFull)?;
        route.bounced(from, Waiting { resent: true, ..waiting }).map_err(|(why, _)| why)
    }

    /// `from` echoes a fence, behind all that it gave back on this lane.
    pub(super) fn fenced(
        &self,
        from: NodeId,
        lane: u8,
        agent: &str,
        epoch: u64,
        out: &impl RouteOut,
        now: Duration,
    ) -> Needs {
        self.on_open(agent, &Cx { out, now }, |route| route.fenced(from, lane, epoch))
    }

    /// `from` tells that the agent's session is another now, or none. When this returns, barriers for
    /// the new session may be pushed: no broadcast that they overtake comes behind them.
    #[expect(clippy::too_many_arguments, reason = "the frame's three, and what every event has")]
    pub(super) fn moved(
        &self,
        from: NodeId,
        agent: &AgentId,
        was: Option<SessionId>,
        is: Option<SessionId>,
        ring: &impl RingView,
        out: &impl RouteOut,
        now: Duration,
    ) -> Needs {
        let cx = Cx { out, now };
        match (was, is) {
            (_, Some(session)) => {
                let vouched = Vouched::by(from, agent.as_str(), ring);
                self.found_at(agent, Place { session, vouched }, &cx).1
            }
            (Some(was), None) => self.ended(agent, was, &cx),
            (None, None) => {
                if let Some(known) = self.lock(agent.as_str()).known.get(agent) {
                    known.doubt();
                }
                Needs::new()
            }
        }
    }

    /// A session of the agent was entered on this node. `true` if messages from here must go through
    /// [`direct`](Self::direct) until [`RouteOut::unfenced`], which may be called before this returns:
    /// let the session be fenced from the beginning, and unfence it if this is `false`.
    pub(super) fn arrived_here(
        &self,
        agent: &AgentId,
        session: SessionId,
        out: &impl RouteOut,
        now: Duration,
    ) -> (bool, Needs) {
        self.found_at(agent, Place { session, vouched: None }, &Cx { out, now })
    }

    /// A session of the agent on this node is no more.
    pub(super) fn departed_here(
        &self,
        agent: &AgentId,
        session: SessionId,
        out: &impl RouteOut,
        now: Duration,
    ) -> Needs {
        self.ended(agent, session, &Cx { out, now })
    }

    /// `from` answers the question `ask`.
    #[expect(clippy::too_many_arguments, reason = "the frame's three, and what every event has")]
    pub(super) fn located(
        &self,
        from: NodeId,
        ask: u64,
        agent: &AgentId,
        place: Located,
        ring: &impl RingView,
        out: &impl RouteOut,
        now: Duration,
    ) -> Needs {
        let cx = Cx { out, now };
        let place_of =
            |session| Place { session, vouched: Vouched::by(from, agent.as_str(), ring) };
        let mut shard = self.lock(agent.as_str());
        match (shard.open.get_mut(agent), place) {
            (Some(route), Located::At(session)) => {
                route.answered(ask, place_of(session), self.next_epoch(), now);
            }
            (Some(route), Located::Nobody) => cx.lose(Lost::Offline, &route.nobody(ask)),
            (Some(route), Located::Unsettled) => route.not_known(ask),
            (None, Located::At(session)) => self.found(&mut shard, agent, place_of(session)),
            (None, _) => {}
        }
        self.advance(&mut shard, agent, &cx).into_iter().collect()
    }

    /// There is a link to the node, or it is heard of again.
    pub(super) fn heard(&self, node: NodeId, out: &impl RouteOut, now: Duration) -> Needs {
        self.heard.write().insert(node);
        self.on_all_open(&Cx { out, now }, |_| ())
    }

    /// The node is silent: routes to it are verified before they are used, and if it still is the
    /// agent's home, messages wait.
    pub(super) fn silent(&self, node: NodeId) {
        self.heard.write().remove(&node);
        for shard in self.shards.iter() {
            let shard = shard.read();
            shard.known.values().filter(|known| known.home() == node).for_each(Known::doubt);
        }
    }

    /// The link to the node is gone, with all that was in it.
    pub(super) fn link_lost(&self, node: NodeId, out: &impl RouteOut, now: Duration) -> Needs {
        self.heard.write().remove(&node);
        for shard in self.shards.iter() {
            let mut shard = shard.write();
            shard.known.retain(|_, known| {
                known.doubt_word_of(node);
                known.home() != node
            });
        }
        self.on_all_open(&Cx { out, now }, |route| route.link_lost(node))
    }

    /// The ring is another one: routes whose owner changed are verified before they are used. Those
    /// that are made meanwhile are found out when they are used.
    pub(super) fn ring_changed(&self, ring: &impl RingView) {
        for shard in self.shards.iter() {
            for (agent, known) in &shard.read().known {
                if !known.is_good(agent.as_str(), ring) {
                    known.doubt();
                }
            }
        }
    }

    /// Time passes: what waited too long is dropped, what was not answered is asked again.
    pub(super) fn tick(&self, out: &impl RouteOut, now: Duration) -> Needs {
        let cx = Cx { out, now };
        self.forget_idle(now);
        self.on_all_open(&cx, |route| cx.lose(Lost::Unresolved, &route.expire(now)))
    }

    /// Looks through one shard.
    fn forget_idle(&self, now: Duration) {
        let index = self.sweep.fetch_add(1, Ordering::Relaxed) % SHARDS;
        let Some(oldest) = now.checked_sub(IDLE).map(coarse_seconds) else { return };
        self.shards[index].write().known.retain(|_, known| known.used_s() >= oldest);
    }
}

/// What happens to one route, under its shard's lock.
impl Routes {
    /// The agent has this session; returns whether its route is open. What was pushed before may come
    /// back, so no broadcast may be under way when this returns that does not know of it.
    fn found_at(&self, agent: &AgentId, place: Place, cx: &Cx<'_, impl RouteOut>) -> (bool, Needs) {
        let mut shard = self.lock(agent.as_str());
        self.found(&mut shard, agent, place);
        let need = self.advance(&mut shard, agent, cx);
        let open = shard.open.contains_key(agent);
        drop(shard);
        drop(self.gate.write());
        (open, need.into_iter().collect())
    }

    fn found(&self, shard: &mut Shard, agent: &AgentId, place: Place) {
        match shard.known.get_mut(agent) {
            Some(known) if known.session() == place.session => {
                place.vouched.into_iter().for_each(|vouched| known.confirm(vouched));
            }
            Some(known) if known.session() < place.session => {
                let route = Route::doubted(known.session(), self.last_ask());
                self.open(shard, agent, route);
            }
            _ => {}
        }
        if let Some(route) = shard.open.get_mut(agent) {
            route.found(place, self.next_epoch());
        }
    }

    fn ended(&self, agent: &AgentId, was: SessionId, cx: &Cx<'_, impl RouteOut>) -> Needs {
        let mut shard = self.lock(agent.as_str());
        if let Some(session) = shard.session(agent.as_str()).filter(|session| *session <= was) {
            self.open(&mut shard, agent, Route::doubted(session, self.last_ask()));
        }
        if let Some(route) = shard.open.get_mut(agent) {
            route.ended(was, self.last_ask(), self.next_epoch());
        }
        self.advance(&mut shard, agent, cx).into_iter().collect()
    }

    fn on_open(
        &self,
        agent: &str,
        cx: &Cx<'_, impl RouteOut>,
        event: impl FnOnce(&mut Route),
    ) -> Needs {
        let mut shard = self.lock(agent);
        let Some((agent, _)) = shard.open.get_key_value(agent) else { return Needs::new() };
        let agent = agent.clone();
        if let Some(route) = shard.open.get_mut(&agent) {
            event(route);
        }
        self.advance(&mut shard, &agent, cx).into_iter().collect()
    }

    fn on_all_open(&self, cx: &Cx<'_, impl RouteOut>, event: impl Fn(&mut Route)) -> Needs {
        let mut needs = Needs::new();
        for shard in self.shards.iter() {
            if shard.read().open.is_empty() {
                continue;
            }
            let mut shard = shard.write();
            let agents: Vec<_> = shard.open.keys().cloned().collect();
            for agent in agents {
                if let Some(route) = shard.open.get_mut(&agent) {
                    event(route);
                }
                needs.extend(self.advance(&mut shard, &agent, cx));
            }
        }
        needs
    }

    /// Puts an open route in the place of what was there.
    fn open(&self, shard: &mut Shard, agent: &AgentId, route: Route) {
        shard.known.remove(agent);
        if shard.open.insert(agent.clone(), route).is_none() {
            self.open.fetch_add(1, Ordering::Release);
        }
    }

    fn close(&self, shard: &mut Shard, agent: &AgentId) -> Option<Route> {
        let route = shard.open.remove(agent)?;
        self.open.fetch_sub(1, Ordering::Release);
        Some(route)
    }

    /// Does what is due on an open route.
    fn advance(
        &self,
        shard: &mut Shard,
        agent: &AgentId,
        cx: &Cx<'_, impl RouteOut>,
    ) -> Option<Need> {
        let route = shard.open.get_mut(agent)?;
        route.push_fences(|node, lane, epoch| {
            cx.out.data(node, lane, &Data::Fence { agent: agent.as_str(), epoch })
        });
        match route.next(cx.now, |node| node == self.me || self.heard.read().contains(&node)) {
            Next::Stay => None,
            Next::Forget => {
                self.close(shard, agent);
                None
            }
            Next::Settle(place) => {
                let route = self.close(shard, agent)?;
                self.settle(shard, agent, route, place, cx);
                None
            }
            Next::Ask => {
                let ask = self.asks.fetch_add(1, Ordering::Relaxed) + 1;
                Some(Need { ask, agent: agent.clone(), whom: route.ask(ask, cx.now) })
            }
        }
    }

    fn settle(
        &self,
        shard: &mut Shard,
        agent: &AgentId,
        route: Route,
        place: Place,
        cx: &Cx<'_, impl RouteOut>,
    ) {
        let home = place.session.node;
        let is_empty = route.is_empty();
        let (messages, stale) = route.settle(home);
        if stale > 0 {
            cx.out.lost(Lost::Stale, stale as u64);
        }
        for Waiting { message, lane, resent, .. } in messages {
            let Message { from, followed, body } = message;
            let body = Body::Shared(body);
            if home == self.me {
                if !cx.out.here(agent, &from, followed, &body) {
                    cx.out.lost(Lost::Offline, 1);
                }
            } else {
                let message = Outgoing { from: &from, lane, followed, body };
                if !is_there(cx.push(home, &message, &[agent.as_str()], resent)) {
                    cx.out.lost(Lost::LinkLost, 1);
                }
            }
        }
        if home == self.me {
            cx.out.unfenced(agent);
        } else if let Some(vouched) = place.vouched {
            shard.make_room();
            shard.known.insert(agent.clone(), Known::new(place.session, vouched, cx.now));
        } else if !is_empty {
            let epoch = self.next_epoch();
            self.open(shard, agent, Route::unvouched(place.session, self.last_ask(), epoch));
            self.advance(shard, agent, cx);
        }
    }

    fn queue(
        &self,
        shard: &mut Shard,
        agent: &AgentId,
        kept: &mut Kept<'_>,
        cx: &Cx<'_, impl RouteOut>,
    ) {
        let Some(route) = shard.open.get_mut(agent) else { return };
        let waiting = self.waiting(kept, cx.now);
        if waiting.is_none_or(|waiting| route.queue(waiting).is_err()) {
            cx.out.lost(Lost::RouteFull, 1);
        }
    }

    /// The message as it waits; none if there is no room.
    fn waiting(&self, kept: &mut Kept<'_>, now: Duration) -> Option<Waiting<Charge>> {
        let bytes = kept.message.body.as_slice().len() + WAITING_OVERHEAD_BYTES;
        Some(Waiting {
            charge: self.room.take(bytes)?,
            message: kept.keep(),
            lane: kept.message.lane,
            resent: false,
            after_ask: self.last_ask(),
            since: now,
        })
    }

    fn last_ask(&self) -> u64 {
        self.asks.load(Ordering::Relaxed)
    }

    fn next_epoch(&self) -> u64 {
        self.epochs.fetch_add(1, Ordering::Relaxed) + 1
    }

    fn lock(&self, agent: &str) -> RwLockWriteGuard<'_, Shard> {
        self.shards[self.shard_of(agent)].write()
    }

    /// From bits that the maps in a shard make no use of to place an agent.
    fn shard_of(&self, agent: &str) -> usize {
        (self.hasher.hash_one(agent) >> 32) as usize % SHARDS
    }
}

impl Shard {
    /// The home to which messages for the agent may be pushed now.
    fn usable(&self, agent: &str, ring: &impl RingView, now: Duration) -> Option<NodeId> {
        let known = self.known.get(agent).filter(|known| known.is_good(agent, ring))?;
        known.touch(now);
        Some(known.home())
    }

    fn session(&self, agent: &str) -> Option<SessionId> {
        self.known.get(agent).map(Known::session)
    }

    /// The agent's id, if there is a route to it.
    fn agent(&self, agent: &str) -> Option<AgentId> {
        let known = self.known.get_key_value(agent).map(|(agent, _)| agent);
        known.or_else(|| Some(self.open.get_key_value(agent)?.0)).cloned()
    }

    /// Forgets one of the routes if there are too many: the one of a few that was idle longest.
    fn make_room(&mut self) {
        if self.known.len() >= ROUTES_MAX / SHARDS {
            let few = self.known.iter().take(8);
            let idle = few.min_by_key(|(_, known)| known.used_s()).map(|(agent, _)| agent.clone());
            idle.and_then(|agent| self.known.remove(&agent));
        }
    }
}

impl<O: RouteOut> Cx<'_, O> {
    fn push(&self, home: NodeId, message: &Outgoing<'_>, targets: &[&str], resent: bool) -> Pushed {
        let frame = Data::Direct(Direct {
            after: self.out.last_broadcast(message.lane),
            followed: message.followed,
            resent,
            from: message.from.as_str(),
            targets: Names::List(targets),
            body: message.body.clone(),
        });
        self.out.data(home, message.lane, &frame)
    }

    fn lose(&self, why: Lost, messages: &[Waiting<Charge>]) {
        if !messages.is_empty() {
            self.out.lost(why, messages.len() as u64);
        }
    }
}

fn is_there(pushed: Pushed) -> bool {
    pushed != Pushed::NoLink
}

/// A message that may have to be kept, copied once at the most.
struct Kept<'a> {
    message: &'a Outgoing<'a>,
    shared: Option<Bytes>,
}

impl Kept<'_> {
    fn keep(&mut self) -> Message {
        let body = self.shared.get_or_insert_with(|| self.message.body.to_shared());
        Message {
            from: self.message.from.clone(),
            followed: self.message.followed,
            body: body.clone(),
        }
    }
}

/// The room that waiting messages share, in bytes taken.
#[derive(Debug, Default)]
struct Room(AtomicUsize);

/// Bytes taken of the [`Room`], given back when dropped.
#[derive(Debug)]
struct Charge {
    room: Arc<Room>,
    bytes: usize,
}

impl Room {
    fn take(self: &Arc<Self>, bytes: usize) -> Option<Charge> {
        let taken = |used: usize| used.checked_add(bytes).filter(|sum| *sum <= WAITING_BYTES_MAX);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, taken).ok()?;
        Some(Charge { room: self.clone(), bytes })
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.room.0.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// Hashes by a secret that is the node's own: agents cannot choose ids that collide, and one node's
/// maps are in the same order in every run.
#[derive(Clone, Copy, Debug)]
struct Keyed(u64);

impl BuildHasher for Keyed {
    type Hasher = SipHasher13;

    fn build_hasher(&self) -> SipHasher13 {
        SipHasher13::new_with_keys(self.0, 0)
    }
}

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
