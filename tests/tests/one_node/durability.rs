//! What survives: names, tokens, revocations and subscriptions, through orderly stops and crashes.

use std::os::unix::fs::PermissionsExt;

use futures_util::future::join_all;
use serde_json::json;
use tests::{Client, Relay, eventually, http, process};

use crate::commands::{command, following};

/// Fails unless `agent` is taken and `token` still speaks for it.
async fn assert_kept(relay: &Relay, agent: &str, token: &str) {
    let again = http::post(relay.public, "/register", json!({"agent_id": agent}).to_string()).await;
    again.expect_error(409, "agent_id_taken");
    assert_eq!(Client::connect(relay, token).await.id, agent);
}

#[tokio::test]
async fn names_and_tokens_survive_a_restart() {
    let mut relay = Relay::start();
    let names = ["ann-1", "bob-1", "cid-1"];
    let tokens = join_all(names.iter().map(|name| relay.register(name))).await;
    relay.terminate();
    assert!(relay.wait_exit().success());
    relay.start_again();
    for (name, token) in names.iter().zip(&tokens) {
        assert_kept(&relay, name, token).await;
    }
    assert_eq!(relay.stats().await["registered_agents"], 3);
    relay.register("dan-1").await;
}

#[tokio::test]
async fn a_name_that_was_granted_survives_a_crash_in_the_next_moment() {
    let mut relay = Relay::start();
    let mut granted = Vec::new();
    for round in 0..15 {
        // Others are under way when the crash comes; they were promised nothing.
        let addr = relay.public;
        let others: Vec<_> = (0..10)
            .map(|n| {
                let body = json!({"agent_id": format!("other-{round}-{n}")}).to_string();
                tokio::spawn(http::post(addr, "/register", body))
            })
            .collect();
        let name = format!("granted-{round}");
        let token = relay.register(&name).await;
        relay.kill9();
        for other in others {
            other.abort();
        }
        granted.push((name, token));
        relay.start_again();
        let (name, token) = granted.last().expect("one was pushed");
        assert_kept(&relay, name, token).await;
    }
    for (name, token) in &granted {
        assert_kept(&relay, name, token).await;
    }
}

#[tokio::test]
async fn a_revocation_survives_a_crash_in_the_next_moment() {
    let mut relay = Relay::start();
    let token = relay.register("ann-1").await;
    let kept = relay.register("bob-1").await;
    relay.admin("POST", "/agents/ann-1/revoke").await.expect_status(200);
    relay.kill9();
    relay.start_again();
    let request = http::upgrade("/arc").header("authorization", format!("Bearer {token}"));
    http::send(relay.public, request, "").await.expect_error(401, "token_revoked");
    assert_kept(&relay, "bob-1", &kept).await;
}

/// Has three agents subscribe and unsubscribe, and returns their tokens.
async fn make_subscriptions(relay: &Relay) -> Vec<String> {
    let mut tokens = Vec::new();
    for name in ["ann-1", "bob-1", "cid-1"] {
        let mut agent = relay.agent(name).await;
        command(&mut agent, "subscribe", json!({"agents": ["dan-1", "eve-1"]})).await;
        tokens.push(agent.token.clone());
        if name == "ann-1" {
            continue;
        }
        wait_until_saved(relay).await;
        let ended = if name == "bob-1" { json!(["dan-1"]) } else { json!(["dan-1", "eve-1"]) };
        command(&mut agent, "unsubscribe", json!({ "agents": ended })).await;
    }
    tokens
}

/// Fails unless what [`make_subscriptions`] made is still the case.
async fn assert_subscriptions(relay: &Relay, tokens: &[String]) {
    let kept: [&[&str]; 3] = [&["dan-1", "eve-1"], &["eve-1"], &[]];
    for (token, kept) in tokens.iter().zip(kept) {
        let mut agent = Client::connect(relay, token).await;
        assert_eq!(following(&mut agent).await, kept, "{}", agent.id);
    }
}

async fn wait_until_saved(relay: &Relay) {
    eventually("all subscriptions are on disk", || async {
        let metrics = relay.metrics().await;
        assert!(metrics.names().contains("arc_subscriptions_unsaved"));
        metrics.count("arc_subscriptions_unsaved", &[]) == 0
    })
    .await;
}

#[tokio::test]
async fn subscriptions_survive_a_restart_in_the_next_moment() {
    let mut relay = Relay::with(&[("SUBSCRIBE_SCOPE", "all")]);
    let tokens = make_subscriptions(&relay).await;
    relay.terminate();
    assert!(relay.wait_exit().success());
    relay.start_again();
    assert_eq!(relay.metrics().await.count("arc_subscriptions", &[]), 3);
    assert_subscriptions(&relay, &tokens).await;
    let mut follower = Client::connect(&relay, &tokens[0]).await;
    let mut eve = relay.agent("eve-1").await;
    eve.send(json!({"to": ["nobody-1"], "payload": "still followed"})).await;
    assert_eq!(follower.next().await["payload"], "still followed");
}

#[tokio::test]
async fn subscriptions_on_disk_survive_a_crash() {
    let mut relay = Relay::start();
    let tokens = make_subscriptions(&relay).await;
    wait_until_saved(&relay).await;
    relay.kill9();
    relay.start_again();
    assert_subscriptions(&relay, &tokens).await;
}

