//! The nodes of a simulated world: each a whole relay on a host of its own, from start to end and
//! start again.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use cluster::{
    Generation, Incarnation, NodeId, SessionId, UnixMillis,
    link::{
        Introduction, NodeKey,
        quic::{QuicSettings, QuicTransport},
    },
    membership::{Resolve, SeedAddress},
    registry::MemoryRegistry,
};
use node::{
    clock::Clock,
    config::Config,
    http::AdminToken,
    joining::{self, CLUSTER, Network},
    life::{Door, Node, Parts, Stop},
    metrics::Metrics,
    net::{Connection, Listener},
    relay::{Relay, VERSION},
};
use parking_lot::Mutex;
use rand::random;
use tls::mesh::{KeyExchange, MeshIdentity, Secret, Wall};
use tokio::sync::Notify;
use turmoil::net::TcpListener;

use super::{
    client::{self, host_name},
    counted::Counted,
    seen::Seen,
    udp::Udp,
};
use crate::core::{Life, history::Ending, message::agent_id};

/// The port of the mesh.
const MESH_PORT: u16 = 7946;

/// The port of the operators.
const OPS_PORT: u16 = 8081;

/// The true wall-clock time at a run's start.
pub(super) const EPOCH: UnixMillis = UnixMillis(1_800_000_000_000);

/// How many may speak HTTP with a node at a time.
const PLACES: usize = 1_000;

/// Longer than nodes are made to stand still: an agent that is out of reach is no slow reader.
const WRITE_DEADLINE: Duration = Duration::from_mins(1);

/// All nodes of a world.
pub(super) struct Nodes {
    places: Vec<Place>,
    secret: Secret,
    names: Arc<MemoryRegistry>,
    seen: Arc<Seen>,
}

/// A place where a node lives, and dies, and lives again.
struct Place {
    id: NodeId,
    region: String,
    /// How far its clock is from the true time.
    skew_ms: i64,
    /// What outlives its restarts on disk.
    key: NodeKey,
    start: Notify,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    lives: u64,
    running: Option<Running>,
}

/// A node that runs.
struct Running {
    relay: Arc<Relay>,
    stop: Stop,
    drains: bool,
}

