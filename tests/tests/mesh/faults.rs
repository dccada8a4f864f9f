//! Nodes that crash, hang and come back, while the others go on.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::json;
use tests::{
    Client, Cluster, Relay,
    cluster::{in_state, view},
    drink, eventually, flood,
};

/// Crashes are known to all within this time.
const CRASH_KNOWN: Duration = Duration::from_secs(5);

/// Hung nodes are.
const HANG_KNOWN: Duration = Duration::from_secs(10);

/// Waits until a node sees another in one of these states, which must be `within` this time `since`.
async fn seen(node: &Relay, name: &str, states: &[&str], since: Instant, within: Duration) {
    eventually(&format!("{name} is seen as one of {states:?}"), || async {
        let now = view(node).await;
        states.iter().any(|state| in_state(&now, state).iter().any(|other| other == name))
    })
    .await;
    let took = since.elapsed();
    assert!(took <= within, "{name} is seen as one of {states:?} after {took:?} only");
}

#[tokio::test]
async fn a_crashed_node_is_noticed_and_its_agents_are_reached_where_they_go() {
    let mut cluster = Cluster::start(3).await;
    let token = cluster.nodes[1].register("mover").await;
    let mut sender = cluster.nodes[2].agent("sender").await;
    let mut other = cluster.nodes[0].agent("other").await;
    let mut mover = Client::connect(&cluster.nodes[1], &token).await;
    sender.send(json!({"to": ["mover"], "payload": "before"})).await;
    assert_eq!(mover.next().await["payload"], "before");
    cluster.nodes[1].kill9();
    let crashed = Instant::now();
    // At once: nothing of what is accepted after the welcome is lost.
    let mut mover = Client::connect(&cluster.nodes[0], &token).await;
    for n in 0..100 {
        sender.send(json!({"to": ["mover", "other"], "payload": n})).await;
    }
    for n in 0..100 {
        assert_eq!(other.next().await["payload"], n, "between the others nothing is lost");
        assert_eq!(mover.next().await["payload"], n);
    }
    for by in [0, 2] {
        let node = &cluster.nodes[by];
        seen(node, "node-1", &["suspect", "dead"], crashed, CRASH_KNOWN).await;
        seen(node, "node-1", &["dead"], crashed, CRASH_KNOWN).await;
    }
    cluster.nodes[1].start_again();
    cluster.is_whole().await;
    let mut mover = Client::connect(&cluster.nodes[1], &token).await;
    sender.send(json!({"to": ["mover"], "payload": "after"})).await;
    assert_eq!(mover.next().await["payload"], "after");
}

#[tokio::test]
async fn a_node_that_hangs_is_noticed_and_taken_back() {
    let cluster = Cluster::start(3).await;
    let mut sender = cluster.nodes[0].agent("sender").await;
    let mut receiver = cluster.nodes[2].agent("receiver").await;
    let token = cluster.nodes[1].register("mover").await;
    let _hanging = Client::connect(&cluster.nodes[1], &token).await;
    cluster.nodes[1].signal(Signal::STOP);
    let hung = Instant::now();
    let mut mover = Client::connect(&cluster.nodes[2], &token).await;
    for n in 0..50 {
        sender.send(json!({"to": ["receiver", "mover"], "payload": n})).await;
    }
    for n in 0..50 {
        assert_eq!(receiver.next().await["payload"], n);
        assert_eq!(mover.next().await["payload"], n);
    }
    for by in [0, 2] {
        seen(&cluster.nodes[by], "node-1", &["dead"], hung, HANG_KNOWN).await;
    }
    cluster.nodes[1].signal(Signal::CONT);
    cluster.is_whole().await;
    eventually("the agent has one session again", || async {
        cluster.nodes[0].stats().await["active_connections"] == 3
    })
    .await;
    sender.send(json!({"to": ["*"], "payload": "all"})).await;
    for agent in [&mut receiver, &mut mover] {
        assert_eq!(agent.next().await["payload"], "all");
        agent.fence().await;
    }
}

