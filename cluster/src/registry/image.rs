//! The whole book as a stream of bytes: a snapshot for another voter, or the content of a backup.
//!
//! The stream opens with eight bytes that say what it is and in which version. Records follow, each a
//! kind, a length and so many bytes: the book's head, the rows of its tables in the order of the kinds
//! and of their keys, and an end that counts the records and has the SHA-256 of all before it. Secrets
//! are open in it: whoever lets it out of the cluster's links seals it.

mod reading;
mod row;
#[cfg(test)]
#[allow(clippy::unwrap_used)] // a failed unwrap is a failed test
mod tests;

use std::collections::VecDeque;

use aws_lc_rs::digest::{Context, SHA256};
use bytes::Bytes;
use redb::ReadTransaction;

pub(super) use self::row::{insert, vault_sealed, vault_unsealed};
use self::{reading::Reader, row::Rows};
use super::{
    record,
    sealing::Sealing,
    tables::{Head, Reading, StoreError},
};

/// The longest chunk of the stream, in bytes.
pub(super) const CHUNK_BYTES_MAX: usize = 64 << 10;

/// The longest stream that is received, in bytes, all of which is held in memory until it is
/// installed: some fifteen million names.
const BYTES_MAX: usize = 1 << 30;

/// What the stream opens with; the last byte is its version.
const MAGIC: [u8; 8] = *b"arcbook\x01";

/// The kinds of records that are no rows.
const HEAD: u8 = 0;
const END: u8 = 255;

/// A book at one moment: one's own, pinned and read when asked, or another's, received.
#[derive(Debug)]
pub(super) enum Image {
    Pinned(Pinned),
    Received(Received),
}

/// One's own book. As long as it is held, the file's space that was in use then is not used anew.
pub(super) struct Pinned {
    head: Head,
    rows: Rows,
    /// What is written and not taken yet.
    buffer: Vec<u8>,
    hash: Context,
    records: u64,
    ended: bool,
}

/// Another's book, whole and checked.
pub(super) struct Received {
    head: Head,
    names: u64,
    chunks: VecDeque<Bytes>,
}

/// Another's book that comes in, chunk by chunk.
pub(super) struct Receiving {
    reader: Reader,
    chunks: VecDeque<Bytes>,
    bytes: usize,
}

/// What was received is no book, or not all of one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ImageError {
    #[error("it is no book of names of arc-relay")]
    Foreign,
    #[error("another release of arc-relay wrote it (version {0}): use that release")]
    Version(u8),
    #[error("it is not whole: its end is missing")]
    Truncated,
    #[error("it is longer than {BYTES_MAX} bytes")]
    TooLong,
    #[error("it was altered or damaged: {0}")]
    Damaged(&'static str),
}

impl Image {
    /// The book as the transaction sees it.
    pub(super) fn pin(
        transaction: &ReadTransaction,
        sealing: std::sync::Arc<Sealing>,
    ) -> Result<Self, StoreError> {
        let head = transaction.head()?;
        let rows = row::all(transaction, sealing)?;
        let mut pinned = Pinned {
            head,
            rows,
            buffer: MAGIC.to_vec(),
            hash: Context::new(&SHA256),
            records: 0,
            ended: false,
        };
        let head = record::to_bytes(&pinned.head);
        pinned.write(HEAD, &[&head]);
        Ok(Self::Pinned(pinned))
    }

    /// What the book knows beside its rows.
    pub(super) fn head(&self) -> &Head {
        match self {
            Self::Pinned(pinned) => &pinned.head,
            Self::Received(received) => &received.head,
        }
    }

    /// The next chunk of the stream, at most [`CHUNK_BYTES_MAX`] bytes; none at its end. Reads the
    /// disk, for about a millisecond.
    pub(super) fn next_chunk(&mut self) -> Result<Option<Bytes>, StoreError> {
        match self {
            Self::Pinned(pinned) => pinned.next_chunk(),
            Self::Received(received) => Ok(received.chunks.pop_front()),
        }
    }

    /// The rows, in the order of the stream, none of which has been taken before.
    pub(super) fn into_rows(self) -> Rows {
        match self {
            Self::Pinned(pinned) => pinned.rows,
            Self::Received(received) => Box::new(reading::rows(received.chunks)),
        }
    }
}

impl Pinned {
    fn next_chunk(&mut self) -> Result<Option<Bytes>, StoreError> {
        while self.buffer.len() < CHUNK_BYTES_MAX && !self.ended {
            match self.rows.next() {
                Some(row) => {
                    let row = row?;
                    let length = u16::try_from(row.key.len());
                    let length = length.map_err(|_| StoreError::Damaged("key"))?;
                    self.write(row.kind, &[&length.to_be_bytes(), &row.key, &row.value]);
                }
                None => self.end(),
            }
        }
        let length = self.buffer.len().min(CHUNK_BYTES_MAX);
        let rest = self.buffer.split_off(length);
        let chunk = std::mem::replace(&mut self.buffer, rest);
        Ok((!chunk.is_empty()).then(|| chunk.into()))
    }

    fn write(&mut self, kind: u8, parts: &[&[u8]]) {
        let start = if self.records == 0 { 0 } else { self.buffer.len() };
        let length: usize = parts.iter().map(|part| part.len()).sum();
        self.buffer.push(kind);
        // A row has 128 KiB at most.
        self.buffer.extend(u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
        for part in parts {
            self.buffer.extend_from_slice(part);
        }
        self.records += 1;
        self.hash.update(&self.buffer[start..]);
    }

    fn end(&mut self) {
        let (records, hash) = (self.records.to_be_bytes(), self.hash.clone().finish());
        self.write(END, &[&records, hash.as_ref()]);
        self.ended = true;
    }
}

impl Received {
    /// How many names are in it.
    pub(super) fn names(&self) -> u64 {
        self.names
    }
}

impl Receiving {
    pub(super) fn new() -> Self {
        Self { reader: Reader::new(), chunks: VecDeque::new(), bytes: 0 }
    }

    /// Takes the next chunk; what is wrong with it is known at once.
    pub(super) fn push(&mut self, chunk: Bytes) -> Result<(), ImageError> {
        self.bytes = self.bytes.saturating_add(chunk.len());
        if self.bytes > BYTES_MAX {
            return Err(ImageError::TooLong);
        }
        self.reader.push(&chunk);
        while self.reader.next_row()?.is_some() {}
        self.chunks.push_back(chunk);
        Ok(())
    }

    /// The whole book, if that was all of it.
    pub(super) fn finish(self) -> Result<Image, ImageError> {
        let (head, names) = self.reader.finish()?;
        Ok(Image::Received(Received { head, names, chunks: self.chunks }))
    }
}

impl std::fmt::Debug for Pinned {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Pinned(at {:?})", self.head.time)
    }
}

impl std::fmt::Debug for Received {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Received({} names)", self.names)
    }
}
