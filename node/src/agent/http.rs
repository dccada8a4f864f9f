//! HTTP/1.1 over one connection: one request, one answer, bounded; or an upgrade to WebSocket.
//!
//! The upgrade is done here rather than by tungstenite because tungstenite writes the whole request,
//! token included, to the log at trace level, and drops most of a refusal's body.

use std::{pin::pin, time::Duration};

use bytes::Bytes;
use futures_util::future::{Either, select};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{
    Method, Request, Response, StatusCode,
    body::Incoming,
    client::conn::http1,
    header::{self, HeaderMap, HeaderValue},
    http::response::Parts,
    upgrade::Upgraded,
};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio_tungstenite::tungstenite::handshake::{client::generate_key, derive_accept_key};

use super::{
    connect::{Connector, Stream, within},
    failure::Failure,
};

/// More than any answer of a relay's HTTP interface has, also in a cluster of a thousand nodes.
const BODY_BYTES_MAX: usize = 1024 * 1024;

/// What to ask for.
#[derive(Clone, Default)]
pub(super) struct Call<'a> {
    /// `GET`, unless said otherwise.
    pub(super) method: Method,
    /// Absolute path.
    pub(super) path: &'a str,
    /// The `Authorization` header, if any.
    pub(super) authorization: Option<HeaderValue>,
    /// Names this attempt, so that it can be made again until its outcome is known.
    pub(super) idempotency_key: Option<HeaderValue>,
    /// JSON, if any.
    pub(super) body: Option<String>,
}

/// Makes the call on a connection of its own and reads the answer's JSON; any status but success is
/// [`Failure::Refused`].
pub(super) async fn call<T: DeserializeOwned>(
    connector: &Connector,
    limit: Duration,
    call: Call<'_>,
) -> Result<T, Failure> {
    let (parts, body) = whole_answer(connector, limit, call).await?;
    if !parts.status.is_success() {
        return Err(Failure::refused(parts.status, retry_after(&parts.headers), &body));
    }
    serde_json::from_slice(&body).map_err(|e| Failure::NotRelay(e.to_string()))
}

/// Makes the call on a connection of its own and reads the answer, whatever its status.
pub(super) async fn answer(
    connector: &Connector,
    limit: Duration,
    call: Call<'_>,
) -> Result<(StatusCode, Bytes), Failure> {
    let (parts, body) = whole_answer(connector, limit, call).await?;
    Ok((parts.status, body))
}

/// Makes the call on a connection of its own; what time it is there, in Unix milliseconds, whatever the
/// answer's status. None if it does not say (RFC 9110, section 6.6.1).
pub(super) async fn clock(
    connector: &Connector,
    limit: Duration,
    call: Call<'_>,
) -> Result<Option<u64>, Failure> {
    let (parts, _) = whole_answer(connector, limit, call).await?;
    let date = parts.headers.get(header::DATE).and_then(|date| date.to_str().ok());
    let date = date.and_then(|date| httpdate::parse_http_date(date).ok());
    Ok(date.map(|date| cluster::UnixMillis::from(date).0))
}

async fn whole_answer(
    connector: &Connector,
    limit: Duration,
    call: Call<'_>,
) -> Result<(Parts, Bytes), Failure> {
    let answered = async {
        let request = request(connector, call)?;
        exchange(connector.dial().await?, request, |response| async {
            let (parts, body) = response.into_parts();
            Ok((parts, collected(body).await?))
        })
        .await
    };
    within(limit, "answer from the relay", answered).await
}

/// Makes the call and hands the answer's body to `take`, piece by piece; none may take longer than
/// `limit` to come. An answer that ends early is a failure.
pub(super) async fn download(
    connector: &Connector,
    limit: Duration,
    call: Call<'_>,
    mut take: impl FnMut(&[u8]) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let request = request(connector, call)?;
    let stream = within(limit, "connection to the relay", connector.dial()).await?;
    exchange(stream, request, |response| async move {
        let (parts, mut body) = response.into_parts();
        if !parts.status.is_success() {
            let body = within(limit, "answer from the relay", collected(body)).await?;
            return Err(Failure::refused(parts.status, retry_after(&parts.headers), &body));
        }
        let mut next = async || {
            let frame = async { body.frame().await.transpose().map_err(Failure::from) };
            within(limit, "more of the answer", frame).await
        };
        while let Some(frame) = next().await? {
            if let Some(bytes) = frame.data_ref() {
                take(bytes)?;
            }
        }
        Ok(())
    })
    .await
}

