//! `GET /arc`: from an HTTP request to a session (PROTOCOL section 3).

use std::{borrow::Cow, sync::Arc, time::Duration};

use axum::{
    Extension,
    extract::{Request, State},
    http::{
        HeaderMap, HeaderValue, StatusCode, Uri,
        header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, UPGRADE},
    },
    response::{IntoResponse, Response},
};
use cluster::token::{Grant, TokenError};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::{
    sync::OwnedSemaphorePermit,
    time::{sleep, timeout},
};
use tracing::Instrument;

use super::{ApiError, client_address::ClientAddress, register::bearer};
use crate::{
    admin::ErrorBody,
    limits::{AddressLimits, ConnectionPermit, TooMany},
    net::Connection,
    relay::{Phase, Relay},
    session::{
        Opening, Session,
        actor::{Actor, REPLACED},
        outbox::OutboxLimits,
    },
    ws::{
        CloseCode,
        handshake::{AcceptKey, check_upgrade},
    },
};

/// How long a client is asked to wait when there is no room for it.
const FULL_RETRY: Duration = Duration::from_secs(5);

/// How long an older session may take to end and give its place to its successor: a little longer
/// than its agent may take to say goodbye.
const OLDER_ENDS: Duration = Duration::from_secs(6);

/// How often it is looked whether it has.
const OLDER_ENDS_ROUND: Duration = Duration::from_millis(20);

/// What a session holds of the relay's limits; given back when it ends.
#[derive(Debug)]
struct Permits {
    _session: OwnedSemaphorePermit,
    _address: ConnectionPermit,
}

/// Which limit leaves no room for one more session.
#[derive(Clone, Copy, Debug)]
enum NoRoom {
    /// `MAX_CONNECTIONS`; the client's address has room.
    OnNode,
    /// That of the client's address.
    ForAddress(TooMany),
}

/// Connect as an agent, over WebSocket (PROTOCOL section 3).
#[utoipa::path(
    get, path = "/arc", tag = "agents", security(("agent" = [])),
    params(("token" = Option<String>, Query, description = "The token, where no header can be set; the header wins")),
    responses(
        (status = 101, description = "The session begins, with the welcome as its first message"),
        (status = 401, body = ErrorBody, description = "`unauthorized`, `token_revoked`, `token_expired`"),
        (status = 403, body = ErrorBody, description = "`origin_not_allowed`"),
        (status = 426, body = ErrorBody, description = "`upgrade_required`"),
        (status = 429, body = ErrorBody, description = "`rate_limit`"),
        (status = 503, body = ErrorBody, description = "`too_many_connections`, `joining`, `draining`"),
    ),
)]
pub(super) async fn upgrade(
    State(relay): State<Arc<Relay>>,
    Extension(address): Extension<ClientAddress>,
    mut request: Request,
) -> Response {
    let started = relay.clock.elapsed();
    let upgraded = hyper::upgrade::on(&mut request);
    let judged = {
        let _turn = relay.token_checks.acquire().await;
        judge(&relay, &request)
    };
    let admitted = match judged {
        Ok((key, grant)) => take_permits_from_older(&relay, &grant, address)
            .await
            .map_err(|no_room| no_room.refusal(&relay))
            .map(|permits| (key, grant, permits)),
        Err(error) => Err(error),
    };
    relay.metrics.handshake_seconds.record(relay.clock.elapsed().saturating_sub(started));
    let (key, grant, permits) = match admitted {
        Ok(admitted) => admitted,
        Err(error) => return error.into_response(),
    };
    let task = become_session(Arc::clone(&relay), upgraded, grant, address, permits);
    relay.tasks.spawn("upgrade", task);
    let accept = HeaderValue::from_str(key.as_str()).unwrap_or(HeaderValue::from_static(""));
    let headers = [
        (CONNECTION, HeaderValue::from_static("upgrade")),
        (UPGRADE, HeaderValue::from_static("websocket")),
        (SEC_WEBSOCKET_ACCEPT, accept),
    ];
    (StatusCode::SWITCHING_PROTOCOLS, headers).into_response()
}

/// Judges a request, the cheapest reasons first.
fn judge(relay: &Relay, request: &Request) -> Result<(AcceptKey, Grant), ApiError> {
    let outcomes = &relay.metrics.handshakes;
    match relay.phase() {
        Phase::Joining => {
            outcomes.joining.increment(1);
            return Err(ApiError::joining());
        }
        Phase::Serving => {}
        Phase::Draining => {
            outcomes.draining.increment(1);
            return Err(ApiError::draining());
        }
    }
    let key =
        check_upgrade(request.method(), request.version(), request.headers()).map_err(|error| {
            outcomes.malformed.increment(1);
            let refusal = ApiError::new(error.status(), error.code(), error.to_string());
            error.headers().iter().fold(refusal, |refusal, (name, value)| {
                refusal.header(name, HeaderValue::from_static(value))
            })
        })?;
    let grant = authenticate(relay, request.headers(), request.uri())
        .inspect_err(|_| outcomes.unauthorized.increment(1))?;
    Ok((key, grant))
}

/// The token's grant; the header wins over the query.
fn authenticate(relay: &Relay, headers: &HeaderMap, uri: &Uri) -> Result<Grant, ApiError> {
    let token = bearer(headers).map(Cow::Borrowed).or_else(|| token_in_query(uri));
    let token = token.ok_or_else(no_token)?;
    relay.registry.verify(&token, relay.clock.wall()).map_err(|error| unauthorized(&error))
}

