//! What operators see: `/health`, `/stats`, `/metrics`, the admin API, the log; and what belongs
//! to no agent: the landing page, CORS, errors of HTTP.

use serde_json::{Value, json};
use tests::{Client, Relay, eventually, http};

#[tokio::test]
async fn health_and_readiness() {
    let relay = Relay::start();
    for listener in [relay.public, relay.ops] {
        let health = http::get(listener, "/health").await.expect_status(200).json();
        assert_eq!(health["status"], "ok");
        assert!(health["uptime"].is_number(), "{health}");
    }
    http::get(relay.ops, "/ready").await.expect_status(200);
}

#[tokio::test]
async fn stats_are_numbers_that_follow_what_happens() {
    let relay = Relay::start();
    let stats = relay.stats().await;
    for part in [&stats, &stats["node"]] {
        let keys = ["registered_agents", "active_connections", "messages_per_minute", "uptime"];
        for key in keys {
            assert!(part[key].is_number(), "{key} in {stats}");
        }
        assert_eq!(part["active_connections"], 0);
        assert_eq!(part["registered_agents"], 0);
    }
    assert_eq!(stats["nodes"], 1);

    let mut ann = relay.agent("ann-1").await;
    let _bob = relay.agent("bob-1").await;
    relay.register("off-1").await;
    for _ in 0..10 {
        ann.send(json!({"to": ["bob-1"], "payload": 1})).await;
    }
    ann.fence().await;
    eventually("the statistics follow", || async {
        let stats = relay.stats().await;
        stats["registered_agents"] == 3
            && stats["node"]["active_connections"] == 2
            && stats["messages_per_minute"].as_f64().is_some_and(|n| n >= 10.0)
    })
    .await;
}

/// A metric's name, some of its labels, and what it must have counted.
type Row = (&'static str, &'static [(&'static str, &'static str)], u64);

#[tokio::test]
async fn metrics_count_what_happens_without_naming_agents() {
    let relay = Relay::start();
    let mut ann = relay.agent("ann-1").await;
    let mut bob = relay.agent("bob-1").await;
    ann.send(json!({"to": ["bob-1"], "payload": 1})).await;
    ann.send(json!({"to": ["*"], "payload": 1})).await;
    ann.send(json!({"to": ["nobody-1"], "payload": 1})).await;
    ann.send_text("no message").await;
    ann.expect_error("invalid_message").await;
    ann.fence().await;
    bob.next().await;
    bob.next().await;
    http::send(relay.public, http::upgrade("/arc?token=tok_bad"), "").await.expect_status(401);

    let rows: [Row; 12] = [
        ("arc_sessions", &[], 2),
        ("arc_registered_agents", &[], 2),
        ("arc_registrations_total", &[("outcome", "registered")], 2),
        ("arc_handshakes_total", &[("outcome", "accepted")], 2),
        ("arc_handshakes_total", &[("outcome", "unauthorized")], 1),
        ("arc_messages_received_total", &[("kind", "direct")], 2),
        ("arc_messages_received_total", &[("kind", "broadcast")], 1),
        ("arc_messages_received_total", &[("kind", "command")], 1),
        ("arc_messages_delivered_total", &[("kind", "direct")], 1),
        ("arc_messages_delivered_total", &[("kind", "broadcast")], 1),
        ("arc_messages_dropped_total", &[("reason", "offline")], 1),
        ("arc_messages_dropped_total", &[("reason", "invalid")], 1),
    ];
    eventually("all has been counted", || async {
        let metrics = relay.metrics().await;
        rows.iter().all(|(name, labels, value)| metrics.count(name, labels) >= *value)
    })
    .await;
    let metrics = relay.metrics().await;
    for (name, labels, value) in rows {
        let counted = metrics.count(name, labels);
        assert_eq!(counted, value, "{name} {labels:?}");
    }
    for name in ["arc_handshake_seconds_bucket", "arc_registration_seconds_count"] {
        assert!(metrics.names().contains(name), "{name} is missing: {:?}", metrics.names());
    }
    for labels in metrics.labels() {
        assert!(!labels.contains("ann-1") && !labels.contains("bob-1"), "{labels}");
    }
}

#[tokio::test]
async fn each_end_of_a_session_is_counted_with_its_reason() {
    let relay = Relay::start();
    let agent = relay.agent("ann-1").await;
    let token = agent.token.clone();
    let mut old = Client::connect(&relay, &token).await;
    let mut new = Client::connect(&relay, &token).await;
    old.expect_close(4009).await;
    new.send_binary(&vec![b'x'; 70_000]).await;
    new.expect_close(1009).await;
    let mut revoked = Client::connect(&relay, &token).await;
    relay.admin("POST", "/agents/ann-1/revoke").await.expect_status(200);
    revoked.expect_close(4001).await;
    relay.agent("bob-1").await.leave().await;
    eventually("each end is counted", || async {
        let metrics = relay.metrics().await;
        let count = |reason| metrics.count("arc_sessions_closed_total", &[("reason", reason)]);
        count("replaced") == 2
            && count("violation") == 1
            && count("token") == 1
            && count("client") == 1
    })
    .await;
}

