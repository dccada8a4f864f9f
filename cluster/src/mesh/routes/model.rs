//! A small network to try the routes in: nodes with senders, agents that move, links whose lanes are
//! queues, an owner that tells its watchers. Frames arrive in whatever order the test picks; only
//! each lane keeps its own. The routes are the real ones; all else is as plain as it can be.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet, VecDeque},
};

mod wires;

use self::wires::{Frame, Local, Out, Wires};
use super::*;
use crate::{
    SessionId,
    wire::{LANES, Located, lane_of},
};

/// The senders: two on node 0, one on each other node; they never move.
pub(super) const SENDERS: [(&str, usize); 4] =
    [("sender-a", 0), ("sender-b", 0), ("sender-c", 1), ("sender-d", 2)];

/// The agents that move.
pub(super) const AGENTS: [&str; 2] = ["agent-one", "agent-two"];

/// How many nodes there are.
pub(super) const NODES: usize = 4;

/// The lane that stands for control frames.
pub(super) const CONTROL: u8 = 4;

/// What the test may do. Names what it does it to, so that leaving an operation out changes as little
/// as possible of what the others do.
#[derive(Clone, Debug)]
pub(super) enum Op {
    /// A sender writes to the agents whose bit is set.
    Direct { sender: usize, agents: u8 },
    /// A sender writes to all.
    Broadcast { sender: usize },
    /// An agent opens a session on a node; its former one ends.
    Open { agent: usize, node: usize },
    /// An agent's newest session ends.
    Close { agent: usize },
    /// So many frames of a lane arrive, if there are so many.
    Arrive { from: usize, to: usize, lane: u8, frames: usize },
    /// 50 ms pass.
    Tick,
    /// Another node owns all agents. Until the next `Settle`, it cannot say where they are.
    NewOwner { node: usize },
    /// The owner knows of all sessions.
    Settle,
    /// A node hears nothing of another, or hears of it again.
    Silence { at: usize, of: usize },
    /// The link between two nodes is lost, or made again.
    Cut { a: usize, b: usize },
}

/// How a message came: broadcasts may come twice to an agent, in two sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum How {
    Direct,
    Broadcast,
}

/// One message that one session got.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Got {
    pub(super) text: String,
    pub(super) how: How,
}

/// A message that was accepted from a sender.
#[derive(Clone, Debug)]
pub(super) struct Accepted {
    pub(super) text: String,
    pub(super) agent: String,
    pub(super) broadcast: bool,
}

/// The owner's records: the same for every owner, as if they were handed over at once.
#[derive(Default)]
struct Directory {
    records: BTreeMap<String, SessionId>,
    watchers: BTreeMap<String, BTreeSet<usize>>,
}

/// The ring as it is for all nodes, and as it was: who owned everything.
pub(super) struct Owned(Vec<usize>);

impl Owned {
    fn by(&self) -> usize {
        self.0[self.0.len() - 1]
    }
}

impl RingView for Owned {
    fn number(&self) -> u32 {
        u32::try_from(self.0.len()).unwrap()
    }

    fn owner(&self, _agent: &str) -> Option<NodeId> {
        Some(node_id(self.by()))
    }

    fn has_owned_since(&self, number: u32, owner: NodeId, _agent: &str) -> bool {
        let since = usize::try_from(number).unwrap();
        self.0[since..].iter().all(|by| node_id(*by) == owner)
    }
}

fn node_id(node: usize) -> NodeId {
    NodeId(node as u64 + 1)
}

fn node_of(id: NodeId) -> usize {
    usize::try_from(id.0 - 1).unwrap()
}

/// The whole network.
pub(super) struct Network {
    routes: Vec<Routes>,
    wires: RefCell<Wires>,
    directory: Directory,
    ring: Owned,
    former: usize,
    settling: bool,
    now: Duration,
    last_session: u64,
    sent: BTreeMap<&'static str, u64>,
    /// Everything accepted, for each agent that it is for.
    pub(super) accepted: Vec<Accepted>,
    /// How many messages went along routes or were given directly: each arrives or is counted.
    pub(super) directs: u64,
    /// When a session was greeted: so many had been accepted before.
    pub(super) welcomed: BTreeMap<SessionId, usize>,
}

