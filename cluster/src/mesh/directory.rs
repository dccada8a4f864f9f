//! The owner's side: the presence records that the rings give to this node, and who watches them.
//!
//! Soft state: it is rebuilt from what the homes publish, and what they do not renew ends. Every
//! rule is here for one end: a record names the agent's newest session, or says that it cannot know.
//! Knows nothing of sessions, sockets or messages.

mod sweep;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    ops::Bound,
    time::Duration,
};

use self::sweep::Sweep;
use super::{Home, action::Action, near::NearRings, ring::Rings, route::RingView};
use crate::{
    AgentId, Generation, Incarnation, NodeId, SessionId,
    membership::Member,
    wire::{Control, Located, Published},
};

/// How long a record lives that its home does not renew; homes do every 30 s.
pub const LEASE: Duration = Duration::from_secs(90);

/// In this time every record is looked at once, a few at each tick, whether it must end.
const ROUND: Duration = Duration::from_secs(10);

/// Whoever has been told something has heard it within this time, or lost its link.
const HEARD_WITHIN: Duration = Duration::from_secs(10);

/// The records, and what is known of those who publish them.
///
/// A record takes 130 to 175 bytes, its agent's name and all of the map included, and some 50 more once
/// it is watched: at most 2 MB for the 10,000 of an owner among 100 nodes with a million agents, 220 MB
/// for a lone owner of all of them.
#[derive(Debug)]
pub struct Directory {
    me: NodeId,
    region: String,
    rings: Rings,
    near: NearRings,
    records: BTreeMap<AgentId, Record>,
    /// Agents that have left of late, with those who were told; and the order in which they left.
    departed: BTreeMap<AgentId, Departed>,
    departures: VecDeque<(u64, AgentId)>,
    peers: BTreeMap<NodeId, Peer>,
    /// How many lives of nodes were met.
    met: u32,
    sweep: Sweep,
    /// Up to where this round has looked, and when it last did.
    looked_at: Option<AgentId>,
    looked: Duration,
}

#[derive(Debug)]
struct Record {
    /// Its node is the agent's home.
    session: SessionId,
    /// In milliseconds.
    renewed: u64,
    /// The number of this region's ring under which the record was made or renewed: if another node has
    /// owned the agent since, it may have moved without this node being told.
    under: u32,
    /// Which of the lives met the home's was then: a record of any other is as good as none.
    met: u32,
    /// Whether others told of the session, and not its home.
    is_hearsay: bool,
    /// Who was told where the agent is, and is to be told when that changes.
    watchers: Box<[NodeId]>,
}

/// A record that ended: whoever watched it is told, but may not have heard yet.
#[derive(Debug)]
struct Departed {
    home: NodeId,
    at: u64,
    watchers: Box<[NodeId]>,
}

/// A node that may have published something: a live member, or one with a link, or both. This node
/// is its own peer, always linked.
#[derive(Debug)]
struct Peer {
    generation: Generation,
    /// Which of the lives met this is: records of the node are of it.
    met: u32,
    is_member: bool,
    link: Option<Link>,
}

/// Since when there is a link, and what its node has said on it.
#[derive(Debug)]
struct Link {
    up: Duration,
    /// The last version of this region's ring under which it has told all.
    synced: Option<u64>,
    /// Whether records of what it had before this link, and has not told of on it, were ended.
    is_swept: bool,
    /// Nothing was heard on it for a while: what its node has told since has not come.
    is_silent: bool,
}

/// For metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts {
    /// Presence records; those of a node that is no more are counted until they are looked at.
    pub records: usize,
    /// Nodes that have not told all yet that this owner must know under the present ring.
    pub awaited: usize,
}

impl Directory {
    /// An owner that knows of nobody but itself.
    pub fn new(home: &Home) -> Self {
        let Incarnation { node, generation } = home.me;
        let link =
            Some(Link { up: Duration::ZERO, synced: None, is_swept: true, is_silent: false });
        Self {
            me: node,
            region: home.region.clone(),
            rings: Rings::default(),
            near: NearRings::new(&home.region),
            records: BTreeMap::new(),
            departed: BTreeMap::new(),
            departures: VecDeque::new(),
            peers: BTreeMap::from([(node, Peer { generation, met: 0, is_member: true, link })]),
            met: 0,
            sweep: Sweep::default(),
            looked_at: None,
            looked: Duration::ZERO,
        }
    }

    /// The members as they are now, and the rings over them. Records of a node that is neither a live
    /// member nor linked end.
    pub fn members(&mut self, members: &[Member], rings: Rings) {
        self.change_rings(rings);
        let alive: BTreeMap<NodeId, Generation> = members
            .iter()
            .filter(|member| member.state.lives())
            .map(|member| (member.node(), member.incarnation.generation))
            .collect();
        for (node, generation) in &alive {
            self.meet(Incarnation { node: *node, generation: *generation });
        }
        for (node, peer) in &mut self.peers {
            peer.is_member = *node == self.me || alive.contains_key(node);
        }
        self.forget_the_gone();
    }

