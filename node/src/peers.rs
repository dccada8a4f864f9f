//! The other nodes, as this one works with them.
//!
//! What joins nodes, links and gossip, is the crate `cluster`'s; a simulation may bring another. Here is
//! only what the node asks of it. A node that is alone has none of this.

use std::{pin::Pin, sync::Arc};

use async_trait::async_trait;
use cluster::{
    AgentId, NodeId,
    link::{LinkCounters, LinkStatus},
    membership::{Load, Member, MemberCounters},
    mesh::{Deliver, Mesh},
};
use tokio_util::sync::CancellationToken;

use crate::{
    leaving::{Verdict, Wish},
    relay::Relay,
    standing::Standing,
    tls_report::NodeSays,
    watch::NodeSees,
};

/// Joins the node to others, once there is something that messages can be delivered to, until the token
/// is cancelled.
pub type Join = Box<dyn FnOnce(&Arc<Relay>, Arc<dyn Deliver>, CancellationToken) -> Joined + Send>;

/// A node's part in a cluster.
pub struct Joined {
    /// Where agents are, and how messages get there.
    pub mesh: Arc<Mesh>,
    /// The other nodes.
    pub peers: Arc<dyn Peers>,
    /// What runs beside the node, until it is told to stop and all others were told, too; that it ends
    /// by itself stops the node.
    pub driver: Pin<Box<dyn Future<Output = ()> + Send>>,
    /// What the registry does by itself, until it is dropped; that it ends by itself stops the node.
    pub keeper: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

/// The other nodes.
#[async_trait]
pub trait Peers: Send + Sync + 'static {
    /// All nodes, this one among them, in no order.
    fn nodes(&self) -> Vec<NodeStatus>;

    /// The links of this node, in no order.
    fn links(&self) -> Vec<LinkStatus>;

    /// Lets `look` see what the links and the membership have counted since the start.
    fn with_counters(&self, look: &mut dyn FnMut(&LinkCounters, &MemberCounters));

    /// The node that has the agent's session, as the others say. Asks them, and waits for a second at
    /// the most.
    async fn home_of(&self, agent: &AgentId) -> Option<NodeId>;

    /// What a node says of agents' TLS there. Asks it, and waits for two seconds at the most.
    async fn tls_of(&self, _: NodeId) -> Option<NodeSays> {
        None
    }

    /// What a node sees of its links. Asks it, and waits for two seconds at the most.
    async fn sight_of(&self, _: NodeId) -> Option<NodeSees> {
        None
    }

    /// How a node stands with agents. Asks it, and waits for two seconds at the most.
    async fn standing_of(&self, _: NodeId) -> Option<Standing> {
        None
    }

    /// What a node that leads the registry decides of the wish that some node leave. Asks it, and waits for
    /// five seconds at the most; none if it did not answer, or does not lead.
    async fn may_leave(&self, _: NodeId, _: Wish) -> Option<Verdict> {
        None
    }

    /// Lets another node drain, and then stop; how it stands at that moment. None if it did not answer in
    /// two seconds: it may do so all the same.
    async fn ask_to_leave(&self, _: NodeId) -> Option<Standing> {
        None
    }

    /// What this node carries, to be told to the others. Called once a second.
    fn carry(&self, load: Load);

    /// Returns when the node may take agents: it has found the others, or waited long enough.
    async fn joined(&self);

    /// Returns when another process has this node's place: a copy of its data directory was started.
    async fn displaced(&self);

    /// Tells the others that this node stops soon, and returns at once.
    fn leave(&self);

    /// Returns when what waits in the links is written and the others know that this node is gone.
    async fn goodbye(&self);
}

/// A node of the cluster, as operators see it.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeStatus {
    /// What membership knows.
    pub member: Member,
    /// Its share of the presence records of its region, from 0 to 1.
    pub ring_share: f64,
}

/// Peers for the tests of others.
#[cfg(test)]
pub(crate) mod testing {
    use std::time::Duration;

    use cluster::{
        Generation, Incarnation,
        link::{Introduction, Packets},
        membership::MemberState,
        mesh::{Home, Outlet, Pushed},
        wire::{Control, Data},
    };

    use super::*;

    /// The mesh of a node that has no links.
    pub(crate) fn mesh(node: NodeId, deliver: Arc<dyn Deliver>) -> Arc<Mesh> {
        let me = Incarnation { node, generation: Generation(1) };
        Arc::new(Mesh::new(Home { me, region: "default".into() }, Arc::new(NoLinks), deliver))
    }

    struct NoLinks;

    impl Outlet for NoLinks {
        fn control(&self, _: NodeId, _: &Control) -> bool {
            false
        }

        fn data(&self, _: NodeId, _: u8, _: &Data<'_>) -> Pushed {
            Pushed::NoLink
        }
    }

    /// Peers that only let themselves be seen; by default there is nobody.
    #[derive(Default)]
    pub(crate) struct Shown {
        pub(crate) nodes: Vec<NodeStatus>,
        pub(crate) links: Vec<LinkStatus>,
    }

    #[async_trait]
    impl Peers for Shown {
        fn nodes(&self) -> Vec<NodeStatus> {
            self.nodes.clone()
        }

        fn links(&self) -> Vec<LinkStatus> {
            self.links.clone()
        }

        fn with_counters(&self, look: &mut dyn FnMut(&LinkCounters, &MemberCounters)) {
            look(&LinkCounters::default(), &MemberCounters::default());
        }

        async fn home_of(&self, _: &AgentId) -> Option<NodeId> {
            None
        }

        fn carry(&self, _: Load) {}

        async fn joined(&self) {}

        async fn displaced(&self) {
            std::future::pending::<()>().await;
        }

        fn leave(&self) {}

        async fn goodbye(&self) {}
    }

    /// A node as gossip would show it, with so many agents, and a hundredth of the ring.
    pub(crate) fn node(id: u64, state: MemberState, sessions: u64) -> NodeStatus {
        let member = Member {
            incarnation: Incarnation { node: NodeId(id), generation: Generation(1) },
            name: format!("node-{id}"),
            region: "default".into(),
            version: "0.1.0".into(),
            address: ([10, 0, 0, 1], 7_946).into(),
            state,
            load: Load { sessions, messages_per_minute: 10 * sessions },
        };
        NodeStatus { member, ring_share: 0.01 }
    }

    /// A link to that node.
    pub(crate) fn link(to: &NodeStatus) -> LinkStatus {
        let Member { incarnation, name, region, version, address, .. } = to.member.clone();
        LinkStatus {
            peer: Introduction { incarnation, name, region, version, address },
            rtt: Duration::from_micros(1_500),
            queue_bytes: 9,
            sent_bytes: 70,
            received_bytes: 80,
            packets: Packets { sent: 100, lost: 3 },
            silent_for: Duration::from_millis(40),
        }
    }
}
