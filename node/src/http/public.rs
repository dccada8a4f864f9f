//! What agents reach: the public listener (PROTOCOL section 1).

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, Method, StatusCode, header::STRICT_TRANSPORT_SECURITY},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{any, get, post},
};
use utoipa::ToSchema;

use super::{
    ApiError, access_log, cors,
    landing::{landing_counts, landing_file, landing_page, protocol},
    other_sites,
    register::register,
    upgrade::upgrade,
};
use crate::{
    certificates::TlsReport,
    relay::{Phase, Relay},
    report,
};

/// For a year, for this host alone.
const HSTS: HeaderValue = HeaderValue::from_static("max-age=31536000");

/// The public listener's paths.
pub fn public_router(relay: Arc<Relay>) -> Router {
    Router::new()
        .route("/", get(landing_page))
        .route("/landing/counts", get(landing_counts))
        .route("/landing/{file}", get(landing_file))
        .route("/protocol", get(protocol))
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

/// What `/health` says.
#[derive(serde::Serialize, ToSchema)]
pub(super) struct Health {
    /// `ok`, `joining` or `draining`.
    status: &'static str,
    /// Seconds since the start.
    uptime: u64,
    /// `available`, or `unavailable` while no names can be registered.
    registry: &'static str,
    /// What for, if the node waits for others; on the ops listener only.
    #[serde(skip_serializing_if = "Option::is_none")]
    waiting: Option<String>,
    /// Why this node's own disk is of no use to the registry, if so; on the ops listener only.
    #[serde(skip_serializing_if = "Option::is_none")]
    failure: Option<String>,
    /// Agents' TLS, if they connect by it; on the ops listener only.
    #[serde(skip_serializing_if = "Option::is_none")]
    tls: Option<TlsReport>,
}

/// Whether the node is up (PROTOCOL section 9).
#[utoipa::path(
    get, path = "/health", tag = "operators",
    responses(
        (status = 200, body = Health, description = "It is"),
        (status = 503, body = Health, description = "It starts or stops"),
    ),
)]
pub(super) async fn health(State(relay): State<Arc<Relay>>) -> Response {
    told(&relay, false)
}

/// The same for operators, with what the node waits for, which names other nodes, and how it is with its
/// certificate; not for pages of [other sites](other_sites).
pub(super) async fn health_in_full(
    State(relay): State<Arc<Relay>>,
    method: Method,
    headers: HeaderMap,
) -> Response {
    told(&relay, other_sites::refusal(&relay.config, &method, &headers).is_none())
}

fn told(relay: &Relay, in_full: bool) -> Response {
    let (status, text) = match relay.phase() {
        Phase::Joining => (StatusCode::SERVICE_UNAVAILABLE, "joining"),
        Phase::Serving => (StatusCode::OK, "ok"),
        Phase::Draining => (StatusCode::SERVICE_UNAVAILABLE, "draining"),
    };
    let registry = relay.registry.status();
    let health = Health {
        status: text,
        uptime: relay.clock.elapsed().as_secs(),
        registry: if registry.available { "available" } else { "unavailable" },
        waiting: registry.waiting.filter(|_| in_full).map(|waiting| waiting.reason),
        failure: registry.failure.filter(|_| in_full),
        tls: report::tls(relay).filter(|_| in_full),
    };
    (status, Json(health)).into_response()
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
