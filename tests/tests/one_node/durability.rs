//! What survives: names, tokens and revocations, through orderly stops and crashes.

use std::os::unix::fs::PermissionsExt;

use futures_util::future::join_all;
use serde_json::json;
use tests::{Client, Relay, http, process};

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