    /// A record outlives the ownership, for those who ask the former owner. If the agent is owned here
    /// again, the record is in doubt until its home tells anew: the agent may have moved meanwhile, but
    /// a home that has not seen the rings change and change back tells only in its turn. That is found
    /// out when the record is asked for; there may be a million of them.
    fn change_rings(&mut self, rings: Rings) {
        self.near = self.near.followed_by(&rings);
        if rings.version_of(&self.region) != self.rings.version_of(&self.region) {
            // Whoever was swept is due again once it has told all under this one.
            self.sweep = Sweep::default();
        }
        self.rings = rings;
    }

    /// A link to the node is there: what comes from it from now on comes on this one. It will tell
    /// all, then say [`synced`](Self::synced).
    pub fn link_up(&mut self, peer: Incarnation, now: Duration) {
        let node = peer.node;
        if let Some(peer) = self.meet(peer) {
            peer.link = Some(Link { up: now, synced: None, is_swept: false, is_silent: false });
        }
        self.sweep.leave_out(node);
    }

    /// The link is gone: what the node says does not come any more.
    pub fn link_down(&mut self, peer: Incarnation) {
        let known = self.peers.get_mut(&peer.node);
        if let Some(known) = known.filter(|known| known.generation == peer.generation) {
            known.link = None;
        }
        self.forget_the_gone();
    }

    /// Nothing was heard on the link for a while, or something was again.
    pub fn link_suspect(&mut self, peer: NodeId, is_silent: bool) {
        if let Some(link) = self.peers.get_mut(&peer).and_then(|peer| peer.link.as_mut()) {
            link.is_silent = is_silent;
        }
    }

    /// A home says that it has the agent's session. The last action is the answer to it.
    pub fn publish(
        &mut self,
        from: NodeId,
        agent: &AgentId,
        session: SessionId,
        arrival: bool,
        now: Duration,
    ) -> Vec<Action> {
        if session.node != from || !self.is_linked(from) {
            return Vec::new();
        }
        let known = self.record(agent.as_str()).map(|record| record.session);
        if let Some(newer) = known.filter(|known| *known > session) {
            // The home takes the answer for this owner's word.
            self.watch(agent.as_str(), from);
            return vec![published(agent, session, Published::Outdone(newer))];
        }
        let notified = self.to_notify(agent, session, arrival);
        self.departed.remove(agent);
        self.enter(agent, session, false, now);
        // Whoever was told takes this owner's word for it that nothing has changed since.
        let reached = self.reached(&notified);
        for node in &reached {
            self.watch(agent.as_str(), *node);
        }
        let mut actions = moved(agent, &reached, known, Some(session));
        actions.push(published(agent, session, Published::Accepted { notified }));
        actions
    }

    /// Who must hear of a session before it may greet its agent: all that may still send to an older
    /// one, or hold it, or answer for this owner. Those that this owner does not reach are for the
    /// home to tell.
    fn to_notify(&self, agent: &AgentId, session: SessionId, arrival: bool) -> Vec<NodeId> {
        let home = session.node;
        let mut nodes = BTreeSet::new();
        if arrival && !self.is_settled(agent.as_str()) {
            // Others may know more of the agent than this owner, and may be asked in its place.
            nodes.extend(self.peers.keys());
        }
        // Whoever knows the node knows enough, unless the home has not waited for them yet: they were
        // told on the word of others.
        let is_news = |record: &&Record| record.session.node != home || record.is_hearsay;
        if let Some(record) = self.record(agent.as_str()).filter(is_news) {
            nodes.extend(record.watchers.iter().chain([&record.session.node]));
        }
        let departed = self.departed.get(agent);
        if let Some(departed) = departed.filter(|departed| arrival && departed.home != home) {
            nodes.extend(&departed.watchers);
        }
        nodes.remove(&home);
        nodes.into_iter().collect()
    }

    fn reached(&self, nodes: &[NodeId]) -> Vec<NodeId> {
        nodes.iter().copied().filter(|node| self.is_linked(*node)).collect()
    }

    /// A home says that a session is no more. Changes nothing if the record is of another one.
    pub fn withdraw(&mut self, agent: &AgentId, session: SessionId) -> Vec<Action> {
        if self.record(agent.as_str()).is_none_or(|record| record.session != session) {
            return Vec::new();
        }
        if self.is_settled(agent.as_str()) {
            return self.end(agent);
        }
        // Whoever was told of it when it came: see `to_notify`.
        self.records.remove(agent);
        let all: Vec<NodeId> = self.peers.keys().copied().collect();
        moved(agent, &self.reached(&all), Some(session), None)
    }

