//! Findings, case by case: a cluster in which all is well, with one thing wrong.

use std::net::{IpAddr, SocketAddr};

use cluster::UnixMillis;

use super::{
    domains::{Whose, whose},
    findings::{Finding, findings},
    observed::{DomainSeen, Door, Handshake, Mistrust, NodeSeen, Observed, Place},
    telling::told,
};
use crate::tls_report::{AcmeState, CertificateReport, NodeSays, NodeTls, TlsState};

const DAY: u64 = 24 * 3_600_000;
const NOW: u64 = 20_000 * DAY;
const NAME: &str = "relay.example";

fn ip(last: u8) -> IpAddr {
    [192, 0, 2, last].into()
}

fn certificate(fingerprint: &str) -> CertificateReport {
    CertificateReport {
        names: vec![NAME.into()],
        issuer: "CN=an authority".into(),
        not_before: UnixMillis(NOW - 30 * DAY),
        not_after: UnixMillis(NOW + 60 * DAY),
        fingerprint: fingerprint.repeat(32),
    }
}

fn shown(address: IpAddr, port: u16) -> Handshake {
    Handshake {
        address: SocketAddr::new(address, port),
        name: NAME.into(),
        accepts: true,
        certificate: Some(certificate("ab")),
        distrust: None,
        error: None,
    }
}

fn closed(address: IpAddr, port: u16) -> Handshake {
    let (certificate, error) = (None, Some("connection refused".into()));
    Handshake { accepts: false, certificate, error, ..shown(address, port) }
}

fn door(address: IpAddr, is_relay: bool) -> Door {
    let error = (!is_relay).then(|| "connection refused".into());
    Door { address: SocketAddr::new(address, 80), is_relay, error }
}

fn node(last: u8) -> NodeSeen {
    let acme = AcmeState {
        domains: vec![NAME.into()],
        directory: "https://ca.example/dir".into(),
        challenge: "tls-alpn-01".into(),
        ca_root: None,
        failures: 0,
        last_error: None,
        next_at: UnixMillis(NOW + 30 * DAY),
        ordering: false,
    };
    let tls = TlsState {
        source: "acme".into(),
        host: None,
        port: 443,
        http_port: Some(80),
        certificates: vec![certificate("ab")],
        problem: None,
        acme: Some(acme),
    };
    let says = NodeSays { clock: UnixMillis(NOW), behind_proxy: false, tls: Some(tls) };
    NodeSeen {
        told: NodeTls {
            id: format!("{last:016x}"),
            name: format!("node-{last}"),
            state: "alive".into(),
            address: Some(ip(last)),
            says: Some(says),
        },
        reached_at: Some(ip(last)),
        shown: vec![shown(ip(last), 443)],
        plain: Some(door(ip(last), true)),
    }
}

fn place(address: IpAddr) -> Place {
    let (https, http) = (shown(address, 443), door(address, true));
    Place { address, https, own_port: None, http }
}

/// Two nodes under one name, and all is well.
fn well() -> Observed {
    let domain =
        DomainSeen { name: NAME.into(), dns_error: None, places: vec![place(ip(1)), place(ip(2))] };
    Observed { at: NOW, asked: "1".into(), nodes: vec![node(1), node(2)], domains: vec![domain] }
}

fn says(seen: &mut Observed, node: usize) -> &mut NodeSays {
    seen.nodes[node].told.says.as_mut().expect("it says something")
}

fn tls(seen: &mut Observed, node: usize) -> &mut TlsState {
    says(seen, node).tls.as_mut().expect("it speaks TLS")
}

fn acme(seen: &mut Observed, node: usize) -> &mut AcmeState {
    tls(seen, node).acme.as_mut().expect("it is ACME's")
}

/// What is found when `spoil` has spoilt it.
fn found(spoil: impl FnOnce(&mut Observed)) -> Vec<Finding> {
    let mut seen = well();
    spoil(&mut seen);
    let findings = findings(&seen);
    let told = told(&seen, &findings);
    for finding in &findings {
        assert!(!finding.remedy.is_empty() && told.contains(&finding.problem), "{told}");
    }
    findings
}

