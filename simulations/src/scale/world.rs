//! Many whole engines on one thread, and a model of the time that frames and processors take.
//!
//! Every frame is encoded by `cluster::wire`, counted, and decoded where it arrives. A node is one
//! processor that does one thing after the other; a frame takes [`Pace::frame`] to be put out and as
//! much to be taken in, and the way between two nodes has a latency and no other limit.

use std::{
    cmp::{Ordering, Reverse},
    collections::{BTreeMap, BTreeSet, BinaryHeap},
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use cluster::{
    Generation, Incarnation, NodeId, UnixMillis,
    membership::{Load, Member, MemberState},
    mesh::{Deliver, Home, Mesh, Outgoing, ring::Rings},
    wire::{self, Body, Control, Data},
};

use super::{
    agents::{self, Agents},
    outlet::{Outbox, Put, Seen, Sessions},
    tally::{Tally, kind},
};

/// The wall-clock time when a model starts.
const EPOCH: UnixMillis = UnixMillis(1_800_000_000_000);

/// How often each engine is ticked, as the relay does it.
const TICK: Duration = Duration::from_millis(50);

/// What things take.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// One way between two nodes of a region.
    pub near: Duration,
    /// One way between two of different regions.
    pub far: Duration,
    /// A processor's time for a frame, at each end.
    pub frame: Duration,
    /// A processor's time for a change of the rings, for each session and each record of the node.
    pub change: Duration,
}

/// Engines, and what is on its way between them.
pub(super) struct World {
    pub(super) agents: Agents,
    pub(super) now: Duration,
    pace: Pace,
    nodes: Vec<Node>,
    places: BTreeMap<NodeId, usize>,
    queue: BinaryHeap<Reverse<Event>>,
    events: u64,
    /// What crossed from one region to another.
    far: Tally,
    /// Since when the sessions that are not admitted wait.
    opened: BTreeMap<usize, Duration>,
    waits: Vec<Duration>,
    watched: Option<Watched>,
    put: Vec<Put>,
    /// What calls really took, by what they were. No part of any result.
    pub(super) costs: BTreeMap<&'static str, Cost>,
}

/// One node of the model.
struct Node {
    mesh: Mesh,
    outbox: Arc<Outbox>,
    sessions: Arc<Sessions>,
    region: usize,
    runs: bool,
    ticks: bool,
    /// Until when its processor has something to do.
    busy: Duration,
    sent: Tally,
    /// When it was settled first since it was last told of the members.
    settled: Option<Duration>,
}

/// What calls of one sort took.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Cost {
    pub(super) calls: u32,
    pub(super) all: Duration,
    pub(super) longest: Duration,
}

impl Cost {
    fn add(&mut self, took: Duration) {
        self.calls += 1;
        self.all += took;
        self.longest = self.longest.max(took);
    }
}

/// Records of one region that are to be made anew after a change of its ring.
pub(super) struct Watched {
    pub(super) region: String,
    pub(super) former: Rings,
    pub(super) present: Rings,
    /// Whose record was told of already, and when each was.
    told: BTreeSet<usize>,
    pub(super) times: Vec<Duration>,
}

struct Event {
    at: Duration,
    number: u64,
    to: usize,
    what: What,
}

enum What {
    Tick,
    Frame { from: usize, lane: Option<u8>, bytes: Bytes },
}

/// The region's name.
pub(super) fn region(number: usize) -> String {
    format!("region-{number}")
}

/// The node's id. Ids are in no order of the places.
pub(super) fn id_of(place: usize) -> NodeId {
    NodeId((place as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15))
}

fn incarnation(place: usize) -> Incarnation {
    Incarnation { node: id_of(place), generation: Generation(1) }
}

