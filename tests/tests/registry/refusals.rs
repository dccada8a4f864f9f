//! What never becomes one registry: other lists, other registries, old disks.

use serde_json::json;
use tests::{
    Client, Cluster, Relay,
    cluster::{are_one, kept_by, loopback_address, new_secret, registry, voting},
    eventually, http, process,
};

fn node(name: &str, address: &str, seeds: &str, secret: &str) -> Relay {
    Relay::with(&[
        ("SEEDS", seeds),
        ("CLUSTER_SECRET", secret),
        ("NODE_NAME", name),
        ("MESH_HOST", address),
    ])
}

#[tokio::test]
async fn halves_with_different_lists_found_nothing_until_they_agree() {
    let [a, b, c, d] = [(); 4].map(|()| loopback_address().to_string());
    let secret = new_secret();
    let (one, other) = (format!("{a},{b},{c}"), format!("{c},{d},{a}"));
    let mut nodes = [
        node("a", &a, &one, &secret),
        node("b", &b, &one, &secret),
        node("c", &c, &other, &secret),
        node("d", &d, &other, &secret),
    ];
    let lists = [&one, &other].map(|list| list.replace(',', ":7946,") + ":7946");
    for node in &nodes {
        eventually("it says that the lists differ", || async {
            let waiting = registry(node).await["waiting"]["reason"].to_string();
            lists.iter().all(|list| waiting.contains(list))
        })
        .await;
        eventually("the log does, too", || async {
            node.log.text().contains("give all nodes the same SEEDS")
        })
        .await;
        http::get(node.ops, "/ready").await.expect_status(503);
        assert!(registry(node).await["id"].is_null(), "nothing is founded");
    }
    for node in &mut nodes[2..] {
        node.terminate();
        node.wait_exit();
        node.set("SEEDS", &one);
        node.start_again();
    }
    let [a, b, c, d] = &nodes;
    are_one(&[a, b, c, d]).await;
    kept_by(a, 3).await;
    let id = registry(a).await["id"].clone();
    for node in [b, c, d] {
        assert_eq!(registry(node).await["id"], id);
    }
}

#[tokio::test]
async fn a_node_of_another_registry_is_kept_out_and_both_sides_say_so() {
    let cluster = Cluster::start(3).await;
    let mut stray = Relay::start();
    let token = stray.register("elsewhere").await;
    stray.terminate();
    stray.wait_exit();
    let address = loopback_address().to_string();
    for (variable, value) in [
        ("SEEDS", cluster.seeds()),
        ("CLUSTER_SECRET", cluster.secret()),
        ("NODE_NAME", "stray"),
        ("MESH_HOST", &address),
    ] {
        stray.set(variable, value);
    }
    stray.start_again();
    for node in cluster.nodes.iter().chain([&stray]) {
        eventually("it says why", || async { node.log.text().contains("two registries") }).await;
    }
    http::get(stray.ops, "/ready").await.expect_status(503);
    let metrics = stray.metrics().await;
    assert!(metrics.count("arc_link_refusals_total", &[("reason", "registry")]) > 0);
    let view = tests::cluster::view(&cluster.nodes[0]).await;
    assert_eq!(view["nodes"].as_array().map(Vec::len), Some(3), "{view}");
    let request = http::upgrade("/arc").header("authorization", format!("Bearer {token}"));
    http::send(cluster.nodes[0].public, request, "").await.expect_error(401, "unauthorized");
    cluster.nodes[1].register("elsewhere").await;
    // Nothing of it is lost: alone it is what it was.
    stray.terminate();
    stray.wait_exit();
    stray.set("SEEDS", "");
    stray.start_again();
    Client::connect(&stray, &token).await.leave().await;
}

/// `arc-relay WORDS…` in the node's folder, with its secret.
async fn arc(node: &Relay, secret: &str, words: &[&str]) {
    let mut command = Relay::command(node.folder());
    command.args(words).env("CLUSTER_SECRET", secret);
    process::run(command).await.expect_code(0);
}

