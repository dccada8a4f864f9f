//! What is wrong with what was seen, and what to do about it. Pure.

use std::{collections::BTreeSet, time::Duration};

use serde::Serialize;

use super::{
    domains::of_domain,
    observed::{Handshake, Mistrust, NodeSeen, Observed},
};
use crate::{
    agent::{message::moment, status::time},
    report,
    tls_report::{AcmeState, CertificateReport, TlsState},
};

/// So far may a node's clock be from this machine's; an answer takes seconds at the most.
const CLOCKS_MS: u64 = 60_000;

/// An order that has been due for longer is not made by anybody.
const OVERDUE_MS: u64 = 3_600_000;

/// A certificate's end is near when less than this share of its life is left, and less than
/// [`NEAR_MS`]: by then a renewal is late.
const NEAR_SHARE: u64 = 6;

/// See [`NEAR_SHARE`].
const NEAR_MS: u64 = 14 * 24 * 3_600_000;

/// Something that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(in crate::agent) struct Finding {
    /// What kind it is, for programs.
    pub(in crate::agent) code: &'static str,
    /// The node or the name that it is about, or `cluster`.
    pub(in crate::agent) about: String,
    /// What is wrong.
    pub(in crate::agent) problem: String,
    /// What to do.
    pub(in crate::agent) remedy: String,
}

/// All that is wrong: with the nodes, with what they agree on, with the names.
pub(super) fn findings(seen: &Observed) -> Vec<Finding> {
    let there = || seen.nodes.iter().filter(|node| is_there(node));
    let mut all: Vec<Finding> = there().flat_map(|node| of_node(node, seen.at)).collect();
    all.extend(of_cluster(seen, &there().collect::<Vec<_>>()));
    all.extend(seen.domains.iter().flat_map(|domain| of_domain(domain, seen)));
    all
}

/// All certificates that the nodes say they serve.
pub(super) fn served(seen: &Observed) -> impl Iterator<Item = &CertificateReport> {
    seen.nodes.iter().filter_map(tls).flat_map(|tls| &tls.certificates)
}

/// Whether the node is one that agents may come to.
pub(super) fn is_there(node: &NodeSeen) -> bool {
    report::is_there(&node.told.state)
}

/// How the node says it speaks TLS.
pub(super) fn tls(node: &NodeSeen) -> Option<&TlsState> {
    node.told.says.as_ref()?.tls.as_ref()
}

/// One.
pub(super) fn finding(
    code: &'static str,
    about: &str,
    problem: String,
    remedy: impl Into<String>,
) -> Finding {
    Finding { code, about: about.to_owned(), problem, remedy: remedy.into() }
}

fn of_node(node: &NodeSeen, at: u64) -> Vec<Finding> {
    let name = &node.told.name;
    let Some(says) = &node.told.says else {
        let problem = "it does not say how it stands with TLS".to_owned();
        let remedy = "see in `arc-relay status` whether it runs and is linked, and bring it to this \
                      release; or ask it itself with --ops";
        return vec![finding("silent", name, problem, remedy)];
    };
    let mut all = Vec::new();
    let off = says.clock.0.abs_diff(at);
    if off > CLOCKS_MS {
        let way = if says.clock.0 > at { "ahead of" } else { "behind" };
        let problem = format!("its clock is {} {way} this machine's", time(off / 1_000));
        let remedy =
            "set the clock that is wrong, by NTP: certificates are good from one time to another";
        all.push(finding("clock", name, problem, remedy));
    }
    match &says.tls {
        None if says.behind_proxy => {}
        None => {
            let problem = "agents connect to it without TLS".to_owned();
            let remedy = "set ACME_DOMAINS and ACME_EMAIL, or TLS_CERT and TLS_KEY; or let a proxy speak \
                          TLS for it, and set BEHIND_PROXY=true";
            all.push(finding("no_tls", name, problem, remedy));
        }
        Some(tls) => {
            all.extend(of_certificates(name, tls, at));
            all.extend(of_doors(node, tls));
        }
    }
    all
}

