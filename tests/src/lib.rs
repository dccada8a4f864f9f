//! The harness of the black-box tests: it starts the real `arc-relay` binary on ports of the
//! system's choosing and speaks to it over real sockets.
//!
//! Owns the relay's process, its temporary data folder and its log; ends and removes all of it when
//! a [`Relay`] is dropped. Never looks inside the relay: what the tests know of it, an agent, an
//! operator or `/proc` could tell them. Nothing here waits by sleeping: every wait is for a
//! condition, with [`PATIENCE`] as its deadline.

// A harness fails a test by panicking, and that is the whole of its error handling.
#![allow(clippy::missing_panics_doc)]
// An assertion hands on what it has looked at, and a test may have seen enough.
#![allow(clippy::return_self_not_must_use)]
// The tests run on the machine's clock; the relay's rule against reading it is not for them.
#![allow(clippy::disallowed_methods)]

mod binary;
mod client;
pub mod cluster;
mod exchange;
pub mod frame;
pub mod http;
mod json;
mod log;
mod metrics;
pub mod netns;
pub mod pebble;
pub mod process;
mod relay;
pub mod scripts;
mod skip;
pub mod wan;

use std::time::{Duration, Instant};

pub use binary::{arc_relay, repository, target_dir};
pub use client::{Client, Closed};
pub use cluster::Cluster;
pub use exchange::{drink, drink_each, every_pair, flood};
pub use json::{field, fields};
pub use log::Log;
pub use metrics::Metrics;
pub use relay::Relay;
pub use skip::{left_out, measured, skip, skip_for_want_of};

/// How long a test waits for what must happen; generous, for a busy machine with two cores.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Between two looks at a condition that nobody announces.
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// The output of `future`, which must come within [`PATIENCE`]; `what` names it in the failure.
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    let output = tokio::time::timeout(PATIENCE, future).await;
    output.unwrap_or_else(|_| panic!("waited {PATIENCE:?} in vain for {what}"))
}

/// Looks again and again until `condition` holds, which must be within [`PATIENCE`].
pub async fn eventually<F: Future<Output = bool>>(what: &str, mut condition: impl FnMut() -> F) {
    let start = Instant::now();
    while !condition().await {
        assert!(start.elapsed() < PATIENCE, "waited {PATIENCE:?} in vain until {what}");
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}