fn codes(spoil: impl FnOnce(&mut Observed)) -> Vec<(String, &'static str)> {
    found(spoil).into_iter().map(|it| (it.about, it.code)).collect()
}

fn one(spoil: impl FnOnce(&mut Observed)) -> Finding {
    let mut found = found(spoil);
    assert_eq!(found.len(), 1, "{found:?}");
    found.remove(0)
}

#[track_caller]
fn only(about: &str, code: &str, spoil: impl FnOnce(&mut Observed)) {
    let found = codes(spoil);
    assert_eq!(found.iter().map(|(a, c)| (a.as_str(), *c)).collect::<Vec<_>>(), [(about, code)]);
}

#[test]
fn where_all_is_well_nothing_is_found() {
    let seen = well();
    assert_eq!(findings(&seen), []);
    let told = told(&seen, &[]);
    for part in [
        "relay.example leads to 192.0.2.1 (node-1), 192.0.2.2 (node-2)",
        "the next certificate is ordered in 30 days, from https://ca.example/dir, proven by tls-alpn-01",
        "192.0.2.2:443",
        "60 days",
        "all is well",
    ] {
        assert!(told.contains(part), "{part:?} in {told}");
    }
}

#[test]
fn nodes_that_say_nothing_or_speak_no_tls() {
    only("node-2", "silent", |seen| {
        seen.nodes[1].told.says = None;
        seen.domains[0].places.pop();
    });
    assert_eq!(codes(|seen| seen.nodes[1].told.state = "dead".into()), []);
    let no_tls = |behind_proxy| {
        move |seen: &mut Observed| {
            *says(seen, 1) = NodeSays { clock: UnixMillis(NOW), behind_proxy, tls: None };
        }
    };
    only("node-2", "no_tls", no_tls(false));
    assert_eq!(codes(no_tls(true)), []);
}

#[test]
fn clocks_that_are_off() {
    only("node-1", "clock", |seen| says(seen, 0).clock = UnixMillis(NOW + 61_000));
    let behind = one(|seen| says(seen, 0).clock = UnixMillis(NOW - 7_200_000));
    assert_eq!(behind.problem, "its clock is 2 h behind this machine's");
    assert_eq!(codes(|seen| says(seen, 0).clock = UnixMillis(NOW - 59_000)), []);
}

#[test]
fn certificates_that_are_out_of_their_time() {
    let with = |from: u64, end: u64| {
        move |seen: &mut Observed| {
            let it = &mut tls(seen, 0).certificates[0];
            (it.not_before, it.not_after) = (UnixMillis(from), UnixMillis(end));
        }
    };
    only("node-1", "expired", with(NOW - 90 * DAY, NOW));
    only("node-1", "not_yet", with(NOW + 1, NOW + DAY));
    only("node-1", "ends_soon", with(NOW - 80 * DAY, NOW + 10 * DAY));
    assert_eq!(codes(with(NOW - 4 * DAY, NOW + 2 * DAY)), [], "it is a short-lived one");
    assert_eq!(codes(with(NOW - 350 * DAY, NOW + 15 * DAY)), []);
}

#[test]
fn what_is_wrong_with_a_newer_certificate_and_for_which_names_it_is_not() {
    let refused = one(|seen| tls(seen, 0).problem = Some("the key is another's".into()));
    assert_eq!((refused.code, refused.about.as_str()), ("refused", "node-1"));
    assert!(refused.problem.ends_with("the key is another's"));
    let names = found(|seen| {
        acme(seen, 0).domains.push("b.example".into());
        acme(seen, 1).domains.push("b.example".into());
    });
    assert_eq!(names.len(), 2);
    assert_eq!(names[0].problem, "its certificate is not for b.example");
}

