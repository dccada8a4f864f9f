//! What a node says of the cluster to operators: `/stats`, `/cluster`, and `arc-relay status`, which
//! reads the latter.
//!
//! What it says of other nodes is what they said of themselves a moment ago.

use std::net::SocketAddr;

use cluster::{
    AgentId, NodeId,
    link::LinkStatus,
    membership::{Load, MemberState},
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    admin::RegistryReport,
    certificates::TlsReport,
    peers::NodeStatus,
    relay::{Phase, Relay, VERSION},
    upkeep::load,
};

/// The cluster as one node sees it: the body of `GET /cluster`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ClusterReport {
    /// Id of the node that says so.
    #[serde(default)]
    pub node: String,
    /// All nodes, by region and name.
    pub nodes: Vec<NodeReport>,
    /// The links of the node that says so, by peer.
    #[serde(default)]
    pub links: Vec<LinkReport>,
    /// The registry, as the node that says so sees it.
    #[serde(default)]
    pub registry: Option<RegistryReport>,
    /// Agents' TLS on the node that says so; none if they connect without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsReport>,
}

/// One node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct NodeReport {
    /// Its id: sixteen hexadecimal digits.
    #[serde(default)]
    pub id: String,
    /// What its operator calls it.
    pub name: String,
    /// Where it is.
    pub region: String,
    /// `joining`, `alive`, `suspect`, `leaving`, `left` or `dead`.
    pub state: String,
    /// Its release.
    pub version: String,
    /// Where its mesh port is reached; none if it has none.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub address: Option<SocketAddr>,
    /// Agents connected to it.
    pub agents: u64,
    /// Messages that it accepted in the last minute.
    #[serde(default)]
    pub messages_per_minute: u64,
    /// Its share of the presence records of its region, from 0 to 1.
    #[serde(default)]
    pub ring_share: f64,
}

/// One link.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct LinkReport {
    /// What the peer's operator calls it.
    pub peer: String,
    /// The peer's id.
    pub id: String,
    /// Round trip in milliseconds.
    pub rtt_ms: f64,
    /// Bytes that wait to be written.
    pub queue_bytes: u64,
    /// Bytes sent since the link came up.
    #[serde(default)]
    pub sent_bytes: u64,
    /// Bytes received since the link came up.
    #[serde(default)]
    pub received_bytes: u64,
    /// Milliseconds since it last answered a ping.
    pub silent_ms: u64,
}

/// A link that has answered no ping for so many milliseconds is in doubt; it is pinged twice a second.
const SILENT_MS: u64 = 3_000;

impl LinkReport {
    /// Whether the link is in doubt.
    pub fn is_silent(&self) -> bool {
        self.silent_ms >= SILENT_MS
    }
}

/// How much there is: the body of `GET /stats`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Stats {
    /// In the cluster.
    #[serde(flatten)]
    pub cluster: Numbers,
    /// On this node.
    pub node: Numbers,
    /// How many nodes there are.
    pub nodes: u64,
}

/// How much there is in a cluster or on a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Numbers {
    /// Ids that are taken, in the cluster.
    pub registered_agents: u64,
    /// Agents that are connected.
    pub active_connections: u64,
    /// Messages that were accepted in the last minute.
    pub messages_per_minute: u64,
    /// Seconds since this node's start.
    pub uptime: u64,
}

/// The cluster as this node sees it.
pub fn cluster(relay: &Relay) -> ClusterReport {
    ClusterReport {
        node: relay.node.to_string(),
        nodes: nodes(relay),
        links: links(relay),
        registry: Some(relay.registry.status().into()),
        tls: tls(relay),
    }
}

/// All nodes, by region and name.
pub fn nodes(relay: &Relay) -> Vec<NodeReport> {
    let known = relay.peers().map_or_else(Vec::new, |peers| peers.nodes());
    let mut nodes: Vec<_> =
        others(relay.node, &known).map(other).chain([own(relay, &known)]).collect();
    nodes.sort_by(|a, b| (&a.region, &a.name, &a.id).cmp(&(&b.region, &b.name, &b.id)));
    nodes
}

