//! What the nodes of a mesh say to each other beside the mesh's own business: of the registry, and of
//! subscriptions. Hands each word to whom it concerns, and decides nothing.

use std::{
    collections::BTreeSet,
    sync::{Arc, Weak},
    time::Duration,
};

use async_trait::async_trait;
use cluster::{
    AgentId, Incarnation, NodeId,
    link::{Allegiance, Introduction, LinkCounters, LinkStatus},
    membership::{Load, MemberCounters},
    peering::{Application, Peering},
    registry::{Carry, SharedRegistry},
};
use parking_lot::Mutex;
use tokio::time::{Interval, MissedTickBehavior, interval};

use crate::{
    leaving::{self, Verdict, Wish},
    logging::AUDIT,
    peers::{NodeStatus, Peers},
    relay::Relay,
    standing::{self, Standing},
    tls_report::{self, NodeSays},
    watch::{self, Happening, Kind, Level, NodeSees},
};

mod pace;

use pace::Pace;

/// To whom a message is: its first byte.
mod tag {
    /// [`SharedRegistry::told`](cluster::registry::SharedRegistry::told), and what it is asked.
    pub(super) const REGISTRY: u8 = 1;
    /// What [`Subscriptions`](crate::subscriptions::Subscriptions) tell.
    pub(super) const SUBSCRIPTIONS: u8 = 3;
    /// What a node [says of agents' TLS](crate::tls_report::NodeSays): asked with nothing, answered in
    /// JSON.
    pub(super) const TLS: u8 = 4;
    /// What a node [sees](crate::watch::NodeSees): asked with nothing, answered in JSON.
    pub(super) const SIGHT: u8 = 5;
    /// How a node [stands with agents](crate::standing::Standing): asked with nothing, answered in JSON.
    pub(super) const STANDING: u8 = 6;
    /// The wish that the node leave: asked with nothing, answered as [`STANDING`].
    pub(super) const LEAVE: u8 = 7;
    /// The [wish](crate::leaving::Wish) that some node leave, in JSON: asked of the node that leads the
    /// registry, answered by its [verdict](crate::leaving::Verdict) in JSON; by nothing if it does not lead.
    pub(super) const MAY_LEAVE: u8 = 8;
}

/// How long the last words may take.
const GOODBYE: Duration = Duration::from_millis(200);

/// How long a node may take to say how it stands, or what it sees.
const PATIENCE: Duration = Duration::from_secs(2);

/// How long the node that leads the registry may take to decide who leaves: it asks others how they stand.
const VERDICT_PATIENCE: Duration = Duration::from_secs(5);

/// How often changes of subscriptions are told.
const SUBSCRIPTIONS_EVERY: Duration = Duration::from_millis(50);

/// Every so many of these rounds, one of the others is asked what it knows better: a minute.
const ROUNDS_TO_COMPARE: u32 = 1_200;

/// How often it is seen to it that no node of another registry stays linked.
const STRANGERS_EVERY: Duration = Duration::from_secs(1);

/// What is said in the name of one node.
pub(crate) struct Office {
    /// None if the names are kept elsewhere, as a simulation does.
    registry: Option<Arc<SharedRegistry>>,
    relay: Weak<Relay>,
    living: Mutex<BTreeSet<Incarnation>>,
}

impl Office {
    pub(crate) fn new(registry: Option<Arc<SharedRegistry>>, relay: &Arc<Relay>) -> Self {
        Self { registry, relay: Arc::downgrade(relay), living: Mutex::default() }
    }

    /// Tells the others what is new, until it is dropped.
    pub(crate) async fn keep_up(&self, peering: &Peering) {
        tokio::join!(self.tell_subscriptions(peering), self.cut_strangers(peering));
    }

    async fn tell_subscriptions(&self, peering: &Peering) {
        let (mut round, mut pace) = (rounds(SUBSCRIPTIONS_EVERY), Pace::default());
        for number in 1_u32.. {
            round.tick().await;
            let Some(relay) = self.relay.upgrade() else { return };
            if relay.subscriptions.read().has_news() {
                tell_news(&relay, peering, &mut pace);
            }
            if number.is_multiple_of(ROUNDS_TO_COMPARE) {
                self.note_lost_homes();
                let peers = peering.linked();
                if let Some(peer) = peers.get(rand::random_range(0..peers.len().max(1))) {
                    let digest = relay.subscriptions.read().digest();
                    peering.tell(*peer, tagged(tag::SUBSCRIPTIONS, &digest));
                }
            }
        }
    }

