//! Who follows whom.
//!
//! Subscriptions belong to the agent, not to its connection: they last until they are taken back,
//! or for a time after the agent left (PROTOCOL section 3). In a cluster every node keeps all of
//! them. Notes whose lists have changed, so that they can be saved and told to the other nodes, and
//! does neither itself. Pure: time is an argument, and is mesh time wherever there is a mesh.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    mem,
    time::Duration,
};

use cluster::{
    AgentId, Incarnation, UnixMillis,
    subscription_store::{self, List, Version},
};

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a failed unwrap is a failed test
mod convergence_tests;
mod lately;
mod record;
mod records;
mod replication;
mod untold;

use lately::Lately;
pub use lately::{Wish, Wishes};
use record::{Following, Verdict};
pub use record::{Record, Stay};
use records::Records;
pub use replication::{
    Change, FollowerStay, NEWS_BYTES_MAX, NotUnderstood, Rest, SubscriptionNews, TOLD_BYTES_MAX,
    TURN_BYTES_MAX,
};
use untold::Untold;

/// How many agents one agent may follow (PROTOCOL section 6).
pub const PER_AGENT_MAX: usize = 1_000;

/// How many subscriptions a node makes in all: some 200 bytes each, so 200 MB.
pub const TOTAL_MAX: usize = 1_000_000;

/// How many it keeps with those that other nodes made meanwhile, or while they were cut off.
const KEPT_MAX: usize = 2 * TOTAL_MAX;

/// All subscriptions, as one node knows them.
#[derive(Debug, Default)]
pub struct Subscriptions {
    me: Incarnation,
    followers: HashMap<AgentId, HashSet<AgentId>>,
    /// Beside the lists that are in force those that were emptied not long ago: at most one for
    /// each agent that was connected within the time that they are kept.
    following: Records,
    total: usize,
    /// Whose lists have changed since they were taken to be saved.
    changed: HashSet<AgentId>,
    /// Whose lists were taken, and are not known to be saved.
    taken: Vec<AgentId>,
    /// What the other nodes have not been told.
    untold: Untold,
    /// What other nodes may not know that change the same lists.
    lately: Lately,
}

/// Why a subscription was not made; none of those asked for was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TooMany {
    /// The agent would follow too many.
    #[error("an agent may follow at most {PER_AGENT_MAX} others: unsubscribe from some first")]
    OfAgent,
    /// The relay keeps no more.
    #[error("the relay keeps no more subscriptions: try again later")]
    OfRelay,
}

impl Subscriptions {
    /// What was saved in an earlier life of the node, which is now `me`. Its agents count as having
    /// left at `now`, until they connect, or another node knows better.
    pub fn restored(
        me: Incarnation,
        saved: Vec<subscription_store::Following>,
        now: UnixMillis,
    ) -> Self {
        let mut subscriptions = Self { me, ..Self::default() };
        for (follower, list) in saved {
            let agents = list.agents.into_iter().collect();
            subscriptions.set_list(&follower, &agents, list.version, now);
        }
        subscriptions.changed.clear();
        subscriptions
    }

    /// Lets `follower`, who is connected here, follow all of `agents`, and returns how many it
    /// follows now.
    pub fn subscribe(
        &mut self,
        follower: &AgentId,
        agents: &BTreeSet<AgentId>,
        now: UnixMillis,
    ) -> Result<usize, TooMany> {
        let before = self.following.get(follower).map(|f| &f.agents);
        let new = agents.iter().filter(|agent| before.is_none_or(|b| !b.contains(*agent)));
        let (known, new) = (before.map_or(0, BTreeSet::len), new.count());
        if known + new > PER_AGENT_MAX {
            return Err(TooMany::OfAgent);
        }
        if self.total + new > TOTAL_MAX {
            return Err(TooMany::OfRelay);
        }
        self.lately.ask(follower, agents, Wish { follow: true, at: self.version(now) });
        if new == 0 {
            return Ok(known);
        }
        let all = agents.iter().chain(before.into_iter().flatten()).cloned().collect();
        self.change_list(follower, &all, now);
        self.arrived(follower, now);
        Ok(known + new)
    }

