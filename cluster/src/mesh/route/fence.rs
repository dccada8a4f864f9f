//! The fence around a route's former home: on which lanes messages may still come back from there.

use std::time::Duration;

use crate::{NodeId, SessionId, wire::LANES};

/// A session whose home may still hold messages of this route.
#[derive(Debug)]
pub(super) struct Fence {
    pub(super) session: SessionId,
    pub(super) epoch: u64,
    pub(super) lanes: [FenceLane; LANES],
    /// Since when it is waited for, as far as time was looked at.
    pub(super) since: Option<Duration>,
}

impl Fence {
    pub(super) fn new(session: SessionId, epoch: u64) -> Self {
        Self { session, epoch, lanes: [FenceLane::Due; LANES], since: None }
    }

    pub(super) fn node(&self) -> NodeId {
        self.session.node
    }

    pub(super) fn give_up(&mut self) {
        self.lanes.iter_mut().filter(|lane| lane.is_open()).for_each(|l| *l = FenceLane::GivenUp);
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FenceLane {
    /// The frame found no room yet.
    Due,
    /// The frame is on its way there or back.
    Sent,
    /// Nothing of this lane comes back any more.
    Done,
    /// What still comes back on this lane comes too late.
    GivenUp,
}

impl FenceLane {
    /// Whether messages may come back on the lane that are to be sent again.
    pub(super) fn is_open(self) -> bool {
        matches!(self, Self::Due | Self::Sent)
    }
}
