//! Homes and owners together, over ordered channels whose order among each other is chance: sessions
//! open, hop and close while nodes crash and return, links are cut, and each node learns of the
//! others' fate when it happens to. Whatever the order, an admission ends, an owner that says
//! "nobody" is right, and in the end the records are the sessions.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use proptest::prelude::*;

use super::{
    Home,
    action::Action,
    clock::MeshTime,
    directory::{Directory, LEASE},
    presence::{ADMISSION_DEADLINE, Pace, Presence, RENEWAL},
    ring::{Rings, SETTLING},
};
use crate::{
    AgentId, Generation, Incarnation, NodeId, SessionId, UnixMillis,
    membership::{Load, Member, MemberState},
    wire::{Control, LANES, Located},
};

const NODES: u64 = 5;
const AGENTS: u8 = 6;
const TICK: Duration = Duration::from_millis(50);

struct Node {
    home: Home,
    rings: Rings,
    members: Vec<Member>,
    presence: Presence,
    directory: Directory,
    time: MeshTime,
}

/// A session that has not been closed.
#[derive(Debug)]
struct Life {
    opened: Duration,
    admitted: Option<Duration>,
}

#[derive(Default)]
struct Cluster {
    now: Duration,
    nodes: BTreeMap<NodeId, Node>,
    generation: u64,
    links: BTreeSet<(NodeId, NodeId)>,
    /// By sender, receiver and lane; the control lane is 0.
    channels: BTreeMap<(NodeId, NodeId, usize), VecDeque<Frame>>,
    live: BTreeMap<(AgentId, SessionId), Life>,
    /// The highest that ever was, closed or not.
    newest: BTreeMap<AgentId, SessionId>,
}

enum Frame {
    Control(Control),
    Barrier(u8, AgentId, SessionId),
}

#[derive(Clone, Debug)]
enum Event {
    Open(u8, u64),
    Close(usize),
    Deliver(usize, u8),
    Cut(u64, u64),
    Join(u64, u64),
    Crash(u64),
    Start(u64),
    See(u64),
    Lookup(u8, u64),
    Pass(u16),
}

fn events() -> impl Strategy<Value = Event> {
    let node = || 1..=NODES;
    prop_oneof![
        6 => (0..AGENTS, node()).prop_map(|(agent, node)| Event::Open(agent, node)),
        2 => (0..100usize).prop_map(Event::Close),
        30 => (0..100usize, 1u8..6).prop_map(|(n, many)| Event::Deliver(n, many)),
        1 => (node(), node()).prop_map(|(a, b)| Event::Cut(a, b)),
        2 => (node(), node()).prop_map(|(a, b)| Event::Join(a, b)),
        1 => node().prop_map(Event::Crash),
        2 => node().prop_map(Event::Start),
        5 => node().prop_map(Event::See),
        6 => (0..AGENTS, node()).prop_map(|(agent, node)| Event::Lookup(agent, node)),
        3 => (1u16..400).prop_map(Event::Pass),
    ]
}

fn agent(n: u8) -> AgentId {
    format!("agent-{n}").parse().expect("a name")
}

/// Two of three nodes are in one region.
fn region(node: NodeId) -> String {
    if node.0.is_multiple_of(3) { "far".to_owned() } else { "near".to_owned() }
}

fn member(home: &Home) -> Member {
    Member {
        incarnation: home.me,
        name: home.me.to_string(),
        region: home.region.clone(),
        version: String::new(),
        address: "127.0.0.1:1".parse().expect("an address"),
        state: MemberState::Alive,
        load: Load::default(),
    }
}

impl Cluster {
    /// All nodes, linked, and knowing each other.
    fn new() -> Self {
        let mut cluster = Self::default();
        (1..=NODES).for_each(|node| cluster.start(NodeId(node)));
        cluster.heal();
        cluster.quiet(Duration::from_secs(1));
        cluster
    }

