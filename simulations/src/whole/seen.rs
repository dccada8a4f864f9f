//! What is seen of a run from outside: the evidence for the promises, a digest of everything that
//! happened, and lines for who wants to know.
//!
//! All hosts of the world write here. They run in turn on one thread, so the order is the run's.

use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hash, Hasher},
    net::SocketAddr,
    time::Duration,
};

use cluster::SessionId;
use parking_lot::Mutex;

use super::counted::Counted;
use crate::core::{
    Life,
    history::{Ending, History, MessageRecord, Nonsense, Recipients, SessionRecord},
};

/// A message of a session that went on for so long has reached its node.
const ON_ITS_WAY_MAX: Duration = Duration::from_secs(1);

/// More than there is of anything.
const UNCOUNTABLE: u64 = u64::MAX / 2;

/// A session that takes over has told its agent so by then.
const TAKEOVER_MAX: Duration = Duration::from_secs(3);

/// The record of a run.
#[derive(Debug, Default)]
pub(super) struct Seen(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    now: Duration,
    loss_one_in: u32,
    packets: u64,
    bytes: u64,
    history: History,
    /// Sessions that were closed with 4009, and when.
    replaced: Vec<(usize, Duration)>,
    /// Connections that an agent gave up before it was answered: a node may have opened a session.
    given_up: BTreeMap<usize, Vec<Duration>>,
    /// When nothing got to a node or from it, by node: from when until when.
    holds: BTreeMap<usize, Vec<(Duration, Option<Duration>)>>,
    lines: Vec<Line>,
    digest: DefaultHasher,
}

/// Something that happened.
#[derive(Clone, Debug)]
pub(super) struct Line {
    pub at: Duration,
    /// The agent that it happened to; none if it concerns the whole cluster.
    pub agent: Option<usize>,
    /// The message that it happened to.
    pub message: Option<usize>,
    pub text: String,
}

/// A run's record when it is over.
#[derive(Debug)]
pub(super) struct Record {
    pub history: History,
    pub digest: u64,
    pub packets: u64,
    pub bytes: u64,
    pub lines: Vec<Line>,
}

impl Seen {
    pub(super) fn now(&self) -> Duration {
        self.0.lock().now
    }

    /// Time passes.
    pub(super) fn set_now(&self, now: Duration) {
        self.0.lock().now = now;
    }

    /// One datagram in so many is lost; 0 for none.
    pub(super) fn loss_one_in(&self) -> u32 {
        self.0.lock().loss_one_in
    }

    pub(super) fn set_loss(&self, one_in: u32) {
        self.0.lock().loss_one_in = one_in;
    }

    /// A node sends a datagram.
    pub(super) fn packet(&self, from: usize, to: SocketAddr, len: usize) {
        let mut state = self.0.lock();
        let now = state.now;
        (now, from, to, len).hash(&mut state.digest);
        state.packets += 1;
        state.bytes += len as u64;
    }

    /// Something that concerns the whole cluster.
    pub(super) fn note(&self, text: String) {
        self.0.lock().line(None, None, text);
    }

    /// Changes the record itself.
    pub(super) fn with<T>(&self, change: impl FnOnce(&mut History, Duration) -> T) -> T {
        let mut state = self.0.lock();
        let now = state.now;
        change(&mut state.history, now)
    }

    /// An agent's handshake with a node is done: its session, by its place in the record.
    pub(super) fn opened(&self, agent: usize, home: Life) -> usize {
        let mut state = self.0.lock();
        let (opened, index) = (state.now, state.history.sessions.len());
        let id = SessionId { time: 0, node: cluster::NodeId(home.node as u64) };
        state.history.sessions.push(SessionRecord {
            agent,
            home,
            id,
            opened,
            admitted: None,
            ended: None,
            received: Vec::new(),
            unwritten: 0,
        });
        let Life { node, number } = home;
        let text = format!("agent-{agent} opens session #{index} on node-{node}/{number}");
        state.line(Some(agent), None, text);
        index
    }

    /// The session's welcome has come; `id` is what its node calls it, if the session is there still.
    pub(super) fn welcomed(&self, index: usize, id: Option<SessionId>) {
        let mut state = self.0.lock();
        let now = state.now;
        let Some(session) = state.history.sessions.get_mut(index) else { return };
        session.admitted = Some(now);
        if let Some(id) = id {
            session.id = id;
        }
        let (agent, id) = (session.agent, session.id);
        state.line(
            Some(agent),
            None,
            format!("session #{index} of agent-{agent} ({id}) is welcomed"),
        );
    }

    /// A session ended; what comes later for it does not count.
    pub(super) fn ended(&self, index: usize, why: Ending) {
        let mut state = self.0.lock();
        let now = state.now;
        let Some(session) = state.history.sessions.get_mut(index) else { return };
        if session.ended.is_some() {
            return;
        }
        session.ended = Some((now, why));
        let agent = session.agent;
        if why == Ending::Replaced {
            state.replaced.push((index, now));
        }
        state.line(Some(agent), None, format!("session #{index} of agent-{agent} ends: {why:?}"));
    }

    /// All sessions of a life end.
    pub(super) fn life_ended(&self, life: Life, why: Ending) {
        let of_it = |history: &mut History, _| {
            let sessions = history.sessions.iter().enumerate();
            let open = sessions.filter(|(_, s)| s.home == life && s.ended.is_none());
            open.map(|(index, _)| index).collect::<Vec<_>>()
        };
        for index in self.with(of_it) {
            self.ended(index, why);
        }
    }

