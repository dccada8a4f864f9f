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

    /// Whether the node is on it.
    pub fn has(&self, node: NodeId) -> bool {
        self.place_of(node).is_some()
    }

    fn place_of(&self, node: NodeId) -> Option<usize> {
        self.nodes.binary_search_by_key(&node, |(node, _)| *node).ok()
    }

    /// The part of all possible agents that is the node's, from 0 to 1.
    pub fn share(&self, node: NodeId) -> f64 {
        self.place_of(node).and_then(|place| self.nodes.get(place)).map_or(0.0, |(_, share)| *share)
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
        for nodes in regions.values_mut() {
            nodes.sort_unstable();
            nodes.dedup();
        }
        // Members change whenever their loads do, every other second; a ring of a hundred nodes is not
        // built for that.
        let same = |region: &str, nodes: &[NodeId]| {
            let ring = self.present.regions.get(region);
            ring.filter(|ring| ring.nodes().eq(nodes.iter().copied())).cloned()
        };
        let is_same = regions.len() == self.present.regions.len()
            && regions.iter().all(|(region, nodes)| same(region, nodes).is_some());
        if is_same {
            return None;
        }
        let all = Ring::new(regions.values().flatten().copied());
        let ring = |(region, nodes): (&str, Vec<NodeId>)| {
            let ring = same(region, &nodes).unwrap_or_else(|| Arc::new(Ring::new(nodes)));
            (region.to_owned(), ring)
        };
        let regions: BTreeMap<String, Arc<Ring>> = regions.into_iter().map(ring).collect();
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

    /// The same, to be kept.
    pub fn shared_ring(&self, region: &str) -> Option<Arc<Ring>> {
        self.present.regions.get(region).cloned()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::{
        Generation, Incarnation,
        membership::{Load, MemberState},
    };

    fn member(node: u64, region: &str, state: MemberState) -> Member {
        Member {
            incarnation: Incarnation { node: NodeId(node), generation: Generation(1) },
            name: node.to_string(),
            region: region.to_owned(),
            version: String::new(),
            address: "127.0.0.1:1".parse().expect("an address"),
            state,
            load: Load::default(),
        }
    }

    fn alive(node: u64, region: &str) -> Member {
        member(node, region, MemberState::Alive)
    }

    fn ring(nodes: impl IntoIterator<Item = u64>) -> Ring {
        Ring::new(nodes.into_iter().map(NodeId))
    }

    fn agents() -> impl Iterator<Item = String> {
        (0..10_000).map(|n| format!("agent-{n:05}"))
    }

    /// A mesh whose nodes place agents differently loses them: if this fails, the wire has changed.
    #[test]
    fn placement_is_frozen() {
        let ring = ring([1, 2, 3, 0xfeed_beef_0000_0001]);
        let owners: Vec<u64> =
            ["abc", "agent-00001", "rawk-042", "relay-of-relays", &"z".repeat(64), "0-0"]
                .iter()
                .map(|agent| ring.owner(agent).expect("there are nodes").0)
                .collect();
        let high = 0xfeed_beef_0000_0001;
        assert_eq!(owners, [high, high, 1, high, 2, 1]);
        assert_eq!(ring.version(), 11_895_838_142_192_145_739);
        assert_eq!(Ring::new([]).version(), 201_386_067_132_715_354);
    }

    #[test]
    fn no_node_owns_nothing_and_one_owns_all() {
        assert_eq!(ring([]).owner("abc"), None);
        assert_eq!(ring([7]).owner("abc"), Some(NodeId(7)));
        assert!((ring([7]).share(NodeId(7)) - 1.0).abs() < 1e-9);
        assert!(ring([7]).share(NodeId(8)).abs() < 1e-9);
    }

    #[test]
    fn shares_are_what_the_nodes_own_and_no_node_bears_much_more_than_its_part() {
        let ring = ring(1..=20);
        let sum: f64 = ring.nodes().map(|node| ring.share(node)).sum();
        assert!((sum - 1.0).abs() < 1e-9, "{sum}");
        for node in ring.nodes() {
            let owned = agents().filter(|agent| ring.owner(agent) == Some(node)).count();
            let share = ring.share(node);
            assert!(
                (share * 10_000.0 - f64::from(u32::try_from(owned).expect("few"))).abs() < 120.0
            );
            assert!((0.03..0.07).contains(&share), "{node} owns {share}");
        }
    }

    #[test]
    fn a_join_moves_only_what_the_new_node_owns() {
        let (before, after) = (ring(1..=20), ring(1..=21));
        let moved: Vec<_> = agents().filter(|a| before.owner(a) != after.owner(a)).collect();
        assert!(moved.iter().all(|agent| after.owner(agent) == Some(NodeId(21))));
        assert!((300..700).contains(&moved.len()), "{} of 10,000", moved.len());
    }

    #[test]
    fn each_region_has_its_own_ring_and_those_who_leave_own_nothing() {
        let members = [
            alive(1, "near"),
            member(2, "near", MemberState::Suspect),
            member(3, "near", MemberState::Leaving),
            member(4, "near", MemberState::Dead),
            alive(5, "far"),
            member(6, "gone", MemberState::Left),
        ];
        let rings = Rings::default().changed(&members, Duration::ZERO).expect("it is new");
        let near: BTreeSet<NodeId> =
            agents().filter_map(|agent| rings.owner("near", &agent)).collect();
        assert_eq!(near, [NodeId(1), NodeId(2)].into());
        assert_eq!(rings.owner("far", "abc"), Some(NodeId(5)));
        assert_eq!(rings.owner("gone", "abc"), None);
        assert_eq!(rings.version_of("gone"), ring([]).version());
        assert_eq!(rings.version_of("near"), ring([2, 1]).version());
        assert_eq!(rings.owners("abc").count(), 2);
        let all: Vec<NodeId> = rings.present.global.nodes().collect();
        assert_eq!(all, [NodeId(1), NodeId(2), NodeId(5)]);
        assert_eq!(rings.global_owner("abc"), rings.present.global.owner("abc"));
    }

    #[test]
    fn former_owners_are_those_before_the_last_change_and_settling_ends() {
        let at = Duration::from_secs;
        let one = Rings::default().changed(&[alive(1, "near")], at(1)).expect("it is new");
        assert_eq!(one.changed(&[alive(1, "near")], at(2)).map(|_| ()), None);
        let busier = Member {
            load: Load { sessions: 9, messages_per_minute: 9 },
            ..member(1, "near", MemberState::Suspect)
        };
        assert_eq!(one.changed(&[busier], at(2)).map(|_| ()), None, "the same nodes own");
        let far = one.changed(&[alive(1, "near"), alive(2, "far")], at(2)).expect("it is another");
        assert!(Arc::ptr_eq(&one.present.regions["near"], &far.present.regions["near"]));
        assert!(far.changed(&[alive(1, "near")], at(2)).is_some(), "a region is gone");
        assert_eq!(one.former_owner("near", "abc"), None);
        let two = one.changed(&[alive(2, "near")], at(3)).expect("it is another");
        assert_eq!(two.owner("near", "abc"), Some(NodeId(2)));
        assert_eq!(two.former_owner("near", "abc"), Some(NodeId(1)));
        assert!(two.is_settling(at(3)) && two.is_settling(at(12)) && !two.is_settling(at(13)));
        assert!(!Rings::default().is_settling(at(0)));
        // A move to another region is a change, though the nodes are the same.
        assert!(two.changed(&[alive(2, "far")], at(4)).is_some());
    }

    proptest! {
        #[test]
        fn all_who_see_the_same_members_agree(
            mut nodes in prop::collection::vec(any::<u64>(), 1..20),
            agent in "[a-z0-9]{3,64}",
        ) {
            let one = ring(nodes.clone());
            nodes.reverse();
            nodes.push(nodes[0]);
            let other = ring(nodes.clone());
            prop_assert_eq!(one.version(), other.version());
            prop_assert_eq!(one.owner(&agent), other.owner(&agent));
            let first = nodes[0];
            nodes.retain(|node| *node != first);
            prop_assert_ne!(ring(nodes).version(), one.version());
        }
    }
}
