//! How a registry begins: whatever the order of starts, once, and never without a seed.

use std::net::Ipv4Addr;

use serde_json::json;
use tests::{
    Client, Cluster,
    cluster::{loopback_address, registry},
    eventually, http,
};

#[tokio::test]
async fn three_nodes_found_one_registry_in_each_order_of_starts() {
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        let addresses: Vec<Ipv4Addr> = (0..3).map(|_| loopback_address()).collect();
        let mut cluster = Cluster::unstarted(&addresses, &[]);
        for seed in order {
            cluster.add_at(addresses[seed], &[]);
        }
        cluster.is_whole().await;
        cluster.is_kept_by(3).await;
        let id = registry(&cluster.nodes[0]).await["id"].clone();
        assert!(id.is_string(), "{id}");
        for node in &cluster.nodes {
            assert_eq!(registry(node).await["id"], id, "{order:?}");
            let logs = node.log.text();
            assert!(!logs.contains("two registries"), "{order:?}");
        }
        let founders = cluster.nodes.iter().filter(|node| {
            let log = node.log.text();
            log.contains("\"founding the registry\"")
        });
        assert_eq!(founders.count(), 1, "{order:?}");
    }
}

#[tokio::test]
async fn a_seed_that_does_not_come_is_waited_for_and_named() {
    let addresses: Vec<Ipv4Addr> = (0..3).map(|_| loopback_address()).collect();
    let mut cluster = Cluster::unstarted(&addresses, &[]);
    for address in &addresses[1..] {
        cluster.add_at(*address, &[]);
    }
    let missing = format!("{}:7946", addresses[0]);
    for node in &cluster.nodes {
        eventually("it says for whom it waits", || async {
            let log = node.log.text();
            log.lines().any(|line| line.contains("the registry waits") && line.contains(&missing))
        })
        .await;
        let health = http::get(node.ops, "/health").await.expect_status(503).json();
        assert_eq!(
            (&health["status"], &health["registry"]),
            (&json!("joining"), &json!("unavailable"))
        );
        assert!(health["waiting"].as_str().is_some_and(|why| why.contains(&missing)), "{health}");
        let public = http::get(node.public, "/health").await.expect_status(503).json();
        assert!(public["waiting"].is_null(), "agents need not know the nodes' addresses: {public}");
        let waits = registry(node).await;
        assert_eq!(waits["waiting"]["seeds"], json!([missing]), "{waits}");
        assert!(waits["id"].is_null(), "nothing was founded: {waits}");
        let body = json!({"agent_id": "early-1"}).to_string();
        let early = http::post(node.public, "/register", body).await;
        early.expect_error(503, "joining").expect_retry_after();
    }
    cluster.add_at(addresses[0], &[]);
    cluster.is_whole().await;
    cluster.is_kept_by(3).await;
    cluster.nodes[0].agent("later-1").await.leave().await;
}

#[tokio::test]
async fn names_are_registered_on_any_node_and_their_tokens_good_on_all_at_once() {
    let mut cluster = Cluster::start(3).await;
    let observer = cluster.add(&[]);
    cluster.is_whole().await;
    assert_eq!(registry(&cluster.nodes[observer]).await["role"], "observer");
    for n in 0..cluster.nodes.len() {
        let token = cluster.nodes[n].register(&format!("named-{n}")).await;
        for other in &cluster.nodes {
            Client::connect(other, &token).await.leave().await;
        }
        let body = json!({"agent_id": format!("named-{n}")}).to_string();
        let again = http::post(cluster.nodes[(n + 1) % 4].public, "/register", body).await;
        again.expect_error(409, "agent_id_taken");
    }
    let assigned = http::post(cluster.nodes[observer].public, "/register", "").await;
    assert!(assigned.expect_status(200).json()["token"].is_string());
}