impl World {
    /// Nodes in regions of these sizes, all linked and settled; nobody is connected.
    pub(super) fn new(regions: &[usize], agents: Agents, pace: Pace) -> Self {
        let mut world = Self {
            agents,
            now: Duration::ZERO,
            pace,
            nodes: Vec::new(),
            places: BTreeMap::new(),
            queue: BinaryHeap::new(),
            events: 0,
            far: Tally::default(),
            opened: BTreeMap::new(),
            waits: Vec::new(),
            watched: None,
            put: Vec::new(),
            costs: BTreeMap::new(),
        };
        for (region, nodes) in regions.iter().enumerate() {
            for _ in 0..*nodes {
                world.add(region);
            }
        }
        let members = world.members(&BTreeMap::new());
        for place in 0..world.nodes.len() {
            world.tell_members(place, &members);
        }
        world.pass(Duration::from_secs(1));
        world
    }

    /// One more node, linked with all others; nobody is told of it. Returns its place.
    pub(super) fn add(&mut self, number: usize) -> usize {
        let place = self.nodes.len();
        let outbox = Arc::new(Outbox::default());
        let sessions = Arc::new(Sessions::new(place, self.agents.clone()));
        let home = Home { me: incarnation(place), region: region(number) };
        let mesh = Mesh::new(home, outbox.clone(), sessions.clone());
        let node = Node {
            mesh,
            outbox,
            sessions,
            region: number,
            runs: true,
            ticks: false,
            busy: self.now,
            sent: Tally::default(),
            settled: None,
        };
        self.nodes.push(node);
        self.places.insert(id_of(place), place);
        for peer in self.running().into_iter().filter(|peer| *peer != place) {
            self.nodes[peer].outbox.link(id_of(place));
            self.nodes[place].outbox.link(id_of(peer));
            for (one, other) in [(peer, place), (place, peer)] {
                let home = self.nodes[other].mesh.home().clone();
                self.act(one, "link up", |mesh, now| mesh.link_up(&home, now));
            }
        }
        place
    }

    /// The places of the nodes that run.
    pub(super) fn running(&self) -> Vec<usize> {
        (0..self.nodes.len()).filter(|place| self.nodes[*place].runs).collect()
    }

    /// The places of a region's nodes that run.
    pub(super) fn of_region(&self, number: usize) -> Vec<usize> {
        self.running().into_iter().filter(|place| self.nodes[*place].region == number).collect()
    }

    pub(super) fn region_of(&self, place: usize) -> usize {
        self.nodes[place].region
    }

    pub(super) fn pace(&self) -> &Pace {
        &self.pace
    }

    pub(super) fn mesh(&self, place: usize) -> &Mesh {
        &self.nodes[place].mesh
    }

    pub(super) fn seen(&self, place: usize) -> Seen {
        self.nodes[place].sessions.seen()
    }

    /// What the node has put out so far.
    pub(super) fn sent_by(&self, place: usize) -> &Tally {
        &self.nodes[place].sent
    }

    /// What all have put out so far.
    pub(super) fn sent(&self) -> Tally {
        let mut all = Tally::default();
        self.nodes.iter().for_each(|node| all += &node.sent);
        all
    }

    /// What of that crossed from one region to another.
    pub(super) fn sent_far(&self) -> &Tally {
        &self.far
    }

