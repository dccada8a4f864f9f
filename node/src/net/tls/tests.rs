//! Encrypted connections over pipes of a few bytes, with tokio-rustls as the client.
#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

use std::{future::poll_fn, time::Duration};

use rcgen::{CertificateParams, KeyPair};
use rustls::{
    ClientConfig, RootCertStore, SupportedProtocolVersion,
    crypto::aws_lc_rs,
    version::{TLS12, TLS13},
};
use tls::agents::{Chain, Served, server_config};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex},
    sync::Semaphore,
    time::timeout,
};
use tokio_rustls::{TlsConnector, client};

use super::*;

/// What took this long will never end.
const HANGS: Duration = Duration::from_secs(20);

type Client = client::TlsStream<DuplexStream>;

/// What a node serves for the name `relay`, and what a client must trust for it.
fn served() -> (Acceptor, RootCertStore) {
    let key = KeyPair::generate().unwrap();
    let own = CertificateParams::new(["relay".to_owned()]).unwrap().self_signed(&key).unwrap();
    let served = Arc::new(Served::default());
    let chain = Chain::from_pem(own.pem().as_bytes(), key.serialize_pem().as_bytes()).unwrap();
    served.set_chains(vec![chain]);
    let mut roots = RootCertStore::empty();
    roots.add(own.der().clone()).unwrap();
    (Acceptor::new(server_config(served).unwrap(), 1), roots)
}

fn client(roots: RootCertStore, version: &'static SupportedProtocolVersion) -> TlsConnector {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    Arc::new(config).into()
}

/// The handshake of whatever comes on `io`.
async fn accept(acceptor: &Acceptor, io: DuplexStream) -> Result<TlsStream, HandshakeError> {
    let permit = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
    let begun = acceptor.places.begin(Some(permit)).unwrap();
    acceptor.accept(Connection::of(io), begun, HANGS).await.map(|(stream, _)| stream)
}

/// Both ends of a connection by a pipe that takes so many bytes.
async fn connected(room: usize, version: &'static SupportedProtocolVersion) -> (Client, TlsStream) {
    let (acceptor, roots) = served();
    let (theirs, ours) = duplex(room);
    let connector = client(roots, version);
    let both = async {
        tokio::join!(
            connector.connect("relay".try_into().unwrap(), theirs),
            accept(&acceptor, ours)
        )
    };
    let (client, stream) = timeout(HANGS, both).await.expect("a handshake ends");
    (client.unwrap(), stream.unwrap())
}

/// Bytes that tell their place.
fn bytes(len: usize) -> Vec<u8> {
    (0..len).map(|n| u8::try_from(n % 251).unwrap()).collect()
}

async fn expect(stream: &mut (impl AsyncRead + Unpin), expected: &[u8]) {
    let mut got = vec![0; expected.len()];
    stream.read_exact(&mut got).await.unwrap();
    assert!(got == expected);
}

#[tokio::test]
async fn content_comes_through_pipes_of_any_size() {
    for (room, len) in [(16, 40_000), (1_000, 100_000), (1 << 14, 300_000), (1 << 20, 2_000_000)] {
        for version in [&TLS13, &TLS12] {
            let (mut client, mut stream) = connected(room, version).await;
            let content = bytes(len);
            let there = async {
                let send = async {
                    client.write_all(&content).await.unwrap();
                    client.flush().await.unwrap();
                };
                tokio::join!(send, expect(&mut stream, &content))
            };
            timeout(HANGS, there).await.expect("it arrives");
            let back = async {
                let send = async {
                    stream.write_all(&content).await.unwrap();
                    stream.flush().await.unwrap();
                };
                tokio::join!(send, expect(&mut client, &content))
            };
            timeout(HANGS, back).await.expect("it arrives");
            assert!(stream.is_idle(), "an idle connection holds no buffer");
        }
    }
}