/// What the certificates say of themselves.
fn of_certificates(name: &str, tls: &TlsState, at: u64) -> Vec<Finding> {
    let mut all = Vec::new();
    if let Some(why) = &tls.problem {
        let problem = format!("a newer certificate is refused: {why}");
        let remedy = "mend the files and send the node SIGHUP; until then the one before is served";
        all.push(finding("refused", name, problem, remedy));
    }
    if tls.certificates.is_empty() {
        let problem = "it has no certificate yet: agents are refused".to_owned();
        let remedy = "wait some seconds if it was started just now; else see what is said of the \
                      orders, and whether the node is linked to the others (`arc-relay status`)";
        all.push(finding("no_certificate", name, problem, remedy));
    }
    all.extend(tls.certificates.iter().filter_map(|it| of_time(name, tls, it, at)));
    let lacks = |domain: &&String| {
        !tls.certificates.is_empty() && !tls.certificates.iter().any(|it| it.names.contains(domain))
    };
    let domains = tls.acme.iter().flat_map(|acme| &acme.domains);
    let lacking: Vec<_> = domains.filter(lacks).map(String::as_str).collect();
    if !lacking.is_empty() {
        let problem = format!("its certificate is not for {}", lacking.join(", "));
        let remedy = "an order for these names is due: see what is said of the orders";
        all.push(finding("names", name, problem, remedy));
    }
    all
}

fn of_time(name: &str, tls: &TlsState, it: &CertificateReport, at: u64) -> Option<Finding> {
    let renew = match tls.source.as_str() {
        "acme" => "see what is said of the orders: a certificate is renewed long before its end",
        "files" => "renew it, and put it into TLS_CERT and TLS_KEY: a node sees that by itself",
        _ => {
            "send the node SIGHUP: it makes itself another one, which agents must be told to trust"
        }
    };
    let (from, end) = (it.not_before.0, it.not_after.0);
    if at >= end {
        let problem = format!("its certificate expired at {}", moment(Some(end)));
        return Some(finding("expired", name, problem, renew));
    }
    if at < from {
        let problem = format!("its certificate is good only from {} on", moment(Some(from)));
        let remedy = "set the clocks, or wait";
        return Some(finding("not_yet", name, problem, remedy));
    }
    let (left, life) = (end - at, end.saturating_sub(from));
    (left < NEAR_MS && left < life / NEAR_SHARE).then(|| {
        let problem = format!("its certificate expires in {}", time(left / 1_000));
        finding("ends_soon", name, problem, renew)
    })
}

/// What the node's ports show.
fn of_doors(node: &NodeSeen, tls: &TlsState) -> Vec<Finding> {
    let name = &node.told.name;
    let mut all = Vec::new();
    if node.reached_at.is_none() {
        let problem = "nobody says where its port for agents is".to_owned();
        let remedy = "set ADVERTISE, or HOST, on it";
        all.push(finding("nowhere", name, problem, remedy));
    }
    let silent =
        |it: &&Handshake| it.certificate.is_none() && !(it.accepts && tls.certificates.is_empty());
    if let Some(it) = node.shown.iter().find(silent) {
        let why = it.error.as_deref().unwrap_or("it shows no certificate");
        let problem = format!("its port for agents, {}, does not answer: {why}", it.address);
        let remedy = format!(
            "open TCP {} to it; if only this machine cannot reach it there, run this where agents are",
            it.address.port()
        );
        all.push(finding("port_closed", name, problem, remedy));
    }
    let is_other = |it: &&Handshake| {
        let shown = it.certificate.as_ref();
        shown.is_some_and(|shown| !has(tls, shown) && !tls.certificates.is_empty())
    };
    if let Some(it) = node.shown.iter().find(is_other) {
        let problem = format!("at {} another certificate is shown than it serves", it.address);
        let remedy = "something else answers there, such as a proxy: look whose port it is; if the \
                      certificate was renewed just now, check again";
        all.push(finding("other_certificate", name, problem, remedy));
    }
    all.extend(of_trust(name, tls, &node.shown));
    if let Some(door) = node.plain.as_ref().filter(|door| !door.is_relay) {
        let why = door.error.as_deref().unwrap_or("no answer");
        let problem = format!("its port of plain HTTP, {}, does not answer: {why}", door.address);
        let remedy = format!("open TCP {} to it, or set HTTP_PORT=none", door.address.port());
        all.push(finding("http_closed", name, problem, remedy));
    }
    all
}

fn has(tls: &TlsState, shown: &CertificateReport) -> bool {
    tls.certificates.iter().any(|own| own.fingerprint == shown.fingerprint)
}

