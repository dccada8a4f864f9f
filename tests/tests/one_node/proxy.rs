//! A proxy in front that says by the PROXY protocol for whom it connects.

use std::net::SocketAddr;

use tests::{Relay, eventually, within};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

const TRUSTED: (&str, &str) = ("TRUSTED_PROXIES", "127.0.0.0/8");
const PROTOCOL: (&str, &str) = ("PROXY_PROTOCOL", "true");
const ONE_A_MINUTE: (&str, &str) = ("REGISTRATION_LIMIT_PER_MIN", "1");

/// Registers over a connection that begins with these bytes; the answer, empty if the relay hung up.
async fn register(to: SocketAddr, header: &[u8]) -> String {
    let exchange = async {
        let mut stream = TcpStream::connect(to).await.expect("it listens");
        let request = "POST /register HTTP/1.1\r\nhost: relay\r\nconnection: close\r\n\
                       x-forwarded-for: 203.0.113.9\r\ncontent-length: 0\r\n\r\n";
        stream.write_all(&[header, request.as_bytes()].concat()).await.expect("it reads");
        let mut answer = Vec::new();
        // A connection that is refused may be reset under what was written.
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8_lossy(&answer).into_owned()
    };
    within("an answer", exchange).await
}

fn line(client: &str) -> Vec<u8> {
    format!("PROXY TCP4 {client} 198.51.100.1 40000 443\r\n").into_bytes()
}

fn binary(client: [u8; 4]) -> Vec<u8> {
    let ends = [client.as_slice(), &[198, 51, 100, 1], &[0x9c, 0x40, 1, 187]].concat();
    [b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c".as_slice(), &ends].concat()
}

#[tokio::test]
async fn each_client_behind_the_proxy_has_limits_of_its_own() {
    let relay = Relay::with(&[TRUSTED, PROTOCOL, ONE_A_MINUTE]);
    assert!(register(relay.public, &line("192.0.2.1")).await.starts_with("HTTP/1.1 200"));
    assert!(register(relay.public, &binary([192, 0, 2, 2])).await.starts_with("HTTP/1.1 200"));
    // The same clients again, whichever version the proxy speaks, and whatever they say they are.
    assert!(register(relay.public, &binary([192, 0, 2, 1])).await.starts_with("HTTP/1.1 429"));
    assert!(register(relay.public, &line("192.0.2.2")).await.starts_with("HTTP/1.1 429"));
}

#[tokio::test]
async fn a_proxy_may_ask_for_itself() {
    let relay = Relay::with(&[TRUSTED, PROTOCOL]);
    let own = b"\r\n\r\n\0\r\nQUIT\n\x20\x00\x00\x00";
    assert!(register(relay.public, own).await.starts_with("HTTP/1.1 200"));
    assert!(register(relay.public, b"PROXY UNKNOWN\r\n").await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn a_proxy_without_a_header_is_refused_and_the_operator_told() {
    let relay = Relay::with(&[TRUSTED, PROTOCOL]);
    for header in [b"".as_slice(), b"PROXY TCP4 nobody nowhere 1 2\r\n"] {
        assert_eq!(register(relay.public, header).await, "");
    }
    let told = || relay.log.text().matches("PROXY_PROTOCOL=false").count();
    eventually("the operator is told", || async { told() > 0 }).await;
    assert_eq!(told(), 1, "once a minute");
}

#[tokio::test]
async fn nobody_else_is_believed() {
    let relay = Relay::with(&[("TRUSTED_PROXIES", "192.0.2.200"), PROTOCOL]);
    assert!(register(relay.public, &line("192.0.2.1")).await.starts_with("HTTP/1.1 400"));
    assert!(register(relay.public, b"").await.starts_with("HTTP/1.1 200"));
}