#[tokio::test]
async fn what_is_not_there_says_so_in_json() {
    let relay = Relay::start();
    for listener in [relay.public, relay.ops] {
        for path in ["/nothing", "/arc/", "/register/x", "/../etc/passwd", "//"] {
            http::get(listener, path).await.expect_error(404, "not_found");
        }
        let rows = [("GET", "/register", "POST"), ("DELETE", "/health", "GET")];
        for (method, path, allowed) in rows {
            let answer = http::send(listener, http::request(method, path), "").await;
            let answer = answer.expect_error(405, "method_not_allowed");
            let allow = answer.header("allow").unwrap_or_default();
            assert!(allow.contains(allowed), "{method} {path}: allow {allow:?}");
        }
    }
}

#[tokio::test]
async fn agents_cannot_reach_what_is_for_operators() {
    let relay = Relay::start();
    relay.register("ann-1").await;
    for path in ["/stats", "/metrics", "/ready", "/cluster", "/agents/ann-1"] {
        http::get(relay.public, path).await.expect_error(404, "not_found");
    }
}

#[tokio::test]
async fn the_landing_page_greets_people() {
    let relay = Relay::with(&[("RELAY_NAME", "relay <b>of</b> tests")]);
    let page = http::get(relay.public, "/").await.expect_status(200);
    assert!(page.header("content-type").is_some_and(|t| t.starts_with("text/html")), "{page:?}");
    assert!(page.text().contains("/register"), "it says how to begin: {}", page.text());
    assert!(!page.text().contains("<b>of</b>"), "a name is text, not HTML");
}

#[tokio::test]
async fn head_is_answered_like_get() {
    let relay = Relay::start();
    for path in ["/", "/health"] {
        let answer = http::send(relay.public, http::request("HEAD", path), "").await;
        assert_eq!((answer.status, answer.body.len()), (200, 0), "HEAD {path}");
    }
}

#[tokio::test]
async fn any_web_page_may_register_when_no_origins_are_named() {
    let relay = Relay::start();
    let request = http::request("POST", "/register").header("origin", "https://a.example");
    let answer = http::send(relay.public, request, "").await.expect_status(200);
    assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
}

#[tokio::test]
async fn only_pages_of_allowed_origins_may_read_the_answers() {
    let relay = Relay::with(&[("ALLOWED_ORIGINS", "https://a.example, https://b.example")]);
    let allowed = async |origin: &str| {
        let request = http::request("POST", "/register").header("origin", origin);
        let answer = http::send(relay.public, request, "").await;
        answer.header("access-control-allow-origin").map(str::to_owned)
    };
    assert_eq!(allowed("https://a.example").await.as_deref(), Some("https://a.example"));
    assert_eq!(allowed("https://b.example").await.as_deref(), Some("https://b.example"));
    assert_eq!(allowed("https://c.example").await, None);
    let request = http::request("GET", "/health").header("origin", "https://a.example");
    let answer = http::send(relay.public, request, "").await;
    let vary = answer.header("vary").unwrap_or_default().to_lowercase();
    assert!(vary.contains("origin"), "a cache must keep the answers apart: {answer:?}");
}

#[tokio::test]
async fn a_preflight_is_answered_with_204() {
    let relay = Relay::with(&[("ALLOWED_ORIGINS", "https://a.example")]);
    let preflight = |origin: &str| {
        http::request("OPTIONS", "/register")
            .header("origin", origin)
            .header("access-control-request-method", "POST")
            .header("access-control-request-headers", "authorization,content-type")
    };
    // Clients of the reference register on the next port.
    let beside = http::send(relay.ops, preflight("https://a.example"), "").await;
    let beside = beside.expect_status(204);
    assert_eq!(beside.header("access-control-allow-origin"), Some("https://a.example"));
    let nowhere = http::request("OPTIONS", "/nowhere").header("origin", "https://a.example");
    http::send(relay.public, nowhere, "").await.expect_error(404, "not_found");
    let answer = http::send(relay.public, preflight("https://a.example"), "").await;
    let answer = answer.expect_status(204);
    assert_eq!(answer.header("access-control-allow-origin"), Some("https://a.example"));
    let methods = answer.header("access-control-allow-methods").unwrap_or_default();
    assert!(methods.contains("POST"), "{methods}");
    let headers = answer.header("access-control-allow-headers").unwrap_or_default().to_lowercase();
    assert!(headers.contains("content-type") && headers.contains("authorization"), "{headers}");

    let stranger = http::send(relay.public, preflight("https://c.example"), "").await;
    assert_eq!(stranger.header("access-control-allow-origin"), None);
}

