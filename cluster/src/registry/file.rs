//! The registry's file in the data directory: one process, its owner's eyes, whole or not at all.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{self, Read},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use redb::{Database, DatabaseError, StorageError, backends::FileBackend};

use super::store::{self, OpenError, Source};
use crate::data_dir;

/// The file's name in the data directory.
const NAME: &str = "registry.redb";

/// redb's header, whose first bytes it writes last when it makes a file.
const HEADER_BYTES: usize = 4096;
const MAGIC_BYTES: usize = 9;

/// Larger files have been used: redb makes them of about 1 MiB.
const FRESH_BYTES_MAX: u64 = 8 << 20;

/// The registry's file in a data directory.
pub(super) struct RegistryFile(PathBuf);

impl RegistryFile {
    pub(super) fn new(data_dir: &Path) -> Self {
        Self(data_dir.join(NAME))
    }

    fn dir(&self) -> &Path {
        self.0.parent().unwrap_or(Path::new("."))
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
            .open(&self.0)?;
        data_dir::sync(self.dir())?;
        Ok(file)
    }

    fn in_use(&self) -> OpenError {
        OpenError::InUse(self.dir().to_owned())
    }

    fn unusable(&self, source: io::Error) -> OpenError {
        OpenError::Io { dir: self.dir().to_owned(), source }
    }
}

impl Source for RegistryFile {
    fn open(&self) -> Result<Database, OpenError> {
        let mut file = self.create_or_open().map_err(|error| self.unusable(error))?;
        // redb takes this lock too, but only after we have looked at the content.
        file.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => self.in_use(),
            TryLockError::Error(error) => self.unusable(error),
        })?;
        clear_unfinished(&mut file).map_err(|error| self.unusable(error))?;
        let opened =
            FileBackend::new(file).and_then(|file| store::builder().create_with_backend(file));
        opened.map_err(|error| match error {
            DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch => {
                self.in_use()
            }
            DatabaseError::Storage(StorageError::Io(error))
                if error.kind() != io::ErrorKind::InvalidData =>
            {
                self.unusable(error)
            }
            other => OpenError::Unreadable { file: self.0.clone(), reason: other.to_string() },
        })
    }

    fn path(&self) -> &Path {
        &self.0
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

    /// What redb leaves when it is stopped before it writes the first bytes.
    fn unfinished(dir: &Path) -> Vec<u8> {
        let file = RegistryFile::new(dir);
        drop(file.open().unwrap());
        let length = fs::metadata(file.path()).unwrap().len();
        let mut content = vec![0; usize::try_from(length).unwrap()];
        content[MAGIC_BYTES..HEADER_BYTES].fill(7);
        content
    }

    #[test]
    fn a_first_start_that_was_stopped_can_be_repeated() {
        let dir = tempfile::tempdir().unwrap();
        let file = RegistryFile::new(dir.path());
        fs::write(file.path(), unfinished(dir.path())).unwrap();
        assert!(file.open().is_ok());
    }

    #[test]
    fn what_may_hold_names_is_never_emptied() {
        let dir = tempfile::tempdir().unwrap();
        let file = RegistryFile::new(dir.path());
        let mut content = unfinished(dir.path());
        *content.last_mut().unwrap() = 1;
        fs::write(file.path(), &content).unwrap();
        assert!(matches!(file.open(), Err(OpenError::Unreadable { .. })));
        assert_eq!(fs::read(file.path()).unwrap(), content);
    }
}
