//! Membership: which nodes there are, and how they are.

use std::net::SocketAddr;

use crate::{Incarnation, NodeId};

/// A node as membership knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Which node, and which of its lives; only the highest generation of a node is a member.
    pub incarnation: Incarnation,
    /// What its operator calls it.
    pub name: String,
    /// Where it is.
    pub region: String,
    /// Its release.
    pub version: String,
    /// Where its mesh port is reached.
    pub address: SocketAddr,
    /// How it is.
    pub state: MemberState,
    /// How much it carries.
    pub load: Load,
}

/// How a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MemberState {
    /// It is there.
    Alive,
    /// Its link has been silent, or is gone, but others may hear of it still.
    Suspect,
    /// It stops soon: owns nothing, takes no new agents.
    Leaving,
    /// It said goodbye.
    Left,
    /// Nobody hears of it.
    Dead,
}

/// How much a node carries, as it says itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Sessions.
    pub sessions: u64,
    /// Messages accepted in the last minute.
    pub messages_per_minute: u64,
}

impl MemberState {
    /// Whether there is a process that may do anything still.
    pub fn lives(self) -> bool {
        !matches!(self, Self::Left | Self::Dead)
    }
}

impl Member {
    /// The node.
    pub fn node(&self) -> NodeId {
        self.incarnation.node
    }

    /// Whether it may own presence records.
    pub fn is_owner(&self) -> bool {
        matches!(self.state, MemberState::Alive | MemberState::Suspect)
    }
}
