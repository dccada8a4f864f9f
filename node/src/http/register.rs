//! `POST /register` (PROTOCOL section 2).

use std::{collections::HashMap, ops::RangeInclusive, sync::Arc};

use axum::{
    Extension, Json,
    body::Body,
    extract::{Request, State},
    http::{HeaderMap, StatusCode, header::AUTHORIZATION},
    response::{IntoResponse, Response},
};
use cluster::{
    AgentId, InvalidAgentId,
    admin::same_secret,
    registry::{Claim, RegisterError},
};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::{ApiError, body, client_address::ClientAddress};
use crate::{
    admin::{Credentials, ErrorBody},
    relay::{Phase, Relay},
};

/// Bytes of a request's body.
const BODY_MAX: usize = 4_096;

/// The header with which a client may ask again (draft-ietf-httpapi-idempotency-key-header).
const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// Bytes of such a key: long enough that nobody guesses it, for it is answered with a token.
const IDEMPOTENCY_KEY_BYTES: RangeInclusive<usize> = 16..=255;

/// What a registration asks for. Of other fields nothing is read.
#[derive(ToSchema)]
#[allow(dead_code)] // for the document: bodies are read without being kept
pub(super) struct Registering {
    /// The name; without one the relay chooses.
    agent_id: Option<String>,
}

/// Register a name for ever, and get its token (PROTOCOL section 2).
#[utoipa::path(
    post, path = "/register", tag = "agents", security((), ("registration" = [])),
    params(("Idempotency-Key" = Option<String>, Header, description = "Names this attempt, as in a random \
        UUID, 16 to 255 visible ASCII characters: whoever sends it again, with the same id, has the same outcome")),
    request_body(content = Option<Registering>),
    responses(
        (status = 200, body = Credentials),
        (status = 400, body = ErrorBody, description = "`invalid_agent_id`, `invalid_json`, `invalid_idempotency_key`"),
        (status = 403, body = ErrorBody, description = "`registration_closed`, `origin_not_allowed`"),
        (status = 408, body = ErrorBody, description = "`timeout`"),
        (status = 409, body = ErrorBody, description = "`agent_id_taken`, `agent_id_reserved`"),
        (status = 413, body = ErrorBody, description = "`body_too_large`"),
        (status = 429, body = ErrorBody, description = "`rate_limit`"),
        (status = 503, body = ErrorBody, description = "`registry_unavailable`, `joining`, `draining`"),
    ),
)]
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
    let wanted = match admit(relay, address, &head.headers) {
        Ok(()) => wanted(relay, &head.headers, body).await,
        Err(error) => Err(error),
    };
    let (wanted, claim) = wanted.inspect_err(|_| counters.refused.increment(1))?;
    let registration = relay.registry.register(wanted, claim).await.map_err(|error| {
        match error {
            RegisterError::Taken | RegisterError::Reserved => counters.taken.increment(1),
            RegisterError::Unavailable(_) => counters.unavailable.increment(1),
        }
        refusal(&error)
    })?;
    tracing::info!(agent = %registration.agent, address = %address.ip, "registered an agent");
    let agent_id = registration.agent.to_string();
    Ok(Json(Credentials { agent_id, token: registration.token }).into_response())
}

/// Whether this client may ask at all.
fn admit(relay: &Relay, address: ClientAddress, headers: &HeaderMap) -> Result<(), ApiError> {
    match relay.phase() {
        Phase::Joining => return Err(ApiError::joining()),
        Phase::Serving => {}
        Phase::Draining => return Err(ApiError::draining()),
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

/// Which name is wanted, and what names the attempt to get it.
async fn wanted(
    relay: &Relay,
    headers: &HeaderMap,
    body: Body,
) -> Result<(Option<AgentId>, Claim), ApiError> {
    let key = idempotency_key(headers)?;
    let deadline = relay.config.timing.handshake_deadline;
    let agent = wanted_id(&body::read(headers, body, BODY_MAX, deadline).await?)?;
    let claim = key.map_or_else(Claim::random, |key| Claim::repeatable(key, agent.as_ref()));
    Ok((agent, claim))
}

/// The key with which the client may come again, if it sent one.
fn idempotency_key(headers: &HeaderMap) -> Result<Option<&str>, ApiError> {
    let mut keys = headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(key) = keys.next() else { return Ok(None) };
    let is_good = |key: &str| {
        IDEMPOTENCY_KEY_BYTES.contains(&key.len()) && key.bytes().all(|b| b.is_ascii_graphic())
    };
    match key.to_str() {
        Ok(key) if is_good(key) && keys.next().is_none() => Ok(Some(key)),
        _ => {
            let message = "an Idempotency-Key is one of 16 to 255 visible ASCII characters: send a \
                           random one for each name";
            Err(ApiError::new(StatusCode::BAD_REQUEST, "invalid_idempotency_key", message))
        }
    }
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
            Ok(id) => Ok(Some(id.parse()?)),
            Err(_) => Err(InvalidAgentId.into()),
        },
        Some(_) => Err(ApiError::invalid_agent_id("the agent id must be a string")),
    }
}

fn invalid_json(why: &str) -> ApiError {
    body::invalid_json(&format!("{why}: send {{\"agent_id\": \"some-name\"}}, or nothing"))
}

fn refusal(error: &RegisterError) -> ApiError {
    let code = match error {
        RegisterError::Taken => "agent_id_taken",
        RegisterError::Reserved => "agent_id_reserved",
        RegisterError::Unavailable(_) => return ApiError::registry_unavailable(error.to_string()),
    };
    ApiError::new(StatusCode::CONFLICT, code, error.to_string())
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
    fn idempotency_keys() {
        let read = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(IDEMPOTENCY_KEY, value.parse().unwrap());
            }
            idempotency_key(&headers).map(|key| key.map(str::to_owned)).map_err(|e| e.code())
        };
        assert_eq!(read(&[]), Ok(None));
        for good in
            ["0123456789abcdef", "\"8e03978e-40d5-43dd-bc93-6894a57f9324\"", &"x".repeat(255)]
        {
            assert_eq!(read(&[good]), Ok(Some(good.to_owned())));
        }
        let two = ["0123456789abcdef"; 2];
        for bad in
            [&["0123456789abcde"][..], &[""], &["0123456789 abcdef"], &[&"x".repeat(256)], &two]
        {
            assert_eq!(read(bad), Err("invalid_idempotency_key"), "{bad:?}");
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
