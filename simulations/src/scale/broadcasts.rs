//! How often the bytes of a broadcast are carried, and how often across regions.

use std::time::Duration;

use anyhow::ensure;

use super::{
    Amount, Plan, World,
    report::Section,
    table::{Table, ratio, tenths},
    tally::kind,
};

/// How many are sent, by agents of random nodes.
const BROADCASTS: usize = 200;

/// Bytes of each.
const BODY: usize = 1_024;

/// Between two.
const APART: Duration = Duration::from_millis(10);

/// What draws are for.
const SENDER: u64 = 30;

/// What was sent for all of them.
#[derive(Clone, Debug)]
pub(super) struct Broadcasts {
    nodes: f64,
    regions: usize,
    /// First-hand, passed on, and the marks of their place: of each those that crossed regions, and all.
    first_hand: (Amount, Amount),
    relayed: (Amount, Amount),
    marks: (Amount, Amount),
    /// If every node were sent each: crossings and all.
    naive: (Amount, Amount),
}

/// Lets agents broadcast; every other node must get every one of them once.
pub(super) fn run(world: &mut World, plan: &Plan) -> anyhow::Result<Broadcasts> {
    let (before, before_far) = (world.sent(), world.sent_far().clone());
    let running = world.running();
    let delivered =
        |world: &World| -> u64 { running.iter().map(|place| world.seen(*place).broadcasts).sum() };
    let delivered_before = delivered(world);
    let body = vec![b'x'; BODY];
    let mut beyond = 0;
    for n in 0..BROADCASTS {
        let from = connected(world, n, &running);
        let own = world.agents.home(from).map(|home| world.region_of(home));
        beyond += running.iter().filter(|place| Some(world.region_of(**place)) != own).count();
        world.broadcast(from, &body);
        world.pass(APART);
    }
    world.pass(Duration::from_secs(1));
    let got = delivered(world) - delivered_before;
    let others = (running.len() - 1) * BROADCASTS;
    ensure!(got == others as u64, "{got} of {others} were delivered");
    let (sent, far) = (&world.sent() - &before, world.sent_far() - &before_far);
    let both = |kind| (far.of(kind), sent.of(kind));
    let first_hand = both(kind::BROADCAST);
    let bytes = first_hand.1.bytes / first_hand.1.frames.max(1);
    let times = |frames: usize| Amount { frames: frames as u64, bytes: frames as u64 * bytes };
    Ok(Broadcasts {
        nodes: ratio(running.len(), 1_usize),
        regions: plan.regions.len(),
        first_hand,
        relayed: both(kind::RELAYED),
        marks: both(kind::START),
        naive: (times(beyond), times(others)),
    })
}

/// Some agent on a node that runs.
fn connected(world: &World, n: usize, running: &[usize]) -> usize {
    let agents = &world.agents;
    let tries = (0..).map(|try_| agents.draw(n, SENDER, try_, agents.len()));
    let is_there = |agent: &usize| agents.home(*agent).is_some_and(|home| running.contains(&home));
    tries.take(10_000).find(is_there).unwrap_or_default()
}

impl Broadcasts {
    pub(super) fn section(&self) -> Section {
        let mut table =
            Table::new(["a broadcast", "frames", "bytes", "frames across regions", "bytes"]);
        let mut row = |what: &str, (far, all): (Amount, Amount)| {
            let per = |count: u64| tenths(ratio(count, BROADCASTS));
            table.row([
                what.to_owned(),
                per(all.frames),
                per(all.bytes),
                per(far.frames),
                per(far.bytes),
            ]);
        };
        row("`Broadcast`, first-hand", self.first_hand);
        row("`Relayed`, by gateways", self.relayed);
        row("`Start`, marks of its place", self.marks);
        let (mut far, mut all) = self.first_hand;
        for (more_far, more) in [self.relayed, self.marks] {
            far += more_far;
            all += more;
        }
        row("all", (far, all));
        row("each node sent to directly", self.naive);
        let saved = ratio(self.naive.0.bytes, far.bytes);
        let text = format!(
            "{BROADCASTS} broadcasts of {BODY} bytes among {:.0} nodes in {} regions; each of the \
             other nodes got each once. Bodies that crossed regions: {} a broadcast, with {} other \
             regions. Across regions go {} times fewer bytes than if every node were sent to.\n\n{table}",
            self.nodes,
            self.regions,
            tenths(ratio(self.first_hand.0.frames, BROADCASTS)),
            self.regions - 1,
            tenths(saved),
        );
        Section::new("Broadcasts", text)
    }
}