impl Network {
    pub(super) fn new() -> Self {
        let this = Self {
            routes: (0..NODES).map(|node| Routes::new(node_id(node))).collect(),
            wires: RefCell::default(),
            directory: Directory::default(),
            ring: Owned(vec![NODES - 1]),
            former: NODES - 1,
            settling: false,
            now: Duration::ZERO,
            last_session: 0,
            sent: BTreeMap::new(),
            accepted: Vec::new(),
            directs: 0,
            welcomed: BTreeMap::new(),
        };
        for (at, of) in pairs() {
            let _ = this.routes[at].heard(node_id(of), &this.out(at), this.now);
        }
        this
    }

    pub(super) fn run(&mut self, op: &Op) {
        match *op {
            Op::Direct { sender, agents } => self.direct(SENDERS[sender], agents),
            Op::Broadcast { sender } => self.broadcast(SENDERS[sender]),
            Op::Open { agent, node } => self.arrive(AGENTS[agent], node),
            Op::Close { agent } => self.close(AGENTS[agent]),
            Op::Arrive { from, to, lane, frames } => {
                for _ in 0..frames {
                    self.deliver_one((from, to, lane));
                }
            }
            Op::Tick => self.tick(),
            Op::NewOwner { node } => self.new_owner(node),
            Op::Settle => self.settling = false,
            Op::Silence { at, of } if at != of => {
                let needs = self.routes[at].silent(node_id(of), &self.out(at), self.now);
                self.ask(at, needs);
            }
            Op::Cut { a, b } if a != b => self.cut(a, b),
            Op::Silence { .. } | Op::Cut { .. } => {}
        }
    }

    /// Mends everything, and lets time pass until nothing is on its way.
    pub(super) fn heal(&mut self) {
        self.settling = false;
        for (at, of) in pairs() {
            self.wires.borrow_mut().cut.remove(&(at.min(of), at.max(of)));
            let needs = self.routes[at].heard(node_id(of), &self.out(at), self.now);
            self.ask(at, needs);
        }
        for _ in 0..80 {
            while let Some(lane) = self.busy_lane() {
                self.deliver_one(lane);
            }
            self.tick();
        }
    }

