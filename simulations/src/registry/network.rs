//! The links between the nodes: delays, directions that are blocked, links that break and are made
//! anew, and nodes that stand still.
//!
//! As over QUIC: what is told arrives in order, what is asked overtakes each other; what cannot get
//! through waits, and is lost only with its link, or because a stream is reset, which whoever asks is
//! told. So an old question may well arrive late.

mod way;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Weak},
    time::Duration,
};

use cluster::{
    Incarnation, NodeId,
    registry::{Carry, SharedRegistry},
};
use parking_lot::Mutex;
use rand::{Rng, SeedableRng, rngs::SmallRng};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinSet,
    time::{sleep, sleep_until},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::clock::{self, Instant};
use way::Way;

/// How often what cannot go on is looked at.
pub(super) const POLL: Duration = Duration::from_millis(10);

/// A link over which nothing comes for so long is given up, as QUIC does.
const SILENCE_MAX: Duration = Duration::from_secs(5);

/// How late a question or an answer can be: no longer than its link lives.
const LATE_MAX: Duration = Duration::from_secs(4);

/// What may be under way on a link; beyond that, what is told is lost.
const UNDER_WAY_MAX: usize = 1024;

/// All nodes and what is between them.
#[derive(Debug)]
pub(super) struct Network {
    this: Weak<Self>,
    state: Mutex<State>,
    tasks: TaskTracker,
}

#[derive(Debug)]
struct State {
    rng: SmallRng,
    lives: BTreeMap<usize, Life>,
    links: BTreeMap<(usize, usize), Link>,
    /// When a link may be made anew, of those that are down.
    redial: BTreeMap<(usize, usize), Instant>,
    blocked: BTreeSet<(usize, usize)>,
    still: BTreeSet<usize>,
    stalled: BTreeSet<usize>,
    slow: BTreeSet<usize>,
    /// One question or answer in so many is lost.
    loss: Option<u32>,
    /// One in so many takes seconds.
    late: Option<u32>,
    trap: Option<Trap>,
    carried: u64,
}

/// Waits for one of some nodes to be given so many votes by others of them.
#[derive(Debug)]
struct Trap {
    among: BTreeSet<usize>,
    needed: usize,
    /// Who has voted for whom.
    votes: BTreeMap<usize, BTreeSet<usize>>,
    sprung: oneshot::Sender<Elected>,
}

/// A node that has all the votes that it needs, the last of which is under way.
#[derive(Clone, Debug)]
pub(super) struct Elected {
    pub(super) node: usize,
    pub(super) voters: BTreeSet<usize>,
}

/// A node that runs.
#[derive(Clone, Debug)]
struct Life {
    /// Which it is: one that starts again is another.
    id: Incarnation,
    registry: Arc<SharedRegistry>,
}

/// A link as both ends believe in it.
#[derive(Debug)]
struct Link {
    ends: (Incarnation, Incarnation),
    told: BTreeMap<usize, mpsc::Sender<(Instant, Vec<u8>)>>,
    broken: CancellationToken,
    /// Since when nothing gets through one way at least.
    silent: Option<Instant>,
    _pumps: JoinSet<()>,
}

impl Network {
    pub(super) fn new(seed: u64) -> Arc<Self> {
        let state = State {
            rng: SmallRng::seed_from_u64(seed),
            lives: BTreeMap::new(),
            links: BTreeMap::new(),
            redial: BTreeMap::new(),
            blocked: BTreeSet::new(),
            still: BTreeSet::new(),
            stalled: BTreeSet::new(),
            slow: BTreeSet::new(),
            loss: None,
            late: None,
            trap: None,
            carried: 0,
        };
        Arc::new_cyclic(|this| Self {
            this: this.clone(),
            state: Mutex::new(state),
            tasks: TaskTracker::new(),
        })
    }

    /// The way of one node to the others.
    pub(super) fn way(self: &Arc<Self>, node: usize, id: Incarnation) -> Arc<dyn Carry> {
        Arc::new(Way { network: Arc::clone(self), node, id })
    }

    /// A node lives from now on.
    pub(super) fn born(&self, node: usize, registry: Arc<SharedRegistry>) {
        let id = registry.identity();
        self.state.lock().lives.insert(node, Life { id, registry });
    }

    /// A node lives no longer; the others notice later.
    pub(super) fn died(&self, node: usize) {
        self.state.lock().lives.remove(&node);
    }

    pub(super) fn set_blocked(&self, ways: &[(usize, usize)], blocked: bool) {
        let state = &mut self.state.lock().blocked;
        for way in ways {
            if blocked {
                state.insert(*way);
            } else {
                state.remove(way);
            }
        }
    }

