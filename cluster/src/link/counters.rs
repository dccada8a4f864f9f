//! What links count, to be read by whoever shows it.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::{Down, refusal::Reason};
use crate::wire::Lane;

/// Counters of all links of a node since its start, and of what is done for peers.
#[derive(Debug, Default)]
pub struct LinkCounters {
    lanes: [LaneCounters; 3],
    ups: AtomicU64,
    downs: [AtomicU64; Down::ALL.len()],
    refused: [AtomicU64; Reason::ALL.len()],
    panics: AtomicU64,
}

/// A kind of lane; the data lanes are counted together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LaneKind {
    /// Sessions, routes, nodes.
    Control,
    /// Membership.
    Gossip,
    /// Agents' messages.
    Data,
}

/// What went through the lanes of one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LaneCounts {
    /// Frames handed to the transport.
    pub frames_sent: u64,
    /// Their bytes.
    pub bytes_sent: u64,
    /// Frames received whole.
    pub frames_received: u64,
    /// Their bytes.
    pub bytes_received: u64,
    /// Frames that found the lane full.
    pub dropped_full: u64,
    /// Frames that the transport had not taken when their link went down. Of those that it had, some
    /// may not have arrived: nobody knows.
    pub lost: u64,
}

#[derive(Debug, Default)]
struct LaneCounters {
    frames_sent: AtomicU64,
    bytes_sent: AtomicU64,
    frames_received: AtomicU64,
    bytes_received: AtomicU64,
    dropped_full: AtomicU64,
    lost: AtomicU64,
}

impl LaneKind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Control, Self::Gossip, Self::Data];

    /// Its name in metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::Control => "control",
            Self::Gossip => "gossip",
            Self::Data => "data",
        }
    }
}

impl From<Lane> for LaneKind {
    fn from(lane: Lane) -> Self {
        match lane {
            Lane::Control => Self::Control,
            Lane::Gossip => Self::Gossip,
            Lane::Data(_) => Self::Data,
        }
    }
}

impl LinkCounters {
    /// What went through the lanes of this kind.
    pub fn lane(&self, kind: LaneKind) -> LaneCounts {
        let lane = &self.lanes[kind as usize];
        LaneCounts {
            frames_sent: lane.frames_sent.load(Relaxed),
            bytes_sent: lane.bytes_sent.load(Relaxed),
            frames_received: lane.frames_received.load(Relaxed),
            bytes_received: lane.bytes_received.load(Relaxed),
            dropped_full: lane.dropped_full.load(Relaxed),
            lost: lane.lost.load(Relaxed),
        }
    }

    /// Links that came up.
    pub fn ups(&self) -> u64 {
        self.ups.load(Relaxed)
    }

    /// Links that went down for this reason.
    pub fn downs(&self, why: Down) -> u64 {
        self.downs[why as usize].load(Relaxed)
    }

    /// Handshakes that failed at this node for this reason, whichever end gave it.
    pub fn refused(&self, why: Reason) -> u64 {
        self.refused[why as usize].load(Relaxed)
    }

    /// Tasks of the mesh that panicked: each is a bug.
    pub fn panics(&self) -> u64 {
        self.panics.load(Relaxed)
    }

    /// A task of the mesh has panicked.
    pub fn panicked(&self) {
        self.panics.fetch_add(1, Relaxed);
    }

    pub(super) fn sent(&self, kind: LaneKind, frames: u64, bytes: u64) {
        self.lanes[kind as usize].frames_sent.fetch_add(frames, Relaxed);
        self.lanes[kind as usize].bytes_sent.fetch_add(bytes, Relaxed);
    }

    pub(super) fn received(&self, kind: LaneKind, frames: u64, bytes: u64) {
        self.lanes[kind as usize].frames_received.fetch_add(frames, Relaxed);
        self.lanes[kind as usize].bytes_received.fetch_add(bytes, Relaxed);
    }

    pub(super) fn dropped(&self, kind: LaneKind) {
        self.lanes[kind as usize].dropped_full.fetch_add(1, Relaxed);
    }

    pub(super) fn lost(&self, kind: LaneKind, frames: u64) {
        self.lanes[kind as usize].lost.fetch_add(frames, Relaxed);
    }

    pub(super) fn up(&self) {
        self.ups.fetch_add(1, Relaxed);
    }

    pub(super) fn down(&self, why: Down) {
        self.downs[why as usize].fetch_add(1, Relaxed);
    }

    pub(super) fn refuse(&self, why: Reason) {
        self.refused[why as usize].fetch_add(1, Relaxed);
    }
}
