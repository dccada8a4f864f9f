//! What makes a process one node of a cluster: its identity, its place on the network and among those
//! that keep the names, and the mesh that it joins.

use std::{
    collections::BTreeSet,
    io,
    net::{IpAddr, SocketAddr, UdpSocket},
    path::PathBuf,
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use cluster::{
    link::{
        Introduction, NodeKey,
        quic::{QuicError, QuicSettings, QuicTransport},
        transport::Transport,
    },
    membership::{Dns, Resolve, SeedAddress},
    peering::{Application, Parts, Peering, Tasks},
    registry::{Place, Registry as _, SharedRegistry},
};
use futures_util::future::join_all;
use tls::mesh::{IdentityError, KeyExchange};
use tokio::{
    net::lookup_host,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    clock::Clock,
    config::{Advertise, Config},
    identity::Identity,
    office::{Cluster, Office, OverLinks},
    peers::{Join, Joined},
    relay::VERSION,
};

/// What nodes say that their cluster is. Certificates tell who is of it.
pub const CLUSTER: &str = "arc-relay";

/// How long it is looked whether this node stands among the seeds once more.
const AGAIN_PATIENCE: Duration = Duration::from_secs(1);
/// How often the seeds' names are looked up, until it is known which of them is this node: a machine that
/// has just started may have no DNS yet.
const LOOK_UPS: u32 = 5;

/// How long between two of these.
const LOOK_UP_PAUSE: Duration = Duration::from_secs(2);

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
    /// It stands twice among the seeds.
    #[error(
        "SEEDS names this node twice, as {0} and as {1}: name each node once, in the same way on all nodes"
    )]
    TwoSeeds(String, String),
    /// It may be one of the seeds, and does not know.
    #[error(
        "cannot tell whether this node is the seed {seed}, which is not found ({why}): mend the look-up \
         of its name, or set ADVERTISE to this node's own entry in SEEDS"
    )]
    Seat {
        /// The first seed that is not found.
        seed: SeedAddress,
        /// What the look-up said.
        why: io::Error,
    },
}

