//! An orderly stop: SIGTERM, PROTOCOL section 7's 1001, nothing lost that was accepted.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use tests::{
    Client, PATIENCE, Relay,
    cluster::loopback_address,
    eventually, http,
    process::{self, Running},
};
use tokio::{io::AsyncWriteExt, net::TcpStream};

/// The `retry_ms` in the reason text of a 1001.
fn retry_ms(reason: &str) -> u64 {
    let (_, rest) = reason.split_once("retry_ms=").unwrap_or_else(|| panic!("{reason:?}"));
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().unwrap_or_else(|_| panic!("{reason:?}"))
}

#[tokio::test]
async fn a_relay_that_still_waits_for_its_dns_stops_too() {
    let (folder, own) =
        (tempfile::tempdir().expect("a folder can be made"), loopback_address().to_string());
    let mut command = Relay::command(folder.path());
    command.env("CLUSTER_SECRET", "arcs_BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcUbF2o");
    command.env("SEEDS", "nowhere.invalid").env("MESH_HOST", &own).env("ADVERTISE", &own);
    let mut relay = Running::start(command);
    while !relay.line().await.expect("it runs").contains("looking again") {}
    let pid = i32::try_from(relay.pid()).ok().and_then(Pid::from_raw);
    kill_process(pid.expect("it runs"), Signal::TERM).expect("it can be signalled");
    assert_eq!(relay.code().await, Some(0), "it is an orderly stop");
}

#[tokio::test]
async fn agents_are_told_when_to_come_back_and_the_relay_ends_well() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut relay = Relay::start();
        let mut agents = Vec::new();
        for n in 0..10 {
            agents.push(relay.agent(&format!("agent-{n}")).await);
        }
        relay.signal(signal);
        let mut retries = Vec::new();
        for agent in &mut agents {
            retries.push(retry_ms(&agent.expect_close(1001).await.reason));
        }
        assert!(relay.wait_exit().success(), "{signal:?} ends the relay with exit code 0");
        retries.sort_unstable();
        retries.dedup();
        assert!(retries.len() > 1, "jitter spreads the return: {retries:?}");
    }
}

#[tokio::test]
async fn what_was_accepted_before_is_delivered_before_the_goodbye() {
    // Some of it waits in the relay itself, not only in the sockets: see `fill_socket`.
    let mut relay = Relay::with(&[("OUTBOX_BYTES_MAX", "64MiB")]);
    let mut sender = relay.agent("sender-1").await;
    let mut lags = relay.agent("lags-1").await;
    let sent = fill_socket(&relay, &mut sender).await;
    relay.terminate();
    sender.expect_close(1001).await;
    let closed = lags.expect_close(1001).await;
    let numbers: Vec<_> = closed.before.iter().filter_map(|m| m["n"].as_u64()).collect();
    assert_eq!(numbers, (0..sent).collect::<Vec<u64>>());
    assert!(relay.wait_exit().success());
}

#[tokio::test]
async fn while_it_drains_it_is_not_ready_and_takes_nobody_in() {
    let mut relay = Relay::with(&[("DRAIN_DEADLINE", "10s"), ("WRITE_DEADLINE", "60s")]);
    let mut sender = relay.agent("sender-1").await;
    let token = relay.register("late-1").await;
    // One that has messages waiting and does not read them keeps the drain from ending at once.
    let mut lags = relay.agent("lags-1").await;
    fill_socket(&relay, &mut sender).await;
    relay.terminate();
    sender.expect_close(1001).await;

    for path in ["/ready", "/health"] {
        let answer = http::get(relay.ops, path).await.expect_status(503).json();
        assert_eq!(answer["status"], "draining", "{path}: {answer}");
    }
    assert_newcomer_is_turned_away(&relay, &token).await;

    lags.expect_close(1001).await;
    drop(lags);
    assert!(relay.wait_exit().success());
}

/// A newcomer finds the door closed, or hears why.
async fn assert_newcomer_is_turned_away(relay: &Relay, token: &str) {
    let Ok(mut stream) = TcpStream::connect(relay.public).await else { return };
    if stream.write_all(b"").await.is_err() {
        return;
    }
    let request = http::upgrade("/arc").header("authorization", format!("Bearer {token}"));
    let answer = http::send(relay.public, request, "").await;
    answer.expect_error(503, "draining").expect_retry_after();
}

