//! Registrations that may be repeated: `Idempotency-Key` (PROTOCOL section 2).

use serde_json::{Value, json};
use tests::{Client, Relay, http};

async fn register(relay: &Relay, key: &str, body: &str) -> http::Response {
    let request = http::request("POST", "/register").header("idempotency-key", key);
    http::send(relay.public, request, body.to_owned()).await
}

#[tokio::test]
async fn the_same_key_has_the_same_outcome_and_another_key_none() {
    let relay = Relay::start();
    let ann = json!({"agent_id": "ann-1"}).to_string();
    let key = "0123456789abcdef";
    let first = register(&relay, key, &ann).await.expect_status(200).json();
    let again = register(&relay, key, &ann).await.expect_status(200).json();
    assert_eq!(first["agent_id"], again["agent_id"]);
    let token = |answer: &Value| answer["token"].as_str().expect("a token").to_owned();
    assert_eq!(Client::connect(&relay, &token(&again)).await.id, "ann-1");
    register(&relay, "another-key-here", &ann).await.expect_error(409, "agent_id_taken");
    let without = http::post(relay.public, "/register", ann).await;
    without.expect_error(409, "agent_id_taken");
    // The relay chooses: the same key means the same choice.
    let first = register(&relay, "a-key-for-anyname", "").await.expect_status(200).json();
    let again = register(&relay, "a-key-for-anyname", "").await.expect_status(200).json();
    assert_eq!(first["agent_id"], again["agent_id"]);
    assert_eq!(relay.stats().await["registered_agents"], 2);
}

#[tokio::test]
async fn keys_that_could_be_guessed_are_refused() {
    let relay = Relay::start();
    for key in ["short", "0123456789 abcdef", &"x".repeat(256)] {
        let answer = register(&relay, key, "").await;
        answer.expect_error(400, "invalid_idempotency_key");
    }
    assert_eq!(relay.stats().await["registered_agents"], 0);
}

#[tokio::test]
async fn web_pages_may_send_the_header() {
    let relay = Relay::start();
    let preflight = http::request("OPTIONS", "/register")
        .header("origin", "https://a.example")
        .header("access-control-request-method", "POST")
        .header("access-control-request-headers", "idempotency-key");
    let answer = http::send(relay.public, preflight, "").await.expect_status(204);
    let allowed = answer.header("access-control-allow-headers").unwrap_or_default();
    assert!(allowed.contains("idempotency-key"), "{allowed}");
}
