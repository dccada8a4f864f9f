//! Backups as files: written whole or not at all, for their owner's eyes alone; taken of a relay that
//! does not run, and restored into a data directory.

use std::{
    fmt::Write as _,
    fs::{self, File, OpenOptions},
    io::{self, BufReader, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use cluster::registry::{self, OfflineBackup, OfflineError, OpenError, RestoreError, Restored};
use serde_json::json;

use crate::{
    agent::{progress::Progress, text::counted},
    clock::Clock,
    config::MeshConfig,
    relay::VERSION,
};

/// What was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Done {
    /// For people.
    pub told: String,
    /// For programs: one object, on one line.
    pub json: String,
}

/// Why there is no backup, or nothing was restored.
#[derive(Debug, thiserror::Error)]
pub enum BackupFileError {
    /// Nothing says what opens it.
    #[error(
        "CLUSTER_SECRET is not set: a backup is encrypted with it; `arc-relay secret` makes one for a \
         cluster that has none"
    )]
    NoSecret,
    /// A file would be replaced.
    #[error("{} exists already: choose another file, or give --force", .0.display())]
    Exists(PathBuf),
    /// The backup cannot be read.
    #[error("cannot read {}", file.display())]
    Read {
        /// The backup.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The backup cannot be written.
    #[error("cannot write {}", file.display())]
    Write {
        /// The backup.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// No backup could be made of the data directory.
    #[error(transparent)]
    Offline(#[from] OfflineError),
    /// The backup was not restored.
    #[error(transparent)]
    Restore(#[from] RestoreError),
}

impl BackupFileError {
    /// The code for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NoSecret => "no_secret",
            Self::Exists(_) => "file_exists",
            Self::Read { .. } => "unreadable",
            Self::Write { .. } => "unwritable",
            Self::Offline(OfflineError::Open(OpenError::InUse(_))) => "in_use",
            Self::Offline(_) => "no_backup",
            Self::Restore(RestoreError::NotEmpty(_)) => "not_empty",
            Self::Restore(_) => "not_restored",
        }
    }

    /// Whether the command was wrong, rather than what it met.
    pub fn is_misuse(&self) -> bool {
        matches!(self, Self::NoSecret | Self::Exists(_) | Self::Restore(RestoreError::NotEmpty(_)))
    }
}

/// Writes a backup of the registry in `data_dir`, whose node does not run.
pub async fn back_up_offline(
    data_dir: &Path,
    file: &Path,
    force: bool,
    mesh: &MeshConfig,
    clock: &Clock,
) -> Result<Done, BackupFileError> {
    let secret = mesh.secret.as_ref().ok_or(BackupFileError::NoSecret)?;
    if file.exists() && !force {
        return Err(BackupFileError::Exists(file.to_owned()));
    }
    let failed = |source| BackupFileError::Write { file: file.to_owned(), source };
    let mut whole = WholeFile::create(file).map_err(failed)?;
    let (previous, now) = (mesh.previous_secret.as_ref(), clock.wall());
    let progress = Progress::open("backup");
    let write = |bytes: &[u8]| {
        progress.add(bytes.len());
        whole.write(bytes)
    };
    let made = registry::back_up_offline(data_dir, secret, previous, VERSION, now, write);
    let OfflineBackup { header, undecided } = made.await?;
    drop(progress);
    whole.finish().map_err(failed)?;
    let mut told = format!("wrote {}, a backup of registry {}", file.display(), header.registry);
    if undecided > 0 {
        // Writing into a `String` cannot fail.
        let _ = write!(
            told,
            "\n{undecided} entries of its log, which the other voters may not have agreed to, are in it"
        );
    }
    let registry = header.registry.to_string();
    let json =
        json!({"file": file.display().to_string(), "registry": registry, "undecided": undecided});
    Ok(Done { told, json: json.to_string() })
}

/// Founds a new registry in `data_dir` from a backup.
pub async fn restore(
    file: &Path,
    data_dir: &Path,
    mesh: &MeshConfig,
    clock: &Clock,
) -> Result<Done, BackupFileError> {
    let secret = mesh.secret.as_ref().ok_or(BackupFileError::NoSecret)?;
    let backup = File::open(file)
        .map_err(|source| BackupFileError::Read { file: file.to_owned(), source })?;
    let bytes = backup.metadata().map(|file| file.len()).unwrap_or_default();
    let progress = Progress::bytes("restore", bytes);
    let (backup, previous) = (BufReader::new(progress.of(backup)), mesh.previous_secret.as_ref());
    let restored = registry::restore(backup, secret, previous, data_dir, clock.wall()).await?;
    drop(progress);
    let Restored { backup, registry, agents } = restored;
    let created = humantime::format_rfc3339_seconds(backup.created.into());
    let told = format!(
        "restored {} of registry {} as of {created} (release {})\n\
         {} holds the new registry {registry}: start its node first, then the others of a \
         cluster, with empty data directories",
        counted(agents, "name"),
        backup.registry,
        backup.release,
        data_dir.display()
    );
    let json = json!({
        "agents": agents,
        "registry": registry.to_string(),
        "data_dir": data_dir.display().to_string(),
        "backup": {
            "registry": backup.registry.to_string(),
            "created": backup.created.0,
            "release": backup.release,
        },
    });
    Ok(Done { told, json: json.to_string() })
}

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
