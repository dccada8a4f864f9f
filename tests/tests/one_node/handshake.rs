//! `GET /arc`: PROTOCOL section 3, row by row, and the welcome.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use tests::{Client, Relay, eventually, http};
use tokio::{io::AsyncWriteExt, net::TcpStream};

/// Tries to connect as an agent with `token`, and reads the answer.
async fn attempt(relay: &Relay, token: &str) -> http::Response {
    let request = http::upgrade("/arc").header("authorization", format!("Bearer {token}"));
    http::send(relay.public, request, "").await
}

#[tokio::test]
async fn the_token_comes_in_the_header_or_the_query_and_the_header_wins() {
    let relay = Relay::start();
    let token = relay.register("rawk-042").await;
    let by_query = http::upgrade(&format!("/arc?token={token}"));
    assert_eq!(Client::connect_by(&relay, by_query, &token).await.id, "rawk-042");
    let among_others = http::upgrade(&format!("/arc?client=x&token={token}&v=2"));
    assert_eq!(Client::connect_by(&relay, among_others, &token).await.id, "rawk-042");
    let scheme = http::upgrade("/arc").header("authorization", format!("bearer {token}"));
    assert_eq!(Client::connect_by(&relay, scheme, &token).await.id, "rawk-042");

    let bearer = format!("Bearer {token}");
    let good_header = http::upgrade("/arc?token=tok_bad").header("authorization", &bearer);
    assert_eq!(Client::connect_by(&relay, good_header, &token).await.id, "rawk-042");
    let bad_header =
        http::upgrade(&format!("/arc?token={token}")).header("authorization", "Bearer tok_bad");
    http::send(relay.public, bad_header, "").await.expect_error(401, "unauthorized");
}

#[tokio::test]
async fn a_token_that_is_not_this_relays_is_refused() {
    let relay = Relay::start();
    let good = relay.register("rawk-042").await;
    let of_another = Relay::start().register("rawk-042").await;
    let without_prefix = good.trim_start_matches("tok_").to_owned();
    let cut = good[..good.len() - 1].to_owned();
    let middle = good.len() / 2;
    let other = if &good[middle..=middle] == "A" { "B" } else { "A" };
    let altered = format!("{}{other}{}", &good[..middle], &good[middle + 1..]);
    let longer = format!("{good}AAAA");
    let huge = format!("tok_{}", "A".repeat(6_000));
    let bad =
        ["", "tok_", "x", "tok_x", &of_another, &without_prefix, &cut, &altered, &longer, &huge];
    for token in bad {
        attempt(&relay, token).await.expect_error(401, "unauthorized");
        let by_query = http::upgrade(&format!("/arc?token={token}"));
        http::send(relay.public, by_query, "").await.expect_error(401, "unauthorized");
    }
    for request in [
        http::upgrade("/arc"),
        http::upgrade("/arc?tok=x"),
        http::upgrade("/arc").header("authorization", format!("Basic {good}")),
        http::upgrade("/arc").header("authorization", &good),
    ] {
        http::send(relay.public, request, "").await.expect_error(401, "unauthorized");
    }
    assert_eq!(Client::connect(&relay, &good).await.id, "rawk-042");
}

#[tokio::test]
async fn a_revoked_token_is_refused_and_its_open_session_closed() {
    let relay = Relay::start();
    let mut agent = relay.agent("rawk-042").await;
    let mut other = relay.agent("other-1").await;
    relay.admin("POST", "/agents/rawk-042/revoke").await.expect_status(200);
    agent.expect_close(4001).await;
    attempt(&relay, &agent.token).await.expect_error(401, "token_revoked");
    other.fence().await;

    let reissued = relay.admin("POST", "/agents/rawk-042/reissue").await.expect_status(200).json();
    let token = reissued["token"].as_str().expect("a token is a string");
    assert_eq!(Client::connect(&relay, token).await.id, "rawk-042");
    attempt(&relay, &agent.token).await.expect_error(401, "token_revoked");
}

