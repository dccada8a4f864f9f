//! What was seen and what is wrong with it, as text for people.

use std::fmt::Write as _;

use super::{
    domains::{Whose, whose},
    findings::{Finding, is_there},
    observed::{DomainSeen, NodeSeen, Observed},
};
use crate::agent::{
    paint::Paint,
    status::time,
    table::{Column, table},
    text::{counted, escaped},
};

/// Digits of a fingerprint that are shown: two certificates are told apart by fewer.
const FINGERPRINT_DIGITS: usize = 16;

const COLUMNS: [Column; 7] = [
    Column::left("NODE"),
    Column::left("AT"),
    Column::left("FROM"),
    Column::left("FOR"),
    Column::left("ISSUED BY"),
    Column::right("GOOD FOR"),
    Column::left("SHA-256"),
];

/// All of it: the nodes, the names, the next order, and what to do.
pub(super) fn told(seen: &Observed, findings: &[Finding]) -> String {
    let mut text =
        table(&COLUMNS, seen.nodes.iter().flat_map(|node| rows(node, seen.at)), Paint::Plain);
    text.push('\n');
    for domain in &seen.domains {
        let _ = writeln!(text, "{}", domain_line(domain, seen));
    }
    if let Some(line) = order_line(seen) {
        let _ = writeln!(text, "{line}\n");
    }
    if findings.is_empty() {
        text.push_str("all is well");
        return text;
    }
    let _ = write!(text, "{}:", counted(findings.len() as u64, "finding"));
    for Finding { about, problem, remedy, .. } in findings {
        let (about, problem, remedy) = (escaped(about), escaped(problem), escaped(remedy));
        // Writing into a `String` cannot fail.
        let _ = write!(text, "\n\n{about}: {problem}\n  -> {remedy}");
    }
    text
}

/// A line for each certificate of a node; one that says why there is none.
fn rows(node: &NodeSeen, at: u64) -> Vec<[String; 7]> {
    let name = escaped(&node.told.name);
    let without = |why: &str| {
        let dash = || "-".to_owned();
        vec![[name.clone(), dash(), why.to_owned(), dash(), dash(), dash(), dash()]]
    };
    if !is_there(node) {
        return without(&node.told.state);
    }
    let Some(says) = &node.told.says else { return without("not told") };
    let Some(tls) = &says.tls else {
        return without(if says.behind_proxy { "a proxy" } else { "no TLS" });
    };
    let door = node.reached_at.map(|ip| std::net::SocketAddr::new(ip, tls.port));
    let door = door.map_or_else(|| format!("port {}", tls.port), |door| door.to_string());
    if tls.certificates.is_empty() {
        let [first, _, _, rest @ ..] = without("").remove(0);
        let [names, issuer, good, fingerprint] = rest;
        return vec![[first, door, escaped(&tls.source), names, issuer, good, fingerprint]];
    }
    let row = |it: &crate::tls_report::CertificateReport| {
        let good = match it.not_after.0.checked_sub(at) {
            Some(left) => time(left / 1_000),
            None => "EXPIRED".to_owned(),
        };
        let short = it.fingerprint.get(..FINGERPRINT_DIGITS).unwrap_or(&it.fingerprint);
        [
            name.clone(),
            door.clone(),
            escaped(&tls.source),
            escaped(&it.names.join(",")),
            escaped(&it.issuer),
            good,
            escaped(short),
        ]
    };
    tls.certificates.iter().map(row).collect()
}

fn domain_line(domain: &DomainSeen, seen: &Observed) -> String {
    let name = escaped(&domain.name);
    if domain.places.is_empty() {
        return format!("{name} leads nowhere");
    }
    let places = domain.places.iter().map(|place| {
        let whose = match whose(place, seen) {
            Whose::Node(node) => escaped(&node),
            Whose::Cluster => "this cluster".to_owned(),
            Whose::Unknown => "not known whose".to_owned(),
            Whose::Stranger => "NOT this cluster".to_owned(),
        };
        format!("{} ({whose})", place.address)
    });
    format!("{name} leads to {}", places.collect::<Vec<_>>().join(", "))
}

/// When the next certificate is ordered, and from whom.
fn order_line(seen: &Observed) -> Option<String> {
    let says = seen.nodes.iter().filter_map(|node| node.told.says.as_ref());
    let mut acme = says.filter_map(|says| says.tls.as_ref()?.acme.as_ref());
    let first = acme.clone().next()?;
    let when = match first.next_at.0.checked_sub(seen.at) {
        _ if acme.any(|it| it.ordering) => "is being ordered".to_owned(),
        Some(wait) if wait > 0 => format!("is ordered in {}", time(wait / 1_000)),
        _ => "is due to be ordered".to_owned(),
    };
    let (from, how) = (escaped(&first.directory), escaped(&first.challenge));
    Some(format!("the next certificate {when}, from {from}, proven by {how}"))
}
