//! `arc-relay tls check`, asked of nodes with files, with a certificate of their own, and without any.

use std::{path::Path, process::Command};

use serde_json::Value;
use tests::{
    Relay, arc_relay,
    process::{self, Finished},
};
use tokio::net::TcpListener;

use super::authority::Authority;

async fn check(relay: &Relay, more: &[&str]) -> Finished {
    let mut command = Command::new(arc_relay());
    command.args(["tls", "check", "--ops", &format!("http://{}", relay.ops)]).args(more);
    command.env_clear();
    process::run(command).await
}

/// What kinds of findings there are.
async fn codes(relay: &Relay, ca: Option<&Path>) -> Vec<String> {
    let ca = ca.map(|ca| ca.display().to_string());
    let more: Vec<&str> = ca.iter().flat_map(|ca| ["--ca", ca]).chain(["--json"]).collect();
    let finished = check(relay, &more).await;
    let report: Value = serde_json::from_str(&finished.stdout).expect("it is JSON");
    let findings = report["findings"].as_array().expect("there is a list");
    assert_eq!(report["ok"], findings.is_empty());
    assert_eq!(finished.code, Some(i32::from(!findings.is_empty())));
    findings.iter().map(|it| it["code"].as_str().expect("a word").to_owned()).collect()
}

#[tokio::test]
async fn files_of_an_authority_that_is_trusted_are_well_and_of_others_not() {
    let authority = Authority::new();
    let relay = authority.relay();
    let ca = authority.ca().display().to_string();
    let told = check(&relay, &["--ca", &ca]).await.expect_code(0).stdout;
    for part in ["files", "localhost,127.0.0.1", "CN=authority", "all is well"] {
        assert!(told.contains(part), "{part:?} in {told}");
    }
    let told = check(&relay, &[]).await.expect_code(1).stdout;
    assert!(told.contains("1 finding:") && told.contains("--ca FILE"), "{told}");
    assert_eq!(codes(&relay, None).await, ["untrusted"]);
}

#[tokio::test]
async fn a_certificate_of_the_nodes_own_is_well_for_who_has_it() {
    let settings = [("TLS_SELF_SIGNED", "true"), ("TLS_PORT", "0"), ("HTTP_PORT", "none")];
    let relay = Relay::with(&settings);
    let told = check(&relay, &[]).await.expect_code(1).stdout;
    assert!(told.contains("copy self-signed.crt"), "{told}");
    let own = relay.data_dir().join("self-signed.crt");
    assert_eq!(codes(&relay, Some(&own)).await, [""; 0]);
}

#[tokio::test]
async fn a_new_pair_that_is_refused_is_found() {
    let authority = Authority::new();
    let relay = authority.relay();
    authority.replace(&authority.key(), &Authority::new().make("localhost", 2100).1);
    relay.signal(rustix::process::Signal::HUP);
    let refused = || async { codes(&relay, Some(&authority.ca())).await == ["refused"] };
    tests::eventually("it is found", refused).await;
}

#[tokio::test]
async fn without_tls_it_is_said_how_to_have_it_unless_a_proxy_has_it() {
    let told = check(&Relay::start(), &[]).await.expect_code(1).stdout;
    assert!(told.contains("set ACME_DOMAINS and ACME_EMAIL"), "{told}");
    let behind = [("BEHIND_PROXY", "true"), ("TRUSTED_PROXIES", "127.0.0.1")];
    let told = check(&Relay::with(&behind), &[]).await.expect_code(0).stdout;
    assert!(told.contains("a proxy"), "{told}");
}

#[tokio::test]
async fn a_relay_does_not_start_with_an_authoritys_root_that_is_of_no_use() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    std::fs::write(folder.path().join("empty.pem"), "").expect("the folder can be written");
    for (root, says) in [("missing.pem", "No such file"), ("empty.pem", "no PEM certificate")] {
        let mut command = Relay::command(folder.path());
        command.envs([("ACME_DOMAINS", "relay.test"), ("ACME_EMAIL", "ops@example.org")]);
        command.envs([("ACME_CA_ROOT", root), ("TLS_PORT", "0"), ("HTTP_PORT", "none")]);
        let refused = process::run(command).await.expect_code(1);
        let expected = format!("ACME_CA_ROOT cannot be used ({root}): ");
        let told = refused.stderr.contains(&expected) && refused.stderr.contains(says);
        assert!(told, "{refused:?}");
    }
}

#[tokio::test]
async fn what_cannot_be_checked_is_no_finding() {
    let mut relay = Relay::start();
    check(&relay, &["--resolve", "nonsense"]).await.expect_code(2);
    let gone = check(&relay, &["--ca", "/no/such/file"]).await.expect_code(2);
    assert!(gone.stderr.contains("/no/such/file"), "{gone:?}");
    relay.kill9();
    let refused = check(&relay, &[]).await.expect_code(2);
    assert!(refused.stderr.starts_with("error: cannot reach"), "{refused:?}");
    // Somebody else's port.
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port is free");
    relay.ops = listener.local_addr().expect("it is bound");
    check(&relay, &["--timeout", "300ms"]).await.expect_code(2);
}