    /// Another owner, or the home in an owner's stead, says that the agent has this session, or has
    /// it no more. Who has not seen the rings change yet answers for agents that others publish
    /// elsewhere already.
    pub fn moved(
        &mut self,
        agent: &AgentId,
        was: Option<SessionId>,
        is: Option<SessionId>,
        now: Duration,
    ) -> Vec<Action> {
        let known = self.record(agent.as_str()).map(|record| record.session);
        match is {
            None if known.is_some() && known == was => self.end(agent),
            Some(session) if known < Some(session) && self.may_learn(agent, session, known) => {
                let notified = self.to_notify(agent, session, false);
                let notified = self.reached(&notified);
                self.enter(agent, session, true, now);
                for node in &notified {
                    self.watch(agent.as_str(), *node);
                }
                moved(agent, &notified, known, Some(session))
            }
            _ => Vec::new(),
        }
    }

    /// Another's agent is of no concern here, unless there is a record that it proves wrong.
    fn may_learn(&self, agent: &AgentId, session: SessionId, known: Option<SessionId>) -> bool {
        let is_mine = self.rings.owner(&self.region, agent.as_str()) == Some(self.me);
        (is_mine || known.is_some()) && self.peers.contains_key(&session.node)
    }

    /// Where the agent is. Who is told becomes a watcher, unless only what is sure is asked for.
    pub fn lookup(&mut self, asker: NodeId, agent: &str, home_only: bool) -> Located {
        if !home_only && self.is_linked(asker) {
            self.watch(agent, asker);
        }
        let is_mine = self.rings.owner(&self.region, agent) == Some(self.me);
        if let Some(record) = self.record(agent) {
            let is_certain = self.near.has_owned_since(record.under, self.me, agent);
            return match (is_mine && !is_certain, home_only) {
                (false, _) => Located::At(record.session),
                (true, false) => Located::Unsettled,
                (true, true) => Located::Nobody,
            };
        }
        if home_only || self.is_settled(agent) { Located::Nobody } else { Located::Unsettled }
    }

    /// Whether the want of a record means that the agent has no session: it is this node's to know,
    /// and every node that may hold a session has told all under the very ring that says so, and is
    /// heard of still.
    pub fn is_settled(&self, agent: &str) -> bool {
        self.rings.owner(&self.region, agent) == Some(self.me) && self.awaited().next().is_none()
    }

