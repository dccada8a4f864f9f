//! The registry in numbers, as this node sees it.

use cluster::registry::{RegistryStatus, Role};
use metrics::{Gauge, describe_gauge, gauge};

use super::float;

/// Handles of how the registry is.
#[derive(Debug)]
pub struct RegistryMetrics {
    available: Gauge,
    leads: Gauge,
    failed: Gauge,
    voters: Gauge,
    term: Gauge,
    applied: Gauge,
}

impl RegistryMetrics {
    /// All at zero, in the recorder of the thread.
    pub(super) fn registered() -> Self {
        describe();
        Self {
            available: gauge!("arc_registry_available"),
            leads: gauge!("arc_registry_leads"),
            failed: gauge!("arc_registry_failed"),
            voters: gauge!("arc_registry_voters"),
            term: gauge!("arc_registry_term"),
            applied: gauge!("arc_registry_applied_index"),
        }
    }

    /// How it is now.
    pub fn set(&self, status: &RegistryStatus) {
        let flag = |is: bool| f64::from(u8::from(is));
        self.available.set(flag(status.available));
        self.leads.set(flag(status.role == Role::Leader));
        self.failed.set(flag(status.failure.is_some()));
        self.voters.set(float(status.voters.iter().filter(|voter| voter.votes).count() as u64));
        self.term.set(float(status.term));
        self.applied.set(float(status.applied));
    }
}

fn describe() {
    describe_gauge!("arc_registry_available", "1 if names can be registered, as this node sees it");
    describe_gauge!("arc_registry_leads", "1 if this node leads the registry");
    describe_gauge!("arc_registry_failed", "1 if this node's disk is of no use to the registry");
    describe_gauge!("arc_registry_voters", "nodes that keep the names");
    describe_gauge!("arc_registry_term", "term of the registry's leader");
    describe_gauge!("arc_registry_applied_index", "last entry of the registry's log known here");
}
