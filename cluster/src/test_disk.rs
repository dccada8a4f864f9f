//! A disk for tests of what is stored: it can be full, and is looked at.
#![allow(clippy::unwrap_used)] // a test that cannot be set up has failed

use std::{
    io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use parking_lot::Mutex;
use redb::{Database, StorageBackend};

use crate::database::{self, FileError, Source};

/// A disk in memory that outlives the database on it, counts its flushes, and fails when told.
#[derive(Clone, Debug, Default)]
pub(crate) struct TestDisk {
    content: Arc<Mutex<Vec<u8>>>,
    /// The content at the last flush.
    flushed: Arc<Mutex<Vec<u8>>>,
    /// Whether every write fails.
    pub(crate) full: Arc<AtomicBool>,
    pub(crate) flushes: Arc<AtomicUsize>,
    /// How often it was opened.
    pub(crate) opened: Arc<AtomicUsize>,
    /// While this is locked, it hangs: whoever reads waits.
    pub(crate) hangs: Arc<Mutex<()>>,
    /// Whether the database keeps nothing of it in memory.
    is_uncached: bool,
}

impl TestDisk {
    /// A disk that is read each time something is wanted.
    pub(crate) fn uncached() -> Self {
        Self { is_uncached: true, ..Self::default() }
    }

    /// The disk as a machine finds it that lost its power now: what was not flushed is gone.
    pub(crate) fn crashed(&self) -> Self {
        let copy = || Arc::new(Mutex::new(self.flushed.lock().clone()));
        Self { content: copy(), flushed: copy(), ..Self::default() }
    }

    /// How large it is.
    pub(crate) fn bytes(&self) -> usize {
        self.content.lock().len()
    }

    /// The same disk with other bytes at one place.
    pub(crate) fn overwritten(&self, at: usize, with: &[u8]) -> Self {
        let other = self.crashed();
        other.content.lock()[at..at + with.len()].copy_from_slice(with);
        other
    }

    /// Whether these bytes stand anywhere on it.
    pub(crate) fn shows(&self, bytes: &[u8]) -> bool {
        self.content.lock().windows(bytes.len()).any(|window| window == bytes)
    }

    /// Lets one bit of each page go bad in which these bytes stand.
    pub(crate) fn rot(&self, bytes: &[u8]) {
        let mut content = self.content.lock();
        let found = content.windows(bytes.len()).enumerate();
        let places: Vec<_> =
            found.filter(|(_, window)| *window == bytes).map(|(place, _)| place).collect();
        for place in places {
            content[place] ^= 1;
        }
    }

    fn check(&self) -> io::Result<()> {
        if self.full.load(Ordering::SeqCst) {
            return Err(io::Error::new(io::ErrorKind::StorageFull, "no space left on device"));
        }
        Ok(())
    }
}

impl StorageBackend for TestDisk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.content.lock().len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        drop(self.hangs.lock());
        let offset = usize::try_from(offset).unwrap();
        out.copy_from_slice(&self.content.lock()[offset..offset + out.len()]);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.check()?;
        self.content.lock().resize(usize::try_from(len).unwrap(), 0);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.flushes.fetch_add(1, Ordering::SeqCst);
        self.check()?;
        self.flushed.lock().clone_from(&self.content.lock());
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.check()?;
        let offset = usize::try_from(offset).unwrap();
        self.content.lock()[offset..offset + data.len()].copy_from_slice(data);
        Ok(())
    }
}

impl Source for TestDisk {
    fn open(&self) -> Result<Database, FileError> {
        self.opened.fetch_add(1, Ordering::SeqCst);
        let cache = if self.is_uncached { 0 } else { 1 << 20 };
        Ok(database::builder(cache).create_with_backend(self.clone())?)
    }

    fn path(&self) -> &Path {
        Path::new("disk")
    }
}
