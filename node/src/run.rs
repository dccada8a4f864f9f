//! The relay's process: what it needs of the system, and the signals that end it.
//!
//! Everything else is the [node's](crate::life).

use std::{
    convert::Infallible,
    future::pending,
    io,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use cluster::{
    port,
    registry::{AtRest, OpenError, Place, Settings, SharedRegistry},
};
use socket2::Type;
use tokio::{
    net::TcpListener,
    runtime::Handle,
    signal::unix::{Signal, SignalKind, signal},
    sync::Notify,
    task::JoinSet,
    time::timeout,
};

use crate::{
    certificates::{CertificateError, Certificates},
    clock::Clock,
    config::Config,
    files,
    http::AdminToken,
    joining::{self, JoinError, Ready},
    life::{Door, Encryption, LifeError, Node, Parts, Stop},
    metrics::Metrics,
    peers::Join,
    relay::{Relay, TlsDoors, VERSION},
    supervisor::Supervisor,
};

/// Connections that the system keeps until they are accepted.
const BACKLOG: i32 = 1_024;

/// Founding a registry takes two fsyncs; a disk that needs longer is likely to fail.
const FOUNDING_PATIENCE: Duration = Duration::from_secs(5);

/// A disk that needs longer for the last fsync is not waited for.
const CLOSING_PATIENCE: Duration = Duration::from_secs(2);

/// What the registry does by itself.
type Keeper = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Why a relay did not start, or stopped by itself.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The data directory could not be used.
    #[error(
        "cannot use the data directory {}, which DATA_DIR sets: {why}; {}",
        dir.display(), disk_advice(why)
    )]
    DataDir {
        /// The directory.
        dir: PathBuf,
        /// Why.
        why: io::Error,
    },
    /// The registry could not be opened.
    #[error("cannot open the registry")]
    Registry(#[source] OpenError),
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
    /// Agents' TLS cannot be set up.
    #[error(transparent)]
    Certificates(#[from] CertificateError),
    /// The node cannot be one of its cluster.
    #[error(transparent)]
    Join(#[from] JoinError),
    /// Signals cannot be received.
    #[error("cannot receive signals")]
    Signals(#[source] io::Error),
    /// The service manager cannot be told how the relay is.
    #[error("cannot use the socket that NOTIFY_SOCKET names")]
    Supervisor(#[source] io::Error),
    /// The metrics could not be set up.
    #[error("cannot set up metrics: {0}")]
    Metrics(String),
    /// The node did not start, or stopped by itself.
    #[error(transparent)]
    Life(#[from] LifeError),
}

impl From<OpenError> for RunError {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Io { dir, source: why } => Self::DataDir { dir, why },
            other => Self::Registry(other),
        }
    }
}

/// What to do about a data directory that cannot be used.
fn disk_advice(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::PermissionDenied => format!(
            "let it belong to the user that runs the relay, which has the id {0} (`chown -R {0}` it)",
            rustix::process::geteuid().as_raw()
        ),
        io::ErrorKind::StorageFull => "make room on its disk".to_owned(),
        _ => "set it to a folder that the relay can make and write".to_owned(),
    }
}

/// Runs a relay until it is told to stop by SIGTERM or SIGINT, and then drains it. A second signal
/// stops it at once. SIGHUP has it look for new certificates, and does nothing else. A service manager that
/// wants to know is [told](Supervisor) how it is.
pub async fn run(mut config: Config) -> Result<(), RunError> {
    let clock = Clock::system();
    let supervisor = Supervisor::from_environment().map_err(RunError::Supervisor)?;
    let mut signals = Signals::new(config.tls.source().is_some()).map_err(RunError::Signals)?;
    let reload = Arc::new(Notify::new());
    let registry = open_registry(&config, &clock)?;
    let certificates = Certificates::open(&config, &clock, Arc::clone(&registry) as _)?;
    let (join, keeper, address) = tokio::select! {
        biased;
        signal = signals.next(&reload) => {
            tracing::info!(signal, "stopped before it listened");
            return Ok(());
        }
        prepared = prepare(&config, &clock, &registry) => prepared?,
    };
    let (token_file, admin_token) = cluster::admin::admin_token(&config.data_dir)
        .map_err(|source| RunError::AdminToken { dir: config.data_dir.clone(), source })?;
    let metrics = Metrics::new().map_err(|error| RunError::Metrics(error.to_string()))?;
    let public = match &certificates {
        Some(_) => listen((config.host, config.tls.port).into(), "TLS_PORT")?,
        None => listen((config.host, config.port).into(), "PORT")?,
    };
    let ops = listen((config.stats_host, config.stats_port).into(), "STATS_PORT")?;
    let addresses = (public.local_addr(), ops.local_addr());
    let (mut places, ops_places) = files::http_places(files::raise_file_limit());
    let encrypt = |certificates| encryption(&config, certificates, &public, &mut places, &reload);
    let encryption = certificates.map(encrypt).transpose()?;
    // No single address gets more than half of the places.
    let per_address = u32::try_from(places / 2).unwrap_or(u32::MAX).max(1);
    let limits = &mut config.limits;
    limits.handshakes_per_address = limits.handshakes_per_address.min(per_address);
    let node = Node::start(Parts {
        me: registry.identity(),
        config,
        clock,
        registry: Arc::clone(&registry) as _,
        administration: Arc::clone(&registry) as _,
        metrics,
        admin: AdminToken::new(admin_token),
        public: Door { listener: Box::new(public), places },
        ops: Door { listener: Box::new(ops), places: ops_places },
        join,
        keeper,
        encryption,
        saves_subscriptions: true,
    })?;
    if let (Ok(public), Ok(ops)) = addresses {
        tracing::info!(
            public = %public, ops = %ops, version = VERSION,
            mesh = address.map(tracing::field::display),
            admin_token_file = %token_file.display(), "listening"
        );
    }
    let stop = Stop::default();
    let relay = Arc::clone(node.relay());
    let ended = tokio::select! {
        ended = node.run(stop.clone()) => ended,
        never = signals.obey(&stop, &reload) => match never {},
        never = inform(supervisor, relay) => match never {},
    };
    close(&registry).await;
    tracing::info!("stopped");
    Ok(ended?)
}

/// Closes the registry's file, so that the next start finds nothing to repair.
async fn close(registry: &SharedRegistry) {
    if timeout(CLOSING_PATIENCE, registry.close()).await.is_err() {
        tracing::warn!(
            "the registry's disk hangs: its file is left as after a crash, which does no harm"
        );
    }
}

/// Tells the service manager, if there is one, how the relay is: from the threads that serve, so that it
/// hears nothing when they hang.
async fn inform(supervisor: Option<Supervisor>, relay: Arc<Relay>) -> Infallible {
    let mut telling = JoinSet::new();
    if let Some(supervisor) = supervisor {
        telling.spawn(supervisor.keep_informed(relay));
    }
    if let Some(Err(error)) = telling.join_next().await {
        tracing::error!(%error, "the service manager is told nothing any more: this is a bug");
    }
    pending().await
}

/// What encrypts the connections of `public`: half of the processors work at handshakes at most, so
/// that sessions have the others.
fn encryption(
    config: &Config,
    certificates: Arc<Certificates>,
    public: &TcpListener,
    places: &mut usize,
    reload: &Arc<Notify>,
) -> Result<Encryption, RunError> {
    let address = public.local_addr().unwrap_or((config.host, config.tls.port).into());
    let (redirect, http) = match config.tls.http_port {
        Some(port) => {
            let (door, http) = plain_http(config.host, port, places)?;
            (Some((door, address.port())), Some(http))
        }
        None => (None, None),
    };
    let doors = TlsDoors { address, http_port: http };
    let at_once = Handle::current().metrics().num_workers() / 2;
    Ok(Encryption { certificates, doors, at_once, redirect, reload: Arc::clone(reload) })
}

/// The way in for plain HTTP, which takes an eighth of the places, and its port.
fn plain_http(host: IpAddr, port: u16, places: &mut usize) -> Result<(Door, u16), RunError> {
    let listener = listen((host, port).into(), "HTTP_PORT")?;
    let address = listener.local_addr().unwrap_or((host, port).into());
    tracing::info!(http = %address, "listening, to send clients to https");
    let taken = places.div_ceil(8);
    *places = places.saturating_sub(taken).max(1);
    Ok((Door { listener: Box::new(listener), places: taken }, address.port()))
}

fn open_registry(config: &Config, clock: &Clock) -> Result<Arc<SharedRegistry>, OpenError> {
    let (clock, dir) = (clock.clone(), &config.data_dir);
    let (secret, previous) = (&config.mesh.secret, &config.mesh.previous_secret);
    let at_rest = AtRest::open(dir, secret.as_ref(), previous.as_ref())
        .map_err(|source| OpenError::Io { dir: dir.clone(), source })?;
    let now = Arc::new(move || clock.wall());
    SharedRegistry::open(dir, Settings { token_ttl: config.token_ttl, now, at_rest })
        .map_err(|error| error.among_others(!config.mesh.seeds.is_empty()))
}

/// What joins the node to others, or what its registry does by itself if it is alone; and where others
/// reach it. Looks up names and waits for the disk.
async fn prepare(
    config: &Config,
    clock: &Clock,
    registry: &Arc<SharedRegistry>,
) -> Result<(Option<Join>, Option<Keeper>, Option<SocketAddr>), RunError> {
    match joining::prepare(config, clock, registry).await? {
        Some(Ready { join, address }) => Ok((Some(join), None, Some(address))),
        None => Ok((None, Some(found_alone(registry).await), None)),
    }
}

/// Begins what the registry of a node that is alone does by itself, and returns it when it has founded
/// or read what it needs to serve; or after a while, for a disk may work again.
async fn found_alone(registry: &Arc<SharedRegistry>) -> Keeper {
    let mut keeper: Keeper = Box::pin(Arc::clone(registry).serve(Place::alone()));
    let informed = tokio::select! {
        () = &mut keeper => false,
        informed = timeout(FOUNDING_PATIENCE, registry.informed()) => informed.is_ok(),
    };
    if !informed {
        tracing::error!("the registry is of no use yet: nobody can register or connect");
    }
    keeper
}

fn listen(address: SocketAddr, variable: &'static str) -> Result<TcpListener, RunError> {
    let listen = || {
        let socket = port::bind(address, Type::STREAM)?;
        socket.set_nonblocking(true)?;
        socket.listen(BACKLOG)?;
        TcpListener::from_std(socket.into())
    };
    listen().map_err(|source| RunError::Listen { address, variable, source })
}

/// The signals that the process obeys.
#[derive(Debug)]
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
    /// Whether there is anything to be looked at anew.
    can_reload: bool,
}

impl Signals {
    fn new(can_reload: bool) -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
            can_reload,
        })
    }

    /// The first signal to stop drains, the second stops at once; SIGHUP has certificates looked at.
    async fn obey(mut self, stop: &Stop, reload: &Notify) -> Infallible {
        // Not as a field of the line: what is not logged is not evaluated, and would not be waited for.
        let signal = self.next(reload).await;
        tracing::info!(signal, "stopping");
        stop.drain();
        let signal = self.next(reload).await;
        tracing::warn!(signal, "stopping at once");
        stop.at_once();
        pending().await
    }

    async fn next(&mut self, reload: &Notify) -> &'static str {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return "SIGTERM",
                _ = self.interrupt.recv() => return "SIGINT",
                _ = self.hangup.recv() => self.reload(reload),
            }
        }
    }

    /// Who is told to reload must not end for having nothing to look at.
    fn reload(&self, reload: &Notify) {
        if self.can_reload {
            tracing::info!("SIGHUP: looking for new certificates");
            reload.notify_one();
        } else {
            tracing::info!(
                "SIGHUP: nothing to reload: there is no certificate, and settings are read at the start"
            );
        }
    }
}
