//! Whole memberships over a network in memory, under tokio's paused clock: real gossip, real time
//! limits, and no waiting.

#![allow(clippy::disallowed_methods)] // the clock that is paused is tokio's

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use parking_lot::Mutex;
use rand::{Rng, SeedableRng, rngs::SmallRng};
use tokio::{sync::watch, task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::{
    Generation,
    link::{Down, Introduction},
};

/// What QUIC does: a connection that is silent for so long is lost.
const IDLE_TIMEOUT: Duration = Duration::from_secs(5);

/// Nodes with links between them that can be cut, and lose gossip.
struct Net {
    start: Instant,
    wires: Mutex<Wires>,
}

struct Wires {
    nodes: BTreeMap<NodeId, Node>,
    /// Each with the moment since which it carries nothing.
    links: BTreeMap<(NodeId, NodeId), Option<Instant>>,
    cut: BTreeSet<(NodeId, NodeId)>,
    loss: f64,
    rng: SmallRng,
    names: BTreeMap<String, Vec<SocketAddr>>,
}

struct Node {
    introduction: Introduction,
    membership: Membership,
    members: watch::Receiver<Arc<[Member]>>,
    stop: CancellationToken,
    runs: bool,
    /// All states that others were seen in.
    seen: BTreeSet<(Incarnation, MemberState)>,
}

/// The links of one node, as its membership uses them.
struct Port {
    net: Arc<Net>,
    own: NodeId,
}

fn address(node: u64) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, u8::try_from(node).unwrap()], 7946))
}

fn pair(one: NodeId, other: NodeId) -> (NodeId, NodeId) {
    (one.min(other), one.max(other))
}

impl Wires {
    fn carries(&self, one: NodeId, other: NodeId) -> bool {
        let runs = |node| self.nodes.get(&node).is_some_and(|node: &Node| node.runs);
        runs(one) && runs(other) && !self.cut.contains(&pair(one, other))
    }

    fn at(&self, address: SocketAddr) -> Option<&Node> {
        self.nodes.values().find(|node| node.introduction.address == address && node.runs)
    }
}

impl Peers for Port {
    fn gossip(&self, to: NodeId, message: &[u8]) -> bool {
        let mut wires = self.net.wires.lock();
        let loss = wires.loss;
        if !wires.carries(self.own, to) || wires.rng.random_bool(loss) {
            return true;
        }
        let from = wires.nodes[&self.own].introduction.incarnation;
        wires.nodes[&to].membership.gossip(from, Bytes::copy_from_slice(message));
        true
    }

    /// Sends QUIC's first packet, and repeats it until it gives up.
    async fn dial(&self, address: SocketAddr) -> Result<Dialled, DialError> {
        for wait in [0, 1_000, 2_000] {
            tokio::time::sleep(Duration::from_millis(wait + 5)).await;
            if let Some(outcome) = self.meet(address) {
                return outcome;
            }
        }
        tokio::time::sleep(Duration::from_secs(2)).await;
        Err(DialError::Unreachable("silence".to_owned()))
    }
}

impl Port {
    /// Links whoever answers at the address.
    fn meet(&self, address: SocketAddr) -> Option<Result<Dialled, DialError>> {
        let mut wires = self.net.wires.lock();
        let peer = wires.at(address)?;
        let (peer_is, peer) = (peer.introduction.clone(), peer.membership.clone());
        let node = peer_is.incarnation.node;
        if node == self.own {
            return Some(Ok(Dialled::Oneself));
        }
        if !wires.carries(self.own, node) {
            return None;
        }
        let own = &wires.nodes[&self.own];
        let (own_is, own) = (own.introduction.clone(), own.membership.clone());
        let between = pair(self.own, node);
        if wires.links.contains_key(&between) {
            return Some(Ok(Dialled::Peer(peer_is.incarnation)));
        }
        if let Err(why) = own.admit(&peer_is).and(peer.admit(&own_is)) {
            return Some(Err(DialError::Refused(why)));
        }
        wires.links.insert(between, None);
        own.up(&peer_is);
        peer.up(&own_is);
        Some(Ok(Dialled::Peer(peer_is.incarnation)))
    }
}

