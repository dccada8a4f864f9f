//! The scale model: how a hundred nodes in three regions carry a million agents.
//!
//! Every node is a whole engine (`cluster::mesh::Mesh`), every frame is encoded and decoded by
//! `cluster::wire`, and the gossip is the relay's own membership; only links, sessions and processors
//! are models. [`run`] makes the tables and plots of `results/` from a [`Plan`], the same from the
//! same seed.

mod agents;
mod arrivals;
mod broadcasts;
mod changes;
mod gossip;
mod memory;
mod outlet;
mod owners;
mod plots;
mod report;
mod steady;
mod table;
mod tally;
#[cfg(test)]
mod tests;
mod traffic;
mod world;

use std::time::Duration;

pub use gossip::Gossip;
pub use report::{Findings, Section};
pub use tally::{Amount, Tally};
pub use world::Pace;

use self::{agents::Agents, world::World};

/// What is to be modelled.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Everything random comes from it.
    pub seed: u64,
    /// How many nodes each region has.
    pub regions: Vec<usize>,
    /// How many agents are connected.
    pub agents: usize,
    /// Within what time they connect, evenly.
    pub arriving: Duration,
    /// For how long the quiet mesh is watched.
    pub quiet: Duration,
    /// For how many minutes one node's agents send.
    pub minutes: u64,
    /// What things take.
    pub pace: Pace,
    /// Nodes and regions of the meshes in which single arrivals are looked at.
    pub arrivals: Vec<(usize, usize)>,
    /// Sizes at which gossip is measured.
    pub gossip: Vec<usize>,
}

impl Plan {
    /// The hundred nodes and the million agents.
    pub fn full(seed: u64) -> Self {
        Self {
            seed,
            regions: vec![40, 35, 25],
            agents: 1_000_000,
            arriving: Duration::from_secs(10),
            quiet: Duration::from_secs(10),
            minutes: 12,
            pace: Pace::default(),
            arrivals: [3, 10, 30, 100]
                .into_iter()
                .flat_map(|nodes| (1..=3).map(move |regions| (nodes, regions)))
                .collect(),
            gossip: vec![3, 10, 30, 100],
        }
    }

    /// All of it in a second or two.
    pub fn small(seed: u64) -> Self {
        Self {
            regions: vec![3, 2, 2],
            agents: 500,
            arriving: Duration::from_secs(1),
            quiet: Duration::from_secs(2),
            minutes: 1,
            arrivals: vec![(3, 1), (4, 2)],
            gossip: vec![3, 4],
            ..Self::full(seed)
        }
    }

    fn nodes(&self) -> usize {
        self.regions.iter().sum()
    }
}

impl Default for Pace {
    /// On one core of a small machine the engine took 2.6 µs for a control frame with all that came of
    /// it, 0.4 µs for a data frame, and 0.4 µs for each session and record at a change of members, its
    /// memory shared with 99 others.
    fn default() -> Self {
        Self {
            near: Duration::from_millis(1),
            far: Duration::from_millis(40),
            frame: Duration::from_micros(2),
            change: Duration::from_micros(1),
        }
    }
}

/// Runs the whole model. `allocated` says how many bytes the process has allocated, and `tell` is
/// told how far it is.
///
/// # Errors
/// If something does not come out as it must, such as an agent without a record.
pub fn run(
    plan: &Plan,
    allocated: fn() -> usize,
    tell: &mut dyn FnMut(&str),
) -> anyhow::Result<Findings> {
    tell("gossip");
    let gossip = plan
        .gossip
        .iter()
        .map(|nodes| gossip::run(*nodes, plan.regions.len()))
        .collect::<anyhow::Result<Vec<_>>>()?;
    tell("memory");
    let memory = memory::run(plan, allocated);
    tell("single arrivals");
    let arrivals: Vec<_> = plan
        .arrivals
        .iter()
        .map(|(nodes, regions)| arrivals::run(plan, *nodes, *regions))
        .collect();
    tell("population");
    let mut world = World::new(&plan.regions, Agents::new(plan.agents, plan.seed), plan.pace);
    let population = owners::populate(&mut world, plan);
    let owners = owners::look(&world, plan)?;
    tell("the quiet mesh");
    let steady = steady::run(&mut world, plan);
    tell("some traffic");
    let sender = world.of_region(0).first().copied().unwrap_or_default();
    traffic::warm(&mut world, sender);
    tell("loss, join and drain");
    let changes = changes::run(&mut world, gossip.last())?;
    tell("broadcasts");
    let broadcasts = broadcasts::run(&mut world, plan)?;
    tell("traffic");
    world.tick(&[sender]);
    let traffic = traffic::run(&mut world, sender, plan.minutes);
    for (what, cost) in &world.costs {
        let mean = cost.all / cost.calls.max(1);
        tell(&format!(
            "  {what}: {} times, {mean:?} in the mean, {:?} once",
            cost.calls, cost.longest
        ));
    }
    let sections = vec![
        report::assumptions(plan),
        owners.section(),
        arrivals::section(&arrivals, &population),
        steady.section(plan),
        traffic::section(&traffic, plan),
        changes.section(),
        gossip::section(&gossip),
        broadcasts.section(),
        memory.section(),
    ];
    let plots = vec![
        plots::records(&owners)?,
        plots::republication(&changes)?,
        plots::gossip(&gossip)?,
        plots::arrivals(&arrivals)?,
    ];
    Ok(Findings { sections, plots })
}
