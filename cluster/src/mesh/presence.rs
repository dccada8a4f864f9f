//! The home's side: this node's sessions as the owners must know them, and when a new one may greet
//! its agent.
//!
//! A session is admitted once every owner has recorded it, and every node that knew of an older one
//! has said on each data lane that it knows of this one: what is accepted anywhere after that reaches
//! it, and nothing that was meant for the older one follows. An owner that does not answer is stood
//! in for, and no admission waits for ever. Holds no outbox and sends nothing itself.

mod telling;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

#[cfg(test)]
pub(super) use telling::Pace;

use self::telling::{Tellings, Told};
use super::{EVERY_LANE, Home, action::Action, ring::Rings};
use crate::{
    AgentId, NodeId, SessionId,
    wire::{Control, LANES, Published},
};

/// How long an owner has to answer before this node tells all others itself.
pub const OWNER_PATIENCE: Duration = Duration::from_millis(300);

/// How long a session waits at most before it is admitted.
pub const ADMISSION_DEADLINE: Duration = Duration::from_secs(1);

/// A node that was told of a session has heard of it within this time, or lost its link.
const HEARD_WITHIN: Duration = Duration::from_secs(10);

/// How often every session is published anew; owners keep records for three times as long.
pub const RENEWAL: Duration = Duration::from_secs(30);

/// The owners are spread over so many equal parts of [`RENEWAL`]: each gets all that it owns in one
/// of them, and the sessions are gone through once for each part.
const PARTS: u64 = 30;

/// This node's sessions, and those of them that are not admitted yet.
#[derive(Debug)]
pub struct Presence {
    rings: Rings,
    sessions: BTreeMap<AgentId, SessionId>,
    pending: BTreeMap<AgentId, Admission>,
    /// Agents of whose session here not all had said that they know when it was admitted or ended,
    /// and when it came to that.
    unheard_of: BTreeMap<AgentId, Duration>,
    links: Links,
    tellings: Tellings,
    /// The last part that was renewed, counted from the start of time.
    renewed: u64,
}

/// For metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts {
    /// Sessions of this node.
    pub sessions: usize,
    /// Those that are not admitted yet.
    pub pending: usize,
}

impl Presence {
    /// A home without sessions that knows of no other node.
    pub fn new(home: &Home) -> Self {
        Self {
            rings: Rings::default(),
            sessions: BTreeMap::new(),
            pending: BTreeMap::new(),
            unheard_of: BTreeMap::new(),
            links: Links {
                me: home.me.node,
                region: home.region.clone(),
                peers: BTreeMap::new(),
                listed: BTreeSet::new(),
            },
            tellings: Tellings::new(),
            renewed: 0,
        }
    }

    /// A session was entered here, held. [`Action::Admit`] or [`Action::Outdone`] follows, now or
    /// from a later call. An older one of the agent is taken to be no more.
    pub fn opened(&mut self, agent: &AgentId, session: SessionId, now: Duration) -> Vec<Action> {
        if let Some(by) = self.session_of(agent.as_str()).filter(|known| *known > session) {
            return vec![Action::Outdone { agent: agent.clone(), session, by }];
        }
        self.sessions.insert(agent.clone(), session);
        let owners: BTreeSet<NodeId> = self.rings.owners(agent.as_str()).collect();
        let linked = owners.iter().filter(|owner| self.links.has(**owner));
        let mut actions: Vec<Action> =
            linked.map(|owner| publish(*owner, agent, session, true)).collect();
        let mut admission = Admission::new(session, now, owners);
        // Whoever was to know of the one before it, here too, may not: to the owners it was known.
        admission.must_tell_all |=
            self.pending.contains_key(agent) || self.unheard_of.contains_key(agent);
        self.pending.insert(agent.clone(), admission);
        actions.extend(self.advance(agent, now));
        actions
    }

    /// A session of this node is no more. Changes nothing if it was outdone, or a newer one is here.
    pub fn closed(&mut self, agent: &AgentId, session: SessionId) -> Vec<Action> {
        if !self.forget(agent, session) {
            return Vec::new();
        }
        let withdraw = |to| {
            let frame = Control::Withdraw { agent: agent.clone(), session };
            Action::Send { to, frame }
        };
        let owners = self.rings.owners(agent.as_str()).filter(|owner| self.links.has(*owner));
        owners.map(withdraw).collect()
    }

