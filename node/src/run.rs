//! The life of a relay process: start, serve, look after its sessions, drain, stop.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use cluster::{
    Incarnation,
    registry::{LocalRegistry, OpenError, Options, Registry},
    subscription_store,
};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::{
    net::TcpListener,
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
    task::{JoinError, JoinSet},
    time::{MissedTickBehavior, interval, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    clock::Clock,
    config::Config,
    files,
    http::{AdminToken, ops_router, public_router},
    metrics::Metrics,
    relay::{Phase, Relay, VERSION},
    saving,
    serve::Server,
    session::{Due, End, Session},
    ws::CloseCode,
};

/// How often sessions are looked after.
const ROUND: Duration = Duration::from_secs(1);

/// Every so many rounds what is not needed any more is forgotten.
const ROUNDS_TO_FORGET: u64 = 10;

/// Connections that the system keeps until they are accepted.
const BACKLOG: i32 = 1_024;

/// What is left of the drain deadline for the last steps, once the sessions' time is over.
const LAST_STEPS: Duration = Duration::from_millis(250);

/// Why a relay did not start, or stopped by itself.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The registry could not be opened.
    #[error("cannot open the registry")]
    Registry(#[from] OpenError),
    /// The subscriptions on disk could not be opened.
    #[error("cannot open the subscriptions")]
    Subscriptions(#[from] subscription_store::OpenError),
    /// The admin token could not be read or made.
    #[error("cannot read or make the admin token in {dir}")]
    AdminToken {
        /// Where it is kept.
        dir: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// An address could not be listened on.
    #[error("cannot listen on {address} (set by {variable})")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The variable that sets its port.
        variable: &'static str,
        /// Why.
        source: io::Error,
    },
    /// Signals cannot be received.
    #[error("cannot receive signals")]
    Signals(#[source] io::Error),
    /// The metrics could not be set up.
    #[error("cannot set up metrics: {0}")]
    Metrics(String),
    /// A part that the relay cannot do without ended.
    #[error("{0} ended by itself: this is a bug")]
    Essential(String),
}

/// Runs a relay until it is told to stop by SIGTERM or SIGINT, and then drains it. A second signal
/// stops it at once.
pub async fn run(mut config: Config) -> Result<(), RunError> {
    let mut signals = Signals::new().map_err(RunError::Signals)?;
    let clock = Clock::system();
    let registry = open_registry(&config, &clock)?;
    let (token_file, admin_token) = cluster::admin::admin_token(&config.data_dir)
        .map_err(|source| RunError::AdminToken { dir: config.data_dir.clone(), source })?;
    let metrics = Metrics::new().map_err(|error| RunError::Metrics(error.to_string()))?;
    let public = listen((config.host, config.port).into(), "PORT")?;
    let ops = listen((config.stats_host, config.stats_port).into(), "STATS_PORT")?;
    let addresses = (public.local_addr(), ops.local_addr());
    let (places, ops_places) = files::http_places(files::raise_file_limit());
    // No single address gets more than half of the places.
    let per_address = u32::try_from(places / 2).unwrap_or(u32::MAX).max(1);
    let limits = &mut config.limits;
    limits.handshakes_per_address = limits.handshakes_per_address.min(per_address);
    let relay = Arc::new(Relay::new(config, clock, registry, metrics));
    let store = saving::restore(&relay, Incarnation::default())?;

    let stop = CancellationToken::new();
    let mut essential = Essential::default();
    let admin = AdminToken::new(&admin_token);
    essential.spawn(
        "the public listener",
        Server::public(Arc::clone(&relay), public_router(Arc::clone(&relay)), places, stop.clone())
            .run(public),
    );
    essential.spawn(
        "the ops listener",
        Server::ops(
            Arc::clone(&relay),
            ops_router(Arc::clone(&relay), admin),
            ops_places,
            stop.clone(),
        )
        .run(ops),
    );
    essential.spawn("looking after sessions", look_after(Arc::clone(&relay), stop.clone()));
    let revocations = relay.registry.revocations();
    essential.spawn(
        "watching revocations",
        watch_revocations(Arc::clone(&relay), revocations, stop.clone()),
    );
    essential.spawn(
        "saving subscriptions",
        saving::save_changes(Arc::clone(&relay), store, stop.clone()),
    );
    relay.enter_phase(Phase::Serving);
    if let (Ok(public), Ok(ops)) = addresses {
        tracing::info!(
            public = %public, ops = %ops, version = VERSION,
            registered_agents = relay.registry.registered_agents(),
            admin_token_file = %token_file.display(), "listening"
        );
    }

    let ended = tokio::select! {
        name = signals.next() => { tracing::info!(signal = name, "stopping"); Ok(()) }
        error = essential.first_end() => Err(error),
    };
    tokio::select! {
        () = drain(&relay) => {}
        name = signals.next() => tracing::warn!(signal = name, "stopping at once"),
    }
    stop.cancel();
    // Requests under way are answered still: a registration that is decided must reach its agent.
    let _ = timeout(LAST_STEPS, relay.tasks.all_ended()).await;
    essential.all_ended(LAST_STEPS).await;
    tracing::info!("stopped");
    ended
}

fn open_registry(config: &Config, clock: &Clock) -> Result<Arc<dyn Registry>, RunError> {
    let clock = clock.clone();
    let options = Options { token_ttl: config.token_ttl, now: Arc::new(move || clock.wall()) };
    Ok(Arc::new(LocalRegistry::open(&config.data_dir, options)?))
}

fn listen(address: SocketAddr, variable: &'static str) -> Result<TcpListener, RunError> {
    let listener = match bind(address) {
        Err(error) if address.ip() == Ipv6Addr::UNSPECIFIED && !is_refused(&error) => {
            bind((Ipv4Addr::UNSPECIFIED, address.port()).into())
        }
        listener => listener,
    };
    listener.map_err(|source| RunError::Listen { address, variable, source })
}

/// Listens; on all IPv6 addresses means on all IPv4 addresses, too, whatever the system's default.
fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    // A restarted relay need not wait until the old one's connections are forgotten.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Whether the port may not be had; any other error may mean that the system has no IPv6.
fn is_refused(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::AddrInUse | io::ErrorKind::PermissionDenied)
}

/// Takes no new sessions, tells the old ones when to come back, and returns when all have ended or
/// the drain deadline is near.
async fn drain(relay: &Relay) {
    relay.enter_phase(Phase::Draining);
    let sessions = relay.sessions.all();
    tracing::info!(sessions = sessions.len(), "draining");
    for session in sessions.iter() {
        relay.send_away(session);
    }
    drop(sessions);
    let time = relay.config.timing.drain_deadline.saturating_sub(LAST_STEPS * 2);
    let empty = async {
        let mut tick = interval(Duration::from_millis(10));
        while relay.permits.available_permits() < relay.config.limits.max_connections {
            tick.tick().await;
        }
    };
    if timeout(time, empty).await.is_err() {
        let left = relay.config.limits.max_connections - relay.permits.available_permits();
        tracing::warn!(sessions = left, "the drain deadline is over: dropping the rest");
    }
}

/// Once a second: pings, silent sessions, stuck writes, expired tokens, and the books.
async fn look_after(relay: Arc<Relay>, stop: CancellationToken) {
    let mut rounds = 0_u64;
    let mut tick = interval(ROUND);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = tick.tick() => {}
        }
        relay.traffic.second();
        relay.addresses.sweep();
        for session in relay.sessions.all().iter() {
            look_after_session(&relay, session);
        }
        rounds += 1;
        if rounds.is_multiple_of(ROUNDS_TO_FORGET) {
            relay.forget();
            relay.metrics.upkeep();
        }
    }
}