#[tokio::test]
async fn a_node_that_restarts_at_once_is_one_node() {
    let mut cluster = Cluster::start(3).await;
    for _ in 0..3 {
        cluster.nodes[2].kill9();
        cluster.nodes[2].start_again();
        cluster.is_whole().await;
        let view = view(&cluster.nodes[0]).await;
        assert_eq!(view["nodes"].as_array().map(Vec::len), Some(3), "{view}");
    }
    let mut near = cluster.nodes[0].agent("near-1").await;
    let mut far = cluster.nodes[2].agent("far-1").await;
    far.send(json!({"to": ["near-1"], "payload": 1})).await;
    assert_eq!(near.next().await["payload"], 1);
}

/// While a node crashes, is found dead, and comes back, others talk on as if nothing were.
#[tokio::test]
async fn others_lose_nothing_while_a_node_crashes_and_comes_back() {
    const ROUND: u64 = 100;
    let mut cluster = Cluster::start(3).await;
    let _lost = cluster.nodes[1].agent("lost").await;
    let mut near = cluster.nodes[0].agent("near").await;
    let mut far = cluster.nodes[2].agent("far").await;
    cluster.nodes[1].kill9();
    let (mut rounds, mut came_back) = (0, false);
    loop {
        let names = [near.id.clone(), far.id.clone()];
        let [to_near, to_far] = &names;
        // Both ways at once, with a broadcast every tenth time.
        let (sent_near, sent_far) = tokio::join!(
            exchange(near, to_far.clone(), ROUND),
            exchange(far, to_near.clone(), ROUND)
        );
        (near, far) = (sent_near, sent_far);
        rounds += 1;
        let now = view(&cluster.nodes[0]).await;
        if !came_back && in_state(&now, "dead") == ["node-1"] {
            cluster.nodes[1].start_again();
            came_back = true;
        } else if came_back && in_state(&now, "alive").len() == 3 {
            break;
        }
        assert!(rounds < 10_000, "the crash, or the return, is never noticed");
    }
    cluster.is_whole().await;
    near.fence_to(&mut far).await;
    far.fence_to(&mut near).await;
}

/// Sends so many messages to the other, and takes as many of it, once each and in order.
async fn exchange(mut agent: Client, other: String, count: u64) -> Client {
    for n in 0..count {
        let to = if n % 10 == 9 { "*" } else { other.as_str() };
        agent.send(json!({"to": [to], "payload": n})).await;
        let message = agent.next().await;
        assert_eq!((&message["from"], &message["payload"]), (&json!(other), &json!(n)));
    }
    agent
}

#[tokio::test]
async fn a_node_that_is_added_under_load_takes_its_part() {
    const COUNT: u64 = 1_000;
    let mut cluster = Cluster::start(2).await;
    let (sender, receiver) =
        (cluster.nodes[0].agent("sender").await, cluster.nodes[1].agent("receiver").await);
    let token = cluster.nodes[0].register("newcomer").await;
    let drinking = drink(receiver, vec!["sender".into()], COUNT);
    let flooding = flood(sender, vec!["receiver".into()], COUNT, 50);
    let added = cluster.add(&[]);
    cluster.is_whole().await;
    let mut newcomer = Client::connect(&cluster.nodes[added], &token).await;
    let mut sender = flooding.await.expect("the sender goes on");
    let mut receiver = drinking.await.expect("the receiver gets all");
    sender.send(json!({"to": ["newcomer", "receiver"], "payload": "both"})).await;
    assert_eq!(receiver.next().await["payload"], "both");
    while newcomer.next().await["payload"] != "both" {}
    for node in &cluster.nodes {
        let share = view(node).await["nodes"].as_array().map(|nodes| {
            nodes.iter().filter(|node| node["ring_share"].as_f64() > Some(0.1)).count()
        });
        assert_eq!(share, Some(3), "each owns a part of the names");
    }
}
