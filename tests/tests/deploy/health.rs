//! `arc-relay health`, by which containers without a shell are looked after.

use tests::{Cluster, Relay, cluster::loopback_address, process};

/// Asks with the settings that the relay itself has.
async fn health(relay: &Relay, arguments: &[&str]) -> process::Finished {
    let mut command = Relay::command(relay.folder());
    command.env("STATS_HOST", relay.ops.ip().to_string());
    command.env("STATS_PORT", relay.ops.port().to_string());
    command.arg("health").args(arguments);
    process::run(command).await
}

#[tokio::test]
async fn a_relay_that_serves_is_well() {
    let mut relay = Relay::start();
    assert_eq!(health(&relay, &[]).await.expect_code(0).stdout, "ok\n");
    assert_eq!(health(&relay, &["--ready"]).await.expect_code(0).stdout, "ready\n");
    relay.kill9();
    let told = health(&relay, &[]).await.expect_code(1).stderr;
    assert!(told.starts_with("error: cannot reach 127.0.0.1:"), "{told}");
}

#[tokio::test]
async fn a_relay_that_is_full_is_well_but_not_ready() {
    let relay = Relay::with(&[("MAX_CONNECTIONS", "1")]);
    let _agent = relay.agent("agent-1").await;
    health(&relay, &[]).await.expect_code(0);
    let told = health(&relay, &["--ready"]).await.expect_code(1).stderr;
    assert_eq!(told, "error: the relay is not up: full\n");
}

#[tokio::test]
async fn a_node_that_waits_is_not_and_says_for_whom() {
    let seeds = [loopback_address(), loopback_address()];
    let mut cluster = Cluster::unstarted(&seeds, &[]);
    cluster.add_at(seeds[0], &[]);
    let relay = &cluster.nodes[0];
    tests::eventually("it says for whom it waits", async || {
        let told = health(relay, &[]).await.expect_code(1).stderr;
        assert!(told.starts_with("error: the relay is not up: joining"), "{told}");
        told.contains(&seeds[1].to_string())
    })
    .await;
}

#[tokio::test]
async fn a_cluster_is_whole_until_a_node_is_missed() {
    let mut cluster = Cluster::start(3).await;
    tests::eventually("the three are whole", async || {
        health(&cluster.nodes[0], &["--whole"]).await.stdout == "whole: 3 nodes, 3 keep the names\n"
    })
    .await;
    cluster.nodes[2].kill9();
    tests::eventually("one is missed", async || {
        let told = health(&cluster.nodes[0], &["--whole"]).await.stderr;
        told.starts_with("error: the cluster is not whole: node-2 is dead")
    })
    .await;
    let told = health(&cluster.nodes[1], &["--whole"]).await.expect_code(1).stderr;
    assert!(told.starts_with("error: the cluster is not whole: "), "{told}");
}

#[tokio::test]
async fn a_relay_that_is_alone_is_whole() {
    let relay = Relay::start();
    assert_eq!(
        health(&relay, &["--whole"]).await.expect_code(0).stdout,
        "whole: 1 node, 1 keeps the names\n"
    );
}
