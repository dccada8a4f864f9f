//! Who gets a message, and how it gets into their outboxes.
//!
//! One [`Outgoing`] collects what the messages of one read caused: which outboxes got something to
//! write, and what to count. When the read is done, few outboxes are written at once, on the
//! thread that is here anyway; many are left to their own tasks, so that one reader of a broadcast
//! does not do a thousand writes while its other messages wait. What is for agents of other nodes is
//! handed to the mesh, if there is one.

use std::{borrow::Cow, collections::HashSet, mem, sync::Arc, time::Duration};

use bytes::Bytes;
use cluster::{AgentId, mesh, wire::Body};
use smallvec::SmallVec;

use crate::{
    config::SubscribeScope,
    message::Targets,
    relay::Relay,
    session::{
        Delivery, Session,
        outbox::{Frame, SHARE_FROM},
    },
    traces::Outcome,
};

/// Up to this many outboxes are written by the thread that filled them.
const WRITTEN_AT_ONCE_MAX: usize = 4;

/// What the messages of one read caused so far.
#[derive(Debug)]
pub struct Outgoing<'r> {
    relay: &'r Relay,
    deliveries: Deliveries,
    /// Gets its list back in the end.
    lender: &'r mut Vec<Arc<Session>>,
}

/// Which outboxes got something to write, and what is to be counted.
#[derive(Debug)]
pub(crate) struct Deliveries {
    now: Duration,
    unwritten: Vec<Arc<Session>>,
    pub(crate) counts: Counts,
}

/// What is to be counted.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    direct: u64,
    broadcast: u64,
    command: u64,
    pub(crate) delivered_direct: u64,
    delivered_broadcast: u64,
    pub(crate) followed: u64,
    relay: u64,
    offline: u64,
    refused: u64,
    slow_consumer: u64,
}

/// Agents that have no session here, or a fenced one.
type Elsewhere<'a> = SmallVec<[&'a str; 8]>;

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
        let deliveries = Deliveries::new(now, mem::take(unwritten));
        Self { relay, deliveries, lender: unwritten }
    }

    /// Delivers a message of `from` to its targets; commands are not delivered to anybody.
    pub fn route(&mut self, from: &Arc<Session>, targets: &Targets<'_>, frame: &Finished<'_>) {
        let Some(message) = self.relay.traces.traced(frame.bytes()) else {
            return self.hand_out(from, targets, frame);
        };
        let (clock, before) = (&self.relay.clock, self.deliveries.counts);
        let start = clock.elapsed();
        self.hand_out(from, targets, frame);
        let (end, went) = (clock.elapsed(), self.deliveries.counts.since(&before));
        let named = if let Targets::Agents(agents) = targets { agents.len() as u64 } else { 0 };
        let (here, read) = (went.tried(), self.deliveries.now.min(start));
        let traces = &self.relay.traces;
        traces.accepted(message, [read, start, end], [here, named.saturating_sub(here)]);
        if here > 0 {
            traces.delivered(message, "", [start, end], went.outcome());
        }
        if went.offline > 0 {
            traces.lost(message, mesh::Lost::Offline, end);
        }
    }

    fn hand_out(&mut self, from: &Arc<Session>, targets: &Targets<'_>, frame: &Finished<'_>) {
        match targets {
            Targets::Relay => {}
            Targets::All => self.broadcast(from, frame),
            Targets::Agents(agents) => self.direct(from, agents, frame),
        }
    }

    /// Sends one of the relay's own messages to one session.
    pub fn answer(&mut self, to: &Arc<Session>, frame: &Finished<'_>) {
        let delivered = self.control(to, frame);
        self.deliveries.counts.relay += u64::from(delivered);
    }

    /// Sends a control frame, which is no message, to one session; whether it waits there.
    pub fn control(&mut self, to: &Arc<Session>, frame: &Finished<'_>) -> bool {
        let delivery = to.post(&frame.0, self.deliveries.now);
        self.deliveries.conclude(to, delivery)
    }

    /// Counts a command.
    pub fn count_command(&mut self) {
        self.deliveries.counts.command += 1;
    }

    fn direct(&mut self, from: &Session, agents: &[Cow<'_, str>], frame: &Finished<'_>) {
        self.deliveries.counts.direct += 1;
        let (delivered, elsewhere) = self.deliver(agents.iter().map(AsRef::as_ref), frame);
        self.deliveries.counts.delivered_direct += delivered;
        self.deliveries.counts.offline += self.send(from, false, elsewhere, frame);
        if self.relay.config.subscribe_scope == SubscribeScope::All {
            self.followers(from, agents, frame);
        }
    }

    fn followers(&mut self, from: &Session, agents: &[Cow<'_, str>], frame: &Finished<'_>) {
        let named: HashSet<&str> = agents.iter().map(AsRef::as_ref).collect();
        let subscriptions = self.relay.subscriptions.read();
        let others = |agent: &&AgentId| *agent != from.agent() && !named.contains(agent.as_str());
        let followers: Vec<_> =
            subscriptions.followers(from.agent()).filter(others).cloned().collect();
        drop(subscriptions);
        let (delivered, elsewhere) = self.deliver(followers.iter().map(AgentId::as_str), frame);
        self.deliveries.counts.followed += delivered;
        // That a follower is not connected is no loss.
        self.send(from, true, elsewhere, frame);
    }

    /// Puts a message into the outboxes of those who are here; says of how many, and who is not.
    fn deliver<'a>(
        &mut self,
        agents: impl Iterator<Item = &'a str>,
        frame: &Finished<'_>,
    ) -> (u64, Elsewhere<'a>) {
        let (mut delivered, mut elsewhere) = (0, Elsewhere::new());
        for agent in agents {
            match self.relay.sessions.get(agent).filter(|session| !session.is_fenced()) {
                Some(session) => {
                    delivered += u64::from(self.deliveries.deliver(&session, &frame.0));
                }
                None => elsewhere.push(agent),
            }
        }
        (delivered, elsewhere)
    }

    /// Sends a message to agents by way of the mesh. Returns how many cannot be anywhere.
    fn send(
        &mut self,
        from: &Session,
        followed: bool,
        mut targets: Elsewhere<'_>,
        frame: &Finished<'_>,
    ) -> u64 {
        let named = targets.len();
        let Some(mesh) = self.relay.mesh() else { return named as u64 };
        targets.retain(|agent| AgentId::is_well_formed(agent));
        if !targets.is_empty() {
            mesh.direct(&frame.outgoing(from, followed), &targets, self.deliveries.now);
        }
        (named - targets.len()) as u64
    }

    fn broadcast(&mut self, from: &Session, frame: &Finished<'_>) {
        self.deliveries.counts.broadcast += 1;
        let relay = self.relay;
        let except = relay
            .mesh()
            .map(|mesh| mesh.broadcast(&frame.outgoing(from, false), self.deliveries.now))
            .unwrap_or_default();
        let except: HashSet<&str> = except.iter().map(AgentId::as_str).collect();
        let from = from.agent().as_str();
        let is_left_out = |agent: &str| agent == from || except.contains(agent);
        self.deliveries.broadcast(&relay.sessions.all(), &frame.0, is_left_out);
    }
}