#[tokio::test]
async fn subscriptions_that_were_restored_end_if_their_agent_does_not_come_back() {
    let mut relay = Relay::with(&[("SUBSCRIPTION_TTL", "1s")]);
    let mut agent = relay.agent("ann-1").await;
    command(&mut agent, "subscribe", json!({"agents": ["dan-1"]})).await;
    wait_until_saved(&relay).await;
    relay.kill9();
    for left in [1, 0] {
        relay.start_again();
        assert_eq!(relay.metrics().await.count("arc_subscriptions", &[]), left);
        eventually("the subscriptions are forgotten", || async {
            relay.metrics().await.count("arc_subscriptions", &[]) == 0
        })
        .await;
        wait_until_saved(&relay).await;
        relay.kill9();
    }
}

#[tokio::test]
async fn a_damaged_file_of_subscriptions_stops_no_relay_and_is_set_aside() {
    let mut relay = Relay::start();
    let tokens = make_subscriptions(&relay).await;
    relay.terminate();
    relay.wait_exit();
    let file = relay.data_dir().join("subscriptions.redb");
    let damaged = "Dear diary,\n".repeat(1_000);
    std::fs::write(&file, &damaged).expect("the file can be written");
    relay.start_again();
    let aside = relay.data_dir().join("subscriptions.redb.damaged");
    assert_eq!(std::fs::read_to_string(aside).expect("it was set aside"), damaged);
    assert!(relay.log.text().contains("subscriptions of all agents are lost"));
    assert_eq!(relay.metrics().await.count("arc_subscriptions_lost", &[]), 1);

    let mut agent = Client::connect(&relay, &tokens[0]).await;
    assert_eq!(following(&mut agent).await, Vec::<String>::new());
    command(&mut agent, "subscribe", json!({"agents": ["eve-1"]})).await;
    relay.terminate();
    assert!(relay.wait_exit().success());
    relay.start_again();
    assert_eq!(relay.metrics().await.count("arc_subscriptions_lost", &[]), 0);
    let mut agent = Client::connect(&relay, &tokens[0]).await;
    assert_eq!(following(&mut agent).await, ["eve-1"]);
}

#[tokio::test]
async fn a_registry_that_was_lost_is_not_founded_anew() {
    let mut relay = Relay::start();
    relay.register("ann-1").await;
    relay.terminate();
    relay.wait_exit();
    let file = relay.data_dir().join("registry.redb");
    let length = usize::try_from(std::fs::metadata(&file).expect("it is there").len());
    let good = std::fs::read(&file).expect("it can be read");
    for lost in [Some(Vec::new()), Some(vec![0; length.expect("it is small")]), None] {
        match &lost {
            Some(content) => std::fs::write(&file, content).expect("it can be written"),
            None => std::fs::remove_file(&file).expect("it can be removed"),
        }
        let finished = process::run(Relay::command(relay.folder())).await;
        assert_eq!(finished.code, Some(1), "{finished:?}");
        assert!(finished.stderr.contains("there was a registry"), "{finished:?}");
    }
    std::fs::write(&file, good).expect("it can be written");
    relay.start_again();
    let again = http::post(relay.public, "/register", r#"{"agent_id":"ann-1"}"#).await;
    again.expect_error(409, "agent_id_taken");
}

#[tokio::test]
async fn two_relays_never_share_their_data() {
    let relay = Relay::start();
    let mut second = Relay::command(relay.folder());
    second.env("LOG_FORMAT", "text");
    let finished = process::run(second).await;
    assert!(!matches!(finished.code, Some(0) | None), "{finished:?}");
    let said = finished.stdout + &finished.stderr;
    assert!(said.contains("data"), "it says which folder is in use: {said}");
    relay.register("ann-1").await;
}

#[tokio::test]
async fn secrets_on_disk_are_for_their_owner_only() {
    let relay = Relay::start();
    relay.register("ann-1").await;
    let folder = std::fs::metadata(relay.data_dir()).expect("the folder is there");
    assert_eq!(folder.permissions().mode() & 0o077, 0, "the data folder is open to others");
    for entry in std::fs::read_dir(relay.data_dir()).expect("the folder can be read") {
        let entry = entry.expect("the folder can be read");
        let mode = entry.metadata().expect("the file is there").permissions().mode();
        assert_eq!(mode & 0o077, 0, "{:?} is open to others: {mode:o}", entry.path());
    }
}

#[tokio::test]
async fn message_ids_go_on_over_a_crash() {
    let mut relay = Relay::start();
    let mut agent = relay.agent("ann-1").await;
    let mut last = json!({"id": "", "ts": 0});
    for _ in 0..3 {
        for _ in 0..20 {
            agent.send(json!({"to": ["ann-1"], "payload": null})).await;
            let message = agent.next().await;
            assert!(message["id"].as_str() > last["id"].as_str(), "{message} after {last}");
            assert!(message["ts"].as_u64() >= last["ts"].as_u64(), "{message} after {last}");
            last = message;
        }
        relay.kill9();
        relay.start_again();
        agent = Client::connect(&relay, &agent.token).await;
    }
}