    pub(super) fn set_still(&self, node: usize, still: bool) {
        set(&mut self.state.lock().still, node, still);
    }

    pub(super) fn set_stalled(&self, node: usize, stalled: bool) {
        set(&mut self.state.lock().stalled, node, stalled);
    }

    pub(super) fn set_slow(&self, node: usize, slow: bool) {
        set(&mut self.state.lock().slow, node, slow);
    }

    pub(super) fn set_loss(&self, one_in: Option<u32>) {
        self.state.lock().loss = one_in;
    }

    pub(super) fn set_late(&self, one_in: Option<u32>) {
        self.state.lock().late = one_in;
    }

    /// Tells when next so many of these have voted for another of them. There is one trap at a time: a new
    /// one takes the other's place.
    pub(super) fn trap(&self, among: BTreeSet<usize>, needed: usize) -> oneshot::Receiver<Elected> {
        let (sprung, tells) = oneshot::channel();
        self.state.lock().trap = Some(Trap { among, needed, votes: BTreeMap::new(), sprung });
        tells
    }

    /// Whether a node does nothing now.
    pub(super) fn hangs(&self, node: usize) -> bool {
        self.state.lock().still.contains(&node)
    }

    /// Whether a node's disk does nothing now.
    pub(super) fn stands_still(&self, node: usize) -> bool {
        let state = self.state.lock();
        state.still.contains(&node) || state.stalled.contains(&node)
    }

    /// All that was blocked, slow or still is so no longer.
    pub(super) fn heal(&self) {
        let mut state = self.state.lock();
        state.blocked.clear();
        state.still.clear();
        state.stalled.clear();
        state.slow.clear();
        state.loss = None;
        state.late = None;
        state.trap = None;
    }

    /// How many messages were carried.
    pub(super) fn carried(&self) -> u64 {
        self.state.lock().carried
    }

    /// Breaks the link between two nodes, if there is one.
    pub(super) fn cut(&self, a: usize, b: usize) {
        let pair = (a.min(b), a.max(b));
        let ends = {
            let mut state = self.state.lock();
            let Some(link) = state.links.remove(&pair) else { return };
            link.broken.cancel();
            let wait = Duration::from_millis(state.rng.random_range(20..300));
            state.redial.insert(pair, clock::now() + wait);
            let alive = |node: usize, id: Incarnation| {
                state.lives.get(&node).filter(|life| life.id == id).map(|it| it.registry.clone())
            };
            [(alive(pair.0, link.ends.0), link.ends.1), (alive(pair.1, link.ends.1), link.ends.0)]
        };
        for (registry, lost) in ends {
            if let Some(registry) = registry {
                registry.unlinked(lost.node);
            }
        }
    }

    /// Makes links, and gives them up, for as long as this is polled.
    pub(super) async fn tend(&self, nodes: usize) {
        loop {
            sleep(POLL).await;
            for pair in pairs(nodes) {
                self.tend_link(pair);
            }
        }
    }

    fn tend_link(&self, pair: (usize, usize)) {
        let now = clock::now();
        let mut state = self.state.lock();
        let through = state.is_open(pair.0, pair.1) && state.is_open(pair.1, pair.0);
        let lives = state.lives.get(&pair.0).cloned().zip(state.lives.get(&pair.1).cloned());
        let living = lives.as_ref().map(|(one, other)| (one.id, other.id));
        if let Some(link) = state.links.get_mut(&pair) {
            let sound = through && living == Some(link.ends);
            let since = *link.silent.get_or_insert(now);
            if sound {
                link.silent = None;
            }
            // A new life says at once that it knows nothing of the former one's link.
            let renewed = living.is_some_and(|living| living != link.ends) && through;
            if renewed || !sound && now.duration_since(since) > SILENCE_MAX {
                drop(state);
                self.cut(pair.0, pair.1);
            }
            return;
        }
        let due = state.redial.get(&pair).is_none_or(|at| *at <= now);
        let Some((one, other)) = lives.filter(|_| through && due) else { return };
        let link = self.link(&mut state, pair, &one, &other);
        state.links.insert(pair, link);
        drop(state);
        for (from, to) in [(&one, &other), (&other, &one)] {
            let node = if from.id == one.id { pair.0 } else { pair.1 };
            self.tell(node, from.id, to.id.node, from.registry.first_word());
        }
    }

