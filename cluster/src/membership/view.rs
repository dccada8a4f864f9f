//! The members as one node sees them: a pure function of what gossip and the links told, and when.
//!
//! Whether a node is there at all, gossip decides, so that all nodes agree on who owns what; how well
//! *this* node reaches it, its link decides. Of a node only the highest generation counts, wherever it
//! was heard of first. Reads no clock, sends nothing, logs nothing: changes are returned.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::Duration,
};

use super::{Load, Member, MemberState};
use crate::{
    Generation, Incarnation, NodeId,
    link::{Down, Introduction, Reason, Refusal},
};

/// A node that gossip has told of but never found alive for so long is dead: others still pass on
/// what they remember of it. A living one is found alive by its second heartbeat, after 0.6 s or so.
const NEWCOMER_PATIENCE: Duration = Duration::from_secs(2);

/// A member that gossip found alive so long ago should have been linked by now.
const LINKING_PATIENCE: Duration = Duration::from_secs(2);

/// Gossip is looked at every 100 ms. After such a gap this node itself stood still...
const STALLED_AFTER: Duration = Duration::from_secs(1);

/// ...and does not believe in deaths for so long: it has to hear first what came meanwhile.
const STALL_GRACE: Duration = Duration::from_millis(1_500);

/// What a node says of itself by gossip.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Says {
    /// It serves.
    Alive,
    /// It stops soon.
    Leaving,
    /// It has stopped.
    Left,
}

/// What gossip has heard of one life of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heard {
    /// Which node, and which of its lives.
    pub incarnation: Incarnation,
    /// What its operator calls it.
    pub name: String,
    /// Where it is.
    pub region: String,
    /// Its release.
    pub version: String,
    /// Where its mesh port is reached.
    pub address: SocketAddr,
    /// What it says of itself.
    pub says: Says,
    /// How much it carries.
    pub load: Load,
    /// Whether its heartbeats come.
    pub live: bool,
}

/// What a view learns from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// All that gossip knows now.
    Gossip(Vec<Heard>),
    /// A link is there.
    LinkUp(Introduction),
    /// A link is gone.
    LinkDown(Incarnation, Down),
    /// A link has not answered for [`SUSPECT_AFTER`](super::SUSPECT_AFTER) (`true`), or has again.
    LinkSilent(Incarnation, bool),
    /// The peer said on its link that it stops soon.
    Leaving(Incarnation),
    /// A process with this node's id, and of this generation, was started after this one.
    Outlived(Generation),
    /// What this node says of itself from now on.
    Own(Says),
    /// How much this node carries.
    OwnLoad(Load),
    /// Time passed.
    Tick,
}

/// What became different, for the log and the counters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A member is new, or its state changed.
    State {
        /// Which member.
        member: Incarnation,
        /// Its name.
        name: String,
        /// How it was; none for a new one.
        was: Option<MemberState>,
        /// How it is.
        now: MemberState,
    },
    /// A member was replaced by a newer life of the same node.
    Restarted {
        /// The life that is over.
        member: Incarnation,
        /// Its name.
        name: String,
    },
    /// A member that was dead or had left for long is no longer remembered.
    Forgotten {
        /// Which member.
        member: Incarnation,
        /// Its name.
        name: String,
    },
    /// Two nodes that are both there use one name.
    NameConflict {
        /// The name.
        name: String,
        /// The node with the lower id.
        one: NodeId,
        /// The node with the higher id.
        other: NodeId,
    },
    /// A process with this node's id was started after this one: its data directory was copied, or runs
    /// twice.
    OwnIdTaken {
        /// The other's generation.
        generation: Generation,
    },
    /// A node that is there tells others to reach it where this one is reached.
    OwnAddressTaken {
        /// Its name.
        name: String,
        /// The address.
        address: SocketAddr,
    },
}

/// The members as this node sees them.
#[derive(Debug)]
pub struct View {
    own: Member,
    says: Says,
    peers: BTreeMap<NodeId, Peer>,
    members: Vec<Member>,
    conflicts: BTreeSet<(NodeId, NodeId)>,
    own_id_taken: Option<Generation>,
    own_address_taken: BTreeSet<NodeId>,
    looked_at: Option<Duration>,
    stalled_until: Duration,
}

