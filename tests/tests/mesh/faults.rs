//! Nodes that crash, hang and come back, while the others go on.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::json;
use tests::{
    Client, Cluster, PATIENCE,
    cluster::{in_state, view},
    eventually,
};

/// How soon a node sees another in one of these states.
async fn seen_within(cluster: &Cluster, by: usize, name: &str, states: &[&str]) -> Duration {
    let start = Instant::now();
    loop {
        let now = view(&cluster.nodes[by]).await;
        if states.iter().any(|state| in_state(&now, state).iter().any(|other| other == name)) {
            return start.elapsed();
        }
        assert!(start.elapsed() < PATIENCE, "{name} is not seen as {states:?}: {now}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
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
        seen_within(&cluster, by, "node-1", &["suspect", "dead"]).await;
        seen_within(&cluster, by, "node-1", &["dead"]).await;
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
    let mut mover = Client::connect(&cluster.nodes[2], &token).await;
    for n in 0..50 {
        sender.send(json!({"to": ["receiver", "mover"], "payload": n})).await;
    }
    for n in 0..50 {
        assert_eq!(receiver.next().await["payload"], n);
        assert_eq!(mover.next().await["payload"], n);
    }
    seen_within(&cluster, 0, "node-1", &["suspect", "dead"]).await;
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
