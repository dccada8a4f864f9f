//! What followers have asked for lately, name by name.
//!
//! A follower that moves may be faster than the news of its list: it changes it on a node that has not
//! heard of its last change. Then there are two lists, and the newer one lacks what the older one has.
//! So whoever takes another node's list tells that node what it lacks of what was asked here: of each
//! name the last wish counts. Pure.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Duration,
};

use cluster::{AgentId, UnixMillis, subscription_store::Version};
use serde::{Deserialize, Serialize};

use super::PER_AGENT_MAX;

/// How long a list may be under way that was made without knowing a wish.
const KEPT: Duration = Duration::from_secs(10);

/// Names of one follower's wishes; who asks for more gets what the newest list says.
const WISHES_MAX: usize = 2 * PER_AGENT_MAX;

/// That a follower asked to follow somebody, or to do so no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wish {
    /// Whether to follow.
    pub follow: bool,
    /// When and where it was asked for.
    pub at: Version,
}

/// A follower's wishes that a list lacks, as nodes tell each other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wishes {
    /// Who follows.
    pub follower: AgentId,
    /// Whom, or whom not.
    pub of: BTreeMap<AgentId, Wish>,
}

/// Names of all wishes, some 100 bytes each, so 10 MB. Beyond, as when all agents of a large relay come
/// back at once and subscribe anew, the newest list counts.
const ALL_MAX: usize = 100_000;

/// The wishes of [`KEPT`] and until the next sweep.
#[derive(Debug, Default)]
pub(super) struct Lately {
    wishes: HashMap<AgentId, BTreeMap<AgentId, Wish>>,
    /// How many there are.
    total: usize,
}

impl Lately {
    /// The follower asks to follow all of these, or none of them any more.
    pub(super) fn ask(&mut self, follower: &AgentId, agents: &BTreeSet<AgentId>, wish: Wish) {
        let of = agents.iter().map(|agent| (agent.clone(), wish)).collect();
        self.hear(Wishes { follower: follower.clone(), of });
    }

    /// Another node tells of wishes.
    pub(super) fn hear(&mut self, wishes: Wishes) {
        if self.total >= ALL_MAX {
            // A wish that is remembered without a later one would be wrong.
            return self.forget(&wishes.follower);
        }
        let known = self.wishes.entry(wishes.follower).or_default();
        self.total -= known.len();
        for (agent, wish) in wishes.of {
            let last = known.entry(agent).or_insert(wish);
            if wish.at > last.at {
                *last = wish;
            }
        }
        if known.len() > WISHES_MAX {
            known.clear();
        }
        self.total += known.len();
    }

    /// All that the follower asked for; none if that is nothing.
    pub(super) fn of(&self, follower: &AgentId, now: UnixMillis) -> Option<Wishes> {
        self.those(follower, now, |_, _| true)
    }

    /// What the follower's list lacks of it; none if that is nothing.
    pub(super) fn missed(
        &self,
        follower: &AgentId,
        list: &BTreeSet<AgentId>,
        now: UnixMillis,
    ) -> Option<Wishes> {
        self.those(follower, now, |agent, wish| wish.follow != list.contains(agent))
    }

    fn those(
        &self,
        follower: &AgentId,
        now: UnixMillis,
        which: impl Fn(&AgentId, &Wish) -> bool,
    ) -> Option<Wishes> {
        let is_fresh = |wish: &Wish| now < wish.at.time.plus(KEPT);
        let wishes = self.wishes.get(follower)?.iter();
        let those = wishes.filter(|(agent, wish)| is_fresh(wish) && which(agent, wish));
        let of: BTreeMap<_, _> = those.map(|(agent, wish)| (agent.clone(), *wish)).collect();
        (!of.is_empty()).then(|| Wishes { follower: follower.clone(), of })
    }

    /// Forgets what the follower asked for.
    pub(super) fn forget(&mut self, follower: &AgentId) {
        let known = self.wishes.remove(follower);
        self.total -= known.map_or(0, |wishes| wishes.len());
    }

    /// Forgets what everybody must have heard of.
    pub(super) fn sweep(&mut self, now: UnixMillis) {
        self.wishes.retain(|_, wishes| {
            wishes.retain(|_, wish| now < wish.at.time.plus(KEPT));
            !wishes.is_empty()
        });
        self.total = self.wishes.values().map(BTreeMap::len).sum();
    }
}

impl Wishes {
    /// The list with these wishes fulfilled.
    pub(super) fn fulfilled_in(&self, list: &BTreeSet<AgentId>) -> BTreeSet<AgentId> {
        let kept = list.iter().filter(|agent| self.of.get(*agent).is_none_or(|wish| wish.follow));
        let added = self.of.iter().filter(|(_, wish)| wish.follow).map(|(agent, _)| agent);
        kept.chain(added).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use cluster::NodeId;

    use super::*;

    fn id(n: usize) -> AgentId {
        format!("agent-{n}").parse().expect("a well-formed id")
    }

    fn ids(range: std::ops::Range<usize>) -> BTreeSet<AgentId> {
        range.map(id).collect()
    }

    fn wish(follow: bool, at: u64) -> Wish {
        Wish { follow, at: Version { time: UnixMillis(at), node: NodeId(1) } }
    }

    #[test]
    fn of_each_name_the_last_wish_counts_for_a_while() {
        let mut lately = Lately::default();
        lately.ask(&id(0), &ids(1..4), wish(true, 10));
        lately.ask(&id(0), &ids(3..5), wish(false, 20));
        let older = Wishes { follower: id(0), of: [(id(3), wish(true, 15))].into() };
        lately.hear(older);
        let missed = lately.missed(&id(0), &ids(2..5), UnixMillis(30)).expect("it lacks something");
        let lacks = [(id(1), wish(true, 10)), (id(3), wish(false, 20)), (id(4), wish(false, 20))];
        assert_eq!(missed.of, lacks.into());
        assert_eq!(missed.fulfilled_in(&ids(2..5)), ids(1..3));
        assert_eq!(lately.missed(&id(0), &ids(1..3), UnixMillis(30)), None);
        assert_eq!(lately.missed(&id(0), &ids(2..3), UnixMillis(10_010)), None);
        lately.sweep(UnixMillis(10_010));
        assert_eq!(lately.total, 2);
        lately.sweep(UnixMillis(10_020));
        assert_eq!((lately.wishes.len(), lately.total), (0, 0));
    }

    #[test]
    fn who_asks_for_very_much_is_not_remembered() {
        let mut lately = Lately::default();
        lately.ask(&id(0), &ids(0..WISHES_MAX), wish(true, 10));
        assert_eq!(lately.total, WISHES_MAX);
        lately.ask(&id(0), &ids(WISHES_MAX..WISHES_MAX + 1), wish(true, 10));
        assert_eq!(lately.total, 0);
        for n in 0..1_000 {
            lately.ask(&id(n), &ids(0..1_000), wish(true, 10));
        }
        assert_eq!(lately.total, ALL_MAX);
        lately.ask(&id(0), &ids(0..1), wish(false, 20));
        assert_eq!(
            lately.missed(&id(0), &ids(0..1), UnixMillis(30)),
            None,
            "nor its former wishes"
        );
        assert_eq!(lately.total, ALL_MAX - 1_000);
    }
}
