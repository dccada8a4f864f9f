//! What all connections and sessions of this process share.
//!
//! Owns the sessions, the subscriptions, the limits and the way to the registry; starts no task and
//! reads no socket.

use std::{
    collections::HashMap,
    fmt,
    net::SocketAddr,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU8, AtomicU64, Ordering},
    },
    time::Duration,
};

use cluster::{
    AgentId, NodeId, SessionId, UnixMillis, membership::MemberState, mesh::Mesh,
    registry::Registry, wire::Spent,
};
use parking_lot::{Mutex, RwLock};
use serde_json::json;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::{
    certificates::Certificates,
    clock::Clock,
    config::Config,
    leaving::Leaves,
    limits::{AddressLimits, AgentLimiter},
    message::{Author, ProcessTag, SessionTag, Stamper},
    metrics::{Machine, Metrics},
    peers::{NodeStatus, Peers},
    session::{End, Session},
    sessions::{Entry, Sessions},
    subscriptions::Subscriptions,
    tasks::Tasks,
    traces::Traces,
    traffic::Traffic,
    watch::Watch,
    ws::CloseCode,
};

/// The version in `welcome` and on the landing page.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// One relay process.
pub struct Relay {
    /// Which node it is.
    pub node: NodeId,
    /// How it was configured.
    pub config: Config,
    /// Its time.
    pub clock: Clock,
    /// The sessions that live here.
    pub sessions: Arc<Sessions>,
    /// Who follows whom.
    pub subscriptions: RwLock<Subscriptions>,
    /// Which names and tokens are good.
    pub registry: Arc<dyn Registry>,
    /// What it counts.
    pub metrics: Metrics,
    /// What it saw of its machine, for those who measure.
    pub machine: Arc<Machine>,
    /// Messages per minute.
    pub traffic: Traffic,
    /// Which messages are traced.
    pub traces: Traces,
    /// What it remembers for operators.
    pub watch: Watch,
    /// What one address may do.
    pub addresses: AddressLimits,
    /// The tasks of connections and sessions.
    pub tasks: Tasks,
    /// One permit per session.
    pub permits: Arc<Semaphore>,
    /// Held while a token is checked, which takes as long as a hundred messages: when many agents come
    /// back at once, the messages of others go between two checks, not after all of them.
    pub token_checks: Semaphore,
    /// Which nodes were let go a moment ago.
    pub leaves: Leaves,
    /// The relay as the author of messages.
    pub author: Author,
    /// Payload of `welcome`, as JSON.
    pub welcome: String,
    limiters: Mutex<HashMap<AgentId, Arc<AgentLimiter>>>,
    cluster: OnceLock<Cluster>,
    certificates: OnceLock<(Arc<Certificates>, TlsDoors)>,
    process: ProcessTag,
    sessions_so_far: AtomicU64,
    /// [`SessionId::time`] of the latest session.
    last_session: AtomicU64,
    /// The latest time that a session which ended gave a message.
    last_stamped: AtomicU64,
    phase: AtomicU8,
    /// Cancelled when somebody wants the node to leave.
    leave: CancellationToken,
}

/// The cluster that the node belongs to.
struct Cluster {
    mesh: Arc<Mesh>,
    peers: Arc<dyn Peers>,
}

/// Where agents' TLS is listened for, as it is bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TlsDoors {
    /// For agents.
    pub address: SocketAddr,
    /// The port of plain HTTP beside it; none if it is closed.
    pub http_port: Option<u16>,
}

/// How far the relay's life is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Phase {
    /// It starts.
    Joining,
    /// It serves agents.
    Serving,
    /// It stops: no new sessions, and the old ones are told when to come back.
    Draining,
}

