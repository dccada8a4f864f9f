//! Links within one process: an in-memory network of named addresses, whose ways can be cut.
//!
//! Carries the same bytes as [`quic`](super::quic) and ends connections for the same reasons; it has
//! no certificates, so each host says which node it is and which secret it holds. For tests and
//! simulations.

mod line;

use std::{
    collections::{HashMap, HashSet},
    io,
    net::SocketAddr,
    sync::{Arc, Weak},
    time::Duration,
};

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::{Mutex as AsyncMutex, mpsc};

use self::line::{End, Line};
use super::transport::{ConnectError, Connection, IDLE_TIMEOUT, Incoming, Transport};
use crate::NodeId;

/// Dials that wait to be accepted by one host; more are turned away.
const BACKLOG: usize = 128;

/// Hosts and the ways between them.
#[derive(Clone, Default)]
pub struct MemoryNetwork {
    ways: Arc<Mutex<Ways>>,
}

#[derive(Default)]
struct Ways {
    hosts: HashMap<SocketAddr, Host>,
    cut: HashSet<(SocketAddr, SocketAddr)>,
    lines: Vec<Weak<Line>>,
}

#[derive(Clone)]
struct Host {
    node: NodeId,
    secret: String,
    dials: mpsc::Sender<Dial>,
}

struct Dial {
    from: SocketAddr,
    connection: Result<End, ConnectError>,
}

/// One host of a [`MemoryNetwork`].
pub struct MemoryTransport {
    network: MemoryNetwork,
    address: SocketAddr,
    node: NodeId,
    secret: String,
    dials: AsyncMutex<mpsc::Receiver<Dial>>,
}

impl MemoryNetwork {
    /// A network without hosts.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a host, or puts a new one in the place of one that crashed.
    pub fn host(&self, address: SocketAddr, node: NodeId, secret: &str) -> MemoryTransport {
        let (dials, accepts) = mpsc::channel(BACKLOG);
        let host = Host { node, secret: secret.to_owned(), dials };
        self.ways.lock().hosts.insert(address, host);
        MemoryTransport {
            network: self.clone(),
            address,
            node,
            secret: secret.to_owned(),
            dials: AsyncMutex::new(accepts),
        }
    }

    /// Lets nothing pass between two hosts. Connections end after [`IDLE_TIMEOUT`]; if the way is
    /// healed before, they go on and have lost nothing.
    pub fn cut(&self, a: SocketAddr, b: SocketAddr) {
        self.ways.lock().cut.insert(pair(a, b));
        self.between(a, b, |line| line.hold(true));
    }

    /// Ends a [`cut`](Self::cut).
    pub fn heal(&self, a: SocketAddr, b: SocketAddr) {
        self.ways.lock().cut.remove(&pair(a, b));
        self.between(a, b, |line| line.hold(false));
    }

    /// Breaks all connections between two hosts, so that both notice at once.
    pub fn kill(&self, a: SocketAddr, b: SocketAddr) {
        self.between(a, b, |line| line.lose("killed"));
    }

    /// Takes a host away without a word; its peers notice at once, as if it was restarted.
    pub fn crash(&self, address: SocketAddr) {
        let mut ways = self.ways.lock();
        ways.hosts.remove(&address);
        for line in ways.lines() {
            if line.touches(address) {
                line.lose("forgotten by the peer");
            }
        }
    }

    fn between(&self, a: SocketAddr, b: SocketAddr, each: impl Fn(&Line)) {
        for line in self.ways.lock().lines() {
            if line.touches(a) && line.touches(b) {
                each(&line);
            }
        }
    }
}

impl Ways {
    fn lines(&mut self) -> Vec<Arc<Line>> {
        self.lines.retain(|line| line.strong_count() > 0);
        self.lines.iter().filter_map(Weak::upgrade).collect()
    }

    /// Whom a dial reaches; none if the way is cut.
    fn reach(&self, from: SocketAddr, to: SocketAddr) -> Option<Result<Host, ConnectError>> {
        if self.cut.contains(&pair(from, to)) {
            return None;
        }
        let nobody = || ConnectError::Unreachable("nobody listens there".to_owned());
        Some(self.hosts.get(&to).cloned().ok_or_else(nobody))
    }
}

#[async_trait]
impl Transport for MemoryTransport {
    fn local_address(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }

    async fn dial(&self, address: SocketAddr) -> Result<Arc<dyn Connection>, ConnectError> {
        let reached = self.network.ways.lock().reach(self.address, address);
        let Some(host) = reached else {
            tokio::time::sleep(IDLE_TIMEOUT).await;
            return Err(ConnectError::Unreachable("timed out".to_owned()));
        };
        let host = host?;
        let gone = |_| ConnectError::Unreachable("nobody accepts there".to_owned());
        if host.secret != self.secret {
            let connection = Err(ConnectError::Distrusted);
            host.dials.try_send(Dial { from: self.address, connection }).map_err(gone)?;
            return Err(ConnectError::Distrusted);
        }
        let line = Line::new([(self.node, self.address), (host.node, address)]);
        self.network.ways.lock().lines.push(Arc::downgrade(&line));
        let connection = Ok(End::new(line.clone(), 1));
        host.dials.try_send(Dial { from: self.address, connection }).map_err(gone)?;
        Ok(Arc::new(End::new(line, 0)))
    }

    async fn accept(&self) -> Option<Incoming> {
        let Dial { from, connection } = self.dials.lock().await.recv().await?;
        let connection = connection.map(|end| Arc::new(end) as Arc<dyn Connection>);
        Some(Incoming { from: Some(from), connect: Box::pin(std::future::ready(connection)) })
    }

    async fn close(&self) {
        let mut ways = self.network.ways.lock();
        ways.hosts.remove(&self.address);
        for line in ways.lines() {
            line.leave(self.address);
        }
    }
}

/// A way is the same in both directions.
fn pair(a: SocketAddr, b: SocketAddr) -> (SocketAddr, SocketAddr) {
    (a.min(b), a.max(b))
}

/// The round trip of a network without distance.
const RTT: Duration = Duration::from_micros(50);
