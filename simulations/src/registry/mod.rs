//! The registry on many nodes, on one thread and under one clock: the consensus, the store and all that
//! nodes say to each other are the relay's own; the network, the disks and the clocks are simulated.
//!
//! Clients want the same few names on any node at once, an administrator revokes, and everything goes
//! wrong that the seed has drawn: links, disks, clocks and nodes, most voters at once, one for good.
//! Then all is left to heal, and what was seen is held against [`promises`].
//!
//! One run per process is repeatable bit for bit: the runtime draws from a counter that all of a
//! process's runtimes share. What cannot be simulated so: a node whose clock stands still. One that
//! hangs hears and says nothing, its disk does nothing, and all that it missed comes when it goes on.

mod clients;
mod clock;
mod disk;
mod faults;
mod going_wrong;
pub mod history;
mod network;
mod nodes;
pub mod promises;
mod report;
mod world;

use std::time::Duration;

pub use faults::{FaultKind, Faults, KINDS, UnknownFault};
pub use report::Report;

use crate::entropy;
use world::World;

/// What is simulated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Nodes that keep the book: 1, 3 or 5.
    pub voters: usize,
    /// Nodes that only observe.
    pub observers: usize,
    /// What may go wrong.
    pub faults: Faults,
    /// How long things go wrong, before all is left to heal.
    pub faulty_for: Duration,
    /// Entries of the log between two snapshots.
    pub snapshot_every: u64,
}

impl Options {
    /// What is simulated with a seed, if nothing else is said: three voters mostly, else five; and in
    /// every second run snapshots, which would come only after thousands of entries.
    pub fn of(seed: u64) -> Self {
        Self {
            voters: if seed.is_multiple_of(3) { 5 } else { 3 },
            observers: 2,
            faults: Faults::all(),
            faulty_for: Duration::from_secs(12),
            snapshot_every: if seed.is_multiple_of(2) { 40 } else { 10_000 },
        }
    }
}

/// Runs a seed on a thread of its own, and judges it.
///
/// # Panics
/// If the system has no room for the run's few files and threads.
pub fn run(seed: u64, options: &Options) -> Report {
    let outcome = entropy::seeded(seed, || {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_time().start_paused(true).build();
        let runtime = runtime.expect("the system has room for a runtime");
        runtime.block_on(async {
            let world = World::new(seed, options).expect("the system has room for files");
            world.run().await
        })
    });
    Report::new(seed, options.clone(), outcome)
}
