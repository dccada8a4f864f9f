//! Who owns what: consistent hashing of agents over nodes, one ring per region and one over all.
//!
//! Every node that knows the same members places every agent the same: what is hashed are bytes
//! written here, by a named hasher under a fixed key, and a test freezes the outcome. A change of
//! any of it is a change of the wire. Never asks who is alive; it is told.

use std::{
    collections::BTreeMap,
    hash::{BuildHasher, Hash, Hasher},
    sync::{Arc, LazyLock},
    time::Duration,
};

use hashring::HashRing;
use siphasher::sip::SipHasher13;

use crate::{NodeId, membership::Member};

/// How long after a change of members the former owners are asked too, and keep what they have.
/// Longer than any two nodes' views of the members differ (a dead node is noticed within 5 s).
pub const SETTLING: Duration = Duration::from_secs(10);

/// Points of each node on a ring: the most loaded of 100 nodes bears 1.2 times the mean.
const POINTS: u32 = 128;

/// Sixteen bytes that make these hashes independent of all others, the choice of lanes among them.
const KEY: &[u8; 16] = b"arc-relay/ring/1";

/// One set of nodes, and whose each agent is among them.
#[derive(Debug)]
pub struct Ring {
    version: u64,
    /// Sorted, each with its part of the key space.
    nodes: Vec<(NodeId, f64)>,
    points: HashRing<Point, Keyed>,
}

impl Ring {
    /// The ring over these nodes, in whatever order they come, and however often.
    pub fn new(nodes: impl IntoIterator<Item = NodeId>) -> Self {
        let mut nodes: Vec<NodeId> = nodes.into_iter().collect();
        nodes.sort_unstable();
        nodes.dedup();
        let mut version = Keyed.build_hasher();
        for node in &nodes {
            version.write(&node.0.to_le_bytes());
        }
        let all = || nodes.iter().flat_map(|node| (0..POINTS).map(|n| Point { node: *node, n }));
        let mut points = HashRing::with_hasher(Keyed);
        points.batch_add(all().collect());
        let shares = shares(&nodes, all());
        Self { version: version.finish(), nodes: shares, points }
    }

    /// Names this set of nodes: the same on all that see the same one.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Whose the agent is; none if the ring has no nodes.
    pub fn owner(&self, agent: &str) -> Option<NodeId> {
        self.points.get(&Key(agent)).map(|point| point.node)
    }

    /// The nodes, in order.
    pub fn nodes(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.nodes.iter().map(|(node, _)| *node)
    }

    /// The part of all possible agents that is the node's, from 0 to 1.
    pub fn share(&self, node: NodeId) -> f64 {
        let place = self.nodes.binary_search_by_key(&node, |(node, _)| *node);
        place.ok().and_then(|place| self.nodes.get(place)).map_or(0.0, |(_, share)| *share)
    }
}

/// For each node the arcs that end at its points, as a part of the circle.
fn shares(nodes: &[NodeId], points: impl Iterator<Item = Point>) -> Vec<(NodeId, f64)> {
    let mut points: Vec<(u64, NodeId)> =
        points.map(|point| (Keyed.hash_one(&point), point.node)).collect();
    points.sort_by_key(|(key, _)| *key);
    let mut before = points.last().map_or(0, |(key, _)| *key);
    let mut shares: BTreeMap<NodeId, f64> = nodes.iter().map(|node| (*node, 0.0)).collect();
    for (key, node) in points {
        #[allow(clippy::cast_precision_loss, reason = "for people to read")]
        let share = key.wrapping_sub(before) as f64 / 2f64.powi(64);
        *shares.entry(node).or_default() += share;
        before = key;
    }
    shares.into_iter().collect()
}

/// A node's place on the circle, one of [`POINTS`].
#[derive(Debug)]
struct Point {
    node: NodeId,
    n: u32,
}

impl Hash for Point {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        hasher.write(&self.node.0.to_le_bytes());
        hasher.write(&self.n.to_le_bytes());
    }
}