/// Sends to `lags-1`, which does not read, until some of it has to wait in the relay; how many
/// messages that took.
async fn fill_socket(relay: &Relay, sender: &mut Client) -> u64 {
    let start = Instant::now();
    let mut sent = 0;
    while relay.metrics().await.count("arc_outbox_bytes", &[]) == 0 {
        assert!(start.elapsed() < PATIENCE, "nothing waits after {sent} messages");
        for _ in 0..4 {
            let payload = "x".repeat(60 << 10);
            sender.send(json!({"to": ["lags-1"], "n": sent, "payload": payload})).await;
            sent += 1;
        }
        sender.fence().await;
    }
    sent
}

#[tokio::test]
async fn who_does_not_read_delays_the_end_until_the_deadline_only() {
    let mut relay = Relay::with(&[("DRAIN_DEADLINE", "2s"), ("WRITE_DEADLINE", "60s")]);
    let mut sender = relay.agent("sender-1").await;
    let _lags = relay.agent("lags-1").await;
    fill_socket(&relay, &mut sender).await;
    let start = Instant::now();
    relay.terminate();
    assert!(relay.wait_exit().success(), "exit code 0 all the same");
    let took = start.elapsed();
    assert!(took < Duration::from_secs(12), "2 s were given, it took {took:?}");
}

#[tokio::test]
async fn one_that_never_says_goodbye_does_not_hold_the_relay_up() {
    let mut relay = Relay::with(&[("DRAIN_DEADLINE", "3s")]);
    let _mute = relay.agent("mute-1").await;
    let _half = TcpStream::connect(relay.public).await.expect("the relay accepts");
    let start = Instant::now();
    relay.terminate();
    assert!(relay.wait_exit().success());
    let took = start.elapsed();
    assert!(took < Duration::from_secs(13), "3 s were given, it took {took:?}");
}

#[tokio::test]
async fn agents_find_their_names_and_tokens_after_the_restart() {
    let mut relay = Relay::start();
    let mut agent = relay.agent("rawk-042").await;
    relay.terminate();
    agent.expect_close(1001).await;
    assert!(relay.wait_exit().success());
    relay.start_again();
    let mut agent = Client::connect(&relay, &agent.token).await;
    agent.fence().await;
}

#[tokio::test]
async fn a_relay_that_logs_nothing_runs_until_it_is_told_to_stop() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    // It does not say which ports it has: on an address of its own all are free.
    let ops = SocketAddr::from((loopback_address(), 18_081));
    let mut command = Relay::command(folder.path());
    command.env("LOG_LEVEL", "error");
    command.env("STATS_HOST", ops.ip().to_string()).env("STATS_PORT", ops.port().to_string());
    let mut relay = command.spawn().expect("the relay's binary can be run");
    eventually("it serves", || async { TcpStream::connect(ops).await.is_ok() }).await;
    http::get(ops, "/health").await.expect_status(200);
    let pid = Pid::from_child(&relay);
    assert!(relay.try_wait().expect("it is this test's child").is_none(), "it runs on");
    kill_process(pid, Signal::TERM).expect("it runs");
    assert!(relay.wait().expect("it is this test's child").success());
}

#[tokio::test]
async fn a_relay_that_has_nothing_to_reload_goes_on() {
    let mut relay = Relay::start();
    let mut agent = relay.agent("rawk-042").await;
    relay.signal(Signal::HUP);
    let told =
        "SIGHUP: nothing to reload: there is no certificate, and settings are read at the start";
    eventually("it says so", || async { relay.log.last(told).is_some() }).await;
    agent.fence().await;
    relay.terminate();
    assert!(relay.wait_exit().success());
}

#[tokio::test]
async fn a_second_process_on_a_data_directory_may_be_started_again() {
    let relay = Relay::start();
    let mut command = Relay::command(relay.folder());
    command.env("PORT", "0").env("STATS_PORT", "0");
    // Code 2 is what no supervisor tries again, and the first may be about to end.
    let second = process::run(command).await.expect_code(1);
    assert!(second.stderr.contains("another arc-relay runs"), "{second:?}");
}
