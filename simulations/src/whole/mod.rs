//! Whole nodes on one thread, under a seeded network and clock: real QUIC, gossip, sessions and
//! routing, and agents that speak WebSocket over simulated TCP.
//!
//! One run per process is repeatable bit for bit: the runtime draws from a counter that all of a
//! process's runtimes share. What turmoil cannot do: stop one node's clock. A node that hangs is cut
//! off from everybody, and all that was sent meanwhile arrives when it goes on.

mod agents;
mod client;
mod counted;
mod many;
mod nodes;
mod report;
mod seen;
mod udp;
mod world;

pub use many::{Batch, Outcome};
pub use report::Report;

use crate::{core::Options, entropy, promises};
use world::World;

/// Runs a seed on a thread of its own, and judges it.
pub fn run(seed: u64, options: &Options) -> Report {
    let record = entropy::seeded(seed, || World::new(seed, options).run());
    let breaches = promises::breaches(&record.history);
    Report::new(seed, options.clone(), record, breaches)
}
