//! Nodes that are sent away from another node's terminal.

use serde_json::Value;
use tests::{Client, Cluster, cluster::in_state, eventually, http, process};

#[tokio::test]
async fn a_node_is_drained_from_another_ones_terminal() {
    let mut cluster = Cluster::start(3).await;
    let token = cluster.nodes[1].register("guest").await;
    let mut guest = Client::connect(&cluster.nodes[1], &token).await;
    let words = ["drain", "node-1", "--json"];
    let drained = tokio::spawn(process::run(cluster.nodes[0].operator(&words)));
    guest.expect_close(1001).await;
    drop(guest);
    assert_eq!(cluster.nodes[1].wait_exit().code(), Some(0));
    let drained = drained.await.expect("it ends").expect_code(0).stdout;
    let drained: Value = serde_json::from_str(&drained).expect("JSON");
    assert_eq!((&drained["name"], &drained["state"]), (&"node-1".into(), &"left".into()));
    for (node, part) in
        [(0, r#""action":"drain","what":"node-1""#), (1, r#""action":"drain","by_node":"node-0""#)]
    {
        let log = cluster.nodes[node].log.text();
        assert!(log.lines().any(|line| line.contains(part)), "{part} in {log}");
    }
    let again = process::run(cluster.nodes[2].operator(&["drain", "node-1"])).await;
    let again = again.expect_code(3).stderr;
    assert!(again.contains("node-1 is left already"), "{again}");

    cluster.nodes[1].start_again();
    cluster.is_whole().await;
    let here = process::run(cluster.nodes[1].operator(&["drain"])).await.expect_code(0).stdout;
    assert_eq!(here, "node-1 has left\n", "without a name it is the asked one");
    assert_eq!(cluster.nodes[1].wait_exit().code(), Some(0));
}

#[tokio::test]
async fn a_majority_of_voters_is_not_sent_away_by_mistake() {
    let mut cluster = Cluster::start(3).await;
    cluster.is_kept_by(3).await;
    cluster.nodes[2].kill9();
    eventually("the node is known to be dead", || async {
        in_state(&tests::cluster::view(&cluster.nodes[0]).await, "dead") == ["node-2"]
    })
    .await;
    let words = ["drain", "node-1"];
    let refused = process::run(cluster.nodes[0].operator(&words)).await.expect_code(2).stderr;
    assert!(refused.contains("1 of 3 voters are left") && refused.contains("--yes"), "{refused}");
    http::get(cluster.nodes[1].ops, "/ready").await.expect_status(200);
    let words = ["drain", "node-1", "--yes", "--no-wait"];
    let begun = process::run(cluster.nodes[0].operator(&words)).await.expect_code(0).stdout;
    assert_eq!(begun, "node-1 drains, with 0 agents\n");
    assert_eq!(cluster.nodes[1].wait_exit().code(), Some(0));
}

#[tokio::test]
async fn of_two_voters_that_are_sent_away_at_once_one_stays() {
    let mut cluster = Cluster::start(3).await;
    cluster.is_kept_by(3).await;
    let drain = |node: usize| process::run(cluster.nodes[node].operator(&["drain", "--no-wait"]));
    let (one, other) = tokio::join!(drain(1), drain(2));
    let (gone, stayed) = if one.code == Some(0) { (1, other) } else { (2, one) };
    let refused = stayed.expect_code(2).stderr;
    assert!(refused.contains("1 of 3 voters are left"), "{refused}");
    assert_eq!(cluster.nodes[gone].wait_exit().code(), Some(0));
    let left = 3 - gone;
    http::get(cluster.nodes[left].ops, "/ready").await.expect_status(200);
    cluster.nodes[gone].start_again();
    cluster.is_whole().await;
    let words = ["drain", "--no-wait"];
    process::run(cluster.nodes[left].operator(&words)).await.expect_code(0);
    assert_eq!(cluster.nodes[left].wait_exit().code(), Some(0));
}
