//! Many engines of the mesh on one thread, under one clock and one source of chance.
//!
//! Nodes are real `cluster::mesh::Mesh`es; links, membership, sessions and agents are models, which
//! keep to what the real ones promise and no more. A run is a function of its seed and its options.

mod agents;
mod event;
pub(crate) mod faults;
mod gossip;
pub mod history;
mod links;
mod lives;
pub(crate) mod message;
mod node;
mod outbox;
mod sessions;
mod trace;
mod wires;
mod world;

use std::time::Duration;

pub use event::Life;
pub use faults::{FaultKind, Faults, KINDS, UnknownFault};
pub use trace::About;

use crate::entropy;
use history::History;
use world::World;

/// What is simulated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Nodes of the cluster.
    pub nodes: usize,
    /// Regions that they are in, in turn.
    pub regions: usize,
    /// Agents.
    pub agents: usize,
    /// What may go wrong.
    pub faults: Faults,
    /// How long things go wrong, before all is left to heal.
    pub faulty_for: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            nodes: 4,
            regions: 1,
            agents: 20,
            faults: Faults::all(),
            faulty_for: Duration::from_secs(14),
        }
    }
}

impl Options {
    /// The nodes and regions that a seed is run with where nobody says otherwise: 3 to 5 nodes, and
    /// every third time in two regions.
    #[must_use]
    pub fn varied(&self, seed: u64) -> Self {
        let nodes = 3 + usize::try_from(seed % 3).unwrap_or_default();
        let regions = if (seed / 3) % 3 == 2 { 2 } else { 1 };
        Self { nodes, regions, ..self.clone() }
    }
}

/// What came of a run.
#[derive(Debug)]
pub struct Outcome {
    /// What was seen.
    pub history: History,
    /// The identity of all that happened: equal runs have equal ones.
    pub digest: u64,
    /// What was asked to be written down.
    pub lines: Vec<String>,
}

/// Runs a seed on a thread of its own.
pub fn run(seed: u64, options: &Options, about: Option<About>) -> Outcome {
    entropy::seeded(seed, || {
        let (history, trace) = World::new(seed, options, about).run();
        Outcome { history, digest: trace.sum(), lines: trace.lines }
    })
}
