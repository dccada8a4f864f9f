//! One live session per agent, from its welcome to its end: PROTOCOL sections 3 and 7.

use serde_json::json;
use tests::{Client, Relay, eventually, frame};
use tokio_tungstenite::tungstenite::Message;

#[tokio::test]
async fn the_newest_session_wins_and_the_old_ones_goodbye_does_not_disturb_it() {
    let relay = Relay::start();
    let mut other = relay.agent("other-1").await;
    let mut old = relay.agent("rawk-042").await;
    let mut new = Client::connect(&relay, &old.token).await;
    // The old one has not even read its close frame.
    other.fence_to(&mut new).await;
    old.expect_close(4009).await;
    drop(old);
    relay.wait_for_connections(2).await;
    other.fence_to(&mut new).await;
    new.fence_to(&mut other).await;
    other.send(json!({"to": ["*"], "payload": "to all"})).await;
    assert_eq!(new.next().await["payload"], "to all");
}

#[tokio::test]
async fn of_many_sessions_that_come_at_once_one_stays() {
    let relay = Relay::start();
    let token = relay.register("rawk-042").await;
    let mut sessions =
        futures_util::future::join_all((0..20).map(|_| Client::connect(&relay, &token))).await;
    relay.wait_for_connections(1).await;
    let mut other = relay.agent("other-1").await;
    other.send(json!({"to": ["rawk-042"], "payload": "who stayed?"})).await;
    let mut stayed = 0;
    for session in &mut sessions {
        match session.next_frame().await {
            Some(Ok(Message::Text(_))) => stayed += 1,
            Some(Ok(Message::Close(Some(frame)))) => assert_eq!(u16::from(frame.code), 4009),
            frame => panic!("{frame:?}"),
        }
    }
    assert_eq!(stayed, 1);
}

#[tokio::test]
async fn a_goodbye_is_answered_and_counted() {
    let relay = Relay::start();
    let mut agent = relay.agent("rawk-042").await;
    let mut bytes = 1000_u16.to_be_bytes().to_vec();
    bytes.extend(b"done");
    agent.write_raw(&frame::masked(frame::CLOSE, &bytes)).await;
    agent.expect_close(1000).await;
    relay.wait_for_connections(0).await;

    let mut agent = Client::connect(&relay, &agent.token).await;
    agent.write_raw(&frame::masked(frame::CLOSE, b"")).await;
    let closed = agent.read_to_close().await;
    assert!(matches!(closed.code, None | Some(1000)), "no code is answered with none: {closed:?}");
    relay.wait_for_connections(0).await;
}

#[tokio::test]
async fn what_was_sent_while_an_agent_was_away_is_gone() {
    let relay = Relay::start();
    let mut other = relay.agent("other-1").await;
    let agent = relay.agent("rawk-042").await;
    let token = agent.token.clone();
    agent.leave().await;
    relay.wait_for_connections(1).await;
    other.send(json!({"to": ["rawk-042"], "payload": "anybody there?"})).await;
    other.fence().await;
    let mut agent = Client::connect(&relay, &token).await;
    other.fence_to(&mut agent).await;
}

#[tokio::test]
async fn the_relay_pings_and_keeps_who_answers() {
    let relay = Relay::with(&[("PING_INTERVAL", "500ms"), ("IDLE_DEADLINE", "1500ms")]);
    let mut agent = relay.agent("rawk-042").await;
    for _ in 0..6 {
        let frame = agent.next_frame().await;
        assert!(matches!(frame, Some(Ok(Message::Ping(_)))), "{frame:?}");
    }
    agent.fence().await;
}

#[tokio::test]
async fn who_stays_silent_is_dropped() {
    let relay = Relay::with(&[("PING_INTERVAL", "500ms"), ("IDLE_DEADLINE", "1500ms")]);
    // Nothing is read here, so no ping is answered.
    let _silent = relay.agent("rawk-042").await;
    relay.wait_for_connections(1).await;
    relay.wait_for_connections(0).await;
}

#[tokio::test]
async fn a_peer_that_vanishes_leaves_nothing_behind() {
    let relay = Relay::start();
    for n in 0..20 {
        let agent = relay.agent(&format!("brief-{n}")).await;
        if n % 2 == 0 {
            agent.reset();
        }
    }
    relay.wait_for_connections(0).await;
    eventually("the gauge has followed", || async {
        relay.metrics().await.count("arc_sessions", &[]) == 0
    })
    .await;
}