impl Nodes {
    /// Nodes that have not started, in these regions and with clocks that are wrong by so much.
    pub(super) fn new(regions: &[usize], skews_ms: &[i64], seen: Arc<Seen>) -> Self {
        let place = |(region, skew_ms): (&usize, &i64)| Place {
            id: NodeId(random()),
            region: format!("region-{region}"),
            skew_ms: *skew_ms,
            key: NodeKey::generate(),
            start: Notify::new(),
            state: Mutex::default(),
        };
        Self {
            places: regions.iter().zip(skews_ms).map(place).collect(),
            secret: Secret::generate(),
            names: Arc::new(MemoryRegistry::new(None, || EPOCH)),
            seen,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    /// Lets a node start that waits for it.
    pub(super) fn start(&self, node: usize) {
        self.places[node].start.notify_one();
    }

    /// Tells a node to stop.
    pub(super) fn drain(&self, node: usize) {
        if let Some(running) = &mut self.places[node].state.lock().running {
            running.drains = true;
            running.stop.drain();
        }
    }

    /// A node is gone, with all that it knew. Its present life, if it was in one.
    pub(super) fn forget(&self, node: usize) -> Option<Life> {
        let was_running = self.places[node].state.lock().running.take().is_some();
        was_running.then(|| self.life(node))
    }

    pub(super) fn is_running(&self, node: usize) -> bool {
        self.places[node].state.lock().running.is_some()
    }

    pub(super) fn drains(&self, node: usize) -> bool {
        self.places[node].state.lock().running.as_ref().is_some_and(|running| running.drains)
    }

    /// A node's present life, or its last.
    pub(super) fn life(&self, node: usize) -> Life {
        Life { node, number: self.places[node].state.lock().lives }
    }

    /// What a node calls an agent's session, if it has one.
    pub(super) fn session(&self, node: usize, agent: usize) -> Option<SessionId> {
        let state = self.places[node].state.lock();
        let relay = &state.running.as_ref()?.relay;
        relay.sessions.get(agent_id(agent).as_str()).map(|session| session.id())
    }

    /// The link of a node to the present life of another: since when it is silent. None if there is
    /// no link.
    pub(super) fn link(&self, node: usize, to: usize) -> Option<Duration> {
        let peer = self.incarnation(to);
        let state = self.places[node].state.lock();
        let links = state.running.as_ref()?.relay.peers()?.links();
        links.iter().find(|link| link.peer.incarnation == peer).map(|link| link.silent_for)
    }

    /// What the nodes that run have counted.
    pub(super) fn counted(&self) -> Counted {
        let mut counted = Counted::default();
        for place in &self.places {
            if let Some(running) = &place.state.lock().running {
                running.relay.measure();
                counted.add(&running.relay.metrics.render());
            }
        }
        counted
    }

    fn incarnation(&self, node: usize) -> Incarnation {
        Incarnation { node: self.places[node].id, generation: Generation(self.life(node).number) }
    }

    /// The software of a node's host: waits for its start, runs, and waits for nothing when it has
    /// stopped.
    pub(super) async fn run(self: Arc<Self>, node: usize) -> turmoil::Result {
        self.places[node].start.notified().await;
        self.places[node].state.lock().lives += 1;
        let life = self.life(node);
        self.seen.note(format!("node-{node} starts, life {}", life.number));
        let stop = Stop::default();
        let relay = self.bring_up(node).await?;
        let running =
            Running { relay: Arc::clone(relay.relay()), stop: stop.clone(), drains: false };
        self.places[node].state.lock().running = Some(running);
        relay.run(stop).await?;
        self.seen.note(format!("node-{node} has stopped"));
        self.seen.life_ended(life, Ending::Drained);
        self.seen.with(|history, _| history.stops += 1);
        self.forget(node);
        std::future::pending().await
    }

    async fn bring_up(&self, node: usize) -> Result<Node, Box<dyn std::error::Error>> {
        let place = &self.places[node];
        let me = self.incarnation(node);
        let true_ms = EPOCH.plus(self.seen.now()).0;
        let clock = Clock::starting_at(UnixMillis(true_ms.saturating_add_signed(place.skew_ms)));
        let wall = clock.clone();
        let wall: Wall = Arc::new(move || Duration::from_millis(wall.wall().0));
        let identity = MeshIdentity::from_secret(&self.secret, None, me.node.0, wall)?;
        let settings = QuicSettings {
            identity: &identity,
            key: &place.key,
            key_exchange: KeyExchange::Classical,
            rng_seed: Some(random()),
        };
        let socket = Udp::bind(MESH_PORT, node, Arc::clone(&self.seen)).await?;
        let transport = QuicTransport::over(socket, &settings)?;
        let introduction = Introduction {
            incarnation: me,
            name: host_name(node),
            region: place.region.clone(),
            version: VERSION.into(),
            address: SocketAddr::new(turmoil::lookup(host_name(node)), MESH_PORT),
        };
        let network = Network {
            introduction,
            cluster: CLUSTER.to_owned(),
            seeds: self.seeds(),
            transport: Arc::new(transport),
            resolver: Arc::new(Dns),
        };
        let node = Node::start(Parts {
            me,
            config: config(node, &place.region),
            join: Some(joining::join(network, &clock)),
            clock,
            registry: Arc::clone(&self.names) as _,
            administration: Arc::clone(&self.names) as _,
            metrics: Metrics::new()?,
            admin: AdminToken::new("none"),
            public: door(client::PORT).await?,
            ops: door(OPS_PORT).await?,
            keeper: None,
            encryption: None,
            saves_subscriptions: false,
        })?;
        Ok(node)
    }

    /// Everybody asks the first three.
    fn seeds(&self) -> Vec<SeedAddress> {
        let seed = |node| SeedAddress { host: host_name(node), port: MESH_PORT };
        (0..self.places.len().min(3)).map(seed).collect()
    }
}

fn config(node: usize, region: &str) -> Config {
    let mut config =
        Config { node_name: host_name(node), region: region.to_owned(), ..Config::default() };
    // All agents are on one host, and write more than they should.
    let limits = &mut config.limits;
    (limits.rate_per_min, limits.rate_per_hour, limits.registrations_per_min) = (0, 0, 0);
    limits.handshakes_per_address = 0;
    config.timing.write_deadline = WRITE_DEADLINE;
    config
}

async fn door(port: u16) -> io::Result<Door> {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await?;
    Ok(Door { listener: Box::new(Incoming(listener)), places: PLACES })
}

/// Turmoil's listener, as a node knows one.
struct Incoming(TcpListener);

#[async_trait]
impl Listener for Incoming {
    async fn accept(&mut self) -> io::Result<(Connection, SocketAddr)> {
        let (stream, from) = self.0.accept().await?;
        Ok((Connection::of(stream), from))
    }
}

/// Turmoil's names.
struct Dns;

impl Resolve for Dns {
    async fn resolve(&self, seed: &SeedAddress) -> io::Result<Vec<SocketAddr>> {
        Ok(vec![SocketAddr::new(turmoil::lookup(seed.host.as_str()), seed.port)])
    }
}
