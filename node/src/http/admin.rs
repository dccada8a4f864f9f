//! What only the holder of the admin token may do: look at agents, revoke and reissue tokens.
//!
//! Every change is a line in the log, with the address it came from.

use std::{fmt, sync::Arc};

use axum::{
    Extension, Json, Router,
    extract::{Path, Request, State},
    http::{HeaderValue, StatusCode},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use cluster::{
    AgentId,
    admin::same_secret,
    registry::{AdminError, Revocation},
    token::Serial,
};
use serde_json::{Value, json};

use super::{ApiError, client_address::ClientAddress, register::bearer};
use crate::{relay::Relay, report};

/// The secret that the admin API asks for.
#[derive(Clone)]
pub struct AdminToken(Arc<str>);

impl AdminToken {
    /// Guards with this secret.
    pub fn new(secret: &str) -> Self {
        Self(secret.into())
    }
}

impl fmt::Debug for AdminToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AdminToken(…)")
    }
}

/// The paths that ask for the admin token.
pub(super) fn routes(token: AdminToken) -> Router<Arc<Relay>> {
    Router::new()
        .route("/agents/{id}", get(show))
        .route("/agents/{id}/revoke", post(revoke))
        .route("/agents/{id}/reissue", post(reissue))
        .route("/tokens/{serial}/revoke", post(revoke_token))
        .route_layer(middleware::from_fn_with_state(token, guard))
}

async fn guard(State(token): State<AdminToken>, request: Request, next: Next) -> Response {
    if bearer(request.headers()).is_some_and(|given| same_secret(given, &token.0)) {
        return next.run(request).await;
    }
    let message = "send the admin token, from admin.token in the data directory, as a bearer token";
    ApiError::new(StatusCode::UNAUTHORIZED, "unauthorized", message)
        .header("www-authenticate", HeaderValue::from_static("Bearer"))
        .into_response()
}

async fn show(
    State(relay): State<Arc<Relay>>,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let agent = parse_id(&id)?;
    let record = relay.registry.agent(&agent).await.map_err(|error| refusal(&error))?;
    let record = record.ok_or_else(|| refusal(&AdminError::UnknownAgent))?;
    let node = report::home_of(&relay, &agent).await;
    Ok(Json(json!({
        "agent_id": agent.as_str(),
        "registered_at": record.registered_at,
        "serial": record.serial.0,
        "revoked": record.revoked,
        "connected": node.is_some(),
        "node": node,
    })))
}

async fn revoke(
    State(relay): State<Arc<Relay>>,
    Extension(from): Extension<ClientAddress>,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let agent = parse_id(&id)?;
    let revocation = Revocation::Agent(agent.clone());
    relay.registry.revoke(revocation).await.map_err(|error| refusal(&error))?;
    tracing::info!(%agent, from = %from.ip, "audit: revoked all tokens of an agent");
    Ok(Json(json!({ "agent_id": agent.as_str(), "revoked": true })))
}

async fn reissue(
    State(relay): State<Arc<Relay>>,
    Extension(from): Extension<ClientAddress>,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let agent = parse_id(&id)?;
    let registration = relay.registry.reissue(&agent).await.map_err(|error| refusal(&error))?;
    tracing::info!(%agent, from = %from.ip, "audit: issued a new token for an agent");
    Ok(Json(json!({ "agent_id": agent.as_str(), "token": registration.token })))
}

async fn revoke_token(
    State(relay): State<Arc<Relay>>,
    Extension(from): Extension<ClientAddress>,
    Path(serial): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let serial = serial.parse().map(Serial).map_err(|_| {
        let message = "this is no serial of a token: agents show ID prints them";
        ApiError::new(StatusCode::BAD_REQUEST, "invalid_serial", message)
    })?;
    let revocation = Revocation::Token(serial);
    relay.registry.revoke(revocation).await.map_err(|error| refusal(&error))?;
    tracing::info!(serial = serial.0, from = %from.ip, "audit: revoked a token");
    Ok(Json(json!({ "serial": serial.0, "revoked": true })))
}

fn parse_id(id: &str) -> Result<AgentId, ApiError> {
    let invalid = |error: cluster::InvalidAgentId| {
        ApiError::new(StatusCode::BAD_REQUEST, "invalid_agent_id", error.to_string())
    };
    id.parse().map_err(invalid)
}

fn refusal(error: &AdminError) -> ApiError {
    let (status, code) = match error {
        AdminError::UnknownAgent => (StatusCode::NOT_FOUND, "unknown_agent"),
        AdminError::UnknownToken => (StatusCode::NOT_FOUND, "unknown_token"),
        AdminError::Unavailable(_) => (StatusCode::SERVICE_UNAVAILABLE, "registry_unavailable"),
    };
    ApiError::new(status, code, error.to_string())
}
