//! What membership costs and how fast it is: whole memberships, with chitchat's own messages, over a
//! network in memory and under tokio's paused clock.
//!
//! A message arrives at once, and none is lost. Links notice silence when the relay's would.
#![allow(clippy::disallowed_methods)] // the clock that is paused is tokio's

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, ensure};
use bytes::Bytes;
use cluster::{
    Generation, Incarnation, NodeId,
    link::{Down, Introduction},
    membership::{
        DialError, Dialled, Member, MemberState, Membership, Peers, Resolve, SUSPECT_AFTER,
        SeedAddress,
    },
};
use parking_lot::Mutex;
use tokio::{sync::watch, task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{
    report::Section,
    table::{Table, millis, ratio, tenths},
    world::region,
};

/// A connection that is silent for so long is lost.
const IDLE_TIMEOUT: Duration = Duration::from_secs(5);

/// What a link adds to a message: length and kind.
const FRAMING: u64 = 5;

/// Within this time all start, one after the other, so that their rounds are not in step: one round.
const STARTS: Duration = Duration::from_millis(300);

/// How often the model looks at everything.
const LOOK: Duration = Duration::from_millis(10);

/// Between the start and what is measured.
const SETTLE: Duration = Duration::from_secs(20);

/// For how long bytes are counted.
const COUNTED: Duration = Duration::from_secs(10);

/// What takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(30);

/// What was seen with so many nodes.
#[derive(Clone, Debug, PartialEq)]
pub struct Gossip {
    /// How many.
    pub nodes: usize,
    /// From the start of the first until all know all.
    pub converged: Duration,
    /// What a node puts out in a second, once it is quiet.
    pub bytes_per_second: f64,
    /// Messages that it puts out in a second.
    pub messages_per_second: f64,
    /// From a crash until each of the others knew it dead, ascending.
    pub detected: Vec<Duration>,
}

/// Runs so many nodes in so many regions: they start, are quiet, and lose one.
///
/// # Errors
/// If they do not find each other, or do not notice.
pub(super) fn run(nodes: usize, regions: usize) -> anyhow::Result<Gossip> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build()?;
    runtime.block_on(measure(nodes, regions))
}

async fn measure(nodes: usize, regions: usize) -> anyhow::Result<Gossip> {
    let mut cluster = Cluster::start(nodes, regions);
    let converged = cluster.until(Net::all_alive).await.context("no convergence")?;
    cluster.pass(SETTLE).await?;
    let (messages, bytes) = cluster.net.wires.lock().sent;
    cluster.pass(COUNTED).await?;
    let (messages_then, bytes_then) = cluster.net.wires.lock().sent;
    let per_second = |count: u64| ratio(count, nodes) / COUNTED.as_secs_f64();
    let detected = cluster.lose(nodes.min(2)).await?;
    Ok(Gossip {
        nodes,
        converged,
        bytes_per_second: per_second(bytes_then - bytes),
        messages_per_second: per_second(messages_then - messages),
        detected,
    })
}

/// Nodes with links between them.
struct Net {
    wires: Mutex<Wires>,
}

struct Wires {
    nodes: BTreeMap<NodeId, Node>,
    links: BTreeSet<(NodeId, NodeId)>,
    dead: Option<NodeId>,
    /// Messages and bytes.
    sent: (u64, u64),
}

struct Node {
    introduction: Introduction,
    membership: Membership,
    members: watch::Receiver<Arc<[Member]>>,
    stop: CancellationToken,
}

/// The links of one node, as its membership uses them.
struct Port {
    net: Arc<Net>,
    own: NodeId,
}

fn pair(one: NodeId, other: NodeId) -> (NodeId, NodeId) {
    (one.min(other), one.max(other))
}

fn address(node: usize) -> SocketAddr {
    let [high, low] = u16::try_from(node).unwrap_or(u16::MAX).to_be_bytes();
    SocketAddr::from(([10, 0, high, low], 7946))
}