#[test]
fn ports_that_do_not_answer_or_show_something_else() {
    only("node-2", "port_closed", |seen| seen.nodes[1].shown = vec![closed(ip(2), 443)]);
    only("node-2", "http_closed", |seen| seen.nodes[1].plain = Some(door(ip(2), false)));
    assert_eq!(codes(|seen| seen.nodes[1].plain = None), []);
    only("node-2", "other_certificate", |seen| {
        seen.nodes[1].shown[0].certificate = Some(certificate("cd"));
    });
    only("node-2", "nowhere", |seen| {
        (seen.nodes[1].reached_at, seen.nodes[1].shown, seen.nodes[1].plain) =
            (None, Vec::new(), None);
    });
}

#[test]
fn what_clients_refuse_is_told_once_a_reason_with_what_to_do() {
    let distrusted = |why: Mistrust| {
        move |seen: &mut Observed| {
            let other = Handshake { name: "b.example".into(), ..shown(ip(1), 443) };
            seen.nodes[0].shown.push(other);
            for it in &mut seen.nodes[0].shown {
                it.distrust = Some(why.clone());
            }
        }
    };
    let untrusted = one(distrusted(Mistrust::UnknownIssuer));
    assert_eq!(untrusted.code, "untrusted");
    assert!(untrusted.problem.contains("relay.example, b.example"), "{untrusted:?}");
    only("node-1", "other_name", distrusted(Mistrust::OtherName));
    only("node-1", "untrusted", distrusted(Mistrust::Other("it is revoked".into())));
    assert_eq!(codes(distrusted(Mistrust::Time)), [], "of that the certificate itself is asked");
    let own = found(|seen| {
        distrusted(Mistrust::UnknownIssuer)(seen);
        tls(seen, 0).source = "self-signed".into();
    });
    assert!(own[0].remedy.contains("self-signed.crt"), "{own:?}");
}

#[test]
fn what_the_nodes_do_not_agree_on() {
    only("cluster", "settings", |seen| acme(seen, 1).directory = "https://other.example".into());
    let other = certificate("cd");
    only("cluster", "differ", |seen| {
        tls(seen, 1).certificates = vec![other.clone()];
        seen.nodes[1].shown[0].certificate = Some(other.clone());
    });
}

#[test]
fn orders_that_fail_or_are_not_made() {
    let failing = one(|seen| {
        acme(seen, 0).failures = 2;
        acme(seen, 0).last_error = Some("no such host".into());
        acme(seen, 0).next_at = UnixMillis(NOW + 540_000);
    });
    assert_eq!((failing.code, failing.about.as_str()), ("orders", "cluster"));
    assert!(failing.problem.contains("no such host; the next try is in 9 minutes"), "{failing:?}");
    let overdue = |since: u64| move |seen: &mut Observed| acme(seen, 0).next_at = UnixMillis(since);
    only("cluster", "overdue", overdue(NOW - 2 * 3_600_000));
    assert_eq!(codes(overdue(NOW - 60_000)), []);
    assert_eq!(
        codes(|seen| {
            overdue(NOW - 2 * 3_600_000)(seen);
            acme(seen, 1).ordering = true;
        }),
        []
    );
}

/// Nobody has a certificate yet.
fn without_any(seen: &mut Observed) {
    for number in 0..2 {
        tls(seen, number).certificates.clear();
        let refused =
            Handshake { certificate: None, error: Some("alert".into()), ..shown(ip(1), 443) };
        seen.nodes[number].shown = vec![refused.clone()];
        seen.domains[0].places[number].https = refused;
    }
}

#[test]
fn before_the_first_certificate_ports_are_no_findings_of_their_own() {
    let expected = ["node-1", "node-2"].map(|node| (node.to_owned(), "no_certificate"));
    assert_eq!(codes(without_any), expected);
    let closed_too = codes(|seen| {
        without_any(seen);
        seen.domains[0].places[0].https = closed(ip(1), 443);
    });
    assert_eq!(closed_too[2..], [(NAME.to_owned(), "port_443")]);
}