impl Relay {
    /// A relay without sessions.
    pub fn new(
        node: NodeId,
        config: Config,
        clock: Clock,
        registry: Arc<dyn Registry>,
        metrics: Metrics,
    ) -> Self {
        let process = ProcessTag::from_random(rand::random());
        let traces = Traces::new(&config.traces, node, process.ending(), metrics.traces.clone());
        Self {
            node,
            traces,
            sessions: Arc::default(),
            subscriptions: RwLock::default(),
            traffic: Traffic::default(),
            machine: Arc::default(),
            watch: Watch::new(clock.wall()),
            addresses: AddressLimits::new(&config.limits, &clock),
            tasks: Tasks::new(metrics.panics.clone()),
            permits: Arc::new(Semaphore::new(config.limits.max_connections)),
            token_checks: Semaphore::new(1),
            leaves: Leaves::default(),
            author: Author::relay(),
            welcome: welcome(&config),
            limiters: Mutex::default(),
            cluster: OnceLock::new(),
            certificates: OnceLock::new(),
            process,
            sessions_so_far: AtomicU64::new(0),
            last_session: AtomicU64::new(0),
            last_stamped: AtomicU64::new(0),
            phase: AtomicU8::new(Phase::Joining as u8),
            leave: CancellationToken::new(),
            config,
            clock,
            registry,
            metrics,
        }
    }

    /// Makes the relay part of a cluster, before its first session. The mesh delivers to a
    /// [`Sink`](crate::deliver::Sink) of this relay.
    pub fn join(&self, mesh: Arc<Mesh>, peers: Arc<dyn Peers>) {
        let _ = self.cluster.set(Cluster { mesh, peers });
    }

    /// Makes agents' connections encrypted ones, before the first.
    pub fn encrypt(&self, certificates: Arc<Certificates>, doors: TlsDoors) {
        let _ = self.certificates.set((certificates, doors));
    }

    /// What agents are shown; none if they connect without TLS.
    pub fn certificates(&self) -> Option<&Arc<Certificates>> {
        self.certificates.get().map(|(certificates, _)| certificates)
    }

    /// Where agents' TLS is listened for; none if they connect without.
    pub fn tls_doors(&self) -> Option<TlsDoors> {
        self.certificates.get().map(|(_, doors)| *doors)
    }

    /// The way to agents of other nodes; none if the relay is alone.
    pub fn mesh(&self) -> Option<&Mesh> {
        self.cluster.get().map(|cluster| &*cluster.mesh)
    }

    /// The time that all nodes agree on, as far as they can: mesh time, or the wall clock's if the
    /// relay is alone.
    pub fn time(&self) -> UnixMillis {
        let wall = self.clock.wall();
        self.mesh().map_or(wall, |mesh| mesh.time(wall))
    }

    /// The `ts` of a message that is accepted when the wall clock says `wall`: never earlier than what
    /// another node gave its sender before, as far as links allow clocks to differ.
    pub fn stamp_time(&self, wall: UnixMillis) -> UnixMillis {
        self.mesh().map_or(wall, |mesh| mesh.stamp(wall))
    }

    /// The other nodes; none if the relay is alone.
    pub fn peers(&self) -> Option<&Arc<dyn Peers>> {
        self.cluster.get().map(|cluster| &cluster.peers)
    }

    /// How far the relay's life is.
    pub fn phase(&self) -> Phase {
        match self.phase.load(Ordering::SeqCst) {
            0 => Phase::Joining,
            1 => Phase::Serving,
            _ => Phase::Draining,
        }
    }