fn look_after_session(relay: &Relay, session: &Session) {
    let now = relay.clock.elapsed();
    let dropped = &relay.metrics.dropped;
    match session.due(now, &relay.config.timing) {
        Due::Nothing => {}
        Due::Ping => dropped.slow_consumer.increment(session.ping(now) as u64),
        Due::Silent => dropped.session_lost.increment(session.kill(End::Silent) as u64),
        Due::Stuck => {
            let lost = session
                .close(CloseCode::SlowConsumer, "slow consumer: a write waited for too long");
            dropped.slow_consumer.increment(lost.unwrap_or_default() as u64);
        }
    }
    if let Err(error) = session.recheck(relay.clock.wall()) {
        session.close(CloseCode::TokenInvalid, &error.to_string());
    }
}

/// Closes open sessions whose tokens were revoked.
async fn watch_revocations(
    relay: Arc<Relay>,
    mut revocations: watch::Receiver<u64>,
    stop: CancellationToken,
) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            changed = revocations.changed() => if changed.is_err() { return },
        }
        for session in relay.sessions.all().iter() {
            if relay.registry.is_revoked(session.grant()) {
                session.close(CloseCode::TokenInvalid, "token revoked");
            }
        }
    }
}

/// The tasks without which the process is no relay.
#[derive(Debug, Default)]
struct Essential(JoinSet<&'static str>);

impl Essential {
    fn spawn(&mut self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        self.0.spawn(async move {
            task.await;
            name
        });
    }

    async fn first_end(&mut self) -> RunError {
        match self.0.join_next().await {
            Some(Ok(name)) => RunError::Essential(name.into()),
            Some(Err(error)) => RunError::Essential(name_of(&error)),
            None => RunError::Essential("everything".into()),
        }
    }

    /// Waits for their ends, and aborts what is left after `time`.
    async fn all_ended(mut self, time: Duration) {
        let _ = timeout(time, async { while self.0.join_next().await.is_some() {} }).await;
        self.0.shutdown().await;
    }
}

fn name_of(error: &JoinError) -> String {
    format!("a part of the relay ({error})")
}

/// The signals that end the process.
#[derive(Debug)]
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
