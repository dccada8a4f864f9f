//! When a node has joined its cluster, and may serve: pure.
//!
//! A node that serves too early would tell its agents that nobody is there. A node that has an answer
//! waits until it is linked with all that are there; one that has none starts alone, and whoever
//! comes later joins it, so that the order of starts does not matter.

use std::time::Duration;

use super::{
    Member, MemberState, SeedRefusal, View,
    dialler::Dialler,
    seeds::{Seed, Seeds},
};

/// A node whose seeds are all silent for so long serves alone.
const ALONE_AFTER: Duration = Duration::from_secs(2);

/// What a node that has not joined waits for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Waiting {
    /// No seed has answered, and it is early.
    #[error("no seed has answered yet")]
    Answer,
    /// Seeds have refused it: secrets, clocks and names are for an operator to mend. Such a node
    /// serves nobody.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Admission(Vec<SeedRefusal>),
    /// There are links, and gossip has not told yet who else is there.
    #[error("gossip has not told yet who is there")]
    News,
    /// There is no link to these members.
    #[error("there is no link to {}", .0.join(", "))]
    Links(Vec<String>),
}

/// The seeds none of whose addresses is linked, and one of them refuses this node.
pub(super) fn refusals(view: &View, seeds: &Seeds, dialler: &Dialler) -> Vec<SeedRefusal> {
    let refusal = |seed: &Seed| {
        if seed.found().iter().any(|address| dialler.is_linked(*address, view)) {
            return None;
        }
        let refusal = seed.found().iter().find_map(|address| dialler.refusal(*address))?.clone();
        Some(SeedRefusal { seed: seed.address().clone(), refusal })
    };
    seeds.iter().filter_map(refusal).collect()
}

/// Whether a node that was started `running_for` ago has joined, or else what it waits for.
pub(super) fn has_joined(
    view: &View,
    seeds: &Seeds,
    dialler: &Dialler,
    running_for: Duration,
) -> Result<(), Waiting> {
    let unlinked: Vec<_> = others(view)
        .filter(|member| member.is_owner() && !view.is_linked(member.node()))
        .map(|member| format!("{} at {}", member.name, member.address))
        .collect();
    if !unlinked.is_empty() {
        Err(Waiting::Links(unlinked))
    } else if view.linked().next().is_some() {
        let heard_of = |node| view.member(node).is_some_and(|m| m.state != MemberState::Dead);
        let all_heard_of = view.linked().all(|peer| heard_of(peer.incarnation.node));
        if all_heard_of && !view.awaits_news() { Ok(()) } else { Err(Waiting::News) }
    } else if others(view).any(|member| member.state.lives()) {
        Err(Waiting::News)
    } else {
        may_be_alone(view, seeds, dialler, running_for)
    }
}

/// The members without this node.
fn others(view: &View) -> impl Iterator<Item = &Member> {
    view.members().iter().filter(|member| member.node() != view.own().node())
}

/// Whether a node that knows of no other may serve.
fn may_be_alone(
    view: &View,
    seeds: &Seeds,
    dialler: &Dialler,
    running_for: Duration,
) -> Result<(), Waiting> {
    let is_oneself =
        |found: &[_]| !found.is_empty() && found.iter().all(|address| dialler.is_own(*address));
    let refusals = refusals(view, seeds, dialler);
    if seeds.iter().all(|seed| is_oneself(seed.found())) {
        Ok(())
    } else if !refusals.is_empty() {
        Err(Waiting::Admission(refusals))
    } else if running_for < ALONE_AFTER {
        Err(Waiting::Answer)
    } else {
        Ok(())
    }
}

#[cfg(test)]
#[path = "joining_tests.rs"]
mod tests;
