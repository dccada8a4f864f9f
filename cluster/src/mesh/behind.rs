//! Whose broadcasts pass a session by although it is admitted: those of nodes that have not said yet
//! that they know of it.
//!
//! An admission waits for no node that is silent or has no link. What such a node sent before it
//! learns of the session may reach the session's home late, or on a link that is made later, or by a
//! gateway; it would overtake what it sent to the former home, which comes back to it first. So its
//! broadcasts of a lane count for the session from its barrier on, and it is told of the session as
//! soon as there is a link.

use std::{
    collections::{BTreeMap, HashMap},
    sync::atomic::{AtomicBool, Ordering},
};

use parking_lot::RwLock;

use super::EVERY_LANE;
use crate::{AgentId, NodeId, SessionId, wire::Names};

/// The sessions of this node that other nodes may not know of.
#[derive(Debug, Default)]
pub(super) struct Behind {
    /// Whether there is any: mostly there is none, and broadcasts are many.
    is_any: AtomicBool,
    nodes: RwLock<HashMap<NodeId, BTreeMap<AgentId, Unknown>>>,
}

/// A session that one node may not know of.
#[derive(Debug)]
struct Unknown {
    session: SessionId,
    /// The lanes on which it has said that it does: a bit for each.
    heard: u8,
}

impl Behind {
    /// The node may not know of the session on lanes whose bit is not set in `heard`.
    pub(super) fn add(&self, agent: &AgentId, session: SessionId, node: NodeId, heard: u8) {
        let mut nodes = self.nodes.write();
        nodes.entry(node).or_default().insert(agent.clone(), Unknown { session, heard });
        self.is_any.store(true, Ordering::Release);
    }

    /// The node knows of the session, and says so on this lane.
    pub(super) fn barrier(&self, node: NodeId, lane: u8, agent: &str, session: SessionId) {
        self.change(|of, agents| {
            let unknown = agents.get_mut(agent).filter(|_| of == node);
            if let Some(unknown) = unknown.filter(|unknown| unknown.session == session) {
                unknown.heard |= 1 << lane;
                if unknown.heard == EVERY_LANE {
                    agents.remove(agent);
                }
            }
        });
    }

    /// The session is no more.
    pub(super) fn ended(&self, agent: &AgentId, session: SessionId) {
        self.change(|_, agents| {
            if agents.get(agent).is_some_and(|unknown| unknown.session == session) {
                agents.remove(agent);
            }
        });
    }

    /// Only these nodes may still send anything.
    pub(super) fn retain(&self, may_send: impl Fn(NodeId) -> bool) {
        self.change(|node, agents| {
            if !may_send(node) {
                agents.clear();
            }
        });
    }

    /// What the node is to be told when there is a link to it.
    pub(super) fn unknown_to(&self, node: NodeId) -> Vec<(AgentId, SessionId)> {
        let nodes = self.nodes.read();
        let agents = nodes.get(&node).into_iter().flatten();
        agents.map(|(agent, unknown)| (agent.clone(), unknown.session)).collect()
    }

    fn change(&self, change: impl Fn(NodeId, &mut BTreeMap<AgentId, Unknown>)) {
        if !self.is_any.load(Ordering::Acquire) {
            return;
        }
        let mut nodes = self.nodes.write();
        nodes.retain(|node, agents| {
            change(*node, agents);
            !agents.is_empty()
        });
        self.is_any.store(!nodes.is_empty(), Ordering::Release);
    }

    /// Calls `deliver` with those that a broadcast of this origin and lane is not for: the ones that
    /// it leaves out itself, and the ones that its origin may not know of.
    pub(super) fn except(
        &self,
        origin: NodeId,
        lane: u8,
        except: Names<'_>,
        deliver: impl FnOnce(Names<'_>),
    ) {
        if self.is_any.load(Ordering::Acquire) {
            let nodes = self.nodes.read();
            if let Some(agents) = nodes.get(&origin) {
                let unknown = agents.iter().filter(|(_, unknown)| unknown.heard >> lane & 1 == 0);
                let unknown = unknown.map(|(agent, _)| agent.as_str());
                let all: Vec<&str> = except.iter().chain(unknown).collect();
                return deliver(Names::List(&all));
            }
        }
        deliver(except);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a failed unwrap is a failed test
mod tests {
    use super::*;

    const NODE: NodeId = NodeId(2);

    fn left_out(behind: &Behind, node: NodeId, lane: u8) -> Vec<String> {
        let mut names = Vec::new();
        behind.except(node, lane, Names::List(&["cid"]), |all| {
            names = all.iter().map(str::to_owned).collect();
        });
        names
    }

    #[test]
    fn broadcasts_count_from_the_barrier_of_their_lane_on() {
        let (behind, bob) = (Behind::default(), "bob".parse().unwrap());
        let session = SessionId { time: 7, node: NodeId(1) };
        behind.add(&bob, session, NODE, 0b0001);
        assert_eq!(left_out(&behind, NODE, 0), ["cid"]);
        assert_eq!(left_out(&behind, NODE, 1), ["cid", "bob"]);
        assert_eq!(left_out(&behind, NodeId(3), 1), ["cid"]);
        behind.barrier(NODE, 1, "bob", SessionId { time: 6, ..session });
        assert_eq!(left_out(&behind, NODE, 1), ["cid", "bob"]);
        behind.barrier(NODE, 1, "bob", session);
        assert_eq!(left_out(&behind, NODE, 1), ["cid"]);
        assert_eq!(left_out(&behind, NODE, 2), ["cid", "bob"]);
        assert_eq!(behind.unknown_to(NODE), [(bob.clone(), session)]);
        behind.retain(|node| node != NODE);
        assert_eq!(left_out(&behind, NODE, 2), ["cid"]);
        assert!(!behind.is_any.load(Ordering::Relaxed));
    }

    #[test]
    fn a_session_that_ended_is_forgotten() {
        let (behind, bob) = (Behind::default(), "bob".parse().unwrap());
        let session = SessionId { time: 7, node: NodeId(1) };
        behind.add(&bob, session, NODE, 0);
        behind.ended(&bob, SessionId { time: 6, ..session });
        assert_eq!(left_out(&behind, NODE, 3), ["cid", "bob"]);
        behind.ended(&bob, session);
        assert_eq!(left_out(&behind, NODE, 3), ["cid"]);
    }
}
