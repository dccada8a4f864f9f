//! The life of a node: it joins the others, serves, looks after its sessions, drains, and stops.
//!
//! Everything that is the process's own, signals, limits, binding and where names are kept, is given:
//! so a simulation runs the same node on a network and a clock of its own, many in one process.

use std::{convert::Infallible, future::pending, pin::Pin, sync::Arc, time::Duration};

use cluster::{
    Incarnation,
    registry::{Administration, Registry},
    subscription_store,
};
use tokio::{
    sync::Notify,
    task::{JoinError, JoinSet},
    time::timeout,
};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{
    certificates::{Certificates, keep_fresh},
    clock::Clock,
    config::Config,
    deliver::Sink,
    drain::{LAST_STEPS, LAST_WORDS, drain},
    http::{AdminToken, ops_router, public_router, redirect_router},
    metrics::Metrics,
    net::{Listener, tls::Acceptor},
    peers::Join,
    relay::{Phase, Relay, TlsDoors},
    saving,
    serve::Server,
    subscriptions::Subscriptions,
    tasks::Spare,
    traces, upkeep,
    watch::{self, Kind, Level},
};

/// What the node does for those who look at it.
const WATCHING: Spare =
    Spare { name: "watching the cluster", without: "events and the dashboard show nothing new" };
const ASKING: Spare = Spare {
    name: "asking what others see",
    without: "the dashboard shows the links of this node alone",
};
const TRACING: Spare =
    Spare { name: "handing traces on", without: "the collector gets no traces of this node" };

/// What a node is made of.
pub struct Parts {
    /// Which node it is, and which of its lives.
    pub me: Incarnation,
    /// How it is configured. Addresses, ports, logging and the registry's settings mean nothing here.
    pub config: Config,
    /// Its time.
    pub clock: Clock,
    /// Which names and tokens are good.
    pub registry: Arc<dyn Registry>,
    /// What the administrator does to them.
    pub administration: Arc<dyn Administration>,
    /// What it counts.
    pub metrics: Metrics,
    /// What the admin API asks for.
    pub admin: AdminToken,
    /// Where agents come in.
    pub public: Door,
    /// Where operators look.
    pub ops: Door,
    /// What joins it to other nodes; none if it is alone.
    pub join: Option<Join>,
    /// What the registry of a node that is alone does by itself; others' is joined with the node.
    pub keeper: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    /// What encrypts agents' connections; none if they are plain.
    pub encryption: Option<Encryption>,
    /// Whether subscriptions are kept in the data directory; else they end with the node.
    pub saves_subscriptions: bool,
}

/// What encrypts agents' connections.
pub struct Encryption {
    /// What agents are shown.
    pub certificates: Arc<Certificates>,
    /// Where agents come in, and where clients of plain HTTP do: as it is bound.
    pub doors: TlsDoors,
    /// Handshakes that are worked at at the same time.
    pub at_once: usize,
    /// Where clients of plain HTTP are sent to the encrypted port, which is named beside it; none if
    /// they are not.
    pub redirect: Option<(Door, u16)>,
    /// Asks for the certificates to be looked at now.
    pub reload: Arc<Notify>,
}

/// A way in.
pub struct Door {
    /// Accepts connections.
    pub listener: Box<dyn Listener>,
    /// How many may speak HTTP at a time.
    pub places: usize,
}

/// Tells a node to stop.
#[derive(Clone, Debug, Default)]
pub struct Stop {
    drain: CancellationToken,
    at_once: CancellationToken,
}

/// Why a node did not start, or stopped by itself.
#[derive(Debug, thiserror::Error)]
pub enum LifeError {
    /// The subscriptions on disk could not be opened.
    #[error("cannot open the subscriptions")]
    Subscriptions(#[from] subscription_store::OpenError),
    /// A part that the node cannot do without ended.
    #[error("{0} ended by itself: if the log does not say why, this is a bug")]
    Essential(String),
    /// The others take a process that was started later for this node: what goes on here would be cut
    /// off from them.
    #[error(
        "another process has this node's id, and its place in the cluster: the data directory was \
         copied; empty one of the two"
    )]
    Displaced,
}

