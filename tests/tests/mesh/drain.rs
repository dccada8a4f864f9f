//! Leaving in good order, one node after the other.

use serde_json::json;
use tests::{
    Client, Cluster,
    cluster::{in_state, new_secret},
    eventually, http,
};

#[tokio::test]
async fn a_node_that_is_told_to_stop_sends_its_agents_elsewhere_and_says_goodbye() {
    let mut cluster = Cluster::start(3).await;
    let token = cluster.nodes[1].register("guest").await;
    let mut guest = Client::connect(&cluster.nodes[1], &token).await;
    let mut sender = cluster.nodes[0].agent("sender").await;
    cluster.nodes[1].terminate();
    let closed = guest.expect_close(1001).await;
    assert!(closed.reason.contains("retry_ms="), "{closed:?}");
    drop(guest);
    let mut guest = Client::connect(&cluster.nodes[2], &token).await;
    sender.send(json!({"to": ["guest"], "payload": 1})).await;
    assert_eq!(guest.next().await["payload"], 1);
    assert_eq!(cluster.nodes[1].wait_exit().code(), Some(0));
    for by in [0, 2] {
        eventually("the node is known to have left", || async {
            let view = tests::cluster::view(&cluster.nodes[by]).await;
            in_state(&view, "left") == ["node-1"]
        })
        .await;
    }
    http::get(cluster.nodes[0].ops, "/ready").await.expect_status(200);
}

#[tokio::test]
async fn a_rolling_restart_loses_nothing_between_agents_that_are_connected() {
    let mut cluster = Cluster::start(3).await;
    let mut tokens = Vec::new();
    for n in 0..3 {
        tokens.push(cluster.nodes[0].register(&format!("roll-{n}")).await);
    }
    let mut sent = 0;
    for restarted in 0..3 {
        // Two agents on the nodes that stay, one on that which goes.
        let (near, far) = ((restarted + 1) % 3, (restarted + 2) % 3);
        let mut sender = Client::connect(&cluster.nodes[near], &tokens[0]).await;
        let mut receiver = Client::connect(&cluster.nodes[far], &tokens[1]).await;
        let mut leaving = Client::connect(&cluster.nodes[restarted], &tokens[2]).await;
        cluster.nodes[restarted].terminate();
        leaving.expect_close(1001).await;
        drop(leaving);
        let first = sent;
        while cluster.nodes[restarted].is_running() {
            sender.send(json!({"to": ["roll-1"], "payload": sent})).await;
            sent += 1;
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
        cluster.nodes[restarted].start_again();
        for _ in 0..200 {
            sender.send(json!({"to": ["roll-1"], "payload": sent})).await;
            sent += 1;
        }
        for n in first..sent {
            assert_eq!(receiver.next().await["payload"], n, "none lost, none twice, in order");
        }
        cluster.is_whole().await;
        sender.leave().await;
        receiver.leave().await;
    }
}

#[tokio::test]
async fn a_cluster_changes_its_secret_without_a_stop() {
    let mut cluster = Cluster::start(3).await;
    let (old, new) = (cluster.secret().to_owned(), new_secret());
    let mut tokens = Vec::new();
    for n in 0..2 {
        tokens.push(cluster.nodes[0].register(&format!("secret-{n}")).await);
    }
    // First all nodes learn the new one, one after the other; then they forget the old one.
    for previous in [Some(&old), None] {
        for restarted in 0..3 {
            let (near, far) = ((restarted + 1) % 3, (restarted + 2) % 3);
            let mut sender = Client::connect(&cluster.nodes[near], &tokens[0]).await;
            let mut receiver = Client::connect(&cluster.nodes[far], &tokens[1]).await;
            let node = &mut cluster.nodes[restarted];
            node.terminate();
            node.wait_exit();
            node.set("CLUSTER_SECRET", &new);
            node.set("CLUSTER_SECRET_PREVIOUS", previous.map_or("", |secret| secret));
            node.start_again();
            sender.send(json!({"to": ["secret-1"], "payload": restarted})).await;
            assert_eq!(receiver.next().await["payload"], restarted);
            cluster.is_whole().await;
            sender.leave().await;
            receiver.leave().await;
        }
    }
}