    /// Ends the following of `agents`, and returns how many the follower still follows.
    pub fn unsubscribe(
        &mut self,
        follower: &AgentId,
        agents: &BTreeSet<AgentId>,
        now: UnixMillis,
    ) -> usize {
        self.lately.ask(follower, agents, Wish { follow: false, at: self.version(now) });
        let Some(following) = self.following.get(follower) else { return 0 };
        let left: BTreeSet<_> = following.agents.difference(agents).cloned().collect();
        let count = left.len();
        if count < following.agents.len() {
            self.change_list(follower, &left, now);
        }
        count
    }

    /// Whom the agent follows, in order.
    pub fn of(&self, follower: &AgentId) -> impl Iterator<Item = &AgentId> {
        self.following.get(follower).into_iter().flat_map(|f| &f.agents)
    }

    /// Who follows the agent.
    pub fn followers(&self, agent: &AgentId) -> impl Iterator<Item = &AgentId> {
        self.followers.get(agent).into_iter().flatten()
    }

    /// The agent's list as it is to be saved, which may be empty; none if it has none.
    pub fn list(&self, follower: &AgentId) -> Option<List> {
        let following = self.following.get(follower)?;
        let agents = following.agents.iter().cloned().collect();
        Some(List { agents, version: following.listed })
    }

    /// The agent is connected to this node: its subscriptions last.
    pub fn arrived(&mut self, agent: &AgentId, now: UnixMillis) {
        if self.following.get(agent).is_some_and(|f| f.stay != Stay::Home(self.me)) {
            self.change_stay(agent, Stay::Home(self.me), now);
        }
    }

    /// The agent's last session on this node ended at `now`. If it has another home by then, that
    /// is no departure.
    pub fn left(&mut self, agent: &AgentId, now: UnixMillis) {
        if self.following.get(agent).is_some_and(|f| f.stay == Stay::Home(self.me)) {
            self.change_stay(agent, Stay::Left(now), now);
        }
        self.untold.left(agent);
    }

    /// Nodes have died, or may have: the followers whose home is not `alive` count as having left
    /// at `now`. To be called whenever a node is lost, and before each [`sweep`](Self::sweep).
    pub fn homes_lost(&mut self, now: UnixMillis, alive: impl Fn(Incarnation) -> bool) {
        let me = self.me;
        let is_lost = |home: Incarnation| home != me && (home.node == me.node || !alive(home));
        // Every node sees so for itself, so it is no news; a home that lives denies it.
        self.following.change_all(
            |following| matches!(following.stay, Stay::Home(home) if is_lost(home)),
            |following| following.stay = Stay::Left(now),
        );
    }

    /// Ends the subscriptions of agents that left `ttl` ago, and forgets lists that were empty for
    /// so long. Who is `connected` to this node in truth has not left, and the reverse.
    pub fn sweep(&mut self, now: UnixMillis, ttl: Duration, connected: impl Fn(&AgentId) -> bool) {
        let (mut here, mut gone, mut over) = (Vec::new(), Vec::new(), Vec::new());
        for (follower, following) in self.following.iter() {
            let list = match following.stay {
                Stay::Home(home) if home == self.me && !connected(follower) => &mut gone,
                Stay::Left(_) if connected(follower) => &mut here,
                _ if following.is_over(now, ttl) => &mut over,
                _ => continue,
            };
            list.push(follower.clone());
        }
        for agent in here {
            self.note_presence(&agent, now);
        }
        for agent in gone {
            self.left(&agent, now);
        }
        for agent in over {
            self.forget(&agent);
        }
        self.lately.sweep(now);
    }

    /// Another node has this record. Returns whether anything has changed here.
    pub fn apply(&mut self, record: Record, now: UnixMillis, ttl: Duration) -> bool {
        let Record { follower, agents, listed, stay, stayed } = record;
        let known = self.following.get(&follower);
        let before = known.map_or(0, |following| following.agents.len());
        let room = KEPT_MAX.saturating_sub(self.total - before);
        if agents.len() > PER_AGENT_MAX.min(room) {
            return false;
        }
        if let Some(following) = known {
            let newer = following.yields_to(&agents, listed);
            if newer {
                self.set_list(&follower, &agents, listed, now);
                self.untold.outdone(&follower);
            }
            return self.apply_stay(&follower, stay, stayed, now) || newer;
        }
        let nobody = Following { agents: BTreeSet::new(), listed, stay, stayed };
        if (Following { agents: agents.clone(), ..nobody.clone() }).is_over(now, ttl) {
            return false;
        }
        self.following.insert(&follower, nobody);
        self.set_list(&follower, &agents, listed, now);
        true
    }

