//! What a node with dashboards open does each second in a cluster of a hundred nodes with a hundred
//! thousand agents: `cargo bench -p node --bench frame`.
//!
//! Prints milliseconds, the best of several rounds, since noise only ever adds. The whole second is to
//! stay below ten: one percent of a core.

#![allow(clippy::print_stdout)] // its output is its purpose
#![allow(clippy::disallowed_methods)] // it measures real time
#![allow(clippy::unwrap_used)] // a benchmark may stop

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use cluster::UnixMillis;
use node::{
    report::{ClusterReport, LinkReport, NodeReport},
    watch::{Loss, NodeSees, Sample, Showing, Sights, frame},
};

const NODES: u64 = 100;
const AGENTS: u64 = 100_000;
const ROUNDS: u64 = 200;

/// Answers that come in a second: 32 nodes are asked every two.
const ANSWERS: u64 = 16;

fn id(number: u64) -> String {
    format!("{:016x}", number.wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

fn node(number: u64) -> NodeReport {
    NodeReport {
        id: id(number),
        name: format!("relay-{number:03}.example.org"),
        region: ["eu-west", "us-east", "ap-south"][usize::try_from(number % 3).unwrap()].into(),
        state: "alive".into(),
        version: "0.1.0".into(),
        address: Some(([10, 0, 0, u8::try_from(number).unwrap()], 7_946).into()),
        agents: AGENTS / NODES,
        messages_per_minute: 60_000,
        ring_share: 0.03,
    }
}

fn sees(number: u64, round: u64) -> NodeSees {
    let link = |peer| LinkReport {
        peer: format!("relay-{peer:03}.example.org"),
        id: id(peer),
        rtt_ms: 80.125,
        queue_bytes: 0,
        sent_bytes: round * 1_000_000,
        received_bytes: round * 1_000_000,
        silent_ms: 250,
    };
    let loss = |reason: &str| Loss {
        reason: reason.into(),
        total: round * 7,
        last_minute: 7,
        lasting_s: round,
    };
    NodeSees {
        links: (0..NODES).filter(|peer| *peer != number).map(link).collect(),
        losses: ["offline", "link_lost", "slow_consumer"].map(loss).into(),
        tls: None,
    }
}

/// The shortest of the rounds, in milliseconds.
fn best_ms(name: &str, mut work: impl FnMut(u64)) -> f64 {
    let round = |number| {
        let start = Instant::now();
        work(number);
        start.elapsed()
    };
    let best = (1..=ROUNDS).map(round).min().unwrap_or_default().as_secs_f64() * 1e3;
    println!("{name:<44} {best:>8.3} ms");
    best
}

fn main() {
    let nodes: Vec<_> = (0..NODES).map(node).collect();
    let mut sights = Sights::default();
    for number in 0..NODES {
        sights.take(Duration::ZERO, &id(number), sees(number, 0));
    }
    let answers: Vec<_> =
        (0..ANSWERS).map(|n| (id(n), serde_json::to_vec(&sees(n, 1)).unwrap())).collect();
    let taken = best_ms("read and take what a second's answers say", |round| {
        for (node, answer) in &answers {
            let sees = serde_json::from_slice(black_box(answer)).unwrap();
            sights.take(Duration::from_secs(round), node, sees);
        }
    });
    let report =
        ClusterReport { node: id(0), nodes, links: sees(0, 1).links, registry: None, tls: None };
    let showing = Showing {
        epoch: UnixMillis(0),
        now: UnixMillis(1_760_000_000_000),
        uptime: 3_600,
        relay: "relay",
        version: "0.1.0",
        registered_agents: AGENTS,
        latest_event: 512,
    };
    let written = best_ms("make and write the frame", |_| {
        black_box(frame(showing, black_box(&report), &Sample::default(), &sights));
    });
    let size = frame(showing, &report, &Sample::default(), &sights).len();
    println!("{:<44} {size:>8} bytes", "the frame");
    println!("{:<44} {:>8.2} % of a core", "together, once a second", (taken + written) / 10.0);
}
