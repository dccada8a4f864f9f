//! What simulated agents do: connect, send, hop from node to node, leave and come back.
//!
//! An agent reaches every node that runs, also those that do not reach each other. It may have two
//! connections at once, while it hops; what it sends on each is the matter of that session.

use std::time::Duration;

use cluster::{
    SessionId,
    mesh::Outgoing,
    wire::{Body, lane_of},
};
use rand::{Rng, seq::IndexedRandom};

use super::{
    event::{Event, Life},
    history::{Ending, MessageRecord, Recipients, SessionRecord},
    message,
    world::World,
};

/// Between two things that an agent does, on average.
const PAUSE: Duration = Duration::from_millis(400);

/// Agents that one agent writes to most of the time.
const FRIENDS: usize = 4;

/// What one message adds to its sender's limit, in nanoseconds of the hour's quota.
const SPENT_PER_MESSAGE_NS: u64 = 1_000_000_000;

/// For so long after the healing began agents still come and go.
const SETTLE: Duration = Duration::from_secs(2);

/// An agent.
#[derive(Clone, Debug)]
pub(super) struct Agent {
    /// Its present connection.
    pub connection: Option<Connection>,
    /// An older one, which it has not closed.
    pub older: Option<Connection>,
    /// Whether it is on its way to a node.
    pub connects: bool,
    /// All its sessions, as places in the history.
    pub sessions: Vec<usize>,
}

/// One side of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Connection {
    pub home: Life,
    pub session: SessionId,
}

impl Agent {
    pub(super) fn new() -> Self {
        Self { connection: None, older: None, connects: false, sessions: Vec::new() }
    }
}

impl World {
    /// An agent does something, and will again.
    pub(super) fn act(&mut self, agent: usize) {
        let pause = PAUSE.mul_f64(-self.rng.random_range(f64::EPSILON..1.0).ln());
        self.queue.put(self.now + pause, Event::Act(agent));
        if self.now >= self.history.probed.0 {
            return;
        }
        let Some(connection) = self.agents[agent].connection else {
            return self.connect_soon(agent, Duration::ZERO);
        };
        // An agent may send before it has its welcome, and on a connection that it is about to give
        // up.
        let connection = match self.agents[agent].older {
            Some(older) if self.rng.random_ratio(1, 3) => older,
            _ => connection,
        };
        let may_move = self.now < self.history.healed + SETTLE;
        match self.rng.random_range(0..100) {
            0..55 => self.send_to_one(agent, connection, 1),
            55..61 => self.send_to_one(agent, connection, 6),
            61..68 => self.send_to_several(agent, connection),
            68..82 => self.say(agent, connection, Recipients::All),
            82..88 if may_move => self.hop(agent, true),
            88..91 if may_move => self.hop(agent, false),
            91..93 if may_move => self.go_away(agent),
            _ => {}
        }
    }

    fn send_to_one(&mut self, agent: usize, connection: Connection, times: usize) {
        let count = self.agents.len();
        let to = if self.rng.random_ratio(3, 4) {
            (agent + 1 + self.rng.random_range(0..FRIENDS)) % count
        } else {
            self.rng.random_range(0..count)
        };
        for _ in 0..times {
            self.say(agent, connection, Recipients::Agents(vec![to]));
        }
    }

    fn send_to_several(&mut self, agent: usize, connection: Connection) {
        let all: Vec<usize> = (0..self.agents.len()).collect();
        let count = self.rng.random_range(2..=5);
        let to = all.choose_multiple(&mut self.rng, count).copied().collect();
        self.say(agent, connection, Recipients::Agents(to));
    }

    /// Connects to another node, or the same, and keeps the old connection open or closes it first.
    fn hop(&mut self, agent: usize, keeps_the_old: bool) {
        if keeps_the_old {
            let state = &mut self.agents[agent];
            state.older = state.connection;
            self.connect_soon(agent, Duration::ZERO);
        } else {
            self.hang_up(agent);
            let after = Duration::from_millis(self.rng.random_range(0..800));
            self.connect_soon(agent, after);
        }
    }

    fn go_away(&mut self, agent: usize) {
        self.hang_up(agent);
        let after = Duration::from_millis(self.rng.random_range(1_000..5_000));
        self.connect_soon(agent, after);
    }

    fn hang_up(&mut self, agent: usize) {
        let state = &mut self.agents[agent];
        let open = [state.connection.take(), state.older.take()];
        for connection in open.into_iter().flatten() {
            self.leave(connection.home, agent, connection.session, Ending::Closed);
        }
    }

    fn connect_soon(&mut self, agent: usize, after: Duration) {
        if self.agents[agent].connects {
            return;
        }
        let ready: Vec<usize> =
            (0..self.nodes.len()).filter(|place| self.nodes[*place].is_ready(self.now)).collect();
        if let Some(node) = ready.choose(&mut self.rng) {
            self.agents[agent].connects = true;
            self.queue.put(self.now + after, Event::Connect { agent, node: *node });
        }
    }

