//! Coming together: any order, and what keeps a node out.

use std::net::Ipv4Addr;

use serde_json::json;
use tests::{
    Cluster, Relay,
    cluster::{loopback_address, new_secret},
    eventually, http, process,
};

#[tokio::test]
async fn nodes_may_start_in_any_order() {
    let addresses: Vec<Ipv4Addr> = (0..3).map(|_| loopback_address()).collect();
    let mut cluster = Cluster::unstarted(&addresses, &[]);
    for address in [addresses[2], addresses[0], addresses[1]] {
        cluster.add_at(address, &[]);
    }
    cluster.is_whole().await;
    let mut first = cluster.nodes[0].agent("first").await;
    let mut second = cluster.nodes[2].agent("second").await;
    first.send(json!({"to": ["second"], "payload": 1})).await;
    assert_eq!(second.next().await["payload"], 1);
}

#[tokio::test]
async fn a_node_that_is_no_seed_joins_and_is_one_of_them() {
    let mut cluster = Cluster::start(2).await;
    let added = cluster.add(&[]);
    cluster.is_whole().await;
    let mut old = cluster.nodes[0].agent("old-one").await;
    let mut new = cluster.nodes[added].agent("new-one").await;
    new.send(json!({"to": ["*"], "payload": 1})).await;
    assert_eq!(old.next().await["payload"], 1);
}

#[tokio::test]
async fn a_node_with_another_secret_is_kept_out_and_both_sides_say_so() {
    let cluster = Cluster::start(2).await;
    let secret = new_secret();
    let address = loopback_address().to_string();
    let stranger = Relay::with(&[
        ("SEEDS", cluster.seeds()),
        ("CLUSTER_SECRET", &secret),
        ("NODE_NAME", "stranger"),
        ("MESH_HOST", &address),
    ]);
    eventually("the stranger says why", || async {
        stranger.log.text().contains("does not share our CLUSTER_SECRET")
    })
    .await;
    let refuses =
        |body: &str| body.contains("refuses this node (secret)") && body.contains("CLUSTER_SECRET");
    eventually("operators read why", || async {
        let health = http::get(stranger.ops, "/health").await;
        let body = health.text();
        health.status == 503 && refuses(&body) && !body.contains("start 127.")
    })
    .await;
    eventually("each seed that refuses is an event", || async {
        http::get(stranger.ops, "/events?after=0").await.text().matches("(secret)").count() == 2
    })
    .await;
    eventually("the others say it too", || async {
        cluster.nodes.iter().any(|node| node.log.text().contains("CLUSTER_SECRET"))
    })
    .await;
    let view = tests::cluster::view(&cluster.nodes[0]).await;
    assert_eq!(view["nodes"].as_array().map(Vec::len), Some(2), "{view}");
}

#[tokio::test]
async fn a_seed_that_cannot_be_reached_is_one_line_of_the_log() {
    let (own, nobody) = (loopback_address(), loopback_address());
    let mut cluster = Cluster::unstarted(&[own, nobody], &[]);
    cluster.add_at(own, &[]);
    let node = &cluster.nodes[0];
    eventually("it was dialled in vain twice", || async {
        node.metrics().await.count("arc_link_refusals_total", &[("reason", "deadline")]) > 1
    })
    .await;
    let log = node.log.text();
    let is_of_it =
        |line: &&str| line.contains("\"WARN\"") && line.contains("\"cluster::membership");
    let warnings: Vec<&str> = log.lines().filter(is_of_it).collect();
    let [warning] = warnings[..] else { panic!("{warnings:#?}") };
    assert!(warning.contains(&format!("{nobody}:7946")), "{warning}");
}

#[tokio::test]
async fn two_nodes_of_one_name_are_not_both_let_in() {
    let mut cluster = Cluster::start(2).await;
    let twin = cluster.add(&[("NODE_NAME", "node-1")]);
    eventually("the twin says why", || async {
        cluster.nodes[twin].log.text().contains("NODE_NAME")
    })
    .await;
    let view = tests::cluster::view(&cluster.nodes[0]).await;
    assert_eq!(view["nodes"].as_array().map(Vec::len), Some(2), "{view}");
}

