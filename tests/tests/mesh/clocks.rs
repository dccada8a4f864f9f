//! Clocks that differ: what keeps a node out whose clock is wrong, and that it leaves no trace.
//!
//! Its clock is wrong by Debian's `faketime`, which puts itself between the process and libc.

use std::{fs, path::PathBuf};

use serde_json::json;
use tests::{
    Cluster, Relay,
    cluster::{loopback_address, view},
    eventually, http, skip,
};

/// What `faketime` preloads, if it is installed.
fn faketime() -> Option<PathBuf> {
    let folders = fs::read_dir("/usr/lib").ok()?.flatten();
    let mut libraries = folders.map(|folder| folder.path().join("faketime/libfaketime.so.1"));
    libraries.find(|library| library.is_file())
}

/// A node of the cluster, but for its clock.
fn stranger(cluster: &Cluster, library: &str, name: &str, offset: &str) -> Relay {
    Relay::with(&[
        ("SEEDS", cluster.seeds()),
        ("CLUSTER_SECRET", cluster.secret()),
        ("NODE_NAME", name),
        ("MESH_HOST", &loopback_address().to_string()),
        ("LD_PRELOAD", library),
        ("FAKETIME", offset),
        // Timers go on as they do.
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
    ])
}

async fn is_kept_out(cluster: &Cluster, stranger: &Relay, name: &str) {
    let says_so = |log: &str| {
        let mut lines =
            log.lines().filter(|line| line.contains("more than 30 s: synchronize them"));
        lines.any(|line| line.contains(name))
    };
    eventually("the stranger says why", || async { says_so(&stranger.log.text()) }).await;
    eventually("the others say it too", || async {
        cluster.nodes.iter().all(|node| says_so(&node.log.text()))
    })
    .await;
    let alone = view(stranger).await;
    assert_eq!(alone["nodes"].as_array().map(Vec::len), Some(1), "{alone}");
    assert_eq!(alone["links"], json!([]));
    assert_eq!(http::get(stranger.ops, "/ready").await.status, 503);
    for node in &cluster.nodes {
        let view = view(node).await;
        assert_eq!(view["nodes"].as_array().map(Vec::len), Some(2), "{view}");
        assert_eq!(view["links"].as_array().map(Vec::len), Some(1), "{view}");
        let metrics = node.metrics().await;
        assert!(metrics.count("arc_link_refusals_total", &[("reason", "clock")]) > 0);
    }
}

#[tokio::test]
async fn a_node_whose_clock_is_wrong_is_kept_out_and_both_sides_say_so() {
    let Some(library) = faketime() else {
        return skip("no faketime: apt-get install faketime");
    };
    let library = library.to_str().expect("the path is text");
    let cluster = Cluster::start(2).await;
    for (name, offset) in [("ahead", "+60s"), ("behind", "-60s")] {
        let stranger = stranger(&cluster, library, name, offset);
        is_kept_out(&cluster, &stranger, name).await;
    }
    let near = stranger(&cluster, library, "near", "+10s");
    let nodes: Vec<&Relay> = cluster.nodes.iter().chain([&near]).collect();
    tests::cluster::are_one(&nodes).await;
    // Sessions of all three are ordered in time: newer is newer, whichever clock tells.
    let token = near.register("hopper-1").await;
    let mut first = tests::Client::connect(&near, &token).await;
    first.send(json!({"to": ["hopper-1"], "payload": "here"})).await;
    let before = first.next().await;
    let mut second = tests::Client::connect(&cluster.nodes[0], &token).await;
    first.expect_close(4009).await;
    second.send(json!({"to": ["hopper-1"], "payload": "still here"})).await;
    let after = second.next().await;
    assert_eq!(after["payload"], "still here");
    // And so are its messages.
    assert!(after["ts"].as_u64() >= before["ts"].as_u64(), "{before} {after}");
    assert!(after["id"].as_str() > before["id"].as_str(), "{before} {after}");
}
