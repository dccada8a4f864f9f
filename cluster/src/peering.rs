//! What ties a node's links, membership and mesh together, and turns their I/O into the engine's
//! events.
//!
//! Owns the tasks of the mesh: the links', the membership's, pings, and the engine's ticks. What peers say
//! to the node itself (its registry, its subscriptions) is handed to its [`Application`] as it is.

mod answers;
mod questions;
mod whereabouts;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwapOption;
use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};

use self::{answers::Answers, questions::Questions};
use crate::{
    Generation, Incarnation, NodeId, UnixMillis,
    link::{
        Allegiance, Down, Frames, Introduction, LinkCounters, LinkError, LinkEvents, LinkStatus,
        Links, Reason, Refusal, transport::Transport,
    },
    membership::{
        DialError, Dialled, Driver, GossipError, Load, Member, Membership, Monotonic, Peers,
        Resolve, SUSPECT_AFTER, SeedAddress,
    },
    mesh::{Deliver, Home, Mesh, Outlet, Pushed},
    wire::{Control, Data, Located},
};

/// How often each peer is pinged, in ticks.
const TICKS_PER_PING: u64 = 10;

/// How often links are looked at for silence, in ticks.
const TICKS_PER_LOOK: u64 = 5;

/// How long the answers that are worked on are waited for at the end.
const ANSWERS_PATIENCE: Duration = Duration::from_secs(1);

/// How often the engine is told that time passes.
const TICK: Duration = Duration::from_millis(50);

/// The node behind the mesh: what peers say to each other that the mesh does not understand.
#[async_trait]
pub trait Application: Send + Sync + 'static {
    /// Which registry this node knows, if it knows one: a peer of another is not linked.
    fn allegiance(&self) -> Option<Allegiance> {
        None
    }

    /// A peer was linked: what it is to be told first.
    fn linked(&self, peer: &Introduction) -> Vec<Vec<u8>>;

    /// A peer is not linked any more.
    fn unlinked(&self, _peer: Incarnation) {}

    /// From now on these nodes live, and no others: with a node all its sessions are gone.
    fn living(&self, nodes: &BTreeSet<Incarnation>);

    /// A peer told something; what it is to be told in return. Never blocks for long.
    fn told(&self, from: Incarnation, body: &[u8]) -> Vec<Vec<u8>>;

    /// A peer asked something.
    async fn asked(&self, from: Incarnation, body: Vec<u8>) -> Vec<u8>;
}

/// The wall clock.
pub type Wall = Arc<dyn Fn() -> UnixMillis + Send + Sync>;

/// What a [`Peering`] is made of.
pub struct Parts<R> {
    /// What the node says of itself.
    pub introduction: Introduction,
    /// Which cluster it is of.
    pub cluster: String,
    /// Whom it asks first.
    pub seeds: Vec<SeedAddress>,
    /// What carries its links.
    pub transport: Arc<dyn Transport>,
    /// Finds the seeds' addresses.
    pub resolver: Arc<R>,
    /// Its sessions.
    pub deliver: Arc<dyn Deliver>,
    /// The rest of it.
    pub application: Arc<dyn Application>,
    /// Time that never goes back.
    pub clock: Monotonic,
    /// The wall clock.
    pub wall: Wall,
}

/// A node's part in the mesh.
pub struct Peering {
    mesh: Arc<Mesh>,
    outward: Arc<Outward>,
    membership: Membership,
    application: Arc<dyn Application>,
    clock: Monotonic,
    wall: Wall,
    asked: Questions<Vec<u8>>,
    looked_up: Questions<Located>,
    answers: Answers,
    silent: Mutex<BTreeSet<NodeId>>,
}

/// The tasks of a [`Peering`], not started yet.
pub struct Tasks<R> {
    peering: Arc<Peering>,
    links: Arc<Links>,
    driver: Driver,
    resolver: Arc<R>,
    circle: Circle,
}

/// The links, once there are some: the engine is made before them.
#[derive(Default)]
struct Outward(ArcSwapOption<Links>);

/// The engine and the links hold each other until this is dropped, whether the tasks have come to
/// their end or not; so do answers that are worked on.
struct Circle {
    outward: Arc<Outward>,
    _answers: DropGuard,
}

impl Drop for Circle {
    fn drop(&mut self) {
        self.outward.0.store(None);
    }
}