#[tokio::test]
async fn small_reads_get_all_of_a_large_record() {
    let (mut client, mut stream) = connected(1 << 16, &TLS13).await;
    let content = bytes(16_000);
    client.write_all(&content).await.unwrap();
    client.flush().await.unwrap();
    for part in content.chunks(100) {
        timeout(HANGS, expect(&mut stream, part)).await.expect("it is there");
    }
    assert!(stream.is_idle());
}

#[tokio::test]
async fn halves_write_as_much_as_the_pipe_takes_and_go_on_when_it_takes_more() {
    let (client, stream) = connected(4_096, &TLS13).await;
    let (mut reads, writes) = Box::new(stream).split();
    let content = bytes(500_000);
    let session = async {
        let (mut rest, mut blocked) = (content.as_slice(), 0);
        while !rest.is_empty() {
            let (one, other) = rest.split_at(rest.len() / 2);
            match writes.try_write_vectored(&[IoSlice::new(one), IoSlice::new(other)]) {
                Ok(written) => rest = &rest[written..],
                Err(error) => {
                    assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
                    blocked += 1;
                    // The session's task waits for both.
                    let mut buf = [0; 1];
                    tokio::select! {
                        room = poll_fn(|cx| writes.poll_write_ready(cx)) => room.unwrap(),
                        read = reads.read(&mut buf) => panic!("nothing was sent: {read:?}"),
                    }
                }
            }
        }
        // What is encrypted and not sent goes on while the session reads.
        let _ = reads.read(&mut [0; 1]).await;
        blocked
    };
    let both = async { tokio::join!(session, expect_and_leave(client, &content)) };
    let (blocked, ()) = timeout(HANGS, both).await.expect("it is written on");
    assert!(blocked > 0);
}

async fn expect_and_leave(mut client: Client, content: &[u8]) {
    expect(&mut client, content).await;
}

#[tokio::test]
async fn what_waits_is_sent_while_the_session_only_reads() {
    let (mut client, stream) = connected(2_048, &TLS13).await;
    let (mut reads, writes) = Box::new(stream).split();
    let content = bytes(30_000);
    assert_eq!(writes.try_write_vectored(&[IoSlice::new(&content)]).unwrap(), content.len());
    let mut buf = [0; 1];
    tokio::select! {
        biased;
        read = reads.read(&mut buf) => panic!("nothing was sent: {read:?}"),
        arrived = timeout(HANGS, expect(&mut client, &content)) => arrived.unwrap(),
    }
}

#[tokio::test]
async fn a_goodbye_is_told_from_a_break() {
    let (mut client, mut stream) = connected(1 << 14, &TLS13).await;
    client.write_all(b"last").await.unwrap();
    client.shutdown().await.unwrap();
    let mut all = Vec::new();
    stream.read_to_end(&mut all).await.unwrap();
    assert_eq!(all, b"last");
    stream.write_all(b"and mine").await.unwrap();
    stream.shutdown().await.unwrap();
    all.clear();
    client.read_to_end(&mut all).await.unwrap();
    assert_eq!(all, b"and mine", "the client heard a goodbye, or it would be an error");

    let (mut client, mut stream) = connected(1 << 14, &TLS13).await;
    client.write_all(b"broken").await.unwrap();
    client.flush().await.unwrap();
    let read = stream.read(&mut []).await.unwrap();
    assert_eq!(read, 0, "what it had to send is sent");
    drop(client.into_inner().0);
    expect(&mut stream, b"broken").await;
    let error = stream.read(&mut [0; 1]).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
}

#[tokio::test]
async fn keys_are_changed_when_the_client_asks() {
    let (mut client, mut stream) = connected(1 << 14, &TLS13).await;
    for round in 0..5 {
        client.get_mut().1.refresh_traffic_keys().unwrap();
        client.write_all(&[round]).await.unwrap();
        client.flush().await.unwrap();
        expect(&mut stream, &[round]).await;
        stream.write_all(&[round]).await.unwrap();
        expect(&mut client, &[round]).await;
    }
    assert!(stream.is_idle());
}

