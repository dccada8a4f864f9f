//! What nodes had before their links, and have not told of on them: gone through a part at a time, and
//! ended.
//!
//! Owns how far that has come. When a node has told all, it has also said that whatever it did not
//! tell of is no more; whether it has, the directory knows.

use std::{collections::BTreeSet, ops::Bound};

use super::{Directory, Link, Record, millis};
use crate::{AgentId, NodeId, mesh::action::Action};

/// So many records are looked at in one go, which takes a few milliseconds; at each tick, a million of
/// them within two seconds.
pub(super) const SWEPT_AT_ONCE: usize = 32_768;

/// A walk through all records, for those that nodes have not told of on their present links.
#[derive(Debug, Default)]
pub(super) struct Sweep {
    /// Whose records; nobody's if there is no walk under way.
    of: BTreeSet<NodeId>,
    /// The agent that was looked at last.
    after: Option<AgentId>,
}

impl Sweep {
    /// The node has a new link: it is due when it has told all on that one.
    pub(super) fn leave_out(&mut self, node: NodeId) {
        self.of.remove(&node);
    }
}

impl Directory {
    /// Ends the records of nodes that they have not told of on their present links, once they have told
    /// all under this very ring: under another one they have told others of them. Goes through so many
    /// at a time; who becomes due meanwhile waits for the next walk.
    pub(super) fn go_on_sweeping(&mut self) -> Vec<Action> {
        if self.sweep.of.is_empty() {
            self.sweep = Sweep { of: self.due_for_sweep(), after: None };
        }
        if self.sweep.of.is_empty() {
            return Vec::new();
        }
        let from = self.sweep.after.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
        let mut behind = self.records.range::<AgentId, _>((from, Bound::Unbounded));
        let (mut over, mut last) = (Vec::new(), None);
        for (agent, record) in behind.by_ref().take(SWEPT_AT_ONCE) {
            if self.is_over(agent, record) {
                over.push(agent.clone());
            }
            last = Some(agent);
        }
        match last.filter(|_| behind.next().is_some()).cloned() {
            None => self.note_swept(),
            after => self.sweep.after = after,
        }
        over.iter().flat_map(|agent| self.end(agent)).collect()
    }

    fn due_for_sweep(&self) -> BTreeSet<NodeId> {
        let present = Some(self.rings.version_of(&self.region));
        let is_due = |link: &Link| !link.is_swept && link.synced == present;
        let due = self.peers.iter().filter(|(_, peer)| peer.link.as_ref().is_some_and(is_due));
        due.map(|(node, _)| *node).collect()
    }

    /// Whether a node that is being swept has told all, but not of this record.
    fn is_over(&self, agent: &AgentId, record: &Record) -> bool {
        let home = record.session.node;
        let link = self.peers.get(&home).and_then(|peer| peer.link.as_ref());
        self.sweep.of.contains(&home)
            && self.is_valid(record)
            && link.is_some_and(|link| record.renewed < millis(link.up))
            // It may have opened since all was told on this link, or said to have been.
            && !record.is_hearsay
            // Of others' agents it tells others.
            && self.rings.owner(&self.region, agent.as_str()) == Some(self.me)
    }

    fn note_swept(&mut self) {
        for node in std::mem::take(&mut self.sweep).of {
            if let Some(link) = self.peers.get_mut(&node).and_then(|peer| peer.link.as_mut()) {
                link.is_swept = true;
            }
        }
    }
}
