//! Where an agent is, for people who ask: not for messages, whose routes know better whom to believe
//! and are told when that changes.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::timeout;

use super::Peering;
use crate::{
    AgentId, NodeId, SessionId,
    mesh::Outlet,
    wire::{Control, Located},
};

/// How long a node is waited for.
const PATIENCE: Duration = Duration::from_millis(500);

/// Marks the numbers of these questions: those of the routes, which count up from 1, never come so far.
const MARK: u64 = 1 << 63;

impl Peering {
    /// The agent's session, as its owner says, or else whoever holds it; none if nobody says so within a
    /// second.
    pub async fn whereabouts(&self, agent: &AgentId) -> Option<SessionId> {
        let (here, owner) = self.mesh().locate(agent);
        if here.is_some() {
            return here;
        }
        if let Some(owner) = owner.filter(|owner| *owner != self.mesh().home().me.node)
            && let Some(session) = self.look_up(owner, agent).await
        {
            return Some(session);
        }
        // The owner may be lost, or may not have been told yet.
        let others = self.linked().into_iter().filter(|node| Some(*node) != owner);
        let answers = join_all(others.map(|node| self.look_up(node, agent))).await;
        answers.into_iter().flatten().max()
    }

    async fn look_up(&self, node: NodeId, agent: &AgentId) -> Option<SessionId> {
        let mut question = self.looked_up.ask(node);
        let ask = question.number | MARK;
        let frame = Control::Lookup { ask, agent: agent.clone(), home_only: true };
        if !self.outward.control(node, &frame) {
            return None;
        }
        match timeout(PATIENCE, question.answer()).await {
            Ok(Some(Located::At(session))) => Some(session),
            _ => None,
        }
    }

    /// Takes an answer, unless it is one for a route.
    pub(super) fn located(&self, from: NodeId, ask: u64, place: Located) -> bool {
        let is_ours = ask & MARK != 0;
        if is_ours {
            self.looked_up.answered(from, ask ^ MARK, place);
        }
        is_ours
    }
}
