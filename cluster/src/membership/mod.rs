//! Membership: which nodes there are, how they are, and a link to each of them.
//!
//! What decides is pure: [`View`] turns gossip and the links' news into members, `seeds` and `dialler`
//! say whom to dial when, `joining` says when the node may serve. [`Membership`] is the handle that the
//! rest of the node holds, and [`Driver`] the one task that does the I/O. It knows nothing of agents,
//! and carries no message of theirs.

mod counters;
mod dialler;
mod driver;
mod gossip;
mod handle;
mod joining;
mod seeds;
#[cfg(test)]
mod tests;
mod view;

use std::net::SocketAddr;

use crate::{Incarnation, NodeId};

pub use counters::MemberCounters;
pub use dialler::{DialError, Dialled};
pub use driver::{Driver, Peers};
pub use gossip::GossipError;
pub use handle::{Membership, Monotonic};
pub use seeds::{Dns, Resolve, SeedAddress, SeedRefusal};
pub use view::{Change, Event, Heard, Says, View};

/// A link that has not been known to carry both ways for so long makes its peer
/// [`MemberState::Suspect`]. With pings every half second, two have not been answered by then, and a
/// crash is noticed within 2 s.
pub const SUSPECT_AFTER: std::time::Duration = std::time::Duration::from_millis(1_500);

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
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Alive, Self::Suspect, Self::Leaving, Self::Left, Self::Dead];

    /// Whether there is a running process, as far as anybody knows.
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