/// A node that is ready to join.
pub struct Ready {
    /// What joins it.
    pub join: Join,
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

/// What a node is to the registry.
struct Seat {
    registry: Arc<SharedRegistry>,
    seeds: Vec<String>,
    slot: Option<String>,
}

/// Prepares the node whose names are in `registry` to join the cluster that `config` names; none if it
/// names none.
pub async fn prepare(
    config: &Config,
    clock: &Clock,
    registry: &Arc<SharedRegistry>,
) -> Result<Option<Ready>, JoinError> {
    let mesh = &config.mesh;
    let Some(credentials) = mesh.credentials().filter(|_| !mesh.seeds.is_empty()) else {
        return Ok(None);
    };
    let me = registry.identity();
    let identity = Identity::new(credentials, me.node, clock)?;
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
    let slot = match own_seed(&seeds, mesh.advertise.as_ref(), address, &Dns).await {
        // It has been let in before: for a voter, the others remember which seed it is.
        Err(error) if registry.status().id.is_some() => {
            tracing::warn!(%error, "going on as a node that is no seed, until the next start");
            None
        }
        slot => slot?,
    };
    let seat = Seat {
        registry: Arc::clone(registry),
        slot,
        seeds: seeds.iter().map(ToString::to_string).collect(),
    };
    say_who_votes(&seat);
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
    let join = identity.kept_while(join_as(Some(seat), network, clock), transport);
    Ok(Some(Ready { join, address }))
}

/// Joins a node to others when the book of names is none of its business: a simulation gives all its
/// nodes one.
pub fn join<R: Resolve>(network: Network<R>, clock: &Clock) -> Join {
    join_as(None, network, clock)
}

fn join_as<R: Resolve>(seat: Option<Seat>, network: Network<R>, clock: &Clock) -> Join {
    let Network { introduction, cluster, seeds, transport, resolver } = network;
    let (clock, wall) = (clock.clone(), clock.clone());
    Box::new(move |relay, deliver, stop| {
        let registry = seat.as_ref().map(|seat| Arc::clone(&seat.registry));
        let office = Arc::new(Office::new(registry, relay));
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
        joined(seat, &peering, office, tasks, stop)
    })
}

fn joined<R: Resolve>(
    seat: Option<Seat>,
    peering: &Arc<Peering>,
    office: Arc<Office>,
    tasks: Tasks<R>,
    stop: CancellationToken,
) -> Joined {
    let keeper = seat.map(|Seat { registry, seeds, slot }| {
        let carry = Arc::new(OverLinks(Arc::downgrade(peering)));
        let place = Place { carry: Some(carry), seeds, slot };
        Box::pin(registry.serve(place)) as Pin<Box<dyn Future<Output = ()> + Send>>
    });
    let (runs, business) = (Arc::clone(peering), Arc::clone(&office));
    let driver = Box::pin(async move {
        tokio::select! {
            ended = tasks.run(stop) => if let Err(error) = ended {
                tracing::error!(%error, "the mesh has ended");
            },
            () = business.keep_up(&runs) => {}
        }
    });
    Joined {
        mesh: Arc::clone(peering.mesh()),
        peers: Arc::new(Cluster { peering: Arc::clone(peering), office }),
        driver,
        keeper,
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

/// How sure it is that a seed is this node itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Own {
    /// It stands for this node alone.
    Surely,
    /// It stands for others as well, as one name for all nodes does.
    AmongOthers,
}

/// Which of the seeds is this node itself, or none.
///
/// A node that is two of the seeds would be waited for twice, or have two votes: then the list is wrong.
async fn own_seed(
    seeds: &[SeedAddress],
    advertise: Option<&Advertise>,
    address: SocketAddr,
    resolver: &impl Resolve,
) -> Result<Option<String>, JoinError> {
    let is_named = |seed: &&SeedAddress| {
        advertise.is_some_and(|Advertise { host, port }| {
            *host == seed.host && port.unwrap_or(address.port()) == seed.port
        })
    };
    let found = match seeds.iter().find(is_named) {
        Some(seed) => Some((seed, Own::Surely)),
        None => found_in_time(address, seeds, resolver).await?,
    };
    let Some((seed, own)) = found else { return Ok(None) };
    let others = seeds.iter().filter(|other| *other != seed).map(async |other| {
        // One that is not found now is another's, which does not run yet.
        let own = timeout(AGAIN_PATIENCE, is_own(other, address, resolver)).await;
        (other, own.ok().and_then(Result::ok).flatten())
    });
    for (other, is_own) in join_all(others).await {
        if (own, is_own) == (Own::Surely, Some(Own::Surely)) {
            return Err(JoinError::TwoSeeds(seed.to_string(), other.to_string()));
        }
    }
    Ok(Some(seed.to_string()))
}

/// The seed that has this address. What is not found is looked up again for a while: a seed that does
/// not know that it is one is waited for in vain.
async fn found_in_time<'a>(
    address: SocketAddr,
    seeds: &'a [SeedAddress],
    resolver: &impl Resolve,
) -> Result<Option<(&'a SeedAddress, Own)>, JoinError> {
    let mut left = LOOK_UPS;
    loop {
        left -= 1;
        match seed_at(address, seeds, resolver).await {
            Err(error) if left > 0 => {
                tracing::warn!(%error, "looking again");
                sleep(LOOK_UP_PAUSE).await;
            }
            found => return found,
        }
    }
}

/// The seed that has this address; an error if none has, but not all are found.
async fn seed_at<'a>(
    address: SocketAddr,
    seeds: &'a [SeedAddress],
    resolver: &impl Resolve,
) -> Result<Option<(&'a SeedAddress, Own)>, JoinError> {
    let mut not_found = None;
    for seed in seeds {
        match is_own(seed, address, resolver).await {
            Ok(Some(own)) => return Ok(Some((seed, own))),
            Ok(None) => {}
            Err(why) => {
                not_found.get_or_insert(JoinError::Seat { seed: seed.clone(), why });
            }
        }
    }
    not_found.map_or(Ok(None), Err)
}

/// Whether a seed has this address.
async fn is_own(
    seed: &SeedAddress,
    address: SocketAddr,
    resolver: &impl Resolve,
) -> io::Result<Option<Own>> {
    let found: BTreeSet<_> = resolver.resolve(seed).await?.into_iter().collect();
    let own = if found.len() == 1 { Own::Surely } else { Own::AmongOthers };
    Ok(found.contains(&address).then_some(own))
}

