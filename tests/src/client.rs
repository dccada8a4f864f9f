//! An agent as the tests play it: tokio-tungstenite, and the bare socket under it for what no
//! decent client would send.

use std::fmt;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::{io::AsyncWriteExt, net::TcpStream};
use tokio_tungstenite::{
    WebSocketStream, client_async_with_config,
    tungstenite::{Error, Message, protocol::WebSocketConfig},
};

use crate::{Relay, http, within};

/// One connected agent.
pub struct Client {
    /// Its id, as the relay's welcome names it.
    pub id: String,
    /// The token that it came with.
    pub token: String,
    /// The first message that it got.
    pub welcome: Value,
    socket: WebSocketStream<TcpStream>,
}

/// How a session was ended from the relay's side.
pub struct Closed {
    /// The close code; none if the connection ended without a close frame.
    pub code: Option<u16>,
    /// The close frame's reason text.
    pub reason: String,
    /// The messages that came before.
    pub before: Vec<Value>,
}

impl fmt::Debug for Closed {
    /// With the last message only: there may be thousands.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { code, reason, before } = self;
        let last = before.last().map(|message| message.to_string().chars().take(300).collect());
        let last: String = last.unwrap_or_default();
        write!(f, "code {code:?}, reason {reason:?}, {} messages before, last {last}", before.len())
    }
}

impl Client {
    /// Connects with `token` in the header and takes the welcome.
    pub async fn connect(relay: &Relay, token: &str) -> Self {
        let request = http::upgrade("/arc").header("authorization", format!("Bearer {token}"));
        Self::connect_by(relay, request, token).await
    }

    /// Connects by a request that is complete but for its `Host`, and takes the welcome.
    pub async fn connect_by(
        relay: &Relay,
        request: hyper::http::request::Builder,
        token: &str,
    ) -> Self {
        let mut socket = Self::open(relay, request).await;
        let first = within("the welcome", socket.next()).await;
        let Some(Ok(Message::Text(text))) = first else {
            panic!("the first frame is the welcome, not {first:?}");
        };
        let welcome: Value = serde_json::from_str(&text).expect("the welcome is JSON");
        assert_eq!(welcome["type"], "welcome", "{welcome}");
        let id = welcome["to"][0].as_str().expect("the welcome names the agent").to_owned();
        Self { id, token: token.to_owned(), welcome, socket }
    }

    async fn open(
        relay: &Relay,
        request: hyper::http::request::Builder,
    ) -> WebSocketStream<TcpStream> {
        let request = request.header("host", relay.public.to_string());
        // The scheme is tungstenite's wish; only path and query go over the wire.
        let mut request = request.body(()).expect("a test's request is well-formed");
        let uri = format!("ws://{}{}", relay.public, request.uri());
        *request.uri_mut() = uri.parse().expect("an address and a path make a URI");
        let stream = TcpStream::connect(relay.public).await.expect("the relay accepts connections");
        stream.set_nodelay(true).expect("the socket is open");
        let config = WebSocketConfig::default().max_message_size(None).max_frame_size(None);
        let handshake = client_async_with_config(request, stream, Some(config));
        match within("the handshake", handshake).await {
            Ok((socket, _)) => socket,
            Err(Error::Http(answer)) => panic!("the handshake was refused: {answer:?}"),
            Err(error) => panic!("the handshake failed: {error}"),
        }
    }

    /// Sends a message.
    pub async fn send(&mut self, message: Value) {
        self.send_text(&message.to_string()).await;
    }

    /// Sends a text frame with exactly these bytes.
    pub async fn send_text(&mut self, text: &str) {
        let sent = within("room to send", self.socket.send(Message::text(text))).await;
        sent.unwrap_or_else(|e| panic!("{} cannot send: {e}", self.id));
    }

    /// Sends a binary frame.
    pub async fn send_binary(&mut self, bytes: &[u8]) {
        let message = Message::binary(bytes.to_vec());
        let sent = within("room to send", self.socket.send(message)).await;
        sent.unwrap_or_else(|e| panic!("{} cannot send: {e}", self.id));
    }

