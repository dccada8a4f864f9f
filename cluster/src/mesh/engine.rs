//! The engine: turns events into the calls of those that decide, and does what they ask for.
//!
//! Owns the locks. In their order: the receptions of a lane, the core, what [`Routes`] locks, the
//! broadcasts of a lane (pushed through the routes' gate), whom broadcasts pass by, and then what
//! [`Outlet`] and [`Deliver`] take. Decides nothing itself.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use parking_lot::{Mutex, RwLock};
use smallvec::SmallVec;

use super::{
    Batch, Deliver, Home, Lost, Outgoing, Outlet, Pushed,
    action::Action,
    behind::Behind,
    broadcast::{Reception, Sent, Verdict, gateway},
    clock::MeshTime,
    directory::{self, Directory},
    parking::Parking,
    presence::{self, Presence},
    ring::Rings,
    route::{RingView, Whom},
    routes::{Need, Needs, RouteOut, Routes},
};
use crate::{
    AgentId, Incarnation, NodeId, SessionId, UnixMillis,
    link::Frames,
    membership::Member,
    wire::{Body, Broadcast, Control, Data, Direct, LANES, Located, Names, Relayed, Spent},
};

/// The mesh as one node sees it. All methods may be called from any thread; none blocks for long.
pub struct Mesh {
    home: Home,
    outlet: Arc<dyn Outlet>,
    deliver: Arc<dyn Deliver>,
    time: Mutex<MeshTime>,
    core: Mutex<Core>,
    /// What senders need of the rings.
    near: ArcSwap<NearRing>,
    lanes: [Mutex<Lane>; LANES],
    routes: Routes,
    behind: Behind,
    peers: ArcSwap<HashMap<NodeId, Arc<Peer>>>,
    /// For each origin of another region, what came of its broadcasts.
    receptions: RwLock<HashMap<Incarnation, Arc<Receptions>>>,
}

/// Who is where, as far as this node has a say in it.
struct Core {
    rings: Rings,
    directory: Directory,
    presence: Presence,
    parking: Parking,
}

/// The ring of this node's region.
struct NearRing {
    rings: Rings,
    region: String,
    version: u64,
}

/// This node's broadcasts on one lane, and to whom they go.
#[derive(Default)]
struct Lane {
    sent: Sent,
    /// The linked nodes of this region.
    near: Vec<Arc<Peer>>,
    /// Those of the others.
    far: BTreeMap<String, Vec<Arc<Peer>>>,
}

/// A linked node.
#[derive(Debug)]
struct Peer {
    home: Home,
    suspect: AtomicBool,
}

type Receptions = [Mutex<Reception>; LANES];

/// What an event is handled with.
#[derive(Clone, Copy)]
struct Out<'m> {
    mesh: &'m Mesh,
}

impl Mesh {
    /// An engine that knows no other node.
    pub fn new(home: Home, outlet: Arc<dyn Outlet>, deliver: Arc<dyn Deliver>) -> Self {
        let core = Core {
            rings: Rings::default(),
            directory: Directory::new(&home),
            presence: Presence::new(&home),
            parking: Parking::new(home.me.node),
        };
        Self {
            outlet,
            deliver,
            time: Mutex::default(),
            core: Mutex::new(core),
            near: ArcSwap::from_pointee(NearRing::new(&Rings::default(), &home.region)),
            lanes: std::array::from_fn(|_| Mutex::default()),
            routes: Routes::new(home.me.node),
            behind: Behind::default(),
            peers: ArcSwap::default(),
            receptions: RwLock::default(),
            home,
        }
    }

    /// This node.
    pub fn home(&self) -> &Home {
        &self.home
    }

    /// The id of a session that opens now, at `wall`: higher than all that this node knows of.
    pub fn next_session(&self, wall: UnixMillis) -> SessionId {
        self.time.lock().next_session(wall, self.home.me.node)
    }