    fn link(&self, state: &mut State, pair: (usize, usize), one: &Life, other: &Life) -> Link {
        let mut pumps = JoinSet::new();
        let mut told = BTreeMap::new();
        for (from, sender, to, life) in
            [(pair.0, one.id, pair.1, other), (pair.1, other.id, pair.0, one)]
        {
            let (queue, mut waiting) = mpsc::channel::<(Instant, Vec<u8>)>(UNDER_WAY_MAX);
            told.insert(from, queue);
            let (network, registry) = (self.this.clone(), Arc::clone(&life.registry));
            pumps.spawn(async move {
                while let Some((at, body)) = waiting.recv().await {
                    sleep_until(at).await;
                    let Some(network) = network.upgrade() else { return };
                    network.gets_through(from, to).await;
                    if let Some(answer) = registry.told(sender.node, &body) {
                        network.tell(to, registry.identity(), sender.node, answer);
                    }
                }
            });
        }
        state.redial.remove(&pair);
        let (ends, broken) = ((one.id, other.id), CancellationToken::new());
        Link { ends, told, broken, silent: None, _pumps: pumps }
    }

    fn tell(&self, from: usize, me: Incarnation, to: NodeId, body: Vec<u8>) {
        let mut state = self.state.lock();
        let Some((peer, ..)) = state.link(from, me, to) else { return };
        let at = clock::now() + state.delay(from, peer);
        state.carried += 1;
        let pair = (from.min(peer), from.max(peer));
        if let Some(queue) = state.links.get(&pair).and_then(|link| link.told.get(&from)) {
            let _ = queue.try_send((at, body)); // more than may be under way is lost
        }
    }

    /// Returns when what is sent that way now arrives.
    async fn gets_through(&self, from: usize, to: usize) {
        while !self.state.lock().is_open(from, to) {
            sleep(POLL).await;
        }
    }

    /// Carries one thing over; false if it is lost.
    async fn cross(&self, from: usize, to: usize) -> bool {
        let (delay, lost) = {
            let mut state = self.state.lock();
            state.carried += 1;
            let (one_lost, one_late) = (state.loss, state.late);
            let mut befalls = |rate: Option<u32>| {
                rate.is_some_and(|one_in| state.rng.random_range(0..one_in) == 0)
            };
            let (lost, late) = (befalls(one_lost), befalls(one_late));
            let least = if late {
                state.rng.random_range(Duration::ZERO..LATE_MAX)
            } else {
                Duration::ZERO
            };
            (least + state.delay(from, to), lost)
        };
        sleep(delay).await;
        self.gets_through(from, to).await;
        !lost
    }
}

impl State {
    fn is_open(&self, from: usize, to: usize) -> bool {
        !self.blocked.contains(&(from, to))
            && !self.still.contains(&from)
            && !self.still.contains(&to)
    }

    fn delay(&mut self, from: usize, to: usize) -> Duration {
        let slow = self.slow.contains(&from) || self.slow.contains(&to);
        let most = match (slow, self.rng.random_range(0..50)) {
            (true, _) => 120_000,
            (false, 0) => 30_000,
            (false, _) => 3_000,
        };
        Duration::from_micros(self.rng.random_range(200..most))
    }

    /// A node has voted for another.
    fn voted(&mut self, voter: usize, node: usize) {
        let Some(trap) = &mut self.trap else { return };
        if !trap.among.contains(&voter) || !trap.among.contains(&node) {
            return;
        }
        let voters = trap.votes.entry(node).or_default();
        voters.insert(voter);
        if voters.len() < trap.needed {
            return;
        }
        let voters = std::mem::take(voters);
        if let Some(trap) = self.trap.take() {
            let _ = trap.sprung.send(Elected { node, voters }); // nobody may wait any more
        }
    }

    /// The other end of a node's link to another, and what tells that it has broken.
    fn link(
        &self,
        node: usize,
        me: Incarnation,
        to: NodeId,
    ) -> Option<(usize, Incarnation, CancellationToken)> {
        self.links.iter().find_map(|((a, b), link)| {
            let ends = if *a == node { (link.ends, *b) } else { ((link.ends.1, link.ends.0), *a) };
            let ((own, other), peer) = ends;
            let found = (*a == node || *b == node) && own == me && other.node == to;
            found.then(|| (peer, other, link.broken.clone()))
        })
    }
}

fn set(nodes: &mut BTreeSet<usize>, node: usize, is: bool) {
    if is {
        nodes.insert(node);
    } else {
        nodes.remove(&node);
    }
}

fn pairs(nodes: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..nodes).flat_map(move |a| (a + 1..nodes).map(move |b| (a, b)))
}
