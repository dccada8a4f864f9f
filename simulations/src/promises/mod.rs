//! The promises of PROTOCOL section 5, and what follows from them, each in a file of its own.
//!
//! Each looks at what was seen in a run and at nothing else: it knows neither engines nor links. What
//! a promise does not cover is written down at it.

mod at_most_once;
mod counted;
mod from;
mod healed;
mod newest_wins;
mod nothing_lost;
mod one_session;
mod order;
mod welcome;

use std::{fmt, time::Duration};

use crate::core::history::History;

/// A promise: its name, and what breaks it in a run.
type Promise = (&'static str, fn(&History) -> Vec<Breach>);

/// All promises, in the order in which they are judged: what explains others comes first.
pub const PROMISES: [Promise; 9] = [
    (from::NAME, from::breaches),
    (at_most_once::NAME, at_most_once::breaches),
    (order::NAME, order::breaches),
    (newest_wins::NAME, newest_wins::breaches),
    (one_session::NAME, one_session::breaches),
    (welcome::NAME, welcome::breaches),
    (nothing_lost::NAME, nothing_lost::breaches),
    (healed::NAME, healed::breaches),
    (counted::NAME, counted::breaches),
];

/// A broken promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Breach {
    /// Which promise.
    pub promise: &'static str,
    /// What was seen, in words.
    pub what: String,
    /// The agents that it concerns.
    pub agents: Vec<usize>,
    /// The messages that it concerns.
    pub messages: Vec<usize>,
    /// Where in the run to look.
    pub from: Duration,
    /// Until where.
    pub until: Duration,
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.promise, self.what)
    }
}

/// What breaks the promises in a run.
pub fn breaches(history: &History) -> Vec<Breach> {
    PROMISES.iter().flat_map(|(_, breaches)| breaches(history)).collect()
}

/// A message and a session that was to get it.
#[derive(Clone, Copy, Debug)]
struct Due {
    message: usize,
    session: usize,
}

/// Every message with every session that was to get it and did not.
///
/// A session was to get a message that is for its agent if
/// - it was accepted for certain;
/// - its welcome was out when the message was accepted, and it lived on while the message may have
///   been under way;
/// - its agent had no newer session by then (opened later, or of a higher id): what goes to that one
///   is that one's;
/// - no older session of its agent was open still on a node that its own could not reach: two sessions
///   of one agent on two sides of a partition are both right, and who reaches both sides may write to
///   either;
/// - nothing stood between the sender's node and its own meanwhile, both of which lived on. The nodes
///   of the two agents are no *other* nodes: if one of them is cut off from the other, stands
///   still or crashes, what is under way between them may be lost.
fn missing(history: &History, wanted: impl Fn(&Due) -> bool) -> Vec<Due> {
    use crate::core::history::UNDER_WAY_MAX;
    let got: Vec<std::collections::HashSet<usize>> =
        history.sessions.iter().map(|s| s.received.iter().copied().collect()).collect();
    let mut missing = Vec::new();
    for (number, message) in history.messages.iter().enumerate() {
        let sender = &history.sessions[message.session];
        let until = message.accepted + UNDER_WAY_MAX;
        for (index, session) in history.sessions.iter().enumerate() {
            let due = Due { message: number, session: index };
            let (here, there) = (session.home, sender.home);
            if message.certain
                && message.to.include(session.agent, sender.agent)
                && session.lived_through(message.accepted, until)
                && !got[index].contains(&number)
                && wanted(&due)
                && history.undisturbed(here.node, there.node, message.accepted)
                && history.lived_on(there, message.accepted)
                && !history.has_newer(index, until)
                && !history.has_older_beyond_reach(index, message.accepted)
            {
                missing.push(due);
            }
        }
    }
    missing
}

/// The breach that a message did not reach a session.
fn not_got(promise: &'static str, history: &History, due: Due) -> Breach {
    let (message, session) = (&history.messages[due.message], &history.sessions[due.session]);
    let sender = &history.sessions[message.session];
    let what = format!(
        "message {} of agent-{} on node-{}, accepted at {:.3} s, did not reach agent-{} on node-{}, \
         whose session {} was welcomed at {:.3} s",
        due.message,
        sender.agent,
        sender.home.node,
        message.accepted.as_secs_f64(),
        session.agent,
        session.home.node,
        session.id,
        session.admitted.unwrap_or_default().as_secs_f64(),
    );
    Breach {
        promise,
        what,
        agents: vec![session.agent],
        messages: vec![due.message],
        from: message.accepted.saturating_sub(Duration::from_secs(3)),
        until: message.accepted + Duration::from_secs(5),
    }
}

/// Histories for the promises' own tests.
#[cfg(test)]
pub(crate) mod example {
    use std::time::Duration;

    use cluster::{NodeId, SessionId};

    use crate::core::{
        Life,
        history::{History, MessageRecord, Recipients, SessionRecord},
    };

    /// A session of an agent on a node, welcomed when it was opened.
    pub(crate) fn session(agent: usize, node: usize, opened_ms: u64) -> SessionRecord {
        let opened = Duration::from_millis(opened_ms);
        SessionRecord {
            agent,
            home: Life { node, number: 1 },
            id: SessionId { time: opened_ms, node: NodeId(node as u64) },
            opened,
            admitted: Some(opened),
            ended: None,
            received: Vec::new(),
            unwritten: 0,
        }
    }

    /// Agents 0, 1 and 2, each on the node of its number, since the start; for a minute.
    pub(crate) fn three() -> History {
        History {
            sessions: (0..3).map(|agent| session(agent, agent, 0)).collect(),
            ended: Duration::from_mins(1),
            probed: (Duration::from_secs(50), usize::MAX),
            healed: Duration::from_secs(40),
            ..History::default()
        }
    }

    /// Has the session's agent send a message, and the sessions of `reached` get it.
    pub(crate) fn send(
        history: &mut History,
        session: usize,
        at_ms: u64,
        to: Recipients,
        reached: &[usize],
    ) {
        let number = history.messages.len();
        let accepted = Duration::from_millis(at_ms);
        history.messages.push(MessageRecord {
            session,
            accepted,
            to,
            held_back: Vec::new(),
            certain: true,
        });
        for index in reached {
            history.sessions[*index].received.push(number);
        }
    }
}
