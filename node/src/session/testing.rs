//! Sessions for the tests of others.

#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

use std::sync::Arc;

use cluster::{
    NodeId,
    token::{Serial, TokenSigner},
};

use super::*;
use crate::net::testing::Written;

/// A session of an agent, opened at `time`, and what is written to it.
pub(crate) fn session(agent: &str, time: u64) -> (Arc<Session>, Written) {
    opened(agent, time, false)
}

/// The same, but it is held.
pub(crate) fn held(agent: &str, time: u64) -> (Arc<Session>, Written) {
    opened(agent, time, true)
}

fn opened(agent: &str, time: u64, held: bool) -> (Arc<Session>, Written) {
    let (signer, wall) = (TokenSigner::generate(), UnixMillis(1_800_000_000_000));
    let token = signer.issue(&agent.parse().unwrap(), Serial(1), wall, None).unwrap();
    let written = Written::default();
    let opening = Opening {
        id: SessionId { time, node: NodeId(1) },
        grant: signer.verifier().verify(&token, wall).unwrap(),
        from: [127, 0, 0, 1].into(),
        socket: Box::new(written.clone()),
        limits: OutboxLimits { bytes: 10_000, messages: 10 },
        held,
    };
    (Arc::new(Session::new(opening, Duration::ZERO, wall)), written)
}
