//! One follower's subscriptions as every node keeps them, and which of two copies is right.
//!
//! A record has two parts that change on their own: the list, and where the follower is. Each has its
//! own version, and the newer wins: so an agent that arrives on a node that has not heard of its last
//! subscription yet does not undo it.

use std::{collections::BTreeSet, hash::Hasher, time::Duration};

use cluster::{AgentId, Incarnation, UnixMillis, subscription_store::Version};
use serde::{Deserialize, Serialize};
use siphasher::sip::SipHasher13;

/// Where a follower is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stay {
    /// It is connected to this node.
    #[serde(rename = "home")]
    Home(Incarnation),
    /// It left at this time, by mesh time.
    #[serde(rename = "left")]
    Left(UnixMillis),
}

/// One follower's subscriptions, as nodes tell each other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Who follows.
    pub follower: AgentId,
    /// Whom; nobody if it has ended all its subscriptions not long ago.
    pub agents: BTreeSet<AgentId>,
    /// When the list was changed.
    pub listed: Version,
    /// Where the follower is.
    pub stay: Stay,
    /// When that was changed.
    pub stayed: Version,
}

/// A record but for its name, which is its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Following {
    pub(super) agents: BTreeSet<AgentId>,
    pub(super) listed: Version,
    pub(super) stay: Stay,
    pub(super) stayed: Version,
}

/// What becomes of a node's own idea where a follower is when another node has another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The node's own stands.
    Keep,
    /// The other's is right.
    Take,
    /// The other's is newer and wrong: the follower is here. To be said anew.
    Deny,
}

impl Following {
    pub(super) fn to_record(&self, follower: &AgentId) -> Record {
        let Self { agents, listed, stay, stayed } = self.clone();
        Record { follower: follower.clone(), agents, listed, stay, stayed }
    }

    /// Whether the record is to be forgotten: its follower left `ttl` ago, or ended all its
    /// subscriptions then.
    pub(super) fn is_over(&self, now: UnixMillis, ttl: Duration) -> bool {
        match self.stay {
            _ if self.agents.is_empty() => self.listed.time.plus(ttl) <= now,
            Stay::Left(left) => left.plus(ttl) <= now,
            Stay::Home(_) => false,
        }
    }

    /// Whether another copy of the list is to take this one's place. Lists from before there were
    /// versions can differ without either being the newer: all nodes then take the same one.
    pub(super) fn yields_to(&self, agents: &BTreeSet<AgentId>, listed: Version) -> bool {
        (listed, agents) > (self.listed, &self.agents)
    }

    /// Judges what another node says of where the follower is, on the node `me`.
    pub(super) fn judge(&self, stay: Stay, stayed: Version, me: Incarnation) -> Verdict {
        if stayed < self.stayed || (stayed, stay) == (self.stayed, self.stay) {
            return Verdict::Keep;
        }
        let is_here = self.stay == Stay::Home(me);
        let newer = stayed > self.stayed;
        match stay {
            // It moved on, or that node missed its return: what it says is of an earlier life here.
            Stay::Home(home) if is_here && home.node == me.node => Verdict::Deny,
            Stay::Left(_) if is_here => Verdict::Deny,
            Stay::Home(_) if newer => Verdict::Take,
            Stay::Home(_) => Verdict::Keep,
            // Of one version: somebody has noticed that the home is gone.
            Stay::Left(left) => match self.stay {
                Stay::Left(known) if !newer && left <= known => Verdict::Keep,
                _ => Verdict::Take,
            },
        }
    }

    /// The record's bucket in a digest, and what it adds there. When a follower left is no part of
    /// it: each node notes for itself when a home was lost.
    pub(super) fn fingerprint(&self, follower: &AgentId) -> (u8, u64) {
        let mut hasher = of_name(follower);
        let bucket = hasher.finish().to_le_bytes()[0];
        let home = match self.stay {
            Stay::Home(home) => [1, home.node.0, home.generation.0],
            Stay::Left(_) => [0; 3],
        };
        let versions = [self.listed, self.stayed].map(|version| [version.time.0, version.node.0]);
        for number in versions.as_flattened().iter().chain(&home) {
            hasher.write(&number.to_le_bytes());
        }
        (bucket, hasher.finish())
    }
}

/// What tells a list from others, as far as chance goes.
pub(super) fn hash_of_list(agents: &BTreeSet<AgentId>) -> u64 {
    let mut hasher = SipHasher13::new();
    for agent in agents {
        hasher.write(agent.as_str().as_bytes());
        hasher.write(b"\n");
    }
    hasher.finish()
}

/// The bucket that a follower's record is in.
pub(super) fn bucket_of(follower: &AgentId) -> u8 {
    of_name(follower).finish().to_le_bytes()[0]
}

fn of_name(follower: &AgentId) -> SipHasher13 {
    let mut hasher = SipHasher13::new();
    hasher.write(follower.as_str().as_bytes());
    hasher
}
