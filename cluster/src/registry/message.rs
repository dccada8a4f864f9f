//! What the registries of two nodes say to each other.
//!
//! Told: [`Telling`], which nobody answers. Asked: [`Question`], each with an answer of its own type; no
//! bytes are the answer to a question that is not understood, or that this node cannot answer. All of it
//! travels in mutually authenticated links. Serialised as `MessagePack`; tests freeze the bytes. What a
//! later release says and this one does not know is ignored.

use openraft::raft::{AppendEntriesRequest, VoteRequest};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{
    RegistryId,
    facts::Facts,
    hello::Hello,
    raft::{LogId, SnapshotMeta, TypeConfig, Vote},
    request::Request,
};
use crate::UnixMillis;

/// How deep the values are nested at most.
const DEPTH_MAX: usize = 24;

/// What a node tells another.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Telling {
    /// What its part in the registry is.
    Hello(Hello),
    /// What the entries after `from` up to `to` have changed.
    News { registry: RegistryId, from: u64, to: u64, facts: Facts },
}

/// What a node asks another.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Question {
    /// A leader's raft, to be answered by `AppendEntriesResponse`.
    Append(AppendEntriesRequest<TypeConfig>),
    /// A raft that wants to lead, to be answered by `VoteResponse`.
    Vote(VoteRequest<u64>),
    /// Take the next piece of a snapshot; answered by [`Taken`].
    Snapshot(Piece),
    /// Do this, or answer it, and answer by [`Answer`](super::request::Answer).
    Request {
        request: Request,
        /// The asker's wall clock when it made it.
        made: UnixMillis,
        /// How long it waits for the answer.
        patience_ms: u32,
    },
    /// All that is known of the book, from `offset` on; answered by [`Page`]. `index` is that of the
    /// pages before; none for the first.
    View { index: Option<u64>, offset: u64 },
    /// What is the last entry that you know? Answered by its index.
    Applied,
    /// Would you elect a voter whose log ends so, for you have no leader? Answered by a bool.
    WouldElect(Option<LogId>),
}

/// A piece of a snapshot.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Piece {
    /// Names this attempt.
    pub(super) transfer: u64,
    /// Numbers the piece, from 0.
    pub(super) number: u64,
    #[serde(with = "serde_bytes_of")]
    pub(super) chunk: bytes::Bytes,
    /// With the last piece, which may be empty: whose it is and what is in it.
    pub(super) last: Option<(Vote, SnapshotMeta)>,
}

/// What became of a piece.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(super) enum Taken {
    /// The next, please.
    Next,
    /// That was all, and it is installed, or was not needed; this is the receiver's vote.
    All(Vote),
    /// It is not the one that was waited for: begin anew, later.
    Broken,
}

/// Some of the bytes of a view.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Page {
    pub(super) index: u64,
    /// How many bytes all pages have.
    pub(super) total: u64,
    #[serde(with = "serde_bytes_of")]
    pub(super) bytes: bytes::Bytes,
}

/// The bytes of what is told, asked or answered.
pub(super) fn to_bytes(value: &impl Serialize) -> Vec<u8> {
    rmp_serde::to_vec(value).unwrap_or_default() // writing these plain values to memory cannot fail
}

/// The bytes of an answer, if there is one.
pub(super) fn answer<T: Serialize>(answer: Option<&T>) -> Vec<u8> {
    answer.map(to_bytes).unwrap_or_default()
}

/// What the bytes say; none if they are nothing that this release knows.
pub(super) fn from_bytes<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    let mut reader = rmp_serde::Deserializer::new(bytes);
    // Nothing here is nested deeper; a stranger's nesting must not exhaust the stack.
    reader.set_max_depth(DEPTH_MAX);
    T::deserialize(&mut reader).ok()
}

/// Bytes as `MessagePack`'s bytes; serde would make an array of numbers of them.
mod serde_bytes_of {
    use std::fmt;

    use bytes::Bytes;
    use serde::{Deserializer, Serializer, de};

    pub(super) fn serialize<S: Serializer>(bytes: &Bytes, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_bytes(bytes)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Bytes, D::Error> {
        struct Visitor;

        impl de::Visitor<'_> for Visitor {
            type Value = Bytes;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("bytes")
            }

            fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Bytes, E> {
                Ok(Bytes::copy_from_slice(bytes))
            }
        }

        d.deserialize_bytes(Visitor)
    }
}

#[cfg(test)]
#[path = "message_tests.rs"]
mod tests;