    /// Mesh time when the wall clock says `wall`.
    pub fn time(&self, wall: UnixMillis) -> UnixMillis {
        self.time.lock().now(wall)
    }

    /// A peer's mesh time was `remote` when it sent what came just now.
    pub fn learn_time(&self, wall: UnixMillis, remote: UnixMillis) {
        self.time.lock().learn(wall, remote);
    }

    /// The rings over the nodes that own presence records.
    pub fn rings(&self) -> Rings {
        self.core.lock().rings.clone()
    }

    /// How much the node owns and publishes, for metrics.
    pub fn counts(&self) -> (directory::Counts, presence::Counts) {
        let core = self.core.lock();
        (core.directory.counts(), core.presence.counts())
    }
}

/// What this node's own sessions do.
impl Mesh {
    /// A session was entered on this node, held and fenced. [`Deliver::admitted`] follows, perhaps
    /// before this returns. `true` if messages to it from here must go through
    /// [`direct`](Self::direct) until [`Deliver::unfenced`], which may have been called already;
    /// otherwise the caller unfences it.
    pub fn opened(&self, agent: &AgentId, session: SessionId, now: Duration) -> bool {
        let mut core = self.core.lock();
        let (fenced, needs) = self.routes.arrived_here(agent, session, &self.out(), now);
        let mut actions = core.presence.opened(agent, session, now);
        if let Some(to) = core.rings.global_owner(agent.as_str()) {
            let frame = Control::Unpark { agent: agent.clone(), session };
            actions.push(Action::Send { to, frame });
        }
        self.perform(&mut core, actions, now);
        drop(core);
        self.ask(needs, now);
        fenced
    }

    /// A session of this node is no more; `spent` is its agent's limit if no other session of it is
    /// here.
    pub fn closed(&self, agent: &AgentId, session: SessionId, spent: Option<Spent>, now: Duration) {
        let mut core = self.core.lock();
        self.behind.ended(agent, session);
        let mut actions = core.presence.closed(agent, session);
        let owner = core.rings.global_owner(agent.as_str());
        if let (Some(spent), Some(to)) = (spent, owner) {
            let frame = Control::Park { agent: agent.clone(), session, spent };
            actions.push(Action::Send { to, frame });
        }
        let needs = self.routes.departed_here(agent, session, &self.out(), now);
        self.perform(&mut core, actions, now);
        drop(core);
        self.ask(needs, now);
    }

    /// Sends a message to agents, each named once, that have no session here, or a fenced one.
    pub fn direct(&self, message: &Outgoing<'_>, targets: &[&str], now: Duration) {
        let near = self.near.load();
        let needs = self.routes.direct(message, targets, &**near, &self.out(), now);
        drop(near);
        self.ask(needs, now);
    }

    /// Sends a message to the agents of all other nodes. Returns agents of **this** node that must
    /// not get it from the caller, since it waits for them here.
    pub fn broadcast(&self, message: &Outgoing<'_>, now: Duration) -> Vec<AgentId> {
        let Some(lane) = self.lanes.get(usize::from(message.lane)) else { return Vec::new() };
        let push = |except: &[AgentId]| {
            let except: SmallVec<[&str; 8]> = except.iter().map(AgentId::as_str).collect();
            let mut lane = lane.lock();
            let broadcast = Broadcast {
                seq: lane.sent.next_number(),
                from: message.from.as_str(),
                except: Names::List(&except),
                body: message.body.clone(),
            };
            if !lane.far.is_empty() {
                lane.sent.retain(&broadcast, now);
            }
            self.send_broadcast(&lane, message.lane, broadcast);
        };
        let (except, needs) = self.routes.broadcast(message, &self.out(), now, push);
        self.ask(needs, now);
        except
    }