/// A node that has started.
#[derive(Debug)]
pub struct Node {
    relay: Arc<Relay>,
    essential: Essential,
    stop: CancellationToken,
    /// The registry goes on until requests under way are answered.
    end: CancellationToken,
    /// As long as there may be more to be seen.
    watched: DropGuard,
}

impl Stop {
    /// Lets the node drain, and then stop.
    pub fn drain(&self) {
        self.drain.cancel();
    }

    /// Lets the node stop without waiting for its agents any longer.
    pub fn at_once(&self) {
        self.drain.cancel();
        self.at_once.cancel();
    }
}

impl Node {
    /// Starts a node: it listens when this returns, and takes agents at once if it is alone. Else it
    /// does when it has joined the others, for which it must be [run](Self::run).
    pub fn start(parts: Parts) -> Result<Self, LifeError> {
        let Parts { me, config, clock, registry, administration, metrics, admin, .. } = parts;
        let relay = Arc::new(Relay::new(me.node, config, clock, registry, metrics));
        *relay.subscriptions.write() = Subscriptions::restored(me, Vec::new(), relay.clock.wall());
        let store = parts.saves_subscriptions.then(|| saving::restore(&relay, me)).transpose()?;
        let (stop, end) = (CancellationToken::new(), CancellationToken::new());
        let mut essential = Essential::default();
        let mut keeper = parts.keeper;
        match parts.join {
            Some(join) => {
                let joined = join(&relay, Arc::new(Sink::new(&relay)), stop.clone());
                relay.join(joined.mesh, joined.peers);
                keeper = joined.keeper.or(keeper);
                essential.spawn("the mesh", joined.driver);
            }
            None => relay.enter_phase(Phase::Serving),
        }
        if let Some(keeper) = keeper {
            essential.spawn_until(end.clone(), "the registry", keeper);
        }
        let acceptor = parts.encryption.map(|it| encrypt(&relay, it, &mut essential, &stop));
        let public = public_router(Arc::clone(&relay));
        let ops = ops_router(Arc::clone(&relay), administration, admin);
        let server = Server::public(Arc::clone(&relay), public, parts.public.places, stop.clone());
        let server = server.encrypted(acceptor);
        essential.spawn("the public listener", server.run(parts.public.listener));
        relay.watch.open(parts.ops.places);
        let server = Server::ops(Arc::clone(&relay), ops, parts.ops.places, stop.clone());
        essential.spawn("the ops listener", server.run(parts.ops.listener));
        let upkeep = upkeep::look_after(Arc::clone(&relay), stop.clone());
        essential.spawn("looking after sessions", upkeep);
        essential.spawn_spare(&relay, &stop, WATCHING, watch::watch);
        essential.spawn_spare(&relay, &stop, ASKING, watch::ask_others);
        essential.spawn_spare(&relay, &end, TRACING, traces::export);
        let revocations = relay.registry.revocations();
        let watching = upkeep::watch_revocations(Arc::clone(&relay), revocations, stop.clone());
        essential.spawn("watching revocations", watching);
        if let Some(store) = store {
            let saving = saving::save_changes(Arc::clone(&relay), store, stop.clone());
            essential.spawn("saving subscriptions", saving);
        }
        let watched = watch::begin(&relay);
        Ok(Self { relay, essential, stop, end, watched })
    }

    /// What its connections and sessions share.
    pub fn relay(&self) -> &Arc<Relay> {
        &self.relay
    }

    /// Runs until it is told to stop, or cannot go on, and has drained. Whoever drops this instead
    /// ends the listeners and the upkeep; connections and sessions end with the runtime.
    pub async fn run(mut self, stop: Stop) -> Result<(), LifeError> {
        let ended = tokio::select! {
            () = stop.drain.cancelled() => Ok(()),
            () = self.relay.asked_to_leave() => Ok(()),
            error = self.essential.first_end() => Err(error),
            () = displaced(&self.relay) => Err(LifeError::Displaced),
            never = serve_when_joined(&self.relay) => match never {},
        };
        let begun = self.relay.clock.elapsed();
        let drained = tokio::select! {
            () = drain(&self.relay) => true,
            () = stop.at_once.cancelled() => false,
        };
        self.stop.cancel();
        drop(self.watched);
        // Requests under way are answered still: a registration that is decided must reach its agent.
        let _ = timeout(LAST_STEPS, self.relay.tasks.all_ended()).await;
        self.end.cancel();
        let taken = self.relay.clock.elapsed().saturating_sub(begun);
        let left = self.relay.config.timing.drain_deadline.saturating_sub(taken);
        let most = if drained { LAST_WORDS } else { LAST_STEPS };
        self.essential.all_ended(left.clamp(LAST_STEPS, most)).await;
        ended
    }
}