fn token_in_query(uri: &Uri) -> Option<Cow<'_, str>> {
    let mut fields = form_urlencoded::parse(uri.query()?.as_bytes());
    fields.find(|(name, _)| name == "token").map(|(_, token)| token)
}

/// Takes permits; where there are none, those of the agent's older session, which this one replaces
/// anyway. That one is left alone if its permits are of no use.
async fn take_permits_from_older(
    relay: &Relay,
    grant: &Grant,
    address: ClientAddress,
) -> Result<Permits, NoRoom> {
    let no_room = match take_permits(relay, address) {
        Err(no_room) => no_room,
        taken => return taken,
    };
    let older = relay.sessions.get(grant.agent().as_str());
    let Some(older) = older.filter(|older| no_room.ends_with(older, address)) else {
        return Err(no_room);
    };
    older.close(CloseCode::Replaced, REPLACED);
    drop(older);
    let retry = async {
        loop {
            sleep(OLDER_ENDS_ROUND).await;
            if let Ok(taken) = take_permits(relay, address) {
                return taken;
            }
        }
    };
    timeout(OLDER_ENDS, retry).await.map_err(|_| no_room)
}

fn take_permits(relay: &Relay, address: ClientAddress) -> Result<Permits, NoRoom> {
    let address = relay.addresses.connect(address.ip).map_err(NoRoom::ForAddress)?;
    let session = Arc::clone(&relay.permits).try_acquire_owned().map_err(|_| NoRoom::OnNode)?;
    Ok(Permits { _session: session, _address: address })
}

impl NoRoom {
    /// Whether there is room for a client from `address` once the session has ended.
    fn ends_with(self, session: &Session, address: ClientAddress) -> bool {
        match self {
            Self::OnNode => true,
            Self::ForAddress(_) => AddressLimits::are_one(session.from(), address.ip),
        }
    }

    /// Counts and words the refusal.
    fn refusal(self, relay: &Relay) -> ApiError {
        relay.metrics.handshakes.limited.increment(1);
        match self {
            Self::OnNode => {
                relay.metrics.limited.sessions.increment(1);
                let message = "the relay has as many connections as it may: try again later";
                ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "too_many_connections", message)
                    .retry_after(FULL_RETRY)
            }
            Self::ForAddress(too_many) => {
                relay.metrics.limited.connections.increment(1);
                let message = "too many connections from your address: close some first";
                ApiError::rate_limit(message, too_many.retry())
            }
        }
    }
}

fn no_token() -> ApiError {
    refuse_token(
        "unauthorized",
        "send your token: as Authorization: Bearer tok_…, or as ?token=tok_…",
    )
}

fn unauthorized(error: &TokenError) -> ApiError {
    let code = match error {
        TokenError::Invalid | TokenError::Unsupported(_) => "unauthorized",
        TokenError::Expired => "token_expired",
        TokenError::Revoked => "token_revoked",
    };
    refuse_token(code, error.to_string())
}

fn refuse_token(code: &'static str, message: impl Into<String>) -> ApiError {
    ApiError::new(StatusCode::UNAUTHORIZED, code, message)
        .header("www-authenticate", HeaderValue::from_static("Bearer"))
}

/// Waits until the answer is on its way, then starts the session as a task of its own, so that the
/// memory of this one is freed.
async fn become_session(
    relay: Arc<Relay>,
    upgraded: OnUpgrade,
    grant: Grant,
    address: ClientAddress,
    permits: Permits,
) {
    let upgraded = upgraded.await.map(Upgraded::downcast::<TokioIo<Connection>>);
    let Ok(Ok(parts)) = upgraded else { return relay.metrics.handshakes.broken.increment(1) };
    relay.metrics.handshakes.accepted.increment(1);
    let (reads, socket) = parts.io.into_inner().split();
    let (now, wall) = (relay.clock.elapsed(), relay.clock.wall());
    let limits = OutboxLimits {
        bytes: relay.config.limits.outbox_bytes_max,
        messages: relay.config.limits.outbox_messages_max,
    };
    let id = relay.next_session_id(wall);
    let (from, held) = (address.ip, relay.mesh().is_some());
    let opening = Opening { id, grant, from, socket, limits, held };
    let session = Arc::new(Session::new(opening, now, wall));
    let span = tracing::debug_span!("session", %id, agent = %session.agent(), from = %address.ip);
    let actor = span.in_scope(|| Actor::start(&relay, session, reads, &parts.read_buf, now, wall));
    let life = async move {
        actor.run().await;
        drop(permits);
    };
    relay.tasks.spawn("session", life.instrument(span));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_of_a_query() {
        let token = |uri: &str| token_in_query(&uri.parse().unwrap()).map(Cow::into_owned);
        assert_eq!(token("/arc?token=tok_abc").as_deref(), Some("tok_abc"));
        assert_eq!(token("/arc?x=1&token=tok_abc=&y").as_deref(), Some("tok_abc="));
        assert_eq!(token("/arc?token=tok_abc%3D").as_deref(), Some("tok_abc="));
        assert_eq!(token("/arc?tokens=a"), None);
        assert_eq!(token("/arc"), None);
    }
}
