//! The sessions of one simulated node: what the engine sees of `node`, without sockets.
//!
//! Keeps the relay's rules: a session is held until it is admitted, directs queue behind its welcome
//! and broadcasts pass it by; one that is fenced is reached through the engine only; a newer session
//! takes the older one's place. Says what happened; the world writes it down. Never calls the engine.

use std::collections::BTreeMap;

use cluster::{
    AgentId, SessionId,
    mesh::{Batch, Deliver, Lost},
    wire::{Body, Names, Spent},
};
use parking_lot::Mutex;

use super::message;

/// The sessions of a node, as the engine speaks to them.
#[derive(Debug, Default)]
pub(super) struct Sessions(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    entered: BTreeMap<usize, Session>,
    said: Vec<Said>,
}

#[derive(Debug)]
struct Session {
    id: SessionId,
    /// Messages behind the welcome; none once it is out.
    held: Option<Vec<usize>>,
    fenced: bool,
    /// What the agent has spent of its limit here or brought along.
    spent: Spent,
}

/// What happened to sessions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// The message reached the session.
    Delivered { agent: usize, session: SessionId, message: usize },
    /// The session's welcome is out.
    Admitted { agent: usize, session: SessionId },
    /// The session was closed with 4009; so many messages waited behind its welcome.
    Replaced { agent: usize, session: SessionId, by: SessionId, unwritten: u64 },
    /// Messages to one agent each are lost, and were counted.
    Lost(Lost, u64),
    /// Bytes came that nobody sent, or for nobody.
    Nonsense(String),
}

/// What became of a session that ended.
#[derive(Debug)]
pub(super) struct Left {
    pub unwritten: u64,
    pub spent: Spent,
}

impl Sessions {
    /// Enters a session, held and fenced until the engine has said what it knows. An older one is
    /// taken over.
    pub(super) fn enter(&self, agent: usize, id: SessionId) {
        let mut state = self.0.lock();
        let new = Session { id, held: Some(Vec::new()), fenced: true, spent: Spent::default() };
        let older = state.entered.insert(agent, new);
        if let Some(older) = older {
            // Its limit is its successor's: they are one agent's.
            if let Some(new) = state.entered.get_mut(&agent) {
                new.spent = older.spent;
            }
            let unwritten = older.unwritten();
            state.said.push(Said::Replaced { agent, session: older.id, by: id, unwritten });
        }
    }

    /// The engine has said whether the session is fenced.
    pub(super) fn entered(&self, agent: usize, id: SessionId, fenced: bool) {
        if let Some(session) = self.0.lock().entered.get_mut(&agent)
            && session.id == id
        {
            session.fenced &= fenced;
        }
    }

    /// Takes a session out whose agent, node or drain ended it; none if it is not there any more.
    pub(super) fn leave(&self, agent: usize, id: SessionId) -> Option<Left> {
        let mut state = self.0.lock();
        if state.entered.get(&agent)?.id != id {
            return None;
        }
        let session = state.entered.remove(&agent)?;
        Some(Left { unwritten: session.unwritten(), spent: session.spent })
    }

    /// All sessions of the node.
    pub(super) fn all(&self) -> Vec<(usize, SessionId)> {
        self.0.lock().entered.iter().map(|(agent, session)| (*agent, session.id)).collect()
    }

    /// Counts an accepted message towards its sender's limit.
    pub(super) fn spend(&self, agent: usize, id: SessionId, hour_ns: u64) {
        if let Some(session) = self.0.lock().entered.get_mut(&agent)
            && session.id == id
        {
            session.spent.hour_ns += hour_ns;
        }
    }

    /// Delivers a message of an agent of this node directly; `false` if the way leads through the
    /// engine.
    pub(super) fn direct(&self, agent: usize, message: usize) -> bool {
        let mut state = self.0.lock();
        let State { entered, said } = &mut *state;
        let Some(session) = entered.get_mut(&agent).filter(|session| !session.fenced) else {
            return false;
        };
        session.post(agent, message, said);
        true
    }

    /// Delivers a broadcast of an agent of this node to all others here, but for those that `waits`
    /// names.
    pub(super) fn broadcast(&self, from: usize, waits: &[usize], message: usize) {
        self.0.lock().broadcast(from, message, |agent| waits.contains(&agent));
    }

    /// What happened since the last call.
    pub(super) fn said(&self) -> Vec<Said> {
        std::mem::take(&mut self.0.lock().said)
    }
}

impl State {
    fn broadcast(&mut self, from: usize, message: usize, excepted: impl Fn(usize) -> bool) {
        for (agent, session) in &mut self.entered {
            if *agent != from && session.held.is_none() && !excepted(*agent) {
                session.post(*agent, message, &mut self.said);
            }
        }
    }

    /// The agent and the message, if there are such.
    fn checked(&mut self, agent: &str, body: &Body<'_>) -> Option<(usize, usize)> {
        let number = message::number(body.as_slice());
        let known = message::agent_number(agent).zip(number);
        if known.is_none() {
            self.said.push(Said::Nonsense(format!("{} bytes for {agent}", body.as_slice().len())));
        }
        known
    }
}

impl Session {
    fn post(&mut self, agent: usize, message: usize, said: &mut Vec<Said>) {
        match &mut self.held {
            Some(waiting) => waiting.push(message),
            None => said.push(Said::Delivered { agent, session: self.id, message }),
        }
    }

