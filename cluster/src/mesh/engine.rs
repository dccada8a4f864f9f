//! The engine: turns events into the calls of those that decide, and does what they ask for.
//!
//! Owns the locks. In their order: the receptions of a lane, the core, what [`Routes`] locks, the
//! broadcasts of a lane (pushed through the routes' gate), whom broadcasts pass by, and then what
//! [`Outlet`] and [`Deliver`] take. Decides nothing itself.

mod incoming;
mod outgoing;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
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
    near::NearRings,
    parking::Parking,
    presence::{self, Presence},
    ring::Rings,
    route::Whom,
    routes::{Need, Needs, RouteOut, Routes},
};
use crate::{
    AgentId, Incarnation, NodeId, SessionId, UnixMillis,
    link::Frames,
    membership::{Member, MemberState},
    wire::{
        Body, Broadcast, Control, Data, Direct, LANES, Located, NAMES_MAX, Names, Published,
        Relayed, Spent,
    },
};

/// The mesh as one node sees it. All methods may be called from any thread; none blocks for long.
pub struct Mesh {
    home: Home,
    outlet: Arc<dyn Outlet>,
    deliver: Arc<dyn Deliver>,
    time: MeshTime,
    core: Mutex<Core>,
    /// What senders need of the rings.
    near: ArcSwap<NearRings>,
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
            time: MeshTime::default(),
            core: Mutex::new(core),
            near: ArcSwap::from_pointee(NearRings::new(&home.region)),
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
        self.time.next_session(wall, self.home.me.node)
    }

    /// Mesh time when the wall clock says `wall`.
    pub fn time(&self, wall: UnixMillis) -> UnixMillis {
        self.time.now(wall)
    }

    /// The `ts` of a message that is accepted at `wall` (PROTOCOL section 5): mesh time, and at most
    /// 30 s ahead of `wall`. So it does not go back for an agent that hops to a node whose clock is
    /// behind.
    pub fn stamp(&self, wall: UnixMillis) -> UnixMillis {
        self.time.stamp(wall)
    }

    /// A peer's mesh time was `remote` when it sent what came just now.
    pub fn learn_time(&self, wall: UnixMillis, remote: UnixMillis) {
        self.time.learn(wall, remote);
    }

    /// The rings over the nodes that own presence records.
    pub fn rings(&self) -> Rings {
        self.core.lock().rings.clone()
    }

    /// The agent's session, if it is here or this node keeps its record; and who keeps that in this
    /// region.
    pub fn locate(&self, agent: &AgentId) -> (Option<SessionId>, Option<NodeId>) {
        let mut core = self.core.lock();
        let session = match core.locate(self.home.me.node, agent, true) {
            Located::At(session) => Some(session),
            Located::Nobody | Located::Unsettled => None,
        };
        (session, core.rings.owner(&self.home.region, agent.as_str()))
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
    ///
    /// If it waits for more than [`NAMES_MAX`], no frame can name them all, and no other node gets it:
    /// it is counted as lost for each that would have.
    pub fn broadcast(&self, message: &Outgoing<'_>, now: Duration) -> Vec<AgentId> {
        let Some(lane) = self.lanes.get(usize::from(message.lane)) else { return Vec::new() };
        let push = |except: &[AgentId]| {
            let mut lane = lane.lock();
            if except.len() > NAMES_MAX {
                let nodes = lane.near.len() + lane.far.values().map(Vec::len).sum::<usize>();
                self.deliver.lost(Lost::RouteFull, nodes as u64);
                return self.deliver.missed(Lost::RouteFull, &message.body);
            }
            let except: SmallVec<[&str; 8]> = except.iter().map(AgentId::as_str).collect();
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
        let me = self.home.me.node;
        let nodes = peers.iter().map(|peer| peer.node());
        let heard = peers.iter().filter(|peer| !peer.is_suspect()).map(|peer| peer.node());
        gateway(me, heard, |_| true).or_else(|| gateway(me, nodes, |_| true))
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
        let mut actions = core.presence.link_up(peer);
        for (agent, session) in self.behind.unknown_to(node) {
            let frame = Control::Moved { agent, was: None, now: Some(session) };
            actions.push(Action::Send { to: node, frame });
        }
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
        core.directory.link_down(peer);
        let actions = core.presence.link_down(node, now);
        let needs = self.routes.link_lost(node, &self.out(), now);
        self.perform(&mut core, actions, now);
        drop(core);
        self.ask(needs, now);
        let receptions = self.receptions.read().get(&peer).cloned();
        // Its end writes: not while a reception is locked.
        let mut batch = self.deliver.batch();
        for (number, reception) in (0..).zip(receptions.iter().flat_map(|all| all.iter())) {
            let mut reception = reception.lock();
            reception.link_lost();
            self.release(node, number, &mut reception, &mut *batch, now);
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
            // From here on each route is verified when it is used next, if its owner has changed.
            self.near.store(Arc::new(self.near.load().followed_by(&rings)));
            core.directory.members(members, rings.clone());
            core.parking.ring_changed(rings.clone());
            let actions = core.presence.ring_changed(rings);
            self.perform(&mut core, actions, now);
        } else {
            let rings = core.rings.clone();
            core.directory.members(members, rings);
        }
        let may_send = |member: &&Member| member.state != MemberState::Left;
        let listed: BTreeSet<NodeId> = members.iter().filter(may_send).map(Member::node).collect();
        let peers = self.peers.load();
        self.behind.retain(|node| listed.contains(&node) || peers.contains_key(&node));
        core.presence.listed(listed);
        drop(core);
        let mut receptions = self.receptions.write();
        // Looked at after the lock was taken: who has been linked meanwhile may have its reception.
        let peers = self.peers.load();
        // One that is thought dead may come back, and what it has sent by other ways with it.
        let may_speak = |origin: &Incarnation| {
            members.iter().any(|member| member.incarnation == *origin)
                || peers.get(&origin.node).is_some_and(|peer| peer.home.me == *origin)
        };
        receptions.retain(|origin, _| may_speak(origin));
    }

    fn change_peers(&self, change: impl FnOnce(&mut HashMap<NodeId, Arc<Peer>>)) {
        // Under the core's lock: no two changes at once.
        let mut peers = HashMap::clone(&self.peers.load());
        change(&mut peers);
        self.peers.store(Arc::new(peers));
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
