//! The mesh as one node sees it: which node an agent's session is on, and how messages get there.
//!
//! [`Mesh`] is a synchronous engine: events and the time go in, frames go out through [`Outlet`],
//! and sessions are spoken to through [`Deliver`]. It has no task, awaits nothing and reads no clock,
//! so the same code runs in the relay and, thousands of times, in simulations. What decides is in the
//! modules below, each for one question.

pub mod action;
#[cfg(test)]
mod arrival_test;
mod behind;
mod broadcast;
mod clock;
pub mod directory;
mod engine;
#[cfg(test)]
pub(crate) mod engine_tests;
mod near;
mod parking;
pub mod presence;
pub mod ring;
mod route;
mod routes;

pub use engine::Mesh;

use bytes::Bytes;
use smallvec::SmallVec;

use crate::{
    AgentId, Incarnation, NodeId, SessionId,
    wire::{Body, Control, Data, LANES, Names, Spent},
};

/// Something has been heard on all lanes: of the bits that stand for one each, all are set.
const EVERY_LANE: u8 = (1 << LANES) - 1;

/// The way to the other nodes. Never blocks.
pub trait Outlet: Send + Sync + 'static {
    /// Puts a frame onto the control lane to a peer. `false` if there is no link to it.
    fn control(&self, to: NodeId, frame: &Control) -> bool;

    /// Puts a frame onto a data lane to a peer. What finds no room is dropped and counted there.
    fn data(&self, to: NodeId, lane: u8, frame: &Data<'_>) -> Pushed;
}

/// What became of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pushed {
    /// It waits to be written.
    Queued,
    /// The lane is full.
    Full,
    /// There is no link to the node.
    NoLink,
}

/// The sessions of this node, as the mesh speaks to them. Never blocks, and never calls the mesh.
pub trait Deliver: Send + Sync + 'static {
    /// Starts a batch of messages that came from elsewhere; its end writes them.
    fn batch(&self) -> Box<dyn Batch + '_>;

    /// Puts a message into the agent's outbox; `false` if the agent has no session here. Called with
    /// locks of the mesh held: the session's own task writes it.
    fn direct(&self, agent: &AgentId, body: &Body<'_>, followed: bool) -> bool;

    /// The agent has a newer session on another node: an older one here is closed with 4009 and gets
    /// no more messages from now on.
    fn replaced(&self, agent: &AgentId, by: SessionId);

    /// The session's arrival is known wherever it matters: it may greet its agent.
    fn admitted(&self, agent: &AgentId, session: SessionId);

    /// No message for the agent is on its way to a former home any more: messages from here may go
    /// to its session directly.
    fn unfenced(&self, agent: &AgentId);

    /// What the agent has spent of its rate limits elsewhere.
    fn spent(&self, agent: &AgentId, spent: Spent);

    /// So many messages to one agent each were lost.
    fn lost(&self, why: Lost, messages: u64);

    /// A message was given to the link to a node, or found no place there. For those who trace.
    fn passed(&self, _to: NodeId, _body: &Body<'_>, _pushed: Pushed) {}

    /// This message is one of those that [`lost`](Self::lost) counts. For those who trace.
    fn missed(&self, _why: Lost, _body: &Body<'_>) {}
}

/// Messages for the agents of this node.
pub trait Batch {
    /// Puts the message into the agent's outbox; `false` if the agent has no session here.
    fn direct(&mut self, agent: &str, body: &Body<'_>, followed: bool) -> bool;

    /// The same for several agents; returns those that have no session here.
    fn directs<'n>(
        &mut self,
        agents: &Names<'n>,
        body: &Body<'_>,
        followed: bool,
    ) -> SmallVec<[&'n str; 4]> {
        agents.iter().filter(|agent| !self.direct(agent, body, followed)).collect()
    }

    /// Puts the message into the outboxes of all but its sender and those in `except`, and but
    /// sessions that are not admitted yet.
    fn broadcast(&mut self, from: &str, except: Names<'_>, body: &Body<'_>);
}

/// Why a message did not reach its recipient.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Lost {
    /// The agent has no session anywhere.
    Offline,
    /// Where the agent is could not be found out in time.
    Unresolved,
    /// Too much waited for the agent's place to be found out.
    RouteFull,
    /// The queue to the agent's node was full.
    LinkFull,
    /// The link to the agent's node was lost, or was not there.
    LinkLost,
    /// It came back from a former home too late to keep its order.
    Stale,
    /// It came from a node that has no business to send it so.
    Stray,
}

impl Lost {
    /// Its name in metrics and traces.
    pub fn label(self) -> &'static str {
        match self {
            Self::Offline => "offline",
            Self::Unresolved => "unresolved",
            Self::RouteFull => "route_full",
            Self::LinkFull => "link_full",
            Self::LinkLost => "link_lost",
            Self::Stale => "stale",
            Self::Stray => "stray",
        }
    }
}

/// A message that waits, or goes out: who sent it, and the finished bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Who sent it.
    pub from: AgentId,
    /// Whether its recipient gets it as a follower of its sender.
    pub followed: bool,
    /// The finished bytes.
    pub body: Bytes,
}

/// What a node tells the engine about itself.
#[derive(Clone, Debug)]
pub struct Home {
    /// This node, and which of its lives.
    pub me: Incarnation,
    /// Its region.
    pub region: String,
}

/// A message on its way out.
#[derive(Clone, Debug)]
pub struct Outgoing<'a> {
    /// Who sent it.
    pub from: &'a AgentId,
    /// The sender's data lane: `wire::lane_of(from)`.
    pub lane: u8,
    /// Whether the targets get it as followers of its sender.
    pub followed: bool,
    /// The finished bytes.
    pub body: Body<'a>,
}
