//! All agents connect, and then: how many records does each owner keep?

use std::time::Duration;

use anyhow::ensure;

use super::{
    Plan, Tally, World,
    report::Section,
    table::{self, Table, percentile, ratio, tenths, whole},
    world::{id_of, region},
};

/// What homes are drawn for.
const HOME: u64 = 1;

/// How the agents' connecting went.
#[derive(Clone, Debug)]
pub(super) struct Population {
    pub(super) agents: usize,
    pub(super) sent: Tally,
    pub(super) half: Duration,
    pub(super) most: Duration,
    pub(super) longest: Duration,
    pub(super) admitted: usize,
}

/// Connects all agents, evenly in time, each to a random node.
pub(super) fn populate(world: &mut World, plan: &Plan) -> Population {
    let before = world.sent();
    let start = world.now;
    let running = world.running();
    world.tick(&running);
    for agent in 0..plan.agents {
        let part = ratio(agent, plan.agents);
        world.run_until(start + plan.arriving.mul_f64(part));
        let place = world.agents.draw(agent, HOME, 0, plan.nodes());
        world.connect(agent, place);
    }
    world.pass(Duration::from_secs(1));
    let mut waits = world.take_waits();
    Population {
        agents: plan.agents,
        sent: &world.sent() - &before,
        half: percentile(&mut waits, 50),
        most: percentile(&mut waits, 99),
        longest: percentile(&mut waits, 100),
        admitted: waits.len(),
    }
}

/// How many records there are, by region and node.
#[derive(Clone, Debug)]
pub(super) struct Owners {
    pub(super) regions: Vec<Region>,
}

/// One region's owners.
#[derive(Clone, Debug)]
pub(super) struct Region {
    pub(super) name: String,
    /// Of each node, descending.
    pub(super) records: Vec<usize>,
    least_share: f64,
    greatest_share: f64,
    sessions: usize,
}

/// Counts the records, which must be one for each agent in each region.
pub(super) fn look(world: &World, plan: &Plan) -> anyhow::Result<Owners> {
    let mut regions = Vec::new();
    for number in 0..plan.regions.len() {
        let places = world.of_region(number);
        let counts: Vec<_> = places.iter().map(|place| world.mesh(*place).counts()).collect();
        let mut records: Vec<usize> = counts.iter().map(|(owned, _)| owned.records).collect();
        records.sort_unstable_by(|a, b| b.cmp(a));
        let all: usize = records.iter().sum();
        ensure!(all == plan.agents, "{all} records of {} agents", plan.agents);
        let name = region(number);
        let rings = world.mesh(places.first().copied().unwrap_or_default()).rings();
        let ring = rings.ring(&name);
        let share = |place: &usize| ring.map_or(0.0, |ring| ring.share(id_of(*place)));
        regions.push(Region {
            least_share: places.iter().map(share).fold(f64::INFINITY, f64::min),
            greatest_share: places.iter().map(share).fold(0.0, f64::max),
            sessions: counts.iter().map(|(_, homes)| homes.sessions).sum(),
            name,
            records,
        });
    }
    let sessions: usize = regions.iter().map(|region| region.sessions).sum();
    ensure!(sessions == plan.agents, "{sessions} sessions of {} agents", plan.agents);
    Ok(Owners { regions })
}

impl Owners {
    pub(super) fn section(&self) -> Section {
        let mut table = Table::new([
            "region",
            "nodes",
            "sessions",
            "records per owner, mean",
            "least",
            "most",
            "most / mean",
            "least and greatest part of the ring × nodes",
        ]);
        for region in &self.regions {
            let nodes = region.records.len();
            let mean = ratio(region.records.iter().sum::<usize>(), nodes);
            let (least, most) = (region.records.last(), region.records.first());
            let most = most.copied().unwrap_or_default();
            let parts = ratio(nodes, 1_usize);
            table.row([
                region.name.clone(),
                nodes.to_string(),
                whole(region.sessions),
                format!("{mean:.0}"),
                whole(least.copied().unwrap_or_default()),
                whole(most),
                format!("{:.2}", ratio(most, 1_usize) / mean),
                format!("{:.2} – {:.2}", region.least_share * parts, region.greatest_share * parts),
            ]);
        }
        Section::new(
            "Presence records",
            "Every agent has one record in each region.\n\n".to_owned() + &table.to_string(),
        )
    }
}

impl Population {
    /// What it was, as a sentence.
    pub(super) fn sentence(&self) -> String {
        let (control, all) = (self.sent.control(), self.sent.all());
        format!(
            "When all {} agents of the whole model connected, {} control frames were sent for each \
             (renewals of that time included), {} bytes in all; {} were admitted, half of them \
             within {}, 99 % within {}, the last after {}.\n",
            whole(self.agents),
            tenths(ratio(control.frames, self.agents)),
            format_args!("{:.0}", ratio(all.bytes, self.agents)),
            whole(self.admitted),
            table::millis(self.half),
            table::millis(self.most),
            table::millis(self.longest),
        )
    }
}