    /// An agent does not wait any longer for a node's answer.
    pub(super) fn gives_up(&self, agent: usize, node: usize) {
        let mut state = self.0.lock();
        let now = state.now;
        state.given_up.entry(agent).or_default().push(now);
        state.line(Some(agent), None, format!("agent-{agent} gives up connecting to node-{node}"));
    }

    /// An agent sends a message; its number.
    pub(super) fn sends(&self, session: usize, to: &Recipients) -> usize {
        let mut state = self.0.lock();
        let (accepted, number) = (state.now, state.history.messages.len());
        let message = MessageRecord {
            session,
            accepted,
            to: to.clone(),
            held_back: Vec::new(),
            certain: true,
        };
        state.history.messages.push(message);
        let agent = state.history.sessions.get(session).map(|session| session.agent);
        let text = format!("message {number} to {to:?} on session #{session}");
        state.line(agent, Some(number), text);
        number
    }

    /// A session got a message of that number, whose text was this.
    pub(super) fn received(&self, session: usize, number: usize, text: &str) {
        let mut state = self.0.lock();
        text.hash(&mut state.digest);
        let Some(record) = state.history.sessions.get_mut(session) else { return };
        record.received.push(number);
        let agent = record.agent;
        let text = format!("message {number} reaches session #{session} of agent-{agent}");
        state.line(Some(agent), Some(number), text);
    }

    /// Something that no correct node does.
    pub(super) fn nonsense(&self, what: String, agent: Option<usize>, message: Option<usize>) {
        let mut state = self.0.lock();
        state.line(agent, message, what.clone());
        state.history.nonsense.push(Nonsense { what, agent, message });
    }

    /// The agent of that number whose message this is.
    pub(super) fn sender_of(&self, message: usize) -> Option<usize> {
        self.0.lock().history.sender(message).map(|session| session.agent)
    }

    /// Nothing gets to a node or from it, or does again.
    pub(super) fn holds(&self, node: usize, begins: bool) {
        let mut state = self.0.lock();
        let now = state.now;
        let holds = state.holds.entry(node).or_default();
        match holds.last_mut() {
            Some((_, until @ None)) if !begins => *until = Some(now),
            Some((_, None)) => {}
            _ if begins => holds.push((now, None)),
            _ => {}
        }
    }

    /// The agents begin to write to all others.
    pub(super) fn probe_begins(&self) {
        let mut state = self.0.lock();
        let first = state.history.messages.len();
        state.history.probed.1 = state.history.probed.1.min(first);
    }

    /// The end of the run, in which the nodes have counted so much.
    pub(super) fn close(&self, counted: Counted) -> Record {
        let mut state = std::mem::take(&mut *self.0.lock());
        state.judge_acceptance();
        state.history.replaced = state.takeovers();
        state.judge_counters(counted);
        state.history.frames = state.packets;
        Record {
            digest: state.digest.finish(),
            history: state.history,
            packets: state.packets,
            bytes: state.bytes,
            lines: state.lines,
        }
    }
}

impl State {
    fn line(&mut self, agent: Option<usize>, message: Option<usize>, text: String) {
        let at = self.now;
        (at, &text).hash(&mut self.digest);
        self.lines.push(Line { at, agent, message, text });
    }

    /// What was sent just before its session ended may never have reached a node; and when a node got
    /// what was held on the way to it, nobody knows.
    fn judge_acceptance(&mut self) {
        let History { messages, sessions, .. } = &mut self.history;
        for message in messages {
            let Some(session) = sessions.get(message.session) else { continue };
            let there_by = message.accepted + ON_ITS_WAY_MAX;
            let went_on = session.ended.is_none_or(|(ended, _)| ended > there_by);
            let holds = self.holds.get(&session.home.node).into_iter().flatten();
            let held = |(from, until): &(Duration, Option<Duration>)| {
                *from <= there_by && until.is_none_or(|until| until >= message.accepted)
            };
            message.certain = went_on && !holds.clone().any(held);
        }
    }

    /// What was put into outboxes and never came to an agent is known; what links take along when they
    /// end, nobody outside can count, nor which broadcasts went as direct messages.
    fn judge_counters(&mut self, counted: Counted) {
        let Counted { lost, delivered, links_closed } = counted;
        let arrived: usize = self.history.sessions.iter().map(|s| s.received.len()).sum();
        let unread = delivered.saturating_sub(arrived as u64);
        self.history.lost = lost;
        self.history.vanished = if links_closed == 0 { unread } else { UNCOUNTABLE };
        self.history.unseen = UNCOUNTABLE;
    }

    /// The sessions that were closed with 4009, each with the one that took over as far as that can be
    /// told from outside: one that was opened later, or else the other one that lives.
    fn takeovers(&self) -> Vec<(usize, SessionId)> {
        let sessions = &self.history.sessions;
        let by = |(index, at): &(usize, Duration)| {
            let agent = sessions[*index].agent;
            let others = || sessions.iter().enumerate().filter(move |(_, s)| s.agent == agent);
            if let Some((_, later)) =
                others().find(|(other, s)| other > index && s.opened <= *at + TAKEOVER_MAX)
            {
                return Some((*index, later.id));
            }
            // One that the agent knows nothing of may have been opened by a handshake that it gave up.
            if self.given_up.get(&agent).is_some_and(|times| times.iter().any(|time| time <= at)) {
                return None;
            }
            let lives = |s: &SessionRecord| s.ended.is_none_or(|(ended, _)| ended >= *at);
            let other = others().find(|(other, s)| other < index && lives(s));
            Some((*index, other.map_or(sessions[*index].id, |(_, session)| session.id)))
        };
        self.replaced.iter().filter_map(by).collect()
    }
}
