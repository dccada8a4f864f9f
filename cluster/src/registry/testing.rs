//! Many registries in one process, over a network in memory whose links can be cut, one way too.
#![allow(clippy::unwrap_used)] // a test that cannot be set up has failed

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use futures_util::future::pending;
use parking_lot::Mutex;
use tempfile::TempDir;
use tls::acme::Shelf;
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_util::task::TaskTracker;

use super::{message::Question, *};
use crate::{NodeId, test_disk::TestDisk};

pub(super) const NOW: UnixMillis = UnixMillis(1_795_341_600_000);

/// Nothing here takes so long on any machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// A wall clock that the test moves.
#[derive(Clone)]
pub(super) struct TestClock(Arc<AtomicU64>);

impl TestClock {
    pub(super) fn new() -> Self {
        Self(Arc::new(AtomicU64::new(NOW.0)))
    }

    pub(super) fn now(&self) -> UnixMillis {
        UnixMillis(self.0.load(Ordering::SeqCst))
    }

    pub(super) fn advance(&self, by: Duration) {
        self.0.store(self.now().plus(by).0, Ordering::SeqCst);
    }

    /// Always the same sealing keys: whatever the test restarts is the same node.
    pub(super) fn settings(&self, at_rest: AtRest, token_ttl: Option<Duration>) -> Settings {
        let clock = self.clone();
        Settings { token_ttl, now: Arc::new(move || clock.now()), at_rest }
    }
}

pub(super) fn id(text: &str) -> AgentId {
    text.parse().unwrap()
}