    /// An owner's answer to what was published.
    pub fn published(
        &mut self,
        from: NodeId,
        agent: &AgentId,
        session: SessionId,
        outcome: Published,
        now: Duration,
    ) -> Vec<Action> {
        match outcome {
            Published::Outdone(by) => self.outdone(agent, by),
            Published::Accepted { notified } => {
                let admission = self.pending.get_mut(agent);
                let Some(admission) = admission.filter(|pending| pending.session == session) else {
                    return Vec::new();
                };
                if admission.unanswered.remove(&from) {
                    admission.awaited.extend(notified);
                }
                self.advance(agent, now)
            }
        }
    }

    /// The agent has this session somewhere: an older one here is outdone. The newer one's home tells
    /// the owners, so nothing is withdrawn.
    pub fn outdone(&mut self, agent: &AgentId, by: SessionId) -> Vec<Action> {
        let older = self.session_of(agent.as_str()).filter(|session| *session < by);
        let Some(session) = older else { return Vec::new() };
        self.forget(agent, session);
        vec![Action::Outdone { agent: agent.clone(), session, by }]
    }

    /// A node knows of the session: what it sent on this lane before was not meant for it. May come
    /// before the owner's word that the node was told.
    pub fn barrier(
        &mut self,
        from: NodeId,
        lane: u8,
        agent: &str,
        session: SessionId,
        now: Duration,
    ) -> Vec<Action> {
        let Some((agent, pending)) = self.pending.get_key_value(agent) else { return Vec::new() };
        if pending.session != session || usize::from(lane) >= LANES {
            return Vec::new();
        }
        let agent = agent.clone();
        let Some(pending) = self.pending.get_mut(&agent) else { return Vec::new() };
        let heard = pending.heard.entry(from).or_default();
        *heard |= 1 << lane;
        // Until it has said so on all, it is waited for.
        if *heard == EVERY_LANE { self.advance(&agent, now) } else { Vec::new() }
    }

    /// The rings have changed: who owns a session now and did not is told of it, and all linked nodes
    /// that they have been told; if these are many, at the next ticks.
    pub fn ring_changed(&mut self, rings: Rings) -> Vec<Action> {
        let former = std::mem::replace(&mut self.rings, rings);
        let mut actions = self.publish_pending(&former);
        self.tellings.rings_changed(former, self.links.all());
        actions.extend(self.go_on_telling());
        actions
    }

    /// Sessions that wait to be admitted wait for the new owners too, which are told at once.
    fn publish_pending(&mut self, former: &Rings) -> Vec<Action> {
        let mut actions = Vec::new();
        for (agent, admission) in &mut self.pending {
            let before: BTreeSet<NodeId> = former.owners(agent.as_str()).collect();
            for owner in self.rings.owners(agent.as_str()).filter(|owner| !before.contains(owner)) {
                admission.unanswered.insert(owner);
                if self.links.has(owner) {
                    actions.push(publish(owner, agent, admission.session, true));
                }
            }
        }
        actions
    }

    /// The nodes that gossip knows, linked or not, but for those that said goodbye.
    pub fn listed(&mut self, nodes: BTreeSet<NodeId>) {
        self.links.listed = nodes;
    }

    /// A link to the node is there: it is told of all that it owns, then that this was all; if it is
    /// much, at the next ticks.
    pub fn link_up(&mut self, peer: &Home) -> Vec<Action> {
        let link = Link { region: peer.region.clone(), is_suspect: false };
        self.links.peers.insert(peer.me.node, link);
        self.tellings.start([peer.me.node]);
        self.go_on_telling()
    }

    /// The link is gone: nobody waits for the node any more.
    pub fn link_down(&mut self, node: NodeId, now: Duration) -> Vec<Action> {
        self.links.peers.remove(&node);
        self.tellings.stop(node);
        self.pending.values_mut().for_each(|admission| admission.link_lost(node));
        self.advance_all(now)
    }

    /// Nothing was heard of the node for a while, or something was again.
    pub fn link_suspect(&mut self, node: NodeId, is_suspect: bool, now: Duration) -> Vec<Action> {
        if let Some(link) = self.links.peers.get_mut(&node) {
            link.is_suspect = is_suspect;
        }
        self.advance_all(now)
    }