    fn handle(&mut self, event: &Event) {
        match *event {
            Event::Open(n, node) => self.open(&agent(n), NodeId(node)),
            Event::Close(which) => self.close(which),
            Event::Deliver(which, many) => {
                let full: Vec<_> = self.channels.iter().filter(|(_, c)| !c.is_empty()).collect();
                if !full.is_empty() {
                    let channel = *full[which % full.len()].0;
                    for _ in 0..many {
                        self.deliver(channel);
                    }
                }
            }
            Event::Cut(a, b) => self.cut(NodeId(a), NodeId(b)),
            Event::Join(a, b) => self.join(NodeId(a), NodeId(b)),
            Event::Crash(node) => self.crash(NodeId(node)),
            Event::Start(node) => self.start(NodeId(node)),
            Event::See(node) => self.see(NodeId(node)),
            Event::Lookup(n, node) => self.lookup(&agent(n), NodeId(node)),
            Event::Pass(ms) => self.pass(Duration::from_millis(ms.into())),
        }
    }

    fn open(&mut self, agent: &AgentId, at: NodeId) {
        let now = self.now;
        let wall = self.wall(at);
        let Some(node) = self.nodes.get_mut(&at) else { return };
        let session = node.time.next_session(wall, at);
        let older = node.presence.session_of(agent.as_str());
        if let Some(older) = older {
            self.live.remove(&(agent.clone(), older)).expect("what a home knows is live");
        }
        let life = Life { opened: now, admitted: None };
        self.live.insert((agent.clone(), session), life);
        let newest = self.newest.entry(agent.clone()).or_insert(session);
        *newest = session.max(*newest);
        let actions = node.presence.opened(agent, session, now);
        let late = older.map(|older| node.presence.closed(agent, older)).unwrap_or_default();
        assert_eq!(late, [], "a late goodbye does not disturb the successor");
        self.perform(at, actions);
    }

    fn close(&mut self, which: usize) {
        if self.live.is_empty() {
            return;
        }
        let keys: Vec<_> = self.live.keys().cloned().collect();
        let (agent, session) = keys[which % keys.len()].clone();
        self.live.remove(&(agent.clone(), session));
        let node = self.nodes.get_mut(&session.node).expect("its node runs");
        let actions = node.presence.closed(&agent, session);
        self.perform(session.node, actions);
    }

    /// The oracle of "nobody": an admitted session on a node that the owner takes for a member is known.
    fn lookup(&mut self, agent: &AgentId, asker: NodeId) {
        let Some(node) = self.nodes.get(&asker) else { return };
        let Some(owner) = node.rings.owner(&node.home.region, agent.as_str()) else { return };
        if owner != asker && !self.links.contains(&(asker, owner)) {
            return;
        }
        let owner = self.nodes.get_mut(&owner).expect("it is linked");
        let place = owner.directory.lookup(asker, agent.as_str(), false);
        if place != Located::Nobody {
            return;
        }
        // An older one may not have heard yet that it is outdone.
        let Some(session) = self.newest.get(agent) else { return };
        let Some(life) = self.live.get(&(agent.clone(), *session)) else { return };
        let is_member = owner.members.iter().any(|member| member.node() == session.node);
        let deadline = life.opened + ADMISSION_DEADLINE;
        let in_time = life.admitted.is_some_and(|admitted| admitted < deadline);
        assert!(!is_member || !in_time, "{agent} is at {session}, which {asker} is denied");
    }

    fn start(&mut self, id: NodeId) {
        if self.nodes.contains_key(&id) {
            return;
        }
        self.generation += 1;
        let me = Incarnation { node: id, generation: Generation(self.generation) };
        let home = Home { me, region: region(id) };
        let mut presence = Presence::new(&home);
        // Slower than any real one: other things happen while it tells.
        presence.keep_pace(Pace { looks: 2, frames: 2 });
        let node = Node {
            rings: Rings::default(),
            members: Vec::new(),
            presence,
            directory: Directory::new(&home),
            time: MeshTime::default(),
            home,
        };
        let alone = vec![member(&node.home)];
        self.nodes.insert(id, node);
        self.learn_members(id, alone);
    }

    fn crash(&mut self, id: NodeId) {
        (1..=NODES).for_each(|peer| self.cut(id, NodeId(peer)));
        self.nodes.remove(&id);
        self.live.retain(|(_, session), _| session.node != id);
    }

    fn see(&mut self, id: NodeId) {
        let members = self.nodes.values().map(|node| member(&node.home)).collect();
        self.learn_members(id, members);
    }

