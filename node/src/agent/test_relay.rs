//! A relay of a few lines that does what its script says, one turn per connection.

#![allow(clippy::unwrap_used)] // test code: what cannot go on fails

use std::{net::SocketAddr, sync::Arc};

use futures_util::{SinkExt as _, StreamExt as _};
use parking_lot::Mutex;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
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
    /// An HTTP request, answered with this text.
    Http(&'static str),
    /// A session: welcome, these acts, then silence until the client leaves.
    Session(Vec<Act>),
    /// No answer at all.
    Nothing,
}

/// What happens in a session.
pub(super) enum Act {
    /// The relay sends a text.
    Say(&'static str),
    /// The relay waits for a message and keeps it.
    Hear,
    /// The relay closes.
    Close(u16, &'static str),
}

/// The running relay; ends with its owner.
pub(super) struct TestRelay {
    address: SocketAddr,
    heard: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

impl TestRelay {
    /// Listens on a free port and plays `turns`, one after the other.
    pub(super) async fn start(turns: Vec<Turn>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let heard = Arc::default();
        let task = tokio::spawn(play(listener, turns, Arc::clone(&heard)));
        Self { address, heard, task }
    }

    /// `host:port`, which a client takes for a relay without TLS on this machine.
    pub(super) fn address(&self) -> String {
        self.address.to_string()
    }

    /// Authorization headers, HTTP requests, messages and close codes so far.
    pub(super) fn heard(&self) -> Vec<String> {
        self.heard.lock().clone()
    }
}

impl Drop for TestRelay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn play(listener: TcpListener, turns: Vec<Turn>, heard: Arc<Mutex<Vec<String>>>) {
    for turn in turns {
        let (stream, _) = listener.accept().await.unwrap();
        match turn {
            Turn::Http(answer) => http(stream, answer, &heard).await,
            Turn::Session(acts) => session(stream, acts, &heard).await,
            Turn::Nothing => {
                // Held open until the client gives up.
                let mut stream = stream;
                while stream.read(&mut [0; 1024]).await.is_ok_and(|n| n > 0) {}
            }
        }
    }
}

/// Takes a request whose body, if any, ends with `}`, which JSON's do.
async fn http(mut stream: TcpStream, answer: &str, heard: &Mutex<Vec<String>>) {
    let mut request = Vec::new();
    let is_whole = |request: &[u8]| {
        let text = String::from_utf8_lossy(request).to_lowercase();
        match text.split_once("\r\n\r\n") {
            Some((head, body)) => !head.contains("content-length") || body.ends_with('}'),
            None => false,
        }
    };
    while !is_whole(&request) {
        assert_ne!(stream.read_buf(&mut request).await.unwrap(), 0, "half a request");
    }
    heard.lock().push(String::from_utf8(request).unwrap());
    stream.write_all(answer.as_bytes()).await.unwrap();
}

async fn session(stream: TcpStream, acts: Vec<Act>, heard: &Mutex<Vec<String>>) {
    #[allow(clippy::result_large_err)] // the signature is tungstenite's
    let note_token = |request: &Request, response: Response| -> Result<Response, ErrorResponse> {
        let authorization = request.headers().get("authorization").unwrap();
        assert!(request.uri().query().is_none(), "a token has no place in the query");
        heard.lock().push(authorization.to_str().unwrap().to_owned());
        Ok(response)
    };
    let mut socket = accept_hdr_async(stream, note_token).await.unwrap();
    let welcome = r#"{"id":"msg_1","from":"relay","to":["me-myself"],"type":"welcome","payload":
        {"relay":"test","version":"1","node":"n1","limits":{"max_message_size":1000}},"ts":1}"#;
    socket.send(Message::text(welcome)).await.unwrap();
    for act in acts {
        match act {
            Act::Say(text) => socket.send(Message::text(text)).await.unwrap(),
            Act::Hear => {
                let text = socket.next().await.unwrap().unwrap().into_text().unwrap();
                heard.lock().push(text.to_string());
            }
            Act::Close(code, reason) => {
                let frame = CloseFrame { code: code.into(), reason: reason.into() };
                socket.close(Some(frame)).await.unwrap();
            }
        }
    }
    while let Some(Ok(message)) = socket.next().await {
        if let Message::Close(frame) = message {
            heard.lock().push(format!("close {}", frame.map_or(0, |f| u16::from(f.code))));
        }
    }
}
