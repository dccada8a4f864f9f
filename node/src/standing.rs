//! How a node stands with agents, as it tells other nodes that ask; and what keeps an operator from sending
//! away a node that is needed. What decides is pure.

use cluster::NodeId;
use futures_util::{StreamExt as _, stream};
use serde::{Deserialize, Serialize};

use crate::{
    admin::Voter,
    relay::{Phase, Relay},
    report::NodeReport,
};

/// Nodes that are asked at a time.
const ASKED_MAX: usize = 16;

/// How a node stands with agents: the answer to a question over the mesh.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// Whether new agents are taken.
    pub takes_agents: bool,
    /// Agents that are connected.
    pub agents: u64,
}

/// Why a node should not leave now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum Needed {
    /// Its agents would have nowhere to go.
    #[error("no other node takes agents: without this one, all of them are cut off")]
    LastReady,
    /// Names could not be registered without it.
    #[error(
        "without this node {left} of {voters} voters are left, and no majority: until it is back, no name \
         can be registered and no token revoked"
    )]
    Majority {
        /// Voters that would be there.
        left: usize,
        /// How many there are to be.
        voters: usize,
    },
}

/// How this node stands.
pub fn own(relay: &Relay) -> Standing {
    let has_room = relay.permits.available_permits() > 0;
    let takes_agents = relay.phase() == Phase::Serving && has_room;
    Standing { takes_agents, agents: relay.sessions.len() as u64 }
}

/// Why the node with this id should not leave, if anything speaks against it, as `nodes` are.
///
/// Asks the others, and waits for those that do not answer for two seconds.
pub(crate) async fn needed(relay: &Relay, leaving: &str, nodes: &[NodeReport]) -> Option<Needed> {
    let voters = relay.registry.status().voters;
    let voters: Vec<_> = voters.into_iter().map(Voter::from).collect();
    if !another_takes_agents(relay, leaving, nodes).await {
        return Some(Needed::LastReady);
    }
    lost_majority(leaving, nodes, &voters)
}

async fn another_takes_agents(relay: &Relay, leaving: &str, nodes: &[NodeReport]) -> bool {
    let me = relay.node.to_string();
    let others = || nodes.iter().filter(|node| is_alive(node) && node.id != leaving);
    if others().any(|node| node.id == me) && own(relay).takes_agents {
        return true;
    }
    let Some(peers) = relay.peers() else { return false };
    let ids: Vec<_> = others().filter(|node| node.id != me).filter_map(id).collect();
    let mut standings =
        stream::iter(ids).map(|node| peers.standing_of(node)).buffer_unordered(ASKED_MAX);
    while let Some(standing) = standings.next().await {
        if standing.is_some_and(|standing| standing.takes_agents) {
            return true;
        }
    }
    false
}

/// The id in a report; none if it is of no node.
pub fn id(node: &NodeReport) -> Option<NodeId> {
    u64::from_str_radix(&node.id, 16).ok().map(NodeId)
}

fn is_alive(node: &NodeReport) -> bool {
    node.state == "alive"
}

/// Whether there is a majority of voters, and will be none.
fn lost_majority(leaving: &str, nodes: &[NodeReport], voters: &[Voter]) -> Option<Needed> {
    let voting: Vec<_> = voters.iter().filter(|voter| voter.votes).collect();
    let is_there = |voter: &Voter| nodes.iter().any(|it| it.id == voter.node && is_alive(it));
    let there = voting.iter().filter(|voter| is_there(voter)).count();
    let left = voting.iter().filter(|it| is_there(it) && it.node != leaving).count();
    let (majority, voters) = (voting.len() / 2 + 1, voting.len());
    (there >= majority && left < majority).then_some(Needed::Majority { left, voters })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::testing::node;

    /// What is lost when `a` leaves nodes in these states, of which the first so many are voters.
    fn lost(states: &[&str], voters: usize) -> Option<Needed> {
        let ids = ["a", "b", "c", "d", "e"];
        let nodes: Vec<_> = ids.iter().zip(states).map(|(id, state)| node(id, state)).collect();
        let voter =
            |id: &&str| Voter { node: (*id).into(), seed: String::new(), votes: true, lag: None };
        let voters: Vec<_> = ids.iter().take(voters).map(voter).collect();
        lost_majority("a", &nodes, &voters)
    }

    #[test]
    fn a_majority_of_the_voters_must_stay() {
        assert_eq!(lost(&["alive"; 3], 3), None);
        let majority = |left, voters| Some(Needed::Majority { left, voters });
        assert_eq!(lost(&["alive", "alive", "dead"], 3), majority(1, 3));
        assert_eq!(lost(&["alive", "alive", "leaving"], 3), majority(1, 3));
        assert_eq!(lost(&["alive", "alive"], 1), majority(0, 1));
        assert_eq!(lost(&["alive", "dead", "dead"], 3), None, "there is none to be lost");
        assert_eq!(lost(&["alive", "alive", "alive", "dead", "alive"], 5), None);
        assert_eq!(lost(&["alive"; 3], 0), None, "nobody says who votes");
    }
}
