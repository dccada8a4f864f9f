//! From a data directory to a backup without a relay, and from a backup to a data directory.
//!
//! A restored registry is a new one, kept by one node alone, whose lineage names the one that the backup
//! was taken of. It is written when the whole backup has been found good, and not before.

use std::{
    fs, io,
    io::Read,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use tls::mesh::Secret;

use super::{
    AtRest, BackupError, BackupHeader, BackupReader, BackupWriter, OpenError, RegistryId,
    SealError, disk,
    image::{Image, Receiving},
    salvage::{Salvaged, salvage},
    store::{self, Opened, Store, StoreError},
};
use crate::{UnixMillis, data_dir, database::Source as _};

/// What became of a backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restored {
    /// What the backup said of itself.
    pub backup: BackupHeader,
    /// The new registry.
    pub registry: RegistryId,
    /// How many names it has.
    pub agents: u64,
}

/// What a backup of a data directory has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OfflineBackup {
    /// What it says of itself.
    pub header: BackupHeader,
    /// How many entries of the node's log are in it that may never have been decided. Whoever is left
    /// alone cannot know, and a name that nobody holds a token of does less harm than one given twice.
    pub undecided: u64,
}

/// Why a backup was not restored; the data directory is as it was.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// There is something in the data directory.
    #[error(
        "{} is not empty, and nothing in it is replaced: name a directory that is empty or not there yet",
        .0.display()
    )]
    NotEmpty(PathBuf),
    /// The backup cannot be read.
    #[error("the backup is refused")]
    Backup(#[from] BackupError),
    /// What is in the backup is no registry.
    #[error("what is in the backup is refused: {0}")]
    Content(String),
    /// The data directory cannot be made or read.
    #[error("cannot use the data directory {}", dir.display())]
    Directory {
        /// The data directory.
        dir: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The registry cannot be made.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The registry cannot be written.
    #[error("cannot write the registry: {0}")]
    Write(String),
}

/// Why no backup was made of a data directory.
#[derive(Debug, thiserror::Error)]
pub enum OfflineError {
    /// The directory holds no registry.
    #[error("there is no registry in {}", .0.display())]
    NoRegistry(PathBuf),
    /// The registry was never founded: the node has waited for others all its life.
    #[error("the registry in {} was never founded: there is nothing in it", .0.display())]
    Unfounded(PathBuf),
    /// The file cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The file cannot be read.
    #[error("cannot read the registry: {0}")]
    Read(String),
    /// The backup cannot be sealed.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// The backup cannot be written.
    #[error("cannot write the backup: {0}")]
    Write(#[from] io::Error),
}

/// Founds a new registry in `data_dir` from a backup that `secret`, or the one before it, opens. The
/// directory must be empty, or is made. Blocks on the disk.
pub async fn restore(
    backup: impl Read,
    secret: &Secret,
    previous: Option<&Secret>,
    data_dir: &Path,
    now: UnixMillis,
) -> Result<Restored, RestoreError> {
    let unusable = |source| RestoreError::Directory { dir: data_dir.to_owned(), source };
    if !is_empty(data_dir).map_err(unusable)? {
        return Err(RestoreError::NotEmpty(data_dir.to_owned()));
    }
    let secrets: Vec<_> = [Some(secret), previous].into_iter().flatten().cloned().collect();
    let (backup, image) = read(BackupReader::open(backup, &secrets)?)?;
    let agents = match &image {
        Image::Received(book) => book.names(),
        Image::Pinned(_) => 0, // which nobody has received
    };
    data_dir::create(data_dir).map_err(unusable)?;
    let at_rest = AtRest::open(data_dir, Some(secret), None).map_err(unusable)?;
    let registry = install(image, data_dir, &at_rest, now).await.inspect_err(|_| {
        // An unfinished file would be in the way of the next attempt; there was none before.
        let _ = fs::remove_file(disk::file(data_dir).path());
    })?;
    Ok(Restored { backup, registry, agents })
}

/// Makes a backup of the registry in the data directory of a node that does not run: hands its bytes
/// to `write`, one after the other. Blocks on the disk, and needs memory for the whole book.
///
/// Opens the registry as a start does: the node's generation grows, what a former secret has sealed is
/// sealed anew, and what release 0.1.0 wrote is taken over. The book and the log stay as they are.
pub async fn back_up_offline(
    data_dir: &Path,
    secret: &Secret,
    previous: Option<&Secret>,
    release: &str,
    now: UnixMillis,
    mut write: impl FnMut(&[u8]) -> io::Result<()>,
) -> Result<OfflineBackup, OfflineError> {
    let source = disk::file(data_dir);
    if !source.path().exists() {
        return Err(OfflineError::NoRegistry(data_dir.to_owned()));
    }
    let at_rest = AtRest::open(data_dir, Some(secret), previous);
    let at_rest = at_rest.map_err(|source| OpenError::Io { dir: data_dir.to_owned(), source })?;
    let Opened { store, .. } = Store::open(source, &at_rest, true, now)?;
    // The copy is what the image reads.
    let Salvaged { mut image, entries: undecided, copy: _copy } =
        salvage(&store, now).await.map_err(|error| OfflineError::Read(error.to_string()))?;
    let founded = image.head().founded.clone();
    let founded = founded.ok_or_else(|| OfflineError::Unfounded(data_dir.to_owned()))?;
    let header =
        BackupHeader { registry: founded.registry, created: now, release: release.to_owned() };
    let mut writer = BackupWriter::new(secret, &header);
    write(writer.header())?;
    let unread = |error: StoreError| OfflineError::Read(error.to_string());
    while let Some(chunk) = image.next_chunk().map_err(unread)? {
        write(&writer.chunk(&chunk)?)?;
    }
    write(&writer.finish()?)?;
    Ok(OfflineBackup { header, undecided })
}

/// Whether there is nothing at that place, or a directory with nothing in it.
fn is_empty(data_dir: &Path) -> io::Result<bool> {
    match fs::read_dir(data_dir) {
        Ok(mut entries) => Ok(entries.next().is_none()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(error),
    }
}

/// All of a backup, once it has been found to be what was written.
fn read(mut backup: BackupReader<impl Read>) -> Result<(BackupHeader, Image), RestoreError> {
    let refused = |error: super::image::ImageError| RestoreError::Content(error.to_string());
    let mut receiving = Receiving::new();
    while let Some(chunk) = backup.next_chunk()? {
        receiving.push(Bytes::copy_from_slice(&chunk)).map_err(refused)?;
    }
    let image = receiving.finish().map_err(refused)?;
    let header = backup.header().clone();
    if image.head().founded.as_ref().map(|founded| founded.registry) != Some(header.registry) {
        return Err(RestoreError::Content("it is of another registry than it says".into()));
    }
    Ok((header, image))
}

async fn install(
    image: Image,
    data_dir: &Path,
    at_rest: &AtRest,
    now: UnixMillis,
) -> Result<RegistryId, RestoreError> {
    let Opened { identity, store, .. } = Store::open(disk::file(data_dir), at_rest, false, now)?;
    let founded = store.restore(image, identity.node, now).await;
    store.close().await;
    Ok(founded
        .map_err(|error: store::RestoreError| RestoreError::Write(error.to_string()))?
        .registry)
}

#[cfg(test)]
mod tests;