#[tokio::test]
async fn what_was_restored_from_one_registry_in_two_ways_stays_two() {
    let secret = new_secret();
    let mut nodes = [(); 2].map(|()| Relay::with(&[("CLUSTER_SECRET", &secret)]));
    nodes[0].register("ann-1").await;
    nodes[0].terminate();
    nodes[0].wait_exit();
    arc(&nodes[0], &secret, &["backup", "--offline", "data", "arc.backup"]).await;
    let backup = nodes[0].folder().join("arc.backup").display().to_string();
    nodes[1].terminate();
    nodes[1].wait_exit();
    let [a, b] = [(); 2].map(|()| loopback_address().to_string());
    for (node, address) in nodes.iter_mut().zip([&a, &b]) {
        node.wipe();
        arc(node, &secret, &["restore", &backup, "--data-dir", "data"]).await;
        node.set("SEEDS", &a);
        node.set("MESH_HOST", address);
        node.set("NODE_NAME", address);
        node.start_again();
    }
    for node in &nodes {
        eventually("it says why", || async { node.log.text().contains("two registries") }).await;
    }
    let metrics = nodes[1].metrics().await;
    assert!(metrics.count("arc_link_refusals_total", &[("reason", "registry")]) > 0);
    http::get(nodes[1].ops, "/ready").await.expect_status(503);
}

#[tokio::test]
async fn a_former_registrys_voter_is_no_voter_of_the_restored_one() {
    let mut cluster = Cluster::start(3).await;
    cluster.is_kept_by(3).await;
    let secret = cluster.secret().to_owned();
    let token = cluster.nodes[0].register("ann-1").await;
    let former = registry(&cluster.nodes[0]).await["id"].clone();
    cluster.nodes.iter_mut().for_each(Relay::kill9);
    let [first, second, third] = &mut cluster.nodes[..] else { unreachable!("there are three") };
    arc(first, &secret, &["backup", "--offline", "data", "arc.backup"]).await;
    first.wipe();
    arc(first, &secret, &["restore", "arc.backup", "--data-dir", "data"]).await;
    // One has lost its disk, the other comes with the former registry's.
    second.wipe();
    for node in [&mut *first, &mut *second, &mut *third] {
        node.start_again();
    }
    first.is_ready().await;
    let restored = registry(first).await["id"].clone();
    assert_ne!(restored, former);
    for node in [&*first, second, third] {
        let says = || async { node.log.text().contains("was given up") };
        eventually("it says what to do", says).await;
    }
    http::get(third.ops, "/ready").await.expect_status(503);
    let status = registry(third).await;
    assert_eq!((&status["available"], &status["id"]), (&false.into(), &former), "{status}");
    let voters = voting(&registry(first).await);
    let strays = tests::cluster::view(third).await["node"].to_string();
    assert!(voters.iter().all(|id| !strays.contains(id.as_str())), "{voters:?}");
    // As the operator is told.
    third.kill9();
    third.wipe();
    third.start_again();
    kept_by(first, 3).await;
    for node in [&*first, second, third] {
        node.is_ready().await;
        assert_eq!(Client::connect(node, &token).await.id, "ann-1");
    }
}

#[tokio::test]
async fn a_disk_that_was_replaced_may_return() {
    let mut cluster = Cluster::start(3).await;
    cluster.is_kept_by(3).await;
    cluster.nodes[0].register("before").await;
    let id = registry(&cluster.nodes[0]).await["id"].clone();
    let [kept, own] = ["kept", "data"].map(|folder| cluster.nodes[1].folder().join(folder));
    cluster.nodes[1].kill9();
    std::fs::rename(&own, &kept).expect("the data folder can be moved");
    cluster.nodes[1].start_again();
    let replaced = voting_with(&cluster, 1).await;
    cluster.nodes[0].register("between").await;
    cluster.nodes[1].kill9();
    std::fs::remove_dir_all(&own).expect("the data folder can be removed");
    std::fs::rename(&kept, &own).expect("the data folder can be moved");
    cluster.nodes[1].start_again();
    let again = voting_with(&cluster, 1).await;
    assert_ne!(replaced, again);
    cluster.is_whole().await;
    for node in &cluster.nodes {
        assert_eq!(registry(node).await["id"], id);
    }
    for (n, taken) in ["before", "between"].into_iter().enumerate() {
        let body = json!({ "agent_id": taken }).to_string();
        let again = http::post(cluster.nodes[n + 1].public, "/register", body).await;
        again.expect_error(409, "agent_id_taken");
    }
}

/// Waits until three nodes keep the names, that one among them, as all say; their ids.
async fn voting_with(cluster: &Cluster, node: usize) -> Vec<String> {
    let view = tests::cluster::view(&cluster.nodes[node]).await;
    let id = view["node"].as_str().expect("a node has an id").to_owned();
    for node in &cluster.nodes {
        eventually("the node keeps the names", || async {
            let now = registry(node).await;
            let voting = voting(&now);
            now["available"] == true && voting.len() == 3 && voting.contains(&id)
        })
        .await;
    }
    voting(&registry(&cluster.nodes[0]).await)
}