    /// The relay's life goes on.
    pub fn enter_phase(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::SeqCst);
    }

    /// Lets the node drain, and then stop. Whoever started the process may start it again.
    pub fn ask_to_leave(&self) {
        self.leave.cancel();
    }

    /// Returns when somebody wants the node to leave.
    pub async fn asked_to_leave(&self) {
        self.leave.cancelled().await;
    }

    /// The id of one more session, higher than all before it, whatever the clock does.
    pub fn next_session_id(&self, now: UnixMillis) -> SessionId {
        if let Some(mesh) = self.mesh() {
            return mesh.next_session(now);
        }
        let time = |last: u64| SessionId::floor(now).max(last + 1);
        let next = |last: u64| Some(time(last));
        let last = self.last_session.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
        SessionId { time: time(last.unwrap_or_default()), node: self.node }
    }

    /// What stamps the messages of one more session: with ids that no other session gives, and, if
    /// the clock was set back, not before the sessions that ended.
    pub fn stamper(&self) -> Stamper {
        let number = self.sessions_so_far.fetch_add(1, Ordering::Relaxed);
        let floor = UnixMillis(self.last_stamped.load(Ordering::Relaxed));
        Stamper::not_before(floor, SessionTag::new(self.process, number))
    }

    /// The agent's rate limit, which outlives its sessions; none if nothing is limited.
    pub fn limiter(&self, agent: &AgentId) -> Option<Arc<AgentLimiter>> {
        let mut limiters = self.limiters.lock();
        if let Some(limiter) = limiters.get(agent) {
            return Some(Arc::clone(limiter));
        }
        let limits = &self.config.limits;
        let limiter = AgentLimiter::new(limits.rate_per_min, limits.rate_per_hour, &self.clock)?;
        let limiter = Arc::new(limiter);
        limiters.insert(agent.clone(), Arc::clone(&limiter));
        Some(limiter)
    }

    /// A session was entered: whatever happened between its handshake and now is made up for, and the
    /// other nodes are told of it if it stays.
    pub fn arrived(&self, session: &Session, now: Duration, wall: UnixMillis) {
        self.subscriptions.write().arrived(session.agent(), self.time());
        if self.registry.is_revoked(session.grant()) {
            session.close(CloseCode::TokenInvalid, "token revoked");
        }
        if let Err(error) = session.grant().check_time(wall) {
            session.close(CloseCode::TokenInvalid, &error.to_string());
        }
        if self.phase() == Phase::Draining {
            self.send_away(session, self.has_others());
        }
        if let Some(mesh) = self.mesh()
            && session.end().is_none()
            && !mesh.opened(session.agent(), session.id(), now)
        {
            session.unfence();
        }
    }

    /// A session ends, and gives up its place unless a newer one took it: its agent has left if that
    /// was its last. `limiter` is what the session held of its agent's.
    pub fn left(&self, session: &Session, entry: Entry, limiter: Option<Arc<AgentLimiter>>) {
        let (agent, now) = (session.agent(), self.clock.elapsed());
        if entry.give_back() && self.sessions.get(agent.as_str()).is_none() {
            self.subscriptions.write().left(agent, self.time());
        }
        if let Some(mesh) = self.mesh() {
            let spent = self.take_spent(agent, limiter);
            mesh.closed(agent, session.id(), spent, now);
        }
    }

    /// Takes the agent's limiter out of the book, if it says anything and no other session holds it.
    fn take_spent(&self, agent: &AgentId, limiter: Option<Arc<AgentLimiter>>) -> Option<Spent> {
        let mut limiters = self.limiters.lock();
        drop(limiter);
        let unused = limiters.get(agent).is_some_and(|limiter| Arc::strong_count(limiter) == 1);
        let spent = unused.then(|| limiters.remove(agent))??.spent();
        (spent != Spent::default()).then_some(spent)
    }

    /// A session's task is at its end; its last message had this time.
    pub fn ended(&self, session: &Session, last_stamped: UnixMillis) {
        self.last_stamped.fetch_max(last_stamped.0, Ordering::Relaxed);
        let closed = &self.metrics.closed;
        let end = session.end().unwrap_or(End::Lost);
        let counter = match end {
            End::Client => &closed.client,
            End::Lost => &closed.lost,
            End::Silent => &closed.silent,
            End::SlowConsumer => &closed.slow_consumer,
            End::Replaced => &closed.replaced,
            End::Token => &closed.token,
            End::RateLimit => &closed.rate_limit,
            End::Violation => &closed.violation,
            End::Draining => &closed.draining,
        };
        counter.increment(1);
        let lasted = self.clock.elapsed().saturating_sub(session.opened());
        tracing::debug!(?end, lasted_s = lasted.as_secs(), "session ended");
    }

    /// Whether agents can go on at another node at once.
    pub fn has_others(&self) -> bool {
        let is_other = |node: &NodeStatus| {
            node.member.node() != self.node && node.member.state == MemberState::Alive
        };
        self.peers().is_some_and(|peers| peers.nodes().iter().any(is_other))
    }

    /// Closes a session with 1001 and the time after which its agent is to come back, which is
    /// spread so that not all come at once: over a moment if it can go `elsewhere`, since others are
    /// told later, else over 4 seconds, or 1 per 1,000 sessions.
    pub fn send_away(&self, session: &Session, elsewhere: bool) {
        let retry_ms = if elsewhere {
            rand::random_range(100..1_000)
        } else {
            1_000 + rand::random_range(0..4_000_u64.max(self.sessions.len() as u64))
        };
        let reason = format!("the relay is stopping: reconnect; retry_ms={retry_ms}");
        session.close(CloseCode::GoingAway, &reason);
    }

    /// Brings the gauges up to date.
    pub fn measure(&self) {
        let metrics = &self.metrics;
        let waiting: usize = self.sessions.all().iter().map(|s| s.outbox_bytes()).sum();
        metrics.sessions.set(float(self.sessions.len() as u64));
        metrics.outbox_bytes.set(float(waiting as u64));
        metrics.registry.set(&self.registry.status());
        metrics.registered_agents.set(float(self.registry.registered_agents()));
        let subscriptions = self.subscriptions.read();
        metrics.subscriptions.set(float(subscriptions.total() as u64));
        metrics.subscriptions_unsaved.set(float(subscriptions.unsaved() as u64));
        drop(subscriptions);
        metrics.uptime.set(float(self.clock.elapsed().as_secs()));
        let certificates = self.certificates().map(|all| all.report(self.clock.wall()));
        metrics.tls.set_certificate(certificates.as_ref());
        if let Some(Cluster { mesh, peers }) = self.cluster.get() {
            metrics.mesh.set_members(&peers.nodes());
            metrics.mesh.set_links(&peers.links());
            peers.with_counters(&mut |links, members| metrics.mesh.set_counters(links, members));
            metrics.mesh.set_presence(mesh);
        }
    }

    /// Forgets the limits of agents that could send at their full rate again, and the
    /// subscriptions of those that left too long ago.
    pub fn forget(&self) {
        let unused =
            |limiter: &Arc<AgentLimiter>| Arc::strong_count(limiter) == 1 && limiter.is_idle();
        self.limiters.lock().retain(|_, limiter| !unused(limiter));
        let connected = |agent: &AgentId| self.sessions.get(agent.as_str()).is_some();
        self.subscriptions.write().sweep(self.time(), self.config.subscription_ttl, connected);
    }
}

