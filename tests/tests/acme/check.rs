//! `arc-relay tls check`, asked of nodes whose certificate comes from a real authority.

use std::{net::Ipv4Addr, path::Path, process::Command};

use serde_json::Value;
use tests::{
    Relay, arc_relay,
    cluster::loopback_address,
    pebble::{Options, Pebble},
    process, skip,
};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

use super::nodes::{NAME, alone, has_certificate, three};

/// What is seen when the DNS leads to these addresses.
async fn check(relay: &Relay, root: &Path, addresses: &[Ipv4Addr]) -> Value {
    let mut command = Command::new(arc_relay());
    command.args(["tls", "check", "--json", "--ops", &format!("http://{}", relay.ops), "--ca"]);
    command.arg(root).env_clear();
    for address in addresses {
        command.arg("--resolve").arg(format!("{NAME}={address}"));
    }
    let finished = process::run(command).await;
    let report: Value = serde_json::from_str(&finished.stdout).expect("it is JSON");
    let ok = report["ok"].as_bool().expect("it says whether all is well");
    assert_eq!(finished.code, Some(i32::from(!ok)), "{finished:?}");
    report
}

/// About what, and what kind.
fn found(report: &Value) -> Vec<(&str, &str)> {
    let findings = report["findings"].as_array().expect("there is a list");
    let text = |it: &'_ Value, key: &str| it[key].as_str().map(str::to_owned);
    assert!(findings.iter().all(|it| text(it, "remedy").is_some_and(|it| !it.is_empty())));
    let of = |it| -> (&str, &str) {
        let it: &Value = it;
        (it["about"].as_str().unwrap_or_default(), it["code"].as_str().unwrap_or_default())
    };
    findings.iter().map(of).collect()
}

/// Forwards 443 of these addresses to `port`, as an operator may; none where the system does not let it.
async fn forward(addresses: &[Ipv4Addr], port: u16) -> Option<JoinSet<()>> {
    let mut forwarding = JoinSet::new();
    for address in addresses.iter().copied() {
        let listener = TcpListener::bind((address, 443)).await.ok()?;
        forwarding.spawn(async move {
            loop {
                let Ok((mut near, _)) = listener.accept().await else { continue };
                let Ok(mut far) = TcpStream::connect((address, port)).await else { continue };
                // The handshake is all that is wanted.
                let _ = copy_bidirectional(&mut near, &mut far).await;
            }
        });
    }
    Some(forwarding)
}

#[tokio::test]
async fn every_node_says_what_it_serves_and_is_looked_at() {
    let Some(mut pebble) = Pebble::start(Options::default()).await else { return };
    pebble.stop();
    let (mut cluster, addresses) = three(&pebble).await;
    pebble.name(NAME, addresses[0]).await;
    let first = check(&cluster.nodes[0], &pebble.ca_file(), &addresses).await;
    let about = found(&first);
    assert_eq!(about.iter().filter(|(_, code)| *code == "no_certificate").count(), 3, "{about:?}");
    pebble.begin().await;
    for node in &cluster.nodes {
        has_certificate(node).await;
    }
    let root = pebble.root_file().await;
    // That orders failed before is forgotten a moment after there is a certificate.
    tests::eventually("only port 443 is missing", || async {
        let report = check(&cluster.nodes[1], &root, &addresses).await;
        found(&report) == [(NAME, "port_443"); 3]
    })
    .await;
    let report = check(&cluster.nodes[1], &root, &addresses).await;
    let remedy = report["findings"][0]["remedy"].as_str().expect("it says what to do");
    assert!(remedy.contains(&format!("forward 443 there to {}", pebble.tls_port)), "{remedy}");
    let prints: Vec<_> = (0..3)
        .map(|n| report["nodes"][n]["says"]["tls"]["certificates"][0]["fingerprint"].as_str())
        .collect();
    assert!(prints[0].is_some() && prints.iter().all(|it| *it == prints[0]), "{report}");
    match forward(&addresses, pebble.tls_port).await {
        Some(_forwarding) => {
            let report = check(&cluster.nodes[2], &root, &addresses).await;
            assert_eq!(found(&report), [], "{report}");
        }
        None => skip("port 443 cannot be bound here: run as root"),
    }
    // One that hangs says nothing, and its port does not answer.
    cluster.nodes[2].signal(rustix::process::Signal::STOP);
    let report = check(&cluster.nodes[0], &root, &addresses[..1]).await;
    assert!(found(&report).contains(&("node-2", "silent")), "{report}");
    cluster.nodes[2].signal(rustix::process::Signal::CONT);
    cluster.nodes.clear();
}

#[tokio::test]
async fn an_order_that_fails_and_a_name_that_leads_elsewhere_are_found() {
    let Some(pebble) = Pebble::start(Options::default()).await else { return };
    let (address, elsewhere) = (loopback_address(), loopback_address());
    pebble.name(NAME, elsewhere).await;
    let relay = alone(&pebble, NAME, address, &[]);
    let failing = || async {
        let report = check(&relay, &pebble.ca_file(), &[address]).await;
        found(&report).contains(&("cluster", "orders"))
    };
    tests::eventually("the failure is found", failing).await;
    pebble.name(NAME, address).await;
    relay.signal(rustix::process::Signal::HUP);
    has_certificate(&relay).await;
    let root = pebble.root_file().await;
    let report = check(&relay, &root, &[elsewhere]).await;
    assert!(found(&report).contains(&(NAME, "dns_elsewhere")), "{report}");
}
