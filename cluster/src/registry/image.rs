//! The whole book as a stream of bytes: a snapshot for another voter, or the content of a backup.

use bytes::Bytes;

use super::store::StoreError;

/// The longest chunk of the stream, in bytes.
pub(super) const CHUNK_BYTES_MAX: usize = 64 << 10;

/// A book at one moment: one's own, pinned and read when asked, or another's, received.
pub(super) enum Image {
    Pinned(()),
    Received(Received),
}

/// Another's book, whole and checked.
pub(super) struct Received(Vec<Bytes>);

/// Another's book that comes in, chunk by chunk.
pub(super) struct Receiving {}

/// What was received is no book.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct ImageError(pub(super) String);

impl Image {
    /// The next chunk of the stream, at most [`CHUNK_BYTES_MAX`] bytes; none at its end. Reads the
    /// disk, for about a millisecond.
    pub(super) fn next_chunk(&mut self) -> Result<Option<Bytes>, StoreError> {
        todo!()
    }
}

impl Receiving {
    pub(super) fn new() -> Self {
        todo!()
    }

    /// Takes the next chunk.
    pub(super) fn push(&mut self, _chunk: Bytes) -> Result<(), ImageError> {
        todo!()
    }

    /// The whole book, if that was all of it.
    pub(super) fn finish(self) -> Result<Image, ImageError> {
        todo!()
    }
}