    fn direct(&mut self, (name, node): (&'static str, usize), agents: u8) {
        let chosen = (0..).zip(AGENTS).filter(|(bit, _)| agents >> bit & 1 == 1);
        let targets: Vec<_> = chosen.map(|(_, agent)| agent).collect();
        let body = self.accept(name, &targets, false);
        self.directs += targets.len() as u64;
        let mut elsewhere = Vec::new();
        for target in targets {
            let mut wires = self.wires.borrow_mut();
            let direct = wires.session(node, target).is_some_and(|local| !local.fenced);
            if !direct || !wires.give(node, target, body.as_bytes(), How::Direct) {
                elsewhere.push(target);
            }
        }
        if !elsewhere.is_empty() {
            let from = name.parse().unwrap();
            let message = outgoing(&from, &body);
            let out = self.out(node);
            let needs = self.routes[node].direct(&message, &elsewhere, &self.ring, &out, self.now);
            self.ask(node, needs);
        }
    }

    fn broadcast(&mut self, (name, node): (&'static str, usize)) {
        let body = self.accept(name, &AGENTS, true);
        let from = name.parse().unwrap();
        let message = outgoing(&from, &body);
        let push = |except: &[AgentId]| {
            let except: Vec<_> = except.iter().map(ToString::to_string).collect();
            for peer in (0..NODES).filter(|peer| *peer != node) {
                let frame =
                    Frame::Broadcast { except: except.clone(), body: message.body.to_shared() };
                self.wires.borrow_mut().push(node, peer, message.lane, frame);
            }
        };
        let (except, needs) =
            self.routes[node].broadcast(&message, &self.out(node), self.now, push);
        self.directs += except.len() as u64;
        let except: Vec<_> = except.iter().map(AgentId::as_str).collect();
        self.fan_out(node, &except, body.as_bytes());
        self.ask(node, needs);
    }

    fn fan_out(&self, node: usize, except: &[&str], body: &[u8]) {
        let mut wires = self.wires.borrow_mut();
        for agent in AGENTS.iter().filter(|agent| !except.contains(agent)) {
            if wires.session(node, agent).is_some_and(|local| local.admitted) {
                wires.give(node, agent, body, How::Broadcast);
            }
        }
    }

    fn accept(&mut self, name: &'static str, agents: &[&str], broadcast: bool) -> String {
        let number = self.sent.entry(name).or_default();
        *number += 1;
        let text = format!("{name}/{number:04}");
        self.accepted.extend(agents.iter().map(|agent| Accepted {
            text: text.clone(),
            agent: (*agent).to_owned(),
            broadcast,
        }));
        text
    }

    fn arrive(&mut self, agent: &'static str, node: usize) {
        self.last_session += 1;
        let session = SessionId { time: self.last_session, node: node_id(node) };
        let local = Local {
            session,
            fenced: true,
            admitted: false,
            awaits: None,
            barriers: BTreeSet::new(),
        };
        let key = (node, agent.to_owned());
        let replaced = self.wires.borrow_mut().sessions.insert(key, local);
        let id = agent.parse().unwrap();
        let (fenced, needs) =
            self.routes[node].arrived_here(&id, session, &self.out(node), self.now);
        self.ask(node, needs);
        if !fenced && let Some(local) = self.wires.borrow_mut().session(node, agent) {
            local.fenced = false;
        }
        if let Some(old) = replaced {
            self.departed(node, agent, old.session);
        }
        let publish = Frame::Publish { agent: agent.to_owned(), session };
        if !self.control(node, self.ring.by(), publish) {
            let all = (0..NODES).collect();
            let told = self.tell(node, agent, all, None, Some(session));
            self.await_barriers(node, agent, session, &told);
        }
    }

    fn close(&mut self, agent: &'static str) {
        let newest = {
            let wires = self.wires.borrow();
            let of_agent = wires.sessions.iter().filter(|((_, name), _)| name == agent);
            of_agent.map(|((node, _), local)| (local.session, *node)).max()
        };
        let Some((session, node)) = newest else { return };
        self.wires.borrow_mut().sessions.remove(&(node, agent.to_owned()));
        self.departed(node, agent, session);
        self.control(node, self.ring.by(), Frame::Withdraw { agent: agent.to_owned(), session });
    }

    fn departed(&mut self, node: usize, agent: &str, session: SessionId) {
        let id = agent.parse().unwrap();
        let needs = self.routes[node].departed_here(&id, session, &self.out(node), self.now);
        self.ask(node, needs);
    }

    fn busy_lane(&self) -> Option<(usize, usize, u8)> {
        let wires = self.wires.borrow();
        wires.lanes.iter().find(|(_, frames)| !frames.is_empty()).map(|(lane, _)| *lane)
    }

    fn deliver_one(&mut self, (from, to, lane): (usize, usize, u8)) {
        let frame =
            self.wires.borrow_mut().lanes.get_mut(&(from, to, lane)).map(VecDeque::pop_front);
        match frame.flatten() {
            Some(frame) if lane == CONTROL => self.on_control(from, to, frame),
            Some(frame) => self.on_data(from, to, lane, frame),
            None => {}
        }
    }

    fn on_data(&mut self, from: usize, to: usize, lane: u8, frame: Frame) {
        let (out, now) = (self.out(to), self.now);
        match frame {
            Frame::Direct { from: sender, resent, era, targets, body } => {
                let missing: Vec<_> = targets
                    .into_iter()
                    .filter(|agent| !self.wires.borrow_mut().give(to, agent, &body, How::Direct))
                    .collect();
                if !missing.is_empty() {
                    let targets = missing;
                    let frame = Frame::Bounced { from: sender, resent, era, targets, body };
                    self.wires.borrow_mut().push(to, from, lane, frame);
                }
            }
            Frame::Bounced { from: sender, resent, era, targets, body } => {
                let targets: Vec<_> = targets.iter().map(String::as_str).collect();
                let direct = Direct {
                    followed: false,
                    resent,
                    era,
                    from: &sender,
                    targets: Names::List(&targets),
                    body: Body::Shared(body),
                };
                let needs = self.routes[to].bounced(node_id(from), lane, &direct, &out, now);
                self.ask(to, needs);
            }
            Frame::Broadcast { except, body } => {
                let except: Vec<_> = except.iter().map(String::as_str).collect();
                self.fan_out(to, &except, &body);
            }
            Frame::Fence { agent, epoch } => {
                self.wires.borrow_mut().push(to, from, lane, Frame::Fenced { agent, epoch });
            }
            Frame::Fenced { agent, epoch } => {
                let needs = self.routes[to].fenced(node_id(from), lane, &agent, epoch, &out, now);
                self.ask(to, needs);
            }
            Frame::Barrier { agent, session } => {
                let mut wires = self.wires.borrow_mut();
                let local = wires.session(to, &agent).filter(|local| local.session == session);
                local.map(|local| local.barriers.insert((from, lane)));
                drop(wires);
                self.admit(to, &agent);
            }
            other => panic!("{other:?} on a data lane"),
        }
    }

    fn on_control(&mut self, from: usize, to: usize, frame: Frame) {
        match frame {
            Frame::Publish { agent, session } => self.publish(from, to, agent, session),
            Frame::Published { agent, session, notified: Some(notified) } => {
                self.await_barriers(to, &agent, session, &notified);
            }
            Frame::Published { agent, session, notified: None } => {
                self.replaced(to, &agent, |held| held == session);
            }
            Frame::Withdraw { agent, session } => {
                if self.directory.records.get(&agent) == Some(&session) {
                    self.directory.records.remove(&agent);
                    let watchers = self.watchers(&agent);
                    self.tell(to, &agent, watchers, Some(session), None);
                }
            }
            Frame::Lookup { ask, agent, home_only } => {
                let place = self.locate(from, to, &agent, home_only);
                self.control(to, from, Frame::Located { ask, agent, place });
            }
            Frame::Located { ask, agent, place } => {
                let id = agent.parse().unwrap();
                let needs = self.routes[to].located(
                    node_id(from),
                    ask,
                    &id,
                    place,
                    &self.ring,
                    &self.out(to),
                    self.now,
                );
                self.ask(to, needs);
            }
            Frame::Moved { agent, was, is } => self.moved(from, to, &agent, was, is),
            other => panic!("{other:?} on the control lane"),
        }
    }

    fn publish(&mut self, home: usize, owner: usize, agent: String, session: SessionId) {
        let record = self.directory.records.get(&agent).copied();
        if record.is_some_and(|record| record > session) {
            self.control(owner, home, Frame::Published { agent, session, notified: None });
            return;
        }
        self.directory.records.insert(agent.clone(), session);
        let mut told = self.watchers(&agent);
        told.extend(record.map(|record| node_of(record.node)));
        if self.settling {
            told.extend(0..NODES);
        }
        told.remove(&home);
        // Who was told may not have heard when the agent moves again: then it is told again.
        self.directory.watchers.entry(agent.clone()).or_default().extend(&told);
        let notified = self.tell(owner, &agent, told, record, Some(session));
        let notified = Some(notified);
        self.control(owner, home, Frame::Published { agent, session, notified });
    }

    /// Those who are told when the agent moves: also for a while after it has left, for they may not
    /// have heard yet.
    fn watchers(&self, agent: &str) -> BTreeSet<usize> {
        self.directory.watchers.get(agent).cloned().unwrap_or_default()
    }

    fn tell(
        &mut self,
        from: usize,
        agent: &str,
        nodes: BTreeSet<usize>,
        was: Option<SessionId>,
        is: Option<SessionId>,
    ) -> Vec<usize> {
        let home = is.map(|session| node_of(session.node));
        nodes
            .into_iter()
            .filter(|node| Some(*node) != home)
            .filter(|to| self.control(from, *to, Frame::Moved { agent: agent.to_owned(), was, is }))
            .collect()
    }

    fn locate(&mut self, asker: usize, node: usize, agent: &str, home_only: bool) -> Located {
        if home_only {
            let local = self.wires.borrow_mut().session(node, agent).map(|local| local.session);
            return local.map_or(Located::Nobody, Located::At);
        }
        if self.settling {
            return Located::Unsettled;
        }
        let Some(session) = self.directory.records.get(agent) else { return Located::Nobody };
        self.directory.watchers.entry(agent.to_owned()).or_default().insert(asker);
        Located::At(*session)
    }

    fn moved(
        &mut self,
        from: usize,
        to: usize,
        agent: &str,
        was: Option<SessionId>,
        is: Option<SessionId>,
    ) {
        if let Some(session) = is {
            self.replaced(to, agent, |held| held < session);
        }
        let id = agent.parse().unwrap();
        let out = self.out(to);
        let needs = self.routes[to].moved(node_id(from), &id, was, is, &self.ring, &out, self.now);
        self.ask(to, needs);
        if let Some(session) = is {
            for lane in 0..CONTROL {
                let barrier = Frame::Barrier { agent: agent.to_owned(), session };
                self.wires.borrow_mut().push(to, node_of(session.node), lane, barrier);
            }
        }
    }

    fn replaced(&mut self, node: usize, agent: &str, is_old: impl Fn(SessionId) -> bool) {
        let held = self.wires.borrow_mut().session(node, agent).map(|local| local.session);
        if let Some(session) = held.filter(|session| is_old(*session)) {
            self.wires.borrow_mut().sessions.remove(&(node, agent.to_owned()));
            self.departed(node, agent, session);
        }
    }

    fn await_barriers(&mut self, home: usize, agent: &str, session: SessionId, told: &[usize]) {
        if let Some(local) = self.wires.borrow_mut().session(home, agent)
            && local.session == session
        {
            let lanes = told.iter().flat_map(|node| (0..CONTROL).map(|lane| (*node, lane)));
            local.awaits = Some(lanes.collect());
        }
        self.admit(home, agent);
    }

    fn admit(&mut self, home: usize, agent: &str) {
        let mut wires = self.wires.borrow_mut();
        let cut = wires.cut.clone();
        let Some(local) = wires.session(home, agent) else { return };
        let Some(awaits) = &mut local.awaits else { return };
        awaits.retain(|(node, _)| !cut.contains(&(home.min(*node), home.max(*node))));
        if !local.admitted && awaits.is_subset(&local.barriers) {
            local.admitted = true;
            self.welcomed.insert(local.session, self.accepted.len());
        }
    }

    fn ask(&mut self, node: usize, needs: Needs) {
        for Need { ask, agent, whom } in needs {
            let home_only = whom != Whom::Owner;
            let asked = match whom {
                Whom::Owner => vec![self.ring.by()],
                Whom::Former if self.former != self.ring.by() => vec![self.former],
                Whom::Former | Whom::All => (0..NODES).filter(|peer| *peer != node).collect(),
            };
            let mut sent = false;
            for to in asked {
                let agent = agent.to_string();
                sent |= self.control(node, to, Frame::Lookup { ask, agent, home_only });
            }
            if !sent {
                let (me, place) = (node_id(node), Located::Unsettled);
                let out = self.out(node);
                let needs =
                    self.routes[node].located(me, ask, &agent, place, &self.ring, &out, self.now);
                self.ask(node, needs);
            }
        }
    }

    /// To itself a node speaks at once. `false` if there is no link.
    fn control(&mut self, from: usize, to: usize, frame: Frame) -> bool {
        if from == to {
            self.on_control(from, to, frame);
            return true;
        }
        self.wires.borrow_mut().push(from, to, CONTROL, frame) == Pushed::Queued
    }

    fn tick(&mut self) {
        self.now += Duration::from_millis(50);
        for node in 0..NODES {
            let needs = self.routes[node].tick(&self.out(node), self.now);
            self.ask(node, needs);
        }
    }

    fn new_owner(&mut self, node: usize) {
        self.former = self.ring.by();
        self.ring.0.push(node);
        self.settling = true;
    }

    fn cut(&mut self, a: usize, b: usize) {
        let link = (a.min(b), a.max(b));
        if !self.wires.borrow_mut().cut.insert(link) {
            self.wires.borrow_mut().cut.remove(&link);
            for (at, of) in [(a, b), (b, a)] {
                let needs = self.routes[at].heard(node_id(of), &self.out(at), self.now);
                self.ask(at, needs);
            }
            return;
        }
        self.lose_what_is_between(a, b);
        for (at, of) in [(a, b), (b, a)] {
            let needs = self.routes[at].link_lost(node_id(of), &self.out(at), self.now);
            self.ask(at, needs);
            for agent in AGENTS {
                self.admit(at, agent);
            }
        }
    }

    fn lose_what_is_between(&mut self, a: usize, b: usize) {
        let mut wires = self.wires.borrow_mut();
        let mut unanswered = Vec::new();
        for (key, frames) in &mut wires.lanes {
            if [(a, b), (b, a)].contains(&(key.0, key.1)) {
                unanswered.extend(frames.drain(..));
            }
        }
        for frame in unanswered {
            if let Frame::Direct { targets, .. } | Frame::Bounced { targets, .. } = frame {
                wires.cut_off += targets.len() as u64;
            }
        }
    }

    fn out(&self, node: usize) -> Out<'_> {
        Out { me: node, wires: &self.wires }
    }
}

/// What the test looks at in the end.
impl Network {
    /// What each session got, in order.
    pub(super) fn got(&self) -> BTreeMap<(String, SessionId), Vec<Got>> {
        self.wires.borrow().got.clone()
    }