    /// Who has not told all yet, or may have something to tell that does not come.
    fn awaited(&self) -> impl Iterator<Item = NodeId> + '_ {
        let present = Some(self.rings.version_of(&self.region));
        let told_all = move |peer: &Peer| {
            peer.link.as_ref().is_some_and(|link| link.synced == present && !link.is_silent)
        };
        self.peers.iter().filter(move |(_, peer)| !told_all(peer)).map(|(node, _)| *node)
    }

    /// The node has told of all its sessions that this one owns under `ring`. The first time on a link
    /// this also says that those it has not told of are no more.
    pub fn synced(&mut self, from: NodeId, ring: u64) -> Vec<Action> {
        let Some(link) = self.peers.get_mut(&from).and_then(|peer| peer.link.as_mut()) else {
            return Vec::new();
        };
        link.synced = Some(ring);
        self.go_on_sweeping()
    }

    /// Time passes: leases end, and so do records that this node owned under a former ring.
    pub fn tick(&mut self, now: Duration) -> Vec<Action> {
        let passed = now.saturating_sub(std::mem::replace(&mut self.looked, now)).min(ROUND);
        let part = self.records.len() as u128 * passed.as_millis() / ROUND.as_millis();
        let few = usize::try_from(part).unwrap_or(usize::MAX).saturating_add(1);
        let from = self.looked_at.take().map_or(Bound::Unbounded, Bound::Excluded);
        self.forget_departed(now);
        let mut actions = self.go_on_sweeping();
        let mut expired = Vec::new();
        let mut forgotten = Vec::new();
        for (agent, record) in self.records.range((from, Bound::Unbounded)).take(few) {
            if !self.is_valid(record) {
                forgotten.push(agent.clone());
            } else if record.renewed + millis(LEASE) <= millis(now) {
                expired.push(agent.clone());
            } else if self.is_foreign(agent.as_str(), record, now) {
                forgotten.push(agent.clone());
            }
            self.looked_at = Some(agent.clone());
        }
        for agent in &forgotten {
            self.records.remove(agent);
        }
        actions.extend(expired.iter().flat_map(|agent| self.end(agent)));
        actions
    }

    /// Whether another node owns the record for so long that all look there, and its home has told
    /// that node. Its watchers ask there on their own.
    fn is_foreign(&self, agent: &str, record: &Record, now: Duration) -> bool {
        let home = self.peers.get(&record.session.node).and_then(|peer| peer.link.as_ref());
        let present = self.rings.version_of(&self.region);
        !self.rings.is_settling(now)
            && self.rings.owner(&self.region, agent) != Some(self.me)
            && home.is_none_or(|link| link.synced == Some(present))
    }

    /// How much there is.
    pub fn counts(&self) -> Counts {
        Counts { records: self.records.len(), awaited: self.awaited().count() }
    }

    /// The agent's record.
    fn record(&self, agent: &str) -> Option<&Record> {
        self.records.get(agent).filter(|record| self.is_valid(record))
    }

    /// Whether the home is known still, and in the life that the record is of. Who watches a record of
    /// one that is not has lost, or loses, its link to that node too.
    fn is_valid(&self, record: &Record) -> bool {
        self.peers.get(&record.session.node).is_some_and(|home| home.met == record.met)
    }

    /// Makes or renews a record. Watchers stay.
    fn enter(&mut self, agent: &AgentId, session: SessionId, is_hearsay: bool, now: Duration) {
        let met = self.peers.get(&session.node).map_or(0, |home| home.met);
        let (renewed, under) = (millis(now), self.near.number());
        let record = Record { session, renewed, under, met, is_hearsay, watchers: Box::default() };
        let former = self.records.insert(agent.clone(), record);
        let former = former.filter(|former| self.is_valid(former));
        if let (Some(former), Some(record)) = (former, self.records.get_mut(agent)) {
            record.watchers = former.watchers;
        }
    }

    /// From now on the node is told when the agent moves.
    fn watch(&mut self, agent: &str, node: NodeId) {
        if let Some(record) = self.records.get_mut(agent)
            && !record.watchers.contains(&node)
        {
            let watchers = std::mem::take(&mut record.watchers);
            record.watchers = watchers.into_iter().chain([node]).collect();
        }
    }

    /// Removes a record and tells its watchers.
    fn end(&mut self, agent: &AgentId) -> Vec<Action> {
        let Some(record) = self.records.remove(agent) else { return Vec::new() };
        self.departs(agent, &record);
        let watchers = self.reached(&record.watchers);
        moved(agent, &watchers, Some(record.session), None)
    }

    /// Who watches the record hears of its end, but until it does it may send to the former home.
    fn departs(&mut self, agent: &AgentId, record: &Record) {
        if !record.watchers.is_empty() {
            let (home, at) = (record.session.node, millis(self.looked));
            let watchers = record.watchers.clone();
            self.departed.insert(agent.clone(), Departed { home, at, watchers });
            self.departures.push_back((at, agent.clone()));
        }
    }

    /// Forgets who left long ago.
    fn forget_departed(&mut self, now: Duration) {
        let due = |(at, _): &(u64, AgentId)| at + millis(HEARD_WITHIN) < millis(now);
        while let Some((at, agent)) = self.departures.pop_front_if(|departure| due(departure)) {
            if self.departed.get(&agent).is_some_and(|departed| departed.at == at) {
                self.departed.remove(&agent);
            }
        }
    }

    fn is_linked(&self, node: NodeId) -> bool {
        self.peers.get(&node).is_some_and(|peer| peer.link.is_some())
    }

    /// The peer in this life of it; none if a newer one is known. Records of an older one are none.
    fn meet(&mut self, Incarnation { node, generation }: Incarnation) -> Option<&mut Peer> {
        let known = self.peers.get(&node);
        if known.is_none_or(|known| known.generation < generation) {
            let is_member = known.is_some_and(|known| known.is_member);
            self.met += 1;
            self.peers.insert(node, Peer { generation, met: self.met, is_member, link: None });
        }
        self.peers.get_mut(&node).filter(|peer| peer.generation == generation)
    }

    /// Forgets nodes that neither gossip nor a link knows; so their records are none.
    fn forget_the_gone(&mut self) {
        self.peers.retain(|_, peer| peer.is_member || peer.link.is_some());
    }
}

fn published(agent: &AgentId, session: SessionId, outcome: Published) -> Action {
    let frame = Control::Published { agent: agent.clone(), session, outcome };
    Action::Send { to: session.node, frame }
}

fn moved(
    agent: &AgentId,
    to: &[NodeId],
    was: Option<SessionId>,
    now: Option<SessionId>,
) -> Vec<Action> {
    let frame = || Control::Moved { agent: agent.clone(), was, now };
    to.iter().map(|to| Action::Send { to: *to, frame: frame() }).collect()
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
