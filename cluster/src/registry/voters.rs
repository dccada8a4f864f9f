//! Who is to keep the book: the leader's next step from the voters that there are to those that are
//! wanted. Pure.
//!
//! A slot is a seed; the node that holds it may change, when a disk was lost. Nobody is removed merely
//! because it is down, there is never an even number of voters, and no step is made after which, or
//! while, those that live could not decide.

use std::collections::{BTreeMap, BTreeSet};

use crate::NodeId;

/// Who is behind by fewer entries than this has caught up.
const CAUGHT_UP: u64 = 100;

/// All that the leader's step depends on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Situation {
    /// The voters and their slots.
    pub(super) voters: BTreeMap<NodeId, String>,
    pub(super) learners: BTreeMap<NodeId, Learner>,
    /// The slots that there should be, an odd number.
    pub(super) wanted: Vec<String>,
    /// The nodes in reach that hold a slot by their own word and can be voters of this registry.
    pub(super) candidates: BTreeMap<NodeId, String>,
    /// The nodes in reach, this one among them.
    pub(super) alive: BTreeSet<NodeId>,
    /// The nodes in reach that take themselves for voters of this registry.
    pub(super) claimants: BTreeSet<NodeId>,
}

/// A node that is being given the book.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Learner {
    pub(super) slot: String,
    /// By how many entries it is behind; none if the leader has not heard of that yet.
    pub(super) lag: Option<u64>,
}

/// What the leader does next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// All is as wanted.
    Rest,
    /// The book is given to a node that is to keep it.
    Teach { node: NodeId, slot: String },
    /// A voter holds another slot than is known of it.
    Rename { node: NodeId, slot: String },
    /// A node does not know that it is a voter no longer: it is given the log until it does.
    Correct { node: NodeId, slot: String },
    /// A learner is not wanted any more.
    Forget(NodeId),
    /// From now on these are the voters, and no others.
    Change(BTreeSet<NodeId>),
    /// Not yet; one sentence why.
    Wait(String),
}

/// The leader's next step.
pub(super) fn next(now: &Situation) -> Step {
    if let Some(step) = prepare(now) {
        return step;
    }
    let goal = goal(now);
    if goal.iter().eq(now.voters.keys()) {
        return incomplete(now).map_or(Step::Rest, Step::Wait);
    }
    let is_behind = |node: &&NodeId| {
        let lag = now.learners.get(*node).and_then(|learner| learner.lag);
        !now.voters.contains_key(*node) && lag.is_none_or(|lag| lag >= CAUGHT_UP)
    };
    if let Some(node) = goal.iter().find(is_behind) {
        let slot = now.candidates.get(node).map_or("a new voter", String::as_str);
        return Step::Wait(format!("{slot} is being given the names"));
    }
    harm(now, &goal).map_or(Step::Change(goal), Step::Wait)
}

/// The slot that a node holds: its own seed, or, where an operator wants it by its id, that; none if it is
/// no seed and nobody wants it.
pub(super) fn slot(node: NodeId, seed: Option<&str>, ordered: &[String]) -> Option<String> {
    let id = node.to_string();
    if ordered.contains(&id) { Some(id) } else { seed.map(str::to_owned) }
}

/// What an operator calls a node, which may be its id, as the seed that it is, if it is one.
pub(super) fn by_seed(named: String, now: &Situation) -> String {
    let all = now.candidates.iter().chain(&now.voters);
    let found =
        all.filter(|(_, slot)| !slot.is_empty()).find(|(node, _)| node.to_string() == named);
    found.map_or(named, |(_, slot)| slot.clone())
}

/// Why slots that an operator wants instead of the leader's seeds cannot be had; none if they can.
pub(super) fn objection(now: &Situation, wanted: &[String]) -> Option<String> {
    let distinct: BTreeSet<_> = wanted.iter().collect();
    if distinct.len() != wanted.len() || ![1, 3, 5].contains(&wanted.len()) {
        return Some(format!(
            "{} nodes were named, {} of them different: name 1, 3 or 5, each once, by seed, node id, \
             name or address",
            wanted.len(),
            distinct.len()
        ));
    }
    let then = Situation { wanted: wanted.to_vec(), ..now.clone() };
    incomplete(&then).or_else(|| harm(&then, &goal(&then)))
}

