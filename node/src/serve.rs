//! Accepting connections and speaking HTTP on them, until they end or become sessions.

use std::{
    convert::Infallible,
    io::{self, ErrorKind},
    net::IpAddr,
    pin::pin,
    sync::Arc,
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    http::{
        HeaderValue, StatusCode, Version,
        header::{CONNECTION, HOST},
    },
    response::{IntoResponse, Response},
};
use hyper::{Request, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tower_service::Service;

use crate::{
    http::{
        ApiError,
        client_address::{ClientAddress, client_address},
    },
    limits::HandshakePermit,
    net::{Connection, Listener, proxy::read_header},
    relay::Relay,
};

/// Bytes of a request's line and headers together.
const HEAD_BYTES_MAX: usize = 16 * 1_024;

/// Headers of a request.
const HEADERS_MAX: usize = 64;

/// Connections that speak HTTP on the public listener at a time, beside the sessions; each takes
/// some 20 KiB.
pub const PUBLIC_CONNECTIONS_MAX: usize = 1_024;

/// Connections on the ops listener at a time.
pub const OPS_CONNECTIONS_MAX: usize = 64;

/// Of these, connections over their address' limit that are told so, instead of being dropped.
const REFUSALS_MAX: usize = 64;

/// How many handshake deadlines a connection may speak HTTP, however busy it is: so long can a
/// stranger hold a place that others need.
const LIFETIME_DEADLINES: u32 = 3;

/// A lack of room is spoken of at most this often.
const WARN_EVERY: Duration = Duration::from_mins(1);

/// How long to wait before accepting again when the system has no room.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// One listening socket and what it answers with.
#[derive(Debug)]
pub struct Server {
    relay: Arc<Relay>,
    router: Router,
    /// Whether the limits per address hold here.
    limited: bool,
    connections: Arc<Semaphore>,
    refusals: Arc<Semaphore>,
    stop: CancellationToken,
    /// When it was last said that a proxy did not say for whom it connects.
    unannounced: Mutex<Option<Duration>>,
}

/// What a connection holds while it speaks HTTP.
#[derive(Debug)]
struct Place {
    _connection: OwnedSemaphorePermit,
    _handshake: Option<HandshakePermit>,
    /// Held by connections that only get to hear that their address has too many.
    refusal: Option<OwnedSemaphorePermit>,
}

impl Server {
    /// The server of agents, which ends when `stop` is cancelled. Addresses may have only so many
    /// connections that are no sessions yet, and all together `places`.
    pub fn public(
        relay: Arc<Relay>,
        router: Router,
        places: usize,
        stop: CancellationToken,
    ) -> Self {
        Self::new(relay, router, true, places, stop)
    }

    /// The server of operators, which ends when `stop` is cancelled.
    pub fn ops(relay: Arc<Relay>, router: Router, places: usize, stop: CancellationToken) -> Self {
        Self::new(relay, router, false, places, stop)
    }

    fn new(
        relay: Arc<Relay>,
        router: Router,
        limited: bool,
        connections_max: usize,
        stop: CancellationToken,
    ) -> Self {
        let connections = Arc::new(Semaphore::new(connections_max));
        let refusals = Arc::new(Semaphore::new(REFUSALS_MAX));
        let unannounced = Mutex::default();
        Self { relay, router, limited, connections, refusals, stop, unannounced }
    }

    /// Accepts until it is stopped.
    pub async fn run(self, mut listener: Box<dyn Listener>) {
        let server = Arc::new(self);
        let mut warned: Option<Duration> = None;
        loop {
            let accepted = tokio::select! {
                () = server.stop.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => server.admit(stream, peer.ip()),
                Err(error) if is_the_peers(&error) => {}
                Err(error) => {
                    let now = server.relay.clock.elapsed();
                    if warned.is_none_or(|at| now.saturating_sub(at) >= WARN_EVERY) {
                        warned = Some(now);
                        tracing::warn!(%error, "cannot accept connections: is the open-file limit reached?");
                    }
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// Starts the connection's task, or drops the connection.
    fn admit(self: &Arc<Self>, stream: Connection, peer: IpAddr) {
        let Ok(connection) = Arc::clone(&self.connections).try_acquire_owned() else {
            return self.drop_one();
        };
        let server = Arc::clone(self);
        if self.limited && self.relay.config.proxy_protocol && self.is_proxy(peer) {
            let connection = server.speak_announced(stream, peer, connection);
            return self.relay.tasks.spawn("connection", connection);
        }
        let Some(place) = self.place(peer, connection) else { return self.drop_one() };
        self.relay.tasks.spawn("connection", server.speak(stream, peer, place));
    }

    fn drop_one(&self) {
        self.relay.metrics.limited.http.increment(1);
    }

    fn is_proxy(&self, peer: IpAddr) -> bool {
        let trusted = &self.relay.config.trusted_proxies;
        trusted.iter().any(|net| net.contains(&peer.to_canonical()))
    }

    fn place(&self, peer: IpAddr, connection: OwnedSemaphorePermit) -> Option<Place> {
        let (mut handshake, mut refusal) = (None, None);
        if self.limited && !self.is_proxy(peer) {
            handshake = self.relay.addresses.handshake(peer).ok();
            if handshake.is_none() {
                self.relay.metrics.limited.handshakes.increment(1);
                refusal = Some(Arc::clone(&self.refusals).try_acquire_owned().ok()?);
            }
        }
        Some(Place { _connection: connection, _handshake: handshake, refusal })
    }

    /// Lets the proxy say first for whom it connects; from then on the connection is that client's.
    async fn speak_announced(
        self: Arc<Self>,
        mut stream: Connection,
        proxy: IpAddr,
        connection: OwnedSemaphorePermit,
    ) {
        let deadline = self.relay.config.timing.handshake_deadline;
        let announced = tokio::select! {
            announced = timeout(deadline, read_header(&mut stream)) => announced,
            () = self.stop.cancelled() => return,
        };
        let client = match announced {
            Ok(Ok(client)) => client.unwrap_or(proxy),
            Ok(Err(error)) if error.kind() == ErrorKind::InvalidData => {
                return self.warn_unannounced(proxy, &error);
            }
            Ok(Err(_)) | Err(_) => return, // the proxy broke off, or says nothing
        };
        match self.place(client, connection) {
            Some(place) => self.speak(stream, client, place).await,
            None => self.drop_one(),
        }
    }

    fn warn_unannounced(&self, proxy: IpAddr, error: &io::Error) {
        let (mut warned, now) = (self.unannounced.lock(), self.relay.clock.elapsed());
        if warned.is_none_or(|at| now.saturating_sub(at) >= WARN_EVERY) {
            *warned = Some(now);
            tracing::warn!(
                %proxy, %error,
                "refused a proxy's connection that does not begin with a PROXY protocol header: \
                 switch it on there, or set PROXY_PROTOCOL=false here"
            );
        }
    }

    /// Speaks HTTP on one connection until it ends, becomes a session, or its time is over.
    async fn speak(self: Arc<Self>, stream: Connection, peer: IpAddr, place: Place) {
        let Self { relay, router, stop, .. } = &*self;
        let deadline = relay.config.timing.handshake_deadline;
        let refused = place.refusal.is_some();
        let service = service_fn(|request: Request<Incoming>| {
            answer(Arc::clone(relay), router.clone(), request, peer, refused)
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(deadline)
            .max_buf_size(HEAD_BYTES_MAX)
            .max_headers(HEADERS_MAX)
            .serve_connection(TokioIo::new(stream), service)
            .with_upgrades();
        let mut connection = pin!(connection);
        // However it ended, the client knows: it broke off, was too slow, or broke the rules.
        tokio::select! {
            _ = &mut connection => return drop(place),
            () = stop.cancelled() => {}
            () = sleep(deadline * LIFETIME_DEADLINES) => {}
        }
        // What was asked already is answered.
        connection.as_mut().graceful_shutdown();
        let _ = timeout(deadline, connection).await;
        drop(place);
    }
}

async fn answer(
    relay: Arc<Relay>,
    mut router: Router,
    request: Request<Incoming>,
    peer: IpAddr,
    refused: bool,
) -> Result<Response, Infallible> {
    let mut request = request.map(Body::new);
    let client = client_address(peer, request.headers(), &relay.config.trusted_proxies);
    if refused {
        return Ok(too_many_handshakes());
    }
    if request.version() == Version::HTTP_11 && request.headers().get_all(HOST).iter().count() != 1
    {
        // RFC 9112 section 3.2.
        let message = "a request has one host header";
        let refusal = ApiError::new(StatusCode::BAD_REQUEST, "invalid_request", message);
        return Ok(refusal.into_response());
    }
    let permit =
        if client.forwarded { relay.addresses.handshake(client.ip).map(Some) } else { Ok(None) };
    let Ok(_permit) = permit else {
        relay.metrics.limited.handshakes.increment(1);
        return Ok(too_many_handshakes());
    };
    request.extensions_mut().insert::<ClientAddress>(client);
    router.call(request).await
}

fn too_many_handshakes() -> Response {
    let message = "too many connections from your address are being opened: wait for some first";
    let mut response = ApiError::rate_limit(message, Duration::from_secs(1)).into_response();
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

/// Whether accepting failed because of the connection, not of the listener.
fn is_the_peers(error: &io::Error) -> bool {
    use ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}
