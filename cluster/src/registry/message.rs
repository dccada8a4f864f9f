//! What the registries of two nodes say to each other.
//!
//! Told: [`Telling`], which nobody answers. Asked: [`Question`], each with an answer of its own type; no
//! bytes are the answer to a question that is not understood, or that this node cannot answer. All of it
//! travels in mutually authenticated links. Serialised as `MessagePack`; tests freeze the bytes. What a
//! later release says and this one does not know is ignored.

use openraft::raft::{AppendEntriesRequest, VoteRequest};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{hello::Hello, raft::TypeConfig};

/// How deep the values are nested at most.
const DEPTH_MAX: usize = 24;

/// What a node tells another.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Telling {
    /// What its part in the registry is.
    Hello(Hello),
}

/// What a node asks another.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Question {
    /// Of the leader's raft.
    Append(AppendEntriesRequest<TypeConfig>),
    /// Of a raft that wants to lead.
    Vote(VoteRequest<u64>),
}

/// The bytes of what is told, asked or answered.
pub(super) fn to_bytes(value: &impl Serialize) -> Vec<u8> {
    rmp_serde::to_vec(value).unwrap_or_default() // writing these plain values to memory cannot fail
}

/// The bytes of an answer, if there is one.
pub(super) fn answer<T: Serialize>(answer: Option<T>) -> Vec<u8> {
    answer.as_ref().map(to_bytes).unwrap_or_default()
}

/// What the bytes say; none if they are nothing that this release knows.
pub(super) fn from_bytes<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    let mut reader = rmp_serde::Deserializer::new(bytes);
    // Nothing here is nested deeper; a stranger's nesting must not exhaust the stack.
    reader.set_max_depth(DEPTH_MAX);
    T::deserialize(&mut reader).ok()
}