impl Peering {
    /// The node's part in the mesh, and the tasks that bring it to life.
    pub fn new<R: Resolve>(parts: Parts<R>) -> (Arc<Self>, Tasks<R>) {
        let Parts { introduction, cluster, seeds, transport, resolver, .. } = parts;
        let outward = Arc::new(Outward::default());
        let home = Home { me: introduction.incarnation, region: introduction.region.clone() };
        let mesh = Arc::new(Mesh::new(home, outward.clone(), parts.deliver));
        let clock = parts.clock;
        let (membership, driver) =
            Membership::new(introduction.clone(), cluster.clone(), seeds, clock.clone());
        let peering = Arc::new(Self {
            mesh,
            outward: outward.clone(),
            membership,
            application: parts.application,
            clock: clock.clone(),
            wall: parts.wall,
            asked: Questions::default(),
            looked_up: Questions::default(),
            answers: Answers::new(),
            silent: Mutex::default(),
        });
        let events: Arc<dyn LinkEvents> = Arc::new(Arc::clone(&peering));
        let links = Links::new(introduction, cluster, transport, events, clock);
        outward.0.store(Some(Arc::clone(&links)));
        let circle = Circle { outward, _answers: peering.answers.end() };
        let tasks = Tasks { peering: Arc::clone(&peering), links, driver, resolver, circle };
        (peering, tasks)
    }

    /// Where messages are sent, and sessions made known.
    pub fn mesh(&self) -> &Arc<Mesh> {
        &self.mesh
    }

    /// Who is there.
    pub fn membership(&self) -> &Membership {
        &self.membership
    }

    /// The links' present state.
    pub fn links(&self) -> Vec<LinkStatus> {
        self.outward.0.load().as_ref().map(|links| links.status()).unwrap_or_default()
    }

    /// Lets `look` see what the links have counted.
    pub fn with_counters(&self, look: impl FnOnce(&LinkCounters)) {
        if let Some(links) = self.outward.0.load().as_ref() {
            look(links.counters());
        }
    }

    /// Others are to know how much this node carries.
    pub fn set_load(&self, load: Load) {
        self.membership.set_load(load);
    }

    /// Tells a peer something; dropped without a link.
    pub fn tell(&self, to: NodeId, body: Vec<u8>) {
        self.outward.control(to, &Control::Tell { body });
    }

    /// Tells these peers something, and pings them behind it: whose answer has come
    /// ([`answered`](Self::answered)) has all of it. Returns when, by the node's clock.
    pub fn tell_all(&self, peers: &[NodeId], bodies: &[Vec<u8>]) -> Duration {
        for body in bodies {
            let frame = Control::Tell { body: body.clone() };
            for node in peers {
                self.outward.control(*node, &frame);
            }
        }
        let now = self.now();
        self.ping(peers.iter().copied());
        now
    }

    /// For each linked peer, when the last ping was sent that it has answered, or the link came up, by
    /// the node's clock.
    pub fn answered(&self) -> BTreeMap<NodeId, Duration> {
        self.outward.0.load().as_ref().map(|links| links.all_answered()).unwrap_or_default()
    }

    /// Asks a peer; `None` if it is not linked or does not answer by `deadline`, counted from now.
    pub async fn ask(&self, to: NodeId, body: Vec<u8>, deadline: Duration) -> Option<Vec<u8>> {
        let mut question = self.asked.ask(to);
        let frame = Control::Ask { ask: question.number, body };
        if !self.outward.control(to, &frame) {
            return None;
        }
        timeout(deadline, question.answer()).await.ok().flatten()
    }

    /// The node stops soon: it owns nothing from now on, and others take no more agents for it.
    pub fn leave(&self) {
        self.membership.leave();
        for node in self.linked() {
            self.outward.control(node, &Control::Leaving);
        }
    }

    /// The node has nothing left to say: all that was sent is delivered, until `deadline`, and the
    /// links end in a goodbye.
    pub async fn say_goodbye(&self, deadline: Duration) {
        self.membership.left();
        let links = self.outward.0.load_full();
        if let Some(links) = links {
            links.close_all(deadline).await;
        }
    }

    /// Ends the link to a node that may not be linked any more.
    pub fn cut(&self, node: NodeId) {
        if let Some(links) = self.outward.0.load().as_ref() {
            links.close(node, Down::Closed);
        }
    }

    /// The nodes that are linked now.
    pub fn linked(&self) -> Vec<NodeId> {
        self.outward.0.load().as_ref().map(|links| links.linked()).unwrap_or_default()
    }

