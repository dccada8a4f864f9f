//! Every path of the admin API, on a relay that runs.

use serde_json::{Value, json};
use tests::{Client, Relay, http};

/// Every request that asks for the admin token, and a body that it takes.
pub(crate) const REQUESTS: [(&str, &str, &str); 13] = [
    ("GET", "/agents", ""),
    ("GET", "/agents/ann-1", ""),
    ("POST", "/agents/ann-1/revoke", ""),
    ("POST", "/agents/ann-1/ban", ""),
    ("DELETE", "/agents/ann-1/ban", ""),
    ("POST", "/agents/ann-1/reissue", ""),
    ("POST", "/agents/import", r#"["new-1"]"#),
    ("POST", "/tokens/1/revoke", ""),
    ("GET", "/registry", ""),
    ("PUT", "/registry/voters", r#"{"change":"follow"}"#),
    ("GET", "/registry/keys", ""),
    ("POST", "/registry/keys", r#"{"retire_after_seconds":3600}"#),
    ("POST", "/backup", ""),
];

#[tokio::test]
async fn nothing_is_done_without_the_admin_token() {
    let relay = Relay::start();
    let token = relay.register("ann-1").await;
    for (method, path, body) in REQUESTS {
        for wrong in [None, Some("Bearer x".to_owned()), Some(format!("Bearer {token}"))] {
            let mut request = http::request(method, path);
            if let Some(wrong) = &wrong {
                request = request.header("authorization", wrong);
            }
            let answer = http::send(relay.ops, request, body).await;
            answer.expect_error(401, "unauthorized");
        }
        http::send(relay.public, http::request(method, path), body)
            .await
            .expect_error(404, "not_found");
    }
    let keys = relay.admin("GET", "/registry/keys").await.json();
    assert_eq!(keys["keys"].as_array().map(Vec::len), Some(1), "nothing has changed");
    assert_eq!(Client::connect(&relay, &token).await.id, "ann-1");
}

#[tokio::test]
async fn a_ban_ends_the_session_and_lifting_it_lets_the_agent_back() {
    let relay = Relay::start();
    let mut agent = relay.agent("ann-1").await;
    let token = agent.token.clone();
    let shown = relay.admin("GET", "/agents/ann-1").await.expect_status(200).json();
    assert_eq!((&shown["connected"], &shown["banned"]), (&json!(true), &json!(false)));
    relay.admin("POST", "/agents/ann-1/ban").await.expect_status(200);
    agent.expect_close(4001).await;
    let upgrade = || http::upgrade("/arc").header("authorization", format!("Bearer {token}"));
    http::send(relay.public, upgrade(), "").await.expect_error(401, "token_revoked");
    relay.admin("POST", "/agents/ann-1/reissue").await.expect_error(409, "agent_banned");
    relay.admin("DELETE", "/agents/ann-1/ban").await.expect_status(200);
    assert_eq!(Client::connect(&relay, &token).await.id, "ann-1");
}

#[tokio::test]
async fn one_token_is_revoked_and_the_next_is_good() {
    let relay = Relay::start();
    let mut agent = relay.agent("ann-1").await;
    let shown = relay.admin("GET", "/agents/ann-1").await.json();
    let path = format!("/tokens/{}/revoke", shown["serial"]);
    relay.admin("POST", &path).await.expect_status(200);
    agent.expect_close(4001).await;
    let reissued = relay.admin("POST", "/agents/ann-1/reissue").await.expect_status(200).json();
    let token = reissued["token"].as_str().expect("a token is a string");
    assert_eq!(Client::connect(&relay, token).await.id, "ann-1");
    relay.admin("POST", "/tokens/4000/revoke").await.expect_error(404, "unknown_token");
    relay.admin("POST", "/tokens/x/revoke").await.expect_error(400, "invalid_serial");
}

#[tokio::test]
async fn agents_are_listed_in_pages_and_imported() {
    let relay = Relay::start();
    let names = json!(["bob-1", {"agent_id": "cid-1"}, "ann-1"]).to_string();
    let told = relay.admin_with("POST", "/agents/import", names).await.expect_status(200).json();
    assert_eq!(told, json!({"added": 3, "existing": []}));
    let refused = http::post(relay.public, "/register", r#"{"agent_id":"bob-1"}"#).await;
    refused.expect_error(409, "agent_id_taken");
    let page = relay.admin("GET", "/agents?limit=2").await.expect_status(200).json();
    let ids = |page: &Value| -> Vec<Value> {
        page["agents"].as_array().expect("a list").iter().map(|a| a["agent_id"].clone()).collect()
    };
    assert_eq!(
        (ids(&page), &page["next"]),
        (vec![json!("ann-1"), json!("bob-1")], &json!("bob-1"))
    );
    assert_eq!(page["agents"][0]["serial"], Value::Null, "it has had no token");
    let page = relay.admin("GET", "/agents?limit=2&after=bob-1").await.expect_status(200).json();
    assert_eq!((ids(&page), &page["next"]), (vec![json!("cid-1")], &Value::Null));
    let reissued = relay.admin("POST", "/agents/ann-1/reissue").await.expect_status(200).json();
    let token = reissued["token"].as_str().expect("a token is a string");
    assert_eq!(Client::connect(&relay, token).await.id, "ann-1");
}

#[tokio::test]
async fn tokens_of_a_key_that_retires_end_and_those_of_the_new_one_go_on() {
    let relay = Relay::start();
    let mut old = relay.agent("old-1").await;
    let rotation = r#"{"retire_after_seconds":1}"#;
    let told = relay.admin_with("POST", "/registry/keys", rotation).await.expect_status(200).json();
    assert_eq!((&told["retires"]["id"], &told["signs"]["id"]), (&json!(0), &json!(1)));
    let mut new = relay.agent("new-1").await;
    old.expect_close(4001).await;
    new.fence().await;
}

#[tokio::test]
async fn a_relay_that_is_alone_is_its_own_voter_and_refuses_what_would_end_that() {
    let relay = Relay::start();
    let status = relay.admin("GET", "/registry").await.expect_status(200).json();
    assert_eq!((&status["role"], &status["available"]), (&json!("leader"), &json!(true)));
    assert_eq!(status["voters"].as_array().map(Vec::len), Some(1));
    for seeds in [json!([]), json!(["a:1", "b:1"])] {
        let change = json!({"change": "set", "seeds": seeds}).to_string();
        let answer = relay.admin_with("PUT", "/registry/voters", change).await;
        answer.expect_error(409, "refused");
    }
    let unknown = json!({"change": "replace", "old": "a:1", "new": "b:1"}).to_string();
    let answer = relay.admin_with("PUT", "/registry/voters", unknown).await;
    answer.expect_error(409, "refused");
    let follow = r#"{"change":"follow"}"#;
    relay.admin_with("PUT", "/registry/voters", follow).await.expect_status(200);
    relay.register("ann-1").await;
}

#[tokio::test]
async fn what_is_not_understood_is_refused_with_its_name() {
    let relay = Relay::start();
    for (method, path, body, says) in [
        ("POST", "/registry/keys", r#"{"retire_after_seconds":1,"now":1}"#, "`now`"),
        ("POST", "/agents/import", r#"[{"agent_id":"a-1","nick":1}]"#, "`nick`"),
        ("PUT", "/registry/voters", r#"{"change":"follow","seed":1}"#, "`seed`"),
    ] {
        let answer = relay.admin_with(method, path, body).await;
        let answer = answer.expect_error(400, "invalid_json").json();
        assert!(answer["message"].as_str().is_some_and(|m| m.contains(says)), "{answer}");
    }
    let answer = relay.admin("GET", "/agents?form=x").await.expect_error(400, "invalid_query");
    assert!(answer.text().contains("`form`"), "{}", answer.text());
    let long = " ".repeat(20_000);
    let answer = relay.admin_with("POST", "/registry/keys", long).await;
    answer.expect_error(413, "body_too_large");
}