impl fmt::Debug for Relay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Relay").field("phase", &self.phase()).finish_non_exhaustive()
    }
}

/// The payload of `welcome` (PROTOCOL section 3).
fn welcome(config: &Config) -> String {
    let rate = |per: u32, unit: &str| (per > 0).then(|| format!("{per}/{unit}"));
    let rates =
        [rate(config.limits.rate_per_min, "min"), rate(config.limits.rate_per_hour, "hour")];
    let rate_limit = rates.into_iter().flatten().next().unwrap_or_else(|| "unlimited".into());
    json!({
        "relay": config.relay_name,
        "version": VERSION,
        "node": config.node_name,
        "region": config.region,
        "capabilities": ["broadcast", "direct", "subscribe"],
        "extensions": [],
        "limits": { "max_message_size": config.limits.max_message_size, "rate_limit": rate_limit },
    })
    .to_string()
}

#[allow(clippy::cast_precision_loss)] // exact up to 2^53, which no gauge here reaches
fn float(number: u64) -> f64 {
    number as f64
}

/// Relays for the tests of others.
#[cfg(test)]
#[allow(clippy::unwrap_used)] // a failed unwrap is a failed test
pub(crate) mod testing {
    use cluster::registry::MemoryRegistry;

    use super::*;

    /// A relay whose tokens are good for a minute, the clock it goes by, and its book of names.
    pub(crate) fn relay() -> (Arc<Relay>, Clock, Arc<MemoryRegistry>) {
        configured(Config::default())
    }

