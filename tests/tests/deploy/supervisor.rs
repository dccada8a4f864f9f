//! What a service manager hears of the relay: `sd_notify(3)`, from the other end of its socket.

use std::{
    os::{linux::net::SocketAddrExt as _, unix::net},
    time::{Duration, Instant},
};

use rustix::process::Signal;
use tests::{Cluster, Relay, cluster::loopback_address, within};
use tokio::net::UnixDatagram;

/// What was said, line by line; waits until one of the lines is `last`.
async fn heard_until(manager: &UnixDatagram, last: &str) -> Vec<String> {
    let mut heard = Vec::new();
    while !heard.iter().any(|line| line == last) {
        heard.extend(heard_next(manager, last).await);
    }
    heard
}

/// The lines of the next datagram.
async fn heard_next(manager: &UnixDatagram, what: &str) -> Vec<String> {
    let mut bytes = vec![0; 4_096];
    let length = within(what, manager.recv(&mut bytes)).await.expect("the socket is open");
    String::from_utf8_lossy(&bytes[..length]).lines().map(str::to_owned).collect()
}

fn has(lines: &[String], start: &str) -> bool {
    lines.iter().any(|line| line.starts_with(start))
}

#[tokio::test]
async fn the_manager_hears_of_readiness_of_life_and_of_the_end() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let path = folder.path().join("notify");
    let manager = UnixDatagram::bind(&path).expect("a socket can be bound");
    let mut relay = Relay::with(&[
        ("NOTIFY_SOCKET", path.to_str().expect("a path of a test is text")),
        ("WATCHDOG_USEC", "600000"),
        ("DRAIN_DEADLINE", "5s"),
    ]);
    let heard = heard_until(&manager, "READY=1").await;
    assert!(has(&heard, "STATUS=serving, 0 connected"), "{heard:?}");
    let start = Instant::now();
    for _ in 0..3 {
        let heard = heard_until(&manager, "WATCHDOG=1").await;
        assert!(!has(&heard, "READY=1"), "it is said once: {heard:?}");
    }
    assert!(start.elapsed() >= Duration::from_millis(200), "three times in the watchdog's time");

    // To be told to reload is no reason to end, also where there is nothing to reload.
    relay.signal(Signal::HUP);
    let _mute = relay.agent("mute-1").await;
    relay.terminate();
    let heard = heard_until(&manager, "STOPPING=1").await;
    let last = heard.iter().rposition(|line| line.starts_with("STATUS=")).expect("it has a status");
    assert_eq!(heard[last], "STATUS=draining, 1 still connected");
    assert!(has(&heard[last..], "EXTEND_TIMEOUT_USEC="), "a drain takes its time: {heard:?}");
    assert!(relay.wait_exit().success());
    assert!(relay.log.text().contains("SIGHUP"), "it was heard");
}

#[tokio::test]
async fn one_that_waits_for_its_seeds_asks_for_time_and_says_for_whom_it_waits() {
    let name = format!("arc-relay-test-{}", std::process::id());
    let address = net::SocketAddr::from_abstract_name(&name).expect("a short name");
    let socket = net::UnixDatagram::bind_addr(&address).expect("a name of its own is free");
    socket.set_nonblocking(true).expect("a socket need not block");
    let manager = UnixDatagram::from_std(socket).expect("a runtime is there");
    let seeds = [loopback_address(), loopback_address()];
    let mut cluster = Cluster::unstarted(&seeds, &[]);
    cluster
        .add_at(seeds[0], &[("NOTIFY_SOCKET", &format!("@{name}")), ("WATCHDOG_USEC", "600000")]);
    let mut waits = Vec::new();
    while !waits.iter().any(|line: &String| line.contains(&seeds[1].to_string())) {
        waits = heard_next(&manager, "for whom it waits").await;
        assert!(has(&waits, "STATUS=joining: ") && !has(&waits, "READY=1"), "{waits:?}");
        assert!(has(&waits, "EXTEND_TIMEOUT_USEC="), "{waits:?}");
    }
    cluster.add_at(seeds[1], &[]);
    heard_until(&manager, "READY=1").await;
    cluster.is_whole().await;
}

#[tokio::test]
async fn a_manager_that_is_gone_disturbs_nobody() {
    let mut relay = Relay::with(&[("NOTIFY_SOCKET", "/nowhere/notify")]);
    relay.assert_healthy().await;
    relay.terminate();
    assert!(relay.wait_exit().success());
}
