//! Two regions of two nodes each, with an ocean between them: 40 ms one way, and one packet in a hundred is
//! lost.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tests::{
    Client, Cluster, drink, eventually, every_pair, flood, measured,
    netns::Network,
    wan::{Path, Wan},
};

use crate::{
    nodes::{admitted, count_sessions, links, sees, start},
    talk::Talk,
};

const NORTH: [usize; 2] = [0, 1];
const SOUTH: [usize; 2] = [2, 3];

/// The way from one region to the other.
const OCEAN: Path = Path {
    delay: Duration::from_millis(40),
    jitter: Duration::from_millis(2),
    loss: 0.01,
    cut: false,
};

/// A way on which nothing is sent twice, where bytes are counted.
const CALM: Path = Path { loss: 0.0, ..OCEAN };

/// No way at all.
const NO_WAY: Path = Path { cut: true, ..OCEAN };

/// How long a way stands still: the other node is suspect by then, and its link is far from lost.
const STANDSTILL: Duration = Duration::from_millis(2_300);

/// A payload that makes a message large enough to be recognized by its bytes.
const LARGE: usize = 30_000;

/// Four nodes on a network of two regions.
async fn two_regions(network: &Network, wan: &Wan, between: Path) -> Cluster {
    wan.set(&NORTH, &SOUTH, between);
    start(network, Wan::address, &["north", "north", "south", "south"]).await
}

/// One agent on each node.
async fn one_each(cluster: &Cluster, prefix: &str) -> Vec<Client> {
    let mut agents = Vec::new();
    for (n, node) in cluster.nodes.iter().enumerate() {
        agents.push(node.agent(&format!("{prefix}-{n}")).await);
    }
    agents
}

fn ids(agents: &[Client]) -> Vec<String> {
    agents.iter().map(|agent| agent.id.clone()).collect()
}

#[test]
fn agents_of_two_regions_get_each_message_once_and_in_order() {
    let Some(network) = Network::with(4) else { return };
    let wan = Wan::between(&network, 1);
    network.run(async || {
        let cluster = two_regions(&network, &wan, OCEAN).await;
        every_pair(&mut one_each(&cluster, "pair").await).await;
        let receivers = one_each(&cluster, "to").await;
        let senders = one_each(&cluster, "from").await;
        let (to, from) = (ids(&receivers), ids(&senders));
        let started = Instant::now();
        let drinks: Vec<_> =
            receivers.into_iter().map(|agent| drink(agent, from.clone(), 500)).collect();
        let floods: Vec<_> =
            senders.into_iter().map(|agent| flood(agent, to.clone(), 500, 3)).collect();
        for drink in drinks {
            drink.await.expect("a receiver gets all").fence().await;
        }
        measured(&format!("500 messages of 4 to 4, two regions: {:.1?}", started.elapsed()));
        // Until here they have stayed connected.
        for flood in floods {
            flood.await.expect("a sender goes on");
        }
        assert!(wan.carried(&NORTH, &SOUTH).lost > 0, "the ocean was rough");
    });
}

#[test]
fn an_agent_that_hops_between_regions_has_one_session_and_gets_what_is_sent_to_it() {
    let Some(network) = Network::with(4) else { return };
    let wan = Wan::between(&network, 2);
    network.run(async || {
        let cluster = two_regions(&network, &wan, OCEAN).await;
        let mut senders =
            [cluster.nodes[1].agent("north").await, cluster.nodes[3].agent("south").await];
        let token = cluster.nodes[0].register("hopper").await;
        let mut hopper = Client::connect(&cluster.nodes[2], &token).await;
        let mut slowest = Duration::ZERO;
        for hop in 0..12 {
            for sender in &mut senders {
                // May reach either session or none, but not both.
                sender.send(json!({"to": ["hopper"], "payload": hop, "type": "during"})).await;
            }
            let start = Instant::now();
            let newer = Client::connect(&cluster.nodes[[0, 2, 1, 3][hop % 4]], &token).await;
            slowest = slowest.max(start.elapsed());
            let older = std::mem::replace(&mut hopper, newer).expect_close(4009).await;
            let mut during: Vec<Value> = older.before.iter().map(|m| m["from"].clone()).collect();
            for sender in &mut senders {
                sender.send(json!({"to": ["hopper"], "payload": hop, "type": "after"})).await;
                sender.send(json!({"to": ["*"], "payload": hop, "type": "all"})).await;
            }
            let mut after = Vec::new();
            while after.len() < 2 * senders.len() {
                let message = hopper.next().await;
                assert_eq!(message["payload"], hop, "nothing old: {message}");
                let from = message["from"].clone();
                match message["type"].as_str() {
                    Some("during") => during.push(from),
                    Some(kind) => after.push((from, kind == "all")),
                    None => panic!("nobody else sends: {message}"),
                }
            }
            for sender in &senders {
                let id = json!(sender.id);
                assert!(during.iter().filter(|from| **from == id).count() <= 1, "once: {during:?}");
                let kinds: Vec<bool> =
                    after.iter().filter(|(from, _)| *from == id).map(|(_, all)| *all).collect();
                assert_eq!(kinds, [false, true], "each once and in order: {after:?}");
            }
            let [north, south] = &mut senders;
            for (sender, other) in [(north, "south"), (south, "north")] {
                let message = sender.next().await;
                assert_eq!((&message["from"], &message["payload"]), (&json!(other), &json!(hop)));
            }
        }
        hopper.fence().await;
        measured(&format!("12 hops between regions, slowest welcome {slowest:.1?}"));
    });
}

