//! What agents reach: the public listener (PROTOCOL section 1).

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::State,
    http::StatusCode,
    middleware,
    response::{Html, IntoResponse, Response},
    routing::{any, get, post},
};
use serde_json::json;

use super::{ApiError, access_log, cors, landing, register::register, upgrade::upgrade};
use crate::{
    relay::{Phase, Relay},
    report,
};

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
        .layer(middleware::from_fn(access_log::log))
        .with_state(relay)
}

/// `GET /health` (PROTOCOL section 9).
pub(super) async fn health(State(relay): State<Arc<Relay>>) -> Response {
    let (status, text) = match relay.phase() {
        Phase::Joining => (StatusCode::SERVICE_UNAVAILABLE, "joining"),
        Phase::Serving => (StatusCode::OK, "ok"),
        Phase::Draining => (StatusCode::SERVICE_UNAVAILABLE, "draining"),
    };
    let body = json!({ "status": text, "uptime": relay.clock.elapsed().as_secs() });
    (status, Json(body)).into_response()
}

async fn landing_page(State(relay): State<Arc<Relay>>) -> Html<String> {
    Html(landing::page(&relay.config.relay_name, report::total(&relay).0.sessions))
}
