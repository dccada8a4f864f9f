//! What a node does for the registry without being asked: founds it, lets others in, and as its leader
//! sees to it that the right nodes keep it.
//!
//! Decides nothing itself: `bootstrap` and `voters` do.

use std::collections::BTreeMap;

use super::{
    consensus::{Consensus, ConsensusError},
    raft::VoterAddress,
    shared::SharedRegistry,
};

/// Sees to the duties for as long as consensus runs; dropped when it ends.
pub(super) async fn attend(registry: &SharedRegistry, consensus: &Consensus) {
    if registry.place().is_alone() {
        let me = BTreeMap::from([(registry.identity().node, VoterAddress::default())]);
        match consensus.initialize(me).await {
            Ok(()) | Err(ConsensusError::Refused(_)) => {} // refused: there is one
            Err(error) => tracing::debug!(%error, "cannot found the registry now"),
        }
    }
    std::future::pending().await
}