#[test]
fn regions_that_are_cut_off_from_each_other_go_on_and_become_one_again() {
    let Some(network) = Network::with(4) else { return };
    let wan = Wan::between(&network, 6);
    network.run(async || {
        let cluster = two_regions(&network, &wan, OCEAN).await;
        let token = cluster.nodes[0].register("traveller").await;
        let mut older = Client::connect(&cluster.nodes[1], &token).await;
        let mut agents = Vec::new();
        let mut talks = Vec::new();
        for [from, to] in [NORTH, SOUTH] {
            let sender = cluster.nodes[from].agent(&format!("from-{from}")).await;
            talks.push(Talk::between(sender, cluster.nodes[to].agent(&format!("to-{to}")).await));
        }
        wan.set(&NORTH, &SOUTH, NO_WAY);
        sees(&cluster.nodes[0], &["node-0", "node-1"], &["dead"]).await;
        sees(&cluster.nodes[3], &["node-2", "node-3"], &["dead"]).await;
        for (node, neighbour) in [(0, "node-1"), (1, "node-0"), (2, "node-3"), (3, "node-2")] {
            links(&cluster.nodes[node], &[neighbour]).await;
        }
        let newer = admitted(&cluster.nodes[2], &token, "regions cut off").await;
        wan.set(&NORTH, &SOUTH, OCEAN);
        let healed = Instant::now();
        cluster.is_whole().await;
        measured(&format!("two regions: one cluster again after {:.1?}", healed.elapsed()));
        older.expect_close(4009).await;
        for talk in talks {
            agents.extend(talk.end().await);
        }
        agents.push(newer);
        count_sessions(&cluster, agents.len()).await;
        every_pair(&mut agents).await;
        let (sender, receivers) = agents.split_first_mut().expect("many agents");
        broadcast(sender, receivers, 5).await;
    });
}

/// Sends large broadcasts, each after the last one has reached all.
async fn broadcast(sender: &mut Client, receivers: &mut [Client], count: u64) {
    for n in 0..count {
        let payload = json!([n, "x".repeat(LARGE)]);
        sender.send(json!({"to": ["*"], "payload": payload})).await;
        for receiver in receivers.iter_mut() {
            assert_eq!(receiver.next().await["payload"][0], n);
        }
    }
}

#[test]
fn a_broadcast_crosses_the_ocean_once() {
    const COUNT: u64 = 40;
    let Some(network) = Network::with(4) else { return };
    let wan = Wan::between(&network, 3);
    network.run(async || {
        let cluster = two_regions(&network, &wan, CALM).await;
        let mut agents = one_each(&cluster, "agent").await;
        let (sender, receivers) = agents.split_first_mut().expect("four agents");
        let bytes = |from: &[usize], to: &[usize]| wan.carried(from, to).bytes;
        let (over, within) = (bytes(&NORTH, &SOUTH), bytes(&[2], &[3]) + bytes(&[3], &[2]));
        let started = Instant::now();
        broadcast(sender, receivers, COUNT).await;
        measured(&format!("a broadcast to two regions: {:.1?}", started.elapsed() / 40));
        let over = bytes(&NORTH, &SOUTH) - over;
        let within = bytes(&[2], &[3]) + bytes(&[3], &[2]) - within;
        let once = COUNT * LARGE as u64;
        let copies = |bytes: u64| format!("{}.{:02}", bytes / once, bytes % once * 100 / once);
        measured(&format!(
            "copies over the ocean {}, in the south {}",
            copies(over),
            copies(within)
        ));
        assert!((once..once * 3 / 2).contains(&over), "{over} bytes for {once}");
        assert!((once..once * 3 / 2).contains(&within), "{within} bytes for {once}");
    });
}

