//! Links: one connection to each peer, with ordered lanes of frames in it.
//!
//! What carries them is a transport, QUIC or memory. This module owns the handshake, the lanes'
//! bounded queues and their writers and readers. It never decides where a message goes.

mod allegiance;
#[cfg(test)]
mod conformance;
mod congestion;
mod counters;
mod error;
mod frames;
mod handshake;
mod key;
mod lane;
#[expect(clippy::module_inception, reason = "a link is what the module is about")]
mod link;
mod links;
mod meeting;
pub mod memory;
mod noise;
mod pairing;
pub mod quic;
mod reader;
mod refusal;
pub mod transport;

use std::time::Duration;

use bytes::Bytes;

pub use self::{
    allegiance::Allegiance,
    counters::{LaneCounts, LaneKind, LinkCounters},
    error::LinkError,
    frames::Frames,
    handshake::{CLOCK_SKEW_MAX, VERSIONS},
    key::NodeKey,
    links::{Clock, Links},
    refusal::{Reason, Refusal},
    transport::Packets,
};
use crate::{Generation, Incarnation, UnixMillis, wire::Control};

/// What a node says of itself in the handshake, and its peer checks.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Introduction {
    /// Which node, and which of its lives; the node must be the one its certificate names.
    pub incarnation: Incarnation,
    /// What its operator calls it; no two nodes of a cluster have one name.
    pub name: String,
    /// Where it is.
    pub region: String,
    /// Its release.
    pub version: String,
    /// Where its mesh port is reached.
    pub address: std::net::SocketAddr,
}

/// What links do, as the rest of the node sees it. Called from the links' own tasks; never blocks.
pub trait LinkEvents: Send + Sync + 'static {
    /// Whether a peer may be linked, once its certificate and its introduction were checked; the
    /// reason is told to it and logged.
    fn admit(&self, peer: &Introduction) -> Result<(), Refusal>;

    /// Another process has this node's id, and was started later: it has this node's place.
    fn outlived(&self, by: Generation);

    /// A link is there. Nothing else of it comes before. Frames can be pushed to the peer from here on,
    /// [`Data::Start`](crate::wire::Data) first on each data lane.
    fn up(&self, peer: &Introduction);

    /// A link is gone, with all that was in it. Nothing else of it comes after.
    fn down(&self, peer: Incarnation, why: Down);

    /// A frame came on the control lane.
    fn control(&self, from: Incarnation, frame: Control);

    /// A message of the membership came.
    fn gossip(&self, from: Incarnation, message: Bytes);

    /// Frames came together on a data lane.
    fn data(&self, from: Incarnation, lane: u8, frames: &mut Frames<'_>);

    /// Which registry this node knows, if it knows one.
    fn allegiance(&self) -> Option<Allegiance> {
        None
    }

    /// The wall clock: a peer is not linked whose own is more than [`CLOCK_SKEW_MAX`] away.
    fn wall(&self) -> UnixMillis;

    /// Mesh time, which the peer is to learn.
    fn mesh_time(&self) -> UnixMillis;

    /// A peer's mesh time was learned.
    fn learn_time(&self, time: UnixMillis);
}

/// Why a link ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Down {
    /// The peer said goodbye: it stops.
    Left,
    /// Nothing was heard for too long, or the connection broke.
    Lost,
    /// The peer broke the rules of the wire.
    Violation,
    /// This node closed it.
    Closed,
}

impl Down {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Left, Self::Lost, Self::Violation, Self::Closed];

    /// Its name in metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::Left => "left",
            Self::Lost => "lost",
            Self::Violation => "violation",
            Self::Closed => "closed",
        }
    }
}

/// A link as operators see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkStatus {
    /// The peer.
    pub peer: Introduction,
    /// Round trip.
    pub rtt: Duration,
    /// Bytes that wait to be written.
    pub queue_bytes: usize,
    /// Bytes of frames handed to the transport since the link came up.
    pub sent_bytes: u64,
    /// Bytes of frames received whole since the link came up.
    pub received_bytes: u64,
    /// Its datagrams since it came up.
    pub packets: Packets,
    /// Since the last ping was sent that has been answered, or the handshake: for so long nobody knows
    /// whether the link carries both ways.
    pub silent_for: Duration,
}
