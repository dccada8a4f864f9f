//! Sizes and rates: PROTOCOL sections 7 and 8.

use serde_json::json;
use tests::{Client, Relay, field, frame, http};
use tokio::net::TcpStream;

/// A message to `bob-1` of exactly `len` bytes.
fn message_of(len: usize) -> String {
    let empty = r#"{"to":["bob-1"],"payload":""}"#.len();
    format!(r#"{{"to":["bob-1"],"payload":"{}"}}"#, "x".repeat(len - empty))
}

#[tokio::test]
async fn a_message_of_just_the_limit_passes() {
    let relay = Relay::start();
    let mut ann = relay.agent("ann-1").await;
    let mut bob = relay.agent("bob-1").await;
    let text = message_of(65_536);
    ann.send_text(&text).await;
    assert_eq!(field(&bob.next_text().await, "payload"), field(&text, "payload"));
}

#[tokio::test]
async fn a_message_over_the_limit_is_told_so_and_ends_its_session() {
    let relay = Relay::start();
    let mut bob = relay.agent("bob-1").await;
    let mut cid = relay.agent("cid-1").await;
    let token = relay.register("ann-1").await;
    let text = message_of(65_537);
    let mut in_fragments = Vec::new();
    for (n, chunk) in text.as_bytes().chunks(8_192).enumerate() {
        let first = if n == 0 { frame::TEXT_BEGINS } else { frame::GOES_ON };
        in_fragments.extend(frame::masked(first, chunk));
    }
    let ways = [
        ("in one frame", frame::masked(frame::TEXT, text.as_bytes())),
        ("in fragments that never end", in_fragments),
        ("by a header alone", frame::header(frame::TEXT, 65_537)),
        ("by a header that claims a terabyte", frame::header(frame::BINARY, 1 << 40)),
    ];
    for (way, bytes) in ways {
        let mut ann = Client::connect(&relay, &token).await;
        ann.write_raw(&bytes).await;
        let closed = ann.expect_close(1009).await;
        let codes: Vec<_> = closed.before.iter().map(|m| m["payload"]["code"].clone()).collect();
        assert_eq!(codes, ["message_too_large"], "{way}: the error comes first");
        cid.fence_to(&mut bob).await;
    }
}

#[tokio::test]
async fn the_limit_of_a_message_can_be_set() {
    let relay = Relay::with(&[("MAX_MESSAGE_SIZE", "1024")]);
    let mut ann = relay.agent("ann-1").await;
    let mut bob = relay.agent("bob-1").await;
    ann.send_text(&message_of(1_024)).await;
    bob.next().await;
    ann.send_text(&message_of(1_025)).await;
    ann.expect_close(1009).await;
}

#[tokio::test]
async fn over_its_rate_an_agent_is_told_when_to_go_on_and_its_messages_are_dropped() {
    let relay = Relay::with(&[("RATE_LIMIT_PER_MIN", "5")]);
    let mut ann = relay.agent("ann-1").await;
    let mut bob = relay.agent("bob-1").await;
    let mut cid = relay.agent("cid-1").await;
    for n in 0..5 {
        ann.send(json!({"to": ["bob-1"], "payload": n})).await;
        assert_eq!(bob.next().await["payload"], n);
    }
    ann.send(json!({"to": ["bob-1"], "payload": "one too many"})).await;
    let error = ann.expect_error("rate_limit").await;
    let retry_ms = error["retry_ms"].as_u64().expect("retry_ms is a number");
    assert!((1..=60_000).contains(&retry_ms), "{error}");
    cid.fence_to(&mut bob).await;

    let token = ann.token.clone();
    ann.leave().await;
    let mut ann = Client::connect(&relay, &token).await;
    ann.send(json!({"to": ["bob-1"], "payload": "from a new session"})).await;
    ann.expect_error("rate_limit").await;
    cid.fence_to(&mut bob).await;
    let metrics = relay.metrics().await;
    assert!(metrics.count("arc_messages_dropped_total", &[("reason", "rate_limit")]) >= 2);
}

#[tokio::test]
async fn the_rate_of_an_hour_is_limited_too() {
    let relay = Relay::with(&[("RATE_LIMIT_PER_HOUR", "5"), ("RATE_LIMIT_PER_MIN", "100")]);
    let mut ann = relay.agent("ann-1").await;
    for _ in 0..5 {
        ann.send(json!({"to": ["ann-1"], "payload": 1})).await;
        ann.next().await;
    }
    ann.send(json!({"to": ["ann-1"], "payload": 1})).await;
    let error = ann.expect_error("rate_limit").await;
    let retry_ms = error["retry_ms"].as_u64().expect("retry_ms is a number");
    assert!((1..=3_600_000).contains(&retry_ms), "{error}");
}

#[tokio::test]
async fn commands_and_errors_count_like_messages() {
    let relay = Relay::with(&[("RATE_LIMIT_PER_MIN", "4")]);
    let mut ann = relay.agent("ann-1").await;
    ann.fence().await;
    ann.fence().await;
    for _ in 0..2 {
        ann.send_text("no message").await;
        ann.expect_error("invalid_message").await;
    }
    ann.send(json!({"to": ["relay"], "type": "ping"})).await;
    ann.expect_error("rate_limit").await;
}

#[tokio::test]
async fn who_keeps_on_over_its_rate_is_closed() {
    let relay = Relay::with(&[("RATE_LIMIT_PER_MIN", "5")]);
    let mut other = relay.agent("other-1").await;
    let mut ann = relay.agent("ann-1").await;
    let flood = frame::masked(frame::TEXT, br#"{"to":["nobody-1"],"payload":1}"#).repeat(2_000);
    ann.write_raw(&flood).await;
    let closed = ann.expect_close(4029).await;
    for message in closed.before {
        assert_eq!(message["payload"]["code"], "rate_limit", "{message}");
    }
    other.fence().await;
}

#[tokio::test]
async fn zero_switches_the_rate_limits_off() {
    let relay = Relay::with(&[("RATE_LIMIT_PER_MIN", "0"), ("RATE_LIMIT_PER_HOUR", "0")]);
    let mut ann = relay.agent("ann-1").await;
    let mut bob = relay.agent("bob-1").await;
    for batch in 0..15 {
        for n in 0..100 {
            ann.send(json!({"to": ["bob-1"], "payload": batch * 100 + n})).await;
        }
        for n in 0..100 {
            assert_eq!(bob.next().await["payload"], batch * 100 + n);
        }
    }
}

#[tokio::test]
async fn limits_that_nobody_sets_are_those_of_the_protocol() {
    let unset = ["RATE_LIMIT_PER_MIN", "REGISTRATION_LIMIT_PER_MIN", "HANDSHAKES_PER_ADDRESS"];
    let relay = Relay::with(&unset.map(|variable| (variable, "")));
    let mut ann = relay.agent("ann-1").await;
    let limits = json!({"max_message_size": 65536, "rate_limit": "100/min"});
    assert_eq!(ann.welcome["payload"]["limits"], limits);
    for n in 0..100 {
        ann.send(json!({"to": ["ann-1"], "payload": n})).await;
        assert_eq!(ann.next().await["payload"], n);
    }
    // On a slow machine one or another comes back meanwhile.
    for _ in 0..50 {
        ann.send(json!({"to": ["nobody-1"], "payload": "too many"})).await;
    }
    ann.expect_error("rate_limit").await;
    let mut registered = 1;
    while http::post(relay.public, "/register", "").await.status == 200 {
        registered += 1;
    }
    assert!((30..60).contains(&registered), "{registered} at once");
    let mut unfinished = Vec::new();
    for _ in 0..64 {
        unfinished.push(TcpStream::connect(relay.public).await.expect("the relay accepts"));
    }
    http::get(relay.public, "/health").await.expect_error(429, "rate_limit");
}

#[tokio::test]
async fn an_agent_may_say_1000_things_an_hour() {
    let relay = Relay::with(&[("RATE_LIMIT_PER_HOUR", "")]);
    let mut ann = relay.agent("ann-1").await;
    for n in 0..1_000 {
        ann.send(json!({"to": ["ann-1"], "payload": n})).await;
        assert_eq!(ann.next().await["payload"], n);
    }
    // In the hour's first seconds one or another comes back.
    for _ in 0..20 {
        ann.send(json!({"to": ["nobody-1"], "payload": "too many"})).await;
    }
    ann.expect_error("rate_limit").await;
}
