//! `POST /register` (PROTOCOL section 2).

use std::{collections::HashMap, sync::Arc, time::Duration};

use axum::{
    Extension, Json,
    body::{Body, to_bytes},
    extract::{Request, State},
    http::{
        HeaderMap, StatusCode,
        header::{AUTHORIZATION, CONTENT_LENGTH},
    },
    response::{IntoResponse, Response},
};
use cluster::{
    AgentId, InvalidAgentId,
    admin::same_secret,
    registry::{Claim, RegisterError},
};
use serde_json::{json, value::RawValue};

use super::{ApiError, client_address::ClientAddress, cors};
use crate::relay::{Phase, Relay};

/// Bytes of a request's body.
const BODY_MAX: usize = 4_096;

/// How long a client is asked to wait for a registry that cannot decide now.
const UNAVAILABLE_RETRY: Duration = Duration::from_secs(2);

/// Registers a name and answers with its token.
pub(super) async fn register(
    State(relay): State<Arc<Relay>>,
    Extension(address): Extension<ClientAddress>,
    request: Request,
) -> Response {
    let started = relay.clock.elapsed();
    let outcome = answer(&relay, address, request).await;
    relay.metrics.registration_seconds.record(relay.clock.elapsed().saturating_sub(started));
    match outcome {
        Ok(response) => {
            relay.metrics.registrations.registered.increment(1);
            response
        }
        Err(error) => error.into_response(),
    }
}

async fn answer(
    relay: &Relay,
    address: ClientAddress,
    request: Request,
) -> Result<Response, ApiError> {
    let counters = &relay.metrics.registrations;
    let (head, body) = request.into_parts();
    let admitted = admit(relay, address, &head.headers).and_then(|()| announced(&head.headers));
    let wanted = match admitted {
        Ok(()) => read_body(body, relay.config.timing.handshake_deadline).await,
        Err(error) => Err(error),
    };
    let wanted = wanted.inspect_err(|_| counters.refused.increment(1))?;
    let registration = relay.registry.register(wanted, Claim::random()).await.map_err(|error| {
        match error {
            RegisterError::Taken | RegisterError::Reserved => counters.taken.increment(1),
            RegisterError::Unavailable(_) => counters.unavailable.increment(1),
        }
        refusal(&error)
    })?;
    tracing::info!(agent = %registration.agent, address = %address.ip, "registered an agent");
    let body = json!({ "agent_id": registration.agent.as_str(), "token": registration.token });
    Ok(Json(body).into_response())
}

/// Whether this client may ask at all.
fn admit(relay: &Relay, address: ClientAddress, headers: &HeaderMap) -> Result<(), ApiError> {
    match relay.phase() {
        Phase::Joining => return Err(ApiError::joining()),
        Phase::Serving => {}
        Phase::Draining => return Err(ApiError::draining()),
    }
    if !cors::allows(relay.config.allowed_origins.as_deref(), headers) {
        return Err(cors::refusal());
    }
    if let Err(too_many) = relay.addresses.register(address.ip) {
        relay.metrics.limited.registrations.increment(1);
        let message = "too many registrations from your address: wait and try again";
        return Err(ApiError::rate_limit(message, too_many.retry()));
    }
    match &relay.config.registration_key {
        Some(key) if !bearer(headers).is_some_and(|given| same_secret(given, key)) => {
            let message = "registration is closed: send the registration key as a bearer token";
            Err(ApiError::new(StatusCode::FORBIDDEN, "registration_closed", message))
        }
        _ => Ok(()),
    }
}

async fn read_body(body: Body, deadline: Duration) -> Result<Option<AgentId>, ApiError> {
    let read = tokio::time::timeout(deadline, to_bytes(body, BODY_MAX)).await;
    match read {
        Ok(Ok(bytes)) => wanted_id(&bytes),
        Ok(Err(error)) if is_length_limit(&error) => Err(too_large()),
        Ok(Err(_)) => Err(invalid_json("the body did not arrive whole")),
        Err(_) => {
            let message = "the body did not arrive in time";
            Err(ApiError::new(StatusCode::REQUEST_TIMEOUT, "timeout", message))
        }
    }
}