#[tokio::test]
async fn a_token_can_be_revoked_by_its_serial_alone() {
    let relay = Relay::start();
    let mut first = relay.agent("rawk-042").await;
    let record = relay.admin("GET", "/agents/rawk-042").await.expect_status(200).json();
    let serial = record["serial"].to_string();
    let serial = serial.trim_matches('"');
    let reissued = relay.admin("POST", "/agents/rawk-042/reissue").await.expect_status(200).json();
    relay.admin("POST", &format!("/tokens/{serial}/revoke")).await.expect_status(200);
    first.expect_close(4001).await;
    attempt(&relay, &first.token).await.expect_error(401, "token_revoked");
    let second = reissued["token"].as_str().expect("a token is a string");
    assert_eq!(Client::connect(&relay, second).await.id, "rawk-042", "the other token stays good");
}

#[tokio::test]
async fn a_token_that_expires_ends_its_session_and_opens_no_other() {
    let relay = Relay::with(&[("TOKEN_TTL", "2s")]);
    let mut agent = relay.agent("rawk-042").await;
    agent.expect_close(4001).await;
    attempt(&relay, &agent.token).await.expect_error(401, "token_expired");
}

#[tokio::test]
async fn browsers_come_from_allowed_origins_only() {
    let relay = Relay::with(&[("ALLOWED_ORIGINS", "https://a.example,https://b.example:8443")]);
    let token = relay.register("rawk-042").await;
    let from = |origin: &str| {
        let bearer = format!("Bearer {token}");
        http::upgrade("/arc").header("authorization", bearer).header("origin", origin)
    };
    for origin in ["https://a.example", "https://b.example:8443"] {
        http::send(relay.public, from(origin), "").await.expect_status(101);
    }
    for origin in ["https://c.example", "http://a.example", "https://a.example.evil", "null"] {
        let answer = http::send(relay.public, from(origin), "").await;
        answer.expect_error(403, "origin_not_allowed");
    }
    let registration = http::request("POST", "/register").header("origin", "https://c.example");
    http::send(relay.public, registration, "").await.expect_error(403, "origin_not_allowed");
    assert_eq!(Client::connect(&relay, &token).await.id, "rawk-042", "no browser, no origin");
    let metrics = relay.metrics().await;
    let refused = [("outcome", "origin_not_allowed")];
    assert_eq!(metrics.count("arc_handshakes_total", &refused), 4);
    assert_eq!(metrics.count("arc_registrations_total", &[("outcome", "refused")]), 1);
}

#[tokio::test]
async fn any_origin_may_come_when_none_is_named() {
    let relay = Relay::start();
    let token = relay.register("rawk-042").await;
    let request = http::upgrade("/arc")
        .header("authorization", format!("Bearer {token}"))
        .header("origin", "https://anywhere.example");
    http::send(relay.public, request, "").await.expect_status(101);
}

#[tokio::test]
async fn over_max_connections_agents_are_told_to_come_back() {
    let relay = Relay::with(&[("MAX_CONNECTIONS", "2")]);
    let first = relay.agent("first-1").await;
    let _second = relay.agent("second-1").await;
    let third = relay.register("third-1").await;
    let answer = attempt(&relay, &third).await;
    answer.expect_error(503, "too_many_connections").expect_retry_after();
    first.leave().await;
    eventually("a place is free again", || async { attempt(&relay, &third).await.status == 101 })
        .await;
}

#[tokio::test]
async fn an_agent_takes_over_its_own_place_where_there_is_no_other() {
    for limit in ["MAX_CONNECTIONS", "CONNECTIONS_PER_ADDRESS"] {
        let relay = Relay::with(&[(limit, "2")]);
        let mut old = relay.agent("rawk-042").await;
        let _other = relay.agent("other-1").await;
        let token = old.token.clone();
        let (fresh, closed) = tokio::join!(Client::connect(&relay, &token), old.expect_close(4009));
        assert_eq!(fresh.id, "rawk-042", "{limit}, {closed:?}");
        for kind in ["sessions", "connections"] {
            let limited = relay.metrics().await.count("arc_rate_limited_total", &[("limit", kind)]);
            assert_eq!(limited, 0, "{limit}: nobody was refused");
        }
    }
}

