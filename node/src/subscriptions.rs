//! Who follows whom.
//!
//! Subscriptions belong to the agent, not to its connection: they last until they are taken back,
//! or for a time after the agent left (PROTOCOL section 3). Pure: time is an argument.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
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
        if !agents.is_empty() {
            let following = self.following.entry(follower.clone()).or_default();
            following.agents.extend(agents.iter().cloned());
        }
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
        }
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

    proptest! {
        #[test]
        fn both_sides_of_the_book_agree(
            steps in proptest::collection::vec((0_usize..4, 0_usize..4, 0_usize..8, 0_usize..4), 0..80)
        ) {
            let mut subs = Subscriptions::default();
            for (step, (kind, who, from, n)) in steps.into_iter().enumerate() {
                let now = HOUR * u32::try_from(step).unwrap();
                match kind {
                    0 => { subs.subscribe(&id(who), &ids(from..from + n)).unwrap(); }
                    1 => { subs.unsubscribe(&id(who), &ids(from..from + n)); }
                    2 => subs.left(&id(who), now),
                    _ => subs.sweep(now, HOUR * 3, |_| false),
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
        }
    }
}
