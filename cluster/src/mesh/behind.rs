//! Whose broadcasts pass a session by although it is admitted: those of nodes that have not said yet
//! that they know of it.
//!
//! An admission waits for no silent node. What such a node sent before it learns of the session may
//! reach the session's home late, and would overtake what it sent to the former home, which comes
//! back to it first. So its broadcasts of a lane count for the session from its barrier on.

use std::{
    collections::{BTreeMap, HashMap},
    sync::atomic::{AtomicBool, Ordering},
};

use parking_lot::RwLock;

use crate::{
    AgentId, NodeId, SessionId,
    wire::{LANES, Names},
};

/// The sessions of this node that other nodes may not know of, by node and lane.
#[derive(Debug, Default)]
pub(super) struct Behind {
    /// Whether there is any: mostly there is none, and broadcasts are many.
    is_any: AtomicBool,
    lanes: RwLock<HashMap<(NodeId, u8), BTreeMap<AgentId, SessionId>>>,
}

impl Behind {
    /// The node may not know of the session on lanes whose bit is not set in `heard`.
    pub(super) fn add(&self, agent: &AgentId, session: SessionId, node: NodeId, heard: u8) {
        let mut lanes = self.lanes.write();
        for lane in (0..).take(LANES).filter(|lane| heard >> lane & 1 == 0) {
            lanes.entry((node, lane)).or_default().insert(agent.clone(), session);
        }
        self.is_any.store(!lanes.is_empty(), Ordering::Release);
    }

    /// The node knows of the session, and says so on this lane.
    pub(super) fn barrier(&self, node: NodeId, lane: u8, agent: &str, session: SessionId) {
        self.change(|at, agents| {
            if at == (node, lane) && agents.get(agent) == Some(&session) {
                agents.remove(agent);
            }
        });
    }

    /// The session is no more.
    pub(super) fn ended(&self, agent: &AgentId, session: SessionId) {
        self.change(|_, agents| {
            if agents.get(agent) == Some(&session) {
                agents.remove(agent);
            }
        });
    }

    /// The link to the node is gone, and what was sent on it before.
    pub(super) fn link_lost(&self, node: NodeId) {
        self.change(|(of, _), agents| {
            if of == node {
                agents.clear();
            }
        });
    }

    fn change(&self, change: impl Fn((NodeId, u8), &mut BTreeMap<AgentId, SessionId>)) {
        if !self.is_any.load(Ordering::Acquire) {
            return;
        }
        let mut lanes = self.lanes.write();
        lanes.retain(|at, agents| {
            change(*at, agents);
            !agents.is_empty()
        });
        self.is_any.store(!lanes.is_empty(), Ordering::Release);
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
            let lanes = self.lanes.read();
            if let Some(agents) = lanes.get(&(origin, lane)) {
                let all: Vec<&str> =
                    except.iter().chain(agents.keys().map(AgentId::as_str)).collect();
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
        behind.link_lost(NODE);
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
