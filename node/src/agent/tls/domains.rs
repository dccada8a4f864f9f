//! What is wrong with where a name leads, and what to do about it. Pure.

use std::{collections::BTreeSet, net::IpAddr};

use super::{
    findings::{Finding, finding, is_there, served, tls},
    observed::{DomainSeen, HTTP_PORT, HTTPS_PORT, NodeSeen, Observed, Place},
};
use crate::tls_report::{CertificateReport, HTTP_01, TLS_ALPN_01};

/// Whose a place is that a name leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Whose {
    /// This node's.
    Node(String),
    /// The cluster's, as what it shows says: it is forwarded to a node.
    Cluster,
    /// Nobody can tell before there is a certificate.
    Unknown,
    /// Somebody else's.
    Stranger,
}

/// Whose `place` is.
pub(super) fn whose(place: &Place, seen: &Observed) -> Whose {
    let is_here = |node: &&NodeSeen| {
        let own = [node.reached_at, node.told.address, tls(node).and_then(|tls| tls.host)];
        own.contains(&Some(place.address.to_canonical()))
    };
    if let Some(node) = seen.nodes.iter().filter(|node| is_there(node)).find(is_here) {
        return Whose::Node(node.told.name.clone());
    }
    let served: BTreeSet<_> = served(seen).map(|it| it.fingerprint.as_str()).collect();
    let shown = [Some(&place.https), place.own_port.as_ref()];
    let mut shown = shown.into_iter().flatten().filter_map(|it| it.certificate.as_ref());
    let shows_ours = shown.any(|it| served.contains(it.fingerprint.as_str()));
    let none_yet = served.is_empty();
    if shows_ours || none_yet && place.http.is_relay {
        Whose::Cluster
    } else if none_yet && place.https.certificate.is_none() {
        Whose::Unknown
    } else {
        Whose::Stranger
    }
}

/// What is wrong with where a name leads.
pub(super) fn of_domain(domain: &DomainSeen, seen: &Observed) -> Vec<Finding> {
    let at: BTreeSet<_> = seen.nodes.iter().filter_map(|node| node.reached_at).collect();
    let at: Vec<_> = at.iter().map(ToString::to_string).collect();
    if domain.places.is_empty() {
        let why = domain.dns_error.as_deref().unwrap_or("there is no address");
        let problem = format!("the DNS has no address for it: {why}");
        let remedy = format!(
            "set A or AAAA records to the public addresses of nodes (seen from here they are {})",
            at.join(", ")
        );
        return vec![finding("dns_missing", &domain.name, problem, remedy)];
    }
    let place = |place: &Place| of_place(&domain.name, place, seen);
    domain.places.iter().flat_map(place).collect()
}

fn of_place(name: &str, place: &Place, seen: &Observed) -> Vec<Finding> {
    let record = record(place.address);
    match whose(place, seen) {
        Whose::Node(_) | Whose::Cluster => of_ports(name, place, seen),
        Whose::Unknown => {
            let problem = format!("whether {record} leads to this cluster cannot be seen yet");
            let remedy = "see to it that it is a node's address, or that its ports 80 and 443 are \
                          forwarded to one; with a certificate this check can tell";
            vec![finding("dns_unknown", name, problem, remedy)]
        }
        Whose::Stranger => {
            let shows = match (&place.https.certificate, &place.https.error) {
                (Some(it), _) => format!("shows a certificate for {}", it.names.join(", ")),
                (None, Some(why)) => format!("does not answer at port {HTTPS_PORT}: {why}"),
                (None, None) => "shows no certificate".to_owned(),
            };
            let problem = format!("{record} leads to no node of this cluster: it {shows}");
            let remedy = "change or remove the record: agents and the authority take any of a name's \
                          addresses, IPv6 first; if it is forwarded to a node, forward TCP 80 and 443";
            vec![finding("dns_elsewhere", name, problem, remedy)]
        }
    }
}

fn record(address: IpAddr) -> String {
    let kind = if address.is_ipv4() { "A" } else { "AAAA" };
    format!("its {kind} record {address}")
}

/// Whether the authority, and who comes by the usual ports, gets to a node there.
fn of_ports(name: &str, place: &Place, seen: &Observed) -> Vec<Finding> {
    let all_tls = || seen.nodes.iter().filter_map(tls);
    let by = |kind: &str| {
        all_tls().filter_map(|tls| tls.acme.as_ref()).any(|acme| acme.challenge == kind)
    };
    let mut all = Vec::new();
    let none_yet = served(seen).next().is_none();
    let own =
        |it: &CertificateReport| served(seen).any(|served| served.fingerprint == it.fingerprint);
    let answers = match &place.https.certificate {
        Some(it) => own(it) || none_yet,
        None => place.https.accepts && none_yet,
    };
    let other_port = all_tls().map(|tls| tls.port).find(|port| *port != HTTPS_PORT);
    if !answers && (by(TLS_ALPN_01) || other_port.is_none()) {
        let why = place.https.error.as_deref().unwrap_or("something else answers there");
        let problem =
            format!("port {HTTPS_PORT} of {} does not lead to a node: {why}", place.address);
        let remedy = match other_port {
            None => format!("open TCP {HTTPS_PORT} to the node there"),
            Some(port) => format!(
                "the authority proves names at port {HTTPS_PORT} ({TLS_ALPN_01}) and TLS_PORT is \
                 {port}: forward {HTTPS_PORT} there to {port}, or set TLS_PORT={HTTPS_PORT}; or set \
                 ACME_CHALLENGE={HTTP_01} and see to port {HTTP_PORT}"
            ),
        };
        all.push(finding("port_443", name, problem, remedy));
    }
    let usual = all_tls().any(|tls| tls.http_port == Some(HTTP_PORT));
    if !place.http.is_relay && (by(HTTP_01) || usual) {
        let why = place.http.error.as_deref().unwrap_or("no answer");
        let problem =
            format!("port {HTTP_PORT} of {} does not lead to a node: {why}", place.address);
        let remedy = if usual {
            format!("open TCP {HTTP_PORT} to the node there")
        } else {
            format!(
                "the authority proves names at port {HTTP_PORT} ({HTTP_01}): set HTTP_PORT={HTTP_PORT}, \
                 or forward {HTTP_PORT} there to what HTTP_PORT is"
            )
        };
        all.push(finding("port_80", name, problem, remedy));
    }
    all
}
