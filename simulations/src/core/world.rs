//! The simulated world: nodes, links, agents, one queue of events, one clock.
//!
//! Single-threaded, and everything random comes from one generator, so a seed is a run. What happens
//! in it is written by topic in the modules beside this one.

use std::time::Duration;

use cluster::mesh::Mesh;
use rand::{Rng, SeedableRng, rngs::SmallRng};

use super::{
    Options,
    agents::Agent,
    event::{Event, Life, Queue},
    faults::{self, Fault},
    history::{Ending, History, Nonsense, Reason},
    links::Links,
    message,
    node::{Node, id_of},
    sessions::Said,
    trace::{About, Trace},
};

/// Everything there is.
pub(super) struct World {
    pub now: Duration,
    pub rng: SmallRng,
    pub queue: Queue,
    pub nodes: Vec<Node>,
    pub links: Links,
    pub agents: Vec<Agent>,
    pub faults: Vec<Fault>,
    pub history: History,
    pub trace: Trace,
    /// After how much silence a side gives a link up.
    pub silence_max: Duration,
}

/// Until then the nodes find each other, undisturbed.
const CALM_UNTIL: Duration = Duration::from_secs(2);

/// From their healing until the agents' probe.
const HEALING: Duration = Duration::from_secs(10);

/// What the probe may take.
const PROBING: Duration = Duration::from_secs(4);

impl World {
    /// The beginning of the run that a seed stands for.
    pub(super) fn new(seed: u64, options: &Options, about: Option<About>) -> Self {
        let mut rng = SmallRng::seed_from_u64(seed);
        let count = options.nodes.max(1);
        let regions: Vec<usize> = (0..count).map(|node| node % options.regions.max(1)).collect();
        let skews = faults::skews(&options.faults, count, &mut rng);
        let nodes = regions.iter().zip(skews).enumerate();
        let nodes = nodes.map(|(place, (region, skew))| Node::new(place, *region, skew)).collect();
        let links = Links::new(&regions, &mut rng);
        let heal = CALM_UNTIL + options.faulty_for;
        let late = faults::late(&options.faults, count, &mut rng);
        let faults = faults::plan(&options.faults, count, CALM_UNTIL, heal, &mut rng);
        let silence_max = Duration::from_millis(rng.random_range(2_500..=5_000));
        let mut world = Self {
            now: Duration::ZERO,
            rng,
            queue: Queue::default(),
            nodes,
            links,
            agents: vec![Agent::new(); options.agents],
            faults,
            history: History::default(),
            trace: Trace::new(about),
            silence_max,
        };
        world.plan_the_run(heal, late);
        world
    }

    fn plan_the_run(&mut self, heal: Duration, late: Option<usize>) {
        for place in 0..self.nodes.len() {
            let at = if late == Some(place) {
                CALM_UNTIL + heal.saturating_sub(CALM_UNTIL).mul_f64(self.rng.random())
            } else {
                Duration::from_millis(self.rng.random_range(0..200))
            };
            self.nodes[place].starts = true;
            self.queue.put(at, Event::Start(place));
        }
        for agent in 0..self.agents.len() {
            let at = Duration::from_millis(self.rng.random_range(400..1_500));
            self.queue.put(at, Event::Act(agent));
        }
        for (index, fault) in self.faults.iter().enumerate() {
            self.queue.put(fault.at, Event::Begin(index));
            self.queue.put(fault.until, Event::End(index));
        }
        self.queue.put(heal, Event::Heal);
        self.queue.put(heal + HEALING, Event::Probe);
        self.history.healed = heal;
        self.history.probed = (heal + HEALING, usize::MAX);
        self.history.ended = heal + HEALING + PROBING;
    }

    /// Runs to the end, and returns what was seen.
    pub(super) fn run(mut self) -> (History, Trace) {
        while let Some((at, event)) = self.queue.next(self.history.ended) {
            self.now = at;
            self.happen(event);
        }
        self.now = self.history.ended;
        (self.history, self.trace)
    }

    /// Lets an event happen, or puts it off if its node stands still.
    pub(super) fn happen(&mut self, event: Event) {
        if let Some(life) = self.runs_in(&event) {
            if !self.nodes[life.node].is_in(life) {
                return self.missed(&event);
            }
            if let Some(later) = self.running(life.node).and_then(|node| node.hanging.as_mut())
                && !matches!(event, Event::Resume(_))
            {
                later.push(event);
                return;
            }
        }
        match event {
            Event::Tick(life) => self.tick(life),
            Event::Gossip(life) => self.gossip(life),
            Event::Ping(life) => self.ping(life),
            Event::Dial(life) => self.dial(life),
            Event::Arrive { to, lane } => self.arrive(to, lane),
            Event::Established(side) => self.established(side),
            Event::Ended(side) => self.told_of_end(side),
            Event::Goodbye { life, agent, session } => self.goodbye(life, agent, session),
            Event::Act(agent) => self.act(agent),
            Event::Connect { agent, node } => self.connect(agent, node),
            Event::Drain(life) => self.drain(life),
            Event::Start(place) => self.start(place),
            Event::Resume(life) => self.resume(life),
            Event::Begin(fault) => self.begin(fault),
            Event::End(fault) => self.end(fault),
            Event::Heal => self.heal(),
            Event::Probe => self.probe(),
        }
    }