#[test]
fn names_that_lead_nowhere_or_elsewhere() {
    let nowhere = one(|seen| {
        seen.domains[0].places.clear();
        seen.domains[0].dns_error = Some("no such name".into());
    });
    assert_eq!(nowhere.code, "dns_missing");
    assert!(nowhere.remedy.contains("192.0.2.1, 192.0.2.2"), "{nowhere:?}");
    let v6: IpAddr = "2001:db8::9".parse().expect("an address");
    let elsewhere = |https: Handshake| {
        one(move |seen| seen.domains[0].places.push(Place { https, ..place(v6) }))
    };
    let silent = elsewhere(closed(v6, 443));
    assert_eq!(silent.code, "dns_elsewhere");
    assert!(silent.problem.starts_with("its AAAA record 2001:db8::9 leads to no node"));
    let other = certificate("cd");
    let stranger = elsewhere(Handshake { certificate: Some(other), ..shown(v6, 443) });
    assert!(stranger.problem.ends_with("it shows a certificate for relay.example"), "{stranger:?}");
}

#[test]
fn an_address_is_the_clusters_if_it_shows_its_certificate() {
    let seen = well();
    let forwarded = place(ip(77));
    assert_eq!(whose(&forwarded, &seen), Whose::Cluster);
    assert_eq!(codes(|seen| seen.domains[0].places = vec![place(ip(77))]), []);
    let at_own_port =
        Place { https: closed(ip(77), 443), own_port: Some(shown(ip(77), 8443)), ..place(ip(77)) };
    assert_eq!(whose(&at_own_port, &seen), Whose::Cluster);
    let mut none_yet = well();
    without_any(&mut none_yet);
    let silent = Place { https: closed(ip(77), 443), ..place(ip(77)) };
    assert_eq!(whose(&silent, &none_yet), Whose::Cluster, "its port of plain HTTP is a relay's");
    let unknown = Place { http: door(ip(77), false), ..silent };
    assert_eq!(whose(&unknown, &none_yet), Whose::Unknown);
    assert_eq!(whose(&unknown, &seen), Whose::Stranger);
}

#[test]
fn the_authority_needs_port_443_wherever_tls_port_is() {
    let at_8443 = |https: Handshake| {
        move |seen: &mut Observed| {
            for number in 0..2 {
                tls(seen, number).port = 8443;
            }
            seen.domains[0].places.truncate(1);
            let place = &mut seen.domains[0].places[0];
            (place.https, place.own_port) = (https, Some(shown(ip(1), 8443)));
        }
    };
    let hint = one(at_8443(closed(ip(1), 443)));
    assert_eq!(hint.code, "port_443");
    for part in
        ["tls-alpn-01", "forward 443 there to 8443", "TLS_PORT=443", "ACME_CHALLENGE=http-01"]
    {
        assert!(hint.remedy.contains(part), "{part} in {hint:?}");
    }
    assert_eq!(codes(at_8443(shown(ip(1), 443))), [], "it is forwarded");
    assert_eq!(
        codes(|seen| {
            at_8443(closed(ip(1), 443))(seen);
            acme(seen, 0).challenge = "http-01".into();
            acme(seen, 1).challenge = "http-01".into();
        }),
        [],
        "by http-01 it is not asked for"
    );
    only(NAME, "port_443", |seen| seen.domains[0].places[0].https = closed(ip(1), 443));
}

#[test]
fn the_authority_needs_port_80_for_http_01() {
    let closed = |challenge: &'static str, http_port: Option<u16>| {
        move |seen: &mut Observed| {
            for number in 0..2 {
                acme(seen, number).challenge = challenge.into();
                tls(seen, number).http_port = http_port;
            }
            seen.domains[0].places[1].http = door(ip(2), false);
        }
    };
    only(NAME, "port_80", closed("tls-alpn-01", Some(80)));
    assert_eq!(codes(closed("tls-alpn-01", None)), []);
    let forward = one(closed("http-01", Some(8080)));
    assert!(forward.remedy.contains("HTTP_PORT=80"), "{forward:?}");
}

#[test]
fn what_came_from_the_network_cannot_steer_the_terminal() {
    let mut seen = well();
    seen.nodes[0].told.name = "evil\u{1b}[2J".into();
    acme(&mut seen, 0).last_error = Some("\u{1b}]0;x".into());
    let findings = findings(&seen);
    assert!(!told(&seen, &findings).contains('\u{1b}'));
}