/// What comes before any change of voters.
fn prepare(now: &Situation) -> Option<Step> {
    let new = |(node, slot): &(&NodeId, &String)| {
        now.wanted.contains(slot) && holder(now, slot) == Some(**node)
    };
    for (node, slot) in now.candidates.iter().filter(new) {
        let (node, slot) = (*node, slot.clone());
        match now.voters.get(&node) {
            Some(known) if *known != slot => return Some(Step::Rename { node, slot }),
            None if !now.learners.contains_key(&node) => return Some(Step::Teach { node, slot }),
            _ => {}
        }
    }
    // Who is voted out is often not there to hear it, or is told no more once it is decided.
    let is_unknown =
        |node: &&NodeId| !now.voters.contains_key(node) && !now.learners.contains_key(node);
    if let Some(node) = now.claimants.iter().find(is_unknown) {
        let slot = now.candidates.get(node).cloned().unwrap_or_else(|| node.to_string());
        return Some(Step::Correct { node: *node, slot });
    }
    let is_superfluous = |(node, learner): &(&NodeId, &Learner)| {
        let holder = holder(now, &learner.slot);
        let is_held = holder.is_some_and(|it| it != **node && now.alive.contains(&it));
        (is_held || !now.wanted.contains(&learner.slot)) && !now.claimants.contains(node)
    };
    let superfluous = now.learners.iter().find(is_superfluous);
    superfluous.map(|(node, _)| Step::Forget(*node))
}

/// Who should keep the book, as far as the nodes are there.
fn goal(now: &Situation) -> BTreeSet<NodeId> {
    let mut goal: BTreeSet<_> = now.wanted.iter().filter_map(|slot| holder(now, slot)).collect();
    if goal.len() == now.wanted.len() && !goal.is_empty() {
        return goal;
    }
    // Who is in no wanted slot goes only when all that are wanted have come.
    let in_place = |(node, slot): (&NodeId, &String)| {
        if now.wanted.contains(slot) { holder(now, slot).unwrap_or(*node) } else { *node }
    };
    let replaced: BTreeSet<_> = now.voters.iter().map(in_place).collect();
    goal.extend(&replaced);
    // One too few to grow: but a slot's dead node is replaced without the others.
    if goal.len().is_multiple_of(2) { replaced } else { goal }
}

/// The node that should keep the book for a slot: its living one, or else that which has been.
fn holder(now: &Situation, slot: &str) -> Option<NodeId> {
    let voters = now.voters.iter().filter(|(_, its)| *its == slot).map(|(node, _)| *node);
    let living = voters.clone().find(|node| now.alive.contains(node));
    let candidate = now.candidates.iter().find(|(_, its)| *its == slot).map(|(node, _)| *node);
    living.or(candidate).or_else(|| voters.clone().next())
}

/// The sentence about the wanted slots that nobody is in.
fn incomplete(now: &Situation) -> Option<String> {
    let missing = |slot: &&String| holder(now, slot).is_none();
    let empty: Vec<_> = now.wanted.iter().filter(missing).map(String::as_str).collect();
    (!empty.is_empty()).then(|| {
        format!(
            "no node in reach says that it is {}, which should keep the names, too: start it with \
             itself in SEEDS as it is there, and as its ADVERTISE",
            empty.join(", ")
        )
    })
}

/// What would be lost by making `goal` the voters; none if nothing is.
fn harm(now: &Situation, goal: &BTreeSet<NodeId>) -> Option<String> {
    let decides = |set: &BTreeSet<NodeId>| {
        set.iter().filter(|node| now.alive.contains(node)).count() > set.len() / 2
    };
    let present: BTreeSet<NodeId> = now.voters.keys().copied().collect();
    let sentence = if goal.len().is_multiple_of(2) {
        "there would be an even number of voters"
    } else if !decides(&present) {
        "most of the present voters are out of reach: start them first"
    } else if !decides(goal) {
        "most of the new voters are out of reach: start them first"
    } else if goal.len() < present.len() && goal.iter().any(|node| !now.alive.contains(node)) {
        "voters are taken away only while all that stay are in reach: start the others first"
    } else {
        return None;
    };
    Some(sentence.to_owned())
}

#[cfg(test)]
#[path = "voters_tests.rs"]
mod tests;
