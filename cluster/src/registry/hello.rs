//! What every node says of its part in the registry to each peer, at link-up and when it changes.
//!
//! Bootstrap, the choice of voters, and the way to the leader go by nothing else.

use serde::{Deserialize, Serialize};

use super::RegistryId;
use crate::NodeId;

/// Seeds beyond these are no voters' slots.
const SLOTS_MAX: usize = 5;

/// What a node says of its part in the registry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Hello {
    /// The registry that it knows; none before it is founded or found.
    pub(super) registry: Option<RegistryId>,
    /// The registries that this one was restored from, oldest first.
    pub(super) lineage: Vec<RegistryId>,
    pub(super) part: Part,
    /// Whether it has ever kept anything of a registry's log: such a store founds nothing.
    pub(super) stored: bool,
    /// Whether it keeps the book, and can be asked for a view of it.
    pub(super) voter: bool,
    /// Who leads and decides, if it knows.
    pub(super) leader: Option<NodeId>,
    /// The last entry of the log that it follows.
    pub(super) applied: u64,
}

/// What a node is to the registry by its own settings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Part {
    /// It is one of its own seeds.
    Candidate {
        /// Which of them.
        slot: String,
        /// All of them, as its list has them.
        seeds: Vec<String>,
    },
    Observer,
}

impl Hello {
    /// Whether the node hears of what is decided from its own log; else it is to be told.
    pub(super) fn follows_log(&self) -> bool {
        self.voter && self.leader.is_some()
    }
}

impl Part {
    /// Of a node with these seeds, `slot` of which is itself.
    pub(super) fn of(seeds: &[String], slot: Option<&str>) -> Self {
        match slot.and_then(|slot| seeds.iter().find(|seed| *seed == slot)) {
            Some(slot) => Self::Candidate { slot: slot.clone(), seeds: seeds.to_vec() },
            None => Self::Observer,
        }
    }

    /// Which seed it is, if any.
    pub(super) fn seed(&self) -> Option<&str> {
        match self {
            Self::Candidate { slot, .. } => Some(slot),
            Self::Observer => None,
        }
    }

    /// All of its list of seeds, if it is one of them.
    pub(super) fn seeds(&self) -> &[String] {
        match self {
            Self::Candidate { seeds, .. } => seeds,
            Self::Observer => &[],
        }
    }

    /// Which seed it is, if that should keep the book by its own list.
    pub(super) fn slot(&self) -> Option<&str> {
        match self {
            Self::Candidate { slot, seeds } if slots(seeds).contains(slot) => Some(slot),
            _ => None,
        }
    }
}

/// Those of a list of seeds whose nodes are to keep the book: its first 1, 3 or 5.
pub fn slots(seeds: &[String]) -> &[String] {
    let count = seeds.len().min(SLOTS_MAX);
    let odd = if count.is_multiple_of(2) { count.saturating_sub(1) } else { count };
    seeds.get(..odd).unwrap_or_default()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a failed unwrap is a failed test
mod tests {
    use data_encoding::HEXLOWER;

    use super::*;

    #[test]
    fn the_bytes_are_frozen() {
        let candidate = Hello {
            registry: Some(RegistryId(7)),
            lineage: vec![RegistryId(5)],
            part: Part::Candidate { slot: "a:1".into(), seeds: vec!["a:1".into()] },
            stored: true,
            voter: true,
            leader: Some(NodeId(9)),
            applied: 300,
        };
        let newcomer = Hello {
            registry: None,
            lineage: Vec::new(),
            part: Part::Observer,
            stored: false,
            voter: false,
            leader: None,
            applied: 0,
        };
        let id = |last: &str| format!("c410{}{last}", "00".repeat(15));
        let frozen = [
            (
                candidate,
                format!(
                    "97{}91{}81a943616e64696461746592a3613a3191a3613a31c3c309cd012c",
                    id("07"),
                    id("05")
                ),
            ),
            (newcomer, "97c090a84f62736572766572c2c2c000".to_owned()),
        ];
        for (hello, hex) in frozen {
            let bytes = rmp_serde::to_vec(&hello).unwrap();
            assert_eq!(HEXLOWER.encode(&bytes), hex);
            assert_eq!(rmp_serde::from_slice::<Hello>(&bytes).unwrap(), hello);
        }
    }

    #[test]
    fn the_slots_are_the_first_one_three_or_five_seeds() {
        let seeds: Vec<String> = (0..9).map(|n| format!("s{n}")).collect();
        let counts = (0..=9).map(|count| slots(&seeds[..count]).len());
        assert_eq!(counts.collect::<Vec<_>>(), [0, 1, 1, 3, 3, 5, 5, 5, 5, 5]);
        assert_eq!(slots(&seeds[..4]), &seeds[..3]);
        let left_out = Part::of(&seeds[..4], Some("s3"));
        assert_eq!((left_out.seed(), left_out.slot()), (Some("s3"), None));
        let candidate = Part::Candidate { slot: "s2".into(), seeds: seeds[..4].to_vec() };
        assert_eq!(Part::of(&seeds[..4], Some("s2")), candidate);
        assert_eq!((candidate.seed(), candidate.slot()), (Some("s2"), Some("s2")));
        for stranger in [None, Some("x")] {
            assert_eq!(Part::of(&seeds, stranger), Part::Observer);
        }
    }
}