    /// To each node of this region, and to one of every other, which passes it on there; the others
    /// learn on their own lane which place it has.
    fn send_broadcast(&self, lane: &Lane, number: u8, broadcast: Broadcast<'_>) {
        let out = self.out();
        let place = Data::Start { seq: broadcast.seq };
        let frame = Data::Broadcast(broadcast);
        for peer in &lane.near {
            out.counted(peer.node(), number, &frame);
        }
        for peers in lane.far.values() {
            let chosen = self.gateway_of(peers);
            for peer in peers {
                let frame = if Some(peer.node()) == chosen { &frame } else { &place };
                out.counted(peer.node(), number, frame);
            }
        }
    }

    fn gateway_of(&self, peers: &[Arc<Peer>]) -> Option<NodeId> {
        let heard = |node| peers.iter().any(|peer| peer.node() == node && !peer.is_suspect());
        let nodes = || peers.iter().map(|peer| peer.node());
        let me = self.home.me.node;
        gateway(me, nodes(), heard).or_else(|| gateway(me, nodes(), |_| true))
    }
}

/// Links and members.
impl Mesh {
    /// A link is there: frames to and from the peer from now on belong to it.
    pub fn link_up(&self, peer: &Home, now: Duration) {
        let node = peer.me.node;
        let known = Arc::new(Peer { home: peer.clone(), suspect: AtomicBool::new(false) });
        {
            let _one_at_a_time = self.core.lock();
            self.change_peers(|peers| {
                peers.insert(node, Arc::clone(&known));
            });
        }
        if peer.region != self.home.region {
            for reception in &*self.receptions_of(peer.me) {
                reception.lock().link_up();
            }
        }
        let mut core = self.core.lock();
        for (number, lane) in (0..).zip(&self.lanes) {
            let mut lane = lane.lock();
            self.out().counted(node, number, &Data::Start { seq: lane.sent.last() });
            if peer.region == self.home.region {
                lane.near.push(Arc::clone(&known));
            } else {
                lane.far.entry(peer.region.clone()).or_default().push(Arc::clone(&known));
            }
        }
        core.directory.link_up(peer.me, now);
        let actions = core.presence.link_up(peer);
        let needs = self.routes.heard(node, &self.out(), now);
        self.perform(&mut core, actions, now);
        drop(core);
        self.ask(needs, now);
    }

    /// The link is gone, with all that was in it.
    pub fn link_down(&self, peer: Incarnation, now: Duration) {
        let node = peer.node;
        let mut core = self.core.lock();
        self.change_peers(|peers| {
            peers.remove(&node);
        });
        for lane in &self.lanes {
            let mut lane = lane.lock();
            lane.near.retain(|peer| peer.node() != node);
            lane.far.retain(|_, peers| {
                peers.retain(|peer| peer.node() != node);
                !peers.is_empty()
            });
        }
        self.behind.link_lost(node);
        core.directory.link_down(peer);
        let actions = core.presence.link_down(node, now);
        let needs = self.routes.link_lost(node, &self.out(), now);
        self.perform(&mut core, actions, now);
        drop(core);
        self.ask(needs, now);
        let receptions = self.receptions.read().get(&peer).cloned();
        for (number, reception) in (0..).zip(receptions.iter().flat_map(|all| all.iter())) {
            let mut reception = reception.lock();
            reception.link_lost();
            self.release(node, number, &mut reception, &mut *self.deliver.batch(), now);
        }
    }

    /// Nothing was heard on the link for a while, or something was again.
    pub fn link_suspect(&self, peer: NodeId, suspect: bool, now: Duration) {
        let mut core = self.core.lock();
        // Whoever watches the links may tell of one that is gone by now.
        let Some(known) = self.peers.load().get(&peer).cloned() else { return };
        known.suspect.store(suspect, Ordering::Relaxed);
        let needs = if suspect {
            self.routes.silent(peer, &self.out(), now)
        } else {
            self.routes.heard(peer, &self.out(), now)
        };
        core.directory.link_suspect(peer, suspect);
        let actions = core.presence.link_suspect(peer, suspect, now);
        self.perform(&mut core, actions, now);
        drop(core);
        self.ask(needs, now);
    }