impl Net {
    fn all_alive(&self) -> bool {
        let wires = self.wires.lock();
        let is_alive = |member: &Member| member.state == MemberState::Alive;
        wires.nodes.values().all(|node| {
            node.members.borrow().iter().filter(|member| is_alive(member)).count()
                == wires.nodes.len()
        })
    }
}

impl Peers for Port {
    fn gossip(&self, to: NodeId, message: &[u8]) -> bool {
        let mut wires = self.net.wires.lock();
        if wires.dead == Some(self.own) {
            return true;
        }
        let bytes = message.len() as u64 + FRAMING;
        wires.sent = (wires.sent.0 + 1, wires.sent.1 + bytes);
        if wires.dead == Some(to) {
            return true;
        }
        let from = wires.nodes[&self.own].introduction.incarnation;
        wires.nodes[&to].membership.gossip(from, Bytes::copy_from_slice(message));
        true
    }

    async fn dial(&self, address: SocketAddr) -> Result<Dialled, DialError> {
        tokio::time::sleep(Duration::from_millis(5)).await;
        if let Some(outcome) = self.meet(address) {
            return outcome;
        }
        tokio::time::sleep(IDLE_TIMEOUT).await;
        Err(DialError::Unreachable("silence".to_owned()))
    }
}

impl Port {
    /// Links whoever answers at the address.
    fn meet(&self, address: SocketAddr) -> Option<Result<Dialled, DialError>> {
        let mut wires = self.net.wires.lock();
        let dead = wires.dead;
        let mut nodes = wires.nodes.values();
        let peer = nodes.find(|node| node.introduction.address == address)?;
        let (peer_is, peer) = (peer.introduction.clone(), peer.membership.clone());
        let node = peer_is.incarnation.node;
        if node == self.own {
            return Some(Ok(Dialled::Oneself));
        }
        if dead == Some(node) || dead == Some(self.own) {
            return None;
        }
        let own = &wires.nodes[&self.own];
        let (own_is, own) = (own.introduction.clone(), own.membership.clone());
        if wires.links.insert(pair(self.own, node)) {
            if let Err(why) = own.admit(&peer_is).and(peer.admit(&own_is)) {
                return Some(Err(DialError::Refused(why)));
            }
            own.up(&peer_is);
            peer.up(&own_is);
        }
        Some(Ok(Dialled::Peer(peer_is.incarnation)))
    }
}

impl Resolve for Port {
    async fn resolve(&self, _: &SeedAddress) -> io::Result<Vec<SocketAddr>> {
        Err(io::ErrorKind::NotFound.into())
    }
}

/// A cluster, and the tasks of its nodes.
struct Cluster {
    net: Arc<Net>,
    tasks: JoinSet<()>,
}

impl Cluster {
    /// Nodes that start within [`STARTS`]; the first three are the seeds.
    fn start(nodes: usize, regions: usize) -> Self {
        let (start, mut tasks) = (Instant::now(), JoinSet::new());
        let wires =
            Wires { nodes: BTreeMap::new(), links: BTreeSet::new(), dead: None, sent: (0, 0) };
        let net = Arc::new(Net { wires: Mutex::new(wires) });
        let seeds: Vec<SeedAddress> = (1..=3)
            .map(|node| SeedAddress { host: address(node).ip().to_string(), port: 7946 })
            .collect();
        for number in 1..=nodes {
            let node = NodeId(number as u64);
            let introduction = Introduction {
                incarnation: Incarnation { node, generation: Generation(1) },
                name: format!("node-{number}"),
                region: region(number % regions),
                version: "0.1.0".to_owned(),
                address: address(number),
            };
            let clock = Arc::new(move || start.elapsed());
            let (membership, driver) =
                Membership::new(introduction.clone(), "scale".to_owned(), seeds.clone(), clock);
            let (members, stop) = (membership.members(), CancellationToken::new());
            let entry = Node { introduction, membership, members, stop: stop.clone() };
            net.wires.lock().nodes.insert(node, entry);
            let port = Arc::new(Port { net: Arc::clone(&net), own: node });
            let wait = STARTS.mul_f64(ratio(number, nodes));
            tasks.spawn(async move {
                tokio::time::sleep(wait).await;
                driver.run(Arc::clone(&port), port, stop).await.expect("gossip goes on");
            });
        }
        Self { net, tasks }
    }