    /// Time passes: patience and deadlines end, the next owners have their records renewed, and who is
    /// being told is told more.
    pub fn tick(&mut self, now: Duration) -> Vec<Action> {
        self.unheard_of.retain(|_, since| now < *since + HEARD_WITHIN);
        let mut actions = self.advance_all(now);
        let part = u64::try_from(now.as_millis() / (RENEWAL.as_millis() / u128::from(PARTS)))
            .unwrap_or(u64::MAX);
        let passed = part.saturating_sub(std::mem::replace(&mut self.renewed, part));
        if passed > 0 {
            let is_due = |node: &NodeId| {
                // Differs by node, so that an owner is not told by all in the same second.
                let place = node.0.wrapping_add(self.links.me.0) % PARTS;
                (part % PARTS + PARTS - place) % PARTS < passed
            };
            // Who is being told as it is will know all.
            let due = |node: &NodeId| is_due(node) && !self.tellings.is_being_told(*node);
            let due: Vec<NodeId> = self.links.all().filter(due).collect();
            self.tellings.start(due);
        }
        self.tellings.tick();
        actions.extend(self.go_on_telling());
        actions
    }

    /// The agent's session on this node.
    pub fn session_of(&self, agent: &str) -> Option<SessionId> {
        self.sessions.get(agent).copied()
    }

    /// Nodes are told at this pace from now on.
    #[cfg(test)]
    pub(super) fn keep_pace(&mut self, pace: Pace) {
        self.tellings.keep_pace(pace);
    }

    /// How much there is.
    pub fn counts(&self) -> Counts {
        Counts { sessions: self.sessions.len(), pending: self.pending.len() }
    }

    /// Tells nodes of what they own, and those that have been told all that this was all.
    fn go_on_telling(&mut self) -> Vec<Action> {
        let Self { sessions, rings, links, tellings, .. } = self;
        let mut actions = Vec::new();
        tellings.go_on(sessions, rings, |to, told| match told {
            Told::Of(agent, session) => actions.push(publish(to, agent, session, false)),
            Told::All => {
                let ring = links.region_of(to).map(|region| rings.version_of(region));
                let synced = |ring| Action::Send { to, frame: Control::Synced { ring } };
                actions.extend(ring.map(synced));
            }
        });
        actions
    }

    /// `false` if the session is not here.
    fn forget(&mut self, agent: &AgentId, session: SessionId) -> bool {
        let is_here = self.session_of(agent.as_str()) == Some(session);
        if is_here {
            self.sessions.remove(agent);
            if let Some(admission) = self.pending.remove(agent) {
                self.unheard_of.insert(agent.clone(), admission.opened);
            }
        }
        is_here
    }

    fn advance_all(&mut self, now: Duration) -> Vec<Action> {
        let pending: Vec<AgentId> = self.pending.keys().cloned().collect();
        pending.iter().flat_map(|agent| self.advance(agent, now)).collect()
    }

    /// Does what is due for a session that is not admitted yet.
    fn advance(&mut self, agent: &AgentId, now: Duration) -> Vec<Action> {
        let Some(admission) = self.pending.get_mut(agent) else { return Vec::new() };
        let session = admission.session;
        let mut actions = Vec::new();
        if admission.must_tell_all(&self.links, now) {
            admission.await_all(&self.links);
        }
        let is_over = admission.is_over(&self.links, now);
        if is_over {
            admission.await_unheard(&self.links);
        }
        if is_over || admission.told_all || now >= admission.opened + OWNER_PATIENCE {
            let frame = Control::Moved { agent: agent.clone(), was: None, now: Some(session) };
            let tell = |to: NodeId| Action::Send { to, frame: frame.clone() };
            actions.extend(admission.untold(&self.links).into_iter().map(tell));
        }
        if is_over {
            let pass_by =
                |(node, heard)| Action::PassBy { agent: agent.clone(), session, node, heard };
            let before = actions.len();
            actions.extend(admission.not_heard(&self.links).map(pass_by));
            if actions.len() > before {
                self.unheard_of.insert(agent.clone(), now);
            }
            self.pending.remove(agent);
            actions.push(Action::Admit { agent: agent.clone(), session });
        }
        actions
    }
}

/// A session that waits to be admitted, and for whom.
#[derive(Debug)]
struct Admission {
    session: SessionId,
    opened: Duration,
    /// Owners that have not answered.
    unanswered: BTreeSet<NodeId>,
    /// Nodes that were told of the session and are to say so on each lane.
    awaited: BTreeSet<NodeId>,
    /// On which lanes each node has: a bit for each.
    heard: BTreeMap<NodeId, u8>,
    must_tell_all: bool,
    told_all: bool,
    /// Whom this node has told itself.
    told: BTreeSet<NodeId>,
}

