//! Who keeps the names: growth, lost disks, lost majorities, and what the operator decides.

use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde_json::json;
use tests::{
    Client, Cluster, Relay, arc_relay,
    cluster::{are_one, kept_by, loopback_address, new_secret, registry, voting},
    eventually, http,
};

/// Registers as soon as that is possible, which is soon. An attempt that was answered with 503 may have been
/// decided later all the same: then the name is given back before long.
async fn registers(node: &Relay, agent: &str) -> String {
    let token = Mutex::new(None);
    eventually("names can be registered", || async {
        let body = json!({ "agent_id": agent }).to_string();
        let answer = http::post(node.public, "/register", body).await;
        if answer.status == 200 {
            *token.lock() = answer.json()["token"].as_str().map(str::to_owned);
        } else {
            assert!([409, 503].contains(&answer.status), "{}", answer.text());
        }
        answer.status == 200
    })
    .await;
    token.into_inner().expect("a registration has a token")
}

#[tokio::test]
async fn one_relay_becomes_three_with_all_its_names_and_tokens() {
    let mut first = Relay::start();
    let token = first.register("known-1").await;
    first.terminate();
    first.wait_exit();
    let addresses = [(); 3].map(|()| loopback_address().to_string());
    let (seeds, secret) = (addresses.join(","), new_secret());
    let settings = |n: usize, name: &'static str| {
        [
            ("SEEDS", seeds.clone()),
            ("CLUSTER_SECRET", secret.clone()),
            ("MESH_HOST", addresses[n].clone()),
            ("NODE_NAME", name.to_owned()),
        ]
    };
    for (variable, value) in settings(0, "first") {
        first.set(variable, &value);
    }
    first.start_again();
    first.is_ready().await;
    let before = first.register("known-2").await;
    let start = |n, name| {
        let settings = settings(n, name);
        let settings: Vec<_> = settings.iter().map(|(k, v)| (*k, v.as_str())).collect();
        Relay::with(&settings)
    };
    let (second, third) = (start(1, "second"), start(2, "third"));
    are_one(&[&first, &second, &third]).await;
    for node in [&first, &second, &third] {
        kept_by(node, 3).await;
        eventually("it keeps the names", || async { voting(&registry(node).await).len() == 3 })
            .await;
    }
    first.kill9();
    let after = registers(&second, "known-3").await;
    for token in [&token, &before, &after] {
        Client::connect(&third, token).await.leave().await;
    }
    for taken in ["known-1", "known-2"] {
        let body = json!({ "agent_id": taken }).to_string();
        http::post(third.public, "/register", body).await.expect_error(409, "agent_id_taken");
    }
}

#[tokio::test]
async fn a_voter_that_lost_its_disk_is_replaced_by_its_successor() {
    let mut cluster = Cluster::start(3).await;
    cluster.is_kept_by(3).await;
    let token = cluster.nodes[0].register("before").await;
    let former = voting(&registry(&cluster.nodes[0]).await);
    let lost = registry_node(&cluster.nodes[1]).await;
    cluster.nodes[1].kill9();
    cluster.nodes[1].wipe();
    cluster.nodes[1].start_again();
    let new = registry_node(&cluster.nodes[1]).await;
    assert!(former.contains(&lost) && !former.contains(&new));
    for node in &cluster.nodes {
        eventually("the new node keeps the names in its predecessor's place", || async {
            let now = voting(&registry(node).await);
            now.len() == 3 && now.contains(&new) && !now.contains(&lost)
        })
        .await;
    }
    cluster.is_whole().await;
    // It counts: with it and one of the others there is a majority.
    cluster.nodes[0].kill9();
    registers(&cluster.nodes[1], "after").await;
    Client::connect(&cluster.nodes[1], &token).await.leave().await;
}

async fn registry_node(node: &Relay) -> String {
    let view = tests::cluster::view(node).await;
    view["node"].as_str().expect("a node has an id").to_owned()
}

#[tokio::test]
async fn without_a_majority_nobody_registers_and_everything_else_goes_on() {
    let mut cluster = Cluster::start(3).await;
    cluster.is_kept_by(3).await;
    let mut sender = cluster.nodes[0].agent("sender").await;
    let mut receiver = cluster.nodes[0].agent("receiver").await;
    let token = cluster.nodes[1].register("newcomer").await;
    for lost in [1, 2] {
        cluster.nodes[lost].kill9();
    }
    let node = &cluster.nodes[0];
    for n in 0..3 {
        let asked = Instant::now();
        let body = json!({"agent_id": format!("refused-{n}")}).to_string();
        let refused = http::post(node.public, "/register", body).await;
        refused.expect_error(503, "registry_unavailable").expect_retry_after();
        assert!(asked.elapsed() < Duration::from_millis(2_300), "{:?}", asked.elapsed());
        sender.send(json!({"to": ["receiver"], "payload": n})).await;
        assert_eq!(receiver.next().await["payload"], n);
    }
    Client::connect(node, &token).await.leave().await;
    eventually("operators are told", || async {
        let health = http::get(node.ops, "/health").await.expect_status(200).json();
        health["registry"] == "unavailable"
            && node.metrics().await.count("arc_registry_available", &[]) == 0
    })
    .await;
    eventually("the log says it", || async { node.log.text().contains("are out of reach") }).await;
    let mut status = std::process::Command::new(arc_relay());
    status.args(["status", "--ops", &node.ops.to_string()]);
    let told = tests::process::run(status).await.stdout;
    assert!(told.contains("CANNOT be registered"), "{told}");
    cluster.nodes[1].start_again();
    registers(&cluster.nodes[0], "refused-0").await;
    assert_eq!(cluster.nodes[0].metrics().await.count("arc_registry_available", &[]), 1);
}

#[tokio::test]
async fn the_operator_decides_who_keeps_the_names() {
    let cluster = Cluster::start(3).await;
    cluster.is_kept_by(3).await;
    let node = &cluster.nodes[0];
    let seeds: Vec<&str> = cluster.seeds().split(',').collect();
    let set = |seeds: &[&str]| json!({"change": "set", "seeds": seeds}).to_string();
    for (wish, why) in [
        (set(&seeds[..2]), "1, 3 or 5"),
        (set(&[seeds[0], seeds[1], "nobody:7946"]), "nobody:7946"),
        (json!({"change": "replace", "old": seeds[0], "new": "nobody:7946"}).to_string(), "nobody"),
    ] {
        let refused = change(node, wish).await.expect_error(409, "refused").json();
        assert!(refused["message"].as_str().is_some_and(|text| text.contains(why)), "{refused}");
    }
    change(node, set(&seeds[1..2])).await.expect_status(200);
    kept_by(&cluster.nodes[1], 1).await;
    registers(node, "kept-by-one").await;
    change(node, json!({"change": "follow"}).to_string()).await.expect_status(200);
    eventually("all three keep the names again", || async {
        voting(&registry(&cluster.nodes[1]).await).len() == 3
    })
    .await;
    registers(&cluster.nodes[2], "kept-by-three").await;
}

async fn change(node: &Relay, wish: String) -> http::Response {
    let secret = std::fs::read_to_string(node.data_dir().join("admin.token"));
    let secret = secret.expect("the relay writes its admin token");
    let request = http::request("PUT", "/registry/voters")
        .header("authorization", format!("Bearer {}", secret.trim()));
    http::send(node.ops, request, wish).await
}