    /// Those of them that have answered within [`SUSPECT_AFTER`], or were linked since.
    pub fn heard(&self) -> Vec<NodeId> {
        let mut nodes = self.linked();
        let silent = self.silent.lock();
        nodes.retain(|node| !silent.contains(node));
        nodes
    }

    fn now(&self) -> Duration {
        (self.clock)()
    }

    fn tell_each(&self, to: NodeId, bodies: Vec<Vec<u8>>) {
        for body in bodies {
            self.tell(to, body);
        }
    }

    /// Pings these nodes. A ping's number is its time, which comes back with the answer.
    fn ping(&self, nodes: impl IntoIterator<Item = NodeId>) {
        let ping = Control::Ping {
            number: u64::try_from(self.now().as_nanos()).unwrap_or(u64::MAX),
            time: self.mesh.time((self.wall)()),
            broadcasts: self.mesh.broadcasts(),
        };
        for node in nodes {
            self.outward.control(node, &ping);
        }
    }

    /// Tells the engine and the membership which links have fallen silent, or are heard of again. The
    /// silent ones are pinged at each look, to be heard of again soon.
    ///
    /// Bytes that come do not make up for answers that do not: a way that is blocked one way is of no
    /// use either way, and what was held somewhere and comes now may be long out of date.
    fn look_for_silence(&self) {
        let status = self.links();
        let mut silent = self.silent.lock();
        silent.retain(|node| status.iter().any(|link| link.peer.incarnation.node == *node));
        for link in &status {
            let peer = link.peer.incarnation;
            let is_silent = link.silent_for >= SUSPECT_AFTER;
            let changed =
                if is_silent { silent.insert(peer.node) } else { silent.remove(&peer.node) };
            if changed {
                self.membership.silent(peer, is_silent);
                self.mesh.link_suspect(peer.node, is_silent, self.now());
            }
        }
        self.ping(silent.iter().copied());
    }

    /// Answers a peer's question by a task of its own; one too many is not answered, nor one at which
    /// the task panics.
    fn answer(self: &Arc<Self>, from: Incarnation, ask: u64, body: Vec<u8>) {
        let (peering, noticing, bytes) = (Arc::clone(self), Arc::clone(self), body.len());
        let answer = async move {
            let body = peering.application.asked(from, body).await;
            peering.outward.control(from.node, &Control::Answer { ask, body });
        };
        self.answers.spawn(bytes, answer, move |panic| {
            noticing.with_counters(LinkCounters::panicked);
            tracing::error!(%from, panic, "answering a peer's question panicked: this is a bug");
        });
    }
}

impl<R: Resolve> Tasks<R> {
    /// Keeps the node in the mesh until `stop`, and returns when the peers were told of its end.
    ///
    /// # Errors
    /// Gossip ended by itself: the node cannot know who is there any more.
    pub async fn run(self, stop: CancellationToken) -> Result<(), GossipError> {
        let Self { peering, links, driver, resolver, circle } = self;
        let dialling = Arc::new(Dialling { links: Arc::clone(&links) });
        let end = stop.child_token();
        let thinking = async {
            let _ended = end.clone().drop_guard();
            tokio::select! {
                outcome = driver.run(dialling, resolver, end.clone()) => outcome,
                () = follow_members(&peering) => Ok(()),
                () = keep_time(&peering) => Ok(()),
            }
        };
        // To their own end: the peers are told that this is no loss, and again if they did not hear.
        let carrying = async {
            let _ended = end.clone().drop_guard();
            links.run(end.clone()).await;
        };
        let (outcome, ()) = tokio::join!(thinking, carrying);
        // They end where they wait next; one that computes for so long is left to itself.
        let _ = timeout(ANSWERS_PATIENCE, peering.answers.close()).await;
        drop(circle);
        outcome
    }
}

async fn keep_time(peering: &Peering) {
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for number in 0_u64.. {
        tick.tick().await;
        peering.mesh.tick(peering.now());
        if number.is_multiple_of(TICKS_PER_LOOK) {
            peering.look_for_silence();
        }
        if number.is_multiple_of(TICKS_PER_PING) {
            peering.ping(peering.linked());
        }
    }
}

async fn follow_members(peering: &Peering) {
    let mut members = peering.membership.members();
    let mut told = None;
    loop {
        let list: Arc<[Member]> = members.borrow_and_update().clone();
        peering.mesh.members(&list, peering.now());
        let lives = |member: &&Member| member.state.lives();
        let living = list.iter().filter(lives).map(|member| member.incarnation).collect();
        // Members change whenever their loads do, every other second.
        if told.as_ref() != Some(&living) {
            peering.application.living(&living);
            told = Some(living);
        }
        if members.changed().await.is_err() {
            return;
        }
    }
}

