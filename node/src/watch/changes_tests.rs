//! What is told of which change, and that nothing is told of none.

use cluster::UnixMillis;

use super::*;
use crate::{admin::Voter, certificates::AcmeReport, report::testing};

fn node(id: &str, state: &str) -> NodeReport {
    let (name, version) = (format!("node-{id}"), "1.0.0".into());
    NodeReport { name, version, ..testing::node(id, state) }
}

fn link(id: &str) -> LinkReport {
    LinkReport {
        peer: format!("node-{id}"),
        id: id.into(),
        rtt_ms: 0.5,
        queue_bytes: 0,
        sent_bytes: 0,
        received_bytes: 0,
        silent_ms: 100,
    }
}

fn registry() -> RegistryReport {
    let voter =
        |node: &str| Voter { node: node.into(), seed: String::new(), votes: true, lag: None };
    RegistryReport {
        id: None,
        role: "leader".into(),
        available: true,
        waiting: None,
        leader: Some("a".into()),
        term: 1,
        applied: 1,
        voters: vec![voter("a"), voter("b")],
        failure: None,
    }
}

fn tls() -> TlsReport {
    TlsReport {
        source: "acme".into(),
        names: vec!["relay.example".into()],
        expires_at: Some(UnixMillis(1)),
        expires_in: Some(30 * 86_400),
        problem: None,
        acme: Some(AcmeReport { failures: 0, next_in: 1, ordering: false }),
    }
}

/// This node is `a`; it sees `b`, is linked to it, and serves.
fn usual() -> Snapshot {
    let report = ClusterReport {
        node: "a".into(),
        nodes: vec![node("a", "alive"), node("b", "alive")],
        links: vec![link("b")],
        registry: Some(registry()),
        tls: Some(tls()),
    };
    Snapshot { report, phase: Phase::Serving, panics: 0 }
}

/// What is told if `change` happens to what is as usual: level, node and text.
fn told(change: impl FnOnce(&mut Snapshot)) -> Vec<(Level, String, String)> {
    told_between(&usual(), change)
}

fn told_between(
    before: &Snapshot,
    change: impl FnOnce(&mut Snapshot),
) -> Vec<(Level, String, String)> {
    let mut after = before.clone();
    change(&mut after);
    let happened = changes(before, &after);
    happened.into_iter().map(|it| (it.level, it.node, it.text)).collect()
}

fn one(level: Level, node: &str, text: &str) -> Vec<(Level, String, String)> {
    vec![(level, node.into(), text.into())]
}

#[test]
fn nothing_is_told_of_numbers_that_go_up_and_down() {
    let told = told(|after| {
        after.report.nodes[1].agents = 7;
        after.report.nodes[1].ring_share = 0.4;
        after.report.links[0].rtt_ms = 80.0;
        after.report.links[0].queue_bytes = 70_000;
        let registry = after.report.registry.as_mut().unwrap();
        registry.applied = 900;
    });
    assert_eq!(told, []);
}

#[test]
fn a_nodes_states_are_told() {
    for (before, after, level, text) in [
        ("alive", "suspect", Level::Warn, "is not heard: it may be gone"),
        ("suspect", "dead", Level::Error, "is dead: it went without a word"),
        ("suspect", "alive", Level::Info, "is heard again"),
        ("dead", "alive", Level::Info, "is back"),
        ("alive", "leaving", Level::Info, "is leaving"),
        ("leaving", "left", Level::Info, "has left"),
    ] {
        let mut usual = usual();
        usual.report.nodes[1].state = before.into();
        let told = told_between(&usual, |it| it.report.nodes[1].state = after.into());
        assert_eq!(told, one(level, "node-b", text));
    }
}

#[test]
fn nodes_come_go_and_change_their_release() {
    let come = told(|after| after.report.nodes.push(node("c", "alive")));
    assert_eq!(come, one(Level::Info, "node-c", "is in the cluster, in region eu"));
    assert_eq!(told(|after| after.report.nodes.push(node("c", "dead"))), [], "old news");
    let gone = told(|after| drop(after.report.nodes.pop()));
    assert_eq!(gone, one(Level::Warn, "node-b", "is not known any more"));
    let other = told(|after| after.report.nodes[1].version = "1.1.0".into());
    assert_eq!(other, one(Level::Info, "node-b", "runs release 1.1.0 now, not 1.0.0"));
}

