//! What comes from other nodes, into the outboxes of this one's sessions.
//!
//! The mesh calls, from the tasks of its links or of the sessions here; nothing in this file calls
//! the mesh, waits, or takes a lock for longer than a moment.

use std::{
    collections::HashSet,
    sync::{Arc, Weak},
};

use bytes::Bytes;
use cluster::{
    AgentId, NodeId, SessionId,
    mesh::{Batch, Deliver, Lost, Pushed},
    wire::{Body, Names, Spent},
};
use smallvec::SmallVec;

use crate::{
    relay::Relay,
    router::Deliveries,
    session::{
        Session,
        actor::REPLACED,
        outbox::{Frame, SHARE_FROM},
    },
    ws::CloseCode,
};

/// The sessions of a relay, as the mesh speaks to them.
///
/// The relay holds the mesh, so the mesh does not hold the relay: once that is gone, nothing is
/// delivered any more.
#[derive(Debug)]
pub struct Sink {
    relay: Weak<Relay>,
    /// Whether messages are traced: if not, a frame that is passed on costs nothing here.
    traces: bool,
}

impl Sink {
    /// Delivers to the sessions of `relay`.
    pub fn new(relay: &Arc<Relay>) -> Self {
        Self { relay: Arc::downgrade(relay), traces: relay.traces.is_on() }
    }

    fn session(&self, agent: &AgentId) -> Option<Arc<Session>> {
        self.relay.upgrade()?.sessions.get(agent.as_str())
    }

    /// The relay, if it traces messages.
    fn traced(&self) -> Option<Arc<Relay>> {
        self.traces.then(|| self.relay.upgrade())?
    }
}

impl Deliver for Sink {
    fn batch(&self) -> Box<dyn Batch + '_> {
        match self.relay.upgrade() {
            Some(relay) => Box::new(Arriving::new(relay)),
            None => Box::new(Nowhere),
        }
    }

    fn direct(&self, agent: &AgentId, body: &Body<'_>, followed: bool) -> bool {
        let Some(relay) = self.relay.upgrade() else { return false };
        let mut arriving = Arriving::new(relay);
        let is_here = arriving.direct(agent.as_str(), body, followed);
        arriving.deliveries.wake_all();
        is_here
    }

    fn replaced(&self, agent: &AgentId, by: SessionId) {
        let Some(relay) = self.relay.upgrade() else { return };
        if let Some(older) = relay.sessions.take_older(agent, by) {
            older.close(CloseCode::Replaced, REPLACED);
        }
    }

    fn admitted(&self, agent: &AgentId, session: SessionId) {
        if let Some(held) = self.session(agent).filter(|held| held.id() == session) {
            held.admit();
        }
    }

    fn unfenced(&self, agent: &AgentId) {
        if let Some(session) = self.session(agent) {
            session.unfence();
        }
    }

    fn spent(&self, agent: &AgentId, spent: Spent) {
        if let Some(limiter) = self.relay.upgrade().and_then(|relay| relay.limiter(agent)) {
            limiter.absorb(&spent);
        }
    }

    fn lost(&self, why: Lost, messages: u64) {
        let Some(relay) = self.relay.upgrade() else { return };
        let dropped = &relay.metrics.dropped;
        let counter = match why {
            Lost::Offline => &dropped.offline,
            Lost::Unresolved => &dropped.unresolved,
            Lost::RouteFull => &dropped.route_full,
            Lost::LinkFull => &dropped.link_full,
            Lost::LinkLost => &dropped.link_lost,
            Lost::Stale => &dropped.stale,
            Lost::Stray => &dropped.stray,
        };
        counter.increment(messages);
    }

    fn passed(&self, to: NodeId, body: &Body<'_>, pushed: Pushed) {
        let Some(relay) = self.traced() else { return };
        if let Some(traced) = relay.traces.traced(body.as_slice()) {
            relay.traces.sent(traced, to, pushed, relay.clock.elapsed());
        }
    }

    fn missed(&self, why: Lost, body: &Body<'_>) {
        let Some(relay) = self.traced() else { return };
        if let Some(traced) = relay.traces.traced(body.as_slice()) {
            relay.traces.lost(traced, why, relay.clock.elapsed());
        }
    }
}

/// Messages that came together from another node.
struct Arriving {
    relay: Arc<Relay>,
    deliveries: Deliveries,
}

impl Arriving {
    fn new(relay: Arc<Relay>) -> Self {
        let deliveries = Deliveries::new(relay.clock.elapsed(), Vec::new());
        Self { relay, deliveries }
    }

