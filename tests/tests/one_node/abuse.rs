//! Peers that are broken or hostile: the node stays healthy.

use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::future::join_all;
use serde_json::json;
use tests::{Client, Relay, eventually, frame, within};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// Connects to the public listener, without a word.
async fn dial(relay: &Relay) -> TcpStream {
    within("a connection", TcpStream::connect(relay.public)).await.expect("the relay accepts")
}

/// A whole WebSocket handshake, for a socket that is fed by hand.
fn handshake(token: &str) -> String {
    format!(
        "GET /arc?token={token} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
}

/// Reads until the relay hangs up, in whatever way.
async fn wait_for_hang_up(stream: &mut TcpStream) -> Vec<u8> {
    let mut got = Vec::new();
    // A reset is a way of hanging up, too.
    let _ = within("the relay hanging up", stream.read_to_end(&mut got)).await;
    got
}

#[tokio::test]
async fn whoever_broke_the_rules_cannot_stay_by_talking_on() {
    let mut relay = Relay::start();
    let token = relay.register("talker-1").await;
    let mut stream = dial(&relay).await;
    stream.write_all(handshake(&token).as_bytes()).await.expect("the relay reads");
    stream.write_all(&frame::unmasked(frame::TEXT, b"{}")).await.expect("the relay reads");
    let (mut reads, mut writes) = stream.into_split();
    let noise = vec![b'x'; 65_536];
    let talk = async { while writes.write_all(&noise).await.is_ok() {} };
    let listen = async {
        let mut sink = vec![0; 4_096];
        while reads.read(&mut sink).await.is_ok_and(|read| read > 0) {}
    };
    within("the relay hanging up", async { tokio::join!(talk, listen) }).await;
    relay.wait_for_connections(0).await;
    relay.assert_healthy().await;
}

#[tokio::test]
async fn frames_that_break_the_rules_end_their_session_only() {
    use frame::{BINARY, CLOSE, ENDS, GOES_ON, PING, TEXT, TEXT_BEGINS, masked, unmasked};
    let text = br#"{"to":["bob-1"],"payload":1}"#;
    let begun = masked(TEXT_BEGINS, b"{");
    let in_the_middle = |bytes: Vec<u8>| [begun.clone(), bytes].concat();
    let rows: Vec<(&str, u16, Vec<u8>)> = vec![
        ("a first reserved bit", 1002, masked(TEXT | 0x40, text)),
        ("a second reserved bit", 1002, masked(TEXT | 0x20, text)),
        ("a third reserved bit", 1002, masked(TEXT | 0x10, text)),
        ("an unknown data opcode", 1002, masked(0x83, text)),
        ("an unknown control opcode", 1002, masked(0x8b, b"")),
        ("no mask", 1002, unmasked(TEXT, text)),
        ("a ping without a mask", 1002, unmasked(PING, b"")),
        ("a ping in fragments", 1002, masked(PING & 0x0f, b"")),
        ("a ping of 126 bytes", 1002, masked(PING, &[b'x'; 126])),
        ("an end without a beginning", 1002, masked(ENDS, text)),
        ("a middle without a beginning", 1002, masked(GOES_ON, text)),
        ("a new message within another", 1002, in_the_middle(masked(TEXT, text))),
        ("a binary message within another", 1002, in_the_middle(masked(BINARY, text))),
        ("a close frame with half a code", 1002, masked(CLOSE, &[3])),
        ("a close code that never travels", 1002, masked(CLOSE, &1005_u16.to_be_bytes())),
        ("a close code nobody defined", 1002, masked(CLOSE, &2999_u16.to_be_bytes())),
        ("a close reason that is no text", 1007, masked(CLOSE, &[0x03, 0xe8, 0xff, 0xfe])),
        ("text that is no UTF-8", 1007, masked(TEXT, b"{\"to\":[\"bob-1\"],\"payload\":\"\xff\"}")),
        ("text that ends in half a character", 1007, masked(TEXT, b"\"\xe2\x82")),
        ("a surrogate in UTF-8", 1007, masked(TEXT, b"\"\xed\xa0\x80\"")),
        ("an overlong character", 1007, masked(TEXT, b"\"\xc0\xaf\"")),
        ("fragments that are no UTF-8", 1007, in_the_middle(masked(ENDS, b"\xff"))),
    ];
    let mut relay = Relay::start();
    let token = relay.register("breaker-1").await;
    let mut ann = relay.agent("ann-1").await;
    let mut bob = relay.agent("bob-1").await;
    for (what, code, bytes) in rows {
        let mut breaker = Client::connect(&relay, &token).await;
        breaker.write_raw(&bytes).await;
        let closed = breaker.read_to_close().await;
        assert_eq!(closed.code, Some(code), "{what}: {closed:?}");
        ann.fence_to(&mut bob).await;
    }
    relay.assert_healthy().await;
}

#[tokio::test]
async fn a_length_of_more_than_63_bits_is_refused() {
    let relay = Relay::start();
    let mut agent = relay.agent("breaker-1").await;
    agent.write_raw(&frame::header(frame::TEXT, u64::MAX)).await;
    let closed = agent.read_to_close().await;
    assert!(matches!(closed.code, Some(1002 | 1009)), "{closed:?}");
}

#[tokio::test]
async fn nothing_that_follows_a_violation_counts() {
    let relay = Relay::start();
    let mut bob = relay.agent("bob-1").await;
    let mut breaker = relay.agent("breaker-1").await;
    let good = frame::masked(frame::TEXT, br#"{"to":["bob-1"],"payload":"good"}"#);
    let late = frame::masked(frame::TEXT, br#"{"to":["bob-1"],"payload":"late"}"#);
    breaker.write_raw(&[good, frame::unmasked(frame::TEXT, b"x"), late].concat()).await;
    breaker.expect_close(1002).await;
    assert_eq!(bob.next().await["payload"], "good");
    let mut ann = relay.agent("ann-1").await;
    ann.fence_to(&mut bob).await;
}

#[tokio::test]
async fn bytes_that_are_no_text_in_a_binary_frame_are_no_message() {
    let relay = Relay::start();
    let mut bob = relay.agent("bob-1").await;
    let mut ann = relay.agent("ann-1").await;
    let mut breaker = relay.agent("breaker-1").await;
    breaker.send_binary(b"{\"to\":[\"bob-1\"],\"payload\":\"\xff\"}").await;
    breaker.expect_error("invalid_message").await;
    ann.fence_to(&mut bob).await;
    breaker.fence().await;
}

#[tokio::test]
async fn abrupt_resets_leave_nothing_behind() {
    let mut relay = Relay::start();
    let mut tokens = Vec::new();
    for n in 0..50 {
        tokens.push(relay.register(&format!("brief-{n}")).await);
    }
    let mut bob = relay.agent("bob-1").await;
    for _ in 0..4 {
        let sessions = join_all(tokens.iter().map(|token| Client::connect(&relay, token))).await;
        bob.send(json!({"to": ["*"], "payload": "x".repeat(1_000)})).await;
        bob.fence().await;
        // What was delivered is unread: the kernel resets even without being told to.
        sessions.into_iter().for_each(Client::reset);
    }
    relay.wait_for_connections(1).await;
    bob.fence().await;
    relay.assert_healthy().await;
}

/// How many were hung up on because no whole request head came in time.
async fn without_a_head(relay: &Relay) -> u64 {
    relay.metrics().await.count("arc_http_timeouts_total", &[("limit", "head")])
}

#[tokio::test]
async fn connections_that_never_finish_a_request_are_ended() {
    let mut relay = Relay::with(&[("HANDSHAKE_DEADLINE", "1s")]);
    let token = relay.register("patient-1").await;
    let beginnings = [
        String::new(),
        "G".to_owned(),
        "GET /arc HTTP/1.1\r\nHost: x\r\nAuthoriz".to_owned(),
        format!("GET /arc?token={token} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n"),
        "POST /register HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{\"agent_id\":"
            .to_owned(),
        "POST /register HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{".to_owned(),
    ];
    let mut unfinished = Vec::new();
    for n in 0..60 {
        let mut stream = dial(&relay).await;
        stream.write_all(beginnings[n % beginnings.len()].as_bytes()).await.expect("room to write");
        unfinished.push(stream);
    }
    Client::connect(&relay, &token).await.fence().await;
    let answers = join_all(unfinished.iter_mut().map(wait_for_hang_up)).await;
    for (n, answer) in answers.iter().enumerate() {
        let answer = String::from_utf8_lossy(answer);
        let beginning = &beginnings[n % beginnings.len()];
        if beginning.starts_with("POST") {
            assert!(answer.starts_with("HTTP/1.1 408"), "{beginning:?}: {answer}");
        } else {
            assert_eq!(answer, "", "{beginning:?}");
        }
    }
    // Whatever limit comes later would end them too, but is not counted as this one.
    assert_eq!(without_a_head(&relay).await, 40);
    relay.assert_healthy().await;
}

#[tokio::test]
async fn one_byte_now_and_then_does_not_win_more_time() {
    let relay = Relay::with(&[("HANDSHAKE_DEADLINE", "1s")]);
    let mut stream = dial(&relay).await;
    let drip = async {
        stream.write_all(b"GET /arc HTTP/1.1\r\nX: ").await.expect("room to write");
        loop {
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            let mut byte = [0];
            match stream.try_read(&mut byte) {
                Ok(0) => return,
                Err(e) if e.kind() != std::io::ErrorKind::WouldBlock => return,
                _ if stream.write_all(b"x").await.is_err() => return,
                _ => {}
            }
        }
    };
    within("the relay hanging up on a drip of bytes", drip).await;
    assert_eq!(without_a_head(&relay).await, 1);
}

#[tokio::test]
async fn headers_beyond_all_reason_are_refused() {
    let mut relay = Relay::start();
    let long_value =
        format!("GET /health HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "x".repeat(1 << 20));
    let long_path = format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "x".repeat(1 << 20));
    let many = format!("GET /health HTTP/1.1\r\nHost: x\r\n{}\r\n", "X: y\r\n".repeat(10_000));
    for request in [long_value, long_path, many] {
        let mut stream = dial(&relay).await;
        // The relay may hang up long before it has read all this.
        let _ = within("room to write", stream.write_all(request.as_bytes())).await;
        let answer = wait_for_hang_up(&mut stream).await;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let refused = answer.is_empty() || answer.starts_with("HTTP/1.1 4");
        assert!(refused, "{answer}");
    }
    relay.assert_healthy().await;
}

#[tokio::test]
async fn a_thousand_connections_of_garbage_leave_the_node_healthy() {
    let mut relay = Relay::with(&[("HANDSHAKE_DEADLINE", "1s")]);
    let before = relay.resident_bytes();
    let mut agent = relay.agent("agent-1").await;
    // A fixed sequence that looks like noise: a failure can be repeated.
    let mut state: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut noise = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for _ in 0..20 {
        let mut streams = Vec::new();
        for _ in 0..50 {
            let mut garbage: Vec<u8> = match noise() % 5 {
                0 => b"GET /arc HTTP/1.1\r\n".to_vec(),
                1 => b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(), // TLS says hello
                2 => b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
                3 => b"POST /register HTTP/1.1\r\nContent-Length: 18446744073709551615\r\n\r\n"
                    .to_vec(),
                _ => Vec::new(),
            };
            let length = noise() % 600;
            garbage.extend((0..length).map(|_| noise().to_le_bytes()[3]));
            let mut stream = dial(&relay).await;
            let _ = stream.write_all(&garbage).await;
            streams.push(stream);
        }
        join_all(streams.iter_mut().take(25).map(wait_for_hang_up)).await;
        agent.fence().await;
    }
    relay.wait_for_connections(1).await;
    relay.assert_healthy().await;
    let grown = relay.resident_bytes().saturating_sub(before);
    assert!(grown < 32 << 20, "grown by {} KiB for nothing", grown >> 10);
}

#[tokio::test]
async fn a_request_may_be_followed_by_another_and_by_none() {
    let relay = Relay::start();
    let mut stream = dial(&relay).await;
    let request = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n";
    stream.write_all(&request.repeat(3)).await.expect("room to write");
    let mut got = String::new();
    let mut buffer = [0; 4096];
    while got.matches("HTTP/1.1 200").count() < 3 {
        let n = within("three answers", stream.read(&mut buffer)).await.expect("the relay answers");
        assert!(n > 0, "the relay hung up after {got}");
        got.push_str(&String::from_utf8_lossy(&buffer[..n]));
    }
    let mut old = dial(&relay).await;
    old.write_all(b"GET /health HTTP/1.0\r\n\r\n").await.expect("room to write");
    let answer = wait_for_hang_up(&mut old).await;
    assert!(String::from_utf8_lossy(&answer).contains(" 200 "), "HTTP/1.0 is spoken, too");
}

#[tokio::test]
async fn who_has_said_all_and_closed_that_half_is_answered() {
    let relay = Relay::start();
    let mut bob = relay.agent("bob-1").await;
    let request = b"POST /register HTTP/1.1\r\nHost: x\r\nContent-Length: 22\r\n\r\n{\"agent_id\":\"half-1\"}\n";
    for status in [" 200 ", " 409 "] {
        let mut stream = dial(&relay).await;
        stream.write_all(request).await.expect("room to write");
        stream.shutdown().await.expect("the socket is open");
        let answer = wait_for_hang_up(&mut stream).await;
        assert!(String::from_utf8_lossy(&answer).contains(status), "{answer:?}");
    }
    // As a session it ends; what it said before counts.
    let mut ann = relay.agent("ann-1").await;
    let message = frame::masked(frame::TEXT, br#"{"to":["bob-1"],"payload":"bye"}"#);
    ann.write_raw(&message).await;
    ann.end_writing().await;
    assert_eq!(bob.next().await["payload"], "bye");
    relay.wait_for_connections(1).await;
}

#[tokio::test]
async fn a_session_may_follow_other_requests_on_its_connection() {
    let relay = Relay::start();
    let token = relay.register("eager-1").await;
    let mut bob = relay.agent("bob-1").await;
    let mut bytes = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n".repeat(3);
    bytes.extend(handshake("tok_bad").bytes().chain(handshake(&token).bytes()));
    bytes.extend(frame::masked(frame::TEXT, br#"{"to":["bob-1"],"payload":"at last"}"#));
    bytes.extend(frame::masked(frame::CLOSE, &1000_u16.to_be_bytes()));
    let mut stream = dial(&relay).await;
    stream.write_all(&bytes).await.expect("room to write");
    let answer = String::from_utf8_lossy(&wait_for_hang_up(&mut stream).await).into_owned();
    let statuses: Vec<&str> = answer.matches(" 200 OK").chain(answer.matches(" 401 Un")).collect();
    assert_eq!(statuses.len(), 4, "{answer}");
    assert!(answer.contains(" 101 Switching"), "{answer}");
    assert_eq!(bob.next().await["payload"], "at last");
}

#[tokio::test]
async fn bytes_right_behind_the_handshake_are_the_first_frames() {
    let relay = Relay::start();
    let token = relay.register("eager-1").await;
    let mut bytes = handshake(&token).into_bytes();
    bytes.extend(frame::masked(frame::TEXT, br#"{"to":["eager-1"],"payload":"early bird"}"#));
    let mut stream = dial(&relay).await;
    stream.write_all(&bytes).await.expect("room to write");
    let mut got = Vec::new();
    let mut buffer = [0; 4096];
    while !String::from_utf8_lossy(&got).contains("early bird") {
        let n = within("the message", stream.read(&mut buffer)).await.expect("the relay answers");
        assert!(n > 0, "hung up after {}", String::from_utf8_lossy(&got));
        got.extend_from_slice(&buffer[..n]);
    }
    let got = String::from_utf8_lossy(&got).into_owned();
    assert!(got.find("welcome") < got.find("early bird"), "the welcome comes first");
}

#[tokio::test]
async fn one_address_can_hold_only_so_many_connections_that_are_no_sessions() {
    const DIALLED: usize = 200;
    let relay = Relay::with(&[("HANDSHAKES_PER_ADDRESS", "20"), ("HANDSHAKE_DEADLINE", "60s")]);
    let token = relay.register("patient-1").await;
    let mut held = Vec::new();
    for _ in 0..DIALLED {
        held.push(dial(&relay).await);
    }
    // Beyond the limit some may wait to hear that there are too many; all others are let go at
    // once, long before the handshake's deadline.
    let let_go = AtomicUsize::new(0);
    let watch = join_all(held.iter_mut().map(|stream| async {
        wait_for_hang_up(stream).await;
        let_go.fetch_add(1, Ordering::Relaxed);
    }));
    let enough = eventually("half of them are let go", || async {
        let_go.load(Ordering::Relaxed) >= DIALLED / 2
    });
    tokio::select! {
        _ = watch => panic!("twenty at least may stay"),
        () = enough => {}
    }
    drop(held);
    let request = handshake(&token);
    eventually("the address is welcome again", || async {
        // Until then it may be dropped at any point.
        let mut stream = dial(&relay).await;
        let mut answer = [0; 12];
        stream.write_all(request.as_bytes()).await.is_ok()
            && within("an answer", stream.read_exact(&mut answer)).await.is_ok()
            && answer == *b"HTTP/1.1 101"
    })
    .await;
}
