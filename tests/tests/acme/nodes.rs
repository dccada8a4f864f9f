//! Real nodes that have their certificate from a real authority: alone, and several under one name.

use std::{net::Ipv4Addr, process::Command, sync::Arc};

use rustix::process::Signal;
use serde_json::Value;
use tests::{
    Relay, arc_relay,
    cluster::{Cluster, loopback_address, registry},
    eventually, http,
    pebble::{Options, Pebble},
    process, scripts, within,
};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::{Notify, watch},
    task::JoinSet,
};

use super::agent::Trusting;

pub(super) const NAME: &str = "relay.test";

/// What a node is told whose certificate for `name` comes from `pebble`.
fn settings(pebble: &Pebble, name: &str) -> Vec<(&'static str, String)> {
    vec![
        ("ACME_DOMAINS", name.to_owned()),
        ("ACME_EMAIL", "ops@example.org".to_owned()),
        ("ACME_DIRECTORY", pebble.directory()),
        ("ACME_CA_ROOT", pebble.ca_file().display().to_string()),
        ("TLS_PORT", pebble.tls_port.to_string()),
        ("HTTP_PORT", pebble.http_port.to_string()),
    ]
}

fn borrowed<'a>(settings: &'a [(&'static str, String)]) -> Vec<(&'static str, &'a str)> {
    settings.iter().map(|(variable, value)| (*variable, value.as_str())).collect()
}

/// A node alone at `address`.
pub(super) fn alone(
    pebble: &Pebble,
    name: &str,
    address: Ipv4Addr,
    more: &[(&'static str, &str)],
) -> Relay {
    let (all, address) = (settings(pebble, name), address.to_string());
    Relay::with(&[&borrowed(&all)[..], &[("HOST", &address)], more].concat())
}

/// What operators see of TLS.
async fn report(relay: &Relay) -> Value {
    http::get(relay.ops, "/health").await.json()["tls"].clone()
}

pub(super) async fn has_certificate(relay: &Relay) {
    let has = || async { report(relay).await["expires_in"].as_i64() > Some(0) };
    eventually("the node has a certificate", has).await;
}

fn issued(pebble: &Pebble) -> usize {
    pebble.log().matches("Issued certificate").count()
}

#[tokio::test]
async fn one_node_serves_the_authoritys_certificate_and_a_restart_orders_no_other() {
    let Some(pebble) = Pebble::start(Options::default()).await else { return };
    let address = loopback_address();
    pebble.name(NAME, address).await;
    let mut relay = alone(&pebble, NAME, address, &[]);
    has_certificate(&relay).await;
    let trusting = Trusting::of(&pebble.root_file().await, NAME);
    trusting.agent(&relay, "ann-1").await.exchange(1).await;
    let shown = trusting.shown(relay.public).await;
    relay.kill9();
    relay.start_again();
    has_certificate(&relay).await;
    assert_eq!(trusting.shown(relay.public).await, shown);
    let metrics = relay.metrics().await;
    assert_eq!(metrics.count("arc_acme_failures", &[]), 0);
    assert_eq!(issued(&pebble), 1);
}

#[tokio::test]
async fn clients_of_others_verify_the_authoritys_chain() {
    for (command, script) in [
        (scripts::python(), "tests/clients/client.py"),
        (scripts::node(), "tests/clients/client.js"),
    ] {
        let Some(mut command) = command else { continue };
        let Some(pebble) = Pebble::start(Options::default()).await else { return };
        pebble.name("localhost", Ipv4Addr::LOCALHOST).await;
        let relay = alone(&pebble, "localhost", Ipv4Addr::LOCALHOST, &[]);
        has_certificate(&relay).await;
        let root = pebble.root_file().await;
        command.env("ARC_CA", &root).env("NODE_EXTRA_CA_CERTS", &root);
        let address = format!("localhost:{}", relay.public.port());
        command.arg(scripts::script(script)).args([&address, "direct_and_broadcast"]);
        let finished = process::run(command).await.expect_code(0);
        assert_eq!(finished.stdout.trim(), "ok");
    }
}

#[tokio::test]
async fn http_01_is_answered_on_the_port_of_plain_http() {
    let Some(pebble) = Pebble::start(Options::default()).await else { return };
    let address = loopback_address();
    pebble.name(NAME, address).await;
    let relay = alone(&pebble, NAME, address, &[("ACME_CHALLENGE", "http-01")]);
    has_certificate(&relay).await;
    http::get(relay.plain(), "/x").await.expect_error(301, "tls_required");
}

#[tokio::test]
async fn what_the_authority_refuses_is_said_and_agents_are_not_kept_waiting() {
    let Some(pebble) = Pebble::start(Options::default()).await else { return };
    // The name leads to where nobody listens.
    pebble.name(NAME, loopback_address()).await;
    let address = loopback_address();
    let relay = alone(&pebble, NAME, address, &[]);
    let failed = || async { report(&relay).await["acme"]["failures"] == 1 };
    eventually("the order has failed", failed).await;
    let trusting = Trusting::of(&pebble.root_file().await, NAME);
    trusting.dial(relay.public).await.expect_err("there is no certificate");
    let answer = http::get(relay.plain(), "/").await.expect_error(503, "no_certificate");
    assert!(answer.header("retry-after").is_some());
    let mut status = Command::new(arc_relay());
    status.args(["status", "--ops", &format!("http://{}", relay.ops)]).env_clear();
    let told = process::run(status).await.expect_code(0).stdout;
    for part in
        ["TLS: acme, for relay.test, no certificate yet", "Failed to connect to", "1 order failed"]
    {
        assert!(told.contains(part), "{part:?} in {told}");
    }
    // Once it is mended, the operator need not wait.
    pebble.name(NAME, address).await;
    relay.signal(Signal::HUP);
    has_certificate(&relay).await;
    eventually("it is content", || async { report(&relay).await["problem"].is_null() }).await;
}

/// Three nodes under one name, at addresses of their own, which does not lead anywhere yet.
pub(super) async fn three(pebble: &Pebble) -> (Cluster, Vec<Ipv4Addr>) {
    let addresses: Vec<Ipv4Addr> = (0..3).map(|_| loopback_address()).collect();
    let all = settings(pebble, NAME);
    let mut cluster = Cluster::unstarted(&addresses, &borrowed(&all));
    for address in &addresses {
        cluster.add_at(*address, &[("HOST", &address.to_string())]);
    }
    cluster.is_whole().await;
    cluster.is_kept_by(3).await;
    (cluster, addresses)
}

/// The number of the node that leads the registry, and so orders.
async fn leader(cluster: &Cluster) -> usize {
    for (number, node) in cluster.nodes.iter().enumerate() {
        if registry(node).await["role"] == "leader" {
            return number;
        }
    }
    panic!("no node leads");
}

async fn all_show_the_same(cluster: &Cluster, pebble: &Pebble) {
    let trusting = Trusting::of(&pebble.root_file().await, NAME);
    let mut shown = Vec::new();
    for node in &cluster.nodes {
        has_certificate(node).await;
        shown.push(trusting.shown(node.public).await.expect("it shows one"));
    }
    assert!(shown.iter().all(|one| *one == shown[0]));
}

#[tokio::test]
async fn one_certificate_serves_all_nodes_under_one_name_and_those_that_come_later() {
    let Some(mut pebble) = Pebble::start(Options::default()).await else { return };
    pebble.stop();
    let (mut cluster, addresses) = three(&pebble).await;
    let leads = leader(&cluster).await;
    pebble.name(NAME, addresses[(leads + 1) % 3]).await;
    pebble.begin().await;
    all_show_the_same(&cluster, &pebble).await;
    let late = loopback_address().to_string();
    cluster.add(&[("HOST", &late), ("MESH_HOST", &late)]);
    cluster.is_whole().await;
    all_show_the_same(&cluster, &pebble).await;
    assert_eq!(issued(&pebble), 1);
    assert_eq!(pebble.log().matches("POST /order-plz").count(), 1);
}

#[tokio::test]
async fn the_next_leader_carries_on_when_one_is_killed_in_the_middle() {
    let Some(mut pebble) = Pebble::start(Options::default()).await else { return };
    pebble.stop();
    let (mut cluster, addresses) = three(&pebble).await;
    let leads = leader(&cluster).await;
    pebble.name(NAME, addresses[(leads + 1) % 3]).await;
    // Until it is given up, the leader waits for it to know the answers.
    let sleeper = (leads + 2) % 3;
    cluster.nodes[sleeper].signal(Signal::STOP);
    pebble.begin().await;
    let ordered = || async { cluster.nodes[leads].log.last("ordered a certificate").is_some() };
    eventually("it has ordered", ordered).await;
    cluster.nodes[leads].kill9();
    cluster.nodes[sleeper].signal(Signal::CONT);
    cluster.nodes.remove(leads);
    all_show_the_same(&cluster, &pebble).await;
    let carried_on = |node: &Relay| node.log.last("carrying on with an order").is_some();
    assert!(cluster.nodes.iter().any(carried_on));
    assert_eq!(issued(&pebble), 1);
    assert_eq!(pebble.log().matches("POST /order-plz").count(), 1, "nobody has ordered anew");
}

/// Passes on what comes to `from` to the same port of `to`, from when it is let.
async fn gate(from: Ipv4Addr, to: Ipv4Addr, port: u16) -> (JoinSet<()>, Arc<Notify>, Arc<Notify>) {
    let (came, open) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let listener = TcpListener::bind((from, port)).await.expect("it is free");
    let (tells, opened) = (Arc::clone(&came), Arc::clone(&open));
    let mut gate = JoinSet::new();
    gate.spawn(async move {
        let (mut waiting, mut is_open) = (Vec::new(), false);
        let mut passing = JoinSet::new();
        loop {
            tokio::select! {
                Ok((stream, _)) = listener.accept() => {
                    tells.notify_one();
                    waiting.push(stream);
                }
                () = opened.notified() => is_open = true,
            }
            if !is_open {
                continue;
            }
            for mut near in waiting.drain(..) {
                passing.spawn(async move {
                    let mut far = TcpStream::connect((to, port)).await.expect("a node listens");
                    // Whoever hangs up first: it is over.
                    let _ = copy_bidirectional(&mut near, &mut far).await;
                });
            }
        }
    });
    (gate, came, open)
}

#[tokio::test]
async fn the_next_leader_finishes_what_one_began_that_is_killed_during_the_validation() {
    let Some(mut pebble) = Pebble::start(Options::default()).await else { return };
    pebble.stop();
    let (mut cluster, addresses) = three(&pebble).await;
    let leads = leader(&cluster).await;
    // The authority comes when the leader has said that the challenge may be tried; and is kept waiting.
    let at_the_gate = loopback_address();
    let (_gate, came, open) = gate(at_the_gate, addresses[(leads + 1) % 3], pebble.tls_port).await;
    pebble.name(NAME, at_the_gate).await;
    pebble.begin().await;
    within("the authority's validation", came.notified()).await;
    assert_eq!(pebble.log().matches("POST /finalize-order/").count(), 0);
    cluster.nodes[leads].kill9();
    open.notify_one();
    cluster.nodes.remove(leads);
    all_show_the_same(&cluster, &pebble).await;
    let carried_on = |node: &Relay| node.log.last("carrying on with an order").is_some();
    assert!(cluster.nodes.iter().any(carried_on));
    let log = pebble.log();
    for (what, times) in [
        ("POST /order-plz", 1),
        ("POST /chalZ/", 1),
        ("POST /finalize-order/", 1),
        ("Issued certificate", 1),
    ] {
        assert_eq!(log.matches(what).count(), times, "{what} in {log}");
    }
}

#[tokio::test]
async fn no_session_is_dropped_when_the_certificate_is_renewed() {
    let options = Options { validity_s: 30, ..Options::default() };
    let Some(pebble) = Pebble::start(options).await else { return };
    let address = loopback_address();
    pebble.name(NAME, address).await;
    let relay = alone(&pebble, NAME, address, &[]);
    has_certificate(&relay).await;
    let trusting = Trusting::of(&pebble.root_file().await, NAME);
    let first = trusting.shown(relay.public).await;
    let stop = watch::Sender::new(false);
    let mut busy = JoinSet::new();
    for n in 0..20 {
        let mut agent = trusting.agent(&relay, &format!("agent-{n}")).await;
        let stop = stop.clone();
        busy.spawn(async move {
            let mut rounds = 0;
            while !*stop.borrow() {
                agent.exchange(rounds).await;
                rounds += 1;
            }
            rounds
        });
    }
    eventually("another certificate is shown", || async {
        trusting.shown(relay.public).await.is_some_and(|shown| Some(shown) != first)
    })
    .await;
    let metrics = relay.metrics().await;
    stop.send_replace(true);
    while let Some(rounds) = busy.join_next().await {
        assert!(rounds.expect("no session was dropped") > 0);
    }
    assert_eq!(metrics.count("arc_sessions_closed_total", &[("reason", "lost")]), 0);
}
