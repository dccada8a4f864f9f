//! What the mesh says when nothing happens: the renewal of all records, and the links' pings.

use std::time::Duration;

use cluster::{
    UnixMillis,
    wire::{Control, LANES},
};

use super::{
    Amount, Plan, World,
    report::Section,
    table::{Table, ratio, tenths},
};

/// Pings of a link in a second, in each direction.
const PINGS: usize = 2;

/// What nodes sent in a quiet time.
#[derive(Clone, Debug)]
pub(super) struct Steady {
    time: Duration,
    nodes: usize,
    all: Amount,
    most: Amount,
}

/// Lets all nodes tick, and nothing else happen.
pub(super) fn run(world: &mut World, plan: &Plan) -> Steady {
    let before: Vec<_> = world.running().iter().map(|place| world.sent_by(*place).all()).collect();
    world.pass(plan.quiet);
    let mut all = Amount::default();
    let mut most = Amount::default();
    for (place, before) in world.running().into_iter().zip(before) {
        let sent = world.sent_by(place).all() - before;
        all += sent;
        if sent.frames > most.frames {
            most = sent;
        }
    }
    Steady { time: plan.quiet, nodes: plan.nodes(), all, most }
}

impl Steady {
    pub(super) fn section(&self, plan: &Plan) -> Section {
        let mut table = Table::new(["a node, each second", "frames", "kB"]);
        let mut row = |what: &str, frames: f64, bytes: f64| {
            table.row([what.to_owned(), format!("{frames:.0}"), tenths(bytes / 1e3)]);
        };
        let seconds = self.time.as_secs_f64();
        let per = |count: u64| ratio(count, self.nodes) / seconds;
        row("renewal and its answers, mean", per(self.all.frames), per(self.all.bytes));
        let (frames, bytes) = (ratio(self.most.frames, 1_u64), ratio(self.most.bytes, 1_u64));
        row("renewal and its answers, busiest node", frames / seconds, bytes / seconds);
        let both = pings();
        let peers = plan.nodes() - 1;
        let (frames, bytes) = (2 * peers * PINGS, both * peers * PINGS);
        row("pings and pongs", ratio(frames, 1_usize), ratio(bytes, 1_usize));
        let text = format!(
            "Homes publish all their sessions anew every 30 s, spread over that time: the price of \
             records that are right again half a minute after they were wrong, for whatever \
             reason.\n\n{table}"
        );
        Section::new("The quiet mesh", text)
    }
}

/// The bytes of a ping and its pong in a mesh that runs for a while.
fn pings() -> usize {
    let (number, time) = (100_000, UnixMillis(1_800_000_000_000));
    let bytes = |frame: &Control| {
        let mut bytes = Vec::new();
        frame.encode(&mut bytes);
        bytes.len()
    };
    let ping = Control::Ping { number, time, broadcasts: [100_000; LANES] };
    bytes(&ping) + bytes(&Control::Pong { number, time })
}
