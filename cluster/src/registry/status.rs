//! How the registry is, for operators: in `/health`, `/cluster`, the metrics and `arc-relay status`.

use serde::Serialize;

use super::RegistryId;
use crate::NodeId;

/// How the registry is, as one node sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RegistryStatus {
    /// Which registry this is; none before it is founded or found.
    pub id: Option<RegistryId>,
    /// What this node does for it.
    pub role: Role,
    /// Whether names can be registered now, as far as this node knows.
    pub available: bool,
    /// Why not, and what this node waits for.
    pub waiting: Option<Waiting>,
    /// The node that leads with a quorum, and answers; none if there is none, as far as is known.
    pub leader: Option<NodeId>,
    /// The leader's term; 0 if unknown.
    pub term: u64,
    /// The last entry of the log that this node follows.
    pub applied: u64,
    /// Who keeps the book, learners last. A node that does not belong to them knows of those alone that it
    /// is linked with.
    pub voters: Vec<VoterStatus>,
    /// Why this node's own disk is of no use to the registry.
    pub failure: Option<String>,
}

/// What a node does for the registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// It keeps the book and decides for all: a quorum follows it.
    Leader,
    /// It keeps the book.
    Follower,
    /// It is being given the book, to keep it.
    Learner,
    /// It is to keep the book, and waits.
    Candidate,
    /// It asks those who keep the book.
    Observer,
}

/// A node that keeps the book, or is about to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct VoterStatus {
    /// The node.
    pub node: NodeId,
    /// Its seed, as its own list has it; empty if it has none.
    pub seed: String,
    /// Whether it decides with the others; else it is being given the book.
    pub votes: bool,
    /// How many entries it is behind; known only to a leader that most follow.
    pub lag: Option<u64>,
}

/// What a node waits for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Waiting {
    /// One sentence: for what, and what to do.
    pub reason: String,
    /// The seeds that have not been heard of.
    pub seeds: Vec<String>,
}