/// The links as the membership uses them.
struct Dialling {
    links: Arc<Links>,
}

impl Peers for Dialling {
    fn gossip(&self, to: NodeId, message: &[u8]) -> bool {
        self.links.gossip(to, message)
    }

    async fn dial(&self, address: SocketAddr) -> Result<Dialled, DialError> {
        match self.links.dial(address).await {
            Ok(peer) => Ok(Dialled::Peer(peer.incarnation)),
            Err(LinkError::Myself(_)) => Ok(Dialled::Oneself),
            Err(error) => Err(failure(&error)),
        }
    }
}

fn failure(error: &LinkError) -> DialError {
    let text = match error {
        LinkError::Refused { refusal, .. } | LinkError::Unfit { refusal, .. } => {
            refusal.text.clone()
        }
        other => other.to_string(),
    };
    let theirs = matches!(error, LinkError::Refused { .. });
    match error.reason() {
        Reason::Generation if theirs => DialError::Outlived(text),
        Reason::Broken | Reason::Deadline => DialError::Unreachable(text),
        Reason::Duplicate | Reason::Leaving | Reason::Busy => DialError::NotNow(text),
        reason => DialError::Refused(Refusal::new(reason, text)),
    }
}

/// The engine is told first of a link that is there, and last of one that is gone.
impl LinkEvents for Arc<Peering> {
    fn admit(&self, peer: &Introduction) -> Result<(), Refusal> {
        self.membership.admit(peer)
    }

    fn outlived(&self, by: Generation) {
        self.membership.outlived(by);
    }

    fn up(&self, peer: &Introduction) {
        let home = Home { me: peer.incarnation, region: peer.region.clone() };
        self.mesh.link_up(&home, self.now());
        self.membership.up(peer);
        self.tell_each(peer.incarnation.node, self.application.linked(peer));
    }

    fn down(&self, peer: Incarnation, why: Down) {
        self.application.unlinked(peer);
        self.membership.down(peer, why);
        self.mesh.link_down(peer, self.now());
    }

    fn control(&self, from: Incarnation, frame: Control) {
        match frame {
            Control::Ping { number, time, broadcasts } => {
                self.learn_time(time);
                let time = self.mesh_time();
                self.outward.control(from.node, &Control::Pong { number, time });
                self.mesh.heard(from.node, &broadcasts, self.now());
            }
            Control::Pong { number, time } => {
                self.learn_time(time);
                self.outward.answered(from.node, Duration::from_nanos(number));
            }
            Control::Leaving => self.membership.peer_leaves(from),
            Control::Ask { ask, body } => self.answer(from, ask, body),
            Control::Answer { ask, body } => self.asked.answered(from.node, ask, body),
            Control::Tell { body } => {
                self.tell_each(from.node, self.application.told(from, &body));
            }
            Control::Located { ask, place, .. } if self.located(from.node, ask, place) => {}
            other => self.mesh.control(from.node, other, self.now()),
        }
    }

    fn gossip(&self, from: Incarnation, message: Bytes) {
        self.membership.gossip(from, message);
    }

    fn data(&self, from: Incarnation, lane: u8, frames: &mut Frames<'_>) {
        self.mesh.chunk(from.node, lane, frames, self.now());
    }

    fn allegiance(&self) -> Option<Allegiance> {
        self.application.allegiance()
    }

    fn wall(&self) -> UnixMillis {
        (self.wall)()
    }

    fn mesh_time(&self) -> UnixMillis {
        self.mesh.time((self.wall)())
    }

    fn learn_time(&self, time: UnixMillis) {
        self.mesh.learn_time((self.wall)(), time);
    }
}

impl Outward {
    fn answered(&self, node: NodeId, sent: Duration) {
        if let Some(links) = self.0.load().as_ref() {
            links.answered(node, sent);
        }
    }
}

impl Outlet for Outward {
    fn control(&self, to: NodeId, frame: &Control) -> bool {
        self.0.load().as_ref().is_some_and(|links| links.control(to, frame))
    }

    fn data(&self, to: NodeId, lane: u8, frame: &Data<'_>) -> Pushed {
        self.0.load().as_ref().map_or(Pushed::NoLink, |links| links.data(to, lane, frame))
    }
}

#[cfg(test)]
mod tests;