impl Resolve for Port {
    async fn resolve(&self, seed: &SeedAddress) -> io::Result<Vec<SocketAddr>> {
        let wires = self.net.wires.lock();
        wires.names.get(&seed.host).cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

/// A cluster, and the tasks of its nodes.
struct Cluster {
    net: Arc<Net>,
    tasks: JoinSet<()>,
}

impl Cluster {
    fn new() -> Self {
        let wires = Wires {
            nodes: BTreeMap::new(),
            links: BTreeMap::new(),
            cut: BTreeSet::new(),
            loss: 0.0,
            rng: SmallRng::seed_from_u64(1),
            names: BTreeMap::new(),
        };
        Self {
            net: Arc::new(Net { start: Instant::now(), wires: Mutex::new(wires) }),
            tasks: JoinSet::new(),
        }
    }

    /// Nodes 1 to `n`, started at once; the first three are the seeds.
    fn of(n: u64) -> Self {
        let mut cluster = Self::new();
        for node in 1..=n {
            cluster.start(node, 1, &["10.0.0.1", "10.0.0.2", "10.0.0.3"]);
        }
        cluster
    }

    fn start(&mut self, node: u64, generation: u64, seeds: &[&str]) {
        self.start_as(&format!("node-{node}"), node, generation, seeds);
    }

    fn start_as(&mut self, name: &str, node: u64, generation: u64, seeds: &[&str]) {
        let introduction = Introduction {
            incarnation: life(node, generation),
            name: name.to_owned(),
            region: "eu".to_owned(),
            version: "0.1.0".to_owned(),
            address: address(node),
        };
        self.unlink(NodeId(node), Down::Lost); // QUIC's stateless reset, of a former life
        let start = self.net.start;
        let seeds = seeds.iter().map(|seed| SeedAddress::of(seed)).collect();
        let clock: Monotonic = Arc::new(move || start.elapsed());
        let (membership, driver) =
            Membership::new(introduction.clone(), "test".to_owned(), seeds, clock);
        let stop = CancellationToken::new();
        let port = Arc::new(Port { net: Arc::clone(&self.net), own: NodeId(node) });
        let members = membership.members();
        let seen = BTreeSet::new();
        let entry =
            Node { introduction, membership, members, stop: stop.clone(), runs: true, seen };
        self.net.wires.lock().nodes.insert(NodeId(node), entry);
        self.tasks.spawn(async move {
            driver.run(Arc::clone(&port), port, stop).await.expect("gossip goes on");
        });
    }

    /// Ends a node without a word.
    fn kill(&self, node: u64) {
        let mut wires = self.net.wires.lock();
        let node = wires.nodes.get_mut(&NodeId(node)).unwrap();
        node.stop.cancel();
        node.runs = false;
    }

    /// Ends the links of a node with a goodbye, and the node.
    fn goodbye(&self, node: u64) {
        self.unlink(NodeId(node), Down::Left);
        self.kill(node);
    }

    /// Ends the links of a node at the others' side.
    fn unlink(&self, gone: NodeId, why: Down) {
        let (life, told) = {
            let mut wires = self.net.wires.lock();
            let Some(node) = wires.nodes.get(&gone) else { return };
            let life = node.introduction.incarnation;
            let mut told = Vec::new();
            wires.links.keys().for_each(|(one, other)| match (*one == gone, *other == gone) {
                (true, _) => told.push(wires.nodes[other].membership.clone()),
                (_, true) => told.push(wires.nodes[one].membership.clone()),
                _ => {}
            });
            wires.links.retain(|(one, other), _| *one != gone && *other != gone);
            (life, told)
        };
        for other in told {
            other.down(life, why);
        }
    }

    /// Cuts off some nodes from all others: nothing passes, nothing is told.
    fn cut_off(&self, nodes: &[u64]) {
        let mut wires = self.net.wires.lock();
        let all: Vec<NodeId> = wires.nodes.keys().copied().collect();
        for one in nodes.iter().map(|node| NodeId(*node)) {
            let beyond = all.iter().filter(|other| !nodes.contains(&other.0));
            wires.cut.extend(beyond.map(|other| pair(one, *other)));
        }
    }

    fn heal(&self) {
        self.net.wires.lock().cut.clear();
    }

    fn membership(&self, node: u64) -> Membership {
        self.net.wires.lock().nodes[&NodeId(node)].membership.clone()
    }

    /// What the links would tell by now of those that carry nothing.
    fn tell_of_silence(&self) {
        let mut told: Vec<(Membership, Incarnation, Option<bool>)> = Vec::new();
        let mut wires = self.net.wires.lock();
        let wires = &mut *wires;
        let now = Instant::now();
        let mut links = std::mem::take(&mut wires.links);
        links.retain(|(one, other), since| {
            let carries = wires.carries(*one, *other);
            if carries && since.take().is_none() {
                return true;
            }
            let silent_for = if carries { Duration::ZERO } else { now - *since.get_or_insert(now) };
            let lost = silent_for >= IDLE_TIMEOUT;
            for (me, peer) in [(one, other), (other, one)] {
                let me = wires.nodes[me].membership.clone();
                let peer = wires.nodes[peer].introduction.incarnation;
                let silent = (!lost).then_some(silent_for >= SUSPECT_AFTER);
                told.push((me, peer, silent));
            }
            !lost
        });
        wires.links = links;
        for (me, peer, silent) in told {
            match silent {
                Some(silent) => me.silent(peer, silent),
                None => me.down(peer, Down::Lost),
            }
        }
    }

    /// Lets a moment pass.
    async fn pass(&mut self, moment: Duration) {
        tokio::time::sleep(moment).await;
        self.tell_of_silence();
        while let Some(ended) = self.tasks.try_join_next() {
            ended.expect("no task panics");
        }
        for node in self.net.wires.lock().nodes.values_mut() {
            let members = Arc::clone(&node.members.borrow());
            node.seen.extend(members.iter().map(|member| (member.incarnation, member.state)));
        }
    }

    async fn run(&mut self, time: Duration) {
        let end = Instant::now() + time;
        while Instant::now() < end {
            self.pass(Duration::from_millis(50)).await;
        }
    }

    /// How long it takes until every running node but those in `except` has it so; panics after
    /// `limit`.
    async fn until(
        &mut self,
        what: &str,
        limit: Duration,
        except: &[u64],
        is_so: impl Fn(&[Member]) -> bool,
    ) -> Duration {
        let start = Instant::now();
        loop {
            let (all, views) = {
                let wires = self.net.wires.lock();
                let asked = wires.nodes.values().filter(|node| {
                    node.runs && !except.contains(&node.introduction.incarnation.node.0)
                });
                let views: Vec<_> = asked.map(|node| node.members.borrow().clone()).collect();
                (views.iter().all(|members| is_so(members)), views)
            };
            if all {
                return start.elapsed();
            }
            assert!(start.elapsed() < limit, "{what}: not within {limit:?}: {views:#?}");
            self.pass(Duration::from_millis(10)).await;
        }
    }

    fn seen(&self, by: u64, incarnation: Incarnation, state: MemberState) -> bool {
        self.net.wires.lock().nodes[&NodeId(by)].seen.contains(&(incarnation, state))
    }

    fn all_joined(&self) -> bool {
        self.net.wires.lock().nodes.values().all(|node| *node.membership.joined().borrow())
    }
}

fn life(node: u64, generation: u64) -> Incarnation {
    Incarnation { node: NodeId(node), generation: Generation(generation) }
}

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// Whether exactly nodes 1 to `n` are alive.
fn all_alive(n: u64) -> impl Fn(&[Member]) -> bool {
    move |members| {
        let alive = members.iter().filter(|member| member.state == MemberState::Alive);
        alive.map(|member| member.node().0).eq(1..=n)
    }
}

/// Whether the node is in the state.
fn is(node: u64, state: MemberState) -> impl Fn(&[Member]) -> bool {
    move |members| members.iter().any(|m| m.node() == NodeId(node) && m.state == state)
}

async fn settled(n: u64) -> Cluster {
    let mut cluster = Cluster::of(n);
    cluster.until("settled", secs(2), &[], all_alive(n)).await;
    cluster.run(secs(20)).await;
    cluster
}

#[tokio::test(start_paused = true)]
async fn nodes_that_start_together_are_one_within_2_s() {
    for n in [3, 10] {
        let mut cluster = Cluster::of(n);
        cluster.until(&format!("{n} nodes converge"), secs(2), &[], all_alive(n)).await;
        cluster.run(Duration::from_millis(500)).await;
        assert!(cluster.all_joined());
    }
}

#[tokio::test(start_paused = true)]
async fn a_crash_is_suspect_within_2_s_and_dead_by_all_within_5_s() {
    for n in [3, 10] {
        let mut cluster = settled(n).await;
        cluster.kill(2);
        let what = format!("1 of {n} suspect");
        let suspect = cluster.until(&what, secs(2), &[], is(2, MemberState::Suspect)).await;
        let limit = secs(5).checked_sub(suspect).unwrap();
        let dead =
            cluster.until(&format!("1 of {n} dead"), limit, &[], is(2, MemberState::Dead)).await;
        assert!(suspect + dead >= secs(2), "a hiccup of 2 s is no death");
    }
}

#[tokio::test(start_paused = true)]
async fn a_crash_soon_after_the_start_is_noticed_as_soon() {
    let mut cluster = Cluster::of(5);
    cluster.until("settled", secs(2), &[], all_alive(5)).await;
    cluster.kill(2);
    cluster.until("early crash dead", secs(5), &[], is(2, MemberState::Dead)).await;
}

#[tokio::test(start_paused = true)]
async fn a_hung_node_is_dead_within_10_s_and_one_of_them_again_when_it_wakes() {
    let mut cluster = settled(5).await;
    cluster.cut_off(&[4]);
    cluster.until("hung node dead", secs(10), &[4], is(4, MemberState::Dead)).await;
    cluster.run(secs(20)).await;
    cluster.heal();
    cluster.until("woken node alive", secs(10), &[], all_alive(5)).await;
}

#[tokio::test(start_paused = true)]
async fn a_hiccup_of_one_second_is_nothing() {
    let mut cluster = settled(5).await;
    for _ in 0..10 {
        cluster.cut_off(&[4]);
        cluster.run(secs(1)).await;
        cluster.heal();
        cluster.run(secs(2)).await;
    }
    for by in [1, 2, 3, 5] {
        for state in [MemberState::Suspect, MemberState::Dead] {
            assert!(!cluster.seen(by, life(4, 1), state), "{state:?} by {by}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn both_sides_of_a_partition_are_one_within_10_s_after_it() {
    let mut cluster = settled(5).await;
    cluster.cut_off(&[1, 5]);
    cluster.until("partition seen by 1, 5", secs(10), &[2, 3, 4], is(3, MemberState::Dead)).await;
    cluster.until("partition seen by 2, 3, 4", secs(10), &[1, 5], is(5, MemberState::Dead)).await;
    cluster.run(Duration::from_mins(15)).await;
    cluster
        .until("forgotten", Duration::from_mins(10), &[1, 5], |members| members.len() == 3)
        .await;
    cluster.heal();
    cluster.until("healed", secs(10), &[], all_alive(5)).await;
}

#[tokio::test(start_paused = true)]
async fn a_restarted_node_is_one_node() {
    let mut cluster = settled(5).await;
    cluster.kill(2);
    cluster.run(Duration::from_millis(300)).await;
    cluster.start(2, 2, &["10.0.0.1", "10.0.0.2", "10.0.0.3"]);
    cluster
        .until("restarted node alive", secs(3), &[], |members| {
            all_alive(5)(members) && members[1].incarnation == life(2, 2)
        })
        .await;
    cluster.run(secs(20)).await;
    for by in [1, 3, 4, 5] {
        assert!(!cluster.seen(by, life(2, 2), MemberState::Dead), "seen by {by}");
        assert!(!cluster.seen(by, life(2, 1), MemberState::Dead), "seen by {by}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_loss_of_a_fifth_of_all_gossip_kills_nobody() {
    let mut cluster = Cluster::of(10);
    cluster.net.wires.lock().loss = 0.2;
    cluster.until("10 nodes, 20 % loss", secs(3), &[], all_alive(10)).await;
    cluster.run(Duration::from_mins(1)).await;
    for by in 1..=10 {
        for of in 1..=10 {
            assert!(!cluster.seen(by, life(of, 1), MemberState::Dead), "{of} by {by}");
        }
    }
    cluster.kill(7);
    cluster.until("1 of 10 dead, 20 % loss", secs(5), &[], is(7, MemberState::Dead)).await;
}

#[tokio::test(start_paused = true)]
async fn leaving_and_left_are_known_to_all() {
    let mut cluster = settled(5).await;
    cluster.membership(4).leave();
    cluster.until("leaving", secs(1), &[], is(4, MemberState::Leaving)).await;
    cluster.membership(4).left();
    cluster.until("left by gossip", secs(1), &[], is(4, MemberState::Left)).await;
    cluster.goodbye(4);
    cluster.run(secs(30)).await;
    cluster.until("still left", secs(0), &[], is(4, MemberState::Left)).await;
    cluster.run(Duration::from_mins(10)).await;
    cluster.until("forgotten", Duration::from_mins(10), &[], |members| members.len() == 4).await;
}

#[tokio::test(start_paused = true)]
async fn a_goodbye_is_enough() {
    let mut cluster = settled(3).await;
    cluster.goodbye(3);
    cluster.until("left by goodbye", Duration::ZERO, &[], is(3, MemberState::Left)).await;
    cluster.run(secs(30)).await;
    cluster.until("still left", Duration::ZERO, &[], is(3, MemberState::Left)).await;
}

#[tokio::test(start_paused = true)]
async fn the_order_of_starts_does_not_matter() {
    let mut cluster = Cluster::new();
    let seeds = ["10.0.0.1", "10.0.0.2"];
    cluster.start(3, 1, &seeds);
    cluster.start(2, 1, &seeds);
    cluster.run(secs(1)).await;
    assert!(*cluster.membership(2).joined().borrow(), "2 and 3 are all there is");
    cluster.start(4, 1, &["10.0.0.1"]);
    cluster.run(secs(1)).await;
    assert!(!*cluster.membership(4).joined().borrow(), "its seed is not up");
    cluster.run(Duration::from_millis(1_300)).await;
    assert!(*cluster.membership(4).joined().borrow(), "it serves alone");
    cluster.run(Duration::from_mins(1)).await;
    cluster.start(1, 1, &[]);
    cluster.until("the first seed comes last", secs(6), &[], all_alive(4)).await;
}

#[tokio::test(start_paused = true)]
async fn one_name_of_dns_stands_for_all_nodes() {
    let mut cluster = Cluster::new();
    for node in 1..=3 {
        cluster.start(node, 1, &["mesh"]);
    }
    cluster.run(secs(3)).await;
    let addresses = (1..=3).map(address).collect();
    cluster.net.wires.lock().names.insert("mesh".to_owned(), addresses);
    cluster.until("found by name", secs(20), &[], all_alive(3)).await;
}

#[tokio::test(start_paused = true)]
async fn a_second_node_of_one_name_is_refused_and_serves_nobody() {
    let mut cluster = settled(3).await;
    cluster.start_as("node-2", 9, 1, &["10.0.0.1"]);
    cluster.run(secs(30)).await;
    assert!(!*cluster.membership(9).joined().borrow());
    cluster.until("it is not there", Duration::ZERO, &[9], all_alive(3)).await;
    cluster.kill(2);
    cluster.run(secs(15)).await;
    assert!(*cluster.membership(9).joined().borrow(), "the name is free now");
}

#[tokio::test(start_paused = true)]
async fn loads_are_told_every_two_seconds_at_most() {
    let mut cluster = settled(3).await;
    let mut members = cluster.membership(1).members();
    let mut told = 0;
    for sessions in 1..=1_000 {
        let load = Load { sessions, messages_per_minute: 2 * sessions };
        cluster.membership(2).set_load(load);
        cluster.pass(Duration::from_millis(10)).await;
        if members.has_changed().unwrap() {
            members.mark_unchanged();
            told += 1;
        }
    }
    assert!((3..=6).contains(&told), "{told} in 10 s");
    cluster.run(secs(4)).await;
    let load = Load { sessions: 1_000, messages_per_minute: 2_000 };
    cluster.until("the last load", Duration::ZERO, &[], |members| members[1].load == load).await;
}
