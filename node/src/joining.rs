//! What makes a process one node of a cluster: its identity, its place on the network, its part in the
//! registry, and the mesh that it joins.
//!
//! The first of the seeds is the registry's voter: it keeps the names. All other nodes observe.

use std::{
    collections::BTreeSet,
    future::pending,
    io,
    net::{IpAddr, SocketAddr, UdpSocket},
    path::PathBuf,
    sync::{Arc, OnceLock, Weak},
    time::Duration,
};

use async_trait::async_trait;
use cluster::{
    AgentId, Incarnation, NodeId,
    link::{
        Introduction, LinkCounters, LinkStatus, NodeKey,
        quic::{QuicError, QuicSettings, QuicTransport},
        transport::Transport,
    },
    membership::{Dns, Load, MemberCounters, Resolve, SeedAddress},
    peering::{Application, Parts, Peering, Tasks},
    registry::{AskVoter, LocalRegistry, NewsError, Observer, Registry, Voter},
};
use parking_lot::Mutex;
use tls::mesh::{IdentityError, KeyExchange};
use tokio::{
    net::lookup_host,
    time::{interval, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    clock::Clock,
    config::{Advertise, Config},
    identity::Identity,
    peers::{Join, Joined, NodeStatus, Peers},
    relay::{Relay, VERSION},
};

/// What a node tells another, but for what the mesh itself says: the first byte of each message.
mod news {
    /// The registry's [`Voter::news`](cluster::registry::Voter::news).
    pub(super) const REGISTRY: u8 = 1;
    /// How many names there are, eight bytes, big-endian.
    pub(super) const COUNT: u8 = 2;
    /// What [`Subscriptions`](crate::subscriptions::Subscriptions) tell.
    pub(super) const SUBSCRIPTIONS: u8 = 3;
}

/// What nodes say that their cluster is. Certificates tell who is of it.
pub const CLUSTER: &str = "arc-relay";

/// How long the last words may take.
const GOODBYE: Duration = Duration::from_millis(200);

/// A node that knows no names yet, and does not hear of any for so long, says for whom it waits.
const VOTER_PATIENCE: Duration = Duration::from_secs(2);

/// How often changes of subscriptions are told.
const SUBSCRIPTIONS_EVERY: Duration = Duration::from_millis(50);

/// Every so many of these rounds, one of the others is asked what it knows better: a minute.
const ROUNDS_TO_COMPARE: u32 = 1_200;

/// How often the count of names is told, and what was learned is saved.
const ROUND: Duration = Duration::from_secs(1);

/// Why a node cannot be one of a cluster.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// Its certificate or secret is of no use.
    #[error("cannot make this node's identity in the cluster")]
    Identity(#[from] IdentityError),
    /// Its key could not be read or made.
    #[error("cannot read or make mesh.key in {dir}", dir = dir.display())]
    Key {
        /// The data directory.
        dir: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Its mesh port cannot be used.
    #[error("cannot use the mesh's port (set by MESH_HOST and MESH_PORT)")]
    Port(#[from] QuicError),
    /// Nobody could reach it.
    #[error("cannot tell where other nodes reach this one ({0}): set ADVERTISE to host:port")]
    Advertise(String),
    /// It keeps names of its own.
    #[error(
        "{dir} holds {names} names of a relay that was alone, but the names of this cluster are \
         kept by its first seed, {voter}: make this node the first of SEEDS, or give it an empty \
         DATA_DIR", dir = dir.display()
    )]
    OwnNames {
        /// The data directory.
        dir: PathBuf,
        /// How many.
        names: u64,
        /// The first seed.
        voter: String,
    },
    /// What it knew of the registry cannot be read.
    #[error("cannot read what this node knows of the registry")]
    News(#[from] NewsError),
}

/// A node that is ready to join.
pub struct Ready {
    /// What joins it.
    pub join: Join,
    /// The registry, as this node reaches it.
    pub registry: Arc<dyn Registry>,
    /// Where other nodes reach it.
    pub address: SocketAddr,
}

/// A node's place on the network, and whom it looks for there.
pub struct Network<R> {
    /// What it says of itself.
    pub introduction: Introduction,
    /// Which cluster it is of.
    pub cluster: String,
    /// Whom it asks first.
    pub seeds: Vec<SeedAddress>,
    /// What carries its links.
    pub transport: Arc<dyn Transport>,
    /// Finds the seeds' addresses.
    pub resolver: Arc<R>,
}

/// Prepares the node of `local` to join the cluster that `config` names; none if it names none.
pub async fn prepare(
    config: &Config,
    clock: &Clock,
    local: &Arc<LocalRegistry>,
) -> Result<Option<Ready>, JoinError> {
    let mesh = &config.mesh;
    let Some(credentials) = mesh.credentials().filter(|_| !mesh.seeds.is_empty()) else {
        return Ok(None);
    };
    let me = local.incarnation();
    let node = me.node;
    let identity = Identity::new(credentials, node, clock)?;
    let key = NodeKey::open(&config.data_dir)
        .map_err(|source| JoinError::Key { dir: config.data_dir.clone(), source })?;
    let settings = QuicSettings {
        identity: identity.present(),
        key: &key,
        key_exchange: KeyExchange::default(),
        rng_seed: None,
    };
    let bound = SocketAddr::new(mesh.host, mesh.port);
    let transport = Arc::new(QuicTransport::bind(bound, &settings)?);
    let seeds = mesh.seeds.clone();
    let address = own_address(&transport, mesh.advertise.as_ref(), &seeds).await?;
    let part = Part::of(config, local, &seeds, address).await?;
    let registry: Arc<dyn Registry> = match &part {
        Part::Voter(_) => Arc::clone(local) as Arc<dyn Registry>,
        Part::Observer(observer, _) => Arc::clone(observer) as Arc<dyn Registry>,
    };
    let introduction = Introduction {
        incarnation: me,
        name: config.node_name.clone(),
        region: config.region.clone(),
        version: VERSION.into(),
        address,
    };
    let network = Network {
        introduction,
        cluster: CLUSTER.to_owned(),
        seeds,
        transport: Arc::clone(&transport) as Arc<dyn Transport>,
        resolver: Arc::new(Dns),
    };
    let join = identity.kept_while(join_as(Some(part), network, clock), transport);
    Ok(Some(Ready { join, registry, address }))
}

/// Joins a node to others when the book of names is none of its business: a simulation gives all its
/// nodes one.
pub fn join<R: Resolve>(network: Network<R>, clock: &Clock) -> Join {
    join_as(None, network, clock)
}

fn join_as<R: Resolve>(part: Option<Part>, network: Network<R>, clock: &Clock) -> Join {
    let Network { introduction, cluster, seeds, transport, resolver } = network;
    let (clock, wall) = (clock.clone(), clock.clone());
    Box::new(move |relay, deliver| {
        let office = Arc::new(Office {
            part,
            relay: Arc::downgrade(relay),
            living: Mutex::default(),
            gives_way: CancellationToken::new(),
        });
        let (peering, tasks) = Peering::new(Parts {
            introduction,
            cluster,
            seeds,
            transport,
            resolver,
            deliver,
            application: Arc::clone(&office) as Arc<dyn Application>,
            clock: Arc::new(move || clock.elapsed()),
            wall: Arc::new(move || wall.wall()),
        });
        joined(&peering, &office, tasks)
    })
}

fn joined<R: Resolve>(peering: &Arc<Peering>, office: &Arc<Office>, tasks: Tasks<R>) -> Joined {
    if let Some(Part::Observer(_, way)) = &office.part {
        let _ = way.peering.set(Arc::downgrade(peering));
    }
    let (runs, business) = (Arc::clone(peering), Arc::clone(office));
    let driver = Box::pin(async move {
        let stop = CancellationToken::new();
        tokio::select! {
            ended = tasks.run(stop.clone()) => if let Err(error) = ended {
                tracing::error!(%error, "the mesh has ended");
            },
            () = business.keep_up(&runs) => {}
        }
    });
    Joined {
        mesh: Arc::clone(peering.mesh()),
        peers: Arc::new(Cluster { peering: Arc::clone(peering), office: Arc::clone(office) }),
        driver,
    }
}

/// Where other nodes reach this one: as configured, or the address that it is bound to, or that which
/// it has on the way to the first seed that can be found.
async fn own_address(
    transport: &QuicTransport,
    advertise: Option<&Advertise>,
    seeds: &[SeedAddress],
) -> Result<SocketAddr, JoinError> {
    let unknown = |error: io::Error| JoinError::Advertise(error.to_string());
    let bound = transport.local_address().map_err(unknown)?;
    if let Some(Advertise { host, port }) = advertise {
        let port = port.unwrap_or(bound.port());
        let mut found = lookup_host((host.as_str(), port)).await.map_err(|error| {
            JoinError::Advertise(format!("ADVERTISE is {host}, which is not found: {error}"))
        })?;
        return found.next().ok_or_else(|| JoinError::Advertise(format!("{host} has no address")));
    }
    if !bound.ip().is_unspecified() {
        return Ok(bound);
    }
    let mut why = "none of the seeds is found".to_owned();
    for seed in seeds {
        match on_the_way_to(seed).await {
            Ok(ip) => return Ok(SocketAddr::new(ip, bound.port())),
            Err(error) => why = format!("{seed}: {error}"),
        }
    }
    Err(JoinError::Advertise(why))
}

/// This machine's address on the way to a seed. Nothing is sent.
async fn on_the_way_to(seed: &SeedAddress) -> io::Result<IpAddr> {
    let mut found = lookup_host((seed.host.as_str(), seed.port)).await?;
    let to = found.next().ok_or_else(|| io::Error::other("it has no address"))?;
    let any: IpAddr = if to.is_ipv4() { [0; 4].into() } else { [0_u16; 8].into() };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(to)?;
    Ok(socket.local_addr()?.ip())
}

/// A node's part in the registry.
enum Part {
    /// It keeps the names.
    Voter(Voter),
    /// It asks who does.
    Observer(Arc<Observer>, Arc<WayToVoter>),
}

impl Part {
    async fn of(
        config: &Config,
        local: &Arc<LocalRegistry>,
        seeds: &[SeedAddress],
        address: SocketAddr,
    ) -> Result<Self, JoinError> {
        let Some(first) = seeds.first() else { return Ok(Self::Voter(Voter::new(local.clone()))) };
        if is_own(first, config.mesh.advertise.as_ref(), address).await {
            return Ok(Self::Voter(Voter::new(Arc::clone(local))));
        }
        let names = local.registered_agents();
        if names > 0 {
            let voter = first.to_string();
            return Err(JoinError::OwnNames { dir: config.data_dir.clone(), names, voter });
        }
        let first = format!("{}:{}", first.host, first.port);
        let way = Arc::new(WayToVoter { first, ..WayToVoter::default() });
        let observer = Observer::open(&config.data_dir, Arc::clone(&way) as Arc<dyn AskVoter>)?;
        Ok(Self::Observer(Arc::new(observer), way))
    }
}

/// Whether a seed is this node itself.
async fn is_own(seed: &SeedAddress, advertise: Option<&Advertise>, address: SocketAddr) -> bool {
    let port = |advertise: &Advertise| advertise.port.unwrap_or(address.port());
    if advertise.is_some_and(|own| own.host == seed.host && port(own) == seed.port) {
        return true;
    }
    let found = lookup_host((seed.host.as_str(), seed.port)).await;
    found.is_ok_and(|mut found| found.any(|found| found == address))
}

/// The way to the node that keeps the names: whoever tells of them.
#[derive(Default)]
struct WayToVoter {
    /// The seed that it should be.
    first: String,
    peering: OnceLock<Weak<Peering>>,
    voter: Mutex<Option<NodeId>>,
}

#[async_trait]
impl AskVoter for WayToVoter {
    async fn ask(&self, request: Vec<u8>) -> Option<Vec<u8>> {
        let voter = (*self.voter.lock())?;
        self.peering.get()?.upgrade()?.ask(voter, request).await
    }
}

/// What nodes say to each other beside the mesh.
struct Office {
    /// Its part in the registry; none if the names are kept elsewhere.
    part: Option<Part>,
    relay: Weak<Relay>,
    living: Mutex<BTreeSet<Incarnation>>,
    /// Cancelled when there is another voter, and this node is the one to stop.
    gives_way: CancellationToken,
}

impl Office {
    /// Tells the others what is new, and saves what was learned, until it is dropped or has to give way
    /// to another voter.
    async fn keep_up(&self, peering: &Peering) {
        let registry = async {
            match &self.part {
                Some(Part::Voter(voter)) => tell_news(voter, peering).await,
                Some(Part::Observer(observer, _)) => save_news(observer).await,
                None => pending().await,
            }
        };
        let both = async { tokio::join!(registry, self.tell_subscriptions(peering)) };
        let _ = self.gives_way.run_until_cancelled(both).await;
    }

    async fn tell_subscriptions(&self, peering: &Peering) {
        let mut round = interval(SUBSCRIPTIONS_EVERY);
        for number in 1_u32.. {
            round.tick().await;
            let Some(relay) = self.relay.upgrade() else { return };
            let news = relay.subscriptions.write().take_news();
            for body in news {
                peering.tell_all(&tagged(news::SUBSCRIPTIONS, &body));
            }
            if number.is_multiple_of(ROUNDS_TO_COMPARE) {
                self.note_lost_homes();
                let peers = peering.links();
                if let Some(peer) = peers.get(rand::random_range(0..peers.len().max(1))) {
                    let digest = relay.subscriptions.read().digest();
                    let to = peer.peer.incarnation.node;
                    peering.tell(to, tagged(news::SUBSCRIPTIONS, &digest));
                }
            }
        }
    }

    /// A record may name a home that ended before this node knew of either.
    fn note_lost_homes(&self) {
        let Some(relay) = self.relay.upgrade() else { return };
        let (living, now) = (self.living.lock(), relay.time());
        relay.subscriptions.write().homes_lost(now, |home| living.contains(&home));
    }

    /// What a peer told of subscriptions, and what it is to be told in return.
    fn told_subscriptions(&self, from: Incarnation, body: &[u8]) -> Vec<Vec<u8>> {
        let Some(relay) = self.relay.upgrade() else { return Vec::new() };
        let (now, ttl) = (relay.time(), relay.config.subscription_ttl);
        let told = relay.subscriptions.write().told(body, now, ttl);
        let answers = told.unwrap_or_else(|error| {
            tracing::warn!(%error, from = %from, "cannot take subscriptions");
            Vec::new()
        });
        answers.iter().map(|body| tagged(news::SUBSCRIPTIONS, body)).collect()
    }
}

/// Takes the registry's news from whoever tells them.
fn learn(from: Incarnation, observer: &Observer, way: &WayToVoter, news: &[u8]) {
    match observer.learn(news) {
        Ok(()) => {
            let before = way.voter.lock().replace(from.node);
            if before != Some(from.node) {
                tracing::info!(voter = %from, "found the node that keeps the names");
            }
        }
        Err(error) => tracing::error!(%error, from = %from, "cannot take the registry's news"),
    }
}

async fn tell_news(voter: &Voter, peering: &Peering) {
    let mut revocations = voter.changes();
    let mut round = interval(ROUND);
    let mut told = 0;
    loop {
        tokio::select! {
            changed = revocations.changed() => {
                if changed.is_err() {
                    return;
                }
                peering.tell_all(&tagged(news::REGISTRY, &voter.news()));
            }
            _ = round.tick() => {
                let names = voter.registered_agents();
                if std::mem::replace(&mut told, names) != names {
                    peering.tell_all(&tagged(news::COUNT, &names.to_be_bytes()));
                }
            }
        }
    }
}

/// The disk is written by a thread of its own.
async fn save_news(observer: &Arc<Observer>) {
    let mut round = interval(ROUND);
    loop {
        round.tick().await;
        if observer.is_unsaved() {
            let observer = Arc::clone(observer);
            let saved = tokio::task::spawn_blocking(move || observer.save()).await;
            if let Ok(Err(error)) = saved {
                tracing::error!(%error, "cannot save what this node knows of the registry");
            }
        }
    }
}

fn tagged(tag: u8, body: &[u8]) -> Vec<u8> {
    [&[tag], body].concat()
}

#[async_trait]
impl Application for Office {
    fn linked(&self, _: &Introduction) -> Vec<Vec<u8>> {
        let mut first = Vec::new();
        if let Some(Part::Voter(voter)) = &self.part {
            first.push(tagged(news::REGISTRY, &voter.news()));
        }
        if let Some(relay) = self.relay.upgrade() {
            let digest = relay.subscriptions.read().digest();
            first.push(tagged(news::SUBSCRIPTIONS, &digest));
        }
        first
    }

    fn living(&self, nodes: &BTreeSet<Incarnation>) {
        self.living.lock().clone_from(nodes);
        self.note_lost_homes();
    }

    fn told(&self, from: Incarnation, body: &[u8]) -> Vec<Vec<u8>> {
        if let Some((&news::SUBSCRIPTIONS, body)) = body.split_first() {
            return self.told_subscriptions(from, body);
        }
        match (&self.part, body.split_first()) {
            (Some(Part::Observer(observer, way)), Some((&news::REGISTRY, news))) => {
                learn(from, observer, way, news);
            }
            (Some(Part::Observer(observer, _)), Some((&news::COUNT, names))) => {
                if let Ok(names) = names.try_into() {
                    observer.learn_count(u64::from_be_bytes(names));
                }
            }
            (Some(Part::Voter(voter)), Some((&news::REGISTRY, news))) => {
                let stops = voter.gives_way(from.node, news);
                tracing::error!(
                    from = %from, this_node_stops = stops,
                    "two nodes think that they are the first of SEEDS, and names could be given twice: \
                     give all nodes the same list, and each an ADVERTISE of its own"
                );
                if stops {
                    self.gives_way.cancel();
                }
            }
            _ => {}
        }
        Vec::new()
    }

    async fn asked(&self, _: Incarnation, body: Vec<u8>) -> Vec<u8> {
        match &self.part {
            Some(Part::Voter(voter)) => voter.answer(&body).await,
            _ => Vec::new(),
        }
    }
}

/// The other nodes, as this one works with them.
struct Cluster {
    peering: Arc<Peering>,
    office: Arc<Office>,
}

#[async_trait]
impl Peers for Cluster {
    fn nodes(&self) -> Vec<NodeStatus> {
        let rings = self.peering.mesh().rings();
        let members = self.peering.membership().members().borrow().clone();
        let status = |member: &cluster::membership::Member| {
            let ring = rings.ring(&member.region);
            let ring_share = ring.map_or(0.0, |ring| ring.share(member.node()));
            NodeStatus { member: member.clone(), ring_share }
        };
        members.iter().map(status).collect()
    }

    fn links(&self) -> Vec<LinkStatus> {
        self.peering.links()
    }

    fn with_counters(&self, look: &mut dyn FnMut(&LinkCounters, &MemberCounters)) {
        let members = self.peering.membership().counters();
        self.peering.with_counters(|links| look(links, members));
    }

    async fn home_of(&self, agent: &AgentId) -> Option<NodeId> {
        self.peering.whereabouts(agent).await.map(|session| session.node)
    }

    fn carry(&self, load: Load) {
        self.peering.set_load(load);
    }

    async fn joined(&self) {
        let mut joined = self.peering.membership().joined();
        // An error means that the mesh has ended, which stops the node.
        let _ = joined.wait_for(|joined| *joined).await;
        if let Some(Part::Observer(observer, way)) = &self.office.part
            && timeout(VOTER_PATIENCE, observer.informed()).await.is_err()
        {
            tracing::warn!(
                first_seed = way.first,
                "this node has never heard from the node that keeps the names, and takes no agents \
                 before it has: start the first of SEEDS"
            );
            observer.informed().await;
        }
    }

    async fn displaced(&self) {
        let mut displaced = self.peering.membership().displaced();
        if displaced.wait_for(|displaced| *displaced).await.is_err() {
            // The mesh has ended, which stops the node.
            std::future::pending::<()>().await;
        }
    }

    fn leave(&self) {
        self.peering.leave();
    }

    async fn goodbye(&self) {
        self.peering.say_goodbye(GOODBYE).await;
    }
}

#[cfg(test)]
mod tests {
    use cluster::{Generation, link::memory::MemoryNetwork};
    use tokio::task::yield_now;

    use super::*;
    use crate::{deliver::Sink, relay::testing::relay};

    #[tokio::test]
    async fn a_node_whose_end_comes_early_leaves_its_network_all_the_same() {
        let (relay, clock, _folder) = relay();
        let address = SocketAddr::from(([127, 0, 0, 1], 7_946));
        let incarnation = Incarnation { node: relay.node, generation: Generation(1) };
        let transport = Arc::new(MemoryNetwork::new().host(address, relay.node, "secret"));
        let (name, region, version) = ("node".into(), "default".into(), VERSION.into());
        let network = Network {
            introduction: Introduction { incarnation, name, region, version, address },
            cluster: "cluster".into(),
            seeds: Vec::new(),
            transport: Arc::clone(&transport) as Arc<dyn Transport>,
            resolver: Arc::new(Dns),
        };
        let Joined { mesh, peers, driver } =
            join(network, &clock)(&relay, Arc::new(Sink::new(&relay)));
        relay.join(mesh, peers);
        tokio::select! {
            biased;
            () = driver => unreachable!("nobody stops it"),
            () = yield_now() => {}
        }
        drop(relay);
        // Gossip's task sees its end when it runs next.
        for _ in 0..10 {
            yield_now().await;
        }
        assert_eq!(Arc::strong_count(&transport), 1);
    }
}