fn say_who_votes(seat: &Seat) {
    let keepers = cluster::registry::voter_slots(&seat.seeds);
    if keepers.len() < seat.seeds.len() {
        tracing::warn!(
            keep_the_names = keepers.join(","),
            "1, 3 or 5 nodes keep the names: the other seeds do not"
        );
    }
    tracing::info!(
        keep_the_names = keepers.join(","),
        this_node = seat.slot.as_deref().unwrap_or("no seed"),
        "read from SEEDS who keeps the names"
    );
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a failed unwrap is a failed test
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use cluster::{Generation, Incarnation, link::memory::MemoryNetwork};
    use tokio::task::yield_now;

    use super::*;
    use crate::{deliver::Sink, relay::testing::relay};

    /// Seeds `a`, `b` and so on are at 10.0.0.1, 10.0.0.2 and so on; `gone` is not found, and nobody is
    /// by the first so many look-ups.
    struct Names {
        fails: usize,
        asked: AtomicUsize,
    }

    impl Names {
        fn failing(fails: usize) -> Self {
            Self { fails, asked: AtomicUsize::new(0) }
        }
    }

    impl Resolve for Names {
        async fn resolve(&self, seed: &SeedAddress) -> io::Result<Vec<SocketAddr>> {
            let is_early = self.asked.fetch_add(1, Ordering::Relaxed) < self.fails;
            match seed.host.as_bytes() {
                [letter] if !is_early => {
                    Ok(vec![SocketAddr::from(([10, 0, 0, letter - b'a' + 1], seed.port))])
                }
                _ => Err(io::Error::other("no such name")),
            }
        }
    }

    /// Which of the seeds a node at 10.0.0.`last` is.
    async fn own(seeds: &[&str], last: u8, names: &Names) -> Result<Option<String>, String> {
        let seed = |host: &&str| SeedAddress { host: (*host).to_owned(), port: 7_946 };
        let seeds: Vec<_> = seeds.iter().map(seed).collect();
        let address = SocketAddr::from(([10, 0, 0, last], 7_946));
        own_seed(&seeds, None, address, names).await.map_err(|error| error.to_string())
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_finds_its_seat_when_its_dns_comes_late() {
        let found = own(&["a", "b"], 2, &Names::failing(3)).await;
        assert_eq!(found, Ok(Some("b:7946".to_owned())));
        assert_eq!(own(&["a", "b"], 9, &Names::failing(3)).await, Ok(None));
    }

    #[tokio::test(start_paused = true)]
    async fn a_seed_that_is_not_found_matters_only_if_it_may_be_this_node() {
        let found = own(&["gone", "b"], 2, &Names::failing(0)).await;
        assert_eq!(found, Ok(Some("b:7946".to_owned())));
        let error = own(&["a", "gone"], 2, &Names::failing(0)).await.unwrap_err();
        assert!(error.contains("the seed gone:7946") && error.contains("no such name"), "{error}");
    }

    #[tokio::test]
    async fn a_seed_that_is_advertised_is_not_looked_up() {
        let seeds = [SeedAddress { host: "gone".into(), port: 7_946 }];
        let advertise = Advertise { host: "gone".into(), port: None };
        let address = SocketAddr::from(([10, 0, 0, 1], 7_946));
        let found = own_seed(&seeds, Some(&advertise), address, &Names::failing(0)).await;
        assert_eq!(found.unwrap().as_deref(), Some("gone:7946"));
    }

    #[tokio::test]
    async fn a_node_is_one_of_its_seeds_and_not_two() {
        let address = SocketAddr::from(([127, 0, 0, 1], 7_946));
        let own = async |seeds: &[(&str, u16)], advertise: Option<&str>| {
            let seed = |&(host, port): &(&str, u16)| SeedAddress { host: host.into(), port };
            let seeds: Vec<_> = seeds.iter().map(seed).collect();
            let host = |host: &str| Advertise { host: host.into(), port: None };
            own_seed(&seeds, advertise.map(host).as_ref(), address, &Dns).await
        };
        let here = ("127.0.0.1", 7_946);
        for (seeds, expected) in [
            (&[here, ("127.0.0.2", 7_946)][..], Some("127.0.0.1:7946")),
            (&[("127.0.0.2", 7_946), ("127.0.0.1", 1), here], Some("127.0.0.1:7946")),
            (&[("127.0.0.2", 7_946)], None),
        ] {
            assert_eq!(own(seeds, None).await.unwrap().as_deref(), expected);
        }
        let twice = own(&[("a.invalid", 7_946), here], Some("a.invalid")).await;
        let error = twice.expect_err("it is named twice").to_string();
        assert!(error.contains("a.invalid:7946 and as 127.0.0.1:7946"), "{error}");
    }

    #[tokio::test]
    async fn a_node_whose_end_comes_early_leaves_its_network_all_the_same() {
        let (relay, clock, _) = relay();
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
        let Joined { mesh, peers, driver, .. } =
            join(network, &clock)(&relay, Arc::new(Sink::new(&relay)), CancellationToken::new());
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
