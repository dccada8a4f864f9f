//! The types that openraft works with.

use std::io::Cursor;

use serde::{Deserialize, Serialize};

use super::command::{Batch, Outcome};

openraft::declare_raft_types!(
    /// What the registry's consensus is about.
    pub(super) TypeConfig:
        D = Batch,
        R = Vec<Outcome>,
        NodeId = u64,
        Node = VoterAddress,
        Entry = openraft::Entry<TypeConfig>,
        SnapshotData = Cursor<Vec<u8>>, // the store replaces this by its own type
        AsyncRuntime = openraft::TokioRuntime,
);

/// Which of the seeds a voter is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct VoterAddress {
    /// The seed, as the node's own list has it.
    pub(super) seed: String,
}