    /// Hands a message to an agent; `false` if it has no session here. `made` is its frame, once
    /// somebody has needed it.
    fn hand<'b>(
        &mut self,
        agent: &str,
        body: &'b Body<'_>,
        made: &mut Option<Frame<'b>>,
        followed: bool,
    ) -> bool {
        let Some(session) = self.relay.sessions.get(agent) else { return false };
        let frame = made.get_or_insert_with(|| frame(body));
        self.traced(body, agent, |arriving| {
            let delivered = arriving.deliveries.deliver(&session, frame);
            let counts = &mut arriving.deliveries.counts;
            let counter =
                if followed { &mut counts.followed } else { &mut counts.delivered_direct };
            *counter += u64::from(delivered);
        });
        true
    }

    /// Delivers, and leaves a trace of it if the message is one of those.
    fn traced(&mut self, body: &Body<'_>, agent: &str, deliver: impl FnOnce(&mut Self)) {
        let Some(traced) = self.relay.traces.traced(body.as_slice()) else { return deliver(self) };
        let (start, before) = (self.relay.clock.elapsed(), self.deliveries.counts);
        deliver(self);
        let outcome = self.deliveries.counts.since(&before).outcome();
        let times = [start, self.relay.clock.elapsed()];
        self.relay.traces.delivered(traced, agent, times, outcome);
    }
}

impl Batch for Arriving {
    fn direct(&mut self, agent: &str, body: &Body<'_>, followed: bool) -> bool {
        self.hand(agent, body, &mut None, followed)
    }

    fn directs<'n>(
        &mut self,
        agents: &Names<'n>,
        body: &Body<'_>,
        followed: bool,
    ) -> SmallVec<[&'n str; 4]> {
        let mut made = None;
        agents.iter().filter(|agent| !self.hand(agent, body, &mut made, followed)).collect()
    }

    fn broadcast(&mut self, from: &str, except: Names<'_>, body: &Body<'_>) {
        let except: HashSet<&str> = except.iter().collect();
        let is_left_out = |agent: &str| agent == from || except.contains(agent);
        self.traced(body, "", |arriving| {
            let sessions = arriving.relay.sessions.all();
            arriving.deliveries.broadcast(&sessions, &frame(body), is_left_out);
        });
    }
}

/// However the batch ends, what was delivered is written and counted.
impl Drop for Arriving {
    fn drop(&mut self) {
        self.deliveries.finish(&self.relay);
    }
}

/// Messages for a relay that is gone.
struct Nowhere;

impl Batch for Nowhere {
    fn direct(&mut self, _: &str, _: &Body<'_>, _: bool) -> bool {
        false
    }

    fn broadcast(&mut self, _: &str, _: Names<'_>, _: &Body<'_>) {}
}