    /// The same, with other settings.
    pub(crate) fn configured(config: Config) -> (Arc<Relay>, Clock, Arc<MemoryRegistry>) {
        let clock = Clock::manual(UnixMillis(1_800_000_000_000));
        let now = clock.clone();
        let minute = Some(Duration::from_mins(1));
        let registry = Arc::new(MemoryRegistry::new(minute, move || now.wall()));
        let (metrics, names) = (Metrics::new().unwrap(), Arc::clone(&registry));
        let relay = Relay::new(NodeId(1), config, clock.clone(), names, metrics);
        (Arc::new(relay), clock, registry)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a failed unwrap is a failed test
mod tests {
    use cluster::registry::{Administration as _, Claim, Revocation};

    use super::{testing::relay, *};
    use crate::{
        net::testing::Written,
        session::{Opening, outbox::OutboxLimits},
    };

    async fn session(relay: &Relay) -> Session {
        let token = relay.registry.register(None, Claim::random()).await.unwrap().token;
        let opening = Opening {
            id: relay.next_session_id(relay.clock.wall()),
            grant: relay.registry.verify(&token, relay.clock.wall()).unwrap(),
            from: [127, 0, 0, 1].into(),
            socket: Box::new(Written::default()),
            limits: OutboxLimits { bytes: 1_000, messages: 10 },
            held: false,
        };
        Session::new(opening, relay.clock.elapsed(), relay.clock.wall())
    }

    #[tokio::test]
    async fn session_ids_grow_even_if_the_clock_goes_back() {
        let (relay, clock, _) = relay();
        let first = relay.next_session_id(clock.wall());
        let second = relay.next_session_id(UnixMillis(0));
        assert!(first < second && second < relay.next_session_id(clock.wall()));
        assert_eq!(first.node, relay.node);
    }

    #[tokio::test]
    async fn a_good_session_stays() {
        let (relay, clock, _) = relay();
        let session = session(&relay).await;
        relay.enter_phase(Phase::Serving);
        relay.arrived(&session, clock.elapsed(), clock.wall());
        assert_eq!(session.end(), None);
        clock.advance(Duration::from_mins(2));
        assert!(session.recheck(clock.wall()).is_err());
    }

    #[tokio::test]
    async fn what_happened_between_admission_and_arrival_is_made_up_for() {
        let (relay, clock, names) = relay();
        relay.enter_phase(Phase::Serving);
        let (late, revoked) = (session(&relay).await, session(&relay).await);
        names.revoke(Revocation::Agent(revoked.agent().clone())).await.unwrap();
        relay.arrived(&revoked, clock.elapsed(), clock.wall());
        assert_eq!(revoked.end(), Some(End::Token), "revoked meanwhile");
        clock.advance(Duration::from_mins(2));
        relay.arrived(&late, clock.elapsed(), clock.wall());
        assert_eq!(late.end(), Some(End::Token), "expired meanwhile");
        let another = session(&relay).await;
        relay.enter_phase(Phase::Draining);
        relay.arrived(&another, clock.elapsed(), clock.wall());
        assert_eq!(another.end(), Some(End::Draining), "the relay is stopping");
    }

    #[tokio::test]
    async fn a_follower_that_hops_to_a_node_whose_clock_is_behind_is_believed() {
        use crate::{
            deliver::Sink,
            peers::testing::{Shown, mesh},
            subscriptions::SubscriptionNews,
        };
        let (relay, clock, _) = relay();
        relay.join(mesh(relay.node, Arc::new(Sink::new(&relay))), Arc::<Shown>::default());
        let wall = clock.wall();
        let ahead = wall.plus(Duration::from_secs(20));
        relay.mesh().unwrap().learn_time(wall, ahead);
        let ann = session(&relay).await;
        let bob = ["bob".parse().unwrap()].into();
        relay.subscriptions.write().subscribe(ann.agent(), &bob, wall).unwrap();
        relay.subscriptions.write().left(ann.agent(), wall);
        relay.subscriptions.write().take_news(clock.elapsed());
        relay.arrived(&ann, clock.elapsed(), wall);
        let news = relay.subscriptions.write().take_news(clock.elapsed());
        let SubscriptionNews::Stays(stays) = rmp_serde::from_slice(&news[0]).unwrap() else {
            panic!("{news:?}")
        };
        assert_eq!(stays[0].stayed.time, ahead);
    }

    #[test]
    fn a_limit_goes_with_the_last_session_that_holds_it() {
        let (relay, _, _) = relay();
        let ann: AgentId = "ann-1".parse().unwrap();
        let (older, newer) = (relay.limiter(&ann), relay.limiter(&ann));
        newer.as_ref().unwrap().judge();
        assert_eq!(relay.take_spent(&ann, older), None, "a newer session goes on with it");
        let spent = relay.take_spent(&ann, newer).unwrap();
        assert_eq!(spent.hour_ns, 3_600_000_000, "one of 1,000 in an hour");
        assert_eq!(relay.limiter(&ann).unwrap().spent(), Spent::default(), "it is gone from here");
        assert_eq!(relay.take_spent(&ann, None), None, "nothing was spent");
    }
}