/// Upgrades a fresh connection to WebSocket (RFC 6455 section 4.1).
pub(super) async fn upgrade(
    connector: &Connector,
    path: &str,
    authorization: HeaderValue,
) -> Result<Upgraded, Failure> {
    let key = generate_key();
    let accept = derive_accept_key(key.as_bytes());
    let call = Call { path, authorization: Some(authorization), ..Call::default() };
    let mut request = request(connector, call)?;
    let headers = request.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
    headers.insert(header::SEC_WEBSOCKET_KEY, header_value(&key)?);
    exchange(connector.dial().await?, request, |response| async move {
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            let (parts, body) = response.into_parts();
            if parts.status.is_success() {
                return Err(Failure::NotRelay("HTTP rather than WebSocket".into()));
            }
            let body = collected(body).await?;
            return Err(Failure::refused(parts.status, retry_after(&parts.headers), &body));
        }
        let answered = response.headers().get(header::SEC_WEBSOCKET_ACCEPT);
        if answered.is_none_or(|answered| answered.as_bytes() != accept.as_bytes()) {
            return Err(Failure::NotRelay("a WebSocket answer to another question".into()));
        }
        Ok(hyper::upgrade::on(response).await?)
    })
    .await
}

/// Sends the request and lets `finish` read the answer while the connection is kept moving.
async fn exchange<T, F>(
    stream: Stream,
    request: Request<Full<Bytes>>,
    finish: impl FnOnce(Response<Incoming>) -> F,
) -> Result<T, Failure>
where
    F: Future<Output = Result<T, Failure>>,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let answered = pin!(async move { finish(sender.send_request(request).await?).await });
    match select(answered, pin!(connection.with_upgrades())).await {
        Either::Left((outcome, _)) => outcome,
        // The connection has handed over all it had; what it had may still be unread.
        Either::Right((_, answered)) => answered.await,
    }
}

fn request(connector: &Connector, call: Call<'_>) -> Result<Request<Full<Bytes>>, Failure> {
    let json = call.body.is_some();
    let mut request = Request::new(Full::from(call.body.unwrap_or_default()));
    *request.method_mut() = call.method;
    *request.uri_mut() = call.path.parse().map_err(|_| Failure::NotRelay("its path".into()))?;
    let headers = request.headers_mut();
    headers.insert(header::HOST, header_value(&connector.endpoint().to_string())?);
    let agent = concat!("arc-relay/", env!("CARGO_PKG_VERSION"));
    headers.insert(header::USER_AGENT, HeaderValue::from_static(agent));
    if json {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }
    if let Some(key) = call.idempotency_key {
        headers.insert("idempotency-key", key);
    }
    if let Some(authorization) = call.authorization {
        headers.insert(header::AUTHORIZATION, authorization);
    }
    Ok(request)
}

async fn collected(body: Incoming) -> Result<Bytes, Failure> {
    match Limited::new(body, BODY_BYTES_MAX).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(e) => Err(Failure::NotRelay(e.to_string())),
    }
}

/// The header in its seconds form; relays send no dates.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

fn header_value(text: &str) -> Result<HeaderValue, Failure> {
    HeaderValue::from_str(text).map_err(|_| Failure::NotRelay("its address".into()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a test that cannot go on fails
mod tests {
    use super::*;

    #[test]
    fn only_whole_seconds_are_a_retry_after() {
        let read = |text: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static(text));
            retry_after(&headers)
        };
        assert_eq!(read("3"), Some(Duration::from_secs(3)));
        assert_eq!(read("-1"), None);
        assert_eq!(read("Wed, 21 Oct 2015 07:28:00 GMT"), None);
        assert_eq!(retry_after(&HeaderMap::new()), None);
    }
}