    /// Writes bytes below the WebSocket: frames that no decent client would send. The relay may
    /// have hung up already; whether it had a right to, the next read tells.
    pub async fn write_raw(&mut self, bytes: &[u8]) {
        let _ = within("room to write", self.socket.get_mut().write_all(bytes)).await;
    }

    /// Closes the sending half of the connection, without a goodbye.
    pub async fn end_writing(&mut self) {
        let ended = within("the end of writing", self.socket.get_mut().shutdown()).await;
        ended.expect("the socket is open");
    }

    /// The next message as JSON.
    pub async fn next(&mut self) -> Value {
        let text = self.next_text().await;
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e} in {text}"))
    }

    /// The next message as its bytes; pings are answered and passed over.
    pub async fn next_text(&mut self) -> String {
        loop {
            match within("a message", self.socket.next()).await {
                Some(Ok(Message::Text(text))) => return text.to_string(),
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                other => panic!("{} waits for a message and gets {other:?}", self.id),
            }
        }
    }

    /// The next frame of any kind, pings included.
    pub async fn next_frame(&mut self) -> Option<Result<Message, Error>> {
        within("a frame", self.socket.next()).await
    }

    /// The next message, which must be an error of the relay with that code; returns its payload.
    pub async fn expect_error(&mut self, code: &str) -> Value {
        let message = self.next().await;
        assert_eq!(message["type"], "error", "{} waits for {code}: {message}", self.id);
        assert_eq!(message["payload"]["code"], code, "{message}");
        assert_eq!(message["from"], "relay", "{message}");
        assert_eq!(message["to"], json!([self.id]), "{message}");
        let text = message["payload"]["message"].as_str().unwrap_or_default();
        assert!(!text.is_empty(), "an error says what to do: {message}");
        message["payload"].clone()
    }

    /// Reads until the relay ends the session.
    pub async fn read_to_close(&mut self) -> Closed {
        let mut closed = Closed { code: None, reason: String::new(), before: Vec::new() };
        loop {
            match within("the end of the session", self.socket.next()).await {
                Some(Ok(Message::Close(frame))) => {
                    if let Some(frame) = frame {
                        closed.code = Some(frame.code.into());
                        closed.reason = frame.reason.to_string();
                    }
                }
                Some(Ok(Message::Text(text))) => {
                    closed.before.push(serde_json::from_str(&text).expect("messages are JSON"));
                }
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return closed,
            }
        }
    }

    /// Reads until the relay ends the session, which must be with that code.
    pub async fn expect_close(&mut self, code: u16) -> Closed {
        let closed = self.read_to_close().await;
        assert_eq!(closed.code, Some(code), "{}: {closed:?}", self.id);
        closed
    }

    /// Sends a ping command and waits for its pong: whatever this session sent before has been
    /// dealt with then, and nothing else may have come back.
    pub async fn fence(&mut self) {
        self.send(json!({"to": ["relay"], "type": "ping", "ref": "fence"})).await;
        let answer = self.next().await;
        assert_eq!(answer["type"], "pong", "{} expected silence: {answer}", self.id);
        assert_eq!(answer["ref"], "fence", "{answer}");
    }

    /// Sends one message straight to `recipient` and takes it there. As order is kept, nothing
    /// that this session sent before can reach the recipient any more: it expected silence.
    pub async fn fence_to(&mut self, recipient: &mut Self) {
        self.send(json!({"to": [recipient.id], "type": "fence", "payload": null})).await;
        let message = recipient.next().await;
        assert_eq!(message["type"], "fence", "{} expected silence: {message}", recipient.id);
        assert_eq!(message["from"], self.id.as_str(), "{message}");
    }

    /// Closes with 1000, and waits until the relay has answered and hung up.
    pub async fn leave(mut self) {
        let _ = self.socket.close(None).await;
        let _ = self.read_to_close().await;
    }

    /// Lets the connection end in a reset instead of an orderly goodbye.
    pub fn reset(self) {
        self.socket.get_ref().set_zero_linger().expect("the socket is open");
    }
}
