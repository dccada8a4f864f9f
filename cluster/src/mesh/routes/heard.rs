//! Whom this node hears, and what of its routes that still bears out.
//!
//! Owns the eras in which nodes were heard of and links were lost. A node may be the home or the owner
//! of a million routes: none of them is touched when it falls silent or its link is lost, each is
//! judged by these eras when it is used next. Pure; never locks.

use std::collections::HashMap;

use super::{SHARDS, shard::Keyed};
use crate::{NodeId, mesh::route::Known};

/// The nodes that are heard, and the links that were lost of late.
#[derive(Clone, Debug)]
pub(super) struct Heard {
    /// Nodes that are linked and not silent, and since which era.
    since: HashMap<NodeId, u32, Keyed>,
    /// For each link that was lost, what is remembered until all routes have been looked through.
    lost: HashMap<NodeId, Loss, Keyed>,
}

/// A link that was lost.
#[derive(Clone, Copy, Debug)]
struct Loss {
    /// The last era that began before.
    era: u32,
    /// The number of the next time that a shard would be looked through.
    sweeps: usize,
}

impl Heard {
    /// Nobody is heard.
    pub(super) fn new(hasher: Keyed) -> Self {
        Self { since: HashMap::with_hasher(hasher), lost: HashMap::with_hasher(hasher) }
    }

    /// Since which era the node is linked and was never silent; none if it is not heard.
    pub(super) fn since(&self, node: NodeId) -> Option<u32> {
        self.since.get(&node).copied()
    }

    /// How many nodes are.
    pub(super) fn count(&self) -> usize {
        self.since.len()
    }

    /// The node is linked, or heard of again, since `era`.
    pub(super) fn begin(&mut self, node: NodeId, era: u32) {
        self.since.entry(node).or_insert(era);
    }

    /// The node is silent.
    pub(super) fn end(&mut self, node: NodeId) {
        self.since.remove(&node);
    }

    /// The link to the node is lost in this era, before the sweep of this number.
    pub(super) fn lose(&mut self, node: NodeId, era: u32, sweeps: usize) {
        self.end(node);
        self.lost.insert(node, Loss { era, sweeps });
    }

    /// Whether the route may be used, as far as it is for this to say: its home was heard ever since it
    /// was confirmed, and its owner, who tells when the agent moves, linked.
    pub(super) fn bears_out(&self, known: &Known) -> bool {
        let since = self.since(known.home());
        since.is_some_and(|since| since <= known.confirmed()) && !self.has_lost_word_of(known)
    }

    /// Whether the route has ended with the link to its home: what was pushed along it is lost, and
    /// nothing of it comes back.
    pub(super) fn has_ended(&self, known: &Known) -> bool {
        self.has_lost(known.home(), known.confirmed())
    }

    /// Whether the link to who vouched for the route was lost since.
    pub(super) fn has_lost_word_of(&self, known: &Known) -> bool {
        self.has_lost(known.owner(), known.confirmed())
    }

    fn has_lost(&self, node: NodeId, since: u32) -> bool {
        self.lost.get(&node).is_some_and(|loss| since <= loss.era)
    }

    /// Whether links were lost of late.
    pub(super) fn remembers_losses(&self) -> bool {
        !self.lost.is_empty()
    }

    /// Whether a link was lost before every shard was looked through; `sweeps` is the number of the last
    /// time that one was.
    pub(super) fn has_past_losses(&self, sweeps: usize) -> bool {
        self.lost.values().any(|loss| loss.is_past(sweeps))
    }

    /// Forgets them.
    pub(super) fn forget_past_losses(&mut self, sweeps: usize) {
        self.lost.retain(|_, loss| !loss.is_past(sweeps));
    }
}

impl Loss {
    /// Whether every shard was looked through since; once it may have been under way already.
    fn is_past(self, sweeps: usize) -> bool {
        sweeps.saturating_sub(self.sweeps) >= SHARDS
    }
}