/// The links of this node, by peer.
pub fn links(relay: &Relay) -> Vec<LinkReport> {
    let links = relay.peers().map_or_else(Vec::new, |peers| peers.links());
    let mut links: Vec<_> = links.iter().map(link).collect();
    links.sort_by(|a, b| (&a.peer, &a.id).cmp(&(&b.peer, &b.id)));
    links
}

/// Agents' TLS on this node; none if they connect without.
pub fn tls(relay: &Relay) -> Option<TlsReport> {
    relay.certificates().map(|certificates| certificates.report(relay.clock.wall()))
}

/// Whether a node that is said to be in this state is there; what is gone carries nothing, whatever it
/// said last.
pub fn is_there(state: &str) -> bool {
    !["left", "dead"].contains(&state)
}

/// Whether another node, which is there, has the name or the address of this one: of two such only one is
/// let in, so this one does not come back as it was.
pub fn is_replaced(node: &NodeReport, nodes: &[NodeReport]) -> bool {
    nodes.iter().any(|other| {
        let has_place =
            other.name == node.name || other.address.is_some() && other.address == node.address;
        other.id != node.id && is_there(&other.state) && has_place
    })
}

/// The name of the node that has the agent's session, as far as is found out within a second.
pub async fn home_of(relay: &Relay, agent: &AgentId) -> Option<String> {
    if relay.sessions.get(agent.as_str()).is_some() {
        return Some(relay.config.node_name.clone());
    }
    let peers = relay.peers()?;
    let home = peers.home_of(agent).await?;
    let nodes = peers.nodes();
    let named = nodes.iter().find(|node| node.member.node() == home);
    Some(named.map_or_else(|| home.to_string(), |node| node.member.name.clone()))
}

/// The body of `GET /stats` (PROTOCOL section 9).
pub fn stats(relay: &Relay) -> Stats {
    let numbers = |load: Load| Numbers {
        registered_agents: relay.registry.registered_agents(),
        active_connections: load.sessions,
        messages_per_minute: load.messages_per_minute,
        uptime: relay.clock.elapsed().as_secs(),
    };
    let (sum, nodes) = total(relay);
    Stats { cluster: numbers(sum), node: numbers(load(relay)), nodes: nodes as u64 }
}

/// How much all nodes carry together, and how many there are.
pub fn total(relay: &Relay) -> (Load, usize) {
    let known = relay.peers().map_or_else(Vec::new, |peers| peers.nodes());
    let (mut sum, mut nodes) = (load(relay), 1);
    for node in others(relay.node, &known).filter(|node| node.member.state.lives()) {
        sum.sessions += node.member.load.sessions;
        sum.messages_per_minute += node.member.load.messages_per_minute;
        nodes += 1;
    }
    (sum, nodes)
}

fn others(me: NodeId, known: &[NodeStatus]) -> impl Iterator<Item = &NodeStatus> {
    known.iter().filter(move |node| node.member.node() != me)
}

fn other(node: &NodeStatus) -> NodeReport {
    let member = &node.member;
    let state = match member.state {
        MemberState::Alive => "alive",
        MemberState::Suspect => "suspect",
        MemberState::Leaving => "leaving",
        MemberState::Left => "left",
        MemberState::Dead => "dead",
    };
    NodeReport {
        id: member.node().to_string(),
        name: member.name.clone(),
        region: member.region.clone(),
        state: state.into(),
        version: member.version.clone(),
        address: Some(member.address),
        agents: member.load.sessions,
        messages_per_minute: member.load.messages_per_minute,
        ring_share: node.ring_share,
    }
}

/// This node knows itself better than gossip does.
fn own(relay: &Relay, known: &[NodeStatus]) -> NodeReport {
    let seen = known.iter().find(|node| node.member.node() == relay.node);
    let load = load(relay);
    let state = match relay.phase() {
        Phase::Joining => "joining",
        Phase::Serving => "alive",
        Phase::Draining => "leaving",
    };
    NodeReport {
        id: relay.node.to_string(),
        name: relay.config.node_name.clone(),
        region: relay.config.region.clone(),
        state: state.into(),
        version: VERSION.into(),
        address: seen.map(|node| node.member.address),
        agents: load.sessions,
        messages_per_minute: load.messages_per_minute,
        ring_share: match relay.peers() {
            Some(_) => seen.map_or(0.0, |node| node.ring_share),
            None => 1.0,
        },
    }
}