    fn unwritten(&self) -> u64 {
        self.held.as_ref().map_or(0, Vec::len) as u64
    }
}

impl Deliver for Sessions {
    fn batch(&self) -> Box<dyn Batch + '_> {
        Box::new(Arrivals(self))
    }

    fn direct(&self, agent: &AgentId, body: &Body<'_>, followed: bool) -> bool {
        self.batch().direct(agent.as_str(), body, followed)
    }

    fn replaced(&self, agent: &AgentId, by: SessionId) {
        let Some(agent) = message::agent_number(agent.as_str()) else { return };
        let mut state = self.0.lock();
        if let Some(session) = state.entered.get(&agent)
            && session.id < by
        {
            let (session, unwritten) = (session.id, session.unwritten());
            state.entered.remove(&agent);
            state.said.push(Said::Replaced { agent, session, by, unwritten });
        }
    }

    fn admitted(&self, agent: &AgentId, id: SessionId) {
        let Some(agent) = message::agent_number(agent.as_str()) else { return };
        let mut state = self.0.lock();
        let State { entered, said } = &mut *state;
        let Some(session) = entered.get_mut(&agent).filter(|session| session.id == id) else {
            return;
        };
        let Some(waiting) = session.held.take() else { return };
        said.push(Said::Admitted { agent, session: id });
        for message in waiting {
            said.push(Said::Delivered { agent, session: id, message });
        }
    }

    fn unfenced(&self, agent: &AgentId) {
        let Some(agent) = message::agent_number(agent.as_str()) else { return };
        if let Some(session) = self.0.lock().entered.get_mut(&agent) {
            session.fenced = false;
        }
    }

    fn spent(&self, agent: &AgentId, spent: Spent) {
        let Some(agent) = message::agent_number(agent.as_str()) else { return };
        if let Some(session) = self.0.lock().entered.get_mut(&agent) {
            session.spent.minute_ns += spent.minute_ns;
            session.spent.hour_ns += spent.hour_ns;
            session.spent.refusals += spent.refusals;
        }
    }

    fn lost(&self, why: Lost, messages: u64) {
        self.0.lock().said.push(Said::Lost(why, messages));
    }
}

/// Messages that came from elsewhere.
struct Arrivals<'a>(&'a Sessions);

impl Batch for Arrivals<'_> {
    fn direct(&mut self, agent: &str, body: &Body<'_>, _followed: bool) -> bool {
        let mut state = self.0.0.lock();
        let Some((agent, message)) = state.checked(agent, body) else { return false };
        let State { entered, said } = &mut *state;
        let Some(session) = entered.get_mut(&agent) else { return false };
        session.post(agent, message, said);
        true
    }

    fn broadcast(&mut self, from: &str, except: Names<'_>, body: &Body<'_>) {
        let mut state = self.0.0.lock();
        let Some((from, message)) = state.checked(from, body) else { return };
        let except: Vec<usize> = except.iter().filter_map(message::agent_number).collect();
        state.broadcast(from, message, |agent| except.contains(&agent));
    }
}

#[cfg(test)]
mod tests {
    use cluster::NodeId;

    use super::*;

    fn id(time: u64) -> SessionId {
        SessionId { time, node: NodeId(1) }
    }

    fn agent(number: usize) -> AgentId {
        message::agent_id(number)
    }

    #[test]
    fn the_welcome_comes_first_and_broadcasts_do_not_wait_for_it() {
        let sessions = Sessions::default();
        sessions.enter(1, id(1));
        sessions.entered(1, id(1), false);
        assert!(sessions.direct(1, 10));
        sessions.broadcast(2, &[], 11);
        assert_eq!(sessions.said(), []);
        sessions.admitted(&agent(1), id(1));
        sessions.broadcast(2, &[], 12);
        sessions.broadcast(1, &[], 13);
        sessions.broadcast(2, &[1], 14);
        let delivered = |message| Said::Delivered { agent: 1, session: id(1), message };
        let admitted = Said::Admitted { agent: 1, session: id(1) };
        assert_eq!(sessions.said(), [admitted, delivered(10), delivered(12)]);
    }

    #[test]
    fn a_fenced_session_is_reached_through_the_engine_only() {
        let sessions = Sessions::default();
        sessions.enter(1, id(1));
        sessions.entered(1, id(1), true);
        assert!(!sessions.direct(1, 10));
        assert!(sessions.batch().direct("agent-1", &Body::Borrowed(&message::body(10)), false));
        sessions.unfenced(&agent(1));
        assert!(sessions.direct(1, 11));
    }

    #[test]
    fn only_older_sessions_are_replaced() {
        let sessions = Sessions::default();
        sessions.enter(1, id(5));
        sessions.replaced(&agent(1), id(5));
        sessions.replaced(&agent(1), id(4));
        assert_eq!(sessions.all(), [(1, id(5))]);
        sessions.replaced(&agent(1), id(6));
        let replaced = Said::Replaced { agent: 1, session: id(5), by: id(6), unwritten: 0 };
        assert_eq!(sessions.all(), []);
        assert_eq!(sessions.said(), [replaced]);
        assert!(sessions.leave(1, id(5)).is_none());
    }
}
