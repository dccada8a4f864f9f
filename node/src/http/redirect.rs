//! What is answered on the port of plain HTTP when agents connect by TLS: where to go instead, and an
//! authority's challenges (PROTOCOL section 1).

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{Path, Request, State},
    http::{
        HeaderValue, StatusCode,
        header::{CONTENT_TYPE, HOST, LOCATION},
        uri::Authority,
    },
    middleware,
    response::{IntoResponse, Response},
    routing::get,
};
use tls::agents::Served;

use super::{ApiError, access_log};

/// When to come again while there is no certificate yet: an order takes some seconds.
const CERTIFICATE_PATIENCE: Duration = Duration::from_secs(10);

/// The port that `https://` means if it names none.
const HTTPS_PORT: u16 = 443;

#[derive(Clone)]
struct Redirect {
    served: Arc<Served>,
    tls_port: u16,
}

/// The paths of the port of plain HTTP: all of them send clients to `tls_port` of the host that they
/// asked for, but for the answers to challenges that `served` has. Until there is a certificate nobody is
/// sent where nobody is let in.
pub fn redirect_router(served: Arc<Served>, tls_port: u16) -> Router {
    Router::new()
        .route("/.well-known/acme-challenge/{token}", get(challenge))
        .fallback(redirect)
        .layer(middleware::from_fn(access_log::log))
        .with_state(Redirect { served, tls_port })
}

/// The answer to an HTTP-01 challenge (RFC 8555, section 8.3).
async fn challenge(State(state): State<Redirect>, Path(token): Path<String>) -> Response {
    match state.served.http_01(&token) {
        Some(answer) => ([(CONTENT_TYPE, "application/octet-stream")], answer).into_response(),
        None => ApiError::not_found().into_response(),
    }
}

async fn redirect(State(state): State<Redirect>, request: Request) -> Response {
    if state.served.chains().is_empty() {
        let message = "this node has no certificate yet: try again";
        return ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "no_certificate", message)
            .retry_after(CERTIFICATE_PATIENCE)
            .into_response();
    }
    let header = request.headers().get(HOST).and_then(|host| host.to_str().ok());
    let named = request.uri().authority().map(Authority::as_str).or(header);
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    let location = named.and_then(|named| location(named, state.tls_port, path));
    let Some(location) = location.and_then(|location| HeaderValue::try_from(location).ok()) else {
        let message =
            "use https: this port only sends clients there, and needs a host header for it";
        return ApiError::new(StatusCode::BAD_REQUEST, "invalid_request", message).into_response();
    };
    ApiError::new(StatusCode::MOVED_PERMANENTLY, "tls_required", "use https, or wss for agents")
        .header(LOCATION.as_str(), location)
        .into_response()
}

/// The same host and path by https; none if `named` is no host, with or without a port.
fn location(named: &str, tls_port: u16, path: &str) -> Option<String> {
    let authority: Authority = named.parse().ok()?;
    let host = authority.host();
    if host.is_empty() || authority.as_str().contains('@') {
        return None;
    }
    let path = if path.starts_with('/') { path } else { "/" };
    Some(match tls_port {
        HTTPS_PORT => format!("https://{host}{path}"),
        port => format!("https://{host}:{port}{path}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_and_the_path_stay() {
        let at = |named: &str, port| location(named, port, "/a?b=c%20d");
        assert_eq!(at("a.example", 443).unwrap(), "https://a.example/a?b=c%20d");
        assert_eq!(at("a.example:80", 443).unwrap(), "https://a.example/a?b=c%20d");
        assert_eq!(at("a.example:8080", 8443).unwrap(), "https://a.example:8443/a?b=c%20d");
        assert_eq!(at("[::1]:80", 8443).unwrap(), "https://[::1]:8443/a?b=c%20d");
        assert_eq!(location("a.example", 443, "*").unwrap(), "https://a.example/");
    }

    #[test]
    fn what_is_no_host_leads_nowhere() {
        for named in ["", ":80", "a b", "user@a.example", "a.example/x", "a\r\nx: y"] {
            assert_eq!(location(named, 443, "/"), None, "{named:?}");
        }
    }
}
