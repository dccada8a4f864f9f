//! A relay of a few lines that does what its script says, one turn per connection.

#![allow(clippy::unwrap_used)] // test code: what cannot go on fails

use std::{net::SocketAddr, sync::Arc};

use futures_util::{SinkExt as _, StreamExt as _};
use parking_lot::Mutex;
use rustls::{ServerConfig, crypto::aws_lc_rs, pki_types::PrivatePkcs8KeyDer};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_rustls::TlsAcceptor;
use tokio_tungstenite::{
    accept_hdr_async,
    tungstenite::{
        Message,
        handshake::server::{ErrorResponse, Request, Response},
        protocol::CloseFrame,
    },
};

/// What one connection meets.
pub(super) enum Turn {
    /// An HTTP request, answered with this status line (and headers), and this body.
    Http(&'static str, &'static str),
    /// A session: welcome, these acts, then silence until the client leaves.
    Session(Vec<Act>),
    /// What ends the connection after a status line (and headers), and these bytes.
    Raw(&'static str, &'static str),
    /// A connection that is lost at once.
    Hangup,
    /// No answer at all.
    Nothing,
}

/// What happens in a session.
pub(super) enum Act {
    /// The relay sends a text.
    Say(&'static str),
    /// The relay pings and waits for the pong.
    Ping,
    /// The relay is pinged, and answers with what it does next.
    Pinged,
    /// The relay waits for a message and keeps it.
    Hear,
    /// The relay stands still.
    Hang,
    /// The relay closes.
    Close(u16, &'static str),
}

/// The running relay; ends with its owner.
pub(super) struct TestRelay {
    address: SocketAddr,
    record: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

impl TestRelay {
    /// Listens on a free port and plays `turns`, one after the other.
    #[allow(clippy::disallowed_methods)] // the task is held, and ends with this
    pub(super) async fn start(turns: Vec<Turn>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let record = Arc::default();
        let task = tokio::spawn(play(listener, turns, Arc::clone(&record)));
        Self { address, record, task }
    }

    /// `host:port`, which a client takes for a relay without TLS on this machine.
    pub(super) fn address(&self) -> String {
        self.address.to_string()
    }

    /// Authorization headers, HTTP requests, messages and close codes so far.
    pub(super) fn heard(&self) -> Vec<String> {
        self.record.lock().clone()
    }
}

/// A TLS end in front of a relay, with a certificate that no authority of the web has signed.
pub(super) struct TlsFront {
    /// The certificate, to be trusted by those who shall.
    pub(super) certificate_pem: String,
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl TlsFront {
    /// Passes what comes over TLS to the relay at `inner`.
    #[allow(clippy::disallowed_methods)] // the task is held, and ends with this
    pub(super) async fn start(inner: String) -> Self {
        let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
        let provider = Arc::new(aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key.into())
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                // Clients that do not trust the certificate leave here.
                let Ok(mut outside) = acceptor.accept(stream).await else { continue };
                let mut inside = TcpStream::connect(&inner).await.unwrap();
                let _ = copy_bidirectional(&mut outside, &mut inside).await;
            }
        });
        Self { certificate_pem: made.cert.pem(), address, task }
    }

    /// Where it listens.
    pub(super) fn url(&self) -> String {
        format!("wss://{}", self.address)
    }
}

impl Drop for TlsFront {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Drop for TestRelay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn play(listener: TcpListener, turns: Vec<Turn>, record: Arc<Mutex<Vec<String>>>) {
    for turn in turns {
        let (stream, _) = listener.accept().await.unwrap();
        match turn {
            Turn::Http(head, body) => http(stream, head, body, &record).await,
            Turn::Raw(head, bytes) => raw(stream, head, bytes).await,
            Turn::Hangup => drop(stream),
            Turn::Session(acts) => session(stream, acts, &record).await,
            Turn::Nothing => {
                // Held open until the client gives up.
                let mut stream = stream;
                while stream.read(&mut [0; 1024]).await.is_ok_and(|n| n > 0) {}
            }
        }
    }
}

/// Answers a request that has no body, and hangs up.
async fn raw(mut stream: TcpStream, head: &str, bytes: &str) {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        assert_ne!(stream.read_buf(&mut request).await.unwrap(), 0, "half a request");
    }
    let answer = format!("HTTP/1.1 {head}\r\n\r\n{bytes}");
    stream.write_all(answer.as_bytes()).await.unwrap();
}

/// Takes a request whose body, if any, ends with `}` or `]`, which JSON's do.
async fn http(mut stream: TcpStream, head: &str, body: &str, record: &Mutex<Vec<String>>) {
    let mut request = Vec::new();
    let is_whole = |request: &[u8]| {
        let text = String::from_utf8_lossy(request).to_lowercase();
        match text.split_once("\r\n\r\n") {
            Some((head, body)) => !head.contains("content-length") || body.ends_with(['}', ']']),
            None => false,
        }
    };
    while !is_whole(&request) {
        assert_ne!(stream.read_buf(&mut request).await.unwrap(), 0, "half a request");
    }
    record.lock().push(String::from_utf8(request).unwrap());
    let length = body.len();
    let answer = format!("HTTP/1.1 {head}\r\ncontent-length: {length}\r\n\r\n{body}");
    stream.write_all(answer.as_bytes()).await.unwrap();
}

async fn session(stream: TcpStream, acts: Vec<Act>, record: &Mutex<Vec<String>>) {
    #[allow(clippy::result_large_err)] // the signature is tungstenite's
    let note_token = |request: &Request, response: Response| -> Result<Response, ErrorResponse> {
        let authorization = request.headers().get("authorization").unwrap();
        assert!(request.uri().query().is_none(), "a token has no place in the query");
        record.lock().push(authorization.to_str().unwrap().to_owned());
        Ok(response)
    };
    let mut socket = accept_hdr_async(stream, note_token).await.unwrap();
    let welcome = r#"{"id":"msg_1","from":"relay","to":["me-myself"],"type":"welcome","payload":
        {"relay":"test","version":"1","node":"n1","limits":{"max_message_size":1000}},"ts":1}"#;
    socket.send(Message::text(welcome)).await.unwrap();
    for act in acts {
        match act {
            Act::Say(text) => socket.send(Message::text(text)).await.unwrap(),
            Act::Ping => {
                socket.send(Message::Ping("still there?".into())).await.unwrap();
                assert!(socket.next().await.unwrap().unwrap().is_pong());
            }
            Act::Pinged => assert!(socket.next().await.unwrap().unwrap().is_ping()),
            Act::Hang => std::future::pending().await,
            Act::Hear => {
                let text = socket.next().await.unwrap().unwrap().into_text().unwrap();
                record.lock().push(text.to_string());
            }
            Act::Close(code, reason) => {
                let frame = CloseFrame { code: code.into(), reason: reason.into() };
                socket.close(Some(frame)).await.unwrap();
            }
        }
    }
    while let Some(Ok(message)) = socket.next().await {
        if let Message::Close(frame) = message {
            record.lock().push(format!("close {}", frame.map_or(0, |f| u16::from(f.code))));
        }
    }
}