    /// The members, this node among them, as gossip knows them now.
    pub fn members(&self, members: &[Member], now: Duration) {
        let mut core = self.core.lock();
        if let Some(rings) = core.rings.changed(members, now) {
            core.rings = rings.clone();
            self.near.store(Arc::new(NearRing::new(&rings, &self.home.region)));
            core.directory.members(members, rings.clone());
            let mut actions = core.parking.ring_changed(rings.clone(), now);
            actions.extend(core.presence.ring_changed(rings));
            self.routes.ring_changed(&**self.near.load());
            self.perform(&mut core, actions, now);
        } else {
            let rings = core.rings.clone();
            core.directory.members(members, rings);
        }
        drop(core);
        let mut receptions = self.receptions.write();
        let peers = self.peers.load();
        let lives = |origin: &Incarnation| {
            members.iter().any(|member| member.incarnation == *origin && member.state.lives())
                || peers.get(&origin.node).is_some_and(|peer| peer.home.me == *origin)
        };
        receptions.retain(|origin, _| lives(origin));
    }

    fn change_peers(&self, change: impl FnOnce(&mut HashMap<NodeId, Arc<Peer>>)) {
        // Under the core's lock: no two changes at once.
        let mut peers = HashMap::clone(&self.peers.load());
        change(&mut peers);
        self.peers.store(Arc::new(peers));
    }
}

/// What comes from peers, and time.
impl Mesh {
    /// A frame came on the control lane of a peer. `Ping`, `Pong`, `Ask`, `Answer`, `Tell` and
    /// `Leaving` are the caller's own.
    pub fn control(&self, from: NodeId, frame: Control, now: Duration) {
        if let Control::Resend { lane, from: first, to } = frame {
            return self.resend(from, lane, first, to);
        }
        let mut core = self.core.lock();
        let (actions, needs) = self.handle(&mut core, from, frame, now);
        self.perform(&mut core, actions, now);
        drop(core);
        self.ask(needs, now);
    }

    /// The peer's last broadcasts per lane, as its ping says.
    pub fn heard(&self, from: NodeId, broadcasts: &[u64; LANES], now: Duration) {
        let Some(origin) = self.far_origin(from) else { return };
        for (reception, last) in self.receptions_of(origin).iter().zip(broadcasts) {
            reception.lock().pinged(*last, now);
        }
    }

    /// This node's last broadcasts per lane, for its pings.
    pub fn broadcasts(&self) -> [u64; LANES] {
        std::array::from_fn(|lane| self.lanes[lane].lock().sent.last())
    }

    /// Frames came together on a data lane of a peer.
    pub fn chunk(&self, from: NodeId, lane: u8, frames: &mut Frames<'_>, now: Duration) {
        let mut batch = self.deliver.batch();
        // What is no frame ends the link, which sees to that itself.
        let _ = frames.for_each(|frame| self.data(from, lane, &frame, &mut *batch, now));
    }

    /// A frame came on a data lane of a peer; `batch` is what [`Deliver::batch`] gave.
    pub fn data(
        &self,
        from: NodeId,
        lane: u8,
        frame: &Data<'_>,
        batch: &mut dyn Batch,
        now: Duration,
    ) {
        if let Data::Relayed(relayed) = frame {
            return self.relayed(relayed, batch, now);
        }
        let Some(origin) = self.far_origin(from) else {
            return self.take(from, lane, frame, batch, now);
        };
        let receptions = self.receptions_of(origin);
        let Some(reception) = receptions.get(usize::from(lane)) else { return };
        let mut reception = reception.lock();
        let verdict = match frame {
            Data::Start { seq } => {
                reception.start(*seq, now);
                Verdict::Seen
            }
            Data::Broadcast(broadcast) => {
                if reception.passes_on(broadcast.seq) {
                    self.pass_on(origin, lane, broadcast);
                }
                reception.broadcast(broadcast, now)
            }
            other => reception.follow(other),
        };
        if verdict == Verdict::Deliver {
            self.take(from, lane, frame, batch, now);
        }
        self.release(from, lane, &mut reception, batch, now);
    }