/// Refuses a body that is announced as too large before it is read.
fn announced(headers: &HeaderMap) -> Result<(), ApiError> {
    let length = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    if length.is_some_and(|length: usize| length > BODY_MAX) { Err(too_large()) } else { Ok(()) }
}

fn too_large() -> ApiError {
    let message = format!("the body may have {BODY_MAX} bytes at most");
    ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", message)
}

fn is_length_limit(error: &axum::Error) -> bool {
    let source = std::error::Error::source(error);
    source.is_some_and(<dyn std::error::Error>::is::<http_body_util::LengthLimitError>)
}

/// The id that a request's body asks for, if it asks for one. Of other fields nothing is read.
fn wanted_id(body: &[u8]) -> Result<Option<AgentId>, ApiError> {
    if body.trim_ascii().is_empty() {
        return Ok(None);
    }
    let fields: HashMap<String, &RawValue> = serde_json::from_slice(body)
        .map_err(|_| invalid_json("the body is not JSON, or no JSON object"))?;
    match fields.get("agent_id").map(|id| id.get()) {
        None | Some("null") => Ok(None),
        Some(text) if text.starts_with('"') => match serde_json::from_str::<String>(text) {
            Ok(id) => id.parse().map(Some).map_err(invalid_id),
            Err(_) => Err(invalid_id(InvalidAgentId)),
        },
        Some(_) => Err(invalid_id("the agent id must be a string")),
    }
}

fn invalid_json(why: &str) -> ApiError {
    let message = format!("{why}: send {{\"agent_id\": \"some-name\"}}, or nothing");
    ApiError::new(StatusCode::BAD_REQUEST, "invalid_json", message)
}

fn invalid_id(why: impl std::fmt::Display) -> ApiError {
    ApiError::new(StatusCode::BAD_REQUEST, "invalid_agent_id", why.to_string())
}

fn refusal(error: &RegisterError) -> ApiError {
    let (status, code) = match error {
        RegisterError::Taken => (StatusCode::CONFLICT, "agent_id_taken"),
        RegisterError::Reserved => (StatusCode::CONFLICT, "agent_id_reserved"),
        RegisterError::Unavailable(_) => (StatusCode::SERVICE_UNAVAILABLE, "registry_unavailable"),
    };
    let refusal = ApiError::new(status, code, error.to_string());
    match error {
        RegisterError::Unavailable(_) => refusal.retry_after(UNAVAILABLE_RETRY),
        RegisterError::Taken | RegisterError::Reserved => refusal,
    }
}

/// The credentials of `Authorization: Bearer`.
pub(super) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, credentials) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| credentials.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code_of(body: &str) -> &'static str {
        wanted_id(body.as_bytes()).unwrap_err().code()
    }

    #[test]
    fn bodies_that_leave_the_choice_to_the_relay() {
        let deep = format!(r#"{{"x":{}{}}}"#, "[".repeat(2_000), "]".repeat(2_000));
        let odd = r#"{"x":1e999,"y":"\ud800","agent_id":null}"#;
        for body in ["", " \n", "{}", r#"{"agent_id":null}"#, r#"{"x":1}"#, odd, &deep] {
            assert_eq!(wanted_id(body.as_bytes()).unwrap(), None, "{body:?}");
        }
    }

    #[test]
    fn bodies_that_are_refused() {
        for body in ["{", "[]", "\"abc\"", "1", "null", "{}{}", "\u{0}"] {
            assert_eq!(code_of(body), "invalid_json", "{body:?}");
        }
        for body in [
            r#"{"agent_id":1}"#,
            r#"{"agent_id":"A"}"#,
            r#"{"agent_id":["abc"]}"#,
            r#"{"agent_id":"\ud800"}"#,
        ] {
            assert_eq!(code_of(body), "invalid_agent_id", "{body:?}");
        }
    }

    #[test]
    fn bearers() {
        let headers = |value: &str| HeaderMap::from_iter([(AUTHORIZATION, value.parse().unwrap())]);
        assert_eq!(bearer(&headers("Bearer abc")), Some("abc"));
        assert_eq!(bearer(&headers("bearer  abc ")), Some("abc"));
        assert_eq!(bearer(&headers("Basic abc")), None);
        assert_eq!(bearer(&HeaderMap::new()), None);
    }
}