    /// All nodes as gossip shows them: alive, but for these.
    pub(super) fn members(&self, but: &BTreeMap<usize, MemberState>) -> Vec<Member> {
        let member = |(place, node): (usize, &Node)| Member {
            incarnation: incarnation(place),
            name: format!("node-{place}"),
            region: region(node.region),
            version: "0".to_owned(),
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, 7946)),
            state: but.get(&place).copied().unwrap_or(MemberState::Alive),
            load: Load::default(),
        };
        self.nodes.iter().enumerate().map(member).collect()
    }

    /// Gossip tells a node who is there.
    pub(super) fn tell_members(&mut self, place: usize, members: &[Member]) {
        let (directory, presence) = self.nodes[place].mesh.counts();
        let entries = u32::try_from(directory.records + presence.sessions).unwrap_or(u32::MAX);
        let node = &mut self.nodes[place];
        node.busy = node.busy.max(self.now) + self.pace.change * entries;
        node.settled = None;
        self.act(place, "change of members", |mesh, now| mesh.members(members, now));
        self.note_settled(place);
    }

    /// A node is no more, and nobody knows.
    pub(super) fn crash(&mut self, place: usize) {
        (self.nodes[place].runs, self.nodes[place].ticks) = (false, false);
    }

    /// A node notices that another is silent.
    pub(super) fn suspect(&mut self, place: usize, peer: usize) {
        self.act(place, "suspicion", |mesh, now| mesh.link_suspect(id_of(peer), true, now));
    }

    /// A node loses its link to another.
    pub(super) fn unlink(&mut self, place: usize, peer: usize) {
        self.nodes[place].outbox.unlink(id_of(peer));
        self.act(place, "loss of a link", |mesh, now| mesh.link_down(incarnation(peer), now));
    }

    /// An agent connects to a node, wherever it was before.
    pub(super) fn connect(&mut self, agent: usize, place: usize) {
        self.agents.connect(agent, place);
        self.opened.insert(agent, self.now);
        let wall = UnixMillis(EPOCH.0 + u64::try_from(self.now.as_millis()).unwrap_or_default());
        let name = agents::name(agent);
        self.act(place, "arrival", |mesh, now| {
            mesh.opened(&name, mesh.next_session(wall), now);
        });
    }

    /// How long those that were admitted since the last call have waited for it.
    pub(super) fn take_waits(&mut self) -> Vec<Duration> {
        std::mem::take(&mut self.waits)
    }

    /// An agent sends to one of another node; returns whether its node knew the way.
    pub(super) fn direct(&mut self, from: usize, to: usize, body: &[u8]) -> bool {
        let Some(place) = self.agents.home(from) else { return false };
        let before = self.nodes[place].sent.of(kind::DIRECT).frames;
        let (sender, target) = (agents::name(from), agents::name(to));
        let message = outgoing(&sender, body);
        self.act(place, "direct", |mesh, now| mesh.direct(&message, &[target.as_str()], now));
        self.nodes[place].sent.of(kind::DIRECT).frames > before
    }

    /// An agent sends to all.
    pub(super) fn broadcast(&mut self, from: usize, body: &[u8]) {
        let Some(place) = self.agents.home(from) else { return };
        let sender = agents::name(from);
        let message = outgoing(&sender, body);
        self.act(place, "broadcast", |mesh, now| {
            mesh.broadcast(&message, now);
        });
    }

    /// From now on these nodes, and no others, are ticked.
    pub(super) fn tick(&mut self, places: &[usize]) {
        for place in 0..self.nodes.len() {
            let ticks = self.nodes[place].runs && places.contains(&place);
            let starts = ticks && !std::mem::replace(&mut self.nodes[place].ticks, ticks);
            if starts {
                let offset = TICK * u32::try_from(place % 50).unwrap_or_default() / 50;
                self.put_event(self.now + offset, place, What::Tick);
            }
            self.nodes[place].ticks = ticks;
        }
    }

    /// Lets time pass, and everything happen that is due in it.
    pub(super) fn pass(&mut self, time: Duration) {
        self.run_until(self.now + time);
    }

    /// Lets everything happen that is due until then.
    pub(super) fn run_until(&mut self, end: Duration) {
        while self.queue.peek().is_some_and(|Reverse(event)| event.at <= end) {
            let Some(Reverse(event)) = self.queue.pop() else { break };
            self.now = event.at;
            self.happen(event);
        }
        self.now = self.now.max(end);
    }

    /// Looks out for the records of a region that a change of its ring moves.
    pub(super) fn watch(&mut self, number: usize, former: Rings, present: Rings) {
        let (told, times) = (BTreeSet::new(), Vec::new());
        self.watched = Some(Watched { region: region(number), former, present, told, times });
    }

    pub(super) fn take_watched(&mut self) -> Option<Watched> {
        self.watched.take()
    }

    /// When each of these was settled after it was last told of the members.
    pub(super) fn settled(&self, places: &[usize]) -> Vec<Option<Duration>> {
        places.iter().map(|place| self.nodes[*place].settled).collect()
    }
}