    /// Time passes; called every 50 ms or so.
    pub fn tick(&self, now: Duration) {
        let mut core = self.core.lock();
        let mut actions = core.directory.tick(now);
        actions.extend(core.presence.tick(now));
        core.parking.tick(now);
        self.perform(&mut core, actions, now);
        drop(core);
        let needs = self.routes.tick(&self.out(), now);
        self.ask(needs, now);
        for lane in &self.lanes {
            lane.lock().sent.expire(now);
        }
        let all: Vec<_> = {
            let receptions = self.receptions.read();
            receptions.iter().map(|(origin, all)| (origin.node, Arc::clone(all))).collect()
        };
        for (origin, receptions) in all {
            self.poll(origin, &receptions, now);
        }
    }

    /// Asks an origin for what is missing, and goes on without what does not come.
    fn poll(&self, origin: NodeId, receptions: &Receptions, now: Duration) {
        for (lane, reception) in (0..).zip(receptions) {
            let mut reception = reception.lock();
            if let Some(missing) = reception.poll(now) {
                let frame = Control::Resend { lane, from: missing.from, to: missing.to };
                self.outlet.control(origin, &frame);
            }
            let missed = reception.take_missed();
            if missed > 0 {
                self.deliver.lost(Lost::LinkLost, missed);
            }
            self.release(origin, lane, &mut reception, &mut *self.deliver.batch(), now);
        }
    }

    fn relayed(&self, relayed: &Relayed<'_>, batch: &mut dyn Batch, now: Duration) {
        let origin = relayed.origin;
        let receptions = self.receptions_of(origin);
        let Some(reception) = receptions.get(usize::from(relayed.lane)) else { return };
        let mut reception = reception.lock();
        if reception.relayed(&relayed.broadcast, now) == Verdict::Deliver {
            self.take_broadcast(origin.node, relayed.lane, &relayed.broadcast, batch);
        }
        self.release(origin.node, relayed.lane, &mut reception, batch, now);
    }

    /// A gateway's task: the others of its region get what it got.
    fn pass_on(&self, origin: Incarnation, number: u8, broadcast: &Broadcast<'_>) {
        let Some(lane) = self.lanes.get(usize::from(number)) else { return };
        let broadcast = broadcast.clone();
        let frame = Data::Relayed(Relayed { origin, lane: number, broadcast });
        for peer in &lane.lock().near {
            self.out().counted(peer.node(), number, &frame);
        }
    }

    fn release(
        &self,
        from: NodeId,
        lane: u8,
        reception: &mut Reception,
        batch: &mut dyn Batch,
        now: Duration,
    ) {
        while let Some(kept) = reception.released() {
            self.take(from, lane, &kept.frame(), batch, now);
        }
    }

    /// A frame of a data lane, in its place.
    fn take(&self, from: NodeId, lane: u8, frame: &Data<'_>, batch: &mut dyn Batch, now: Duration) {
        let out = self.out();
        match frame {
            Data::Direct(direct) => self.take_direct(from, lane, direct, batch),
            Data::Broadcast(broadcast) => self.take_broadcast(from, lane, broadcast, batch),
            Data::Bounced(direct) => {
                let needs = self.routes.bounced(from, lane, direct, &out, now);
                self.ask(needs, now);
            }
            Data::Fence { agent, epoch } => {
                out.counted(from, lane, &Data::Fenced { agent, epoch: *epoch });
            }
            Data::Fenced { agent, epoch } => {
                let needs = self.routes.fenced(from, lane, agent, *epoch, &out, now);
                self.ask(needs, now);
            }
            Data::Barrier { agent, session } => {
                let mut core = self.core.lock();
                self.behind.barrier(from, lane, agent, *session);
                let actions = core.presence.barrier(from, lane, agent, *session, now);
                self.perform(&mut core, actions, now);
            }
            Data::Start { .. } | Data::Relayed(_) => {}
        }
    }