/// Whether agents trust what is shown: each reason is told once, with the names that it goes for.
fn of_trust(name: &str, tls: &TlsState, shown: &[Handshake]) -> Vec<Finding> {
    let mut reasons: Vec<(&Mistrust, Vec<&str>)> = Vec::new();
    for it in shown {
        // Of the time the certificate itself is asked.
        let Some(why) = it.distrust.as_ref().filter(|why| **why != Mistrust::Time) else {
            continue;
        };
        match reasons.iter_mut().find(|(known, _)| *known == why) {
            Some((_, names)) => names.push(&it.name),
            None => reasons.push((why, vec![&it.name])),
        }
    }
    let told = |(why, names): (&Mistrust, Vec<&str>)| {
        let names = names.join(", ");
        match why {
            Mistrust::OtherName => {
                let problem = format!("the certificate that it shows is not for {names}");
                finding("other_name", name, problem, "have it issued for all names that agents use")
            }
            Mistrust::UnknownIssuer => {
                let problem =
                    format!("its certificate for {names} is of no authority trusted here");
                finding("untrusted", name, problem, trust(&tls.source))
            }
            Mistrust::Other(why) => {
                let problem = format!("clients refuse its certificate for {names}: {why}");
                finding("untrusted", name, problem, trust(&tls.source))
            }
            Mistrust::Time => finding("untrusted", name, names, trust(&tls.source)),
        }
    };
    reasons.into_iter().map(told).collect()
}

fn trust(source: &str) -> &'static str {
    match source {
        "self-signed" => {
            "agents must be told to trust it: copy self-signed.crt from the node's data directory to \
             them; give it to this check as --ca FILE"
        }
        "files" => {
            "put the certificates up to its authority behind it in TLS_CERT; if the authority is a \
             private one, agents must be told to trust it: give its certificate to this check as --ca FILE"
        }
        _ => {
            "if the authority is a private one, agents must be told to trust it: give its certificate \
             to this check as --ca FILE; a staging directory's certificates are for trials alone"
        }
    }
}

/// What the nodes should agree on, and how it is with the orders.
fn of_cluster(seen: &Observed, there: &[&NodeSeen]) -> Vec<Finding> {
    let acme: Vec<_> = there.iter().filter_map(|node| tls(node)?.acme.as_ref()).collect();
    let mut all = Vec::new();
    let Some(first) = acme.first() else { return all };
    let as_set = |it: &AcmeState| it.domains.iter().cloned().collect::<BTreeSet<_>>();
    let is_else = |it: &&AcmeState| as_set(it) != as_set(first) || it.directory != first.directory;
    if acme.iter().any(is_else) {
        let problem = "its nodes are told different ACME_DOMAINS or ACME_DIRECTORY".to_owned();
        let remedy = "set the same on all: whichever node leads orders for all of them";
        all.push(finding("settings", "cluster", problem, remedy));
    }
    let chains: BTreeSet<_> = there
        .iter()
        .filter_map(|node| tls(node).filter(|tls| tls.acme.is_some()))
        .filter_map(|tls| tls.certificates.first())
        .map(|it| it.fingerprint.as_str())
        .collect();
    if chains.len() > 1 {
        let problem = "its nodes serve different certificates".to_owned();
        let remedy = "a new one reaches all nodes within seconds: check again; if that lasts, see in \
                      `arc-relay status` which node is cut off from the registry";
        all.push(finding("differ", "cluster", problem, remedy));
    }
    all.extend(of_orders(first, acme.iter().any(|it| it.ordering), seen.at));
    all
}

fn of_orders(acme: &AcmeState, ordering: bool, at: u64) -> Option<Finding> {
    let due = acme.next_at.0;
    if acme.failures > 0 || acme.last_error.is_some() {
        let why = acme.last_error.as_deref().unwrap_or("it does not say why");
        let next = match due.checked_sub(at).map(Duration::from_millis) {
            Some(wait) => format!("the next try is in {}", time(wait.as_secs())),
            None => "it is tried again now".to_owned(),
        };
        let problem = format!("the authority gives no certificate: {why}; {next}");
        let remedy =
            "mend what the authority names, then send a node SIGHUP: it tries again at once";
        return Some(finding("orders", "cluster", problem, remedy));
    }
    (!ordering && at.saturating_sub(due) > OVERDUE_MS).then(|| {
        let problem = format!("an order has been due since {}", moment(Some(due)));
        let remedy = "the registry's leader orders: see in `arc-relay cluster voters` whether there is \
                      one, and in its log why it does not";
        finding("overdue", "cluster", problem, remedy)
    })
}