#[test]
fn nothing_is_lost_between_the_others_when_the_gateway_between_regions_crashes() {
    const COUNT: u64 = 1_500;
    let Some(network) = Network::with(4) else { return };
    let wan = Wan::between(&network, 4);
    network.run(async || {
        let mut cluster = two_regions(&network, &wan, OCEAN).await;
        let mut agents = one_each(&cluster, "warm").await;
        let (first, others) = agents.split_first_mut().expect("four agents");
        broadcast(first, others, 5).await;
        drop(agents);
        let bytes = |to: usize| wan.carried(&[0], &[to]).bytes;
        let (gateway, other) = if bytes(2) > bytes(3) { (2, 3) } else { (3, 2) };
        assert!(bytes(gateway) > 5 * LARGE as u64, "it was the gateway");

        let receivers =
            [cluster.nodes[1].agent("near").await, cluster.nodes[other].agent("far").await];
        let senders = [
            cluster.nodes[0].agent("from-north").await,
            cluster.nodes[other].agent("from-south").await,
        ];
        let (to, from) = (ids(&receivers), ids(&senders));
        let drinks = receivers.map(|agent| drink(agent, from.clone(), COUNT));
        let floods = senders.map(|agent| flood(agent, to.clone(), COUNT, 3));
        // Some of it has arrived, and most has not: a broadcast is on its way all the time.
        let half = bytes(gateway) + 20_000;
        eventually("half of it is on its way", || async { bytes(gateway) >= half }).await;
        cluster.nodes[gateway].kill9();
        let killed = Instant::now();
        for drink in drinks {
            drink.await.expect("a receiver gets all").fence().await;
        }
        measured(&format!("all has arrived {:.1?} after the crash", killed.elapsed()));
        for flood in floods {
            flood.await.expect("a sender goes on");
        }
    });
}

#[test]
fn nothing_is_lost_when_the_way_between_two_nodes_stands_still_and_the_gateway_goes_on() {
    const COUNT: u64 = 1_500;
    let Some(network) = Network::with(4) else { return };
    let wan = Wan::between(&network, 7);
    network.run(async || {
        let cluster = two_regions(&network, &wan, OCEAN).await;
        let mut agents = one_each(&cluster, "warm").await;
        let (first, others) = agents.split_first_mut().expect("four agents");
        broadcast(first, others, 5).await;
        drop(agents);
        let bytes = |to: usize| wan.carried(&[0], &[to]).bytes;
        let other = if bytes(2) > bytes(3) { 3 } else { 2 };

        let receiver = cluster.nodes[other].agent("far").await;
        let sender = cluster.nodes[0].agent("from-north").await;
        let from = vec![sender.id.clone()];
        let to = vec![receiver.id.clone()];
        let part = bytes(other) + 20_000;
        let drink = drink(receiver, from, COUNT);
        let flood = flood(sender, to, COUNT, 3);
        eventually("some of it is on its way", || async { bytes(other) > part }).await;
        wan.set(&[0], &[other], NO_WAY);
        tokio::time::sleep(STANDSTILL).await;
        wan.set(&[0], &[other], OCEAN);
        drink.await.expect("a receiver gets all").fence().await;
        flood.await.expect("a sender goes on");
    });
}

#[test]
fn no_lookup_leaves_the_region() {
    const COUNT: u64 = 2_000;
    let Some(network) = Network::with(4) else { return };
    let wan = Wan::between(&network, 5);
    network.run(async || {
        let cluster = two_regions(&network, &wan, CALM).await;
        let mut sender = cluster.nodes[2].agent("southern").await;
        let mut neighbour = cluster.nodes[3].agent("neighbour").await;
        sender.fence_to(&mut neighbour).await;
        let bytes = |from: &[usize], to: &[usize]| wan.carried(from, to).bytes;
        let (over, within) = (bytes(&SOUTH, &NORTH), bytes(&[2], &[3]));
        // Each of them has to be looked up; the name alone takes 40 bytes.
        for n in 0..COUNT {
            let nobody = format!("nobody-{n:033}");
            sender.send(json!({"to": [nobody], "payload": n})).await;
        }
        tests::eventually("all turned out to be offline", || async {
            let dropped = [("reason", "offline")];
            cluster.nodes[2].metrics().await.count("arc_messages_dropped_total", &dropped) == COUNT
        })
        .await;
        let (over, within) = (bytes(&SOUTH, &NORTH) - over, bytes(&[2], &[3]) - within);
        measured(&format!("{COUNT} lookups: {within} bytes in the region, {over} over the ocean"));
        assert!(within > COUNT / 4 * 40, "the neighbour owns about half of them");
        assert!(over < COUNT / 10 * 40, "nobody over the ocean was asked");

        let mut northern = Vec::new();
        for n in 0..20 {
            northern.push(cluster.nodes[0].agent(&format!("northern-{n}")).await);
        }
        let mut latencies = Vec::new();
        for agent in &mut northern {
            let start = Instant::now();
            sender.fence_to(agent).await;
            latencies.push(start.elapsed());
        }
        latencies.sort();
        measured(&format!("a first message over the ocean, median: {:.1?}", latencies[10]));
    });
}