/// Sees to the writing of all that was delivered, and counts it, on every path: nobody else would.
impl Drop for Outgoing<'_> {
    fn drop(&mut self) {
        self.deliveries.finish(self.relay);
        *self.lender = mem::take(&mut self.deliveries.unwritten);
    }
}

impl Finished<'_> {
    fn bytes(&self) -> &[u8] {
        match &self.0 {
            Frame::Small(bytes) => bytes,
            Frame::Large(bytes) => bytes,
        }
    }

    /// The frame on its way to other nodes.
    fn outgoing<'a>(&'a self, from: &'a Session, followed: bool) -> mesh::Outgoing<'a> {
        let body = match &self.0 {
            Frame::Small(bytes) => Body::Borrowed(bytes),
            Frame::Large(bytes) => Body::Shared(bytes.clone()),
        };
        mesh::Outgoing { from: from.agent(), lane: from.lane(), followed, body }
    }
}

impl Deliveries {
    /// Nothing so far; `unwritten` is an empty list.
    pub(crate) fn new(now: Duration, mut unwritten: Vec<Arc<Session>>) -> Self {
        unwritten.clear();
        Self { now, unwritten, counts: Counts::default() }
    }

    /// Puts an agent's message into an outbox; says whether it waits there.
    pub(crate) fn deliver(&mut self, session: &Arc<Session>, frame: &Frame<'_>) -> bool {
        let delivery = session.deliver(frame, self.now);
        self.conclude(session, delivery)
    }

    /// Puts a broadcast into the outboxes of all but those left out, and but held sessions.
    pub(crate) fn broadcast(
        &mut self,
        sessions: &[Arc<Session>],
        frame: &Frame<'_>,
        is_left_out: impl Fn(&str) -> bool,
    ) {
        for session in sessions {
            if !session.is_held() && !is_left_out(session.agent().as_str()) {
                let delivered = self.deliver(session, frame);
                self.counts.delivered_broadcast += u64::from(delivered);
            }
        }
    }

    /// Sees to the writing of all that was delivered, and counts it.
    pub(crate) fn finish(&mut self, relay: &Relay) {
        let at_once = self.unwritten.len() <= WRITTEN_AT_ONCE_MAX && !std::thread::panicking();
        for session in self.unwritten.drain(..) {
            if at_once { session.flush(self.now) } else { session.wake() }
        }
        mem::take(&mut self.counts).add_to(relay);
    }

    /// Leaves the writing of what was delivered so far to the sessions' own tasks.
    pub(crate) fn wake_all(&mut self) {
        self.unwritten.drain(..).for_each(|session| session.wake());
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

impl Counts {
    /// What was counted since `before`, of what has to do with deliveries.
    pub(crate) fn since(&self, before: &Self) -> Self {
        Self {
            delivered_direct: self.delivered_direct - before.delivered_direct,
            delivered_broadcast: self.delivered_broadcast - before.delivered_broadcast,
            followed: self.followed - before.followed,
            offline: self.offline - before.offline,
            refused: self.refused - before.refused,
            slow_consumer: self.slow_consumer - before.slow_consumer,
            ..Self::default()
        }
    }

    fn delivered(&self) -> u64 {
        self.delivered_direct + self.delivered_broadcast + self.followed
    }

    /// For how many agents that are here it was.
    fn tried(&self) -> u64 {
        self.delivered() + self.refused + u64::from(self.slow_consumer > 0)
    }

    /// The same, as a trace has it.
    pub(crate) fn outcome(&self) -> Outcome {
        let error = match (self.refused, self.slow_consumer) {
            (_, 1..) => Some("slow_consumer"),
            (1.., _) => Some("refused"),
            _ => None,
        };
        Outcome { counts: vec![("arc.delivered", self.delivered())], peer: None, error }
    }

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
