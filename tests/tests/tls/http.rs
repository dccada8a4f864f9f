//! HTTP beside the sessions: the way to https, what is said over it, and what operators see.

use std::process::Command;

use serde_json::json;
use tests::{Relay, arc_relay, http, process, within};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::{agent::Trusting, authority::Authority};

/// The answer to one request over TLS, head and all.
async fn over_tls(trusting: &Trusting, relay: &Relay, request: &str) -> String {
    let mut stream = trusting.dial(relay.public).await.expect("the relay speaks TLS");
    stream.write_all(request.as_bytes()).await.expect("the connection is open");
    let mut answer = String::new();
    let _ = within("the answer", stream.read_to_string(&mut answer)).await;
    answer
}

#[tokio::test]
async fn plain_http_is_sent_to_https() {
    let authority = Authority::new();
    let relay = authority.relay();
    let port = relay.public.port();
    let plain = relay.plain();
    let answer = http::get(plain, "/register?x=%20y").await.expect_error(301, "tls_required");
    let location = answer.header("location").expect("it leads somewhere");
    assert_eq!(location, format!("https://127.0.0.1:{port}/register?x=%20y"));
    let answer = http::post(plain, "/register", "{}").await.expect_status(301);
    assert!(answer.header("location").is_some());
    assert!(answer.header("strict-transport-security").is_none(), "RFC 6797 section 7.2");
    http::get(plain, "/.well-known/acme-challenge/unknown").await.expect_error(404, "not_found");

    let mut stream = TcpStream::connect(plain).await.expect("it listens");
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").await.expect("it is open");
    let mut answer = String::new();
    within("the answer", stream.read_to_string(&mut answer)).await.expect("it is text");
    assert!(answer.starts_with("HTTP/1.0 400"), "without a host there is nowhere to go: {answer}");
}

#[tokio::test]
async fn the_encrypted_port_tells_who_speaks_plain_http() {
    let relay = Authority::new().relay();
    http::get(relay.public, "/health").await.expect_error(400, "tls_required");
    http::post(relay.public, "/register", "{}").await.expect_error(400, "tls_required");
    let metrics = relay.metrics().await;
    let reason = [("reason", "not_tls")];
    assert_eq!(metrics.count("arc_tls_handshake_failures_total", &reason), 2);
}

#[tokio::test]
async fn https_answers_as_http_did_and_asks_browsers_to_stay() {
    let authority = Authority::new();
    let (relay, trusting) = (authority.relay(), Trusting::of(&authority));
    let request = "GET /health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    let answer = over_tls(&trusting, &relay, request).await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains(r#"{"status":"ok""#), "{answer}");
    assert!(answer.contains("strict-transport-security: max-age=31536000\r\n"), "{answer}");
    assert!(!answer.contains("expires"), "details are for operators: {answer}");
    let not_found = over_tls(&trusting, &relay, &request.replace("/health", "/nothing")).await;
    assert!(not_found.contains("strict-transport-security"), "{not_found}");
}

#[tokio::test]
async fn operators_see_whose_certificate_it_is_and_how_long_it_is_good() {
    let authority = Authority::new();
    let relay = authority.relay();
    let health = http::get(relay.ops, "/health").await.expect_status(200).json();
    assert_eq!(health["status"], "ok");
    assert_eq!(health["tls"]["source"], "files");
    assert_eq!(health["tls"]["names"], json!(["localhost", "127.0.0.1", "localhost"]));
    assert_eq!(health["tls"]["problem"], json!(null));
    let left = health["tls"]["expires_in"].as_u64().expect("a number of seconds");
    let metrics = relay.metrics().await;
    assert!(left.abs_diff(metrics.count("arc_tls_certificate_expires_seconds", &[])) < 60);
    let mut status = Command::new(arc_relay());
    status.args(["status", "--ops", &format!("http://{}", relay.ops)]).env_clear();
    let told = process::run(status).await.expect_code(0).stdout;
    assert!(told.contains("TLS: files, for localhost") && told.contains("good for"), "{told}");
}

#[tokio::test]
async fn a_node_without_a_good_certificate_does_not_start_and_says_why() {
    let authority = Authority::new();
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let refused = async |settings: &[(&str, &std::path::Path)]| {
        let mut command = Relay::command(folder.path());
        command.env("TLS_PORT", "0").env("HTTP_PORT", "none").envs(settings.iter().copied());
        process::run(command).await
    };
    let (cert, key) = (authority.cert(), authority.key());
    let half = refused(&[("TLS_CERT", &cert)]).await.expect_code(2);
    assert!(half.stderr.contains("TLS_KEY") && half.stderr.contains("must be set too"), "{half:?}");
    let missing = folder.path().join("missing");
    let gone = refused(&[("TLS_CERT", &missing), ("TLS_KEY", &key)]).await.expect_code(1);
    assert!(
        gone.stderr.contains("cannot read TLS_CERT") && gone.stderr.contains("missing"),
        "{gone:?}"
    );
    let other = Authority::new();
    let mixed = refused(&[("TLS_CERT", &cert), ("TLS_KEY", &other.key())]).await.expect_code(1);
    assert!(mixed.stderr.contains("the key is not that of the certificate"), "{mixed:?}");
    authority.issue("old.example", 2021);
    let expired = refused(&[("TLS_CERT", &cert), ("TLS_KEY", &key)]).await.expect_code(1);
    assert!(expired.stderr.contains("the certificate expired"), "{expired:?}");
}