#[tokio::test]
async fn seeds_without_a_secret_and_useless_addresses_are_refused_at_the_start() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let secret = new_secret();
    let cases: [(&[(&str, &str)], &str); 5] = [
        (&[("SEEDS", "127.0.0.1:7946")], "arc-relay secret"),
        (&[("SEEDS", "127.0.0.1:7946"), ("CLUSTER_SECRET", "arcs_nonsense")], "CLUSTER_SECRET"),
        (&[("SEEDS", "not an address"), ("CLUSTER_SECRET", &secret)], "SEEDS"),
        (
            &[("SEEDS", "127.0.0.1:7946"), ("CLUSTER_SECRET", &secret), ("ADVERTISE", "0.0.0.0")],
            "ADVERTISE",
        ),
        (
            &[
                ("SEEDS", "127.0.0.1:7946"),
                ("CLUSTER_SECRET", &secret),
                ("ADVERTISE", "no-such-host.invalid"),
            ],
            "ADVERTISE",
        ),
    ];
    for (settings, names) in cases {
        let mut command = Relay::command(folder.path());
        command.env("MESH_HOST", loopback_address().to_string());
        command.envs(settings.iter().copied());
        let finished = process::run(command).await;
        assert!(finished.code == Some(1) || finished.code == Some(2), "{finished:?}");
        let said = finished.stderr + &finished.stdout;
        assert!(said.contains(names) && !said.contains(&secret), "{said}");
    }
}

#[tokio::test]
async fn a_relay_with_names_of_its_own_brings_them_whichever_of_the_seeds_it_is() {
    for own_is_first in [true, false] {
        let mut alone = Relay::start();
        let token = alone.register("known-1").await;
        alone.terminate();
        alone.wait_exit();
        let (other, own) = (loopback_address().to_string(), loopback_address().to_string());
        let seeds = if own_is_first { format!("{own},{other}") } else { format!("{other},{own}") };
        let secret = new_secret();
        for (key, value) in [
            ("SEEDS", &seeds),
            ("CLUSTER_SECRET", &secret),
            ("MESH_HOST", &own),
            ("NODE_NAME", &"known".to_owned()),
        ] {
            alone.set(key, value);
        }
        alone.start_again();
        let second = Relay::with(&[
            ("SEEDS", &seeds),
            ("CLUSTER_SECRET", &secret),
            ("MESH_HOST", &other),
            ("NODE_NAME", "second"),
        ]);
        tests::cluster::are_one(&[&alone, &second]).await;
        tests::Client::connect(&second, &token).await.leave().await;
        let keeper = if own_is_first { &alone } else { &second };
        eventually("the first of the seeds keeps the names", || async {
            tests::cluster::registry(keeper).await["role"] == "leader"
        })
        .await;
        let body = json!({"agent_id": "known-1"}).to_string();
        http::post(second.public, "/register", body).await.expect_error(409, "agent_id_taken");
    }
}

#[tokio::test]
async fn of_a_data_directory_that_runs_twice_the_later_goes_on_alone() {
    let addresses = [loopback_address().to_string(), loopback_address().to_string()];
    let (seeds, secret) = (addresses.join(","), new_secret());
    let [mut earlier, mut later] = [Relay::start(), Relay::start()];
    let token = earlier.register("known-1").await;
    for (relay, own) in [&mut earlier, &mut later].into_iter().zip(&addresses) {
        relay.terminate();
        relay.wait_exit();
        for (key, value) in
            [("SEEDS", &seeds), ("CLUSTER_SECRET", &secret), ("MESH_HOST", own), ("NODE_NAME", own)]
        {
            relay.set(key, value);
        }
    }
    // As a machine is cloned, to be another one of the cluster.
    for file in std::fs::read_dir(earlier.data_dir()).expect("it has data") {
        let file = file.expect("it can be read");
        std::fs::copy(file.path(), later.data_dir().join(file.file_name())).expect("it is copied");
    }
    earlier.start_again();
    earlier.is_ready().await;
    later.start_again();
    assert_eq!(earlier.wait_exit().code(), Some(2), "what goes on here would be cut off");
    // The later hears of it only if the earlier is not gone by then.
    let log = earlier.log.text();
    assert!(log.contains("was copied, or runs twice"), "{log}");
    assert!(log.contains("another process has this node's id"), "{log}");
    later.is_ready().await;
    tests::Client::connect(&later, &token).await.leave().await;
}

#[tokio::test]
async fn two_nodes_that_both_think_to_be_the_first_seed_found_nothing() {
    let addresses = [loopback_address().to_string(), loopback_address().to_string()];
    let secret = new_secret();
    let start = |own: usize| {
        let seeds = format!("{},{}", addresses[own], addresses[1 - own]);
        Relay::with(&[
            ("SEEDS", &seeds),
            ("CLUSTER_SECRET", &secret),
            ("NODE_NAME", ["one", "two"][own]),
            ("MESH_HOST", &addresses[own]),
        ])
    };
    let nodes = [start(0), start(1)];
    for node in &nodes {
        eventually("it says that the lists differ", || async {
            node.log.text().contains("give all nodes the same SEEDS")
        })
        .await;
        http::get(node.ops, "/ready").await.expect_status(503);
        assert!(tests::cluster::registry(node).await["id"].is_null(), "nothing is founded");
    }
}