    fn take_broadcast(
        &self,
        origin: NodeId,
        lane: u8,
        broadcast: &Broadcast<'_>,
        batch: &mut dyn Batch,
    ) {
        self.behind.except(origin, lane, broadcast.except, |except| {
            batch.broadcast(broadcast.from, except, &broadcast.body);
        });
    }

    fn take_direct(&self, from: NodeId, lane: u8, direct: &Direct<'_>, batch: &mut dyn Batch) {
        let mut missing: SmallVec<[&str; 4]> = SmallVec::new();
        for agent in direct.targets.iter() {
            if !batch.direct(agent, &direct.body, direct.followed) {
                missing.push(agent);
            }
        }
        if !missing.is_empty() {
            let back = Direct { targets: Names::List(&missing), ..direct.clone() };
            let lost = match self.outlet.data(from, lane, &Data::Bounced(back)) {
                Pushed::Queued => return,
                Pushed::Full => Lost::LinkFull,
                Pushed::NoLink => Lost::LinkLost,
            };
            self.deliver.lost(lost, missing.len() as u64);
        }
    }

    /// The peer's present life, if it is of another region, so that its lanes need a reception.
    fn far_origin(&self, node: NodeId) -> Option<Incarnation> {
        let peers = self.peers.load();
        let peer = peers.get(&node)?;
        (peer.home.region != self.home.region).then_some(peer.home.me)
    }

    fn receptions_of(&self, origin: Incarnation) -> Arc<Receptions> {
        if let Some(known) = self.receptions.read().get(&origin) {
            return Arc::clone(known);
        }
        let fresh = || Arc::new(std::array::from_fn(|_| Mutex::default()));
        Arc::clone(self.receptions.write().entry(origin).or_insert_with(fresh))
    }
}

