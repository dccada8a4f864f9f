//! What only the holder of the admin token may do: look after agents and their tokens, the registry's
//! voters and keys, take backups, and send nodes away.
//!
//! Every change, and every attempt at one, is a line in the log: see [`audit`]. The JSON is that of
//! [`crate::admin`].

pub(super) mod agents;
mod audit;
pub(super) mod backup;
mod naming;
pub(super) mod nodes;
pub(super) mod registry;
#[cfg(test)]
mod tests;

use std::{fmt, sync::Arc};

use axum::{
    Json, Router,
    extract::{Request, State},
    http::{HeaderValue, StatusCode},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post, put},
};
use cluster::{
    admin::same_secret,
    registry::{AdminError, Administration},
};
use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

use super::{ApiError, body, register::bearer};
use crate::relay::Relay;

/// Bytes of a body that is no list of names.
const BODY_BYTES_MAX: usize = 16 << 10;

/// The secret that the admin API asks for; its memory is cleared.
#[derive(Clone)]
pub struct AdminToken(Arc<Zeroizing<String>>);

impl AdminToken {
    /// Guards with this secret.
    pub fn new(secret: impl Into<String>) -> Self {
        Self(Arc::new(Zeroizing::new(secret.into())))
    }
}

impl fmt::Debug for AdminToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AdminToken(…)")
    }
}

type Answer<T> = Result<Json<T>, ApiError>;

/// What the admin API works with.
#[derive(Clone)]
pub(super) struct Desk {
    relay: Arc<Relay>,
    administration: Arc<dyn Administration>,
}

/// The paths that ask for the admin token.
pub(super) fn routes(
    relay: Arc<Relay>,
    administration: Arc<dyn Administration>,
    token: AdminToken,
) -> Router<Arc<Relay>> {
    Router::new()
        .route("/agents", get(agents::list))
        .route("/agents/import", post(agents::import))
        .route("/agents/{id}", get(agents::show))
        .route("/agents/{id}/revoke", post(agents::revoke))
        .route("/agents/{id}/ban", post(agents::ban).delete(agents::unban))
        .route("/agents/{id}/reissue", post(agents::reissue))
        .route("/tokens/{serial}/revoke", post(agents::revoke_token))
        .route("/registry", get(registry::status))
        .route("/registry/voters", put(registry::change_voters))
        .route("/registry/keys", get(registry::keys).post(registry::rotate_key))
        .route("/backup", post(backup::backup))
        .route("/drain", post(nodes::drain))
        .route("/nodes/{node}/drain", post(nodes::drain_another))
        .route_layer(middleware::from_fn_with_state(token, guard))
        .route_layer(middleware::from_fn_with_state(Arc::clone(&relay), audit::audit))
        .with_state(Desk { relay, administration })
}

async fn guard(State(token): State<AdminToken>, request: Request, next: Next) -> Response {
    if bearer(request.headers()).is_some_and(|given| same_secret(given, &token.0)) {
        return next.run(request).await;
    }
    let message = "send the admin token, from admin.token in the data directory, as a bearer token";
    ApiError::new(StatusCode::UNAUTHORIZED, audit::UNAUTHORIZED, message)
        .header("www-authenticate", HeaderValue::from_static("Bearer"))
        .into_response()
}

impl Desk {
    /// What the request's body says.
    async fn told<T: DeserializeOwned>(
        &self,
        request: Request,
        bytes_max: usize,
    ) -> Result<T, ApiError> {
        let (head, told) = request.into_parts();
        let deadline = self.relay.config.timing.handshake_deadline;
        let told = body::read(&head.headers, told, bytes_max, deadline).await?;
        body::json(&told)
    }
}

impl From<AdminError> for ApiError {
    fn from(error: AdminError) -> Self {
        let (status, code) = match &error {
            AdminError::UnknownAgent => (StatusCode::NOT_FOUND, "unknown_agent"),
            AdminError::UnknownToken => (StatusCode::NOT_FOUND, "unknown_token"),
            AdminError::Banned => (StatusCode::CONFLICT, "agent_banned"),
            AdminError::Refused(_) => (StatusCode::CONFLICT, "refused"),
            AdminError::Unavailable(_) => return Self::registry_unavailable(error.to_string()),
        };
        Self::new(status, code, error.to_string())
    }
}
