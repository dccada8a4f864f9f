//! What one node's engine puts out, until the world takes it: its `Outlet`.

use std::collections::BTreeSet;

use bytes::Bytes;
use cluster::{
    NodeId,
    mesh::{Outlet, Pushed},
    wire::{Control, Data},
};
use parking_lot::Mutex;

/// The lane of control frames; data lane n is lane n + 1, gossip has the last.
pub(super) const CONTROL: usize = 0;

/// The engine's way out.
#[derive(Debug, Default)]
pub(super) struct Outbox(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    linked: BTreeSet<NodeId>,
    frames: Vec<(NodeId, usize, Bytes)>,
}

impl Outbox {
    /// Whether frames to the peer are taken from now on.
    pub(super) fn link(&self, peer: NodeId, is_there: bool) {
        let linked = &mut self.0.lock().linked;
        if is_there {
            linked.insert(peer)
        } else {
            linked.remove(&peer)
        };
    }

    /// What was put out since the last call: to whom, on which lane, the encoded frame.
    pub(super) fn take(&self) -> Vec<(NodeId, usize, Bytes)> {
        std::mem::take(&mut self.0.lock().frames)
    }

    fn push(&self, to: NodeId, lane: usize, encode: impl FnOnce(&mut Vec<u8>)) -> bool {
        let mut state = self.0.lock();
        if !state.linked.contains(&to) {
            return false;
        }
        let mut bytes = Vec::with_capacity(64);
        encode(&mut bytes);
        state.frames.push((to, lane, bytes.into()));
        true
    }
}

impl Outlet for Outbox {
    fn control(&self, to: NodeId, frame: &Control) -> bool {
        self.push(to, CONTROL, |bytes| frame.encode(bytes))
    }

    fn data(&self, to: NodeId, lane: u8, frame: &Data<'_>) -> Pushed {
        let pushed = self.push(to, usize::from(lane) + 1, |bytes| frame.encode(bytes));
        if pushed { Pushed::Queued } else { Pushed::NoLink }
    }
}
