//! What agents reach: the public listener (PROTOCOL section 1).

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{Request, State},
    http::{HeaderValue, StatusCode, header::STRICT_TRANSPORT_SECURITY},
    middleware::{self, Next},
    response::{Html, IntoResponse, Response},
    routing::{any, get, post},
};
use serde_json::{Value, json};

use super::{ApiError, access_log, cors, landing, register::register, upgrade::upgrade};
use crate::{
    relay::{Phase, Relay},
    report,
};

/// For a year, for this host alone.
const HSTS: HeaderValue = HeaderValue::from_static("max-age=31536000");

/// The public listener's paths.
pub fn public_router(relay: Arc<Relay>) -> Router {
    Router::new()
        .route("/", get(landing_page))
        .route("/arc", any(upgrade))
        .route("/register", post(register))
        .route("/health", get(health))
        .fallback(|| async { ApiError::not_found() })
        .method_not_allowed_fallback(|| async { ApiError::method_not_allowed() })
        .layer(middleware::from_fn_with_state(Arc::clone(&relay), cors::cors))
        .layer(middleware::from_fn_with_state(Arc::clone(&relay), say_https_only))
        .layer(middleware::from_fn(access_log::log))
        .with_state(relay)
}

/// `GET /health` (PROTOCOL section 9).
async fn health(State(relay): State<Arc<Relay>>) -> Response {
    let (status, body) = health_of(&relay);
    (status, Json(body)).into_response()
}

/// Whether the node is up, and what it says of that.
pub(super) fn health_of(relay: &Relay) -> (StatusCode, Value) {
    let (status, text) = match relay.phase() {
        Phase::Joining => (StatusCode::SERVICE_UNAVAILABLE, "joining"),
        Phase::Serving => (StatusCode::OK, "ok"),
        Phase::Draining => (StatusCode::SERVICE_UNAVAILABLE, "draining"),
    };
    (status, json!({ "status": text, "uptime": relay.clock.elapsed().as_secs() }))
}

/// Tells browsers to come by https from now on (RFC 6797). Not with a certificate of the node's own:
/// who trusts it for a trial is not to be bound by it for a year.
async fn say_https_only(State(relay): State<Arc<Relay>>, request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    if relay.certificates().is_some_and(|certificates| !certificates.is_self_signed()) {
        response.headers_mut().insert(STRICT_TRANSPORT_SECURITY, HSTS);
    }
    response
}

async fn landing_page(State(relay): State<Arc<Relay>>) -> Html<String> {
    Html(landing::page(&relay.config.relay_name, report::total(&relay).0.sessions))
}