#[tokio::test]
async fn a_full_relay_is_not_ready() {
    let relay = Relay::with(&[("MAX_CONNECTIONS", "1")]);
    http::get(relay.ops, "/ready").await.expect_status(200);
    let agent = relay.agent("rawk-042").await;
    assert_eq!(http::get(relay.ops, "/ready").await.expect_status(503).json()["status"], "full");
    agent.leave().await;
    eventually("it is ready again", || async {
        http::get(relay.ops, "/ready").await.status == 200
    })
    .await;
}

#[tokio::test]
async fn connections_per_address_are_limited() {
    let relay = Relay::with(&[("CONNECTIONS_PER_ADDRESS", "2")]);
    let mut tokens = Vec::new();
    for name in ["first-1", "second-1", "third-1"] {
        tokens.push(relay.register(name).await);
    }
    let first = Client::connect(&relay, &tokens[0]).await;
    let _second = Client::connect(&relay, &tokens[1]).await;
    attempt(&relay, &tokens[2]).await.expect_error(429, "rate_limit").expect_retry_after();
    first.leave().await;
    eventually("a place is free again", || async {
        attempt(&relay, &tokens[2]).await.status == 101
    })
    .await;
}

#[tokio::test]
async fn a_session_is_not_given_up_for_a_successor_that_is_refused() {
    let limits = [("CONNECTIONS_PER_ADDRESS", "1"), ("TRUSTED_PROXIES", "127.0.0.0/8")];
    let relay = Relay::with(&limits);
    let from = |address: &str, token: &str| {
        let request = http::upgrade("/arc").header("x-forwarded-for", address);
        request.header("authorization", format!("Bearer {token}"))
    };
    let (ann, bob) = (relay.register("ann-1").await, relay.register("bob-1").await);
    let mut ann_at_home = Client::connect_by(&relay, from("192.0.2.1", &ann), &ann).await;
    let _bob = Client::connect_by(&relay, from("192.0.2.2", &bob), &bob).await;
    let refused = http::send(relay.public, from("192.0.2.2", &ann), "").await;
    refused.expect_error(429, "rate_limit").expect_retry_after();
    ann_at_home.fence().await;
    let again = Client::connect_by(&relay, from("192.0.2.1", &ann), &ann);
    let (_, closed) = tokio::join!(again, ann_at_home.expect_close(4009));
    assert!(closed.before.is_empty(), "{closed:?}");
}