    fn learn_members(&mut self, id: NodeId, members: Vec<Member>) {
        let now = self.now;
        let Some(node) = self.nodes.get_mut(&id) else { return };
        let changed = node.rings.changed(&members, now);
        node.rings = changed.clone().unwrap_or_else(|| node.rings.clone());
        node.directory.members(&members, node.rings.clone());
        node.members = members;
        let actions = changed.map(|rings| node.presence.ring_changed(rings)).unwrap_or_default();
        self.perform(id, actions);
    }

    fn join(&mut self, a: NodeId, b: NodeId) {
        let run = self.nodes.contains_key(&a) && self.nodes.contains_key(&b);
        if a == b || !run || !self.links.insert((a, b)) {
            return;
        }
        self.links.insert((b, a));
        self.learn_time();
        for (here, there) in [(a, b), (b, a)] {
            let peer = self.nodes[&there].home.clone();
            let now = self.now;
            let node = self.nodes.get_mut(&here).expect("it runs");
            node.directory.link_up(peer.me, now);
            let actions = node.presence.link_up(&peer);
            self.perform(here, actions);
        }
    }

    fn cut(&mut self, a: NodeId, b: NodeId) {
        if !self.links.remove(&(a, b)) {
            return;
        }
        self.links.remove(&(b, a));
        self.channels.retain(|(from, to, _), _| (*from, *to) != (a, b) && (*from, *to) != (b, a));
        for (here, there) in [(a, b), (b, a)] {
            let now = self.now;
            let peer = self.nodes[&there].home.me;
            let node = self.nodes.get_mut(&here).expect("it runs");
            node.directory.link_down(peer);
            let actions = node.presence.link_down(there, now);
            self.perform(here, actions);
        }
    }

    /// Hands the channel's first frame to its receiver; `false` if it is empty.
    fn deliver(&mut self, channel: (NodeId, NodeId, usize)) -> bool {
        let Some(frame) = self.channels.get_mut(&channel).and_then(VecDeque::pop_front) else {
            return false;
        };
        let (from, to, _) = channel;
        match frame {
            Frame::Control(frame) => {
                let actions = self.control(from, to, frame);
                self.perform(to, actions);
            }
            Frame::Barrier(lane, agent, session) => {
                let now = self.now;
                let node = self.nodes.get_mut(&to).expect("it is linked");
                let actions = node.presence.barrier(from, lane, agent.as_str(), session, now);
                self.perform(to, actions);
            }
        }
        true
    }

    fn control(&mut self, from: NodeId, to: NodeId, frame: Control) -> Vec<Action> {
        let now = self.now;
        let node = self.nodes.get_mut(&to).expect("it is linked");
        match frame {
            Control::Publish { agent, session, arrival } => {
                node.directory.publish(from, &agent, session, arrival, now)
            }
            Control::Published { agent, session, outcome } => {
                node.presence.published(from, &agent, session, outcome, now)
            }
            Control::Withdraw { agent, session } => node.directory.withdraw(&agent, session),
            Control::Synced { ring } => node.directory.synced(from, ring),
            Control::Moved { agent, was, now: is } => {
                let mut actions = node.directory.moved(&agent, was, is, now);
                if let Some(session) = is {
                    actions.extend(node.presence.outdone(&agent, session));
                    for lane in (0u8..).take(LANES) {
                        let barrier = Frame::Barrier(lane, agent.clone(), session);
                        self.push(to, session.node, usize::from(lane) + 1, barrier);
                    }
                }
                actions
            }
            other => panic!("nobody sends {other:?} here"),
        }
    }

    fn push(&mut self, from: NodeId, to: NodeId, lane: usize, frame: Frame) {
        if self.links.contains(&(from, to)) {
            self.channels.entry((from, to, lane)).or_default().push_back(frame);
        }
    }

    fn perform(&mut self, at: NodeId, actions: Vec<Action>) {
        let mut actions = VecDeque::from(actions);
        while let Some(action) = actions.pop_front() {
            match action {
                Action::Send { to, frame } if to == at => {
                    actions.extend(self.control(at, at, frame));
                }
                Action::Send { to, frame } => self.push(at, to, 0, Frame::Control(frame)),
                Action::Admit { agent, session } => {
                    let life = self.live.get_mut(&(agent, session)).expect("it is still there");
                    assert_eq!(life.admitted.replace(self.now), None, "admitted once");
                }
                // Nothing is broadcast here.
                Action::PassBy { .. } => {}
                Action::Outdone { agent, session, by } => {
                    assert!(by > session, "the newest wins");
                    self.live.remove(&(agent, session)).expect("it is still there");
                }
            }
        }
    }

