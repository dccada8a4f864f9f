//! Certificates that are replaced while agents go on.

use std::time::Duration;

use rustix::process::Signal;
use tests::{Relay, eventually, http};
use tokio::{sync::watch, task::JoinSet};

use super::{agent::Trusting, authority::Authority};

/// What operators see of TLS.
async fn report(relay: &Relay) -> serde_json::Value {
    http::get(relay.ops, "/health").await.expect_status(200).json()["tls"].clone()
}

async fn serves(relay: &Relay, name: &str) {
    eventually(&format!("{name} is served"), || async { report(relay).await["names"][2] == name })
        .await;
}

#[tokio::test]
async fn files_that_change_are_served_without_a_signal_and_no_session_notices() {
    let authority = Authority::new();
    let (relay, trusting) = (authority.relay(), Trusting::of(&authority));
    let stop = watch::Sender::new(false);
    let mut busy = JoinSet::new();
    for n in 0..20 {
        let id = format!("agent-{n}");
        let mut agent = trusting.agent(&relay, &id).await;
        let stop = stop.clone();
        busy.spawn(async move {
            let mut rounds = 0;
            while !*stop.borrow() {
                agent.exchange(&id, rounds).await;
                rounds += 1;
            }
            rounds
        });
    }
    let before = trusting.agent(&relay, "before-1").await;
    let mut later = Vec::new();
    for name in ["first.example", "second.example"] {
        authority.issue(name, 2100);
        serves(&relay, name).await;
        let after = Trusting::of(&authority).agent(&relay, &name.replace('.', "-")).await;
        assert_ne!(after.shown(), before.shown());
        later.push(after);
    }
    let metrics = relay.metrics().await;
    stop.send_replace(true);
    while let Some(rounds) = busy.join_next().await {
        assert!(rounds.expect("no session was dropped") > 0);
    }
    assert_eq!(metrics.count("arc_tls_reloads_total", &[]), 2);
    assert_eq!(metrics.count("arc_tls_reload_failures_total", &[]), 0);
    assert_eq!(metrics.count("arc_sessions_closed_total", &[("reason", "lost")]), 0);
}

#[tokio::test]
async fn sighup_has_files_looked_at_at_once() {
    let authority = Authority::new();
    let relay = authority.relay();
    authority.issue("asked.example", 2100);
    relay.signal(Signal::HUP);
    let asked = tokio::time::Instant::now();
    serves(&relay, "asked.example").await;
    assert!(asked.elapsed() < Duration::from_secs(4), "sooner than by itself");
}

#[tokio::test]
async fn a_bad_pair_is_refused_and_the_old_one_served() {
    let authority = Authority::new();
    let (mut relay, trusting) = (authority.relay(), Trusting::of(&authority));
    let mut agent = trusting.agent(&relay, "ann-1").await;
    let shown = agent.shown();
    let (_, other_key) = authority.make("other.example", 2100);
    let (expired, expired_key) = authority.make("expired.example", 2021);
    let (good, good_key) = (read(&authority.cert()), read(&authority.key()));
    for (cert, key, why) in [
        (&good, &other_key, "the key is not that of the certificate"),
        (&expired, &expired_key, "the certificate expired"),
        (&"spoilt".to_owned(), &good_key, "no PEM certificate"),
    ] {
        authority.replace(&authority.cert(), cert);
        authority.replace(&authority.key(), key);
        relay.signal(Signal::HUP);
        eventually("it says what is wrong", || async {
            report(&relay).await["problem"].as_str().is_some_and(|said| said.contains(why))
        })
        .await;
        eventually("it is an error in the log", || async {
            let entry = relay.log.last("refused the new certificate: the old one is served still");
            let entry = entry.unwrap_or_default();
            entry["level"] == "ERROR"
                && entry["why"].as_str().is_some_and(|said| said.contains(why))
        })
        .await;
        let stream = Trusting::of(&authority).dial(relay.public).await.expect("TLS is spoken");
        assert_eq!(
            stream.get_ref().1.peer_certificates().expect("one is shown")[0].to_vec(),
            shown
        );
        agent.exchange("ann-1", 1).await;
    }
    authority.replace(&authority.cert(), &good);
    authority.replace(&authority.key(), &good_key);
    relay.signal(Signal::HUP);
    eventually("it is content again", || async { report(&relay).await["problem"].is_null() }).await;
    let metrics = relay.metrics().await;
    assert_eq!(metrics.count("arc_tls_reload_failures_total", &[]), 3);
    assert!(relay.is_running());
}

fn read(path: &std::path::Path) -> String {
    std::fs::read_to_string(path).expect("the authority wrote it")
}