/// What the deciding parts ask for.
impl Mesh {
    fn out(&self) -> Out<'_> {
        Out { mesh: self }
    }

    /// Does what is asked, and what comes of it here, in order.
    fn perform(&self, core: &mut Core, actions: Vec<Action>, now: Duration) {
        let mut actions = VecDeque::from(actions);
        let mut needs = Needs::new();
        while let Some(action) = actions.pop_front() {
            match action {
                Action::Send { to, frame } if to == self.home.me.node => {
                    let (more, asked) = self.handle(core, to, frame, now);
                    actions.extend(more);
                    needs.extend(asked);
                }
                Action::Send { to, frame } => {
                    self.outlet.control(to, &frame);
                }
                of_session => self.tell_session(&of_session),
            }
            if actions.is_empty() {
                for need in std::mem::take(&mut needs) {
                    let (more, asked) = self.ask_one(core, need, now);
                    actions.extend(more);
                    needs.extend(asked);
                }
            }
        }
    }

    fn tell_session(&self, action: &Action) {
        match action {
            Action::PassBy { agent, session, node, heard } => {
                self.behind.add(agent, *session, *node, *heard);
            }
            Action::Admit { agent, session } => self.deliver.admitted(agent, *session),
            Action::Outdone { agent, session, by } => {
                self.behind.ended(agent, *session);
                self.deliver.replaced(agent, *by);
            }
            Action::Send { .. } => {}
        }
    }

    /// A frame that says something of sessions and routes, a peer's or this node's own.
    fn handle(
        &self,
        core: &mut Core,
        from: NodeId,
        frame: Control,
        now: Duration,
    ) -> (Vec<Action>, Needs) {
        let actions = match frame {
            Control::Publish { agent, session, arrival } => {
                core.directory.publish(from, &agent, session, arrival, now)
            }
            Control::Published { agent, session, outcome } => {
                core.presence.published(from, &agent, session, outcome, now)
            }
            Control::Withdraw { agent, session } if session.node == from => {
                core.directory.withdraw(&agent, session)
            }
            Control::Synced { ring } => core.directory.synced(from, ring),
            Control::Lookup { ask, agent, home_only } => {
                let place = core.locate(from, &agent, home_only);
                let frame = Control::Located { ask, agent, place };
                vec![Action::Send { to: from, frame }]
            }
            Control::Located { ask, agent, place } => {
                let (near, out) = (self.near.load(), self.out());
                let needs = self.routes.located(from, ask, &agent, place, &**near, &out, now);
                return (Vec::new(), needs);
            }
            Control::Moved { agent, was, now: is } => {
                return self.moved(core, from, &agent, was, is, now);
            }
            Control::Park { agent, session, spent } => {
                core.parking.park(&agent, session, spent, now)
            }
            Control::Unpark { agent, session } => core.parking.unpark(&agent, session, now),
            Control::Spent { agent, session, spent } => {
                self.spent(core, agent, session, spent).into_iter().collect()
            }
            _ => Vec::new(),
        };
        (actions, Needs::new())
    }

    /// The agent is elsewhere. Its new home waits for the barriers.
    fn moved(
        &self,
        core: &mut Core,
        from: NodeId,
        agent: &AgentId,
        was: Option<SessionId>,
        is: Option<SessionId>,
        now: Duration,
    ) -> (Vec<Action>, Needs) {
        let mut learned = core.directory.moved(agent, was, is, now);
        if let Some(session) = is {
            for action in core.presence.outdone(agent, session) {
                self.tell_session(&action);
            }
            learned.extend(self.stand_in(core, from, agent, was, session));
        }
        let (near, out) = (self.near.load(), self.out());
        let needs = self.routes.moved(from, agent, was, is, &**near, &out, now);
        if let Some(session) = is.filter(|session| session.node != self.home.me.node) {
            let barrier = Data::Barrier { agent: agent.as_str(), session };
            for number in 0..u8::try_from(LANES).unwrap_or(u8::MAX) {
                // Without a link nobody waits for it.
                self.outlet.data(session.node, number, &barrier);
            }
        }
        (learned, needs)
    }

    /// A home that tells others itself does not reach the agent's owner: whoever does passes it on, and
    /// asks that owner about the agent only behind it.
    fn stand_in(
        &self,
        core: &Core,
        from: NodeId,
        agent: &AgentId,
        was: Option<SessionId>,
        session: SessionId,
    ) -> Option<Action> {
        let owner = core.rings.owner(&self.home.region, agent.as_str())?;
        if from != session.node || [from, self.home.me.node].contains(&owner) {
            return None;
        }
        let frame = Control::Moved { agent: agent.clone(), was, now: Some(session) };
        Some(Action::Send { to: owner, frame })
    }

    /// What the agent has spent goes on with its session here. If that has ended meanwhile, it is
    /// given back: the next session takes it.
    fn spent(
        &self,
        core: &Core,
        agent: AgentId,
        session: SessionId,
        spent: Spent,
    ) -> Option<Action> {
        if core.presence.session_of(agent.as_str()).is_some() {
            self.deliver.spent(&agent, spent);
            return None;
        }
        let to = core.rings.global_owner(agent.as_str())?;
        Some(Action::Send { to, frame: Control::Park { agent, session, spent } })
    }

    fn resend(&self, to: NodeId, number: u8, first: u64, last: u64) {
        let Some(lane) = self.lanes.get(usize::from(number)) else { return };
        for broadcast in lane.lock().sent.resend(first, last) {
            self.out().counted(to, number, &Data::Broadcast(broadcast));
        }
    }

    /// Asks what routes need to know. Called without any lock.
    fn ask(&self, needs: Needs, now: Duration) {
        if needs.is_empty() {
            return;
        }
        let mut core = self.core.lock();
        let mut needs = needs;
        while !needs.is_empty() {
            for need in std::mem::take(&mut needs) {
                let (actions, more) = self.ask_one(&mut core, need, now);
                needs.extend(more);
                self.perform(&mut core, actions, now);
            }
        }
    }

    /// Sends a question, or answers it if this node is the one to ask.
    fn ask_one(&self, core: &mut Core, need: Need, now: Duration) -> (Vec<Action>, Needs) {
        let Need { ask, agent, whom } = need;
        let me = self.home.me.node;
        let owner = core.rings.owner(&self.home.region, agent.as_str());
        let former = core.rings.former_owner(&self.home.region, agent.as_str());
        let former = former.filter(|former| Some(*former) != owner);
        let lookup = |home_only| Control::Lookup { ask, agent: agent.clone(), home_only };
        let reached = match (whom, owner, former) {
            (Whom::Owner, Some(owner), _) if owner == me => {
                let place = core.locate(me, &agent, false);
                let frame = Control::Located { ask, agent, place };
                return self.handle(core, me, frame, now);
            }
            (Whom::Owner, Some(owner), _) => self.outlet.control(owner, &lookup(false)),
            (Whom::Owner, None, _) => false,
            (Whom::Former, _, Some(former)) if former != me => {
                self.outlet.control(former, &lookup(true))
            }
            (Whom::Former | Whom::All, _, _) => {
                let peers = self.peers.load();
                let asked = peers.keys().filter(|peer| self.outlet.control(**peer, &lookup(true)));
                asked.count() > 0
            }
        };
        if reached {
            return (Vec::new(), Needs::new());
        }
        let frame = Control::Located { ask, agent, place: Located::Unsettled };
        self.handle(core, me, frame, now)
    }
}

