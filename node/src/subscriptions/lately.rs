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

/// The wishes of [`KEPT`] and until the next sweep.
#[derive(Debug, Default)]
pub(super) struct Lately {
    wishes: HashMap<AgentId, BTreeMap<AgentId, Wish>>,
}

impl Lately {
    /// The follower asks to follow all of these, or none of them any more.
    pub(super) fn ask(&mut self, follower: &AgentId, agents: &BTreeSet<AgentId>, wish: Wish) {
        let of = agents.iter().map(|agent| (agent.clone(), wish)).collect();
        self.hear(Wishes { follower: follower.clone(), of });
    }

    /// Another node tells of wishes.
    pub(super) fn hear(&mut self, wishes: Wishes) {
        let known = self.wishes.entry(wishes.follower).or_default();
        for (agent, wish) in wishes.of {
            let last = known.entry(agent).or_insert(wish);
            if wish.at > last.at {
                *last = wish;
            }
        }
        if known.len() > WISHES_MAX {
            known.clear();
        }
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

    /// Forgets what everybody must have heard of.
    pub(super) fn sweep(&mut self, now: UnixMillis) {
        self.wishes.retain(|_, wishes| {
            wishes.retain(|_, wish| now < wish.at.time.plus(KEPT));
            !wishes.is_empty()
        });
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
