//! What strangers may do to a port that speaks TLS, while agents go on undisturbed.

use std::time::{Duration, Instant};

use rand::{RngCore as _, SeedableRng as _, rngs::StdRng};
use serde_json::json;
use tests::{Relay, eventually, measured, within};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::{
    agent::{Agent, Trusting},
    authority::Authority,
};

/// The beginning of a hello of 512 bytes.
const HALF_A_HELLO: &[u8] = &[22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3, 7, 7, 7];

/// Longer than any stranger may hold up an agent, on a busy machine.
const LONG: Duration = Duration::from_secs(2);

async fn stranger(relay: &Relay, bytes: &[u8]) -> TcpStream {
    let connected = within("to be let in", TcpStream::connect(relay.public)).await;
    let mut stream = connected.expect("the relay listens");
    // It may have hung up already.
    let _ = stream.write_all(bytes).await;
    stream
}

/// The longest of some exchanges of an agent with itself.
async fn longest(agent: &mut Agent, id: &str) -> Duration {
    let mut longest = Duration::ZERO;
    for round in 0..50 {
        let start = Instant::now();
        agent.exchange(id, round).await;
        longest = longest.max(start.elapsed());
    }
    longest
}

#[tokio::test]
async fn a_thousand_half_handshakes_cost_little_and_keep_nobody_out() {
    let authority = Authority::new();
    let (relay, trusting) = (authority.relay(), Trusting::of(&authority));
    let mut agent = trusting.agent(&relay, "ann-1").await;
    let before = relay.resident_bytes();
    let mut half = Vec::new();
    for _ in 0..1_000 {
        half.push(stranger(&relay, HALF_A_HELLO).await);
    }
    let late = longest(&mut agent, "ann-1").await;
    assert!(late < LONG, "{late:?}");
    let newcomer = trusting.agent(&relay, "bob-1").await;
    let grown = relay.resident_bytes().saturating_sub(before);
    measured(&format!("1,000 half handshakes take {} KiB", grown / 1_024));
    assert!(grown < 40 << 20, "{grown} bytes");
    let overtaken = [("reason", "overtaken")];
    eventually("the oldest make room for the newest", || async {
        relay.metrics().await.count("arc_tls_handshake_failures_total", &overtaken) > 0
    })
    .await;
    drop((half, newcomer));
    agent.exchange("ann-1", 1).await;
}

/// What a proxy says first, which connects for this client.
fn header(client: &str) -> Vec<u8> {
    format!("PROXY TCP4 {client} 198.51.100.1 40000 443\r\n").into_bytes()
}

/// A client whom a proxy connects is let in, by TLS.
async fn assert_open(relay: &Relay, trusting: &Trusting, client: &str) {
    let tcp = stranger(relay, &header(client)).await;
    let mut stream = trusting.dial_over(tcp).await.expect("it is let in");
    let request = b"GET /health HTTP/1.1\r\nhost: relay\r\nconnection: close\r\n\r\n";
    stream.write_all(request).await.expect("it reads");
    let mut answer = [0; 12];
    within("an answer", stream.read_exact(&mut answer)).await.expect("it answers");
    assert_eq!(&answer, b"HTTP/1.1 200");
}

#[tokio::test]
async fn a_thousand_half_handshakes_behind_a_proxy_keep_nobody_out() {
    let authority = Authority::new();
    let behind = [
        ("TRUSTED_PROXIES", "127.0.0.0/8"),
        ("PROXY_PROTOCOL", "true"),
        ("HANDSHAKES_PER_ADDRESS", "64"),
        ("HANDSHAKE_DEADLINE", "60s"),
    ];
    let (relay, trusting) = (authority.relay_with(&behind), Trusting::of(&authority));
    let overtaken = || async {
        let overtaken = [("reason", "overtaken")];
        relay.metrics().await.count("arc_tls_handshake_failures_total", &overtaken)
    };
    let mut strangers = Vec::new();
    // No address has more than it may have.
    for n in 0..1_000 {
        let client = header(&format!("192.0.2.{}", n % 16));
        strangers.push(stranger(&relay, &[&client, HALF_A_HELLO].concat()).await);
    }
    assert_open(&relay, &trusting, "192.0.2.200").await;
    eventually("the strangers fill all places", || async { overtaken().await > 0 }).await;
    // And if it is the proxy that does not go on.
    for _ in 0..1_000 {
        strangers.push(stranger(&relay, b"PROXY TCP4 ").await);
    }
    assert_open(&relay, &trusting, "192.0.2.201").await;
    eventually("those who say nothing fill them too", || async { overtaken().await > 1_000 }).await;
    let dropped = relay.metrics().await.count("arc_rate_limited_total", &[("limit", "http")]);
    assert_eq!(dropped, 0, "dropped instead of given the oldest one's place");
}