    /// Lets time pass; an error if a task died of it.
    async fn pass(&mut self, time: Duration) -> anyhow::Result<()> {
        tokio::time::sleep(time).await;
        while let Some(ended) = self.tasks.try_join_next() {
            ended?;
        }
        Ok(())
    }

    /// How long it takes until it is so.
    async fn until(&mut self, is_so: impl Fn(&Net) -> bool) -> anyhow::Result<Duration> {
        let start = Instant::now();
        while !is_so(&self.net) {
            ensure!(start.elapsed() < PATIENCE, "not within {PATIENCE:?}");
            self.pass(LOOK).await?;
        }
        Ok(start.elapsed())
    }

    /// A node crashes; returns when each of the others knew it dead.
    async fn lose(&mut self, lost: usize) -> anyhow::Result<Vec<Duration>> {
        let (start, lost) = (Instant::now(), NodeId(lost as u64));
        let (life, others) = {
            let mut wires = self.net.wires.lock();
            wires.dead = Some(lost);
            wires.nodes[&lost].stop.cancel();
            let others = wires.nodes.iter().filter(|(node, _)| **node != lost);
            let others: Vec<_> =
                others.map(|(_, node)| (node.membership.clone(), node.members.clone())).collect();
            (wires.nodes[&lost].introduction.incarnation, others)
        };
        let (mut detected, mut silent, mut down) = (BTreeMap::new(), false, false);
        while detected.len() < others.len() {
            ensure!(start.elapsed() < PATIENCE, "not within {PATIENCE:?}");
            self.pass(LOOK).await?;
            let passed = start.elapsed();
            if !std::mem::replace(&mut silent, passed >= SUSPECT_AFTER) && silent {
                for (other, _) in &others {
                    other.silent(life, true);
                }
            }
            if !std::mem::replace(&mut down, passed >= IDLE_TIMEOUT) && down {
                for (other, _) in &others {
                    other.down(life, Down::Lost);
                }
            }
            for (number, (_, members)) in others.iter().enumerate() {
                let members = members.borrow();
                let is_dead =
                    |member: &&Member| member.node() == lost && member.state == MemberState::Dead;
                if members.iter().any(|member| is_dead(&member)) {
                    detected.entry(number).or_insert(passed);
                }
            }
        }
        let mut detected: Vec<Duration> = detected.into_values().collect();
        detected.sort_unstable();
        Ok(detected)
    }
}

/// The table of all sizes.
pub(super) fn section(sizes: &[Gossip]) -> Section {
    let mut table = Table::new([
        "nodes",
        "kB/s that a node sends",
        "messages/s",
        "all know all",
        "a crash is known by the first / by all after",
    ]);
    for size in sizes {
        let at = |time: Option<&Duration>| time.map_or_else(String::new, |time| millis(*time));
        table.row([
            size.nodes.to_string(),
            tenths(size.bytes_per_second / 1e3),
            tenths(size.messages_per_second),
            millis(size.converged),
            format!("{} / {}", at(size.detected.first()), at(size.detected.last())),
        ]);
    }
    let text = format!(
        "The relay's own membership, messages and time limits, in simulated time; a message takes no \
         time. All nodes start within 300 ms; the first of them starts the clock. After {} s one of \
         them crashes.\n\n{table}\n![Gossip](gossip-bytes.svg)\n",
        (SETTLE + COUNTED).as_secs()
    );
    Section::new("Gossip", text)
}