    /// The agents whose lists have changed since they were saved, for the caller to save what
    /// [`list`](Self::list) then says of each. Who is not reported as [`saved`](Self::saved) is
    /// among those of the next call.
    pub fn take_changed(&mut self) -> Vec<AgentId> {
        let mut changed = mem::take(&mut self.changed);
        changed.extend(mem::take(&mut self.taken));
        self.taken = changed.into_iter().collect();
        self.taken.clone()
    }

    /// What was taken last has been saved.
    pub fn saved(&mut self) {
        self.taken = Vec::new();
    }

    /// How many agents' lists are not known to be saved as they are. One that changes while it is
    /// being saved counts twice.
    pub fn unsaved(&self) -> usize {
        self.changed.len() + self.taken.len()
    }

    /// How many subscriptions there are in all.
    pub fn total(&self) -> usize {
        self.total
    }

    /// Another node says where a follower is.
    fn apply_stay(
        &mut self,
        follower: &AgentId,
        stay: Stay,
        stayed: Version,
        now: UnixMillis,
    ) -> bool {
        let Some(following) = self.following.get(follower) else { return false };
        match following.judge(stay, stayed, self.me) {
            Verdict::Keep => return false,
            Verdict::Take => {
                self.following.change(follower, |it| (it.stay, it.stayed) = (stay, stayed));
                self.untold.left(follower);
            }
            Verdict::Deny => {
                self.following.change(follower, |it| it.stayed = stayed);
                self.note_presence(follower, now);
            }
        }
        true
    }

    /// The follower is here, although others think that it has left: they may have forgotten its
    /// list already.
    fn note_presence(&mut self, follower: &AgentId, now: UnixMillis) {
        self.change_stay(follower, Stay::Home(self.me), now);
        self.untold.all_is_news(follower);
    }

    fn change_stay(&mut self, follower: &AgentId, stay: Stay, now: UnixMillis) {
        let me = self.me.node;
        let changed = self
            .following
            .change(follower, |it| (it.stay, it.stayed) = (stay, it.stayed.next(me, now)));
        if changed.is_some() {
            self.untold.stay_changed(follower);
        }
    }

    /// What the follower's list lacks of what was asked here lately, if another node's has taken its
    /// place.
    fn missed(&self, follower: &AgentId, now: UnixMillis) -> Option<Wishes> {
        self.lately.missed(follower, &self.following.get(follower)?.agents, now)
    }

    /// Another node knows of wishes that the follower's list lacks.
    fn hear(&mut self, wishes: Wishes, now: UnixMillis) {
        let follower = wishes.follower.clone();
        self.lately.hear(wishes);
        let Some(missed) = self.missed(&follower, now) else { return };
        let Some(following) = self.following.get(&follower) else { return };
        let list = missed.fulfilled_in(&following.agents);
        if list.len() <= PER_AGENT_MAX {
            self.change_list(&follower, &list, now);
            self.untold.left(&follower);
            self.untold.all_is_news(&follower);
        }
    }

    /// That of a change that is made here.
    fn version(&self, now: UnixMillis) -> Version {
        Version { time: now, node: self.me.node }
    }

    fn change_list(&mut self, follower: &AgentId, agents: &BTreeSet<AgentId>, now: UnixMillis) {
        let before = self.following.get(follower).map(|f| f.listed).unwrap_or_default();
        let former = self.set_list(follower, agents, before.next(self.me.node, now), now);
        self.untold.list_changed(follower, &former, agents);
    }

