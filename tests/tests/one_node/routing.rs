//! What goes from agent to agent: PROTOCOL sections 4 and 5.

use std::sync::Arc;

use serde_json::{Value, json};
use tests::{Client, Relay, field, fields, frame};
use tokio::sync::Semaphore;
use tokio_tungstenite::tungstenite::Message;

/// A relay with the agents `ann-1`, `bob-1` and `cid-1`, and the registered, offline `off-1`.
async fn three() -> (Relay, Client, Client, Client) {
    let relay = Relay::start();
    relay.register("off-1").await;
    let ann = relay.agent("ann-1").await;
    let bob = relay.agent("bob-1").await;
    let cid = relay.agent("cid-1").await;
    (relay, ann, bob, cid)
}

#[tokio::test]
async fn each_row_of_the_routing_table() {
    let (_relay, mut ann, mut bob, mut cid) = three().await;
    // `to` as ann sends it, and whether ann, bob and cid get it.
    let rows = [
        (json!(["*"]), [false, true, true]),
        (json!(["*", "bob-1"]), [false, true, true]),
        (json!(["bob-1", "*", "bob-1", "*"]), [false, true, true]),
        (json!(["*", "ann-1"]), [false, true, true]),
        (json!(["bob-1"]), [false, true, false]),
        (json!(["bob-1", "cid-1", "bob-1"]), [false, true, true]),
        (json!(["ann-1"]), [true, false, false]),
        (json!(["ann-1", "cid-1", "ann-1"]), [true, false, true]),
        (json!(["off-1"]), [false, false, false]),
        (json!(["nobody-1"]), [false, false, false]),
        (json!(["Not An Id!", "", "x", "**", "bob-1"]), [false, true, false]),
        (json!(["Bob-1", "bob-1 ", "RELAY"]), [false, false, false]),
    ];
    for (n, (to, gets)) in rows.into_iter().enumerate() {
        ann.send(json!({"to": to, "payload": n})).await;
        for (agent, gets) in [(&mut bob, gets[1]), (&mut cid, gets[2])] {
            if gets {
                let message = agent.next().await;
                assert_eq!(message["payload"], n, "to {to}: {message}");
                assert_eq!(message["to"], to, "`to` arrives as it was sent");
            }
            ann.send(json!({"to": [agent.id], "payload": "fence"})).await;
            assert_eq!(agent.next().await["payload"], "fence", "{} once, to {to}", agent.id);
        }
        if gets[0] {
            assert_eq!(ann.next().await["payload"], n, "to {to}");
        }
        ann.fence().await;
    }
}

#[tokio::test]
async fn the_relay_beside_other_targets_is_no_command_and_no_message() {
    let (_relay, mut ann, mut bob, _cid) = three().await;
    let mixes = [json!(["relay", "bob-1"]), json!(["bob-1", "relay"]), json!(["*", "relay"])];
    for to in mixes {
        ann.send(json!({"to": to, "type": "ping", "payload": 1})).await;
        ann.expect_error("invalid_message").await;
        ann.fence_to(&mut bob).await;
    }
}

#[tokio::test]
async fn payload_and_extra_fields_arrive_byte_for_byte() {
    let (_relay, mut ann, mut bob, _cid) = three().await;
    let values = [
        "null",
        "false",
        "\"\"",
        "123456789012345678901234567890",
        "9007199254740993",
        "-0.0",
        "1e400",
        "1.10",
        r#"{"b":1,"a":2,"b":3}"#,
        r#""\u0041\/\u00e9\ud83d\ude00 é 😀 \" \\ \n""#,
        r#"{ "spaced" : [ 1 ,  2 ] , "tab":	null }"#,
        r#"[[],{},[{}],"]","}",{"\"":"{"}]"#,
        r#"{"to":["cid-1"],"from":"eve","payload":"inner"}"#,
        r#""\ud800""#,
    ];
    for value in values {
        let text = format!(
            r#"{{"x-first":{value},"to":["bob-1"],"payload":{value},"Type":{value},"":{value}}}"#
        );
        ann.send_text(&text).await;
        let got = bob.next_text().await;
        for key in ["payload", "x-first", "Type", ""] {
            assert_eq!(field(&got, key), value, "`{key}` in {got}");
        }
    }
}