/// A large body is copied once, and shared by all outboxes that it is for. As it came it would keep
/// alive all that was received along with it, which no outbox counts.
fn frame<'a>(body: &'a Body<'_>) -> Frame<'a> {
    let bytes = body.as_slice();
    if bytes.len() < SHARE_FROM {
        Frame::Small(bytes)
    } else {
        Frame::Large(Bytes::copy_from_slice(bytes))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a failed unwrap is a failed test
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        net::testing::Written,
        relay::testing::relay,
        session::{End, testing},
        sessions::Entered,
    };

    const ELSEWHERE: NodeId = NodeId(2);

    /// A relay, and the places of its sessions, which end with a test.
    struct Hall {
        relay: Arc<Relay>,
        sink: Sink,
        entered: Vec<Entered>,
    }

    impl Hall {
        fn new() -> Self {
            let (relay, _, _) = relay();
            Self { sink: Sink::new(&relay), relay, entered: Vec::new() }
        }

        fn enter(&mut self, (session, written): (Arc<Session>, Written)) -> Visitor {
            self.entered.push(self.relay.sessions.enter(Arc::clone(&session)));
            Visitor { session, written }
        }

        fn direct(&self, agent: &str, body: &str) -> bool {
            self.sink.batch().direct(agent, &Body::Borrowed(body.as_bytes()), false)
        }

        fn broadcast(&self, from: &str, except: &[&str], body: &str) {
            let body = Body::Borrowed(body.as_bytes());
            self.sink.batch().broadcast(from, Names::List(except), &body);
        }

        fn count(&self, line: &str) -> bool {
            self.relay.metrics.render().lines().any(|l| l == line)
        }
    }

    struct Visitor {
        session: Arc<Session>,
        written: Written,
    }

    impl Visitor {
        /// What the agent got since this was asked last.
        fn got(&self) -> String {
            self.session.flush(Duration::ZERO);
            self.written.take()
        }
    }

    #[test]
    fn messages_go_to_those_who_are_here_and_are_counted() {
        let mut hall = Hall::new();
        let (ann, bob) =
            (hall.enter(testing::session("ann", 1)), hall.enter(testing::session("bob", 1)));
        assert!(hall.direct("bob", "1"));
        assert!(!hall.direct("eve", "2"), "the mesh is told that she is not here");
        hall.broadcast("far", &["ann"], "3");
        hall.broadcast("ann", &[], "4");
        assert_eq!((ann.written.take().as_str(), bob.written.take().as_str()), ("", "134"));
        assert!(hall.count("arc_messages_delivered_total{kind=\"direct\"} 1"));
        assert!(hall.count("arc_messages_delivered_total{kind=\"broadcast\"} 2"));
    }

    #[test]
    fn a_message_that_comes_under_the_locks_of_the_mesh_is_written_by_the_sessions_task() {
        let mut hall = Hall::new();
        let bob = hall.enter(testing::session("bob", 1));
        assert!(hall.sink.direct(bob.session.agent(), &Body::Borrowed(b"1"), false));
        assert_eq!(bob.written.take(), "", "no write call");
        assert_eq!(bob.got(), "1");
        assert!(hall.count("arc_messages_delivered_total{kind=\"direct\"} 1"));
        assert!(!hall.sink.direct(&"eve".parse().unwrap(), &Body::Borrowed(b"2"), false));
    }

    #[test]
    fn a_held_session_gets_what_is_for_it_after_its_welcome_and_no_broadcast() {
        let mut hall = Hall::new();
        let bob = hall.enter(testing::held("bob", 5));
        let _ = bob.session.post(&Frame::Small(b"welcome "), Duration::ZERO);
        assert!(hall.direct("bob", "1"));
        hall.broadcast("far", &[], "2");
        assert_eq!(bob.got(), "");
        hall.sink.admitted(bob.session.agent(), SessionId { time: 4, node: NodeId(1) });
        assert_eq!(bob.got(), "", "an older session of his was meant");
        hall.sink.admitted(bob.session.agent(), bob.session.id());
        hall.broadcast("far", &[], "3");
        assert_eq!(bob.got(), "welcome 13");
        assert!(bob.session.is_fenced());
        hall.sink.unfenced(bob.session.agent());
        assert!(!bob.session.is_fenced());
    }

    #[test]
    fn a_session_that_was_replaced_elsewhere_is_gone_at_once() {
        let mut hall = Hall::new();
        let bob = hall.enter(testing::session("bob", 5));
        let agent = bob.session.agent().clone();
        hall.sink.replaced(&agent, SessionId { time: 4, node: ELSEWHERE });
        assert!(hall.direct("bob", "1"), "the other one is older");
        hall.sink.replaced(&agent, SessionId { time: 5, node: ELSEWHERE });
        assert!(!hall.direct("bob", "2"));
        assert_eq!(bob.session.end(), Some(End::Replaced));
        let again = hall.enter(testing::session("bob", 9));
        hall.entered.remove(0);
        assert!(hall.direct("bob", "3"), "its late goodbye does not disturb its successor");
        assert_eq!(again.got(), "3");
    }

    #[test]
    fn a_message_does_not_keep_what_came_with_it() {
        let received = Bytes::from(vec![b'x'; 2 * SHARE_FROM]);
        let small = Body::Shared(received.slice(..SHARE_FROM - 1));
        let large = Body::Shared(received.slice(..SHARE_FROM));
        assert!(matches!(frame(&small), Frame::Small(_)));
        let Frame::Large(kept) = frame(&large) else { panic!("it is not shared") };
        assert_eq!(kept, received.slice(..SHARE_FROM));
        drop((small, large));
        assert!(received.is_unique(), "what came is free again");
    }

    #[test]
    fn what_is_for_several_is_copied_once() {
        let mut hall = Hall::new();
        let (ann, bob) =
            (hall.enter(testing::session("ann", 1)), hall.enter(testing::session("bob", 1)));
        let body = Body::Shared(vec![b'x'; SHARE_FROM].into());
        let names = Names::List(&["ann", "eve", "bob"]);
        assert_eq!(hall.sink.batch().directs(&names, &body, false)[..], ["eve"]);
        assert_eq!(ann.written.take().len(), SHARE_FROM);
        assert_eq!(ann.written.last_at(), bob.written.last_at());
        assert!(hall.count("arc_messages_delivered_total{kind=\"direct\"} 2"));
    }

    #[test]
    fn what_is_lost_is_counted_with_its_reason() {
        let hall = Hall::new();
        let reasons = [
            (Lost::Offline, "offline"),
            (Lost::Unresolved, "unresolved"),
            (Lost::RouteFull, "route_full"),
            (Lost::LinkFull, "link_full"),
            (Lost::LinkLost, "link_lost"),
            (Lost::Stale, "stale"),
            (Lost::Stray, "stray"),
        ];
        for (n, (why, reason)) in (1..).zip(reasons) {
            hall.sink.lost(why, n);
            let line = format!("arc_messages_dropped_total{{reason=\"{reason}\"}} {n}");
            assert!(hall.count(&line), "{line}");
        }
    }

    #[test]
    fn what_was_spent_elsewhere_counts_here() {
        let hall = Hall::new();
        let ann: AgentId = "ann".parse().unwrap();
        hall.sink.spent(&ann, Spent { minute_ns: 60_000_000_000, hour_ns: 0, refusals: 0 });
        let verdict = hall.relay.limiter(&ann).unwrap().judge();
        assert!(matches!(verdict, crate::limits::Verdict::Refused { .. }), "{verdict:?}");
    }

    #[test]
    fn a_relay_that_is_gone_takes_nothing() {
        let hall = Hall::new();
        let Hall { relay, sink, .. } = hall;
        drop(relay);
        assert!(!sink.batch().direct("bob", &Body::Borrowed(b"1"), false));
    }
}
