//! Reading a stream that somebody else wrote: whatever it holds, it is a book or an error.

use std::collections::VecDeque;

use aws_lc_rs::digest::{Context, SHA256};
use bytes::Bytes;
use zeroize::Zeroizing;

use super::{
    super::{
        record,
        tables::{Head, StoreError},
    },
    END, HEAD, ImageError, MAGIC,
    row::{self, Row},
};

/// A record's kind and length.
const PREFIX_BYTES: usize = 5;

/// The longest record, in bytes: a value of the vault with its key and all that is around them.
const RECORD_BYTES_MAX: usize = 128 << 10;

/// A record's kind, and what it holds.
type Record = (u8, Zeroizing<Vec<u8>>);

/// Reads a stream in pieces of any length.
pub(super) struct Reader {
    /// What has come last; less than a record and a piece.
    buffer: Zeroizing<Vec<u8>>,
    /// How much of it has been read.
    read: usize,
    hash: Context,
    head: Option<Head>,
    /// The table and key of the last row.
    last: (u8, Vec<u8>),
    records: u64,
    names: u64,
    opened: bool,
    ended: bool,
}

impl Reader {
    pub(super) fn new() -> Self {
        Self {
            buffer: Zeroizing::default(),
            read: 0,
            hash: Context::new(&SHA256),
            head: None,
            last: (HEAD, Vec::new()),
            records: 0,
            names: 0,
            opened: false,
            ended: false,
        }
    }

    pub(super) fn push(&mut self, piece: &[u8]) {
        self.buffer.drain(..self.read);
        self.read = 0;
        self.buffer.extend_from_slice(piece);
    }

    /// The next row; none if more of the stream must come first, or it has ended.
    pub(super) fn next_row(&mut self) -> Result<Option<Row>, ImageError> {
        if !self.opened && !self.read_magic()? {
            return Ok(None);
        }
        while let Some((kind, record)) = self.next_record()? {
            match kind {
                HEAD if self.head.is_none() => {
                    let head = record::from_bytes(&record);
                    self.head = Some(head.ok_or(ImageError::Damaged("its head"))?);
                }
                _ if self.head.is_none() => return Err(ImageError::Damaged("its head")),
                END => self.check_end(&record)?,
                kind => return self.row(kind, &record).map(Some),
            }
        }
        if self.ended && !self.unread().is_empty() {
            return Err(ImageError::Damaged("more follows its end"));
        }
        Ok(None)
    }

    /// The head, and how many names there are, if the stream has ended.
    pub(super) fn finish(self) -> Result<(Head, u64), ImageError> {
        match self.head {
            Some(head) if self.ended => Ok((head, self.names)),
            _ => Err(ImageError::Truncated),
        }
    }

    fn read_magic(&mut self) -> Result<bool, ImageError> {
        let [name @ .., version] = MAGIC;
        let length = self.unread().len().min(name.len());
        if self.unread()[..length] != name[..length] {
            return Err(ImageError::Foreign);
        }
        match self.unread().get(name.len()) {
            None => return Ok(false),
            Some(other) if *other != version => return Err(ImageError::Version(*other)),
            Some(_) => {}
        }
        self.hash.update(&MAGIC);
        self.read += MAGIC.len();
        self.opened = true;
        Ok(true)
    }

    fn next_record(&mut self) -> Result<Option<Record>, ImageError> {
        let Some(&[kind, a, b, c, d]) = self.unread().first_chunk::<PREFIX_BYTES>() else {
            return Ok(None);
        };
        if self.ended {
            return Err(ImageError::Damaged("more follows its end"));
        }
        let length = usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(usize::MAX);
        if length > RECORD_BYTES_MAX {
            return Err(ImageError::Damaged("a record is too long"));
        }
        let Some((record, _)) = self.buffer[self.read..].split_at_checked(PREFIX_BYTES + length)
        else {
            return Ok(None);
        };
        if kind != END {
            self.hash.update(record);
            self.records += 1;
        }
        self.read += record.len();
        Ok(Some((kind, Zeroizing::new(record[PREFIX_BYTES..].to_vec()))))
    }

    fn unread(&self) -> &[u8] {
        &self.buffer[self.read..]
    }

    fn row(&mut self, kind: u8, record: &[u8]) -> Result<Row, ImageError> {
        let damaged = ImageError::Damaged("a row");
        let (length, rest) = record.split_first_chunk().ok_or(damaged.clone())?;
        let length = usize::from(u16::from_be_bytes(*length));
        let (key, value) = rest.split_at_checked(length).ok_or(damaged.clone())?;
        let row = Row { kind, key: key.to_vec(), value: Zeroizing::new(value.to_vec()) };
        // Each once, in order: so that nothing can replace what came before.
        if !row.is_sound() || (kind, &row.key) <= (self.last.0, &self.last.1) {
            return Err(damaged);
        }
        self.last = (kind, row.key.clone());
        self.names += u64::from(kind == row::AGENT);
        Ok(row)
    }

    fn check_end(&mut self, record: &[u8]) -> Result<(), ImageError> {
        let hash = self.hash.clone().finish();
        let expected = [&self.records.to_be_bytes()[..], hash.as_ref()].concat();
        self.ended = record == expected;
        if self.ended { Ok(()) } else { Err(ImageError::Damaged("its checksum")) }
    }
}

/// The rows of a stream that was read before.
pub(super) fn rows(chunks: VecDeque<Bytes>) -> impl Iterator<Item = Result<Row, StoreError>> {
    let (mut reader, mut chunks) = (Reader::new(), chunks);
    std::iter::from_fn(move || {
        loop {
            match reader.next_row() {
                Ok(Some(row)) => return Some(Ok(row)),
                Ok(None) => reader.push(&chunks.pop_front()?),
                Err(error) => return Some(Err(StoreError::Failed(error.to_string()))),
            }
        }
    })
}