/// How a handshake ends that begins with `bytes`, and what the client hears.
async fn opened_with(bytes: &[u8]) -> (String, Vec<u8>) {
    let (acceptor, _) = served();
    let (mut theirs, ours) = duplex(1 << 20);
    theirs.write_all(bytes).await.unwrap();
    let (mut theirs, mut write) = tokio::io::split(&mut theirs);
    let mut heard = Vec::new();
    let both = async {
        // The error may hold the connection.
        let accept =
            async { format!("{:?}", accept(&acceptor, ours).await.expect_err("no handshake")) };
        let listen = async {
            write.flush().await.unwrap();
            let _ = theirs.read_to_end(&mut heard).await;
        };
        tokio::join!(accept, listen).0
    };
    let error = timeout(HANGS, both).await.expect("it ends at once");
    (error, heard)
}

/// An alert's record, of the level "fatal".
const FATAL: &[u8] = &[21, 3, 3, 0, 2, 2];

#[tokio::test]
async fn garbage_is_refused_with_what_tls_has_for_it() {
    let (error, heard) = opened_with(b"\x16garbage that is no record").await;
    assert!(error.starts_with("Failed(InvalidMessage"), "{error}");
    assert!(heard.starts_with(FATAL), "{heard:?}");
    let (error, heard) = opened_with(b"SSH-2.0-x\r\n").await;
    assert_eq!(error, "NotTls");
    assert!(heard.is_empty());
    let (error, _) = opened_with(b"GET / HTTP/1.1\r\n").await;
    assert!(error.starts_with("PlainHttp"), "{error}");
    let (error, _) = opened_with(b"\0\x01\x02").await;
    assert_eq!(error, "NotTls");
}

#[tokio::test]
async fn a_hello_without_end_is_refused_when_it_is_longer_than_a_record() {
    // A message of 60,000 bytes over records of 16,000.
    let mut hello = vec![1, 0, 0xea, 0x60];
    hello.resize(60_000, 7);
    let record = |part: &[u8]| {
        let len = u16::try_from(part.len()).unwrap().to_be_bytes();
        [&[HANDSHAKE_RECORD, 3, 1], &len[..], part].concat()
    };
    let records: Vec<u8> = hello.chunks(16_000).flat_map(record).collect();
    let (error, _) = opened_with(&records).await;
    assert_eq!(error, "Failed(InvalidMessage(HandshakePayloadTooLarge))");
}

/// The type of a handshake's record.
const HANDSHAKE_RECORD: u8 = 22;

#[tokio::test]
async fn who_says_nothing_is_not_waited_for_for_ever() {
    let (acceptor, _) = served();
    let (_theirs, ours) = duplex(1);
    let permit = Arc::new(Semaphore::new(1)).try_acquire_owned().ok();
    let begun = acceptor.places.begin(permit).unwrap();
    let soon = Duration::from_millis(10);
    let error = acceptor.accept(Connection::of(ours), begun, soon).await.unwrap_err();
    assert!(matches!(error, HandshakeError::TimedOut), "{error}");
}

#[tokio::test]
async fn the_oldest_handshake_makes_room() {
    let (acceptor, roots) = served();
    let semaphore = Arc::new(Semaphore::new(1));
    let begin = || acceptor.places.begin(Arc::clone(&semaphore).try_acquire_owned().ok()).unwrap();
    let (_half, ours) = duplex(1);
    let oldest = acceptor.accept(Connection::of(ours), begin(), HANGS);
    let (theirs, ours) = duplex(1 << 14);
    let newest = acceptor.accept(Connection::of(ours), begin(), HANGS);
    let connector = client(roots, &TLS13);
    let connect = connector.connect("relay".try_into().unwrap(), theirs);
    let (oldest, newest, connected) = tokio::join!(oldest, newest, connect);
    assert!(matches!(oldest, Err(HandshakeError::Overtaken)));
    assert!(newest.is_ok() && connected.is_ok());
}
