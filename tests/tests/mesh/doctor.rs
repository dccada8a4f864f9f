//! A node's peers, as its doctor sees them.

use serde_json::Value;
use tests::{
    Cluster, Relay,
    cluster::{loopback_address, new_secret},
    process,
};

/// The doctor's exit code and findings, for a node of the cluster with these settings.
async fn findings(cluster: &Cluster, settings: &[(&str, &str)]) -> (Option<i32>, Vec<Value>) {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let mut command = Relay::command(folder.path());
    command.env("SEEDS", cluster.seeds()).env("CLUSTER_SECRET", cluster.secret());
    command.envs(settings.iter().copied()).args(["doctor", "--json", "--timeout", "10s"]);
    let finished = process::run(command).await;
    let report: Value = serde_json::from_str(&finished.stdout)
        .unwrap_or_else(|error| panic!("{error}: {finished:?}"));
    (finished.code, report["findings"].as_array().cloned().unwrap_or_default())
}

fn of<'a>(findings: &'a [Value], check: &str, level: &str) -> Vec<&'a str> {
    let of_it = findings.iter().filter(|it| it["check"] == check && it["level"] == level);
    of_it.filter_map(|it| it["found"].as_str()).collect()
}

fn has(found: &[&str], part: &str) -> bool {
    found.iter().any(|found| found.contains(part))
}

#[tokio::test]
async fn a_node_that_runs_knows_its_peers_and_none_is_alarmed() {
    let cluster = Cluster::start(2).await;
    cluster.is_kept_by(1).await;
    let own = cluster.seeds().split(',').next().expect("it is a seed").to_owned();
    let host = own.split(':').next().expect("it has an address");
    let (public, ops) =
        (cluster.nodes[0].public.port().to_string(), cluster.nodes[0].ops.port().to_string());
    let settings = [
        ("PORT", public.as_str()),
        ("STATS_PORT", &ops),
        ("MESH_HOST", host),
        ("NODE_NAME", "node-0"),
    ];
    let (code, all) = findings(&cluster, &settings).await;
    assert_eq!(code, Some(0), "{all:#?}");
    let peers = of(&all, "peers", "ok");
    assert!(has(&peers, "is this node") && has(&peers, "trusts us: node-1,"), "{all:#?}");
    assert!(has(&of(&all, "clocks", "ok"), "node-1"), "{all:#?}");
    assert!(has(&of(&all, "cluster", "ok"), "2 nodes alive"), "{all:#?}");
    assert_eq!(of(&all, "ports", "ok").len(), 3, "{all:#?}");
    for node in &cluster.nodes {
        let log = node.log.text();
        let alarm = log.lines().find(|line| line.contains("WARN") && line.contains("no link"));
        assert_eq!(alarm, None, "a look is nothing to worry about");
    }
}

#[tokio::test]
async fn a_node_that_keeps_the_names_and_has_left_is_missed() {
    let mut cluster = Cluster::start(3).await;
    cluster.is_kept_by(3).await;
    cluster.nodes[2].terminate();
    assert!(cluster.nodes[2].wait_exit().success());
    let ops = cluster.nodes[0].ops.port().to_string();
    let settings = [("STATS_PORT", ops.as_str()), ("NODE_NAME", "node-0")];
    let (_, all) = findings(&cluster, &settings).await;
    let missed = of(&all, "cluster", "warning");
    assert!(has(&missed, "node-2 keeps the names and is not there"), "{all:#?}");
    let told = "1 of 3 nodes that keep the names is gone: no further loss can be borne";
    assert!(missed.contains(&told), "{all:#?}");
    let shown = process::run(cluster.nodes[0].operator(&["status"])).await.expect_code(0).stdout;
    assert!(shown.contains("names can be registered") && shown.contains(told), "{shown}");
}

#[tokio::test]
async fn a_node_to_be_is_told_what_would_keep_it_out() {
    let cluster = Cluster::with(1, &[("HOST", "0.0.0.0")]).await;
    let host = loopback_address().to_string();
    let public = cluster.nodes[0].public.port().to_string();
    let mut settings = vec![("MESH_HOST", host.as_str()), ("PORT", &public)];
    let (_, all) = findings(&cluster, &settings).await;
    assert!(has(&of(&all, "clocks", "ok"), cluster.seeds()), "the seed tells the time: {all:#?}");

    settings.pop();
    let (code, all) = findings(&cluster, &settings).await;
    assert_eq!(code, Some(0), "{all:#?}");
    assert!(has(&of(&all, "peers", "ok"), "trusts us"), "{all:#?}");
    assert_eq!(of(&all, "clocks", "ok"), [""; 0], "nobody is at that port: {all:#?}");

    let secret = new_secret();
    settings.push(("CLUSTER_SECRET", &secret));
    let (code, all) = findings(&cluster, &settings).await;
    assert!(code == Some(1) && has(&of(&all, "peers", "error"), "another cluster"), "{all:#?}");

    let silent = loopback_address();
    let seeds = format!("{silent}:7946,nowhere.invalid:7946");
    let (code, all) = findings(&cluster, &[("MESH_HOST", &host), ("SEEDS", &seeds)]).await;
    assert_eq!(code, Some(1), "{all:#?}");
    assert!(has(&of(&all, "peers", "warning"), "does not answer"), "{all:#?}");
    assert!(has(&of(&all, "dns", "error"), "nowhere.invalid"), "{all:#?}");
}
