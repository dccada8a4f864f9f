//! Accepting connections and speaking HTTP on them, until they end or become sessions.

use std::{
    convert::Infallible,
    future::pending,
    io::{self, ErrorKind},
    net::IpAddr,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
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
use hyper::{
    Request,
    body::{Frame, Incoming, SizeHint},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::{
    io::{AsyncWrite, AsyncWriteExt as _},
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
    net::{
        Connection, Listener,
        proxy::read_header,
        tls::{Acceptor, Begun, HandshakeError},
    },
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
/// stranger hold a place that others need. An operator's connection goes on for as long as its answer
/// is taken, for a backup takes its time; it ends when nothing was taken for so long.
const LIFETIME_DEADLINES: u32 = 3;

/// A lack of room is spoken of at most this often.
const WARN_EVERY: Duration = Duration::from_mins(1);

/// How long a connection that is being closed may take to hear why.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// How long to wait before accepting again when the system has no room.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// One listening socket and what it answers with.
#[derive(Debug)]
pub struct Server {
    relay: Arc<Relay>,
    router: Router,
    /// Whether the limits per address hold here.
    limited: bool,
    /// What encrypts connections; none if they are plain.
    acceptor: Option<Acceptor>,
    connections: Arc<Semaphore>,
    refusals: Arc<Semaphore>,
    stop: CancellationToken,
    /// When it was last said that a proxy did not say for whom it connects.
    unannounced: Mutex<Option<Duration>>,
}

/// A connection that is no session yet.
struct Visit {
    server: Arc<Server>,
    peer: IpAddr,
    /// When it was accepted.
    began: Duration,
    _handshake: Option<HandshakePermit>,
    /// Held by connections that only get to hear that their address has too many.
    refusal: Option<OwnedSemaphorePermit>,
}

/// An answer's body. HTTP takes its next part when the socket has taken most of those before.
struct Watched {
    body: Body,
    /// How often it did.
    taken: Arc<AtomicUsize>,
}

/// A visit's place among all of them.
enum Place {
    /// One that speaks HTTP.
    Plain(OwnedSemaphorePermit),
    /// One that is to be encrypted first.
    Encrypted(Acceptor, Begun),
}

impl Place {
    /// Returns when a newer connection has taken it.
    async fn overtaken(&self) {
        match self {
            Self::Plain(_) => pending().await,
            Self::Encrypted(_, begun) => begun.overtaken().await,
        }
    }
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
        Self { relay, router, limited, acceptor: None, connections, refusals, stop, unannounced }
    }

    /// The same, for encrypted connections.
    #[must_use]
    pub fn encrypted(self, acceptor: Option<Acceptor>) -> Self {
        Self { acceptor, ..self }
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
        if self.limited && self.relay.config.proxy_protocol && self.is_proxy(peer) {
            // Whose it is is known only when it is read, which takes a place.
            let Some(place) = self.place(true) else { return self.drop_one() };
            let connection = Arc::clone(self).listen_to_proxy(stream, peer, place);
            return self.relay.tasks.spawn("connection", connection);
        }
        let Some(visit) = self.visit(peer) else { return self.drop_one() };
        // Nobody's place is taken for the sake of a refusal.
        let Some(place) = self.place(visit.refusal.is_none()) else { return self.drop_one() };
        self.relay.tasks.spawn("connection", visit.go_on(stream, place));
    }

    /// A free place; if there is none, and it `may_overtake`, that of the oldest unfinished handshake.
    fn place(&self, may_overtake: bool) -> Option<Place> {
        let free = Arc::clone(&self.connections).try_acquire_owned().ok();
        match &self.acceptor {
            None => Some(Place::Plain(free?)),
            Some(_) if free.is_none() && !may_overtake => None,
            Some(acceptor) => {
                Some(Place::Encrypted(acceptor.clone(), acceptor.places.begin(free)?))
            }
        }
    }

    fn drop_one(&self) {
        self.relay.metrics.limited.http.increment(1);
    }

    fn is_proxy(&self, peer: IpAddr) -> bool {
        let trusted = &self.relay.config.trusted_proxies;
        trusted.iter().any(|net| net.contains(&peer.to_canonical()))
    }

    /// Takes what a connection of `peer` holds beside its place; none if its address may have no more.
    fn visit(self: &Arc<Self>, peer: IpAddr) -> Option<Visit> {
        let (handshake, refusal) = self.hold_address(peer)?;
        let (server, began) = (Arc::clone(self), self.relay.clock.elapsed());
        Some(Visit { server, peer, began, _handshake: handshake, refusal })
    }

    /// Lets the proxy say first for whom it connects; from then on the connection is that client's.
    async fn listen_to_proxy(self: Arc<Self>, mut stream: Connection, proxy: IpAddr, place: Place) {
        let deadline = self.relay.config.timing.handshake_deadline;
        let announced = tokio::select! {
            announced = timeout(deadline, read_header(&mut stream)) => announced,
            () = place.overtaken() => {
                return self.relay.metrics.tls.count_failure(&HandshakeError::Overtaken);
            }
            () = self.stop.cancelled() => return,
        };
        let client = match announced {
            Ok(Ok(client)) => client.unwrap_or(proxy),
            Ok(Err(error)) if error.kind() == ErrorKind::InvalidData => {
                return self.warn_unannounced(proxy, &error);
            }
            Ok(Err(_)) | Err(_) => return, // the proxy broke off, or says nothing
        };
        match self.visit(client) {
            Some(visit) => visit.go_on(stream, place).await,
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

    /// What a connection holds of its address' limit, or else of the room for refusals.
    fn hold_address(
        &self,
        peer: IpAddr,
    ) -> Option<(Option<HandshakePermit>, Option<OwnedSemaphorePermit>)> {
        if !self.limited || self.is_proxy(peer) {
            return Some((None, None));
        }
        if let Ok(handshake) = self.relay.addresses.handshake(peer) {
            return Some((Some(handshake), None));
        }
        self.relay.metrics.limited.handshakes.increment(1);
        let refusal = Arc::clone(&self.refusals).try_acquire_owned().ok()?;
        Some((None, Some(refusal)))
    }
}

impl Visit {
    /// Encrypts the connection, if it is to be, and speaks HTTP on it.
    async fn go_on(self, stream: Connection, place: Place) {
        match place {
            Place::Plain(place) => self.speak(stream, place).await,
            Place::Encrypted(acceptor, begun) => self.encrypt(acceptor, stream, begun).await,
        }
    }

    /// Encrypts the connection and speaks HTTP on it.
    async fn encrypt(self, acceptor: Acceptor, stream: Connection, begun: Begun) {
        let relay = &self.server.relay;
        let (deadline, metrics) = (relay.config.timing.handshake_deadline, &relay.metrics.tls);
        let accepted = acceptor.accept(stream, begun, deadline).await;
        metrics.seconds.record(self.spent());
        match accepted {
            Ok((stream, place)) => {
                metrics.count(&stream);
                if stream.is_challenge() {
                    // The certificate was the answer (RFC 8737, section 3).
                    return end(stream, b"").await;
                }
                self.speak(Connection::new(stream), place).await;
            }
            Err(error) => {
                metrics.count_failure(&error);
                tracing::debug!(from = %self.peer, %error, "no TLS handshake");
                if let HandshakeError::PlainHttp(stream) = error {
                    end(stream, tls_required().as_bytes()).await;
                }
            }
        }
    }

    /// Speaks HTTP on the connection until it ends, becomes a session, or its time is over.
    async fn speak(self, stream: Connection, place: OwnedSemaphorePermit) {
        let Server { relay, router, limited, stop, .. } = &*self.server;
        let deadline = relay.config.timing.handshake_deadline;
        let time_left = deadline.saturating_sub(self.spent());
        let (peer, refused) = (self.peer, self.refusal.is_some());
        let taken = Arc::new(AtomicUsize::new(0));
        let service = service_fn(|request: Request<Incoming>| {
            let (relay, router, taken) = (Arc::clone(relay), router.clone(), Arc::clone(&taken));
            async move {
                let answer = answer(relay, router, request, peer, refused).await;
                Ok::<_, Infallible>(answer.map(|body| Watched { body, taken }))
            }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            // Who has nothing more to say may wait for the answer. Of operators' streams an end would
            // be noticed late.
            .half_close(*limited)
            .header_read_timeout(time_left)
            .max_buf_size(HEAD_BYTES_MAX)
            .max_headers(HEADERS_MAX)
            .serve_connection(TokioIo::new(stream), service)
            .with_upgrades();
        let mut connection = pin!(connection);
        tokio::select! {
            biased; // whoever is late at several counts as late with the first
            ended = &mut connection => {
                // However it ended, the client knows: it broke off, was too slow, or broke the rules.
                if *limited && ended.is_err_and(|error| error.is_timeout()) {
                    relay.metrics.timed_out.head.increment(1);
                }
                return drop(place);
            }
            () = stop.cancelled() => {}
            () = self.time_is_over(&taken) => {
                if *limited {
                    relay.metrics.timed_out.lifetime.increment(1);
                }
            }
        }
        // What was asked already is answered.
        connection.as_mut().graceful_shutdown();
        let _ = timeout(deadline, connection).await;
        drop(place);
    }

    /// Returns when the connection has spoken HTTP for long enough. `taken` counts the parts of its
    /// answers that were taken.
    async fn time_is_over(&self, taken: &AtomicUsize) {
        let Server { relay, limited, .. } = &*self.server;
        loop {
            let before = taken.load(Ordering::Relaxed);
            sleep(relay.config.timing.handshake_deadline * LIFETIME_DEADLINES).await;
            if *limited || taken.load(Ordering::Relaxed) == before {
                return;
            }
        }
    }

    /// How long ago the connection was accepted.
    fn spent(&self) -> Duration {
        self.server.relay.clock.elapsed().saturating_sub(self.began)
    }
}

/// Says the last words on a connection, if it takes them, and closes it.
async fn end(mut stream: impl AsyncWrite + Unpin, last_words: &[u8]) {
    let said = async {
        stream.write_all(last_words).await?;
        stream.shutdown().await
    };
    let _ = timeout(LAST_WORDS, said).await;
}

/// What a client hears that speaks plain HTTP where TLS is spoken.
fn tls_required() -> String {
    let body = r#"{"error":"tls_required","message":"this port speaks TLS: use https, or wss for agents"}"#;
    format!(
        "HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\nconnection: close\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    )
}

async fn answer(
    relay: Arc<Relay>,
    mut router: Router,
    request: Request<Incoming>,
    peer: IpAddr,
    refused: bool,
) -> Response {
    let mut request = request.map(Body::new);
    let client = client_address(peer, request.headers(), &relay.config.trusted_proxies);
    if refused {
        return too_many_handshakes();
    }
    if request.version() == Version::HTTP_11 && request.headers().get_all(HOST).iter().count() != 1
    {
        // RFC 9112 section 3.2.
        let message = "a request has one host header";
        let refusal = ApiError::new(StatusCode::BAD_REQUEST, "invalid_request", message);
        return refusal.into_response();
    }
    let permit =
        if client.forwarded { relay.addresses.handshake(client.ip).map(Some) } else { Ok(None) };
    let Ok(_permit) = permit else {
        relay.metrics.limited.handshakes.increment(1);
        return too_many_handshakes();
    };
    request.extensions_mut().insert::<ClientAddress>(client);
    let Ok(answer) = router.call(request).await;
    answer
}

impl hyper::body::Body for Watched {
    type Data = <Body as hyper::body::Body>::Data;
    type Error = <Body as hyper::body::Body>::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let part = Pin::new(&mut self.body).poll_frame(cx);
        if part.is_ready() {
            self.taken.fetch_add(1, Ordering::Relaxed);
        }
        part
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
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

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a failed unwrap is a failed test
mod tests {
    use axum::routing::get;
    use bytes::Bytes;
    use futures_util::stream;
    use tokio::{
        io::{AsyncReadExt as _, DuplexStream, duplex},
        join,
    };

    use super::*;
    use crate::relay::testing::relay;

    /// Bytes of one part of the answer.
    const PART: usize = 64 * 1_024;

    /// How many there are of them.
    const PARTS: usize = 20;

    /// A client of a server made by `server`, whose answer comes in parts, each when the client takes it;
    /// and what the server does for it.
    fn connect(
        server: impl FnOnce(Arc<Relay>, Router, CancellationToken) -> Server,
    ) -> (DuplexStream, impl Future<Output = ()>) {
        let parts =
            || stream::iter((0..PARTS).map(|_| Ok::<_, Infallible>(Bytes::from(vec![7; PART]))));
        let router =
            Router::new().route("/", get(move || async move { Body::from_stream(parts()) }));
        let server = Arc::new(server(relay().0, router, CancellationToken::new()));
        let (visit, place) =
            (server.visit([127, 0, 0, 1].into()).unwrap(), server.place(true).unwrap());
        let (client, stream) = duplex(1_024);
        (client, visit.go_on(Connection::of(stream), place))
    }

    /// Asks, and takes a part of the answer each `pause`, so many times; how many bytes came.
    async fn take_slowly(client: &mut DuplexStream, pause: Duration, parts: usize) -> usize {
        client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await.unwrap();
        let mut all = Vec::new();
        for _ in 0..parts {
            sleep(pause).await;
            let mut part = client.take(PART as u64);
            if part.read_to_end(&mut all).await.is_err() {
                break;
            }
        }
        all.len()
    }

    fn ops(relay: Arc<Relay>, router: Router, stop: CancellationToken) -> Server {
        Server::ops(relay, router, 1, stop)
    }

    #[tokio::test(start_paused = true)]
    async fn an_operator_may_take_a_long_answer_slowly() {
        let (mut client, connection) = connect(ops);
        let taken = take_slowly(&mut client, Duration::from_secs(20), PARTS + 1);
        let ((), came) = join!(connection, taken);
        assert!(came > PART * PARTS, "in almost seven minutes came {came} bytes");
    }

    #[tokio::test(start_paused = true)]
    async fn who_takes_nothing_any_more_gives_its_place_back() {
        let (mut client, connection) = connect(ops);
        let taken = take_slowly(&mut client, Duration::from_secs(20), 2);
        let (ended, _) = join!(timeout(Duration::from_mins(3), connection), taken);
        ended.expect("the connection ends");
    }

    #[tokio::test(start_paused = true)]
    async fn a_strangers_time_is_over_however_busy_it_is() {
        let public = |relay, router, stop| Server::public(relay, router, 1, stop);
        let (mut client, connection) = connect(public);
        let taken = take_slowly(&mut client, Duration::from_secs(5), PARTS);
        let ((), came) = join!(connection, taken);
        assert!(came < PART * PARTS, "all {came} bytes came");
    }
}