#[tokio::test]
async fn extra_fields_keep_their_order_their_escapes_and_their_doubles() {
    let (_relay, mut ann, mut bob, _cid) = three().await;
    ann.send_text(
        r#"{"z":1,"a":2,"to":["bob-1"],"\u0078\/y":3,"z":4,"payload":5,"é":6,"ref":"r","type":"t"}"#,
    )
    .await;
    let got = bob.next_text().await;
    assert!(got.contains(r#""\u0078\/y":3"#), "escapes in keys stay: {got}");
    let got: Vec<(String, String)> = fields(&got);
    let keys: Vec<&str> = got.iter().map(|(key, _)| key.as_str()).collect();
    let expected = ["id", "from", "to", "type", "ref", "z", "a", "x/y", "z", "é", "payload", "ts"];
    assert_eq!(keys, expected, "PROTOCOL section 5 names the order");
}

#[tokio::test]
async fn who_sent_it_and_when_is_not_for_the_sender_to_say() {
    let (_relay, mut ann, mut bob, _cid) = three().await;
    let forgeries = [
        r#"{"id":"msg_1","from":"eve-1","ts":1,"to":["bob-1"],"payload":0}"#,
        r#"{"to":["bob-1"],"payload":0,"ts":1,"from":"eve-1","id":"msg_1"}"#,
        r#"{"from":"eve-1","from":"eve-2","to":["bob-1"],"payload":0,"from":"eve-3","id":1,"id":2}"#,
        r#"{"\u0066rom":"eve-1","fr\u006fm":"eve-2","\u0069d":1,"\u0074\u0073":1,"to":["bob-1"],"payload":0}"#,
        r#"{"from":{"from":"eve-1"},"id":["id"],"ts":{"ts":[]},"to":["bob-1"],"payload":0}"#,
    ];
    for text in forgeries {
        ann.send_text(text).await;
        let got = bob.next_text().await;
        let keys: Vec<String> = fields(&got).into_iter().map(|(key, _)| key).collect();
        assert_eq!(keys, ["id", "from", "to", "payload", "ts"], "{got}");
        assert_eq!(field(&got, "from"), "\"ann-1\"");
        assert!(field(&got, "id").starts_with("\"msg_"), "{got}");
        assert!(field(&got, "ts").parse::<u64>().is_ok_and(|ts| ts > 1_700_000_000_000), "{got}");
    }
}

#[tokio::test]
async fn of_a_field_that_is_repeated_the_last_counts_however_it_is_spelled() {
    let (_relay, mut ann, mut bob, mut cid) = three().await;
    let texts = [
        r#"{"to":["cid-1"],"payload":1,"type":"a","ref":"b","to":["bob-1"],"ref":"r","type":"t","payload":2}"#,
        r#"{"to":["cid-1"],"\u0074o":["bob-1"],"payload":1,"\u0070ayload":2,"type":"\u0074","r\u0065f":"r"}"#,
        r#"{"to":7,"type":7,"ref":7,"to":["\u0062ob-1"],"type":"t","ref":"\u0072","payload":2}"#,
    ];
    for text in texts {
        ann.send_text(text).await;
        let got = bob.next_text().await;
        let keys: Vec<String> = fields(&got).into_iter().map(|(key, _)| key).collect();
        assert_eq!(keys, ["id", "from", "to", "type", "ref", "payload", "ts"], "{got}");
        let got: Value = serde_json::from_str(&got).expect("JSON");
        let expected = (&json!(["bob-1"]), &json!("t"), &json!("r"), &json!(2));
        assert_eq!((&got["to"], &got["type"], &got["ref"], &got["payload"]), expected);
    }
    ann.send_text(r#"{"to":["\u002a"],"payload":"all"}"#).await;
    assert_eq!(bob.next().await["payload"], "all");
    assert_eq!(cid.next().await["payload"], "all", "it is the first that reaches it");
    ann.send_text(r#"{"to":["\u0072elay","relay"],"type":"\u0070ing"}"#).await;
    assert_eq!(ann.next().await["type"], "pong");
}

#[tokio::test]
async fn nesting_has_no_limit_of_its_own() {
    let (_relay, mut ann, mut bob, _cid) = three().await;
    for (open, close) in [("[", "]"), (r#"{"":"#, "}")] {
        let depth = if open == "[" { 30_000 } else { 10_000 };
        let inner = if open == "[" { "" } else { "0" };
        let value = format!("{}{inner}{}", open.repeat(depth), close.repeat(depth));
        ann.send_text(&format!(r#"{{"to":["bob-1"],"payload":{value}}}"#)).await;
        assert_eq!(field(&bob.next_text().await, "payload"), value);
        ann.send_text(&format!(r#"{{"to":["bob-1"],"payload":0,"deep":{value}}}"#)).await;
        assert_eq!(field(&bob.next_text().await, "deep"), value);
    }
}

#[tokio::test]
async fn a_binary_frame_that_holds_text_is_a_message() {
    let (_relay, mut ann, mut bob, _cid) = three().await;
    ann.send_binary(r#"{"to":["bob-1"],"payload":"é"}"#.as_bytes()).await;
    let Some(Ok(Message::Text(text))) = bob.next_frame().await else {
        panic!("what the relay sends is text");
    };
    assert_eq!(field(&text, "payload"), "\"é\"");
}

#[tokio::test]
async fn a_message_may_come_in_fragments_with_a_ping_among_them() {
    let (_relay, mut ann, mut bob, _cid) = three().await;
    let text = r#"{"to":["bob-1"],"payload":"€uro"}"#.as_bytes();
    let cut = text.iter().position(|&byte| byte == 0xe2).expect("the euro sign") + 1;
    let mut bytes = frame::masked(frame::TEXT_BEGINS, &text[..cut]);
    bytes.extend(frame::masked(frame::PING, b"still there?"));
    bytes.extend(frame::masked(frame::GOES_ON, b""));
    for byte in &text[cut..] {
        bytes.extend(frame::masked(frame::GOES_ON, &[*byte]));
    }
    bytes.extend(frame::masked(frame::ENDS, b""));
    ann.write_raw(&bytes).await;
    assert_eq!(bob.next().await["payload"], "€uro");
    let Some(Ok(Message::Pong(echo))) = ann.next_frame().await else {
        panic!("a ping is answered between the fragments");
    };
    assert_eq!(&*echo, b"still there?");

    let mut bytes = frame::masked(frame::BINARY & 0x0f, &text[..cut]);
    bytes.extend(frame::masked(frame::ENDS, &text[cut..]));
    ann.write_raw(&bytes).await;
    assert_eq!(bob.next().await["payload"], "€uro", "binary fragments likewise");
}

#[tokio::test]
async fn many_messages_in_one_segment_and_one_in_many_are_the_same_to_the_relay() {
    let (_relay, mut ann, mut bob, _cid) = three().await;
    let one = frame::masked(frame::TEXT, br#"{"to":["bob-1"],"payload":1}"#);
    ann.write_raw(&one.repeat(50)).await;
    for byte in &one {
        ann.write_raw(&[*byte]).await;
    }
    for _ in 0..51 {
        assert_eq!(bob.next().await["payload"], 1);
    }
}

#[tokio::test]
async fn what_is_no_message_is_answered_and_reaches_nobody() {
    let (_relay, mut ann, mut bob, _cid) = three().await;
    let invalid = [
        "",
        " ",
        "hello",
        "{",
        "[]",
        "42",
        "null",
        "\"text\"",
        r#"{"to":["bob-1"],"payload":1} x"#,
        r#"{"to":["bob-1"],"payload":1,}"#,
        r#"{"to":["bob-1"],"payload":01}"#,
        r#"{"to":["bob-1"],"payload":tru}"#,
        r#"{"to":["bob-1"],"payload":"\x"}"#,
        "{\"to\":[\"bob-1\"],\"payload\":\"\n\"}",
        r#"{"to":["bob-1"],"payload":[1}"#,
        r"{'to':['bob-1'],'payload':1}",
        r#"{"payload":1}"#,
        r#"{"to":["bob-1"]}"#,
        r#"{"to":[],"payload":1}"#,
        r#"{"to":"bob-1","payload":1}"#,
        r#"{"to":{"0":"bob-1"},"payload":1}"#,
        r#"{"to":null,"payload":1}"#,
        r#"{"to":["bob-1",1],"payload":1}"#,
        r#"{"to":["bob-1",null],"payload":1}"#,
        r#"{"to":[["bob-1"]],"payload":1}"#,
        r#"{"to":["bob-1"],"payload":1,"type":1}"#,
        r#"{"to":["bob-1"],"payload":1,"type":{}}"#,
        r#"{"to":["bob-1"],"payload":1,"type":null}"#,
        r#"{"to":["bob-1"],"payload":1,"ref":null}"#,
        r#"{"to":["bob-1"],"to":"bob-1","payload":1}"#,
        r#"{"to":["bob-1"],"payload":1,"type":"t","type":1}"#,
        "\u{feff}{\"to\":[\"bob-1\"],\"payload\":1}",
        "{\"to\":[\"bob-1\"],\"payload\":1}\0",
        r#"{"to":["bob-1"],"payload":1,"ref":7}"#,
        r#"{"to":["bob-1"],"payload":1,"ref":["r"]}"#,
    ];
    for text in invalid {
        ann.send_text(text).await;
        ann.expect_error("invalid_message").await;
        ann.fence_to(&mut bob).await;
    }
    ann.fence().await;
}

#[tokio::test]
async fn a_message_names_256_recipients_at_most() {
    let (_relay, mut ann, mut bob, _cid) = three().await;
    let to = |count: usize| {
        let mut to: Vec<String> = (1..count).map(|n| format!("nobody-{n}")).collect();
        to.push("bob-1".to_owned());
        json!({"to": to, "payload": count})
    };
    ann.send(to(256)).await;
    assert_eq!(bob.next().await["payload"], 256);
    ann.send(to(257)).await;
    ann.expect_error("too_many_recipients").await;
    ann.send(json!({"to": vec!["bob-1"; 257], "payload": "the same one 257 times"})).await;
    ann.expect_error("too_many_recipients").await;
    ann.fence_to(&mut bob).await;
}

#[tokio::test]
async fn ids_sort_by_time_and_are_never_given_twice() {
    let (_relay, mut ann, mut bob, mut cid) = three().await;
    let mut ids = Vec::new();
    let mut last_ts = 0;
    for n in 0..200 {
        ann.send(json!({"to": ["bob-1"], "payload": n})).await;
        cid.send(json!({"to": ["bob-1"], "payload": n})).await;
    }
    for _ in 0..400 {
        let message = bob.next().await;
        if message["from"] == "ann-1" {
            let ts = message["ts"].as_u64().expect("ts is a number");
            assert!(ts >= last_ts, "ts never decreases for one sender: {ts} after {last_ts}");
            last_ts = ts;
        }
        ids.push((message["from"].clone(), message["id"].as_str().expect("text").to_owned()));
    }
    for sender in ["ann-1", "cid-1"] {
        let own: Vec<_> = ids.iter().filter(|(from, _)| from == sender).map(|(_, id)| id).collect();
        assert!(own.is_sorted(), "ids sort by time");
    }
    let count = ids.len();
    ids.sort_by(|a, b| a.1.cmp(&b.1));
    ids.dedup_by(|a, b| a.1 == b.1);
    assert_eq!(ids.len(), count, "an id is given once");
}

#[tokio::test]
async fn ten_thousand_messages_keep_their_order() {
    const COUNT: u64 = 10_000;
    let (_relay, mut ann, mut bob, mut cid) = three().await;
    // The reader sets the pace: this test is about order, not about slow consumers.
    let window = Arc::new(Semaphore::new(256));
    let send = async {
        for n in 0..COUNT {
            window.acquire().await.expect("the window stays open").forget();
            let to = if n % 3 == 0 { "*" } else { "bob-1" };
            ann.send(json!({"to": [to], "payload": n})).await;
        }
    };
    let receive = async {
        for n in 0..COUNT {
            let message: Value = bob.next().await;
            assert_eq!(message["payload"], n, "{message}");
            window.add_permits(1);
        }
    };
    let drain = async {
        for n in (0..COUNT).filter(|n| n % 3 == 0) {
            assert_eq!(cid.next().await["payload"], n);
        }
    };
    tokio::join!(send, receive, drain);
}