    fn wall(&self, node: NodeId) -> UnixMillis {
        let skew = Duration::from_secs(10 * (node.0 % 3));
        UnixMillis::default().plus(self.now + skew)
    }

    /// As pings do.
    fn learn_time(&mut self) {
        for (a, b) in self.links.clone() {
            let remote = self.nodes[&a].time.now(self.wall(a));
            let wall = self.wall(b);
            self.nodes.get_mut(&b).expect("it is linked").time.learn(wall, remote);
        }
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.learn_time();
        let now = self.now;
        for id in self.nodes.keys().copied().collect::<Vec<_>>() {
            let node = self.nodes.get_mut(&id).expect("it runs");
            let mut actions = node.presence.tick(now);
            actions.extend(node.directory.tick(now));
            self.perform(id, actions);
        }
        for ((agent, session), life) in &self.live {
            let is_late = life.admitted.is_none() && now >= life.opened + ADMISSION_DEADLINE;
            assert!(!is_late, "{agent} waits at {session} for ever");
        }
    }

    /// All nodes that run are linked and know of each other.
    fn heal(&mut self) {
        let nodes: Vec<NodeId> = self.nodes.keys().copied().collect();
        for (n, a) in nodes.iter().enumerate() {
            nodes[n..].iter().for_each(|b| self.join(*a, *b));
        }
        for node in nodes {
            self.see(node);
        }
    }

    /// For so long all that is sent arrives at once.
    fn quiet(&mut self, time: Duration) {
        let step = if time > Duration::from_secs(5) { 20 * TICK } else { TICK };
        let end = self.now + time;
        while self.now < end {
            while let Some(channel) = self.full_channel() {
                self.deliver(channel);
            }
            self.pass(step);
        }
    }

    fn full_channel(&self) -> Option<(NodeId, NodeId, usize)> {
        self.channels.iter().find(|(_, frames)| !frames.is_empty()).map(|(channel, _)| *channel)
    }

    /// Each agent has one session, and every owner knows it.
    fn assert_known(&mut self) {
        let agents: Vec<&AgentId> = self.live.keys().map(|(agent, _)| agent).collect();
        let once: BTreeSet<&AgentId> = agents.iter().copied().collect();
        assert_eq!(agents.len(), once.len(), "an agent has two sessions: {:?}", self.live);
        for ((agent, session), life) in &self.live {
            assert!(life.admitted.is_some(), "{agent} at {session} is not admitted");
            let home = &self.nodes[&session.node];
            assert_eq!(home.presence.session_of(agent.as_str()), Some(*session));
            for owner in home.rings.owners(agent.as_str()).collect::<Vec<_>>() {
                let directory = &mut self.nodes.get_mut(&owner).expect("it runs").directory;
                let place = directory.lookup(session.node, agent.as_str(), false);
                assert_eq!(place, Located::At(*session), "what {owner} says of {agent}");
            }
        }
    }

    /// No owner has a record of what is gone, and who owns nothing has none.
    fn assert_exact(&mut self) {
        self.assert_known();
        for (id, node) in &mut self.nodes {
            assert_eq!(node.directory.counts().awaited, 0, "{id} is settled");
            let owned = |(agent, _): &&(AgentId, SessionId)| {
                node.rings.owner(&node.home.region, agent.as_str()) == Some(*id)
            };
            let owned = self.live.keys().filter(owned).count();
            assert_eq!(node.directory.counts().records, owned, "the records of {id}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 250, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_the_order_the_records_become_the_sessions(
        events in prop::collection::vec(events(), 1..150),
    ) {
        let mut cluster = Cluster::new();
        for event in &events {
            cluster.handle(event);
        }
        cluster.heal();
        cluster.quiet(Duration::from_secs(2));
        cluster.assert_known();
        cluster.quiet(LEASE + RENEWAL + SETTLING * 2);
        cluster.assert_exact();
    }
}
