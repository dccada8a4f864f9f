//! What a simulated agent says over TCP: it registers, and opens a WebSocket session.

use std::{io, time::Duration};

use futures_util::{
    StreamExt,
    stream::{SplitSink, SplitStream},
};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{self, Message, client::IntoClientRequest, http::HeaderValue},
};
use turmoil::net::TcpStream;

/// The port on which nodes take agents.
pub(super) const PORT: u16 = 8080;

/// The half of a session that an agent writes to.
pub(super) type Writes = SplitSink<WebSocketStream<TcpStream>, Message>;

/// The half that it reads from.
pub(super) type Reads = SplitStream<WebSocketStream<TcpStream>>;

/// Why there is no session.
#[derive(Debug)]
pub(super) enum Refusal {
    /// The node wants it to come back later.
    Later(Duration),
    /// Nobody is there, or the connection broke.
    Gone,
    /// An answer that no agent in good standing gets.
    Wrong(String),
}

/// The name of a node's host.
pub(super) fn host_name(node: usize) -> String {
    format!("node-{node}")
}

/// Registers a name; its token.
pub(super) async fn register(node: usize, agent: &str) -> Result<String, Refusal> {
    let (status, body) = post(node, agent).await.map_err(|_| Refusal::Gone)?;
    let token = body.get("token").and_then(Value::as_str).map(str::to_owned);
    match (status, token) {
        (200, Some(token)) => Ok(token),
        (429 | 503, _) => Err(Refusal::Later(Duration::from_secs(1))),
        _ => {
            Err(Refusal::Wrong(format!("{agent} is answered {status} {body} to its registration")))
        }
    }
}

async fn post(node: usize, agent: &str) -> io::Result<(u16, Value)> {
    let mut stream = TcpStream::connect((host_name(node), PORT)).await?;
    let body = serde_json::json!({ "agent_id": agent }).to_string();
    let head = format!(
        "POST /register HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        host_name(node),
        body.len()
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    read_answer(&answer).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// The status and the JSON of an HTTP answer.
fn read_answer(answer: &[u8]) -> Option<(u16, Value)> {
    let text = std::str::from_utf8(answer).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some((status, serde_json::from_str(body).ok()?))
}

/// Opens a session.
pub(super) async fn connect(node: usize, token: &str) -> Result<(Writes, Reads), Refusal> {
    let stream = TcpStream::connect((host_name(node), PORT)).await.map_err(|_| Refusal::Gone)?;
    let wrong = |what: &dyn std::fmt::Display| Refusal::Wrong(what.to_string());
    let url = format!("ws://{}/arc", host_name(node));
    let mut request = url.into_client_request().map_err(|error| wrong(&error))?;
    let bearer = HeaderValue::from_str(&format!("Bearer {token}")).map_err(|e| wrong(&e))?;
    request.headers_mut().insert("authorization", bearer);
    match client_async(request, stream).await {
        Ok((socket, _)) => Ok(socket.split()),
        Err(tungstenite::Error::Http(answer)) if answer.status() == 503 => {
            let after = answer.headers().get("retry-after").and_then(|v| v.to_str().ok());
            let seconds = after.and_then(|text| text.parse().ok()).unwrap_or(1);
            Err(Refusal::Later(Duration::from_secs(seconds)))
        }
        Err(tungstenite::Error::Http(answer)) => Err(wrong(&answer.status())),
        Err(_) => Err(Refusal::Gone),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_its_status_and_its_body() {
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 15\r\n\r\n{\"token\":\"tok\"}";
        let (status, body) = read_answer(answer).expect("it is one");
        assert_eq!((status, body["token"].as_str()), (200, Some("tok")));
        assert!(read_answer(b"HTTP/1.1 200 OK\r\n").is_none());
    }
}
