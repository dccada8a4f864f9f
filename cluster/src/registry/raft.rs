//! The types that openraft works with.

use serde::{Deserialize, Serialize};

use super::{
    command::{Batch, Outcome},
    image::Image,
};

openraft::declare_raft_types!(
    /// What the registry's consensus is about.
    pub(super) TypeConfig:
        D = Batch,
        R = Vec<Outcome>,
        NodeId = u64,
        Node = VoterAddress,
        Entry = openraft::Entry<TypeConfig>,
        SnapshotData = Image,
        AsyncRuntime = openraft::TokioRuntime,
);

pub(super) type Entry = openraft::Entry<TypeConfig>;
pub(super) type LogId = openraft::LogId<u64>;
pub(super) type Vote = openraft::Vote<u64>;
pub(super) type Membership = openraft::StoredMembership<u64, VoterAddress>;
pub(super) type SnapshotMeta = openraft::SnapshotMeta<u64, VoterAddress>;
pub(super) type StorageError = openraft::StorageError<u64>;

/// Which of the seeds a voter is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct VoterAddress {
    /// The seed, as the node's own list has it.
    pub(super) seed: String,
}
