//! What one engine of the model puts out, and what it does to its sessions: encoded, and counted.

use bytes::Bytes;
use cluster::{
    AgentId, NodeId, SessionId,
    mesh::{Batch, Deliver, Lost, Outlet, Pushed},
    wire::{Body, Control, Data, Names, Spent},
};
use parking_lot::Mutex;

use super::agents::{self, Agents};

/// A frame that an engine put out: to whom, on which lane (none: control), and its bytes.
pub(super) type Put = (NodeId, Option<u8>, Bytes);

/// An engine's way out.
#[derive(Debug, Default)]
pub(super) struct Outbox(Mutex<Out>);

#[derive(Debug, Default)]
struct Out {
    /// Sorted.
    linked: Vec<NodeId>,
    put: Vec<Put>,
    scratch: Vec<u8>,
}

impl Outbox {
    pub(super) fn link(&self, peer: NodeId) {
        let linked = &mut self.0.lock().linked;
        if let Err(at) = linked.binary_search(&peer) {
            linked.insert(at, peer);
        }
    }

    pub(super) fn unlink(&self, peer: NodeId) {
        self.0.lock().linked.retain(|linked| *linked != peer);
    }

    /// Moves what was put out since the last call into `to`.
    pub(super) fn take(&self, to: &mut Vec<Put>) {
        to.append(&mut self.0.lock().put);
    }

    fn push(&self, to: NodeId, lane: Option<u8>, encode: impl FnOnce(&mut Vec<u8>)) -> bool {
        let Out { linked, put, scratch } = &mut *self.0.lock();
        if linked.binary_search(&to).is_err() {
            return false;
        }
        scratch.clear();
        encode(scratch);
        put.push((to, lane, Bytes::copy_from_slice(scratch)));
        true
    }
}

impl Outlet for Outbox {
    fn control(&self, to: NodeId, frame: &Control) -> bool {
        self.push(to, None, |bytes| frame.encode(bytes))
    }

    fn data(&self, to: NodeId, lane: u8, frame: &Data<'_>) -> Pushed {
        let pushed = self.push(to, Some(lane), |bytes| frame.encode(bytes));
        if pushed { Pushed::Queued } else { Pushed::NoLink }
    }
}

/// The sessions of one node: who is there, the model knows; what they get is counted.
#[derive(Debug)]
pub(super) struct Sessions {
    place: usize,
    agents: Agents,
    seen: Mutex<Seen>,
}

/// What an engine has done to its sessions.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    /// Agents whose sessions were admitted, since this was last looked at.
    pub admitted: Vec<usize>,
    pub directs: u64,
    pub broadcasts: u64,
    pub lost: u64,
}

impl Sessions {
    pub(super) fn new(place: usize, agents: Agents) -> Self {
        Self { place, agents, seen: Mutex::default() }
    }

    pub(super) fn take_admitted(&self) -> Vec<usize> {
        std::mem::take(&mut self.seen.lock().admitted)
    }

    pub(super) fn seen(&self) -> Seen {
        self.seen.lock().clone()
    }
}

impl Deliver for Sessions {
    fn batch(&self) -> Box<dyn Batch + '_> {
        Box::new(Counted(self))
    }

    fn direct(&self, agent: &AgentId, body: &Body<'_>, followed: bool) -> bool {
        self.batch().direct(agent.as_str(), body, followed)
    }

    fn replaced(&self, _: &AgentId, _: SessionId) {}

    fn admitted(&self, agent: &AgentId, _: SessionId) {
        self.seen.lock().admitted.extend(agents::number(agent.as_str()));
    }

    fn unfenced(&self, _: &AgentId) {}

    fn spent(&self, _: &AgentId, _: Spent) {}

    fn lost(&self, _: Lost, messages: u64) {
        self.seen.lock().lost += messages;
    }
}

struct Counted<'a>(&'a Sessions);

impl Batch for Counted<'_> {
    fn direct(&mut self, agent: &str, _: &Body<'_>, _: bool) -> bool {
        let home = agents::number(agent).and_then(|agent| self.0.agents.home(agent));
        let is_here = home == Some(self.0.place);
        self.0.seen.lock().directs += u64::from(is_here);
        is_here
    }

    fn broadcast(&mut self, _: &str, _: Names<'_>, _: &Body<'_>) {
        self.0.seen.lock().broadcasts += 1;
    }
}