    /// The agents' sessions that are open and were greeted.
    pub(super) fn open_sessions(&self) -> Vec<(String, SessionId)> {
        let wires = self.wires.borrow();
        let greeted = wires.sessions.iter().filter(|(_, local)| local.admitted);
        greeted.map(|((_, agent), local)| (agent.clone(), local.session)).collect()
    }

    /// Messages that were lost, for any reason.
    pub(super) fn lost_in_all(&self) -> u64 {
        let wires = self.wires.borrow();
        wires.lost.values().sum::<u64>() + wires.cut_off
    }

    /// Routes that are open, and bytes that wait, on all nodes.
    pub(super) fn held(&self) -> (usize, usize) {
        let open = self.routes.iter().map(|routes| routes.open.load(Ordering::Relaxed)).sum();
        let bytes = self.routes.iter().map(|routes| routes.room.used()).sum();
        (open, bytes)
    }

    /// Sessions that still carry the mark that messages to them take a detour.
    pub(super) fn fenced_sessions(&self) -> usize {
        self.wires.borrow().sessions.values().filter(|local| local.fenced).count()
    }
}

fn outgoing<'a>(from: &'a AgentId, body: &'a str) -> Outgoing<'a> {
    Outgoing {
        from,
        lane: lane_of(from.as_str()),
        followed: false,
        body: Body::Borrowed(body.as_bytes()),
    }
}

fn pairs() -> impl Iterator<Item = (usize, usize)> {
    (0..NODES).flat_map(|a| (0..NODES).map(move |b| (a, b))).filter(|(a, b)| a != b)
}

const _: () = assert!(LANES == CONTROL as usize);