    /// The handshake of an agent with a node: what `node` does then.
    pub(super) fn connect(&mut self, agent: usize, node: usize) {
        self.agents[agent].connects = false;
        if !self.nodes[node].is_ready(self.now) {
            return;
        }
        let (now, home) = (self.now, self.nodes[node].life());
        let wall = self.nodes[node].wall(now);
        let Some(running) = self.running(node) else { return };
        let id = running.mesh.next_session(wall);
        let sessions = running.sessions.clone();
        self.agents[agent].sessions.push(self.history.sessions.len());
        self.history.sessions.push(SessionRecord {
            agent,
            home,
            id,
            opened: now,
            admitted: None,
            ended: None,
            received: Vec::new(),
            unwritten: 0,
        });
        self.trace.agent(now, agent, None, || format!("agent-{agent} opens {id} on node-{node}"));
        self.agents[agent].connection = Some(Connection { home, session: id });
        sessions.enter(agent, id);
        let name = message::agent_id(agent);
        let fenced = self.engine(node, |mesh, now| mesh.opened(&name, id, now));
        sessions.entered(agent, id, fenced.unwrap_or_default());
    }

    /// A session ends because its agent or its drained node says so.
    pub(super) fn leave(&mut self, home: Life, agent: usize, id: SessionId, why: Ending) {
        if !self.nodes[home.node].is_in(home) {
            return;
        }
        let Some(running) = self.running(home.node) else { return };
        let Some(left) = running.sessions.leave(agent, id) else { return };
        self.session_ends(agent, id, why, left.unwritten);
        let name = message::agent_id(agent);
        self.engine(home.node, |mesh, now| mesh.closed(&name, id, Some(left.spent), now));
    }

    /// The task of a session that was taken over ends.
    pub(super) fn goodbye(&mut self, life: Life, agent: usize, id: SessionId) {
        let name = message::agent_id(agent);
        self.engine(life.node, |mesh, now| mesh.closed(&name, id, None, now));
    }

    /// An agent sees that a connection of its is gone.
    pub(super) fn loses_session(&mut self, agent: usize, id: SessionId, why: Ending) {
        let state = &mut self.agents[agent];
        let is = |connection: &mut Connection| connection.session == id;
        state.older.take_if(is);
        if state.connection.take_if(is).is_none() || why == Ending::Closed {
            return;
        }
        let wait_ms = match why {
            Ending::Replaced => 1_000..3_000,
            Ending::Drained | Ending::Crashed | Ending::Closed => 10..1_000,
        };
        let after = Duration::from_millis(self.rng.random_range(wait_ms));
        self.connect_soon(agent, after);
    }

    /// A node accepts a message of a session: what `node`'s router does.
    pub(super) fn say(&mut self, agent: usize, from: Connection, to: Recipients) {
        let place = from.home.node;
        if !self.nodes[place].is_in(from.home) || self.nodes[place].hangs() {
            return;
        }
        let Some(session) = self.record_index(agent, from.session) else { return };
        if self.history.sessions[session].ended.is_some() {
            return;
        }
        let (now, number) = (self.now, self.history.messages.len());
        self.trace.agent(now, agent, Some(number), || {
            format!("node-{place} accepts message {number} of agent-{agent} for {to:?}")
        });
        let record = MessageRecord {
            session,
            accepted: now,
            to: to.clone(),
            held_back: Vec::new(),
            certain: true,
        };
        self.history.messages.push(record);
        let Some(sessions) = self.running(place).map(|running| running.sessions.clone()) else {
            return;
        };
        sessions.spend(agent, from.session, SPENT_PER_MESSAGE_NS);
        let name = message::agent_id(agent);
        let body = Self::body(number);
        let outgoing = Outgoing {
            from: &name,
            lane: lane_of(name.as_str()),
            followed: false,
            body: Body::Borrowed(&body),
        };
        match to {
            Recipients::All => {
                let waits = self.engine(place, |mesh, now| mesh.broadcast(&outgoing, now));
                let waits: Vec<usize> = waits
                    .unwrap_or_default()
                    .iter()
                    .filter_map(|agent| message::agent_number(agent.as_str()))
                    .collect();
                sessions.broadcast(agent, &waits, number);
                self.history.messages[number].held_back = waits;
            }
            Recipients::Agents(targets) => {
                let elsewhere = targets.iter().filter(|to| !sessions.direct(**to, number));
                let names: Vec<_> = elsewhere.map(|to| message::agent_id(*to)).collect();
                let names: Vec<&str> = names.iter().map(cluster::AgentId::as_str).collect();
                if !names.is_empty() {
                    self.engine(place, |mesh, now| mesh.direct(&outgoing, &names, now));
                }
            }
        }
        self.settle(place);
    }

    /// Every agent that is there writes to each other one, and to all.
    pub(super) fn probe(&mut self) {
        self.history.probed.1 = self.history.messages.len();
        let now = self.now;
        self.trace.all(now, || "every agent writes to all others".to_owned());
        for agent in 0..self.agents.len() {
            let Some(connection) = self.agents[agent].connection else { continue };
            for to in 0..self.agents.len() {
                self.say(agent, connection, Recipients::Agents(vec![to]));
            }
            self.say(agent, connection, Recipients::All);
        }
    }
}
