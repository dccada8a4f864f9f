//! `POST /register`: PROTOCOL section 2, row by row.

use futures_util::future::join_all;
use serde_json::json;
use tests::{Client, Relay, http};

#[tokio::test]
async fn an_id_that_is_free_is_registered_and_its_token_connects_at_once() {
    let relay = Relay::start();
    let answer = http::post(relay.public, "/register", r#"{"agent_id":"rawk-042"}"#).await;
    let answer = answer.expect_status(200);
    assert_eq!(
        answer.header("content-type").map(|t| t.starts_with("application/json")),
        Some(true)
    );
    let body = answer.json();
    assert_eq!(body["agent_id"], "rawk-042");
    let token = body["token"].as_str().expect("a token is a string");
    assert!(token.starts_with("tok_"), "{token}");
    let url_safe = |c: char| c.is_ascii_alphanumeric() || "-._~=".contains(c);
    assert!(token.chars().all(url_safe), "a token goes into a query string as it is: {token}");
    assert_eq!(Client::connect(&relay, token).await.id, "rawk-042");
}

#[tokio::test]
async fn an_id_is_assigned_to_who_names_none() {
    let relay = Relay::start();
    let mut assigned = std::collections::BTreeSet::new();
    for body in ["", "{}", r#"{"agent_id":null}"#, r#" {"model":"x","agent_id":null} "#] {
        let answer = http::post(relay.public, "/register", body).await.expect_status(200).json();
        let id = answer["agent_id"].as_str().expect("an id is a string").to_owned();
        let random = id.strip_prefix("agent-").unwrap_or_else(|| panic!("{body}: {id}"));
        assert!(random.len() >= 8, "{id}");
        let token = answer["token"].as_str().expect("a token is a string");
        assert_eq!(Client::connect(&relay, token).await.id, id);
        assert!(assigned.insert(id), "assigned twice");
    }
}

#[tokio::test]
async fn any_content_type_is_read_as_json_and_unknown_fields_are_ignored() {
    let relay = Relay::start();
    let types = [None, Some("text/plain"), Some("application/x-www-form-urlencoded")];
    for (n, content_type) in types.into_iter().enumerate() {
        let mut request = http::request("POST", "/register");
        if let Some(content_type) = content_type {
            request = request.header("content-type", content_type);
        }
        let body = json!({"agent_id": format!("typed-{n}"), "model": "x", "nested": {"a": [1]}});
        http::send(relay.public, request, body.to_string()).await.expect_status(200);
    }
}

#[tokio::test]
async fn ids_that_break_the_rule_are_refused() {
    let relay = Relay::start();
    let too_long = format!("\"{}\"", "a".repeat(65));
    let ids = [
        r#""""#,
        r#""ab""#,
        r#""-abc""#,
        r#""abc-""#,
        r#""Abc""#,
        r#""a_b""#,
        r#""a b""#,
        r#""abc\n""#,
        r#""äbc""#,
        r#""*""#,
        &too_long,
        "42",
        "true",
        r#"["abc"]"#,
        r#"{"id":"abc"}"#,
    ];
    for id in ids {
        let body = format!(r#"{{"agent_id":{id}}}"#);
        let answer = http::post(relay.public, "/register", body).await;
        answer.expect_error(400, "invalid_agent_id");
    }
    for id in ["abc".to_owned(), "0-0".to_owned(), "a--b".to_owned(), "a".repeat(64)] {
        relay.register(&id).await;
    }
}

#[tokio::test]
async fn what_is_no_json_object_is_refused() {
    let relay = Relay::start();
    let bodies: [&[u8]; 9] = [
        b"{",
        b"{\"agent_id\":\"abc\"",
        b"{\"agent_id\":\"abc\"} x",
        b"{agent_id:\"abc\"}",
        b"[\"abc\"]",
        b"\"abc\"",
        b"42",
        b"null",
        b"{\"agent_id\":\"\xff\xfe\xfd\"}",
    ];
    for body in bodies {
        http::post(relay.public, "/register", body.to_vec())
            .await
            .expect_error(400, "invalid_json");
    }
}

#[tokio::test]
async fn a_body_over_4_kib_is_refused() {
    let relay = Relay::start();
    let body_of = |len: usize| {
        let frame = r#"{"agent_id":null,"pad":""}"#.len();
        format!(r#"{{"agent_id":null,"pad":"{}"}}"#, "x".repeat(len - frame))
    };
    http::post(relay.public, "/register", body_of(4096)).await.expect_status(200);
    for len in [4097, 100_000] {
        let answer = http::post(relay.public, "/register", body_of(len)).await;
        answer.expect_error(413, "body_too_large");
    }
}

#[tokio::test]
async fn an_id_is_never_given_twice_and_the_relays_own_never_at_all() {
    let relay = Relay::start();
    let token = relay.register("rawk-042").await;
    let again = http::post(relay.public, "/register", r#"{"agent_id":"rawk-042"}"#).await;
    again.expect_error(409, "agent_id_taken");
    let reserved = http::post(relay.public, "/register", r#"{"agent_id":"relay"}"#).await;
    reserved.expect_error(409, "agent_id_reserved");
    assert_eq!(Client::connect(&relay, &token).await.id, "rawk-042", "the first token stays good");
    relay.admin("POST", "/agents/rawk-042/ban").await.expect_status(200);
    let heir = http::post(relay.public, "/register", r#"{"agent_id":"rawk-042"}"#).await;
    heir.expect_error(409, "agent_id_taken");
}

#[tokio::test]
async fn the_ops_port_registers_too() {
    let relay = Relay::start();
    let answer = http::post(relay.ops, "/register", r#"{"agent_id":"rawk-042"}"#).await;
    let token = answer.expect_status(200).json()["token"].as_str().map(str::to_owned);
    assert_eq!(Client::connect(&relay, &token.expect("a token")).await.id, "rawk-042");
}

#[tokio::test]
async fn of_200_who_claim_one_id_at_once_one_wins() {
    let relay = Relay::start();
    let claim = || http::post(relay.public, "/register", r#"{"agent_id":"the-one"}"#);
    let answers = join_all((0..200).map(|_| claim())).await;
    let (winners, losers): (Vec<_>, Vec<_>) = answers.into_iter().partition(|a| a.status == 200);
    assert_eq!(winners.len(), 1, "one name, one owner");
    for loser in losers {
        loser.expect_error(409, "agent_id_taken");
    }
    let token = winners[0].json()["token"].as_str().map(str::to_owned);
    assert_eq!(Client::connect(&relay, &token.expect("a token")).await.id, "the-one");
}

#[tokio::test]
async fn two_hundred_ids_at_once_are_all_registered() {
    let relay = Relay::start();
    let names: Vec<String> = (0..200).map(|n| format!("one-of-many-{n}")).collect();
    join_all(names.iter().map(|name| relay.register(name))).await;
    assert_eq!(relay.stats().await["registered_agents"], 200);
}

#[tokio::test]
async fn registrations_per_address_are_limited() {
    let relay = Relay::with(&[("REGISTRATION_LIMIT_PER_MIN", "3")]);
    for _ in 0..3 {
        http::post(relay.public, "/register", "").await.expect_status(200);
    }
    for listener in [relay.public, relay.ops] {
        let over = http::post(listener, "/register", "").await;
        over.expect_error(429, "rate_limit").expect_retry_after();
    }
}

/// Registers as `forwarded` through a proxy on this machine; the answer's status.
async fn register_through_proxy(relay: &Relay, forwarded: &str) -> u16 {
    let request = http::request("POST", "/register").header("x-forwarded-for", forwarded);
    http::send(relay.public, request, "").await.status
}

#[tokio::test]
async fn nobody_gets_around_the_limit_by_claiming_to_be_a_proxy() {
    let relay = Relay::with(&[("REGISTRATION_LIMIT_PER_MIN", "2")]);
    assert_eq!(register_through_proxy(&relay, "192.0.2.1").await, 200);
    assert_eq!(register_through_proxy(&relay, "192.0.2.2").await, 200);
    assert_eq!(register_through_proxy(&relay, "192.0.2.3").await, 429);
}

#[tokio::test]
async fn behind_a_trusted_proxy_each_client_has_its_own_limit() {
    let settings = [("REGISTRATION_LIMIT_PER_MIN", "1"), ("TRUSTED_PROXIES", "127.0.0.0/8")];
    let relay = Relay::with(&settings);
    assert_eq!(register_through_proxy(&relay, "192.0.2.1").await, 200);
    assert_eq!(register_through_proxy(&relay, "192.0.2.2").await, 200);
    assert_eq!(register_through_proxy(&relay, "192.0.2.1").await, 429);
    // What stands left of the address that the proxy itself wrote, the client made up.
    assert_eq!(register_through_proxy(&relay, "203.0.113.9, 192.0.2.2").await, 429);
}

#[tokio::test]
async fn a_closed_registration_opens_to_its_key_only() {
    let relay = Relay::with(&[("REGISTRATION_KEY", "a-key-of-decent-length-0123456789")]);
    let register = async |authorization: Option<&str>| {
        let mut request = http::request("POST", "/register");
        if let Some(authorization) = authorization {
            request = request.header("authorization", authorization);
        }
        http::send(relay.public, request, "").await
    };
    let refused = [
        None,
        Some("Bearer another-key"),
        Some("Bearer "),
        Some("Bearer a-key-of-decent-length-012345678"),
        Some("Basic a-key-of-decent-length-0123456789"),
    ];
    for authorization in refused {
        register(authorization).await.expect_error(403, "registration_closed");
    }
    register(Some("Bearer a-key-of-decent-length-0123456789")).await.expect_status(200);
    assert!(!relay.log.text().contains("a-key-of-decent-length"), "the key is in the log");
}