    /// Gives the follower this list, and returns its former one; if it is not known yet, as one that
    /// left at `now`, for all that is known.
    fn set_list(
        &mut self,
        follower: &AgentId,
        agents: &BTreeSet<AgentId>,
        listed: Version,
        now: UnixMillis,
    ) -> BTreeSet<AgentId> {
        if !self.following.contains_key(follower) {
            let (agents, stay, stayed) = (BTreeSet::new(), Stay::Left(now), Version::default());
            self.following.insert(follower, Following { agents, listed, stay, stayed });
        }
        let replace = |following: &mut Following| {
            following.listed = listed;
            mem::replace(&mut following.agents, agents.clone())
        };
        let before = self.following.change(follower, replace).unwrap_or_default();
        for agent in agents.difference(&before) {
            self.followers.entry(agent.clone()).or_default().insert(follower.clone());
        }
        self.total = self.total + agents.len() - before.len();
        before.difference(agents).for_each(|agent| self.unlink(follower, agent));
        self.changed.insert(follower.clone());
        before
    }

    fn forget(&mut self, follower: &AgentId) {
        let Some(following) = self.following.remove(follower) else { return };
        self.total -= following.agents.len();
        following.agents.iter().for_each(|agent| self.unlink(follower, agent));
        self.changed.insert(follower.clone());
        self.lately.forget(follower);
        // The others forget it for themselves.
        self.untold.forget(follower);
    }

