//! What operators read: the ops listener (PROTOCOL sections 1 and 9).

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    middleware,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde_json::{Value, json};

use super::{
    ApiError, access_log,
    admin::{self, AdminToken},
    cors,
    public::health_of,
    register::register,
};
use crate::{
    relay::{Phase, Relay},
    report::{self, ClusterReport},
};

/// The media type of Prometheus' text format.
const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";

const INDEX: &str = "arc-relay, for operators

GET  /health                  is the node up
GET  /ready                   does it take new agents
GET  /stats                   counts
GET  /metrics                 counts, for Prometheus
GET  /cluster                 the nodes, and the links of this one
POST /register                as on the public listener

With the admin token as a bearer token:
GET  /agents/{id}             what is known of an agent
POST /agents/{id}/revoke      revoke all tokens of an agent
POST /agents/{id}/reissue     a new token for an agent
POST /tokens/{serial}/revoke  revoke one token
";

/// The ops listener's paths; `token` guards those that change something or name agents.
pub fn ops_router(relay: Arc<Relay>, token: AdminToken) -> Router {
    let cors = middleware::from_fn_with_state(Arc::clone(&relay), cors::cors);
    Router::new()
        .route("/", get(|| async { INDEX }))
        .route("/health", get(health))
        .route("/ready", get(ready))
        .route("/stats", get(stats))
        .route("/metrics", get(metrics))
        .route("/cluster", get(cluster))
        .route("/register", post(register).options(no_content).layer(cors))
        .merge(admin::routes(token))
        .fallback(|| async { ApiError::not_found() })
        .method_not_allowed_fallback(|| async { ApiError::method_not_allowed() })
        .layer(middleware::from_fn(access_log::log))
        .with_state(relay)
}

/// A preflight, which the layer above answers in full.
async fn no_content() -> StatusCode {
    StatusCode::NO_CONTENT
}

/// As on the public listener, and in which state agents' TLS is.
async fn health(State(relay): State<Arc<Relay>>) -> Response {
    let (status, mut body) = health_of(&relay);
    if let Some(tls) = report::tls(&relay) {
        body["tls"] = json!(tls);
    }
    (status, Json(body)).into_response()
}

async fn ready(State(relay): State<Arc<Relay>>) -> Response {
    let text = match relay.phase() {
        Phase::Joining => "joining",
        Phase::Serving if relay.permits.available_permits() == 0 => "full",
        Phase::Serving => return Json(json!({ "status": "ready" })).into_response(),
        Phase::Draining => "draining",
    };
    (StatusCode::SERVICE_UNAVAILABLE, Json(json!({ "status": text }))).into_response()
}

async fn stats(State(relay): State<Arc<Relay>>) -> Json<Value> {
    Json(report::stats(&relay))
}

async fn metrics(State(relay): State<Arc<Relay>>) -> Response {
    relay.measure();
    ([(CONTENT_TYPE, PROMETHEUS)], relay.metrics.render()).into_response()
}

async fn cluster(State(relay): State<Arc<Relay>>) -> Json<ClusterReport> {
    Json(report::cluster(&relay))
}
