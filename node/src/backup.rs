//! Backups as files: written whole or not at all, for their owner's eyes alone.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

/// A file of mode 0600 that appears under its name when all its bytes are on the disk; gone if that
/// never happens.
#[derive(Debug)]
pub struct WholeFile {
    path: PathBuf,
    unfinished: PathBuf,
    file: File,
    finished: bool,
}

impl WholeFile {
    /// Begins the file. What has the name `path` stays as it is until [`finish`](Self::finish).
    pub fn create(path: &Path) -> io::Result<Self> {
        let unfinished = path.with_added_extension("unfinished");
        let mut options = OpenOptions::new();
        // Who left one behind may still be writing it.
        let file = options.write(true).create_new(true).mode(0o600).open(&unfinished);
        let file = file.map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => io::Error::new(
                error.kind(),
                format!("{} is there: if nothing writes it, remove it", unfinished.display()),
            ),
            _ => error,
        })?;
        Ok(Self { path: path.to_owned(), unfinished, file, finished: false })
    }

    /// Adds some bytes.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)
    }

    /// Gives the file its name, durably.
    pub fn finish(mut self) -> io::Result<()> {
        self.file.sync_all()?;
        fs::rename(&self.unfinished, &self.path)?;
        self.finished = true;
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
    }
}

impl Drop for WholeFile {
    fn drop(&mut self) {
        if !self.finished {
            // That it cannot be removed changes nothing: it is no backup.
            let _ = fs::remove_file(&self.unfinished);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a failed unwrap is a failed test
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_file_appears_whole_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("arc.backup");
        fs::write(&path, "older").unwrap();
        let mut file = WholeFile::create(&path).unwrap();
        file.write(b"new").unwrap();
        assert!(WholeFile::create(&path).is_err(), "somebody writes it");
        drop(file);
        assert_eq!(fs::read_to_string(&path).unwrap(), "older");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left behind");
        let mut file = WholeFile::create(&path).unwrap();
        file.write(b"new").unwrap();
        file.finish().unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "new");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }
}
