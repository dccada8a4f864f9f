//! Who follows whom.
//!
//! Subscriptions belong to the agent, not to its connection: they last until they are taken back,
//! or for a time after the agent left (PROTOCOL section 3). Notes whose lists have changed, so that
//! they can be saved, and never saves them itself. Pure: time is an argument.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    mem,
    time::Duration,
};

use cluster::AgentId;

/// How many agents one agent may follow (PROTOCOL section 6).
pub const PER_AGENT_MAX: usize = 1_000;

/// How many subscriptions a node keeps in all: some 200 bytes each, so 200 MB.
pub const TOTAL_MAX: usize = 1_000_000;

/// All subscriptions of a node.
#[derive(Debug, Default)]
pub struct Subscriptions {
    followers: HashMap<AgentId, HashSet<AgentId>>,
    following: HashMap<AgentId, Following>,
    total: usize,
    /// Whose lists have changed since they were taken to be saved.
    changed: HashSet<AgentId>,
    /// Whose lists were taken, and are not known to be saved.
    taken: Vec<AgentId>,
}

#[derive(Debug, Default)]
struct Following {
    agents: BTreeSet<AgentId>,
    /// When the agent's last session ended; none while it is connected.
    left: Option<Duration>,
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
    /// What was saved in an earlier life of the relay. Its agents count as having left at `now`,
    /// until they connect.
    pub fn restored(saved: Vec<(AgentId, Vec<AgentId>)>, now: Duration) -> Self {
        let mut subscriptions = Self::default();
        for (follower, agents) in saved {
            for agent in &agents {
                let followers = subscriptions.followers.entry(agent.clone()).or_default();
                followers.insert(follower.clone());
            }
            let agents: BTreeSet<_> = agents.into_iter().collect();
            subscriptions.total += agents.len();
            subscriptions.following.insert(follower, Following { agents, left: Some(now) });
        }
        subscriptions
    }

    /// Lets `follower` follow all of `agents`, and returns how many it follows now.
    pub fn subscribe(
        &mut self,
        follower: &AgentId,
        agents: &BTreeSet<AgentId>,
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
        if new == 0 {
            return Ok(known);
        }
        let following = self.following.entry(follower.clone()).or_default();
        following.agents.extend(agents.iter().cloned());
        self.changed.insert(follower.clone());
        for agent in agents {
            self.followers.entry(agent.clone()).or_default().insert(follower.clone());
        }
        self.total += new;
        Ok(known + new)
    }

    /// Ends the following of `agents`, and returns how many the follower still follows.
    pub fn unsubscribe(&mut self, follower: &AgentId, agents: &BTreeSet<AgentId>) -> usize {
        let Some(following) = self.following.get_mut(follower) else { return 0 };
        let ended: Vec<_> = agents.iter().filter(|a| following.agents.remove(*a)).collect();
        let left = following.agents.len();
        if left == 0 {
            self.following.remove(follower);
        }
        if !ended.is_empty() {
            self.changed.insert(follower.clone());
        }
        self.total -= ended.len();
        for agent in ended {
            self.unlink(follower, agent);
        }
        left
    }

    /// Whom the agent follows, in order.
    pub fn of(&self, follower: &AgentId) -> impl Iterator<Item = &AgentId> {
        self.following.get(follower).into_iter().flat_map(|f| &f.agents)
    }

    /// Who follows the agent.
    pub fn followers(&self, agent: &AgentId) -> impl Iterator<Item = &AgentId> {
        self.followers.get(agent).into_iter().flatten()
    }

    /// The agent is connected: its subscriptions last.
    pub fn arrived(&mut self, agent: &AgentId) {
        if let Some(following) = self.following.get_mut(agent) {
            following.left = None;
        }
    }

    /// The agent's last session ended at `now`.
    pub fn left(&mut self, agent: &AgentId, now: Duration) {
        if let Some(following) = self.following.get_mut(agent) {
            following.left = Some(now);
        }
    }

    /// Ends the subscriptions of agents that left `ttl` ago and are not `connected`.
    pub fn sweep(&mut self, now: Duration, ttl: Duration, connected: impl Fn(&AgentId) -> bool) {
        let over = |f: &Following| f.left.is_some_and(|left| now.saturating_sub(left) >= ttl);
        let ended: Vec<_> = self
            .following
            .iter()
            .filter(|(id, f)| over(f) && !connected(id))
            .map(|(id, _)| id.clone())
            .collect();
        for follower in ended {
            let Some(following) = self.following.remove(&follower) else { continue };
            self.total -= following.agents.len();
            for agent in &following.agents {
                self.unlink(&follower, agent);
            }
            self.changed.insert(follower);
        }
    }

    /// The agents whose lists have changed since they were saved, for the caller to save what
    /// [`of`](Self::of) then says of each. Who is not reported as [`saved`](Self::saved) is among
    /// those of the next call.
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

    fn id(n: usize) -> AgentId {
        format!("agent-{n}").parse().unwrap()
    }

    fn ids(range: std::ops::Range<usize>) -> BTreeSet<AgentId> {
        range.map(id).collect()
    }

    #[test]
    fn subscribing_twice_counts_once() {
        let mut subs = Subscriptions::default();
        assert_eq!(subs.subscribe(&id(0), &ids(1..3)), Ok(2));
        assert_eq!(subs.subscribe(&id(0), &ids(2..4)), Ok(3));
        assert_eq!(subs.of(&id(0)).cloned().collect::<BTreeSet<_>>(), ids(1..4));
        assert_eq!(subs.followers(&id(2)).collect::<Vec<_>>(), [&id(0)]);
        assert_eq!(subs.unsubscribe(&id(0), &ids(3..9)), 2);
        assert_eq!(subs.followers(&id(3)).count(), 0);
        assert_eq!(subs.total(), 2);
    }

