//! The ring of this node's region as senders and owners need it, with those before it.
//!
//! Neither routes nor records are gone through when the ring changes, of which there may be a million:
//! each is looked at when it is used next. What has been between, this remembers. Decides nothing about
//! either.

use std::{collections::VecDeque, sync::Arc};

use super::{
    ring::{Ring, Rings},
    route::RingView,
};
use crate::NodeId;

/// So many rings are remembered: a route that was not used for more changes of them is asked for again.
const REMEMBERED: usize = 16;

/// The number of the first ring.
const FIRST: u32 = 1;

/// The rings of one region that this node has known of late.
#[derive(Clone, Debug)]
pub(super) struct NearRings {
    region: String,
    /// Of the last one; each has the number after that of the one before.
    number: u32,
    /// The last ones; none where the region had no live nodes.
    known: VecDeque<Option<Arc<Ring>>>,
}

impl NearRings {
    /// There was no ring yet.
    pub(super) fn new(region: &str) -> Self {
        Self { region: region.to_owned(), number: FIRST, known: VecDeque::from([None]) }
    }

    /// As it is once these rings are in force.
    pub(super) fn followed_by(&self, rings: &Rings) -> Self {
        let mut next = self.clone();
        let ring = rings.shared_ring(&self.region);
        let version = |ring: &Option<Arc<Ring>>| ring.as_ref().map(|ring| ring.version());
        if self.known.back().and_then(version) != version(&ring) {
            next.number += 1;
            next.known.push_back(ring);
            while next.known.len() > REMEMBERED {
                next.known.pop_front();
            }
        }
        next
    }

    /// Whether the node is on the region's ring.
    pub(super) fn has(&self, node: NodeId) -> bool {
        self.present().is_some_and(|ring| ring.has(node))
    }

    fn present(&self) -> Option<&Ring> {
        self.known.back()?.as_deref()
    }
}

impl RingView for NearRings {
    fn number(&self) -> u32 {
        self.number
    }

    fn owner(&self, agent: &str) -> Option<NodeId> {
        self.present()?.owner(agent)
    }

    fn has_owned_since(&self, number: u32, owner: NodeId, agent: &str) -> bool {
        let since = usize::try_from(self.number.saturating_sub(number)).unwrap_or(usize::MAX);
        let is_owner = |ring: &Option<Arc<Ring>>| {
            ring.as_ref().and_then(|ring| ring.owner(agent)) == Some(owner)
        };
        since <= self.known.len() && self.known.iter().rev().take(since).all(is_owner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        Generation, Incarnation,
        membership::{Load, Member, MemberState},
    };

    fn member(node: u64) -> Member {
        Member {
            incarnation: Incarnation { node: NodeId(node), generation: Generation(1) },
            name: node.to_string(),
            region: "near".to_owned(),
            version: String::new(),
            address: ([10, 0, 0, 1], 1).into(),
            state: MemberState::Alive,
            load: Load::default(),
        }
    }

    /// The ring over these nodes comes next.
    fn follow(near: &mut NearRings, rings: &mut Rings, nodes: &[u64]) {
        let members: Vec<Member> = nodes.iter().copied().map(member).collect();
        if let Some(changed) = rings.changed(&members, Duration::ZERO) {
            *rings = changed;
        }
        *near = near.followed_by(rings);
    }

    #[test]
    fn an_owner_that_was_none_in_between_has_not_owned_since() {
        let (mut near, mut rings) = (NearRings::new("near"), Rings::default());
        follow(&mut near, &mut rings, &[1, 2]);
        let first = near.number();
        let names: Vec<String> = (0..100).map(|number| format!("agent-{number}")).collect();
        let owned_by = |near: &NearRings, node| {
            names.iter().filter(|name| near.owner(name) == Some(NodeId(node))).count()
        };
        let of_one = owned_by(&near, 1);
        follow(&mut near, &mut rings, &[1, 2]);
        assert_eq!(near.number(), first, "nothing has changed");
        follow(&mut near, &mut rings, &[1, 2, 3]);
        let still = owned_by(&near, 1);
        assert!(still < of_one);
        follow(&mut near, &mut rings, &[1, 2]);
        assert_eq!((near.number(), owned_by(&near, 1)), (first + 2, of_one));
        let since = |number: u32| {
            let owned = |name: &&String| near.has_owned_since(number, NodeId(1), name);
            names.iter().filter(owned).count()
        };
        assert_eq!(since(first), still, "all that it had all the time");
        assert_eq!(since(first + 2), names.len(), "of now nothing has changed");
        assert_eq!(since(first + 9), names.len(), "whoever asks has seen a later ring");
    }

    #[test]
    fn what_was_long_ago_is_not_known() {
        let (mut near, mut rings) = (NearRings::new("near"), Rings::default());
        follow(&mut near, &mut rings, &[1, 2]);
        let (first, name) = (near.number(), "agent-1");
        let owner = near.owner(name).expect("there are nodes");
        for _ in 0..REMEMBERED / 2 {
            follow(&mut near, &mut rings, &[owner.0]);
            follow(&mut near, &mut rings, &[1, 2]);
        }
        assert!(near.has_owned_since(first, owner, name));
        follow(&mut near, &mut rings, &[owner.0]);
        follow(&mut near, &mut rings, &[1, 2]);
        assert!(!near.has_owned_since(first, owner, name));
    }
}
