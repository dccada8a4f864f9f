//! The one task of the membership: gossip, names, dials, and whether the node has joined.
//!
//! It decides nothing: ten times a second, and whenever something happened, it shows the pure parts
//! what there is and does what they say. Dials and look-ups run inside it, so that it ends with them.

use std::{collections::BTreeMap, future::Future, io, net::SocketAddr, sync::Arc, time::Duration};

use futures_util::{
    StreamExt,
    future::{BoxFuture, FutureExt},
    stream::FuturesUnordered,
};
use tokio_util::sync::CancellationToken;

use super::{
    DialError, Dialled, Event, GossipError, Load, Resolve, Says, SeedAddress,
    dialler::Dialler,
    gossip::{Gossip, Inbox},
    handle::{OverLinks, Shared},
    joining,
    seeds::Seeds,
};
use crate::{NodeId, link::Introduction};

/// How often everything is looked at, whatever happens.
const TICK: Duration = Duration::from_millis(100);

/// A dial takes at most so long. The links give up by themselves before.
const DIAL_PATIENCE: Duration = Duration::from_secs(6);

/// A name is resolved within so long, or not.
const RESOLVE_PATIENCE: Duration = Duration::from_secs(5);

/// A linked peer that gossip has not found alive is greeted so often.
const GREET_AGAIN: Duration = Duration::from_millis(300);

/// Others are told of this node's load so often.
const LOAD_INTERVAL: Duration = Duration::from_secs(2);

/// A node that has not joined after so long says what it waits for, and again each time.
const STILL_JOINING: Duration = Duration::from_secs(10);

/// What the membership asks of the links.
pub trait Peers: Send + Sync + 'static {
    /// Puts a message onto the gossip lane to the node, at once or never; `false` if it was dropped.
    fn gossip(&self, to: NodeId, message: &[u8]) -> bool;

    /// Makes a link to whoever answers at the address, or finds that there is one. Dropped if it
    /// takes too long.
    fn dial(&self, address: SocketAddr) -> impl Future<Output = Result<Dialled, DialError>> + Send;
}

/// The task of a [`Membership`](super::Membership), not started yet.
pub struct Driver {
    shared: Arc<Shared>,
    own: Introduction,
    cluster: String,
    seeds: Vec<SeedAddress>,
    inbox: Inbox,
}

impl Driver {
    pub(super) fn new(
        shared: Arc<Shared>,
        own: Introduction,
        cluster: String,
        seeds: Vec<SeedAddress>,
        inbox: Inbox,
    ) -> Self {
        Self { shared, own, cluster, seeds, inbox }
    }

    /// Keeps the membership until `stop`. An error means that this node cannot know who is there any
    /// more: it must stop, and be started again.
    pub async fn run<P: Peers, R: Resolve>(
        self,
        peers: Arc<P>,
        resolver: Arc<R>,
        stop: CancellationToken,
    ) -> Result<(), GossipError> {
        let Self { shared, own, cluster, seeds, inbox } = self;
        let out = OverLinks { shared: Arc::clone(&shared), peers: Arc::clone(&peers) };
        let gossip = Gossip::start(cluster, &own, Arc::new(out), inbox).await?;
        let started = shared.now();
        let running = Running {
            dialler: Dialler::new(own.incarnation.node, own.address),
            seeds: Seeds::new(seeds),
            dials: FuturesUnordered::new(),
            lookups: FuturesUnordered::new(),
            greeted: BTreeMap::new(),
            said: Says::Alive,
            said_load: (Load::default(), started),
            started,
            complained: started,
            gossip,
            shared,
            peers,
            resolver,
        };
        running.run(stop).await
    }
}

type Dial = (SocketAddr, Result<Dialled, DialError>);
type Lookup = (SeedAddress, io::Result<Vec<SocketAddr>>);

/// The task's own state.
struct Running<P, R> {
    shared: Arc<Shared>,
    gossip: Gossip,
    peers: Arc<P>,
    resolver: Arc<R>,
    seeds: Seeds,
    dialler: Dialler,
    dials: FuturesUnordered<BoxFuture<'static, Dial>>,
    lookups: FuturesUnordered<BoxFuture<'static, Lookup>>,
    greeted: BTreeMap<NodeId, Duration>,
    said: Says,
    said_load: (Load, Duration),
    started: Duration,
    complained: Duration,
}