/// What is known of the highest generation of a node.
#[derive(Debug)]
struct Peer {
    generation: Generation,
    heard: Option<Heard>,
    heard_since: Duration,
    live_since: Option<Duration>,
    link: Link,
    leaving: bool,
    goodbye: bool,
}

/// The link to a peer.
#[derive(Debug, PartialEq, Eq)]
enum Link {
    Never,
    Up { introduction: Introduction, silent: bool },
    Lost,
}

impl View {
    /// The view of a node that knows only itself.
    pub fn new(own: Introduction) -> Self {
        let own = Member {
            incarnation: own.incarnation,
            name: own.name,
            region: own.region,
            version: own.version,
            address: own.address,
            state: MemberState::Alive,
            load: Load::default(),
        };
        Self {
            members: vec![own.clone()],
            own,
            says: Says::Alive,
            peers: BTreeMap::new(),
            conflicts: BTreeSet::new(),
            own_id_taken: None,
            own_address_taken: BTreeSet::new(),
            looked_at: None,
            stalled_until: Duration::ZERO,
        }
    }

    /// Takes in what happened, and returns what became different by it and by the time.
    pub fn apply(&mut self, event: Event, now: Duration) -> Vec<Change> {
        let mut changes = Vec::new();
        match event {
            Event::Gossip(all) => self.gossip(all, now, &mut changes),
            Event::LinkUp(introduction) => {
                if let Some(peer) = self.peer_mut(introduction.incarnation) {
                    peer.goodbye = false;
                    peer.link = Link::Up { introduction, silent: false };
                }
            }
            Event::LinkDown(incarnation, why) => {
                if let Some(peer) = self.peer_mut(incarnation) {
                    peer.goodbye |= why == Down::Left;
                    peer.link = Link::Lost;
                }
            }
            Event::LinkSilent(incarnation, is_silent) => {
                if let Some(Peer { link: Link::Up { silent, .. }, .. }) = self.peer_mut(incarnation)
                {
                    *silent = is_silent;
                }
            }
            Event::Leaving(incarnation) => {
                if let Some(peer) = self.peer_mut(incarnation) {
                    peer.leaving = true;
                }
            }
            Event::Outlived(by) => changes.extend(self.own_id_taken(by)),
            Event::Own(says) => {
                self.says = says;
                self.own.state = says.into();
            }
            Event::OwnLoad(load) => self.own.load = load,
            Event::Tick => {}
        }
        self.refresh(now, &mut changes);
        changes
    }

    /// The members, by node id: the highest generation of each, this node among them.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// This node.
    pub fn own(&self) -> &Member {
        &self.own
    }

    /// What this node says of itself.
    pub fn says(&self) -> Says {
        self.says
    }

    /// The member that is a life of `node`.
    pub fn member(&self, node: NodeId) -> Option<&Member> {
        let at = self.members.binary_search_by_key(&node, Member::node).ok()?;
        self.members.get(at)
    }

    /// The peers that there is a link to, as they introduced themselves.
    pub fn linked(&self) -> impl Iterator<Item = &Introduction> {
        self.peers.values().filter_map(|peer| peer.link.introduction())
    }

    /// Where a linked peer is reached.
    pub fn address_of(&self, peer: Incarnation) -> Option<SocketAddr> {
        let introduction = self.peers.get(&peer.node)?.link.introduction()?;
        (introduction.incarnation == peer).then_some(introduction.address)
    }

    /// Whether there is a link to the node.
    pub fn is_linked(&self, node: NodeId) -> bool {
        self.peers.get(&node).is_some_and(|peer| peer.link.introduction().is_some())
    }

    /// Whether the node is there: linked, or a member that is neither dead nor has left.
    pub fn is_present(&self, node: NodeId) -> bool {
        self.is_linked(node) || self.member(node).is_some_and(|member| member.state.lives())
    }

    /// What gossip knows of other nodes' present lives, whether they are members yet or not.
    pub fn known(&self) -> impl Iterator<Item = &Heard> {
        self.peers.values().filter_map(|peer| peer.heard.as_ref())
    }

