//! `arc-relay bench` over several nodes: agents on all of them, pairs across.

use std::process::Command;

use serde_json::Value;
use tests::{Cluster, arc_relay, process};

#[tokio::test]
async fn pairs_and_broadcasts_across_three_nodes_are_exact() {
    let cluster = Cluster::start(3).await;
    let mut command = Command::new(arc_relay());
    command.args(["bench", "--agents", "6", "--duration", "500ms", "--json", "-"]);
    command.args(["--agents-file", "agents.json"]).current_dir(cluster.nodes[0].folder());
    let urls: Vec<String> =
        cluster.nodes.iter().map(|node| format!("ws://{}", node.public)).collect();
    command.env_clear().args(["--url", &urls.join(",")]);
    let finished = process::run(command).await.expect_code(0);
    let report: Value = serde_json::from_str(&finished.stdout).expect("the result is JSON");

    let relays = report["environment"]["relays"].as_array().expect("there are relays");
    let nodes: Vec<&str> = relays.iter().filter_map(|relay| relay["node"].as_str()).collect();
    assert_eq!(nodes, ["node-0", "node-1", "node-2"]);
    for scenario in report["scenarios"].as_array().expect("there are results") {
        assert_eq!(scenario["nodes"], 3);
        let messages = &scenario["messages"];
        assert_eq!(messages["delivered"], messages["expected"], "{scenario}");
    }
    for node in &cluster.nodes {
        let metrics = node.metrics().await;
        let opened = metrics.count("arc_handshakes_total", &[("outcome", "accepted")]);
        assert!(opened >= 8, "each node has its share of the agents: {opened}");
    }
}