    fn unlink(&mut self, follower: &AgentId, agent: &AgentId) {
        if let Some(followers) = self.followers.get_mut(agent) {
            followers.remove(follower);
            if followers.is_empty() {
                self.followers.remove(agent);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use proptest::prelude::*;

    const HOUR: Duration = Duration::from_hours(1);

    /// So many hours into the test.
    fn at(hours: u32) -> UnixMillis {
        UnixMillis(1_000).plus(HOUR * hours)
    }

    fn id(n: usize) -> AgentId {
        format!("agent-{n}").parse().unwrap()
    }

    fn ids(range: std::ops::Range<usize>) -> BTreeSet<AgentId> {
        range.map(id).collect()
    }

    #[test]
    fn subscribing_twice_counts_once() {
        let mut subs = Subscriptions::default();
        assert_eq!(subs.subscribe(&id(0), &ids(1..3), at(0)), Ok(2));
        assert_eq!(subs.subscribe(&id(0), &ids(2..4), at(0)), Ok(3));
        assert_eq!(subs.of(&id(0)).cloned().collect::<BTreeSet<_>>(), ids(1..4));
        assert_eq!(subs.followers(&id(2)).collect::<Vec<_>>(), [&id(0)]);
        assert_eq!(subs.unsubscribe(&id(0), &ids(3..9), at(0)), 2);
        assert_eq!(subs.followers(&id(3)).count(), 0);
        assert_eq!(subs.total(), 2);
    }

    #[test]
    fn too_many_changes_nothing() {
        let mut subs = Subscriptions::default();
        assert_eq!(subs.subscribe(&id(0), &ids(1..1_001), at(0)), Ok(1_000));
        assert_eq!(subs.subscribe(&id(0), &ids(990..1_002), at(0)), Err(TooMany::OfAgent));
        assert_eq!(subs.subscribe(&id(0), &ids(5..6), at(0)), Ok(1_000));
        assert_eq!(subs.followers(&id(1_001)).count(), 0);
    }

    #[test]
    fn subscriptions_outlive_their_agent_for_a_time() {
        let mut subs = Subscriptions::default();
        subs.subscribe(&id(0), &ids(1..2), at(0)).unwrap();
        subs.left(&id(0), at(1));
        subs.sweep(at(1).plus(HOUR / 2), HOUR, |_| false);
        assert_eq!(subs.total(), 1);
        subs.arrived(&id(0), at(2));
        subs.sweep(at(9), HOUR, |_| false);
        assert_eq!(subs.total(), 1, "connected again");
        subs.left(&id(0), at(9));
        subs.sweep(at(10), HOUR, |_| true);
        assert_eq!(subs.total(), 1, "its goodbye came late");
        subs.sweep(at(10), HOUR, |_| false);
        subs.sweep(at(11), HOUR, |_| false);
        assert_eq!((subs.total(), subs.followers(&id(1)).count()), (0, 0));
    }

    /// Saves what has changed to `disk`, as the relay does.
    fn save(subs: &mut Subscriptions, disk: &mut BTreeMap<AgentId, List>) {
        for follower in subs.take_changed() {
            match subs.list(&follower) {
                None => disk.remove(&follower),
                Some(list) => disk.insert(follower, list),
            };
        }
    }

    #[test]
    fn only_what_changes_is_to_be_saved_and_again_until_it_is() {
        let mut subs = Subscriptions::default();
        subs.subscribe(&id(0), &ids(1..3), at(0)).unwrap();
        assert_eq!((subs.unsaved(), subs.take_changed()), (1, vec![id(0)]));
        assert_eq!((subs.unsaved(), subs.take_changed()), (1, vec![id(0)]), "it was not saved");
        subs.saved();
        subs.subscribe(&id(0), &ids(1..3), at(0)).unwrap();
        subs.unsubscribe(&id(0), &ids(3..9), at(0));
        subs.subscribe(&id(3), &ids(0..0), at(0)).unwrap();
        subs.subscribe(&id(3), &ids(0..1_001), at(0)).unwrap_err();
        subs.left(&id(0), at(1));
        assert_eq!(subs.unsaved(), 0, "nothing has changed");
        subs.sweep(at(2), HOUR, |_| false);
        assert_eq!((subs.unsaved(), subs.take_changed()), (1, vec![id(0)]));
    }

    #[test]
    fn a_change_while_its_agent_is_being_saved_is_saved_too() {
        let mut subs = Subscriptions::default();
        subs.subscribe(&id(0), &ids(1..3), at(0)).unwrap();
        subs.take_changed();
        subs.unsubscribe(&id(0), &ids(1..2), at(0));
        subs.saved();
        assert_eq!((subs.unsaved(), subs.take_changed()), (1, vec![id(0)]));
    }

    #[test]
    fn what_is_restored_lasts_as_if_its_agents_had_just_left() {
        let list = |agents| List { agents, version: Version::default() };
        let saved = vec![(id(0), list(vec![id(1), id(2)])), (id(3), list(vec![id(1)]))];
        let mut subs = Subscriptions::restored(Incarnation::default(), saved, at(1));
        assert_eq!((subs.total(), subs.unsaved()), (3, 0));
        assert_eq!(subs.followers(&id(1)).count(), 2);
        subs.arrived(&id(3), at(1));
        subs.sweep(at(1).plus(HOUR / 2), HOUR, |_| false);
        assert_eq!(subs.total(), 3);
        subs.sweep(at(2), HOUR, |_| false);
        assert_eq!(subs.followers(&id(1)).collect::<Vec<_>>(), [&id(3)]);
    }

    proptest! {
        #[test]
        fn both_sides_of_the_book_agree_and_what_is_saved_with_them(
            steps in proptest::collection::vec((0_usize..6, 0_usize..4, 0_usize..8, 0_usize..4), 0..80)
        ) {
            let (mut subs, mut disk) = (Subscriptions::default(), BTreeMap::new());
            for (step, (kind, who, from, n)) in steps.into_iter().enumerate() {
                let now = at(u32::try_from(step).unwrap());
                match kind {
                    0 => { subs.subscribe(&id(who), &ids(from..from + n), now).unwrap(); }
                    1 => { subs.unsubscribe(&id(who), &ids(from..from + n), now); }
                    2 => subs.left(&id(who), now),
                    3 => subs.sweep(now, HOUR * 3, |_| false),
                    4 => save(&mut subs, &mut disk),
                    _ => subs.saved(),
                }
                let forward: BTreeSet<_> = subs.following.iter()
                    .flat_map(|(f, to)| to.agents.iter().map(move |a| (f.clone(), a.clone()))).collect();
                let backward: BTreeSet<_> = subs.followers.iter()
                    .flat_map(|(a, by)| by.iter().map(move |f| (f.clone(), a.clone()))).collect();
                prop_assert_eq!(&forward, &backward);
                prop_assert_eq!(forward.len(), subs.total());
                prop_assert!(subs.followers.values().all(|f| !f.is_empty()));
            }
            save(&mut subs, &mut disk);
            let kept: BTreeMap<_, _> =
                subs.following.keys().map(|f| (f.clone(), subs.list(f).unwrap())).collect();
            prop_assert_eq!(&kept, &disk);
            let restored = Subscriptions::restored(subs.me, disk.into_iter().collect(), at(1));
            prop_assert_eq!(&restored.followers, &subs.followers);
            prop_assert_eq!((restored.total(), restored.unsaved()), (subs.total(), 0));
        }
    }
}
