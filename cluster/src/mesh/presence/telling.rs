//! Telling owners of all that they own: who is being told, and how far that has come.
//!
//! A node may have more sessions than the lanes to their owners hold, and than may be gone through
//! while others wait: so they are told a few at each tick, in the order of their agents' names. Only
//! whoever has been told all, under the very rings that are in force then, hears that it was all.
//! Knows neither links nor admissions, and sends nothing itself.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    ops::Bound,
};

use crate::{AgentId, NodeId, SessionId, mesh::ring::Rings};

/// How much is done from one tick to the next, for all nodes together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::mesh) struct Pace {
    /// Sessions that are looked at.
    pub(in crate::mesh) looks: usize,
    /// Frames of which one says one session to one owner; a session is said to all its owners at once.
    pub(in crate::mesh) frames: usize,
}

impl Pace {
    /// All sessions of a node of the default size are looked at in one go, which takes some
    /// milliseconds. Of 80 bytes each, the frames are 13 MB a second: some 25 of these goes would
    /// have to wait on one lane before it is full.
    const USUAL: Self = Self { looks: 16_384, frames: 8_192 };

    fn is_left(self) -> bool {
        self.looks > 0 && self.frames > 0
    }
}

/// What a node is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told<'s> {
    /// That it owns this agent, and which session the agent has.
    Of(&'s AgentId, SessionId),
    /// That it has been told of all that it owns.
    All,
}

/// Who is being told.
#[derive(Debug)]
pub(super) struct Tellings {
    /// No node is in two of them.
    passes: VecDeque<Pass>,
    pace: Pace,
    /// What may be done before the next tick.
    left: Pace,
}

/// One walk through all sessions.
#[derive(Debug)]
struct Pass {
    nodes: BTreeSet<NodeId>,
    /// What they own under these rings they have been told; none if they are told everything.
    told: Option<Rings>,
    /// The agent that was looked at last.
    after: Option<AgentId>,
}

impl Tellings {
    /// Nobody is told anything.
    pub(super) fn new() -> Self {
        Self { passes: VecDeque::new(), pace: Pace::USUAL, left: Pace::USUAL }
    }

    /// A pace to be kept from now on.
    #[cfg(test)]
    pub(super) fn keep_pace(&mut self, pace: Pace) {
        (self.pace, self.left) = (pace, pace);
    }

    /// The nodes are to be told of everything that they own, from the beginning.
    pub(super) fn start(&mut self, nodes: impl IntoIterator<Item = NodeId>) {
        let nodes: BTreeSet<NodeId> = nodes.into_iter().collect();
        for node in &nodes {
            self.stop(*node);
        }
        self.begin(Pass { nodes, told: None, after: None });
    }

    /// The node is gone, or told anew.
    pub(super) fn stop(&mut self, node: NodeId) {
        for pass in &mut self.passes {
            pass.nodes.remove(&node);
        }
        self.passes.retain(|pass| !pass.nodes.is_empty());
    }

    /// Whether the node has not been told all.
    pub(super) fn is_being_told(&self, node: NodeId) -> bool {
        self.passes.iter().any(|pass| pass.nodes.contains(&node))
    }

    /// Other rings are in force now than `former`: all these nodes are told what they did not own. Who
    /// was being told is told from the beginning, since what was looked at may be theirs now.
    pub(super) fn rings_changed(&mut self, former: Rings, nodes: impl Iterator<Item = NodeId>) {
        let nodes = nodes.filter(|node| !self.is_being_told(*node)).collect();
        for pass in std::mem::take(&mut self.passes) {
            self.begin(Pass { after: None, ..pass });
        }
        self.begin(Pass { nodes, told: Some(former), after: None });
    }

    /// One walk serves all who are told everything from the beginning.
    fn begin(&mut self, pass: Pass) {
        let is_alike = |other: &&mut Pass| {
            other.told.is_none() && pass.told.is_none() && other.after.is_none()
        };
        match self.passes.iter_mut().find(is_alike) {
            Some(other) => other.nodes.extend(pass.nodes),
            None if pass.nodes.is_empty() => {}
            None => self.passes.push_back(pass),
        }
    }

    /// A tick's time has passed: as much again may be done.
    pub(super) fn tick(&mut self) {
        self.left = self.pace;
    }

    /// Goes on as far as it may.
    pub(super) fn go_on(
        &mut self,
        sessions: &BTreeMap<AgentId, SessionId>,
        rings: &Rings,
        mut tell: impl FnMut(NodeId, Told<'_>),
    ) {
        while let Some(pass) = self.passes.front_mut() {
            if !pass.walk(sessions, rings, &mut self.left, &mut tell) {
                return;
            }
            pass.nodes.iter().for_each(|node| tell(*node, Told::All));
            self.passes.pop_front();
        }
    }
}

impl Pass {
    /// `true` at the end of the sessions.
    fn walk(
        &mut self,
        sessions: &BTreeMap<AgentId, SessionId>,
        rings: &Rings,
        left: &mut Pace,
        tell: &mut impl FnMut(NodeId, Told<'_>),
    ) -> bool {
        let from = self.after.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
        let mut looked_at = None;
        let mut behind = sessions.range::<AgentId, _>((from, Bound::Unbounded)).peekable();
        while let Some((agent, session)) = behind.next_if(|_| left.is_left()) {
            left.looks -= 1;
            looked_at = Some(agent);
            let was_told = |owner: &NodeId| {
                let told = self.told.as_ref();
                told.is_some_and(|told| told.owners(agent.as_str()).any(|it| it == *owner))
            };
            let owners = rings.owners(agent.as_str()).filter(|owner| self.nodes.contains(owner));
            for owner in owners.filter(|owner| !was_told(owner)) {
                left.frames = left.frames.saturating_sub(1);
                tell(owner, Told::Of(agent, *session));
            }
        }
        let is_over = behind.peek().is_none();
        if let Some(agent) = looked_at {
            self.after = Some(agent.clone());
        }
        is_over
    }
}
