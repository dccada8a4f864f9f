//! What it takes to connect, in meshes of several sizes: first, again, elsewhere, and elsewhere when
//! every node has sent to the agent.

use std::time::Duration;

use super::{
    Agents, Plan, Tally, World,
    owners::Population,
    report::Section,
    table::{Table, millis, percentile, ratio, tenths},
};

/// How many connect in each way.
const AGENTS: usize = 300;

/// How many of them are sent to by every node.
const KNOWN: usize = 20;

/// Between two arrivals: long enough for each to be alone.
const APART: Duration = Duration::from_millis(5);

/// What homes are drawn for, each time.
const HOME: u64 = 2;

/// What was seen in a mesh of one size.
#[derive(Clone, Debug)]
pub(super) struct Arrivals {
    pub(super) nodes: usize,
    pub(super) regions: usize,
    pub(super) first: Arrival,
    again: Arrival,
    elsewhere: Arrival,
    known: Arrival,
}

/// One way to connect: frames and bytes for each, and how long it takes.
#[derive(Clone, Debug)]
pub(super) struct Arrival {
    pub(super) control: f64,
    data: f64,
    bytes: f64,
    half: Duration,
    longest: Duration,
}

/// Lets agents connect to so many nodes in so many regions.
pub(super) fn run(plan: &Plan, nodes: usize, regions: usize) -> Arrivals {
    let size = |number: usize| nodes / regions + usize::from(number < nodes % regions);
    let sizes: Vec<usize> = (0..regions).map(size).collect();
    let mut world = World::new(&sizes, Agents::new(AGENTS + nodes, plan.seed), plan.pace);
    let home = |world: &World, agent: usize| world.agents.draw(agent, HOME, 0, nodes);
    // One more agent on each node sends.
    for place in 0..nodes {
        world.connect(AGENTS + place, place);
        world.pass(APART);
    }
    world.pass(Duration::from_secs(1));
    world.take_waits();
    let first = all(&mut world, AGENTS, home);
    let again = all(&mut world, AGENTS, home);
    let elsewhere = all(&mut world, AGENTS, |world, agent| (home(world, agent) + 1) % nodes);
    for agent in 0..KNOWN {
        let home = world.agents.home(agent);
        for place in (0..nodes).filter(|place| home != Some(*place)) {
            world.direct(AGENTS + place, agent, b"{}");
        }
    }
    world.pass(Duration::from_secs(1));
    let known = all(&mut world, KNOWN, |world, agent| (home(world, agent) + 2) % nodes);
    Arrivals { nodes, regions, first, again, elsewhere, known }
}

/// Lets the first of the agents connect, one after the other.
fn all(world: &mut World, agents: usize, home: impl Fn(&World, usize) -> usize) -> Arrival {
    let before = world.sent();
    for agent in 0..agents {
        let place = home(world, agent);
        world.connect(agent, place);
        world.pass(APART);
    }
    world.pass(Duration::from_secs(1));
    let sent: Tally = &world.sent() - &before;
    let mut waits = world.take_waits();
    Arrival {
        control: ratio(sent.control().frames, agents),
        data: ratio(sent.data().frames, agents),
        bytes: ratio(sent.all().bytes, agents),
        half: percentile(&mut waits, 50),
        longest: percentile(&mut waits, 100),
    }
}

/// The table of all sizes.
pub(super) fn section(arrivals: &[Arrivals], population: &Population) -> Section {
    let mut table = Table::new([
        "nodes",
        "regions",
        "first: control frames",
        "bytes",
        "median / longest wait",
        "same node again: control frames",
        "another node: control + data frames",
        "median / longest wait",
        "the same, known to every node: control + data frames",
        "median / longest wait",
    ]);
    let waits =
        |arrival: &Arrival| format!("{} / {}", millis(arrival.half), millis(arrival.longest));
    let frames =
        |arrival: &Arrival| format!("{} + {}", tenths(arrival.control), tenths(arrival.data));
    for Arrivals { nodes, regions, first, again, elsewhere, known } in arrivals {
        table.row([
            nodes.to_string(),
            regions.to_string(),
            tenths(first.control),
            format!("{:.0}", first.bytes),
            waits(first),
            tenths(again.control),
            frames(elsewhere),
            waits(elsewhere),
            frames(known),
            waits(known),
        ]);
    }
    let text = format!(
        "For one agent that connects, alone: `Publish` and `Published` for each region's owner and \
         `Unpark` for the limiter's state, each unless the home is that owner; when it was on \
         another node before, `Moved` to that node and to all that have a route, and their \
         `Barrier` on each data lane. The wait is until the welcome may be written.\n\n\
         {table}\n{}\n![Control frames of an arrival](frames-per-arrival.svg)\n",
        population.sentence()
    );
    Section::new("Arrival", text)
}