impl Admission {
    fn new(session: SessionId, opened: Duration, owners: BTreeSet<NodeId>) -> Self {
        Self {
            session,
            opened,
            awaited: BTreeSet::new(),
            heard: BTreeMap::new(),
            // Without an owner nobody would tell the others.
            must_tell_all: owners.is_empty(),
            told_all: false,
            told: BTreeSet::new(),
            unanswered: owners,
        }
    }

    /// Whether an owner cannot be waited for, or not any longer, and this was not made up for yet.
    fn must_tell_all(&mut self, links: &Links, now: Duration) -> bool {
        let before = self.unanswered.len();
        self.unanswered.retain(|owner| links.hears(*owner));
        let is_late = !self.unanswered.is_empty() && now >= self.opened + OWNER_PATIENCE;
        self.must_tell_all |= is_late || self.unanswered.len() < before;
        self.must_tell_all && !self.told_all
    }

    /// From here on every node's own word is waited for, and no owner's but this node's.
    fn await_all(&mut self, links: &Links) {
        self.told_all = true;
        self.unanswered.retain(|owner| *owner == links.me);
        self.awaited.extend(links.peers.keys());
    }

    /// What was said on the link counts no more, should there be another one.
    fn link_lost(&mut self, node: NodeId) {
        self.told.remove(&node);
        self.heard.remove(&node);
    }

    /// Nodes that are not heard learn of the session late, whatever it is that they do not know.
    fn await_unheard(&mut self, links: &Links) {
        self.awaited.extend(links.known().filter(|node| !links.hears(*node)));
    }

    /// Whom this node tells itself, each once. In an owner's stead all, since they tell that owner who
    /// reach it; else whoever was to be told and has not said so on every lane: no owner may have
    /// reached it.
    fn untold(&mut self, links: &Links) -> Vec<NodeId> {
        let untold = |node: &NodeId| {
            let is_due = self.told_all || self.heard.get(node) != Some(&EVERY_LANE);
            is_due && links.peers.contains_key(node) && !self.told.contains(node)
        };
        let untold: Vec<NodeId> = self.awaited.iter().copied().filter(untold).collect();
        self.told.extend(&untold);
        untold
    }

    fn is_over(&self, links: &Links, now: Duration) -> bool {
        let has_told = |node: &NodeId| self.heard.get(node) == Some(&EVERY_LANE);
        let is_known = self.unanswered.is_empty()
            && self.awaited.iter().all(|node| has_told(node) || !links.hears(*node));
        is_known || now >= self.opened + ADMISSION_DEADLINE
    }

    /// Nodes that were to say that they know of the session, and have not on every lane.
    fn not_heard<'a>(&'a self, links: &'a Links) -> impl Iterator<Item = (NodeId, u8)> + 'a {
        let known = links.known().filter(|node| self.awaited.contains(node));
        let heard = known.map(|node| (node, self.heard.get(&node).copied().unwrap_or_default()));
        heard.filter(|(_, heard)| *heard != EVERY_LANE)
    }
}

/// To whom there is a link.
#[derive(Debug)]
struct Links {
    me: NodeId,
    region: String,
    peers: BTreeMap<NodeId, Link>,
    /// Nodes that there are, as gossip has it.
    listed: BTreeSet<NodeId>,
}

#[derive(Debug)]
struct Link {
    region: String,
    is_suspect: bool,
}

impl Links {
    /// Whether what is sent to the node gets there, perhaps.
    fn has(&self, node: NodeId) -> bool {
        node == self.me || self.peers.contains_key(&node)
    }

    /// Whether the node is worth waiting for.
    fn hears(&self, node: NodeId) -> bool {
        node == self.me || self.peers.get(&node).is_some_and(|link| !link.is_suspect)
    }

    /// The region of this node, or of one that there is a link to.
    fn region_of(&self, node: NodeId) -> Option<&str> {
        if node == self.me {
            return Some(&self.region);
        }
        self.peers.get(&node).map(|link| link.region.as_str())
    }

    /// All other nodes, each once.
    fn known(&self) -> impl Iterator<Item = NodeId> + '_ {
        let unlinked = self.listed.iter().filter(|node| !self.has(**node));
        self.peers.keys().chain(unlinked).copied()
    }

    /// This node and all that it has links to.
    fn all(&self) -> impl Iterator<Item = NodeId> + '_ {
        [self.me].into_iter().chain(self.peers.keys().copied())
    }
}

fn publish(to: NodeId, agent: &AgentId, session: SessionId, arrival: bool) -> Action {
    Action::Send { to, frame: Control::Publish { agent: agent.clone(), session, arrival } }
}

#[cfg(test)]
mod tests;