/// Takes agents as soon as the others are found.
async fn serve_when_joined(relay: &Relay) -> Infallible {
    if let Some(peers) = relay.peers() {
        peers.joined().await;
        relay.enter_phase(Phase::Serving);
        tracing::info!(links = peers.links().len(), "joined: taking agents");
    }
    pending().await
}

async fn displaced(relay: &Relay) {
    match relay.peers() {
        Some(peers) => peers.displaced().await,
        None => pending().await,
    }
}

/// The tasks without which the node is no relay, and those that are begun anew.
#[derive(Debug, Default)]
struct Essential(JoinSet<&'static str>);

/// Starts what belongs to encryption; what encrypts the public listener's connections.
fn encrypt(
    relay: &Arc<Relay>,
    encryption: Encryption,
    essential: &mut Essential,
    stop: &CancellationToken,
) -> Acceptor {
    let Encryption { certificates, doors, at_once, redirect, reload } = encryption;
    relay.encrypt(Arc::clone(&certificates), doors);
    if let Some((door, port)) = redirect {
        let router = redirect_router(Arc::clone(certificates.served()), port);
        let server = Server::public(Arc::clone(relay), router, door.places, stop.clone());
        essential.spawn("the listener of plain HTTP", server.run(door.listener));
    }
    if certificates.orders().is_some() {
        let ordering = Arc::clone(&certificates);
        let orders = async move {
            if let Some(orders) = ordering.orders() {
                orders.run().await;
            }
        };
        essential.spawn_until(stop.clone(), "getting certificates", orders);
    }
    let acceptor = Acceptor::new(Arc::clone(certificates.config()), at_once);
    let fresh = keep_fresh(Arc::clone(relay), certificates, reload, stop.clone());
    essential.spawn("keeping certificates fresh", fresh);
    acceptor
}

impl Essential {
    fn spawn(&mut self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        self.0.spawn(async move {
            task.await;
            name
        });
    }

    fn spawn_until(
        &mut self,
        stop: CancellationToken,
        name: &'static str,
        task: impl Future<Output = ()> + Send + 'static,
    ) {
        self.spawn(name, async move {
            let _ = stop.run_until_cancelled(task).await;
        });
    }

    /// Does what agents do not need, and does it again if it dies.
    fn spawn_spare<F: Future<Output = ()> + Send + 'static>(
        &mut self,
        relay: &Arc<Relay>,
        stop: &CancellationToken,
        spare: Spare,
        begin: impl Fn(Arc<Relay>, CancellationToken) -> F + Send + Sync + 'static,
    ) {
        let (relay, stop) = (Arc::clone(relay), stop.clone());
        self.spawn(spare.name, async move {
            let tell = |text| watch::note(&relay, Level::Error, Kind::Relay, text);
            let begin = || begin(Arc::clone(&relay), stop.clone());
            spare.go_on(&relay.metrics.panics, &stop, tell, begin).await;
        });
    }

    async fn first_end(&mut self) -> LifeError {
        match self.0.join_next().await {
            Some(Ok(name)) => LifeError::Essential(name.into()),
            Some(Err(error)) => LifeError::Essential(name_of(&error)),
            None => LifeError::Essential("everything".into()),
        }
    }

    /// Waits for their ends, and aborts what is left after this time.
    async fn all_ended(mut self, time: Duration) {
        let _ = timeout(time, async { while self.0.join_next().await.is_some() {} }).await;
        self.0.shutdown().await;
    }
}