    /// Two nodes that were linked while one of them knew no registry may turn out to be of two.
    async fn cut_strangers(&self, peering: &Peering) {
        let Some(registry) = &self.registry else { return };
        let mut round = rounds(STRANGERS_EVERY);
        loop {
            round.tick().await;
            for stranger in registry.strangers() {
                tracing::error!(
                    node = %stranger,
                    "a linked node turns out to be of another registry: the link is cut, and the next \
                     try to make it says which is whose"
                );
                peering.cut(stranger);
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
        answers.iter().map(|body| tagged(tag::SUBSCRIPTIONS, body)).collect()
    }

    fn asked_of_tls(&self) -> Vec<u8> {
        let relay = self.relay.upgrade();
        let says = relay.and_then(|relay| serde_json::to_vec(&tls_report::own(&relay)).ok());
        says.unwrap_or_default()
    }

    fn asked_of_sight(&self) -> Vec<u8> {
        let relay = self.relay.upgrade();
        let sees = relay.and_then(|relay| serde_json::to_vec(&watch::sees(&relay)).ok());
        sees.unwrap_or_default()
    }

    fn asked_of_standing(&self) -> Vec<u8> {
        let relay = self.relay.upgrade();
        let stands = relay.and_then(|relay| serde_json::to_vec(&standing::own(&relay)).ok());
        stands.unwrap_or_default()
    }

    /// An administrator wants some node to leave, and this one is to decide.
    async fn asked_who_may_leave(&self, wish: &[u8]) -> Vec<u8> {
        let (Some(relay), Ok(wish)) = (self.relay.upgrade(), serde_json::from_slice(wish)) else {
            return Vec::new();
        };
        let verdict = leaving::asked(&relay, wish).await;
        verdict.and_then(|verdict| serde_json::to_vec(&verdict).ok()).unwrap_or_default()
    }

    /// An administrator of another node wants this one to leave: that one has asked for the token.
    fn asked_to_leave(&self, from: Incarnation) -> Vec<u8> {
        let Some(relay) = self.relay.upgrade() else { return Vec::new() };
        let name = relay.peers().and_then(|peers| {
            let mut nodes = peers.nodes().into_iter();
            nodes.find(|node| node.member.node() == from.node).map(|node| node.member.name)
        });
        let by = name.unwrap_or_else(|| from.node.to_string());
        tracing::info!(target: AUDIT, action = "drain", by_node = by, outcome = "done", "changed");
        let (node, text) = (relay.config.node_name.clone(), format!("drain, asked by {by}: done"));
        let happening = Happening { level: Level::Info, kind: Kind::Admin, node, text };
        relay.watch.note(relay.clock.wall(), happening);
        relay.ask_to_leave();
        self.asked_of_standing()
    }

    /// Returns when tokens can be checked. What is waited for until then, the registry says by itself.
    async fn informed(&self) {
        if let Some(registry) = &self.registry {
            registry.informed().await;
        }
    }
}

/// After a stall one round is due, not all that were missed.
fn rounds(every: Duration) -> Interval {
    let mut rounds = interval(every);
    rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    rounds
}

/// Tells the peers what is new of subscriptions, if it is time.
fn tell_news(relay: &Relay, peering: &Peering, pace: &mut Pace) {
    let now = relay.clock.elapsed();
    let Some(peers) = pace.turn(&peering.answered(), now) else { return };
    let news = relay.subscriptions.write().take_news(now);
    let news: Vec<_> = news.iter().map(|body| tagged(tag::SUBSCRIPTIONS, body)).collect();
    if !news.is_empty() {
        let pinged = peering.tell_all(&peers, &news);
        pace.told(&peers, news.iter().map(Vec::len).sum(), pinged);
    }
}

fn tagged(tag: u8, body: &[u8]) -> Vec<u8> {
    [&[tag], body].concat()
}

#[async_trait]
impl Application for Office {
    fn allegiance(&self) -> Option<Allegiance> {
        self.registry.as_ref()?.allegiance()
    }

    fn linked(&self, _: &Introduction) -> Vec<Vec<u8>> {
        let first = self.registry.as_ref().map(|registry| registry.first_word());
        let mut first: Vec<_> = first.iter().map(|body| tagged(tag::REGISTRY, body)).collect();
        if let Some(relay) = self.relay.upgrade() {
            let digest = relay.subscriptions.read().digest();
            first.push(tagged(tag::SUBSCRIPTIONS, &digest));
        }
        first
    }

    fn unlinked(&self, peer: Incarnation) {
        if let Some(registry) = &self.registry {
            registry.unlinked(peer.node);
        }
    }

    fn living(&self, nodes: &BTreeSet<Incarnation>) {
        self.living.lock().clone_from(nodes);
        self.note_lost_homes();
        if let Some(registry) = &self.registry {
            registry.living(nodes.iter().map(|incarnation| incarnation.node));
        }
    }

    fn told(&self, from: Incarnation, body: &[u8]) -> Vec<Vec<u8>> {
        match (&self.registry, body.split_first()) {
            (_, Some((&tag::SUBSCRIPTIONS, body))) => self.told_subscriptions(from, body),
            (Some(registry), Some((&tag::REGISTRY, body))) => {
                let answer = registry.told(from.node, body);
                answer.iter().map(|body| tagged(tag::REGISTRY, body)).collect()
            }
            _ => Vec::new(),
        }
    }

    async fn asked(&self, from: Incarnation, body: Vec<u8>) -> Vec<u8> {
        match (&self.registry, body.split_first()) {
            (Some(registry), Some((&tag::REGISTRY, question))) => {
                registry.asked(from.node, question.to_vec()).await
            }
            (_, Some((&tag::TLS, _))) => self.asked_of_tls(),
            (_, Some((&tag::SIGHT, _))) => self.asked_of_sight(),
            (_, Some((&tag::STANDING, _))) => self.asked_of_standing(),
            (_, Some((&tag::LEAVE, _))) => self.asked_to_leave(from),
            (_, Some((&tag::MAY_LEAVE, wish))) => self.asked_who_may_leave(wish).await,
            _ => Vec::new(),
        }
    }
}

/// The registry's way over the links.
pub(crate) struct OverLinks(pub(crate) Weak<Peering>);

#[async_trait]
impl Carry for OverLinks {
    async fn ask(&self, to: NodeId, body: Vec<u8>, deadline: Duration) -> Option<Vec<u8>> {
        self.0.upgrade()?.ask(to, tagged(tag::REGISTRY, &body), deadline).await
    }

    fn tell(&self, to: NodeId, body: Vec<u8>) {
        if let Some(peering) = self.0.upgrade() {
            peering.tell(to, tagged(tag::REGISTRY, &body));
        }
    }

    fn linked(&self) -> Vec<NodeId> {
        self.0.upgrade().map(|peering| peering.linked()).unwrap_or_default()
    }

    fn heard(&self) -> Vec<NodeId> {
        self.0.upgrade().map(|peering| peering.heard()).unwrap_or_default()
    }
}

/// The other nodes, as this one works with them.
pub(crate) struct Cluster {
    pub(crate) peering: Arc<Peering>,
    pub(crate) office: Arc<Office>,
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

    async fn tls_of(&self, node: NodeId) -> Option<NodeSays> {
        let says = self.peering.ask(node, tagged(tag::TLS, &[]), PATIENCE).await?;
        serde_json::from_slice(&says).ok()
    }

    async fn sight_of(&self, node: NodeId) -> Option<NodeSees> {
        let sees = self.peering.ask(node, tagged(tag::SIGHT, &[]), PATIENCE).await?;
        serde_json::from_slice(&sees).ok()
    }

    async fn standing_of(&self, node: NodeId) -> Option<Standing> {
        let stands = self.peering.ask(node, tagged(tag::STANDING, &[]), PATIENCE).await?;
        serde_json::from_slice(&stands).ok()
    }

    async fn may_leave(&self, decides: NodeId, wish: Wish) -> Option<Verdict> {
        let wish = serde_json::to_vec(&wish).ok()?;
        let question = tagged(tag::MAY_LEAVE, &wish);
        let verdict = self.peering.ask(decides, question, VERDICT_PATIENCE).await?;
        serde_json::from_slice(&verdict).ok()
    }

    async fn ask_to_leave(&self, node: NodeId) -> Option<Standing> {
        let stands = self.peering.ask(node, tagged(tag::LEAVE, &[]), PATIENCE).await?;
        serde_json::from_slice(&stands).ok()
    }

    fn carry(&self, load: Load) {
        self.peering.set_load(load);
    }

    async fn joined(&self) {
        let mut joined = self.peering.membership().joined();
        // An error means that the mesh has ended, which stops the node.
        let _ = joined.wait_for(|joined| *joined).await;
        self.office.informed().await;
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