    /// Whether gossip has told of a node and cannot say yet whether it lives.
    pub fn awaits_news(&self) -> bool {
        self.known().any(|heard| self.member(heard.incarnation.node).is_none())
    }

    /// Whether a peer may be linked, which is not this node itself. The reason is for both operators to
    /// read.
    pub fn admit(&self, peer: &Introduction) -> Result<(), Refusal> {
        let Incarnation { node, generation } = peer.incarnation;
        if let Some(known) = self.peers.get(&node).filter(|known| known.generation > generation) {
            let text = format!(
                "node {node} was started again since: generation {generation} is older than {}",
                known.generation
            );
            return Err(Refusal::new(Reason::Generation, text));
        }
        match self.holder_of(&peer.name, node) {
            Some(holder) => {
                let text = format!(
                    "the node name {} is in use by node {holder}: give node {node} another NODE_NAME",
                    peer.name
                );
                Err(Refusal::new(Reason::Name, text))
            }
            None => Ok(()),
        }
    }

    /// Another node than `except` that is there and has the name.
    fn holder_of(&self, name: &str, except: NodeId) -> Option<NodeId> {
        let by_gossip = self.members.iter().filter(|member| member.state.lives());
        let by_gossip = by_gossip.map(|member| (member.node(), &member.name));
        let by_link = self.linked().map(|peer| (peer.incarnation.node, &peer.name));
        by_gossip
            .chain(by_link)
            .find(|(node, its)| *node != except && *its == name)
            .map(|(node, _)| node)
    }

    /// What is known of this life of a node; none if a newer one is known, or if it is this node.
    fn peer_mut(&mut self, incarnation: Incarnation) -> Option<&mut Peer> {
        if incarnation.node == self.own.node() {
            return None;
        }
        let fresh = || Peer::new(incarnation.generation);
        let peer = self.peers.entry(incarnation.node).or_insert_with(fresh);
        if peer.generation < incarnation.generation {
            *peer = fresh();
        }
        (peer.generation == incarnation.generation).then_some(peer)
    }

    fn gossip(&mut self, all: Vec<Heard>, now: Duration, changes: &mut Vec<Change>) {
        if self.looked_at.is_some_and(|before| now.saturating_sub(before) > STALLED_AFTER) {
            self.stalled_until = now + STALL_GRACE;
        }
        self.looked_at = Some(now);
        let stalled = now < self.stalled_until;
        let mut told = BTreeSet::new();
        for heard in all {
            if heard.incarnation.node == self.own.node() {
                if heard.incarnation > self.own.incarnation {
                    changes.extend(self.own_id_taken(heard.incarnation.generation));
                }
            } else if let Some(peer) = self.peer_mut(heard.incarnation) {
                told.insert(heard.incarnation.node);
                peer.hear(heard, stalled, now);
            }
        }
        for (node, peer) in &mut self.peers {
            if !told.contains(node) {
                peer.heard = None;
            }
        }
        self.peers.retain(|_, peer| peer.heard.is_some() || peer.link.introduction().is_some());
    }

    /// Tells once of each life of another process with this node's id that is newer than this one.
    fn own_id_taken(&mut self, by: Generation) -> Option<Change> {
        let is_news = self.own_id_taken < Some(by);
        self.own_id_taken = self.own_id_taken.max(Some(by));
        is_news.then_some(Change::OwnIdTaken { generation: by })
    }

    /// Makes the list of members anew, and tells what is different in it.
    fn refresh(&mut self, now: Duration, changes: &mut Vec<Change>) {
        let mut members: Vec<Member> =
            self.peers.values().filter_map(|peer| peer.member(now)).collect();
        members.push(self.own.clone());
        members.sort_unstable_by_key(Member::node);
        let before = std::mem::replace(&mut self.members, members);
        changes.extend(before.iter().filter_map(|old| self.lost(old)));
        changes.extend(self.members.iter().filter_map(|new| changed(&before, new)));
        self.find_conflicts(changes);
        self.find_own_address(changes);
    }

    /// What happened to a member of before, if it is none any more.
    fn lost(&self, old: &Member) -> Option<Change> {
        let (member, name) = (old.incarnation, old.name.clone());
        if self.member(member.node).is_some_and(|new| new.incarnation == member) {
            return None;
        }
        Some(if self.peers.get(&member.node).is_some_and(|p| p.generation > member.generation) {
            Change::Restarted { member, name }
        } else {
            Change::Forgotten { member, name }
        })
    }

