//! Who gets a message, and how it gets into their outboxes.
//!
//! One [`Outgoing`] collects what the messages of one read caused: which outboxes got something to
//! write, and what to count. When the read is done, few outboxes are written at once, on the
//! thread that is here anyway; many are left to their own tasks, so that one reader of a broadcast
//! does not do a thousand writes while its other messages wait.

use std::{borrow::Cow, collections::HashSet, sync::Arc, time::Duration};

use bytes::Bytes;
use cluster::AgentId;

use crate::{
    config::SubscribeScope,
    message::Targets,
    relay::Relay,
    session::{
        Delivery, Session,
        outbox::{Frame, SHARE_FROM},
    },
};

/// Up to this many outboxes are written by the thread that filled them.
const WRITTEN_AT_ONCE_MAX: usize = 4;

/// What the messages of one read caused so far.
#[derive(Debug)]
pub struct Outgoing<'r> {
    relay: &'r Relay,
    now: Duration,
    unwritten: &'r mut Vec<Arc<Session>>,
    counts: Counts,
}

#[derive(Debug, Default)]
struct Counts {
    direct: u64,
    broadcast: u64,
    command: u64,
    delivered_direct: u64,
    delivered_broadcast: u64,
    followed: u64,
    relay: u64,
    offline: u64,
    refused: u64,
    slow_consumer: u64,
}

/// A finished frame: copied into each outbox if it is small, shared by all if it is large.
#[derive(Debug)]
pub struct Finished<'a>(Frame<'a>);

impl<'a> Finished<'a> {
    /// The frame that `write` appends to a vector, `about` bytes long; small ones use `scratch`.
    pub fn write(scratch: &'a mut Vec<u8>, about: usize, write: impl FnOnce(&mut Vec<u8>)) -> Self {
        if about < SHARE_FROM {
            scratch.clear();
            write(scratch);
            Self(Frame::Small(scratch))
        } else {
            let mut bytes = Vec::new();
            write(&mut bytes);
            Self(Frame::Large(Bytes::from(bytes)))
        }
    }
}

impl<'r> Outgoing<'r> {
    /// Nothing so far; `unwritten` is an empty list, lent to save an allocation.
    pub fn new(relay: &'r Relay, now: Duration, unwritten: &'r mut Vec<Arc<Session>>) -> Self {
        unwritten.clear();
        Self { relay, now, unwritten, counts: Counts::default() }
    }

    /// Delivers a message of `from` to its targets; commands are not delivered to anybody.
    pub fn route(&mut self, from: &Arc<Session>, targets: &Targets<'_>, frame: &Finished<'_>) {
        match targets {
            Targets::Relay => {}
            Targets::All => self.broadcast(from, frame),
            Targets::Agents(agents) => self.direct(from, agents, frame),
        }
    }

    /// Sends one of the relay's own messages, or a control frame, to one session.
    pub fn answer(&mut self, to: &Arc<Session>, frame: &Finished<'_>) {
        let delivery = to.post(&frame.0, self.now);
        self.counts.relay += u64::from(self.conclude(to, delivery));
    }

    /// Counts a command.
    pub fn count_command(&mut self) {
        self.counts.command += 1;
    }

    fn direct(&mut self, from: &Arc<Session>, agents: &[Cow<'_, str>], frame: &Finished<'_>) {
        self.counts.direct += 1;
        for agent in agents {
            let delivered = self.deliver(agent, frame);
            self.counts.delivered_direct += u64::from(delivered);
        }
        if self.relay.config.subscribe_scope == SubscribeScope::All {
            self.followers(from, agents, frame);
        }
    }

    fn followers(&mut self, from: &Arc<Session>, agents: &[Cow<'_, str>], frame: &Finished<'_>) {
        let named: HashSet<&str> = agents.iter().map(AsRef::as_ref).collect();
        let subscriptions = self.relay.subscriptions.read();
        let others = |agent: &&AgentId| *agent != from.agent() && !named.contains(agent.as_str());
        let followers: Vec<_> =
            subscriptions.followers(from.agent()).filter(others).cloned().collect();
        drop(subscriptions);
        for follower in followers {
            if let Some(session) = self.relay.sessions.get(follower.as_str()) {
                let delivery = session.deliver(&frame.0, self.now);
                self.counts.followed += u64::from(self.conclude(&session, delivery));
            }
        }
    }

    fn broadcast(&mut self, from: &Arc<Session>, frame: &Finished<'_>) {
        self.counts.broadcast += 1;
        for session in self.relay.sessions.all().iter() {
            if session.agent() != from.agent() {
                let delivery = session.deliver(&frame.0, self.now);
                let delivered = self.conclude(session, delivery);
                self.counts.delivered_broadcast += u64::from(delivered);
            }
        }
    }

    fn deliver(&mut self, agent: &str, frame: &Finished<'_>) -> bool {
        let Some(session) = self.relay.sessions.get(agent) else {
            self.counts.offline += 1;
            return false;
        };
        let delivery = session.deliver(&frame.0, self.now);
        self.conclude(&session, delivery)
    }

    /// Notes what a delivery asks for; says whether the frame waits in the outbox.
    fn conclude(&mut self, session: &Arc<Session>, delivery: Delivery) -> bool {
        match delivery {
            Delivery::Queued => return true,
            Delivery::Unwritten => {
                self.unwritten.push(Arc::clone(session));
                return true;
            }
            Delivery::Refused => self.counts.refused += 1,
            Delivery::CutOff(messages) => self.counts.slow_consumer += messages as u64,
        }
        false
    }
}

/// Sees to the writing of all that was delivered, and counts it, on every path: nobody else would.
impl Drop for Outgoing<'_> {
    fn drop(&mut self) {
        let at_once = self.unwritten.len() <= WRITTEN_AT_ONCE_MAX && !std::thread::panicking();
        for session in self.unwritten.drain(..) {
            if at_once { session.flush(self.now) } else { session.wake() }
        }
        self.counts.add_to(self.relay);
    }
}

impl Counts {
    fn add_to(&self, relay: &Relay) {
        let metrics = &relay.metrics;
        for (counter, by) in [
            (&metrics.received.direct, self.direct),
            (&metrics.received.broadcast, self.broadcast),
            (&metrics.received.command, self.command),
            (&metrics.delivered.direct, self.delivered_direct),
            (&metrics.delivered.broadcast, self.delivered_broadcast),
            (&metrics.delivered.followed, self.followed),
            (&metrics.delivered.relay, self.relay),
            (&metrics.dropped.offline, self.offline),
            (&metrics.dropped.refused, self.refused),
            (&metrics.dropped.slow_consumer, self.slow_consumer),
        ] {
            if by > 0 {
                counter.increment(by);
            }
        }
        relay.traffic.count(self.direct + self.broadcast + self.command);
    }
}
