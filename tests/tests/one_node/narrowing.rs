//! Tokens that their agents narrowed offline, by the worked example of the documentation.

use serde_json::json;
use tests::{Client, Relay, http, process, scripts};

/// Where the documentation's example lies.
const EXAMPLE: &str = "docs/examples/narrow_token.py";

/// The token, narrowed by the documentation's example with these options; none where there is no
/// Python with its libraries.
async fn narrow(token: &str, options: &[&str]) -> Option<String> {
    let mut command = scripts::python()?;
    command.arg(scripts::script(EXAMPLE)).args(options).env("ARC_TOKEN", token);
    let finished = process::run(command).await.expect_code(0);
    Some(finished.stdout.trim().to_owned())
}

#[tokio::test]
async fn a_token_for_named_recipients_reaches_nobody_else() {
    let relay = Relay::start();
    let token = relay.register("ann-1").await;
    let Some(narrowed) = narrow(&token, &["--to", "bob-1,cid-1"]).await else { return };
    assert!(narrowed.starts_with("tok_") && narrowed != token);
    let mut bob = relay.agent("bob-1").await;
    let mut dan = relay.agent("dan-1").await;
    let mut ann = Client::connect(&relay, &narrowed).await;
    assert_eq!(ann.id, "ann-1");
    for to in [json!(["dan-1"]), json!(["*"]), json!(["bob-1", "dan-1"])] {
        ann.send(json!({"to": to, "payload": "not allowed"})).await;
        ann.expect_error("not_permitted").await;
    }
    ann.fence_to(&mut bob).await;
    bob.fence_to(&mut dan).await;
    bob.fence_to(&mut ann).await;
}

#[tokio::test]
async fn a_receive_only_token_sends_nothing() {
    let relay = Relay::start();
    let token = relay.register("ann-1").await;
    let Some(narrowed) = narrow(&token, &["--receive-only"]).await else { return };
    let mut bob = relay.agent("bob-1").await;
    let mut ann = Client::connect(&relay, &narrowed).await;
    for to in [json!(["bob-1"]), json!(["*"]), json!(["ann-1"])] {
        ann.send(json!({"to": to, "payload": "not allowed"})).await;
        ann.expect_error("not_permitted").await;
    }
    ann.fence().await;
    bob.fence_to(&mut ann).await;
}

#[tokio::test]
async fn a_send_only_token_receives_nothing() {
    let relay = Relay::start();
    let token = relay.register("ann-1").await;
    let Some(narrowed) = narrow(&token, &["--send-only"]).await else { return };
    let mut bob = relay.agent("bob-1").await;
    let mut ann = Client::connect(&relay, &narrowed).await;
    for to in [json!(["ann-1"]), json!(["*"])] {
        bob.send(json!({"to": to, "payload": "not for this session"})).await;
    }
    bob.fence().await;
    ann.fence_to(&mut bob).await;
    ann.fence().await;
}

#[tokio::test]
async fn a_narrowed_token_expires_by_its_own_time() {
    let relay = Relay::start();
    let token = relay.register("ann-1").await;
    let Some(narrowed) = narrow(&token, &["--expires-in", "3"]).await else { return };
    let mut ann = Client::connect(&relay, &narrowed).await;
    ann.expect_close(4001).await;
    let request = http::upgrade("/arc").header("authorization", format!("Bearer {narrowed}"));
    http::send(relay.public, request, "").await.expect_error(401, "token_expired");
    assert_eq!(Client::connect(&relay, &token).await.id, "ann-1", "the full one stays good");
}

#[tokio::test]
async fn narrowing_adds_up_and_is_never_undone() {
    let relay = Relay::start();
    let token = relay.register("ann-1").await;
    let Some(once) = narrow(&token, &["--to", "bob-1,cid-1"]).await else { return };
    let Some(twice) = narrow(&once, &["--to", "cid-1,dan-1"]).await else { return };
    let mut cid = relay.agent("cid-1").await;
    let mut ann = Client::connect(&relay, &twice).await;
    for to in ["bob-1", "dan-1"] {
        ann.send(json!({"to": [to], "payload": "not allowed"})).await;
        ann.expect_error("not_permitted").await;
    }
    ann.fence_to(&mut cid).await;
}

#[tokio::test]
async fn what_is_narrowed_falls_with_the_token_it_came_from() {
    let relay = Relay::start();
    let token = relay.register("ann-1").await;
    let Some(narrowed) = narrow(&token, &["--to", "bob-1"]).await else { return };
    let mut ann = Client::connect(&relay, &narrowed).await;
    relay.admin("POST", "/agents/ann-1/revoke").await.expect_status(200);
    ann.expect_close(4001).await;
    let request = http::upgrade("/arc").header("authorization", format!("Bearer {narrowed}"));
    http::send(relay.public, request, "").await.expect_error(401, "token_revoked");
}
