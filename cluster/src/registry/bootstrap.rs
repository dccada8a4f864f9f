//! How a candidate's registry begins: by founding one, or by waiting to be let into one. Pure.
//!
//! Two foundings would give one name twice, so nothing is ever founded because time has passed, over
//! data, or before all that are to keep the book have said that they have none and want the same. Of
//! those the node of the lowest seed founds; the others wait for it.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    RegistryId,
    hello::{Hello, Part, slots},
};
use crate::NodeId;

/// What a candidate knows of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Own {
    pub(super) node: NodeId,
    /// Which of the seeds is this node.
    pub(super) slot: String,
    /// The seeds, as its list has them: all are asked, and the first 1, 3 or 5 keep the book.
    pub(super) seeds: Vec<String>,
    pub(super) store: Store,
}

/// What is in a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Store {
    /// Nothing, ever.
    Empty,
    /// A vote or some of a log, but no founding that was decided.
    Begun,
    /// A registry.
    Founded(RegistryId),
}

/// What to do now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Found a registry, with these as its voters.
    Found(BTreeMap<NodeId, String>),
    /// Take part in this one: its leader will come. None: in that which is being founded.
    Join(Option<RegistryId>),
    /// Nothing: not all are there that have to be.
    Wait(Wait),
    /// Nothing, until an operator has mended what the text says.
    Refuse(String),
}

/// For what a node waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wait {
    /// One sentence.
    pub(super) reason: String,
    /// The seeds that have not said that they are there.
    pub(super) missing: Vec<String>,
}

/// What a candidate does about its registry, by what its linked peers have said last.
pub(super) fn next(own: &Own, heard: &BTreeMap<NodeId, Hello>) -> Step {
    match own.store {
        Store::Founded(registry) => return Step::Join(Some(registry)),
        Store::Begun => return Step::Join(registries(heard).first().copied()),
        Store::Empty => {}
    }
    match registries(heard).as_slice() {
        [] => {}
        [one] => return Step::Join(Some(*one)),
        [..] => return Step::Refuse(two_registries(heard)),
    }
    if let Some(text) = other_lists(own, heard).or_else(|| two_in_a_slot(own, heard)) {
        return Step::Refuse(text);
    }
    if heard.values().any(|hello| hello.stored) {
        return Step::Join(None);
    }
    match members(own, heard) {
        Err(missing) => Step::Wait(seeds_missing(&missing)),
        Ok(members) if is_lowest(own) => Step::Found(members),
        Ok(_) => Step::Join(None),
    }
}

/// The registries that others know, without the ancestors of another.
fn registries(heard: &BTreeMap<NodeId, Hello>) -> Vec<RegistryId> {
    let ancestors: BTreeSet<_> = heard.values().flat_map(|hello| &hello.lineage).collect();
    let known: BTreeSet<_> = heard.values().filter_map(|hello| hello.registry).collect();
    known.into_iter().filter(|id| !ancestors.contains(id)).collect()
}

fn two_registries(heard: &BTreeMap<NodeId, Hello>) -> String {
    let of = |(node, hello): (&NodeId, &Hello)| {
        hello.registry.map(|registry| format!("{} knows {registry}", called(*node, hello)))
    };
    let who: Vec<_> = heard.iter().filter_map(of).collect();
    format!(
        "the nodes of this cluster know different registries: {}; stop those of the wrong one, and \
         empty their DATA_DIR",
        who.join(", ")
    )
}

/// A candidate that has another list than this node would found another registry.
fn other_lists(own: &Own, heard: &BTreeMap<NodeId, Hello>) -> Option<String> {
    heard.iter().find_map(|(node, hello)| match &hello.part {
        Part::Candidate { seeds, .. } if *seeds != own.seeds => Some(format!(
            "the lists of seeds differ: here it is {}, and {} has {}; give all nodes the same SEEDS",
            own.seeds.join(","),
            called(*node, hello),
            seeds.join(","),
        )),
        _ => None,
    })
}

fn two_in_a_slot(own: &Own, heard: &BTreeMap<NodeId, Hello>) -> Option<String> {
    let mut held = BTreeMap::from([(own.slot.as_str(), own.node)]);
    heard.iter().find_map(|(node, hello)| {
        let slot = hello.part.seed()?;
        let other = held.insert(slot, *node)?;
        Some(format!(
            "nodes {other} and {node} both say that they are seed {slot}: give each an ADVERTISE of \
             its own"
        ))
    })
}

/// Who is to keep the book, or the seeds of which nobody has said that it is there. Also a seed that
/// is not to keep it may know a registry.
fn members(
    own: &Own,
    heard: &BTreeMap<NodeId, Hello>,
) -> Result<BTreeMap<NodeId, String>, Vec<String>> {
    let others = heard.iter().filter_map(|(node, hello)| Some((hello.part.seed()?, *node)));
    let held: BTreeMap<&str, NodeId> = others.chain([(own.slot.as_str(), own.node)]).collect();
    let is_missing = |seed: &&String| !held.contains_key(seed.as_str());
    let missing: Vec<_> = own.seeds.iter().filter(is_missing).cloned().collect();
    if missing.is_empty() {
        let keeper = |slot: &String| Some((*held.get(slot.as_str())?, slot.clone()));
        Ok(slots(&own.seeds).iter().filter_map(keeper).collect())
    } else {
        Err(missing)
    }
}

fn is_lowest(own: &Own) -> bool {
    slots(&own.seeds).iter().min() == Some(&own.slot)
}

fn seeds_missing(missing: &[String]) -> Wait {
    let reason = format!(
        "there is no registry yet, and it is founded only when all seeds are there: start {}; each \
         must have itself in SEEDS as it is there, and as its ADVERTISE",
        missing.join(", ")
    );
    Wait { reason, missing: missing.to_vec() }
}

/// A node in a sentence.
fn called(node: NodeId, hello: &Hello) -> String {
    match hello.part.seed() {
        Some(slot) => format!("seed {slot}"),
        None => format!("node {node}"),
    }
}

#[cfg(test)]
#[path = "bootstrap_tests.rs"]
mod tests;