    /// Tells once of each node that has this one's address: nobody could dial both.
    fn find_own_address(&mut self, changes: &mut Vec<Change>) {
        let others = self.members.iter().filter(|member| {
            member.node() != self.own.node()
                && member.address == self.own.address
                && member.state.lives()
        });
        let mut taken = BTreeSet::new();
        for other in others {
            taken.insert(other.node());
            if !self.own_address_taken.contains(&other.node()) {
                let (name, address) = (other.name.clone(), other.address);
                changes.push(Change::OwnAddressTaken { name, address });
            }
        }
        self.own_address_taken = taken;
    }

    fn find_conflicts(&mut self, changes: &mut Vec<Change>) {
        let mut holders = BTreeMap::<&str, NodeId>::new();
        let mut conflicts = BTreeSet::new();
        for member in self.members.iter().filter(|member| member.state.lives()) {
            let one = *holders.entry(&member.name).or_insert(member.node());
            let other = member.node();
            if one == other {
                continue;
            }
            conflicts.insert((one, other));
            if !self.conflicts.contains(&(one, other)) {
                changes.push(Change::NameConflict { name: member.name.clone(), one, other });
            }
        }
        self.conflicts = conflicts;
    }
}

/// The change to `new` since `before`, if any.
fn changed(before: &[Member], new: &Member) -> Option<Change> {
    let old = before.iter().find(|old| old.incarnation == new.incarnation);
    let was = old.map(|old| old.state);
    (was != Some(new.state)).then(|| Change::State {
        member: new.incarnation,
        name: new.name.clone(),
        was,
        now: new.state,
    })
}

impl Peer {
    fn new(generation: Generation) -> Self {
        Self {
            generation,
            heard: None,
            heard_since: Duration::ZERO,
            live_since: None,
            link: Link::Never,
            leaving: false,
            goodbye: false,
        }
    }

    fn hear(&mut self, mut heard: Heard, stalled: bool, now: Duration) {
        match &self.heard {
            None => self.heard_since = now,
            Some(before) => heard.live |= stalled && before.live,
        }
        if heard.live {
            self.live_since.get_or_insert(now);
        }
        self.heard = Some(heard);
    }

    fn member(&self, now: Duration) -> Option<Member> {
        let heard = self.heard.as_ref()?;
        let state = self.state(heard, now)?;
        Some(Member {
            incarnation: heard.incarnation,
            name: heard.name.clone(),
            region: heard.region.clone(),
            version: heard.version.clone(),
            address: heard.address,
            state,
            // What it said last is no figure of now once it is gone.
            load: if state.lives() { heard.load } else { Load::default() },
        })
    }

    /// How the node is; none while nobody can know.
    fn state(&self, heard: &Heard, now: Duration) -> Option<MemberState> {
        if self.goodbye || heard.says == Says::Left {
            return Some(MemberState::Left);
        }
        if !heard.live {
            let expected = now < self.heard_since + NEWCOMER_PATIENCE;
            return (self.live_since.is_some() || !expected).then_some(MemberState::Dead);
        }
        if self.leaving || heard.says == Says::Leaving {
            return Some(MemberState::Leaving);
        }
        let reached = match (&self.link, self.live_since) {
            (Link::Up { silent, .. }, _) => !silent,
            (Link::Never, Some(since)) => now < since + LINKING_PATIENCE,
            (Link::Never, None) | (Link::Lost, _) => false,
        };
        Some(if reached { MemberState::Alive } else { MemberState::Suspect })
    }
}

impl Link {
    fn introduction(&self) -> Option<&Introduction> {
        match self {
            Self::Up { introduction, .. } => Some(introduction),
            Self::Never | Self::Lost => None,
        }
    }
}

impl From<Says> for MemberState {
    fn from(says: Says) -> Self {
        match says {
            Says::Alive => Self::Alive,
            Says::Leaving => Self::Leaving,
            Says::Left => Self::Left,
        }
    }
}

#[cfg(test)]
#[path = "view_tests.rs"]
mod tests;