    #[test]
    fn too_many_changes_nothing() {
        let mut subs = Subscriptions::default();
        assert_eq!(subs.subscribe(&id(0), &ids(1..1_001)), Ok(1_000));
        assert_eq!(subs.subscribe(&id(0), &ids(990..1_002)), Err(TooMany::OfAgent));
        assert_eq!(subs.subscribe(&id(0), &ids(5..6)), Ok(1_000));
        assert_eq!(subs.followers(&id(1_001)).count(), 0);
    }

    #[test]
    fn subscriptions_outlive_their_agent_for_a_time() {
        let mut subs = Subscriptions::default();
        subs.subscribe(&id(0), &ids(1..2)).unwrap();
        subs.left(&id(0), HOUR);
        subs.sweep(HOUR + HOUR / 2, HOUR, |_| false);
        assert_eq!(subs.total(), 1);
        subs.arrived(&id(0));
        subs.sweep(HOUR * 9, HOUR, |_| false);
        assert_eq!(subs.total(), 1, "connected again");
        subs.left(&id(0), HOUR * 9);
        subs.sweep(HOUR * 10, HOUR, |_| true);
        assert_eq!(subs.total(), 1, "its goodbye came late");
        subs.sweep(HOUR * 10, HOUR, |_| false);
        assert_eq!((subs.total(), subs.followers(&id(1)).count()), (0, 0));
    }

    /// Saves what has changed to `disk`, as the relay does.
    fn save(subs: &mut Subscriptions, disk: &mut BTreeMap<AgentId, BTreeSet<AgentId>>) {
        for follower in subs.take_changed() {
            let agents: BTreeSet<_> = subs.of(&follower).cloned().collect();
            if agents.is_empty() {
                disk.remove(&follower)
            } else {
                disk.insert(follower, agents)
            };
        }
    }

    #[test]
    fn only_what_changes_is_to_be_saved_and_again_until_it_is() {
        let mut subs = Subscriptions::default();
        subs.subscribe(&id(0), &ids(1..3)).unwrap();
        assert_eq!((subs.unsaved(), subs.take_changed()), (1, vec![id(0)]));
        assert_eq!((subs.unsaved(), subs.take_changed()), (1, vec![id(0)]), "it was not saved");
        subs.saved();
        subs.subscribe(&id(0), &ids(1..3)).unwrap();
        subs.unsubscribe(&id(0), &ids(3..9));
        subs.subscribe(&id(3), &ids(0..0)).unwrap();
        subs.subscribe(&id(3), &ids(0..1_001)).unwrap_err();
        subs.left(&id(0), HOUR);
        assert_eq!(subs.unsaved(), 0, "nothing has changed");
        subs.sweep(HOUR * 2, HOUR, |_| false);
        assert_eq!((subs.unsaved(), subs.take_changed()), (1, vec![id(0)]));
    }

    #[test]
    fn a_change_while_its_agent_is_being_saved_is_saved_too() {
        let mut subs = Subscriptions::default();
        subs.subscribe(&id(0), &ids(1..3)).unwrap();
        subs.take_changed();
        subs.unsubscribe(&id(0), &ids(1..2));
        subs.saved();
        assert_eq!((subs.unsaved(), subs.take_changed()), (1, vec![id(0)]));
    }

    #[test]
    fn what_is_restored_lasts_as_if_its_agents_had_just_left() {
        let saved = vec![(id(0), vec![id(1), id(2)]), (id(3), vec![id(1)])];
        let mut subs = Subscriptions::restored(saved, HOUR);
        assert_eq!((subs.total(), subs.unsaved()), (3, 0));
        assert_eq!(subs.followers(&id(1)).count(), 2);
        subs.arrived(&id(3));
        subs.sweep(HOUR + HOUR / 2, HOUR, |_| false);
        assert_eq!(subs.total(), 3);
        subs.sweep(HOUR * 2, HOUR, |_| false);
        assert_eq!(subs.followers(&id(1)).collect::<Vec<_>>(), [&id(3)]);
    }

    proptest! {
        #[test]
        fn both_sides_of_the_book_agree_and_what_is_saved_with_them(
            steps in proptest::collection::vec((0_usize..6, 0_usize..4, 0_usize..8, 0_usize..4), 0..80)
        ) {
            let (mut subs, mut disk) = (Subscriptions::default(), BTreeMap::new());
            for (step, (kind, who, from, n)) in steps.into_iter().enumerate() {
                let now = HOUR * u32::try_from(step).unwrap();
                match kind {
                    0 => { subs.subscribe(&id(who), &ids(from..from + n)).unwrap(); }
                    1 => { subs.unsubscribe(&id(who), &ids(from..from + n)); }
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
                prop_assert!(subs.following.values().all(|f| !f.agents.is_empty()));
                prop_assert!(subs.followers.values().all(|f| !f.is_empty()));
            }
            save(&mut subs, &mut disk);
            let kept: BTreeMap<_, _> =
                subs.following.iter().map(|(f, to)| (f.clone(), to.agents.clone())).collect();
            prop_assert_eq!(&kept, &disk);
            let saved = disk.into_iter().map(|(f, to)| (f, to.into_iter().collect())).collect();
            let restored = Subscriptions::restored(saved, HOUR);
            prop_assert_eq!(&restored.followers, &subs.followers);
            prop_assert_eq!(restored.total(), subs.total());
        }
    }
}