#[tokio::test]
async fn handshakes_in_flight_per_address_are_limited() {
    let relay = Relay::with(&[("HANDSHAKES_PER_ADDRESS", "2"), ("HANDSHAKE_DEADLINE", "25s")]);
    // The ops listener's connections take no place.
    let registered = http::post(relay.ops, "/register", r#"{"agent_id":"rawk-042"}"#).await.json();
    let token = registered["token"].as_str().expect("a token is a string");
    let mut unfinished = Vec::new();
    for _ in 0..2 {
        let mut stream = TcpStream::connect(relay.public).await.expect("the relay accepts");
        stream.write_all(b"GET /arc HTTP/1.1\r\n").await.expect("the relay reads");
        unfinished.push(stream);
    }
    attempt(&relay, token).await.expect_error(429, "rate_limit").expect_retry_after();
    drop(unfinished);
    eventually("a place is free again", || async { attempt(&relay, token).await.status == 101 })
        .await;
}

#[tokio::test]
async fn what_is_no_websocket_handshake_is_told_so() {
    let relay = Relay::start();
    let token = relay.register("rawk-042").await;
    for path in ["/arc".to_owned(), format!("/arc?token={token}")] {
        let answer = http::get(relay.public, &path).await.expect_error(426, "upgrade_required");
        let upgrade = answer.header("upgrade").unwrap_or_default().to_lowercase();
        assert_eq!(upgrade, "websocket", "RFC 9110 section 15.5.22 wants the header");
    }
    let answer = http::post(relay.public, "/arc", "{}").await;
    let answer = answer.expect_error(405, "method_not_allowed");
    assert!(answer.header("allow").is_some_and(|allow| allow.contains("GET")), "{answer:?}");
    let old = http::request("GET", &format!("/arc?token={token}"))
        .header("connection", "Upgrade")
        .header("upgrade", "websocket")
        .header("sec-websocket-version", "8")
        .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
    let answer = http::send(relay.public, old, "").await;
    assert!(matches!(answer.status, 400 | 426), "{answer:?}");
}

#[tokio::test]
async fn an_extension_that_is_offered_is_not_taken() {
    let relay = Relay::start();
    let token = relay.register("rawk-042").await;
    let request = http::upgrade(&format!("/arc?token={token}"))
        .header("sec-websocket-extensions", "permessage-deflate; client_max_window_bits");
    let answer = http::send(relay.public, request, "").await.expect_status(101);
    assert_eq!(answer.header("sec-websocket-extensions"), None);
    assert_eq!(
        answer.header("sec-websocket-accept"),
        Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="),
        "RFC 6455 section 1.3's own example"
    );
}

#[tokio::test]
async fn the_welcome_has_its_shape() {
    let relay = Relay::with(&[
        ("RELAY_NAME", "relay.example"),
        ("NODE_NAME", "node-7"),
        ("REGION", "eu-north"),
        ("RATE_LIMIT_PER_MIN", "100"),
    ]);
    let welcome = relay.agent("rawk-042").await.welcome;
    let keys: Vec<&String> = welcome.as_object().expect("an object").keys().collect();
    assert_eq!(keys, ["from", "id", "payload", "to", "ts", "type"], "{welcome}");
    assert_eq!(welcome["from"], "relay");
    assert_eq!(welcome["to"], json!(["rawk-042"]));
    assert!(welcome["id"].as_str().is_some_and(|id| id.starts_with("msg_")), "{welcome}");
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("now is after 1970").as_millis();
    let ts = u128::from(welcome["ts"].as_u64().expect("ts is a number"));
    assert!(ts <= now && now - ts < 60_000, "ts {ts}, now {now}");

    let payload = &welcome["payload"];
    assert_eq!(payload["relay"], "relay.example");
    assert_eq!(payload["node"], "node-7");
    assert_eq!(payload["region"], "eu-north");
    assert_eq!(payload["capabilities"], json!(["broadcast", "direct", "subscribe"]));
    assert!(payload["extensions"].is_array(), "{payload}");
    assert!(payload["version"].as_str().is_some_and(|v| !v.is_empty()), "{payload}");
    assert_eq!(payload["limits"], json!({"max_message_size": 65536, "rate_limit": "100/min"}));
}

#[tokio::test]
async fn the_welcome_tells_the_limits_that_are_set() {
    let relay = Relay::with(&[("MAX_MESSAGE_SIZE", "2048"), ("RATE_LIMIT_PER_MIN", "7")]);
    let welcome = relay.agent("rawk-042").await.welcome;
    let expected = json!({"max_message_size": 2048, "rate_limit": "7/min"});
    assert_eq!(welcome["payload"]["limits"], expected);
    // Unless a test says otherwise, neither limit is set.
    for (per_hour, told) in [("70", "70/hour"), ("0", "unlimited")] {
        let relay = Relay::with(&[("RATE_LIMIT_PER_HOUR", per_hour)]);
        let welcome = relay.agent("rawk-042").await.welcome;
        assert_eq!(welcome["payload"]["limits"]["rate_limit"], told);
    }
}

#[tokio::test]
async fn from_its_welcome_on_an_agent_misses_nothing() {
    let relay = Relay::start();
    let mut speaker = relay.agent("speaker-1").await;
    let token = relay.register("newcomer-1").await;
    let stop = tokio::sync::Notify::new();
    let speak = async {
        for n in 0_u64.. {
            speaker.send(json!({"to": ["*"], "payload": n})).await;
            // One turn of the relay per message keeps the speaker from running far ahead.
            speaker.fence().await;
            if futures_util::FutureExt::now_or_never(stop.notified()).is_some() {
                return;
            }
        }
    };
    let listen = async {
        for _ in 0..5 {
            let mut newcomer = Client::connect(&relay, &token).await;
            let payload = |message: Value| message["payload"].as_u64().expect("a number");
            let mut last = payload(newcomer.next().await);
            for _ in 0..20 {
                let next = payload(newcomer.next().await);
                assert_eq!(next, last + 1, "nothing is lost, and order is kept");
                last = next;
            }
        }
        stop.notify_one();
    };
    tokio::join!(speak, listen);
}
