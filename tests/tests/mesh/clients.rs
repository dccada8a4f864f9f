//! Clients that others wrote, each connection of theirs with the next node: Python's `websockets`,
//! Node's `ws`.

use std::process::Command;

use tests::{Cluster, eventually, process, scripts};

/// Runs the scenarios of a client script that have more than one agent, one after the other.
async fn play(command: fn() -> Option<Command>, script: &str) {
    for scenario in ["direct_and_broadcast", "fragments_binary_and_ping", "takeover", "order"] {
        let Some(mut command) = command() else { return };
        let cluster = Cluster::start(3).await;
        let nodes: Vec<String> = cluster.nodes.iter().map(|node| node.public.to_string()).collect();
        command.arg(scripts::script(script)).args([&nodes.join(","), scenario]);
        let finished = process::run(command).await.expect_code(0);
        assert_eq!(finished.stdout.trim(), "ok", "{scenario}: {finished:#?}");
        for node in &cluster.nodes {
            eventually("nobody is left", || async {
                node.stats().await["active_connections"] == 0
            })
            .await;
        }
    }
}

#[tokio::test]
async fn python() {
    play(scripts::python, "tests/clients/client.py").await;
}

#[tokio::test]
async fn node() {
    play(scripts::node, "tests/clients/client.js").await;
}
