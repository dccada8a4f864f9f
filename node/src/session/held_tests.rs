//! Sessions that wait until the other nodes know of them, as their agents see it.

#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

use std::{future::poll_fn, sync::Arc, task::Poll};

use cluster::{
    AgentId, NodeId, SessionId,
    mesh::{Batch, Deliver, Lost},
    registry::Claim,
    wire::{Body, Spent},
};
use tokio::io::{AsyncWriteExt as _, DuplexStream, duplex};

use super::{End, Opening, Session, actor::Actor, outbox::OutboxLimits};
use crate::{
    deliver::Sink,
    net::testing::Written,
    peers::testing::{Shown, mesh},
    relay::{Relay, testing::relay},
};

/// Keeps the mesh from admitting anybody: the test does.
struct Deaf(Sink);

impl Deliver for Deaf {
    fn batch(&self) -> Box<dyn Batch + '_> {
        self.0.batch()
    }

    fn direct(&self, agent: &AgentId, body: &Body<'_>, followed: bool) -> bool {
        self.0.direct(agent, body, followed)
    }

    fn replaced(&self, _: &AgentId, _: SessionId) {}

    fn admitted(&self, _: &AgentId, _: SessionId) {}

    fn unfenced(&self, _: &AgentId) {}

    fn spent(&self, _: &AgentId, _: Spent) {}

    fn lost(&self, _: Lost, _: u64) {}
}

/// A relay in a cluster, and an agent that has just connected to it.
struct Arrival {
    relay: Arc<Relay>,
    session: Arc<Session>,
    agent: DuplexStream,
    written: Written,
    actor: Actor,
}

/// A masked text frame, with a mask of zeros.
fn text_frame(text: &str) -> Vec<u8> {
    let len = u8::try_from(text.len()).unwrap();
    let mut frame = vec![0x81, 0x80 | len, 0, 0, 0, 0];
    frame.extend_from_slice(text.as_bytes());
    frame
}

async fn arrive(early: &[u8]) -> Arrival {
    let (relay, clock, _) = relay();
    let deliver = Arc::new(Deaf(Sink::new(&relay)));
    relay.join(mesh(relay.node, deliver), Arc::<Shown>::default());
    let token = relay.registry.register(None, Claim::random()).await.unwrap().token;
    let written = Written::default();
    let opening = Opening {
        id: relay.next_session_id(clock.wall()),
        grant: relay.registry.verify(&token, clock.wall()).unwrap(),
        from: [127, 0, 0, 1].into(),
        socket: Box::new(written.clone()),
        limits: OutboxLimits { bytes: 10_000, messages: 10 },
        held: true,
    };
    let session = Arc::new(Session::new(opening, clock.elapsed(), clock.wall()));
    let (agent, reads) = duplex(1_024);
    let actor = Actor::start(
        &relay,
        Arc::clone(&session),
        Box::new(reads),
        early,
        clock.elapsed(),
        clock.wall(),
    );
    Arrival { relay, session, agent, written, actor }
}

/// Whether the relay has acted on so many commands.
fn heard(relay: &Relay, commands: u32) -> bool {
    let line = format!("arc_messages_received_total{{kind=\"command\"}} {commands}");
    relay.metrics.render().lines().any(|l| l == line)
}

const PING: &str = r#"{"to":["relay"],"type":"ping","ref":"REF"}"#;

#[tokio::test]
async fn nothing_is_said_and_nothing_heard_before_the_session_is_admitted() {
    let early = text_frame(&PING.replace("REF", "early"));
    let Arrival { relay, session, mut agent, written, actor, .. } = arrive(&early).await;
    agent.write_all(&text_frame(&PING.replace("REF", "late"))).await.unwrap();
    let mut life = std::pin::pin!(actor.run());
    let polled = poll_fn(|cx| Poll::Ready(life.as_mut().poll(cx))).await;
    assert!(polled.is_pending() && session.is_held());
    assert_eq!(written.take(), "", "not even a welcome");
    assert!(heard(&relay, 0));

    Sink::new(&relay).admitted(session.agent(), session.id());
    drop(agent);
    life.await;
    let written = written.take();
    let at = |text: &str| written.find(text).unwrap_or_else(|| panic!("{text} in {written}"));
    assert!(at("welcome") < at("early") && at("early") < at("late"), "{written}");
    assert!(relay.sessions.is_empty() && heard(&relay, 2));
}

#[tokio::test]
async fn one_that_is_replaced_before_it_is_admitted_is_told_and_was_never_heard() {
    let early = text_frame(&PING.replace("REF", "early"));
    let Arrival { relay, session, agent, written, actor, .. } = arrive(&early).await;
    let newer = SessionId { time: u64::MAX, node: NodeId(9) };
    Sink::new(&relay).replaced(session.agent(), newer);
    drop(agent);
    actor.run().await;
    let written = written.take();
    assert!(written.contains("replaced") && !written.contains("pong"), "{written}");
    assert_eq!(session.end(), Some(End::Replaced));
}
