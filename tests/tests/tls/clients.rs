//! Clients that others wrote verify the chain: Python's `websockets`, Node's `ws`, and our own.

use std::process::Command;

use tests::{Relay, arc_relay, process, scripts};

use super::authority::Authority;

/// Runs one scenario of a client script against `relay`; how it ended.
async fn play(
    mut command: Command,
    script: &str,
    relay: &Relay,
    scenario: &str,
) -> process::Finished {
    let address = format!("localhost:{}", relay.public.port());
    command.arg(scripts::script(script)).args([&address, scenario]);
    process::run(command).await
}

#[tokio::test]
async fn python_verifies_the_chain() {
    let authority = Authority::new();
    let relay = authority.relay();
    for scenario in
        ["register_and_connect", "direct_and_broadcast", "fragments_binary_and_ping", "takeover"]
    {
        let Some(mut python) = scripts::python() else { return };
        python.env("ARC_CA", authority.ca());
        let finished = play(python, "tests/clients/client.py", &authority.relay(), scenario).await;
        assert_eq!(finished.expect_code(0).stdout.trim(), "ok");
    }
    let Some(mut python) = scripts::python() else { return };
    let other = Authority::new();
    python.env("ARC_CA", other.ca());
    let refused = play(python, "tests/clients/client.py", &relay, "register_and_connect").await;
    let refused = refused.expect_code(1);
    assert!(refused.stderr.contains("CERTIFICATE_VERIFY_FAILED"), "{refused:?}");
}

#[tokio::test]
async fn node_verifies_the_chain() {
    let authority = Authority::new();
    let relay = authority.relay();
    for scenario in
        ["register_and_connect", "direct_and_broadcast", "fragments_binary_and_ping", "order"]
    {
        let Some(mut node) = scripts::node() else { return };
        node.env("ARC_CA", authority.ca()).env("NODE_EXTRA_CA_CERTS", authority.ca());
        let finished = play(node, "tests/clients/client.js", &authority.relay(), scenario).await;
        assert_eq!(finished.expect_code(0).stdout.trim(), "ok");
    }
    let Some(mut node) = scripts::node() else { return };
    let other = Authority::new();
    node.env("ARC_CA", other.ca()).env("NODE_EXTRA_CA_CERTS", other.ca());
    let refused = play(node, "tests/clients/client.js", &relay, "register_and_connect").await;
    assert!(!refused.stderr.is_empty() && refused.code == Some(1), "{refused:?}");
}

/// The relay's own client, with these arguments.
async fn own(authority: Option<&Authority>, arguments: &[&str]) -> process::Finished {
    let mut command = Command::new(arc_relay());
    command.args(arguments).env_clear();
    if let Some(authority) = authority {
        command.env("ARC_CA", authority.ca());
    }
    process::run(command).await
}

#[tokio::test]
async fn our_own_client_trusts_whom_it_is_told_to() {
    let authority = Authority::new();
    let relay = authority.relay();
    let url = format!("wss://localhost:{}", relay.public.port());
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let token = folder.path().join("token").display().to_string();
    let register = ["agent", "register", "ann-1", "--relay", &url, "--save", &token];
    own(None, &register).await.expect_code(1);
    own(Some(&authority), &register).await.expect_code(0);
    let ca = authority.ca().display().to_string();
    let ping = ["agent", "ping", "--relay", &url, "--token-file", &token, "--ca", &ca];
    own(None, &ping).await.expect_code(0);
}

#[tokio::test]
async fn a_self_signed_certificate_is_trusted_by_its_file_and_survives_a_restart() {
    let settings = [("TLS_SELF_SIGNED", "true"), ("TLS_PORT", "0"), ("HTTP_PORT", "none")];
    let mut relay = Relay::with(&settings);
    let file = relay.data_dir().join("self-signed.crt");
    let before = std::fs::read(&file).expect("the relay keeps it");
    let Some(mut python) = scripts::python() else { return };
    python.env("ARC_CA", &file);
    let finished = play(python, "tests/clients/client.py", &relay, "register_and_connect").await;
    assert_eq!(finished.expect_code(0).stdout.trim(), "ok");
    relay.terminate();
    assert!(relay.wait_exit().success());
    relay.start_again();
    assert_eq!(std::fs::read(&file).expect("it is kept"), before);
    let url = format!("wss://localhost:{}", relay.public.port());
    let (ca, token) = (file.display().to_string(), relay.folder().join("token"));
    let token = token.display().to_string();
    own(None, &["agent", "register", "bob-1", "--relay", &url, "--ca", &ca, "--save", &token])
        .await
        .expect_code(0);
    assert!(relay.log.text().contains("NODE_EXTRA_CA_CERTS"), "it says how to trust it");
}