#[test]
fn a_link_that_ends_is_an_alarm_unless_its_peer_said_so() {
    let lost = told(|after| after.report.links.clear());
    assert_eq!(lost, one(Level::Warn, "node-a", "link to node-b is down"));
    let left = told(|after| {
        after.report.nodes[1].state = "left".into();
        after.report.links.clear();
    });
    assert!(left.iter().all(|(level, _, _)| *level == Level::Info), "{left:?}");
    let came = told(|after| after.report.links.push(link("c")));
    assert_eq!(came, one(Level::Info, "node-a", "link to node-c is up"));
}

#[test]
fn a_link_that_does_not_answer_or_fills_up_is_told_once() {
    let mut silent = usual();
    silent.report.links[0].silent_ms = 3_500;
    assert_eq!(changes(&usual(), &silent).len(), 1);
    assert_eq!(told_between(&silent, |it| it.report.links[0].silent_ms = 4_500), []);
    let again = told_between(&silent, |it| it.report.links[0].silent_ms = 100);
    assert_eq!(again, one(Level::Info, "node-a", "link to node-b answers again"));
    let mut full = usual();
    full.report.links[0].queue_bytes = 20 << 20;
    assert_eq!(changes(&usual(), &full)[0].level, Level::Warn);
    assert_eq!(told_between(&full, |it| it.report.links[0].queue_bytes += 1), []);
}

#[test]
fn the_registrys_troubles_are_told_with_their_reason() {
    use crate::admin::Waiting;
    let lost = told(|after| {
        let registry = after.report.registry.as_mut().unwrap();
        registry.available = false;
        registry.leader = None;
        registry.waiting = Some(Waiting { reason: "no quorum".into(), seeds: Vec::new() });
    });
    assert_eq!(lost, one(Level::Error, "node-a", "no names can be registered: no quorum"));
    let led = told(|after| after.report.registry.as_mut().unwrap().leader = Some("b".into()));
    assert_eq!(led, one(Level::Info, "node-b", "leads the registry"));
    let kept = told(|after| drop(after.report.registry.as_mut().unwrap().voters.pop()));
    assert_eq!(kept, one(Level::Info, "node-a", "the registry is kept by node-a"));
    let failed =
        told(|after| after.report.registry.as_mut().unwrap().failure = Some("full".into()));
    assert_eq!(failed[0].0, Level::Error);
}

#[test]
fn certificates_are_told_of_when_they_change_fail_or_end() {
    let told = |change: fn(&mut TlsReport)| told(|it| change(it.report.tls.as_mut().unwrap()));
    let levels = |change: fn(&mut TlsReport)| -> Vec<Level> {
        told(change).into_iter().map(|(level, _, _)| level).collect()
    };
    assert_eq!(levels(|tls| tls.problem = Some("the key fits not".into())), [Level::Warn]);
    assert_eq!(levels(|tls| tls.expires_in = Some(86_400)), [Level::Warn]);
    assert_eq!(levels(|tls| tls.expires_in = Some(-1)), [Level::Error]);
    let renewed = told(|tls| tls.expires_at = Some(UnixMillis(2)));
    assert_eq!(
        renewed,
        one(Level::Info, "node-a", "another certificate is served, good for 30 days")
    );
    let failed = told(|tls| tls.acme.as_mut().unwrap().failures = 2);
    assert_eq!(failed, one(Level::Warn, "node-a", "an order of a certificate failed, 2 in a row"));
}

#[test]
fn a_nodes_own_life_is_told() {
    let stops = told(|after| after.phase = Phase::Draining);
    assert_eq!(stops, one(Level::Warn, "node-a", "stops, and sends its agents elsewhere"));
    assert_eq!(told(|after| after.panics = 1)[0].0, Level::Error);
}
