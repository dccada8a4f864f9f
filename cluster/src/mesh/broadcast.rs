//! Broadcasts between nodes: numbered at their origin, exactly once and in order at each receiver.
//!
//! Inside a region a broadcast goes to every node on its link, whose lane keeps its place: nothing of
//! this module is needed to receive it. To every other region its bytes go once, to one **gateway**
//! ([`gateway`]), which passes them on to the rest of its region; so they may come late, twice, out
//! of order or, if the gateway dies, not at all. Three things put that right:
//!
//! - The origin numbers its broadcasts per lane and keeps the last ones ([`Sent`]).
//! - The origin says to every node of another region that is not its gateway, on the lane between the
//!   two and at the moment of the broadcast, where its place is: `Start` with the broadcast's number.
//!   So the order of the lane is the order of everything, although the bytes of broadcasts take
//!   another way: a broadcast overtakes no direct message that was sent before it, a direct message
//!   no broadcast, and what a barrier or a fence divides stays divided.
//! - The receiver delivers in that order, drops what it has seen, holds what comes early, and asks the
//!   origin itself for what does not come ([`Reception`]).
//!
//! When the gateway changes, what the former one was given comes by it, or is asked for if it died;
//! what the next one is given comes by that. A broadcast that two ways bring is delivered by the
//! first. A gateway passes on what it gets first-hand, whether it has seen it or not, since the others
//! of its region may not have; not what it asked for: each node asks for itself
//! ([`Reception::passes_on`]).
//!
//! Pure: no lock, no clock; keeps only what it is given, within bounds.

use std::hash::Hasher;

use siphasher::sip::SipHasher13;

use crate::NodeId;

mod kept;
mod reception;
mod sent;
#[cfg(test)]
#[allow(clippy::unwrap_used)] // a failed unwrap is a failed test
mod simulation_tests;

pub(super) use reception::{Reception, Verdict};
pub(super) use sent::Sent;

/// The node of another region that passes an origin's broadcasts on there: of those that are `usable`
/// (linked and not suspect, as the origin sees it) the same whatever the order of `nodes`, and another
/// only if that one ceases to be usable or a better one comes. None if none is usable.
pub(super) fn gateway(
    origin: NodeId,
    nodes: impl IntoIterator<Item = NodeId>,
    usable: impl Fn(NodeId) -> bool,
) -> Option<NodeId> {
    let rank = |node: &NodeId| {
        let mut hasher = SipHasher13::new();
        hasher.write(&origin.0.to_le_bytes());
        hasher.write(&node.0.to_le_bytes());
        (hasher.finish(), *node)
    };
    nodes.into_iter().filter(|node| usable(*node)).max_by_key(rank)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a failed unwrap is a failed test
mod tests {
    use super::*;

    fn nodes(range: std::ops::Range<u64>) -> Vec<NodeId> {
        range.map(NodeId).collect()
    }

    #[test]
    fn the_choice_is_frozen_and_knows_no_order() {
        let chosen = |nodes: Vec<NodeId>| {
            (0..8)
                .map(|origin| gateway(NodeId(origin), nodes.clone(), |_| true).unwrap().0)
                .collect::<Vec<_>>()
        };
        let frozen = [106, 109, 108, 100, 100, 105, 109, 102];
        assert_eq!(chosen(nodes(100..110)), frozen);
        assert_eq!(chosen(nodes(100..110).into_iter().rev().collect()), frozen);
    }

    #[test]
    fn only_the_loss_of_the_chosen_one_changes_the_choice() {
        for origin in nodes(0..50) {
            let first = gateway(origin, nodes(100..110), |_| true).unwrap();
            for lost in nodes(100..110) {
                let then = gateway(origin, nodes(100..110), |node| node != lost).unwrap();
                assert_eq!(then == first, lost != first);
            }
        }
        assert_eq!(gateway(NodeId(1), nodes(100..110), |_| false), None);
    }

    #[test]
    fn origins_share_the_gateways() {
        let mut of = std::collections::HashMap::<_, u32>::new();
        for origin in nodes(0..1_000) {
            *of.entry(gateway(origin, nodes(5_000..5_010), |_| true)).or_default() += 1;
        }
        assert!(of.len() == 10 && of.values().all(|n| (60..150).contains(n)), "{of:?}");
    }
}