/// An agent's place on the circle: its name's bytes, and nothing that std adds to them.
struct Key<'a>(&'a str);

impl Hash for Key<'_> {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        hasher.write(self.0.as_bytes());
    }
}

/// `SipHash` 1-3 under [`KEY`].
#[derive(Debug)]
struct Keyed;

impl BuildHasher for Keyed {
    type Hasher = SipHasher13;

    fn build_hasher(&self) -> SipHasher13 {
        SipHasher13::new_with_key(KEY)
    }
}

/// All rings as of one view of the members, and those before it. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Rings {
    present: Arc<Placement>,
    former: Arc<Placement>,
    /// When the present ones took the place of the former; none if they are the first.
    changed: Option<Duration>,
}

#[derive(Debug)]
struct Placement {
    regions: BTreeMap<String, Arc<Ring>>,
    global: Arc<Ring>,
}

impl Default for Placement {
    fn default() -> Self {
        Self { regions: BTreeMap::new(), global: Arc::new(Ring::new([])) }
    }
}

impl Rings {
    /// The rings over those of `members` that may own; none if they are what they were.
    #[must_use]
    pub fn changed(&self, members: &[Member], now: Duration) -> Option<Self> {
        let mut regions: BTreeMap<&str, Vec<NodeId>> = BTreeMap::new();
        for member in members.iter().filter(|member| member.is_owner()) {
            regions.entry(&member.region).or_default().push(member.node());
        }
        let all = Ring::new(regions.values().flatten().copied());
        let ring = |(region, nodes): (&str, Vec<NodeId>)| {
            let ring = Ring::new(nodes);
            let same = self.present.regions.get(region).filter(|old| old.version == ring.version);
            (region.to_owned(), same.cloned().unwrap_or_else(|| Arc::new(ring)))
        };
        let regions: BTreeMap<String, Arc<Ring>> = regions.into_iter().map(ring).collect();
        let versions = |regions: &BTreeMap<String, Arc<Ring>>| {
            regions.iter().map(|(region, ring)| (region.clone(), ring.version)).collect::<Vec<_>>()
        };
        if versions(&regions) == versions(&self.present.regions) {
            return None;
        }
        let present = Arc::new(Placement { regions, global: Arc::new(all) });
        Some(Self { present, former: self.present.clone(), changed: Some(now) })
    }

    /// The node of the region that keeps the agent's presence record; none if the region has no
    /// live node.
    pub fn owner(&self, region: &str, agent: &str) -> Option<NodeId> {
        self.present.regions.get(region)?.owner(agent)
    }

    /// The owners of the agent's presence record, one of each region that has live nodes.
    pub fn owners(&self, agent: &str) -> impl Iterator<Item = NodeId> {
        self.present.regions.values().filter_map(move |ring| ring.owner(agent))
    }

    /// Who owned the agent's presence record before the last change; may be who owns it now.
    pub fn former_owner(&self, region: &str, agent: &str) -> Option<NodeId> {
        self.former.regions.get(region)?.owner(agent)
    }

    /// The one node that keeps the agent's parked rate limit.
    pub fn global_owner(&self, agent: &str) -> Option<NodeId> {
        self.present.global.owner(agent)
    }

    /// Whether the members changed so lately that others may not know, or may not have acted on it.
    pub fn is_settling(&self, now: Duration) -> bool {
        self.changed.is_some_and(|changed| now < changed + SETTLING)
    }

    /// The version of a region's ring; that of no nodes if it has none.
    pub fn version_of(&self, region: &str) -> u64 {
        static EMPTY: LazyLock<u64> = LazyLock::new(|| Ring::new([]).version);
        self.ring(region).map_or(*EMPTY, Ring::version)
    }

    /// A region's ring, if it has live nodes.
    pub fn ring(&self, region: &str) -> Option<&Ring> {
        self.present.regions.get(region).map(Arc::as_ref)
    }

    /// The ring over the live nodes of all regions.
    pub fn global(&self) -> &Ring {
        &self.present.global
    }
}