#[tokio::test]
async fn a_half_handshake_ends_at_its_deadline() {
    let authority = Authority::new();
    let relay = authority.relay_with(&[("HANDSHAKE_DEADLINE", "200ms")]);
    let mut half = stranger(&relay, HALF_A_HELLO).await;
    let mut silent = stranger(&relay, b"").await;
    for stream in [&mut half, &mut silent] {
        let _ = within("the end", stream.read_to_end(&mut Vec::new())).await;
    }
    // One that is encrypted, and then asks for nothing.
    let mut idle = Trusting::of(&authority).dial(relay.public).await.expect("TLS is spoken");
    let _ = within("the end", idle.read_to_end(&mut Vec::new())).await;
    let timeout = [("reason", "timeout")];
    assert_eq!(relay.metrics().await.count("arc_tls_handshake_failures_total", &timeout), 2);
}

#[tokio::test]
async fn garbage_disturbs_nobody() {
    let authority = Authority::new();
    let (mut relay, trusting) = (authority.relay(), Trusting::of(&authority));
    let mut agent = trusting.agent(&relay, "ann-1").await;
    let mut random = StdRng::seed_from_u64(7);
    for n in 0..300_usize {
        let mut bytes = vec![0; 1 + n * 7 % 3_000];
        random.fill_bytes(&mut bytes);
        if n % 2 == 0 {
            // Something that looks like a record at first.
            let header = [22, 3, 1, 0, 200];
            let len = header.len().min(bytes.len());
            bytes[..len].copy_from_slice(&header[..len]);
        }
        let mut stream = stranger(&relay, &bytes).await;
        let _ = stream.shutdown().await;
        let _ = within("the end", stream.read_to_end(&mut Vec::new())).await;
    }
    assert!(longest(&mut agent, "ann-1").await < LONG);
    assert!(relay.is_running() && !relay.log.text().contains("panicked"));
    let metrics = relay.metrics().await;
    assert!(metrics.count("arc_tls_handshake_failures_total", &[]) >= 300);
    assert_eq!(metrics.count("arc_task_panics_total", &[]), 0);
}

#[tokio::test]
async fn hellos_without_end_are_cut_short() {
    let authority = Authority::new();
    let (relay, trusting) = (authority.relay(), Trusting::of(&authority));
    let mut agent = trusting.agent(&relay, "ann-1").await;
    let before = relay.resident_bytes();
    // A message of 64,000 bytes in records of 16,000.
    let mut record = vec![22, 3, 1, 0x3e, 0x80];
    record.resize(5 + 16_000, 7);
    let mut first = record.clone();
    first[5..9].copy_from_slice(&[1, 0, 0xfa, 0]);
    let bytes = [&first[..], &record, &record, &record].concat();
    let mut strangers = Vec::new();
    for _ in 0..200 {
        strangers.push(stranger(&relay, &bytes).await);
    }
    for mut stream in strangers {
        let _ = within("the end", stream.read_to_end(&mut Vec::new())).await;
    }
    assert!(longest(&mut agent, "ann-1").await < LONG);
    let grown = relay.resident_bytes().saturating_sub(before);
    assert!(grown < 32 << 20, "{grown} bytes");
}

#[tokio::test]
async fn spoilt_records_end_the_session_that_they_came_on() {
    let authority = Authority::new();
    let (mut relay, trusting) = (authority.relay(), Trusting::of(&authority));
    let mut other = trusting.agent(&relay, "bob-1").await;
    let agent = trusting.agent(&relay, "ann-1").await;
    let mut tcp = agent.into_tcp();
    tcp.write_all(&[23, 3, 3, 0, 32]).await.expect("it is open");
    tcp.write_all(&[7; 32]).await.expect("it is open");
    let _ = within("the end", tcp.read_to_end(&mut Vec::new())).await;
    relay.wait_for_connections(1).await;
    other.exchange("bob-1", 1).await;
    assert!(relay.is_running());
}

#[tokio::test]
async fn a_reader_that_stops_is_cut_off_and_bounded() {
    let authority = Authority::new();
    let (relay, trusting) = (authority.relay(), Trusting::of(&authority));
    let asleep = trusting.agent(&relay, "asleep").await;
    let mut sender = trusting.agent(&relay, "sender").await;
    let before = relay.resident_bytes();
    let payload = "x".repeat(60_000);
    for round in 0..400 {
        sender.send(json!({ "to": ["asleep"], "payload": payload })).await;
        if round % 20 == 0 {
            sender.exchange("sender", round).await;
        }
    }
    let slow = [("reason", "slow_consumer")];
    eventually("the sleeper is cut off", || async {
        relay.metrics().await.count("arc_sessions_closed_total", &slow) == 1
    })
    .await;
    let grown = relay.resident_bytes().saturating_sub(before);
    assert!(grown < 24 << 20, "{grown} bytes");
    drop(asleep);
}
