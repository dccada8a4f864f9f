//! A small HTTP client: one connection, one request, one answer.

use std::net::SocketAddr;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{HeaderMap, StatusCode, http::request::Builder};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

use crate::within;

/// An answer, read to its end.
#[derive(Debug, Clone)]
pub struct Response {
    /// The request that it answers, for failure messages.
    pub request: String,
    /// Its status code.
    pub status: u16,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
}

/// The start of a request; names of headers in lower case.
pub fn request(method: &str, path: &str) -> Builder {
    hyper::Request::builder().method(method).uri(path)
}

/// The start of a WebSocket handshake, complete but for the token (RFC 6455 section 4.1).
pub fn upgrade(path: &str) -> Builder {
    request("GET", path)
        .header("connection", "Upgrade")
        .header("upgrade", "websocket")
        .header("sec-websocket-version", "13")
        .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
}

/// GETs `path`.
pub async fn get(to: SocketAddr, path: &str) -> Response {
    send(to, request("GET", path), "").await
}

/// POSTs `body` to `path` as JSON.
pub async fn post(to: SocketAddr, path: &str, body: impl Into<Bytes>) -> Response {
    send(to, request("POST", path).header("content-type", "application/json"), body).await
}

/// Sends `request` with `body` and reads the whole answer; after a 101 only its head.
pub async fn send(to: SocketAddr, request: Builder, body: impl Into<Bytes>) -> Response {
    let request = request
        .header("host", to.to_string())
        .body(Full::new(body.into()))
        .expect("a test's request is well-formed");
    let line = format!("{} {}", request.method(), request.uri());
    within(&line.clone(), exchange(to, request, line)).await
}

async fn exchange(to: SocketAddr, request: hyper::Request<Full<Bytes>>, line: String) -> Response {
    let stream = TcpStream::connect(to).await.unwrap_or_else(|e| panic!("{line}: {e}"));
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .unwrap_or_else(|e| panic!("{line}: {e}"));
    let driver = tokio::spawn(connection);
    let answer = sender.send_request(request).await.unwrap_or_else(|e| panic!("{line}: {e}"));
    let (head, body) = answer.into_parts();
    let body = if head.status == StatusCode::SWITCHING_PROTOCOLS {
        Bytes::new()
    } else {
        body.collect().await.unwrap_or_else(|e| panic!("{line}: {e}")).to_bytes()
    };
    driver.abort();
    Response { request: line, status: head.status.as_u16(), headers: head.headers, body }
}

impl Response {
    /// This answer, which must have that status.
    pub fn expect_status(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}: {}", self.request, self.text());
        self
    }

    /// This answer, which must be an error as PROTOCOL section 1 shapes it, and have that status
    /// and code.
    pub fn expect_error(self, status: u16, code: &str) -> Self {
        assert_eq!(self.status, status, "{}: {}", self.request, self.text());
        let content_type = self.header("content-type").unwrap_or_default();
        assert!(content_type.starts_with("application/json"), "{}: {content_type}", self.request);
        let body = self.json();
        assert_eq!(body["error"], code, "{}: {body}", self.request);
        let text = body["message"].as_str().unwrap_or_default();
        assert!(!text.is_empty(), "{}: an error says what to do: {body}", self.request);
        self
    }

    /// This answer, which must say after how many seconds to try again.
    pub fn expect_retry_after(self) -> Self {
        let seconds = self.header("retry-after").and_then(|text| text.parse::<u64>().ok());
        assert!(seconds.is_some_and(|s| s > 0), "{}: {:?}", self.request, self.headers);
        self
    }

    /// A header's value, if it is there and text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|e| panic!("{}: {e} in {:?}", self.request, self.text()))
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}
