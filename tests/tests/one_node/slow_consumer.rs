//! A reader that does not read costs its bound, is cut off, counted, and nobody else notices.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tests::{Client, Relay, eventually, frame};

/// Default of `OUTBOX_BYTES_MAX`.
const OUTBOX_BYTES: u64 = 1 << 20;

/// What may come on top of the outbox: the read and write buffers of the threads, the allocator's
/// own way of keeping what was freed, and pages that are touched for the first time. A relay
/// without a bound would grow by all that is sent, about 100 MiB.
const SLACK_BYTES: u64 = 8 << 20;

/// A message to `recipient` with a payload of 60 KiB.
fn big_message(recipient: &str, n: u64) -> Value {
    json!({"to": [recipient], "n": n, "payload": "x".repeat(60 << 10)})
}

async fn slow_consumers(relay: &Relay) -> u64 {
    relay.metrics().await.count("arc_sessions_closed_total", &[("reason", "slow_consumer")])
}

async fn dropped_for_slowness(relay: &Relay) -> u64 {
    relay.metrics().await.count("arc_messages_dropped_total", &[("reason", "slow_consumer")])
}

/// Echoes between two agents until told to stop; the longest round.
async fn converse(a: &mut Client, b: &mut Client, stop: &tokio::sync::Notify) -> Duration {
    let mut longest = Duration::ZERO;
    let mut stop = std::pin::pin!(stop.notified());
    while futures_util::FutureExt::now_or_never(stop.as_mut()).is_none() {
        let start = Instant::now();
        a.fence_to(b).await;
        b.fence_to(a).await;
        longest = longest.max(start.elapsed());
    }
    longest
}

#[tokio::test]
async fn a_reader_that_never_reads_costs_its_bound_and_is_cut_off() {
    let mut relay = Relay::start();
    let mut sender = relay.agent("sender-1").await;
    let mut reader = relay.agent("reader-1").await;
    let (mut ann, mut bob) = (relay.agent("ann-1").await, relay.agent("bob-1").await);
    let mut never_reads = relay.agent("never-reads-1").await;
    for n in 0..64 {
        sender.send(big_message("reader-1", n)).await;
        reader.next_text().await;
    }

    let before = relay.resident_bytes();
    let stop = tokio::sync::Notify::new();
    let flood = async {
        let mut peak = before;
        for n in 0..1_600 {
            sender.send(big_message("never-reads-1", n)).await;
            if n % 8 == 7 {
                sender.fence().await;
                peak = peak.max(relay.resident_bytes());
            }
        }
        stop.notify_one();
        peak
    };
    let (peak, longest_round) = tokio::join!(flood, converse(&mut ann, &mut bob, &stop));
    let grown = peak.saturating_sub(before);
    assert!(grown <= OUTBOX_BYTES + SLACK_BYTES, "grown by {} KiB", grown >> 10);
    assert!(longest_round < Duration::from_secs(5), "a round of the others took {longest_round:?}");

    eventually("the reader is counted as slow", || async { slow_consumers(&relay).await == 1 })
        .await;
    assert!(dropped_for_slowness(&relay).await > 0);

    // It reads too late for a close frame, but what did come is whole and in order.
    let closed = never_reads.read_to_close().await;
    for (n, message) in closed.before.iter().enumerate() {
        assert_eq!(message["n"], n);
    }
    sender.fence_to(&mut reader).await;
    relay.assert_healthy().await;
}

#[tokio::test]
async fn a_slow_reader_hears_why_it_was_cut_off() {
    let relay = Relay::start();
    let mut sender = relay.agent("sender-1").await;
    let mut reader = relay.agent("reader-1").await;
    let mut n = 0;
    // What waited is dropped at once; the session is counted when it has ended.
    while dropped_for_slowness(&relay).await == 0 {
        sender.send(big_message("reader-1", n)).await;
        sender.fence().await;
        n += 1;
    }
    let closed = reader.expect_close(4008).await;
    assert!(!closed.reason.is_empty());
    for (n, message) in closed.before.iter().enumerate() {
        assert_eq!(message["n"], n, "what did come is whole and in order");
    }
    let mut reader = Client::connect(&relay, &reader.token).await;
    sender.fence_to(&mut reader).await;
}

#[tokio::test]
async fn a_write_that_passes_its_deadline_ends_the_session_too() {
    // Room for all that is sent: only the deadline can end this.
    let relay = Relay::with(&[
        ("OUTBOX_BYTES_MAX", "512MiB"),
        ("OUTBOX_MESSAGES_MAX", "1000000"),
        ("WRITE_DEADLINE", "1s"),
    ]);
    let mut sender = relay.agent("sender-1").await;
    let _never_reads = relay.agent("never-reads-1").await;
    // More than the sockets of both sides hold.
    for n in 0..320 {
        sender.send(big_message("never-reads-1", n)).await;
    }
    sender.fence().await;
    eventually("the reader is counted as slow", || async { slow_consumers(&relay).await == 1 })
        .await;
    relay.wait_for_connections(1).await;
}

#[tokio::test]
async fn a_slow_reader_that_does_read_loses_nothing() {
    let relay = Relay::start();
    let mut sender = relay.agent("sender-1").await;
    let mut reader = relay.agent("reader-1").await;
    // Fifteen at a time stay within the outbox's bound, whatever the sockets hold.
    for round in 0..20 {
        for n in 0..15 {
            sender.send(big_message("reader-1", round * 15 + n)).await;
        }
        sender.fence().await;
        for n in 0..15 {
            assert_eq!(reader.next().await["n"], round * 15 + n);
        }
    }
    assert_eq!(slow_consumers(&relay).await, 0);
}

#[tokio::test]
async fn a_broadcast_past_one_that_never_reads_reaches_all_others() {
    let relay = Relay::start();
    let mut sender = relay.agent("sender-1").await;
    let _never_reads = relay.agent("never-reads-1").await;
    let mut readers = Vec::new();
    for n in 0..5 {
        readers.push(relay.agent(&format!("reader-{n}")).await);
    }
    for n in 0..400 {
        sender.send(big_message("*", n)).await;
        for reader in &mut readers {
            assert_eq!(reader.next().await["n"], n);
        }
    }
    eventually("the reader is counted as slow", || async { slow_consumers(&relay).await == 1 })
        .await;
}

#[tokio::test]
async fn who_pings_and_never_reads_the_pongs_is_cut_off() {
    let mut relay = Relay::start();
    let mut other = relay.agent("other-1").await;
    let mut pinger = relay.agent("pinger-1").await;
    let before = relay.resident_bytes();
    let pings = frame::masked(frame::PING, &[b'x'; 125]).repeat(1_000);
    let flood = async {
        loop {
            pinger.write_raw(&pings).await;
            tokio::task::yield_now().await;
        }
    };
    let cut_off =
        eventually("the pinger is counted as slow", || async { slow_consumers(&relay).await == 1 });
    tokio::select! {
        () = flood => {}
        () = cut_off => {}
    }
    let grown = relay.resident_bytes().saturating_sub(before);
    assert!(grown <= OUTBOX_BYTES + SLACK_BYTES, "grown by {} KiB", grown >> 10);
    other.fence().await;
    relay.assert_healthy().await;
}
