//! Which registry a node knows, as it says in the handshake: nodes of two registries are never linked,
//! or a name of one would be another's in the other.

use serde::{Deserialize, Serialize};

use crate::registry::RegistryId;

/// Registries that one was restored from: as many as are remembered in a handshake, some 1.2 KiB.
const LINEAGE_MAX: usize = 64;

/// Which registry a node knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Allegiance {
    registry: RegistryId,
    lineage: Vec<RegistryId>,
    /// Whether it has some of the registry's own log: of another registry it can learn nothing then.
    #[serde(default)]
    stored: bool,
}

impl Allegiance {
    /// To a registry that was restored from these, the oldest first.
    pub fn new(registry: RegistryId, mut lineage: Vec<RegistryId>) -> Self {
        lineage.drain(..lineage.len().saturating_sub(LINEAGE_MAX));
        Self { registry, lineage, stored: false }
    }

    /// The same, of a node that has some of the registry's own log, or has none.
    #[must_use]
    pub fn stored(self, stored: bool) -> Self {
        Self { stored, ..self }
    }

    /// The registry.
    pub fn registry(&self) -> RegistryId {
        self.registry
    }

    /// Whether both may be one mesh: they know the same registry, or one was restored from what the
    /// other knows, which has to learn of it. That cannot be done by a node that has kept the former one:
    /// its log and the restored one's must never become one.
    pub fn goes_with(&self, other: &Self) -> bool {
        self.registry == other.registry
            || self.descends_from(other) && !other.stored
            || other.descends_from(self) && !self.stored
    }

    /// Whether the one's registry was restored from the other's.
    pub(super) fn descends_from(&self, other: &Self) -> bool {
        self.lineage.contains(&other.registry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(registry: u128, lineage: &[u128]) -> Allegiance {
        Allegiance::new(RegistryId(registry), lineage.iter().copied().map(RegistryId).collect())
    }

    #[test]
    fn a_registry_goes_with_itself_its_ancestors_and_its_descendants() {
        let restored = of(3, &[1, 2]);
        for (other, goes) in [
            (of(3, &[]), true),
            (of(2, &[1]), true),
            (of(1, &[]), true),
            (of(4, &[1, 2, 3]), true),
            (of(4, &[1, 2]), false),
            (of(9, &[]), false),
        ] {
            assert_eq!(restored.goes_with(&other), goes, "{other:?}");
            assert_eq!(other.goes_with(&restored), goes, "{other:?}");
        }
    }

    #[test]
    fn who_has_kept_the_former_registry_is_no_part_of_the_restored_one() {
        let restored = of(3, &[1, 2]).stored(true);
        for (other, goes) in [
            (of(3, &[]), true),
            (of(2, &[1]), false),
            (of(1, &[]), false),
            (of(4, &[1, 2, 3]), false),
        ] {
            let other = other.stored(true);
            assert_eq!(restored.goes_with(&other), goes, "{other:?}");
            assert_eq!(other.goes_with(&restored), goes, "{other:?}");
        }
        assert!(restored.goes_with(&of(2, &[1])), "who has only followed it learns");
    }

    #[test]
    fn the_latest_of_a_long_lineage_are_remembered() {
        let lineage: Vec<u128> = (0..1_000).collect();
        let long = of(1_000, &lineage);
        assert!(long.goes_with(&of(999, &[])) && !long.goes_with(&of(0, &[])));
        assert!(rmp_serde::to_vec(&long).is_ok_and(|bytes| bytes.len() < 1_300));
    }
}
