//! What all connections and sessions of this process share.
//!
//! Owns the sessions, the subscriptions, the limits and the way to the registry; starts no task and
//! reads no socket.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicU64, Ordering},
    },
};

use cluster::{AgentId, UnixMillis, registry::Registry};
use parking_lot::{Mutex, RwLock};
use serde_json::json;
use tokio::sync::Semaphore;

use crate::{
    clock::Clock,
    config::Config,
    limits::{AddressLimits, AgentLimiter},
    message::{Author, ProcessTag, SessionTag, Stamper},
    metrics::Metrics,
    session::{End, Session},
    sessions::Sessions,
    subscriptions::Subscriptions,
    tasks::Tasks,
    traffic::Traffic,
    ws::CloseCode,
};

/// The version in `welcome` and on the landing page.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// One relay process.
pub struct Relay {
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
    /// Messages per minute.
    pub traffic: Traffic,
    /// What one address may do.
    pub addresses: AddressLimits,
    /// The tasks of connections and sessions.
    pub tasks: Tasks,
    /// One permit per session.
    pub permits: Arc<Semaphore>,
    /// The relay as the author of messages.
    pub author: Author,
    /// Payload of `welcome`, as JSON.
    pub welcome: String,
    limiters: Mutex<HashMap<AgentId, Arc<AgentLimiter>>>,
    process: ProcessTag,
    sessions_so_far: AtomicU64,
    /// The latest time that a session which ended gave a message.
    last_stamped: AtomicU64,
    phase: AtomicU8,
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
        config: Config,
        clock: Clock,
        registry: Arc<dyn Registry>,
        metrics: Metrics,
    ) -> Self {
        Self {
            sessions: Arc::default(),
            subscriptions: RwLock::default(),
            traffic: Traffic::default(),
            addresses: AddressLimits::new(&config.limits, &clock),
            tasks: Tasks::new(metrics.panics.clone()),
            permits: Arc::new(Semaphore::new(config.limits.max_connections)),
            author: Author::relay(),
            welcome: welcome(&config),
            limiters: Mutex::default(),
            process: ProcessTag::from_random(rand::random()),
            sessions_so_far: AtomicU64::new(0),
            last_stamped: AtomicU64::new(0),
            phase: AtomicU8::new(Phase::Joining as u8),
            config,
            clock,
            registry,
            metrics,
        }
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

    /// A session was entered: whatever happened between its admission and now is made up for.
    pub fn arrived(&self, session: &Session, wall: UnixMillis) {
        self.subscriptions.write().arrived(session.agent(), wall);
        if self.registry.is_revoked(session.grant()) {
            session.close(CloseCode::TokenInvalid, "token revoked");
        }
        if let Err(error) = session.grant().check_time(wall) {
            session.close(CloseCode::TokenInvalid, &error.to_string());
        }
        if self.phase() == Phase::Draining {
            self.send_away(session);
        }
    }

    /// A session gave up its place.
    pub fn left(&self, session: &Session) {
        if self.sessions.get(session.agent().as_str()).is_none() {
            self.subscriptions.write().left(session.agent(), self.clock.wall());
        }
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

    /// Closes a session with 1001 and the time after which its agent is to come back, which is
    /// spread so that not all come at once: over 4 seconds, or 1 per 1,000 sessions.
    pub fn send_away(&self, session: &Session) {
        let spread = 4_000_u64.max(self.sessions.len() as u64);
        let retry_ms = 1_000 + rand::random_range(0..spread);
        let reason = format!("the relay is stopping: reconnect; retry_ms={retry_ms}");
        session.close(CloseCode::GoingAway, &reason);
    }

    /// Brings the gauges up to date.
    pub fn measure(&self) {
        let metrics = &self.metrics;
        let waiting: usize = self.sessions.all().iter().map(|s| s.outbox_bytes()).sum();
        metrics.sessions.set(float(self.sessions.len() as u64));
        metrics.outbox_bytes.set(float(waiting as u64));
        metrics.registered_agents.set(float(self.registry.registered_agents()));
        let subscriptions = self.subscriptions.read();
        metrics.subscriptions.set(float(subscriptions.total() as u64));
        metrics.subscriptions_unsaved.set(float(subscriptions.unsaved() as u64));
        drop(subscriptions);
        metrics.uptime.set(float(self.clock.elapsed().as_secs()));
    }

    /// Forgets the limits of agents that could send at their full rate again, and the
    /// subscriptions of those that left too long ago.
    pub fn forget(&self) {
        let unused =
            |limiter: &Arc<AgentLimiter>| Arc::strong_count(limiter) == 1 && limiter.is_idle();
        self.limiters.lock().retain(|_, limiter| !unused(limiter));
        let connected = |agent: &AgentId| self.sessions.get(agent.as_str()).is_some();
        self.subscriptions.write().sweep(
            self.clock.wall(),
            self.config.subscription_ttl,
            connected,
        );
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

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a failed unwrap is a failed test
mod tests {
    use std::time::Duration;

    use cluster::registry::{LocalRegistry, Options, Revocation};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::session::{Opening, outbox::OutboxLimits};

    /// A relay whose tokens are good for a minute, the clock it goes by, and where it keeps names.
    fn relay() -> (Relay, Clock, tempfile::TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let clock = Clock::manual(UnixMillis(1_800_000_000_000));
        let now = clock.clone();
        let minute = Some(Duration::from_mins(1));
        let options = Options { token_ttl: minute, now: Arc::new(move || now.wall()) };
        let registry = Arc::new(LocalRegistry::open(folder.path(), options).unwrap());
        let metrics = Metrics::new().unwrap();
        (Relay::new(Config::default(), clock.clone(), registry, metrics), clock, folder)
    }

    async fn session(relay: &Relay) -> Session {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let token = relay.registry.register(None).await.unwrap().token;
        let opening = Opening {
            id: relay.sessions.next_id(relay.clock.wall()),
            grant: relay.registry.verify(&token, relay.clock.wall()).unwrap(),
            socket: stream.into_split().1,
            limits: OutboxLimits { bytes: 1_000, messages: 10 },
        };
        Session::new(opening, relay.clock.elapsed(), relay.clock.wall())
    }

    #[tokio::test]
    async fn a_good_session_stays() {
        let (relay, clock, _folder) = relay();
        let session = session(&relay).await;
        relay.enter_phase(Phase::Serving);
        relay.arrived(&session, clock.wall());
        assert_eq!(session.end(), None);
        clock.advance(Duration::from_mins(2));
        assert!(session.recheck(clock.wall()).is_err());
    }

    #[tokio::test]
    async fn what_happened_between_admission_and_arrival_is_made_up_for() {
        let (relay, clock, _folder) = relay();
        relay.enter_phase(Phase::Serving);
        let (late, revoked) = (session(&relay).await, session(&relay).await);
        relay.registry.revoke(Revocation::Agent(revoked.agent().clone())).await.unwrap();
        relay.arrived(&revoked, clock.wall());
        assert_eq!(revoked.end(), Some(End::Token), "revoked meanwhile");
        clock.advance(Duration::from_mins(2));
        relay.arrived(&late, clock.wall());
        assert_eq!(late.end(), Some(End::Token), "expired meanwhile");
        let another = session(&relay).await;
        relay.enter_phase(Phase::Draining);
        relay.arrived(&another, clock.wall());
        assert_eq!(another.end(), Some(End::Draining), "the relay is stopping");
    }
}