fn link(link: &LinkStatus) -> LinkReport {
    LinkReport {
        peer: link.peer.name.clone(),
        id: link.peer.incarnation.node.to_string(),
        rtt_ms: (link.rtt.as_secs_f64() * 1e6).round() / 1e3,
        queue_bytes: link.queue_bytes as u64,
        sent_bytes: link.sent_bytes,
        received_bytes: link.received_bytes,
        silent_ms: u64::try_from(link.silent_for.as_millis()).unwrap_or(u64::MAX),
    }
}

/// Reports for the tests of others.
#[cfg(test)]
pub(crate) mod testing {
    use super::*;

    /// What is said of a node of this release that has no agents; its id is its name.
    pub(crate) fn node(name: &str, state: &str) -> NodeReport {
        NodeReport {
            id: name.into(),
            name: name.into(),
            region: "eu".into(),
            state: state.into(),
            version: VERSION.into(),
            address: None,
            agents: 0,
            messages_per_minute: 0,
            ring_share: 0.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use cluster::mesh::Deliver;
    use serde_json::json;

    use super::*;
    use crate::{
        deliver::Sink,
        peers::testing::{Shown, link, mesh, node},
        relay::testing::relay,
    };

    fn relay_among(nodes: Vec<NodeStatus>) -> Arc<Relay> {
        let (relay, _, _) = relay();
        let deliver: Arc<dyn Deliver> = Arc::new(Sink::new(&relay));
        let links = nodes.iter().skip(1).map(link).collect();
        relay.join(mesh(relay.node, deliver), Arc::new(Shown { nodes, links, ..Shown::default() }));
        relay.enter_phase(Phase::Serving);
        relay
    }

    #[test]
    fn sums_are_of_the_nodes_that_are_there() {
        use MemberState::{Alive, Dead, Leaving, Left, Suspect};
        let all = [Alive, Alive, Suspect, Leaving, Left, Dead];
        let nodes = (1..).zip(all).map(|(id, state)| node(id, state, id)).collect();
        let relay = relay_among(nodes);
        let stats = serde_json::to_value(stats(&relay)).unwrap();
        assert_eq!(stats["nodes"], 4);
        assert_eq!(stats["active_connections"], 2 + 3 + 4, "of itself it knows that it has none");
        assert_eq!(stats["messages_per_minute"], 90);
        assert_eq!(stats["node"]["active_connections"], 0);
        assert_eq!(stats["uptime"], stats["node"]["uptime"]);
    }

    #[test]
    fn nodes_and_links_are_told_as_operators_read_them() {
        let relay =
            relay_among(vec![node(1, MemberState::Suspect, 5), node(2, MemberState::Dead, 6)]);
        let report = serde_json::to_value(cluster(&relay)).unwrap();
        let (own, other) = (&report["nodes"][0], &report["nodes"][1]);
        assert_eq!(
            (&own["name"], &own["state"], &own["agents"]),
            (&json!("node"), &json!("alive"), &json!(0))
        );
        assert_eq!((&own["ring_share"], &own["address"]), (&json!(0.01), &json!("10.0.0.1:7946")));
        assert_eq!((&other["state"], &other["id"]), (&json!("dead"), &json!("0000000000000002")));
        assert_eq!(report["node"], own["id"]);
        let link = json!({
            "peer": "node-2", "id": "0000000000000002", "rtt_ms": 1.5, "queue_bytes": 9,
            "sent_bytes": 70, "received_bytes": 80, "silent_ms": 40,
        });
        assert_eq!(report["links"], json!([link]));
    }

    #[test]
    fn a_node_that_is_alone_is_all_of_its_cluster() {
        let (relay, _, _) = relay();
        let report = cluster(&relay);
        assert_eq!((report.nodes.len(), report.links.len()), (1, 0));
        assert_eq!((report.nodes[0].state.as_str(), report.nodes[0].address), ("joining", None));
        assert!((report.nodes[0].ring_share - 1.0).abs() < f64::EPSILON);
    }
}