#[tokio::test]
async fn the_admin_api_wants_the_administrators_token() {
    let relay = Relay::start();
    let token = relay.register("ann-1").await;
    let rows = [
        ("GET", "/agents/ann-1"),
        ("POST", "/agents/ann-1/revoke"),
        ("POST", "/agents/ann-1/reissue"),
        ("POST", "/tokens/1/revoke"),
    ];
    for (method, path) in rows {
        let bare = http::send(relay.ops, http::request(method, path), "").await;
        bare.expect_error(401, "unauthorized");
        for wrong in ["Bearer x", &format!("Bearer {token}"), "Basic x", "Bearer "] {
            let request = http::request(method, path).header("authorization", wrong);
            http::send(relay.ops, request, "").await.expect_error(401, "unauthorized");
        }
    }
    assert_eq!(Client::connect(&relay, &token).await.id, "ann-1", "nothing was revoked");
}

#[tokio::test]
async fn the_admin_api_knows_whom_it_does_not_know() {
    let relay = Relay::start();
    relay.register("ann-1").await;
    let record = relay.admin("GET", "/agents/ann-1").await.expect_status(200).json();
    assert_eq!((&record["agent_id"], &record["revoked"]), (&json!("ann-1"), &json!(false)));
    for (method, path) in [
        ("GET", "/agents/nobody-1"),
        ("POST", "/agents/nobody-1/revoke"),
        ("POST", "/agents/nobody-1/reissue"),
    ] {
        let answer = relay.admin(method, path).await;
        assert_eq!(answer.status, 404, "{method} {path}: {}", answer.text());
    }
    relay.admin("POST", "/agents/ann-1/revoke").await.expect_status(200);
    let record = relay.admin("GET", "/agents/ann-1").await.expect_status(200).json();
    assert_eq!(record["revoked"], true, "{record}");
    relay.admin("POST", "/agents/ann-1/revoke").await.expect_status(200);
}

/// Sends `secret` to the relay in every place where somebody might, rightly or not.
async fn send_everywhere(relay: &Relay, secret: &str) {
    let bearer = format!("Bearer {secret}");
    for path in ["/arc", "/nothing", "/health", "/register", "/agents/x", "/"] {
        for listener in [relay.public, relay.ops] {
            http::get(listener, &format!("{path}?token={secret}")).await;
            http::get(listener, &format!("{path}?x=1&TOKEN={secret}#y")).await;
            let request = http::request("GET", path).header("authorization", &bearer);
            http::send(listener, request, "").await;
            let request = http::upgrade(path).header("authorization", &bearer);
            http::send(listener, request, "").await;
        }
    }
    http::get(relay.public, &format!("/arc/{secret}")).await;
    http::get(relay.public, &format!("/{secret}")).await;
    let body = json!({ "agent_id": secret }).to_string();
    http::post(relay.public, "/register", body).await;
}

#[tokio::test]
async fn no_token_is_ever_in_the_log() {
    let relay = Relay::with(&[("LOG_LEVEL", "trace")]);
    let agent = relay.agent("ann-1").await;
    let token = agent.token.clone();
    let admin = std::fs::read_to_string(relay.data_dir().join("admin.token")).expect("it is there");
    let altered = format!("{}x", &token[..token.len() - 1]);
    for secret in [token.as_str(), altered.as_str(), admin.trim()] {
        send_everywhere(&relay, secret).await;
    }
    let reissued = relay.admin("POST", "/agents/ann-1/reissue").await.json();
    relay.admin("POST", "/agents/ann-1/revoke").await.expect_status(200);
    send_everywhere(&relay, &token).await;

    let log = relay.log.text();
    assert!(log.len() > 500, "at trace there is something to read: {log}");
    let reissued = reissued["token"].as_str().expect("a token is a string");
    for secret in [token.as_str(), reissued, admin.trim()] {
        // In parts, too: from the front, out of the middle, from the end.
        let third = secret.len() / 3;
        for part in [&secret[..third], &secret[third..2 * third], &secret[2 * third..]] {
            assert!(!log.contains(part), "a part of a secret is in the log");
        }
    }
    assert!(!log.contains("tok_"), "not even the beginning of a token");
}

#[tokio::test]
async fn every_line_of_a_json_log_is_json() {
    let mut relay = Relay::start();
    let mut agent = relay.agent("ann-1").await;
    agent.fence().await;
    relay.terminate();
    agent.expect_close(1001).await;
    relay.wait_exit();
    for line in relay.log.text().lines() {
        let entry: Value =
            serde_json::from_str(line).unwrap_or_else(|e| panic!("{e} in the log line {line:?}"));
        assert!(entry["message"].is_string() && entry["level"].is_string(), "{entry}");
    }
}
