//! The mesh as one node sees it: which node an agent's session is on, and how messages get there.
//!
//! [`Mesh`] is a synchronous engine: events and the time go in, frames go out through [`Outlet`],
//! and sessions are spoken to through [`Deliver`]. It has no task, awaits nothing and reads no clock,
//! so the same code runs in the relay and, thousands of times, in simulations. What decides is in the
//! modules below, each for one question.

pub mod action;
#[cfg(test)]
mod arrival_test;
pub mod clock;
pub mod directory;
pub mod parking;
pub mod presence;
pub mod ring;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;

use crate::{
    AgentId, Incarnation, NodeId, SessionId,
    membership::Member,
    wire::{Body, Control, Data, LANES, Names, Spent},
};

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
    /// It waits to be written; whoever pushed calls [`Outlet`]'s owner to write soon.
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
}

/// Messages for the agents of this node.
pub trait Batch {
    /// Puts the message into the agent's outbox; `false` if the agent has no session here.
    fn direct(&mut self, agent: &str, body: &Body<'_>, followed: bool) -> bool;

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

/// The engine. All methods may be called from any thread; none blocks for long.
///
/// Locks, in their order: the engine's core, a shard of the routes, then what [`Outlet`] and
/// [`Deliver`] take.
pub struct Mesh {
    home: Home,
    outlet: Arc<dyn Outlet>,
    deliver: Arc<dyn Deliver>,
}

impl Mesh {
    /// An engine that knows no other node.
    pub fn new(home: Home, outlet: Arc<dyn Outlet>, deliver: Arc<dyn Deliver>) -> Self {
        Self { home, outlet, deliver }
    }

    /// A session was entered on this node, held. [`Deliver::admitted`] follows, perhaps before this
    /// returns. `true` if messages to it from here must go through [`direct`](Self::direct) until
    /// [`Deliver::unfenced`].
    pub fn opened(&self, agent: &AgentId, session: SessionId, now: Duration) -> bool {
        let _ = now;
        self.deliver.admitted(agent, session);
        false
    }

    /// A session of this node is no more; `spent` is its agent's limit if no other session of it is
    /// here.
    pub fn closed(&self, agent: &AgentId, session: SessionId, spent: Option<Spent>, now: Duration) {
        let _ = (agent, session, spent, now, &self.outlet, &self.home);
    }

    /// Sends a message to agents that have no session here, or a fenced one.
    pub fn direct(&self, message: &Outgoing<'_>, targets: &[&str], now: Duration) {
        let _ = (message, targets, now);
    }

    /// Sends a message to the agents of all other nodes. Returns agents of **this** node that must
    /// not get it from the caller, since it waits for them here.
    pub fn broadcast(&self, message: &Outgoing<'_>, now: Duration) -> Vec<AgentId> {
        let _ = (message, now);
        Vec::new()
    }

    /// A link is there: frames to and from the peer from now on belong to it.
    pub fn link_up(&self, peer: &Home, now: Duration) {
        let _ = (peer, now);
    }

    /// The link is gone, with all that was in it.
    pub fn link_down(&self, peer: Incarnation, now: Duration) {
        let _ = (peer, now);
    }

    /// Nothing was heard on the link for a while, or something was again.
    pub fn link_suspect(&self, peer: NodeId, suspect: bool, now: Duration) {
        let _ = (peer, suspect, now);
    }

    /// The members, this node among them, as gossip knows them now.
    pub fn members(&self, members: &[Member], now: Duration) {
        let _ = (members, now);
    }

    /// A frame came on the control lane of a peer. `Ping`, `Pong`, `Ask`, `Answer` and `Tell` are the
    /// caller's own.
    pub fn control(&self, from: NodeId, frame: Control, now: Duration) {
        let _ = (from, frame, now);
    }

    /// The peer's last broadcasts per lane, as its ping says.
    pub fn heard(&self, from: NodeId, broadcasts: &[u64; LANES], now: Duration) {
        let _ = (from, broadcasts, now);
    }

    /// This node's last broadcasts per lane, for its pings.
    pub fn broadcasts(&self) -> [u64; LANES] {
        [0; LANES]
    }

    /// Frames came on a data lane of a peer; `batch` is what [`Deliver::batch`] gave.
    pub fn data(
        &self,
        from: NodeId,
        lane: u8,
        frame: Data<'_>,
        batch: &mut dyn Batch,
        now: Duration,
    ) {
        let _ = (from, lane, frame, batch, now);
    }

    /// Time passes; called every 50 ms or so.
    pub fn tick(&self, now: Duration) {
        let _ = now;
    }
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