impl Core {
    fn locate(&mut self, asker: NodeId, agent: &AgentId, home_only: bool) -> Located {
        let recorded = self.directory.lookup(asker, agent.as_str(), home_only);
        match (self.presence.session_of(agent.as_str()), recorded) {
            (Some(own), Located::At(recorded)) if home_only => Located::At(own.max(recorded)),
            (Some(own), _) if home_only => Located::At(own),
            (_, recorded) => recorded,
        }
    }
}

impl Out<'_> {
    /// Pushes a frame for which nobody looks whether it found room.
    fn counted(self, to: NodeId, lane: u8, frame: &Data<'_>) {
        let carries = matches!(frame, Data::Broadcast(_) | Data::Relayed(_));
        match self.mesh.outlet.data(to, lane, frame) {
            Pushed::Full if carries => self.mesh.deliver.lost(Lost::LinkFull, 1),
            _ => {}
        }
    }
}

impl RouteOut for Out<'_> {
    fn data(&self, to: NodeId, lane: u8, frame: &Data<'_>) -> Pushed {
        let pushed = self.mesh.outlet.data(to, lane, frame);
        if let (Pushed::Full, Data::Direct(direct)) = (pushed, frame) {
            self.mesh.deliver.lost(Lost::LinkFull, direct.targets.iter().count() as u64);
        }
        pushed
    }

    fn here(&self, agent: &AgentId, _: &AgentId, followed: bool, body: &Body<'_>) -> bool {
        self.mesh.deliver.batch().direct(agent.as_str(), body, followed)
    }

    fn unfenced(&self, agent: &AgentId) {
        self.mesh.deliver.unfenced(agent);
    }

    fn lost(&self, why: Lost, messages: u64) {
        self.mesh.deliver.lost(why, messages);
    }
}

impl NearRing {
    fn new(rings: &Rings, region: &str) -> Self {
        let version = rings.version_of(region);
        Self { rings: rings.clone(), region: region.to_owned(), version }
    }
}

impl RingView for NearRing {
    fn version(&self) -> u64 {
        self.version
    }

    fn owner(&self, agent: &str) -> Option<NodeId> {
        self.rings.owner(&self.region, agent)
    }
}

impl Peer {
    fn node(&self) -> NodeId {
        self.home.me.node
    }

    fn is_suspect(&self) -> bool {
        self.suspect.load(Ordering::Relaxed)
    }
}

impl fmt::Debug for Mesh {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mesh").field("home", &self.home).finish_non_exhaustive()
    }
}