fn name_of(error: &JoinError) -> String {
    format!("a part of the relay ({error})")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a failed unwrap is a failed test
mod tests {
    use std::{io, net::SocketAddr};

    use async_trait::async_trait;
    use cluster::{
        Generation, NodeId, UnixMillis,
        link::{LinkCounters, LinkStatus},
        membership::{Load, MemberCounters},
        registry::{Claim, MemoryRegistry},
    };
    use parking_lot::Mutex;
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex},
        sync::mpsc,
        task::yield_now,
        time::sleep,
    };

    use super::*;
    use crate::{
        net::Connection,
        peers::{Joined, NodeStatus, Peers, testing::mesh},
    };

    /// Connections that are made in memory; none at all if nobody can make any.
    struct Memory(Option<mpsc::Receiver<DuplexStream>>);

    #[async_trait]
    impl Listener for Memory {
        async fn accept(&mut self) -> io::Result<(Connection, SocketAddr)> {
            let connected = match &mut self.0 {
                Some(made) => made.recv().await,
                None => None,
            };
            let Some(stream) = connected else { return pending().await };
            Ok((Connection::of(stream), ([127, 0, 0, 1], 1).into()))
        }
    }

    /// Notes what the node told the others.
    #[derive(Default)]
    struct Others {
        found: Notify,
        displaced: Notify,
        told: Mutex<Vec<&'static str>>,
    }

    #[async_trait]
    impl Peers for Others {
        fn nodes(&self) -> Vec<NodeStatus> {
            Vec::new()
        }

        fn links(&self) -> Vec<LinkStatus> {
            Vec::new()
        }

        fn with_counters(&self, _: &mut dyn FnMut(&LinkCounters, &MemberCounters)) {}

        async fn home_of(&self, _: &cluster::AgentId) -> Option<cluster::NodeId> {
            None
        }

        fn carry(&self, _: Load) {}

        async fn joined(&self) {
            self.found.notified().await;
        }

        async fn displaced(&self) {
            self.displaced.notified().await;
        }

        fn leave(&self) {
            self.told.lock().push("I leave");
        }

        async fn goodbye(&self) {
            self.told.lock().push("goodbye");
        }
    }

    /// What joins a node to `peers`, by a mesh that runs as long as `driver`, and has something to say when
    /// it is stopped.
    fn join(peers: &Arc<Others>, driver: impl Future<Output = ()> + Send + 'static) -> Join {
        let peers = Arc::clone(peers);
        Box::new(move |_, deliver, stop| {
            let others = Arc::clone(&peers);
            let driver = async move {
                if stop.run_until_cancelled(driver).await.is_none() {
                    yield_now().await;
                    others.told.lock().push("that was all");
                }
            };
            let driver = Box::pin(driver);
            Joined { mesh: mesh(NodeId(7), deliver), peers, driver, keeper: None }
        })
    }

    fn start(join: Option<Join>, public: Option<mpsc::Receiver<DuplexStream>>) -> Node {
        let clock = Clock::starting_at(UnixMillis(1_800_000_000_000));
        let now = clock.clone();
        let names = Arc::new(MemoryRegistry::new(None, move || now.wall()));
        let door = |made| Door { listener: Box::new(Memory(made)), places: 1 };
        let parts = Parts {
            me: Incarnation { node: NodeId(7), generation: Generation(1) },
            config: Config::default(),
            clock,
            registry: Arc::clone(&names) as _,
            administration: names,
            metrics: Metrics::new().unwrap(),
            admin: AdminToken::new("secret"),
            public: door(public),
            ops: door(None),
            join,
            keeper: None,
            encryption: None,
            saves_subscriptions: false,
        };
        Node::start(parts).unwrap()
    }

    #[tokio::test]
    async fn a_node_serves_when_it_has_found_the_others_and_tells_them_when_it_goes() {
        let others = Arc::new(Others::default());
        let node = start(Some(join(&others, pending())), None);
        let (relay, stop) = (Arc::clone(node.relay()), Stop::default());
        assert_eq!(relay.phase(), Phase::Joining);
        let operator = async {
            yield_now().await;
            assert_eq!(relay.phase(), Phase::Joining, "the others are not found yet");
            others.found.notify_one();
            while relay.phase() == Phase::Joining {
                yield_now().await;
            }
            assert_eq!(relay.phase(), Phase::Serving);
            stop.drain();
        };
        let (ended, ()) = tokio::join!(node.run(stop.clone()), operator);
        ended.unwrap();
        assert_eq!(relay.phase(), Phase::Draining);
        assert_eq!(*others.told.lock(), ["I leave", "goodbye", "that was all"]);
    }

    /// Asks for a session, and reads on until `last` has come.
    async fn connect(mut stream: DuplexStream, token: &str, last: &str) -> String {
        let request = format!(
            "GET /arc HTTP/1.1\r\nHost: node\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
             Authorization: Bearer {token}\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut got = Vec::new();
        while !String::from_utf8_lossy(&got).contains(last) {
            assert_ne!(stream.read_buf(&mut got).await.unwrap(), 0, "no {last}");
        }
        String::from_utf8_lossy(&got).into_owned()
    }

    #[tokio::test]
    async fn a_node_serves_agents_over_any_network() {
        let (network, arriving) = mpsc::channel(1);
        let node = start(None, Some(arriving));
        let (relay, stop) = (Arc::clone(node.relay()), Stop::default());
        let agent = async {
            let token = relay.registry.register(None, Claim::random()).await.unwrap().token;
            let (stream, theirs) = duplex(64);
            network.send(theirs).await.unwrap();
            let operator = async {
                while relay.sessions.is_empty() {
                    yield_now().await;
                }
                stop.drain();
            };
            let (got, ()) = tokio::join!(connect(stream, &token, "retry_ms"), operator);
            assert!(got.contains("101 Switching") && got.contains("welcome"), "{got}");
        };
        let (ended, ()) = tokio::join!(node.run(stop.clone()), agent);
        ended.unwrap();
    }

    #[tokio::test]
    async fn tokens_are_checked_one_after_the_other() {
        let (network, arriving) = mpsc::channel(1);
        let node = start(None, Some(arriving));
        let (relay, stop) = (Arc::clone(node.relay()), Stop::default());
        let agent = async {
            let turn = relay.token_checks.acquire().await.unwrap();
            let token = relay.registry.register(None, Claim::random()).await.unwrap().token;
            let (stream, theirs) = duplex(4_096);
            network.send(theirs).await.unwrap();
            let operator = async {
                for _ in 0..100 {
                    yield_now().await;
                }
                assert!(relay.sessions.is_empty(), "another token is being checked");
                drop(turn);
                while relay.sessions.is_empty() {
                    yield_now().await;
                }
                stop.drain();
            };
            tokio::join!(connect(stream, &token, "retry_ms"), operator);
        };
        let (ended, ()) = tokio::join!(node.run(stop.clone()), agent);
        ended.unwrap();
    }

    #[tokio::test]
    async fn a_node_whose_place_another_process_has_drains_and_stops() {
        let others = Arc::new(Others::default());
        let node = start(Some(join(&others, pending())), None);
        let relay = Arc::clone(node.relay());
        others.displaced.notify_one();
        let error = node.run(Stop::default()).await.unwrap_err();
        assert!(matches!(error, LifeError::Displaced), "{error}");
        assert_eq!(relay.phase(), Phase::Draining);
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_goes_on_without_what_agents_do_not_need() {
        let mut node = start(None, None);
        let (relay, stop, end) = (Arc::clone(node.relay()), Stop::default(), node.stop.clone());
        let spare = Spare { name: "looking", without: "nobody looks" };
        node.essential.spawn_spare(&relay, &end, spare, |_, _| async { panic!("cannot look") });
        let operator = async {
            sleep(Duration::from_secs(10)).await;
            assert!(relay.metrics.panics_so_far() >= 3, "it was begun anew twice");
            assert_eq!(relay.phase(), Phase::Serving);
            stop.drain();
        };
        let (ended, ()) = tokio::join!(node.run(stop.clone()), operator);
        ended.unwrap();
        let told = relay.watch.events(None, 100).events;
        assert!(told.iter().any(|event| event.text.contains("nobody looks until then")));
    }

    #[tokio::test]
    async fn a_node_does_not_go_on_without_its_mesh() {
        let node = start(Some(join(&Arc::default(), async {})), None);
        let error = node.run(Stop::default()).await.unwrap_err();
        assert!(matches!(&error, LifeError::Essential(part) if part == "the mesh"), "{error}");
    }
}
