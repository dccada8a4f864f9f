//! The databases in the data directory, each one file: for one process, for its owner's eyes, whole
//! or not at all.
//!
//! Opening checks every page's checksum, so what is damaged is refused instead of believed; after a crash
//! that goes for the last commit as well if it was begun with [`begin_write`]. What the tables mean is the
//! business of those who keep them.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{self, Read},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use futures_util::future::BoxFuture;
use redb::{
    Database, DatabaseError, ReadableTable, StorageError, TableDefinition, TableError, TableHandle,
    TransactionError, WriteTransaction, backends::FileBackend,
};

use crate::data_dir;

/// What a database says of itself: one of its owner's names → big-endian bytes.
pub(crate) const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");

/// Version of all that is stored, `u32`.
pub(crate) const META_SCHEMA: &str = "schema";

/// redb's header, whose first bytes it writes last when it makes a file.
const HEADER_BYTES: usize = 4096;
const MAGIC_BYTES: usize = 9;

/// Larger files have been used: redb makes them of about 1 MiB.
const FRESH_BYTES_MAX: u64 = 8 << 20;

/// Why a database could not be opened; the file is as it was.
#[derive(Debug)]
pub(crate) enum FileError {
    /// The directory or file cannot be made, read or written.
    Io(io::Error),
    /// Another process has the file open.
    InUse,
    /// The file is damaged, or no database; the text says why.
    Unreadable(String),
}

impl From<DatabaseError> for FileError {
    fn from(error: DatabaseError) -> Self {
        match error {
            DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch => Self::InUse,
            DatabaseError::Storage(StorageError::Io(error))
                if error.kind() != io::ErrorKind::InvalidData =>
            {
                Self::Io(error)
            }
            other => Self::Unreadable(other.to_string()),
        }
    }
}

/// Is ready when a simulated disk does what it is asked next.
pub(crate) type Turns = Box<dyn Fn() -> BoxFuture<'static, ()> + Send + Sync>;

/// Gives the database, again and again: after an I/O error redb wants to be opened anew.
pub(crate) trait Source: Send + 'static {
    fn open(&self) -> Result<Database, FileError>;

    /// Where it is, for error texts.
    fn path(&self) -> &Path;

    /// When whoever writes may go on, each time, if it is to do so within the runtime; none: it has a
    /// thread of its own, as on every real disk.
    fn turns(&self) -> Option<Turns> {
        None
    }

    /// The directory that it is in.
    fn dir(&self) -> &Path {
        self.path().parent().unwrap_or(Path::new("."))
    }
}

/// Whose database it is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Content {
    /// Nobody's yet.
    Nothing,
    /// A relay's, with the version of what it stores.
    Schema(u32),
    /// Another program's.
    Foreign,
}

impl Content {
    pub(crate) fn of(transaction: &WriteTransaction) -> Result<Self, StorageError> {
        let tables: Vec<_> = transaction.list_tables()?.collect();
        if tables.is_empty() {
            return Ok(Self::Nothing);
        }
        if !tables.iter().any(|table| table.name() == META.name()) {
            return Ok(Self::Foreign);
        }
        let meta = match transaction.open_table(META) {
            Ok(meta) => meta,
            Err(TableError::Storage(error)) => return Err(error),
            Err(_) => return Ok(Self::Foreign),
        };
        let stored = meta.get(META_SCHEMA)?;
        let schema = stored.and_then(|bytes| bytes.value().try_into().ok()).map(u32::from_be_bytes);
        Ok(schema.map_or(Self::Foreign, Self::Schema))
    }
}

/// redb as the relay uses it, keeping at most `cache_bytes` of the file in memory.
pub(crate) fn builder(cache_bytes: usize) -> redb::Builder {
    let mut builder = Database::builder();
    builder.set_cache_size(cache_bytes).set_check_integrity_on_open(true);
    builder
}

/// Begins a change to what must not be lost. Once it is committed, damage to any of its pages keeps the
/// database from being opened.
///
/// It costs a second flush. With one, redb cannot tell pages that were damaged since from pages that a
/// power cut kept from the disk, and goes back to the commit before without a word: what was
/// acknowledged would be gone.
pub(crate) fn begin_write(database: &Database) -> Result<WriteTransaction, TransactionError> {
    let mut transaction = database.begin_write()?;
    transaction.set_two_phase_commit(true);
    Ok(transaction)
}

/// A database's file in the data directory.
pub(crate) struct DatabaseFile {
    path: PathBuf,
    cache_bytes: usize,
}

impl DatabaseFile {
    pub(crate) fn new(data_dir: &Path, name: &str, cache_bytes: usize) -> Self {
        Self { path: data_dir.join(name), cache_bytes }
    }

    fn create_or_open(&self) -> io::Result<File> {
        data_dir::create(self.dir())?;
        let mut options = OpenOptions::new();
        let file = options
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&self.path)?;
        data_dir::sync(self.dir())?;
        Ok(file)
    }
}

impl Source for DatabaseFile {
    fn open(&self) -> Result<Database, FileError> {
        let mut file = self.create_or_open().map_err(FileError::Io)?;
        // redb takes this lock too, but only after we have looked at the content.
        file.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => FileError::InUse,
            TryLockError::Error(error) => FileError::Io(error),
        })?;
        clear_unfinished(&mut file).map_err(FileError::Io)?;
        let opened = FileBackend::new(file)
            .and_then(|file| builder(self.cache_bytes).create_with_backend(file));
        Ok(opened?)
    }

    fn path(&self) -> &Path {
        &self.path
    }
}

/// Empties a file that a first start, stopped half-way, left without content. redb would refuse it
/// for ever, since it cannot tell it from a damaged one.
fn clear_unfinished(file: &mut File) -> io::Result<()> {
    let length = file.metadata()?.len();
    if length == 0 || length > FRESH_BYTES_MAX {
        return Ok(());
    }
    let mut content = Vec::new();
    file.read_to_end(&mut content)?;
    let zero = |bytes: &[u8]| bytes.iter().all(|byte| *byte == 0);
    let (header, pages) = content.split_at(HEADER_BYTES.min(content.len()));
    let nothing_stored = header.get(..MAGIC_BYTES).is_some_and(zero) && zero(pages);
    if nothing_stored { file.set_len(0) } else { Ok(()) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a test that cannot be set up has failed
mod tests {
    use std::fs;

    use super::*;

    fn file_in(dir: &Path) -> DatabaseFile {
        DatabaseFile::new(dir, "test.redb", 1 << 20)
    }

    /// What redb leaves when it is stopped before it writes the first bytes.
    fn unfinished(dir: &Path) -> Vec<u8> {
        let file = file_in(dir);
        drop(file.open().unwrap());
        let length = fs::metadata(file.path()).unwrap().len();
        let mut content = vec![0; usize::try_from(length).unwrap()];
        content[MAGIC_BYTES..HEADER_BYTES].fill(7);
        content
    }

    #[test]
    fn a_first_start_that_was_stopped_can_be_repeated() {
        let dir = tempfile::tempdir().unwrap();
        let file = file_in(dir.path());
        fs::write(file.path(), unfinished(dir.path())).unwrap();
        assert!(file.open().is_ok());
    }

    #[test]
    fn what_may_hold_something_is_never_emptied() {
        let dir = tempfile::tempdir().unwrap();
        let file = file_in(dir.path());
        let mut content = unfinished(dir.path());
        *content.last_mut().unwrap() = 1;
        fs::write(file.path(), &content).unwrap();
        assert!(matches!(file.open(), Err(FileError::Unreadable(_))));
        assert_eq!(fs::read(file.path()).unwrap(), content);
    }
}
