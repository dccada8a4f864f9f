//! What operators read: the ops listener (PROTOCOL sections 1 and 9).

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::State,
    http::{HeaderMap, StatusCode, header::CONTENT_TYPE},
    middleware,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use cluster::registry::Administration;
use utoipa::ToSchema;

use super::{
    ApiError, access_log,
    admin::{self, AdminToken},
    cors, dashboard,
    document::openapi,
    other_sites,
    public::health_in_full,
    register::register,
    watching,
};
use crate::{
    metrics::{Seen, scrape},
    relay::{Phase, Relay},
    report::{self, ClusterReport, Stats},
    tls_report::{self, ClusterTls},
};

/// The media type of Prometheus' text format.
const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";

const INDEX: &str = "arc-relay, for operators: a browser that opens this address sees a dashboard

GET  /health                  is the node up
GET  /ready                   does it take new agents
GET  /stats                   counts
GET  /metrics                 counts, for Prometheus
GET  /cluster                 the nodes, and the links of this one
GET  /tls                     the certificates that the nodes serve
GET  /events?after=&limit=    what happened (as a stream: accept text/event-stream)
GET  /history                 the last hour in numbers
POST /register                as on the public listener
GET  /openapi.json            all of this, for programs

With the admin token as a bearer token:
GET  /agents?after=&limit=    the agents
POST /agents/import           names from a list
GET  /agents/{id}             what is known of an agent
POST /agents/{id}/revoke      revoke all tokens of an agent
POST /agents/{id}/ban         refuse an agent (DELETE lifts the ban)
POST /agents/{id}/reissue     a new token for an agent
POST /tokens/{serial}/revoke  revoke one token
GET  /registry                how the registry is
PUT  /registry/voters         who keeps it
GET  /registry/keys           which keys sign (POST lets a new one)
POST /backup                  everything, encrypted
POST /drain                   send this node's agents elsewhere, and stop it
POST /nodes/{node}/drain      the same of another node
";

/// The ops listener's paths; `token` guards those that change something or name agents. What the public
/// listener says and does as well, and what probes ask, is not kept from other sites.
pub fn ops_router(
    relay: Arc<Relay>,
    administration: Arc<dyn Administration>,
    token: AdminToken,
) -> Router {
    let cors = middleware::from_fn_with_state(Arc::clone(&relay), cors::cors);
    let keep_out = middleware::from_fn_with_state(Arc::clone(&relay), other_sites::keep_out);
    Router::new()
        .route("/", get(front))
        .route("/stats", get(stats))
        .route("/metrics", get(metrics))
        .route("/cluster", get(cluster))
        .route("/tls", get(tls))
        .route("/events", get(watching::events))
        .route("/history", get(watching::history))
        .route("/dashboard/stream", get(watching::dashboard_stream))
        .route("/dashboard/{file}", get(dashboard::file))
        .route("/openapi.json", get(openapi))
        .merge(admin::routes(Arc::clone(&relay), administration, token))
        .fallback(|| async { ApiError::not_found() })
        .layer(keep_out)
        .route("/health", get(health_in_full))
        .route("/ready", get(ready))
        .route("/register", post(register).options(no_content).layer(cors))
        .method_not_allowed_fallback(|| async { ApiError::method_not_allowed() })
        .layer(middleware::from_fn(access_log::log))
        .with_state(relay)
}

async fn front(State(relay): State<Arc<Relay>>, headers: HeaderMap) -> Response {
    dashboard::front(&relay, &headers, INDEX)
}

/// A preflight, which the layer above answers in full.
async fn no_content() -> StatusCode {
    StatusCode::NO_CONTENT
}

/// What `/ready` says.
#[derive(serde::Serialize, ToSchema)]
struct Readiness {
    /// `ready`, `joining`, `full` or `draining`.
    status: &'static str,
}

/// Whether the node takes new agents.
#[utoipa::path(
    get, path = "/ready", tag = "operators",
    responses(
        (status = 200, body = Readiness, description = "It does"),
        (status = 503, body = Readiness, description = "It does not"),
    ),
)]
pub(super) async fn ready(State(relay): State<Arc<Relay>>) -> Response {
    let text = match relay.phase() {
        Phase::Joining => "joining",
        Phase::Serving if relay.permits.available_permits() == 0 => "full",
        Phase::Serving => return Json(Readiness { status: "ready" }).into_response(),
        Phase::Draining => "draining",
    };
    (StatusCode::SERVICE_UNAVAILABLE, Json(Readiness { status: text })).into_response()
}

/// How much there is, in the cluster and on this node (PROTOCOL section 9).
#[utoipa::path(get, path = "/stats", tag = "operators", responses((status = 200, body = Stats)))]
pub(super) async fn stats(State(relay): State<Arc<Relay>>) -> Json<Stats> {
    Json(report::stats(&relay))
}

/// All counters, gauges and histograms, for Prometheus.
#[utoipa::path(
    get, path = "/metrics", tag = "operators",
    responses((status = 200, content_type = "text/plain", body = String)),
)]
pub(super) async fn metrics(State(relay): State<Arc<Relay>>) -> Response {
    let looking = Arc::clone(&relay);
    let seen = relay.machine.see(move || Seen::of(&looking)).await;
    ([(CONTENT_TYPE, PROMETHEUS)], scrape(&relay, &seen)).into_response()
}

/// The nodes, and the links of this one.
#[utoipa::path(
    get, path = "/cluster", tag = "operators", responses((status = 200, body = ClusterReport)),
)]
pub(super) async fn cluster(State(relay): State<Arc<Relay>>) -> Json<ClusterReport> {
    Json(report::cluster(&relay))
}

/// The certificates that all nodes serve to agents, and how they stand with the next ones.
#[utoipa::path(
    get, path = "/tls", tag = "operators", responses((status = 200, body = ClusterTls)),
)]
pub(super) async fn tls(State(relay): State<Arc<Relay>>) -> Json<ClusterTls> {
    Json(tls_report::cluster(&relay).await)
}