    /// The life in which an event happens, if it is one node's.
    fn runs_in(&self, event: &Event) -> Option<Life> {
        match event {
            Event::Tick(life)
            | Event::Gossip(life)
            | Event::Ping(life)
            | Event::Dial(life)
            | Event::Goodbye { life, .. }
            | Event::Drain(life)
            | Event::Resume(life) => Some(*life),
            Event::Arrive { to: side, .. } | Event::Established(side) | Event::Ended(side) => {
                Some(self.links.life(*side))
            }
            Event::Act(_)
            | Event::Connect { .. }
            | Event::Start(_)
            | Event::Begin(_)
            | Event::End(_)
            | Event::Heal
            | Event::Probe => None,
        }
    }

    /// An event came too late for its node's life.
    fn missed(&mut self, event: &Event) {
        if let Event::Established(side) = event {
            self.links.down(*side, &mut self.rng);
        }
    }

    pub(super) fn running(&mut self, place: usize) -> Option<&mut super::node::Running> {
        self.nodes[place].running.as_mut()
    }

    /// Calls a node's engine, and does what it asks for.
    pub(super) fn engine<T>(
        &mut self,
        place: usize,
        call: impl FnOnce(&Mesh, Duration) -> T,
    ) -> Option<T> {
        let running = self.nodes[place].running.as_ref()?;
        let (mesh, elapsed) = (running.mesh.clone(), self.now.saturating_sub(running.started));
        let result = call(&mesh, elapsed);
        self.settle(place);
        Some(result)
    }

    /// Sends what a node's engine put out, and writes down what its sessions said.
    pub(super) fn settle(&mut self, place: usize) {
        let life = self.nodes[place].life();
        let Some(running) = self.running(place) else { return };
        let (frames, said) = (running.outbox.take(), running.sessions.said());
        for (to, lane, bytes) in frames {
            let peer = (0..self.nodes.len()).find(|peer| id_of(*peer) == to);
            if let Some(peer) = peer {
                self.send_wire(place, peer, lane, bytes);
            }
        }
        for said in said {
            self.note(life, said);
        }
    }

    fn note(&mut self, life: Life, said: Said) {
        match said {
            Said::Delivered { agent, session, message } => {
                self.note_delivery(agent, session, message);
            }
            Said::Admitted { agent, session } => {
                let now = self.now;
                if let Some(record) = self.record(agent, session) {
                    record.admitted = Some(now);
                }
                self.trace.agent(now, agent, None, || {
                    format!(
                        "agent-{agent} has its welcome: session {session} on node-{}",
                        life.node
                    )
                });
            }
            Said::Replaced { agent, session, by, unwritten } => {
                if let Some(index) = self.record_index(agent, session) {
                    self.history.replaced.push((index, by));
                }
                self.session_ends(agent, session, Ending::Replaced, unwritten);
                let after = Duration::from_millis(self.rng.random_range(0..50));
                self.queue.put(self.now + after, Event::Goodbye { life, agent, session });
            }
            Said::Lost(why, messages) => {
                *self.history.lost.entry(Reason::from(why)).or_default() += messages;
                let now = self.now;
                self.trace.all(now, || {
                    format!("node-{} counts {messages} lost: {:?}", life.node, Reason::from(why))
                });
            }
            Said::Nonsense(what) => {
                self.history.nonsense.push(Nonsense { what, agent: None, message: None });
            }
        }
    }

    fn note_delivery(&mut self, agent: usize, session: cluster::SessionId, message: usize) {
        let now = self.now;
        self.trace.digest(&(now, agent, session, message));
        self.trace.agent(now, agent, Some(message), || {
            format!("agent-{agent} gets message {message} in session {session}")
        });
        match self.record(agent, session) {
            Some(record) => record.received.push(message),
            None => self.history.nonsense.push(Nonsense {
                what: format!("a message for session {session}, which never was"),
                agent: Some(agent),
                message: Some(message),
            }),
        }
    }

    /// The place of a session in the history.
    pub(super) fn record_index(&self, agent: usize, id: cluster::SessionId) -> Option<usize> {
        let sessions = &self.agents.get(agent)?.sessions;
        sessions.iter().rev().copied().find(|index| self.history.sessions[*index].id == id)
    }

    pub(super) fn record(
        &mut self,
        agent: usize,
        id: cluster::SessionId,
    ) -> Option<&mut super::history::SessionRecord> {
        let index = self.record_index(agent, id)?;
        self.history.sessions.get_mut(index)
    }

    /// A session is over, for its agent too.
    pub(super) fn session_ends(
        &mut self,
        agent: usize,
        id: cluster::SessionId,
        why: Ending,
        unwritten: u64,
    ) {
        let now = self.now;
        if let Some(record) = self.record(agent, id)
            && record.ended.is_none()
        {
            record.ended = Some((now, why));
            record.unwritten = unwritten;
            self.trace
                .agent(now, agent, None, || format!("session {id} of agent-{agent} ends: {why:?}"));
            self.loses_session(agent, id, why);
        }
    }

    /// Messages as bytes.
    pub(super) fn body(number: usize) -> [u8; 16] {
        message::body(number)
    }
}