/// Returns when `happened`, or fails.
pub(super) async fn until(what: &str, mut happened: impl FnMut() -> bool) {
    let wait = async {
        while !happened() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(timeout(PATIENCE, wait).await.is_ok(), "waited in vain: {what}");
}

/// What comes of something that must not take longer.
pub(super) async fn within<T>(most: Duration, doing: impl Future<Output = T>) -> T {
    timeout(most, doing).await.unwrap_or_else(|_| panic!("it took longer than {most:?}"))
}

/// How many of those who claim one name at the same time get it, and how many hear that it is taken.
pub(super) async fn won_and_taken(
    claims: JoinSet<Result<Registration, RegisterError>>,
) -> (usize, usize) {
    let (mut won, mut taken) = (0, 0);
    for outcome in claims.join_all().await {
        match outcome {
            Ok(_) => won += 1,
            Err(RegisterError::Taken) => taken += 1,
            Err(error) => panic!("{error}"),
        }
    }
    (won, taken)
}

/// A registry that runs until this is dropped.
pub(super) struct Running {
    pub(super) registry: Arc<SharedRegistry>,
    task: JoinSet<()>,
}

impl Running {
    pub(super) fn start(registry: Arc<SharedRegistry>, place: Place) -> Self {
        let mut task = JoinSet::new();
        task.spawn(Arc::clone(&registry).serve(place));
        Self { registry, task }
    }

    /// One that is alone, once it can register names.
    pub(super) async fn alone(registry: Arc<SharedRegistry>) -> Self {
        let running = Self::start(registry, Place::alone());
        until("a lone registry is founded", || running.registry.status().available).await;
        running
    }

    /// Ends it as a node does that stops.
    pub(super) async fn stop(mut self) {
        self.task.shutdown().await;
        self.registry.close().await;
    }
}

impl std::ops::Deref for Running {
    type Target = SharedRegistry;

    fn deref(&self) -> &SharedRegistry {
        &self.registry
    }
}

/// The links between nodes.
#[derive(Default)]
struct Network {
    nodes: Mutex<BTreeMap<NodeId, Arc<SharedRegistry>>>,
    /// What one says to the other does not arrive.
    deaf: Mutex<BTreeSet<(NodeId, NodeId)>>,
    /// Pairs without a link, both ways.
    cut: Mutex<BTreeSet<(NodeId, NodeId)>>,
    /// Nodes that hear their leader, but are given none of the log.
    starved: Mutex<BTreeSet<NodeId>>,
    /// Linked nodes that do not answer, as all others see it.
    silent: Mutex<BTreeSet<NodeId>>,
    answering: TaskTracker,
}

impl Network {
    /// The node at the other end, if what `from` says gets there.
    fn at(&self, from: NodeId, to: NodeId) -> Option<Arc<SharedRegistry>> {
        let lost = self.deaf.lock().contains(&(from, to)) || self.cut.lock().contains(&(from, to));
        if lost { None } else { self.nodes.lock().get(&to).cloned() }
    }

    fn linked(&self, node: NodeId) -> Vec<NodeId> {
        let cut = self.cut.lock();
        let others: Vec<_> = self.nodes.lock().keys().copied().collect();
        others.into_iter().filter(|it| *it != node && !cut.contains(&(node, *it))).collect()
    }

    fn tell(&self, from: NodeId, to: NodeId, body: &[u8]) {
        if let Some(answer) = self.at(from, to).and_then(|node| node.told(from, body)) {
            self.tell(to, from, &answer);
        }
    }

    fn link_up(&self, a: NodeId, b: NodeId) {
        for (from, to) in [(a, b), (b, a)] {
            let node = self.nodes.lock().get(&from).cloned();
            if let Some(node) = node {
                self.tell(from, to, &node.first_word());
            }
        }
    }

    fn link_down(&self, a: NodeId, b: NodeId) {
        for (of, other) in [(a, b), (b, a)] {
            let node = self.nodes.lock().get(&of).cloned();
            if let Some(node) = node {
                node.unlinked(other);
            }
        }
    }
}

/// The same as a leader says to whom it gives nothing, if it gives some of the log.
fn without_entries(question: &[u8]) -> Option<Vec<u8>> {
    let Some(Question::Append(mut request)) = message::from_bytes(question) else { return None };
    let gives_some = !request.entries.is_empty();
    request.entries.clear();
    gives_some.then(|| message::to_bytes(&Question::Append(request)))
}

struct Line {
    me: NodeId,
    network: Weak<Network>,
}

#[async_trait]
impl Carry for Line {
    async fn ask(&self, to: NodeId, body: Vec<u8>, deadline: Duration) -> Option<Vec<u8>> {
        let network = self.network.upgrade()?;
        if !network.linked(self.me).contains(&to) {
            return None;
        }
        let me = self.me;
        let starves = network.starved.lock().contains(&to);
        let without_entries = starves.then(|| without_entries(&body)).flatten();
        let answer = async {
            let Some(node) = network.at(me, to) else { return pending().await };
            if let Some(body) = without_entries {
                network.answering.spawn(async move { node.asked(me, body).await });
                return pending().await;
            }
            let answer = network.answering.spawn(async move { node.asked(me, body).await }).await;
            if network.at(to, me).is_none() {
                return pending().await;
            }
            answer.ok()
        };
        timeout(deadline, answer).await.ok().flatten()
    }

    fn tell(&self, to: NodeId, body: Vec<u8>) {
        if let Some(network) = self.network.upgrade() {
            network.tell(self.me, to, &body);
        }
    }

    fn linked(&self) -> Vec<NodeId> {
        self.network.upgrade().map(|network| network.linked(self.me)).unwrap_or_default()
    }

    fn heard(&self) -> Vec<NodeId> {
        let Some(network) = self.network.upgrade() else { return Vec::new() };
        let silent = network.silent.lock();
        network.linked(self.me).into_iter().filter(|node| !silent.contains(node)).collect()
    }
}

/// A node's disk, which outlives it.
pub(super) struct Disk {
    pub(super) disk: TestDisk,
    dir: TempDir,
}

/// A cluster: the first nodes are its seeds, the others observe.
pub(super) struct Cluster {
    pub(super) clock: TestClock,
    network: Arc<Network>,
    seeds: Vec<String>,
    pub(super) disks: Vec<Disk>,
    pub(super) nodes: Vec<Option<Running>>,
}

impl Cluster {
    /// So many voters, elected and founded, and observers that know of them.
    pub(super) async fn of(voters: usize, observers: usize) -> Self {
        let mut cluster = Self {
            clock: TestClock::new(),
            network: Arc::default(),
            seeds: (0..voters).map(|number| format!("node-{number}:7946")).collect(),
            disks: Vec::new(),
            nodes: Vec::new(),
        };
        for number in 0..voters + observers {
            cluster
                .disks
                .push(Disk { disk: TestDisk::default(), dir: tempfile::tempdir().unwrap() });
            cluster.nodes.push(None);
            cluster.start(number);
        }
        cluster.agree().await;
        cluster
    }

    /// Starts a node with what its disk holds.
    pub(super) fn start(&mut self, number: usize) {
        let Disk { disk, dir } = &self.disks[number];
        let at_rest = AtRest::open(dir.path(), None, None).unwrap();
        let settings = self.clock.settings(at_rest, None);
        let registry =
            SharedRegistry::open_source(disk.clone(), dir.path(), false, settings).unwrap();
        let me = registry.identity().node;
        let line = Line { me, network: Arc::downgrade(&self.network) };
        let place = Place {
            carry: Some(Arc::new(line)),
            seeds: self.seeds.clone(),
            slot: self.seeds.get(number).cloned(),
        };
        self.network.nodes.lock().insert(me, Arc::clone(&registry));
        self.nodes[number] = Some(Running::start(registry, place));
        for other in self.network.linked(me) {
            self.network.link_up(me, other);
        }
    }

    /// Ends a node without its saying so.
    pub(super) async fn kill(&mut self, number: usize) {
        let running = self.nodes[number].take().unwrap();
        let me = running.identity().node;
        self.network.nodes.lock().remove(&me);
        for node in self.nodes.iter().flatten() {
            node.unlinked(me);
        }
        running.stop().await;
    }

    pub(super) fn node(&self, number: usize) -> &Arc<SharedRegistry> {
        &self.nodes[number].as_ref().unwrap().registry
    }

    pub(super) fn running(&self) -> impl Iterator<Item = &Arc<SharedRegistry>> {
        self.nodes.iter().flatten().map(|running| &running.registry)
    }

    /// The node that leads, as all that run and can know it agree.
    pub(super) fn leader(&self) -> usize {
        let leads = |node: &Option<Running>| {
            node.as_ref().is_some_and(|node| *node.registry.leads().borrow())
        };
        self.nodes.iter().position(leads).unwrap()
    }

    /// A voter that does not lead.
    pub(super) fn follower(&self) -> usize {
        let leader = self.leader();
        (0..self.seeds.len()).find(|it| *it != leader && self.nodes[*it].is_some()).unwrap()
    }

    /// Returns when all that run know one leader and the same book.
    pub(super) async fn agree(&self) {
        until("all nodes agree", || {
            let leads = self.running().filter(|node| *node.leads().borrow()).count();
            let first = self.running().next().map(|node| node.standing().index());
            leads == 1
                && self.running().all(|node| {
                    node.status().available
                        && node.standing().is_informed()
                        && Some(node.standing().index()) == first
                })
        })
        .await;
    }

    fn ids(&self, numbers: &[usize]) -> Vec<NodeId> {
        numbers.iter().map(|number| self.node(*number).identity().node).collect()
    }

    /// Cuts all links between these nodes and the others.
    pub(super) fn part(&self, numbers: &[usize]) {
        let these = self.ids(numbers);
        let others = self.running().map(|node| node.identity().node);
        for other in others.filter(|it| !these.contains(it)) {
            for one in &these {
                self.network.cut.lock().extend([(*one, other), (other, *one)]);
                self.network.link_down(*one, other);
            }
        }
    }

    /// Cuts the link between two nodes.
    pub(super) fn cut(&self, one: usize, other: usize) {
        let ids = self.ids(&[one, other]);
        self.network.cut.lock().extend([(ids[0], ids[1]), (ids[1], ids[0])]);
        self.network.link_down(ids[0], ids[1]);
    }

    /// A voter hears its leader from now on, but is given none of the log.
    pub(super) fn starve(&self, voter: usize) {
        self.network.starved.lock().extend(self.ids(&[voter]));
    }

    /// Links two nodes that were cut off from each other.
    pub(super) fn relink(&self, one: usize, other: usize) {
        let ids = self.ids(&[one, other]);
        self.network
            .cut
            .lock()
            .retain(|pair| *pair != (ids[0], ids[1]) && *pair != (ids[1], ids[0]));
        self.network.link_up(ids[0], ids[1]);
    }

    /// What `from` says does not arrive at `to` any more; the link is thought to be there.
    pub(super) fn deafen(&self, from: usize, to: usize) {
        let ids = self.ids(&[from, to]);
        self.network.deaf.lock().insert((ids[0], ids[1]));
    }

    /// The links to these nodes fall silent, as all others see it.
    pub(super) fn silence(&self, numbers: &[usize]) {
        *self.network.silent.lock() = self.ids(numbers).into_iter().collect();
    }

    /// Mends everything.
    pub(super) fn heal(&self) {
        self.network.deaf.lock().clear();
        self.network.starved.lock().clear();
        self.network.silent.lock().clear();
        let cut = std::mem::take(&mut *self.network.cut.lock());
        for (one, other) in cut.into_iter().filter(|(one, other)| one < other) {
            self.network.link_up(one, other);
        }
    }
}
