//! Why a dial led to no link, in words that say what to do.

use std::net::SocketAddr;

use super::refusal::{Reason, Refusal};

/// Why a dial led to no link.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// Nobody is there, or nobody who speaks as a node.
    #[error("no node answers at {address}: {reason}")]
    Unreachable {
        /// Where.
        address: SocketAddr,
        /// What happened.
        reason: String,
    },
    /// The two nodes have different secrets.
    #[error(
        "node at {0} does not share our CLUSTER_SECRET: start both with the same, or remove the \
         address from the seeds"
    )]
    Distrusted(SocketAddr),
    /// The address is this node's own.
    #[error("{0} is this node itself")]
    Myself(SocketAddr),
    /// The peer does not want the link.
    #[error("refused by the node at {address}: {refusal}")]
    Refused {
        /// Whom.
        address: SocketAddr,
        /// Why.
        refusal: Refusal,
    },
    /// This node does not want the link.
    #[error("the node at {address} cannot be linked: {refusal}")]
    Unfit {
        /// Whom.
        address: SocketAddr,
        /// Why.
        refusal: Refusal,
    },
    /// Another connection of the same two nodes is being made, or has not quite ended. There is a
    /// link soon, or another dial may make one.
    #[error("the node at {0} is being linked by another connection")]
    Underway(SocketAddr),
    /// What answers is no node.
    #[error("what answers at {0} is no node: is it a mesh port?")]
    Malformed(SocketAddr),
    /// The handshake took more than 5 s.
    #[error("the node at {0} did not finish the handshake in time")]
    Deadline(SocketAddr),
    /// The links are stopped, or stop.
    #[error("links are stopped")]
    Stopped,
}

impl LinkError {
    /// The reason as it is counted.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Unreachable { .. } => Reason::Broken,
            Self::Distrusted(_) => Reason::Secret,
            Self::Myself(_) => Reason::Myself,
            Self::Refused { refusal, .. } | Self::Unfit { refusal, .. } => refusal.reason,
            Self::Underway(_) => Reason::Duplicate,
            Self::Malformed(_) => Reason::Malformed,
            Self::Deadline(_) => Reason::Deadline,
            Self::Stopped => Reason::Leaving,
        }
    }
}
