//! What an agent asks of the relay itself: PROTOCOL section 6.

use serde_json::{Value, json};
use tests::{Client, Relay, eventually, field, fields};

/// Sends a command and takes its answer.
pub(crate) async fn command(agent: &mut Client, kind: &str, payload: Value) -> Value {
    agent.send(json!({"to": ["relay"], "type": kind, "payload": payload})).await;
    let answer = agent.next().await;
    assert_eq!(answer["from"], "relay", "{answer}");
    assert_eq!(answer["to"], json!([agent.id]), "{answer}");
    answer
}

/// The agents that `agent` follows, in alphabetical order.
pub(crate) async fn following(agent: &mut Client) -> Vec<String> {
    agent.send(json!({"to": ["relay"], "type": "list_subscriptions"})).await;
    let answer = agent.next().await;
    assert_eq!(answer["type"], "subscriptions", "{answer}");
    let agents = answer["payload"]["agents"].as_array().expect("a list").iter();
    let mut names: Vec<String> =
        agents.map(|name| name.as_str().expect("an id is a string").to_owned()).collect();
    names.sort();
    names
}

#[tokio::test]
async fn a_ping_is_answered_with_its_own_payload_and_ref() {
    let relay = Relay::start();
    let mut agent = relay.agent("rawk-042").await;
    for payload in ["null", "1.10", r#"{"b":12345678901234567890,"a":"\u0041","b":[]}"#] {
        let ping =
            format!(r#"{{"to":["relay"],"type":"ping","ref":"r\u00e9f","payload":{payload}}}"#);
        agent.send_text(&ping).await;
        let answer = agent.next_text().await;
        assert_eq!(field(&answer, "type"), "\"pong\"");
        assert_eq!(field(&answer, "payload"), payload);
        let reference: Value = serde_json::from_str(&field(&answer, "ref")).expect("JSON");
        assert_eq!(reference, "réf");
    }
    agent.send(json!({"to": ["relay"], "type": "ping"})).await;
    let answer = agent.next_text().await;
    let keys: Vec<String> = fields(&answer).into_iter().map(|(key, _)| key).collect();
    assert_eq!(keys, ["id", "from", "to", "type", "ts"], "{answer}");
}

#[tokio::test]
async fn commands_nobody_knows_are_answered_with_an_error() {
    let relay = Relay::start();
    let mut agent = relay.agent("rawk-042").await;
    for kind in [r#","type":"dance""#, r#","type":"Ping""#, r#","type":"""#, ""] {
        agent.send_text(&format!(r#"{{"to":["relay"]{kind}}}"#)).await;
        agent.expect_error("unknown_command").await;
    }
    agent.fence().await;
}

#[tokio::test]
async fn subscriptions_are_made_listed_and_ended() {
    let relay = Relay::start();
    let mut agent = relay.agent("rawk-042").await;
    assert_eq!(following(&mut agent).await, Vec::<String>::new());

    let answer = command(&mut agent, "subscribe", json!({"agents": ["bob-1", "cid-1"]})).await;
    assert_eq!(answer["type"], "subscribed");
    assert_eq!(answer["payload"]["count"], 2);
    let answer = command(&mut agent, "subscribe", json!({"agents": ["cid-1", "dan-1"]})).await;
    assert_eq!(answer["payload"]["count"], 3, "following twice is following: {answer}");
    let answer = command(&mut agent, "subscribe", json!({"subscribe_to": ["eve-1"]})).await;
    assert_eq!(answer["type"], "subscribed");
    assert_eq!(following(&mut agent).await, ["bob-1", "cid-1", "dan-1", "eve-1"]);

    let ended = json!({"agents": ["bob-1", "stranger-1"]});
    let answer = command(&mut agent, "unsubscribe", ended).await;
    assert_eq!(answer["type"], "unsubscribed");
    assert_eq!(answer["payload"]["count"], 3);
    assert_eq!(following(&mut agent).await, ["cid-1", "dan-1", "eve-1"]);
}

#[tokio::test]
async fn a_subscription_without_a_list_of_ids_is_invalid() {
    let relay = Relay::start();
    let mut agent = relay.agent("rawk-042").await;
    for kind in ["subscribe", "unsubscribe"] {
        let positional = r#"[["bob-1"]]"#;
        let unlisted = [r#"{"agents":"bob-1"}"#, r#"{"agents":[1]}"#, r#"{"agents":["*"]}"#];
        for payload in ["null", "{}", "[]", "1", positional].into_iter().chain(unlisted) {
            let text = format!(r#"{{"to":["relay"],"type":"{kind}","payload":{payload}}}"#);
            agent.send_text(&text).await;
            agent.expect_error("invalid_message").await;
        }
    }
    assert_eq!(following(&mut agent).await, Vec::<String>::new());
}

#[tokio::test]
async fn an_agent_follows_1000_others_at_most() {
    let relay = Relay::start();
    let mut agent = relay.agent("rawk-042").await;
    let names: Vec<String> = (0..1_000).map(|n| format!("followed-{n}")).collect();
    let answer = command(&mut agent, "subscribe", json!({"agents": names})).await;
    assert_eq!(answer["payload"]["count"], 1_000, "{}", answer["type"]);
    agent
        .send(json!({"to": ["relay"], "type": "subscribe", "payload": {"agents": ["more-1"]}}))
        .await;
    agent.expect_error("too_many_subscriptions").await;
    let answer = command(&mut agent, "subscribe", json!({"agents": ["followed-7"]})).await;
    assert_eq!(answer["type"], "subscribed", "who is followed already is no addition");
    assert_eq!(following(&mut agent).await.len(), 1_000);
}

#[tokio::test]
async fn by_default_a_direct_message_stays_between_those_it_names() {
    let relay = Relay::start();
    let mut follower = relay.agent("follower-1").await;
    let mut ann = relay.agent("ann-1").await;
    let mut bob = relay.agent("bob-1").await;
    command(&mut follower, "subscribe", json!({"agents": ["ann-1"]})).await;
    ann.send(json!({"to": ["bob-1"], "payload": "private"})).await;
    assert_eq!(bob.next().await["payload"], "private");
    ann.send(json!({"to": ["*"], "payload": "public"})).await;
    assert_eq!(follower.next().await["payload"], "public");
    ann.fence_to(&mut follower).await;
}

#[tokio::test]
async fn with_scope_all_a_follower_gets_everything_exactly_once() {
    let relay = Relay::with(&[("SUBSCRIBE_SCOPE", "all")]);
    let mut follower = relay.agent("follower-1").await;
    let mut ann = relay.agent("ann-1").await;
    let mut bob = relay.agent("bob-1").await;
    command(&mut follower, "subscribe", json!({"agents": ["ann-1"]})).await;

    let ways = [
        json!(["bob-1"]),
        json!(["nobody-1"]),
        json!(["*"]),
        json!(["bob-1", "follower-1"]),
        json!(["follower-1"]),
        json!(["*", "follower-1"]),
    ];
    for to in ways {
        ann.send(json!({"to": to, "payload": "once"})).await;
        let message = follower.next().await;
        assert_eq!((&message["payload"], &message["to"]), (&json!("once"), &to), "{message}");
        ann.fence_to(&mut follower).await;
    }
    ann.fence().await;
    bob.send(json!({"to": ["ann-1"], "payload": "an answer"})).await;
    assert_eq!(ann.next().await["payload"], "an answer");
    bob.fence_to(&mut follower).await;

    command(&mut follower, "unsubscribe", json!({"agents": ["ann-1"]})).await;
    ann.send(json!({"to": ["bob-1"], "payload": "no longer followed"})).await;
    ann.fence_to(&mut follower).await;
}

#[tokio::test]
async fn a_subscription_reaches_an_agent_that_is_registered_later() {
    let relay = Relay::with(&[("SUBSCRIBE_SCOPE", "all")]);
    let mut follower = relay.agent("follower-1").await;
    command(&mut follower, "subscribe", json!({"agents": ["late-1"]})).await;
    let mut late = relay.agent("late-1").await;
    late.send(json!({"to": ["nobody-1"], "payload": "first words"})).await;
    assert_eq!(follower.next().await["payload"], "first words");
}

#[tokio::test]
async fn subscriptions_outlive_the_connection() {
    let relay = Relay::with(&[("SUBSCRIBE_SCOPE", "all")]);
    let mut follower = relay.agent("follower-1").await;
    let mut ann = relay.agent("ann-1").await;
    command(&mut follower, "subscribe", json!({"agents": ["ann-1"]})).await;
    let token = follower.token.clone();
    follower.leave().await;
    relay.wait_for_connections(1).await;

    let mut follower = Client::connect(&relay, &token).await;
    ann.send(json!({"to": ["nobody-1"], "payload": "still followed"})).await;
    assert_eq!(follower.next().await["payload"], "still followed");
    assert_eq!(following(&mut follower).await, ["ann-1"]);
}

#[tokio::test]
async fn subscriptions_end_a_while_after_their_agent_left() {
    let relay = Relay::with(&[("SUBSCRIPTION_TTL", "1s")]);
    // Each look renews what it looks at; so every look is at an agent that left at the start.
    let mut tokens = Vec::new();
    for n in 0..60 {
        let mut agent = relay.agent(&format!("follower-{n}")).await;
        command(&mut agent, "subscribe", json!({"agents": ["ann-1"]})).await;
        tokens.push(agent.token.clone());
        agent.leave().await;
    }
    let tokens = std::cell::RefCell::new(tokens.into_iter());
    eventually("the subscriptions are forgotten", || async {
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        let token = tokens.borrow_mut().next().expect("forgotten before all have been looked at");
        following(&mut Client::connect(&relay, &token).await).await.is_empty()
    })
    .await;
}

#[tokio::test]
async fn answers_carry_the_ref_of_their_command_and_errors_have_their_shape() {
    let relay = Relay::start();
    let mut agent = relay.agent("rawk-042").await;
    let list = r#"{"agents":["bob-1"]}"#;
    for (kind, payload, answered) in [
        ("subscribe", list, "subscribed"),
        ("unsubscribe", list, "unsubscribed"),
        ("list_subscriptions", "null", "subscriptions"),
        ("subscribe", "null", "error"),
        ("dance", "null", "error"),
    ] {
        let fields = format!(r#""type":"{kind}","ref":"r\u002d7","payload":{payload}"#);
        agent.send_text(&format!(r#"{{"to":["relay"],{fields}}}"#)).await;
        let answer = agent.next().await;
        assert_eq!(
            (&answer["type"], &answer["ref"]),
            (&json!(answered), &json!("r-7")),
            "{answer}"
        );
    }
    // What is no message at all has none.
    agent.send_text(r#"{"to":["relay"],"ref":"r-8""#).await;
    let error = agent.next_text().await;
    let keys: Vec<String> = fields(&error).into_iter().map(|(key, _)| key).collect();
    assert_eq!(keys, ["id", "from", "to", "type", "payload", "ts"], "{error}");
    let keys: Vec<String> =
        fields(&field(&error, "payload")).into_iter().map(|(key, _)| key).collect();
    assert_eq!(keys, ["code", "message"], "{error}");
}