impl World {
    fn happen(&mut self, event: Event) {
        let place = event.to;
        match event.what {
            What::Tick if self.nodes[place].ticks => {
                self.act(place, "tick", Mesh::tick);
                self.put_event(event.at + TICK, place, What::Tick);
            }
            What::Frame { from, lane, bytes } if self.nodes[place].runs => {
                self.arrive(from, place, lane, &bytes);
            }
            _ => {}
        }
    }

    fn arrive(&mut self, from: usize, place: usize, lane: Option<u8>, bytes: &Bytes) {
        let (kind, body, _) = wire::split(bytes).expect("it is a frame").expect("it is whole");
        let node = &mut self.nodes[place];
        node.busy = node.busy.max(self.now) + self.pace.frame;
        if let Some(lane) = lane {
            let frame = Data::decode(kind, &body).expect("it was encoded here");
            let sessions = Arc::clone(&node.sessions);
            self.act(place, "data frame", |mesh, now| {
                mesh.data(id_of(from), lane, &frame, &mut *sessions.batch(), now);
            });
        } else {
            let frame = Control::decode(kind, &body).expect("it was encoded here");
            self.note_told(&frame);
            self.act(place, "control frame", |mesh, now| mesh.control(id_of(from), frame, now));
            if kind == kind::SYNCED {
                self.note_settled(place);
            }
        }
    }

    /// Does something on a node as soon as its processor is free, and sends what comes of it.
    fn act(&mut self, place: usize, what: &'static str, act: impl FnOnce(&Mesh, Duration)) {
        let node = &mut self.nodes[place];
        let start = node.busy.max(self.now);
        #[allow(clippy::disallowed_methods)] // how long calls really take is no part of a result
        let clock = Instant::now();
        act(&node.mesh, start);
        let took = clock.elapsed();
        self.costs.entry(what).or_default().add(took);
        node.busy = start;
        let mut put = std::mem::take(&mut self.put);
        node.outbox.take(&mut put);
        for (to, lane, bytes) in put.drain(..) {
            self.send(place, self.places[&to], lane, bytes);
        }
        self.put = put;
        let done = self.nodes[place].busy;
        for agent in self.nodes[place].sessions.take_admitted() {
            let opened = self.opened.remove(&agent);
            self.waits.extend(opened.map(|opened| done.saturating_sub(opened)));
        }
    }

    fn send(&mut self, from: usize, to: usize, lane: Option<u8>, bytes: Bytes) {
        let is_far = self.nodes[from].region != self.nodes[to].region;
        let node = &mut self.nodes[from];
        node.busy += self.pace.frame;
        node.sent.add(&bytes);
        if is_far {
            self.far.add(&bytes);
        }
        let latency = if is_far { self.pace.far } else { self.pace.near };
        let at = self.nodes[from].busy + latency;
        self.put_event(at, to, What::Frame { from, lane, bytes });
    }

    fn put_event(&mut self, at: Duration, to: usize, what: What) {
        self.events += 1;
        self.queue.push(Reverse(Event { at, number: self.events, to, what }));
    }

    fn note_told(&mut self, frame: &Control) {
        let Control::Publish { agent, .. } = frame else { return };
        let Some(watched) = &mut self.watched else { return };
        let Watched { region, former, present, told, times } = watched;
        let owner = |rings: &Rings| rings.owner(region, agent.as_str());
        let number = agents::number(agent.as_str());
        if owner(former) != owner(present) && number.is_some_and(|number| told.insert(number)) {
            times.push(self.now);
        }
    }

    fn note_settled(&mut self, place: usize) {
        let node = &mut self.nodes[place];
        if node.settled.is_none() && node.mesh.counts().0.awaited == 0 {
            node.settled = Some(node.busy);
        }
    }
}

fn outgoing<'a>(from: &'a cluster::AgentId, body: &'a [u8]) -> Outgoing<'a> {
    let lane = wire::lane_of(from.as_str());
    Outgoing { from, lane, followed: false, body: Body::Borrowed(body) }
}

impl PartialEq for Event {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl Eq for Event {}

impl PartialOrd for Event {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Event {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}