impl<P: Peers, R: Resolve> Running<P, R> {
    async fn run(mut self, stop: CancellationToken) -> Result<(), GossipError> {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let shared = Arc::clone(&self.shared);
        loop {
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                error = self.gossip.ended() => return Err(error),
                Some((address, outcome)) = self.dials.next() => self.dialled(address, &outcome),
                Some((name, found)) = self.lookups.next() => self.resolved(&name, found),
                () = shared.woken() => {}
                _ = ticks.tick() => {}
            }
            self.step().await;
        }
    }

    /// Looks at everything once.
    async fn step(&mut self) {
        self.shared.apply(Event::Gossip(self.gossip.heard().await));
        self.speak().await;
        if self.said == Says::Left {
            // Its links are closed for good: who is not linked now need not be.
            return;
        }
        self.greet();
        self.resolve();
        self.dial();
        self.hear_refusals();
        self.join();
    }

    /// Lets gossip say what this node says of itself, and at once to all peers if it leaves.
    async fn speak(&mut self) {
        let now = self.shared.now();
        let (says, load) = self.shared.view(|view| (view.says(), view.own().load));
        if load != self.said_load.0 && now >= self.said_load.1 + LOAD_INTERVAL {
            self.gossip.say_load(load).await;
            self.said_load = (load, now);
        }
        if says != self.said {
            self.gossip.say(says).await;
            self.said = says;
            self.shared.view(|view| view.linked().for_each(|peer| self.gossip.greet(peer.address)));
        }
    }

    /// Exchanges all that is known with peers that are linked and that gossip has not found alive:
    /// new ones, and those on the other side of a partition that has healed.
    fn greet(&mut self) {
        let now = self.shared.now();
        let strangers: BTreeMap<NodeId, SocketAddr> = self.shared.view(|view| {
            view.linked()
                .map(|peer| (peer.incarnation.node, peer.address))
                .filter(|(node, _)| !view.member(*node).is_some_and(|m| m.state.lives()))
                .collect()
        });
        self.greeted.retain(|node, _| strangers.contains_key(node));
        for (node, address) in strangers {
            let last = self.greeted.get(&node);
            if last.is_none_or(|last| now >= *last + GREET_AGAIN) {
                self.gossip.greet(address);
                self.greeted.insert(node, now);
            }
        }
    }

    fn resolve(&mut self) {
        let now = self.shared.now();
        let (seeds, dialler) = (&mut self.seeds, &self.dialler);
        let due =
            self.shared.view(|view| seeds.due(|address| dialler.is_linked(address, view), now));
        for name in due {
            let resolver = Arc::clone(&self.resolver);
            let lookup = async move {
                let found = tokio::time::timeout(RESOLVE_PATIENCE, resolver.resolve(&name)).await;
                (name, found.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())))
            };
            self.lookups.push(lookup.boxed());
        }
    }

    fn resolved(&mut self, name: &SeedAddress, found: io::Result<Vec<SocketAddr>>) {
        let error = match &found {
            Ok(_) => "it has no addresses".to_owned(),
            Err(error) => error.to_string(),
        };
        if self.seeds.resolved(name, found.ok(), self.shared.now()) {
            tracing::warn!(seed = %name, error, "a seed's name cannot be resolved: check SEEDS and DNS");
        }
    }

    fn dial(&mut self) {
        let now = self.shared.now();
        let (dialler, seeds) = (&mut self.dialler, &self.seeds);
        for address in self.shared.view(|view| dialler.due(view, seeds, now)) {
            let peers = Arc::clone(&self.peers);
            let dial = async move {
                let outcome = tokio::time::timeout(DIAL_PATIENCE, peers.dial(address)).await;
                let too_late = |_| Err(DialError::Unreachable("the dial took over 6 s".to_owned()));
                (address, outcome.unwrap_or_else(too_late))
            };
            self.dials.push(dial.boxed());
        }
    }

    fn dialled(&mut self, address: SocketAddr, outcome: &Result<Dialled, DialError>) {
        self.dialler.done(address, outcome, self.shared.now(), rand::random());
        match outcome {
            Ok(Dialled::Peer(peer)) => {
                if let Some(seed) = self.seeds.reached(address) {
                    tracing::info!(%seed, %address, node = %peer, "a seed was reached");
                }
            }
            Ok(Dialled::Oneself) => {
                tracing::debug!(%address, "a seed is this node itself");
            }
            Err(error) => self.dial_failed(address, error),
        }
    }

    /// Logs a failed dial where it concerns an operator: when no address of a seed answers, now and
    /// once a minute. Refusals were logged by the links, which know what to mend.
    fn dial_failed(&mut self, address: SocketAddr, error: &DialError) {
        tracing::debug!(%address, %error, "a dial failed");
        if matches!(error, DialError::Outlived(_)) {
            self.shared.displaced();
        }
        let all_failed = self.seeds.at(address).is_some_and(|seed| {
            let mut others = seed.found().iter().filter(|other| !self.dialler.is_own(**other));
            others.all(|other| self.dialler.has_failed(*other))
        });
        if !all_failed
            || !matches!(error, DialError::Unreachable(_))
            || self.shared.is_accounted_for(address)
        {
            return;
        }
        if let Some(seed) = self.seeds.unreachable(address, self.shared.now()) {
            tracing::warn!(
                %seed, %address, %error,
                "a seed cannot be reached: is its node running, and its UDP port open?"
            );
        }
    }

    fn hear_refusals(&self) {
        let (seeds, dialler) = (&self.seeds, &self.dialler);
        let refusals = self.shared.view(|view| joining::refusals(view, seeds, dialler));
        self.shared.set_refusals(refusals);
    }

    fn join(&mut self) {
        if self.shared.has_joined() {
            return;
        }
        let now = self.shared.now();
        let running_for = now.saturating_sub(self.started);
        let (seeds, dialler) = (&self.seeds, &self.dialler);
        let joined =
            self.shared.view(|view| joining::has_joined(view, seeds, dialler, running_for));
        match joined {
            Ok(()) if self.shared.set_joined() => {
                let peers = self.shared.view(|view| view.linked().count());
                if peers > 0 {
                    tracing::info!(peers, after = ?running_for, "this node has joined its cluster");
                } else {
                    tracing::info!(
                        after = ?running_for,
                        "this node has found no other, and goes on alone until one comes"
                    );
                }
            }
            Err(waiting) if now >= self.complained + STILL_JOINING => {
                self.complained = now;
                tracing::warn!(%waiting, since = ?running_for, "this node has not joined yet");
            }
            Ok(()) | Err(_) => {}
        }
    }
}
