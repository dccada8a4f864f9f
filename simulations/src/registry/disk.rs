//! A node's disk: what was written may be lost until it was synced, writes and syncs may fail, and all
//! of it may stand still.
//!
//! It keeps what a system's cache holds and what lies on the platter apart. A crash leaves the
//! platter, with any of what was on its way to it; so does a sync that failed, once the file is opened
//! anew.

use std::{
    io,
    sync::{Arc, Weak},
};

use async_trait::async_trait;
use cluster::registry::SimulatedDisk;
use parking_lot::Mutex;
use rand::{Rng, SeedableRng, rngs::SmallRng};
use redb::StorageBackend;

use super::network::{Network, POLL};

/// What a database begins with once it is made. A file whose making was broken off is begun anew, as
/// `cluster::database` does.
const MAGIC: &[u8] = b"redb";

/// What fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failing {
    /// No byte more can be written.
    Full,
    /// What was written does not reach the platter.
    Sync,
}

/// A disk, which outlives the node that uses it.
#[derive(Debug)]
pub(super) struct Disk {
    this: Weak<Self>,
    node: usize,
    network: Arc<Network>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    cache: Vec<u8>,
    platter: Vec<u8>,
    /// What is in the cache only, in the order in which it was written.
    unsynced: Vec<Write>,
    failing: Option<Failing>,
    /// A sync has failed: the cache is not to be believed.
    tainted: bool,
    /// Whoever opened it before has lost it.
    opening: u64,
    rng: SmallRng,
}

#[derive(Debug)]
enum Write {
    Length(usize),
    Bytes(usize, Vec<u8>),
}

/// The disk as who opened it sees it.
#[derive(Debug)]
pub(super) struct Content {
    disk: Arc<Disk>,
    opening: u64,
}

impl Disk {
    pub(super) fn new(node: usize, network: Arc<Network>, seed: u64) -> Arc<Self> {
        let state = State {
            cache: Vec::new(),
            platter: Vec::new(),
            unsynced: Vec::new(),
            failing: None,
            tainted: false,
            opening: 0,
            rng: SmallRng::seed_from_u64(seed),
        };
        Arc::new_cyclic(|this| Self { this: this.clone(), node, network, state: Mutex::new(state) })
    }

    /// The power goes: whoever has it open has lost it, and so may be what was not synced.
    pub(super) fn crash(&self) {
        let mut state = self.state.lock();
        state.opening += 1;
        state.lose();
    }

    /// Fails from now on, or does not any more.
    pub(super) fn fail(&self, failing: Option<Failing>) {
        self.state.lock().failing = failing;
    }
}

impl State {
    /// Leaves what is on the platter, and any of what was on its way there.
    fn lose(&mut self) {
        let kept = [0.0, 0.5, 1.0][self.rng.random_range(0..3)];
        for write in std::mem::take(&mut self.unsynced) {
            if self.rng.random_bool(kept) {
                write.apply(&mut self.platter);
            }
        }
        self.cache.clone_from(&self.platter);
        self.tainted = false;
    }

    fn write(&mut self, write: Write) -> io::Result<()> {
        if self.failing == Some(Failing::Full) {
            return Err(io::Error::new(io::ErrorKind::StorageFull, "no space left on device"));
        }
        write.apply(&mut self.cache);
        self.unsynced.push(write);
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        if self.failing.is_some() {
            self.tainted = true;
            return Err(io::Error::other("input/output error"));
        }
        for write in self.unsynced.drain(..) {
            write.apply(&mut self.platter);
        }
        Ok(())
    }
}

impl Write {
    fn apply(&self, to: &mut Vec<u8>) {
        match self {
            Self::Length(length) => to.resize(*length, 0),
            Self::Bytes(offset, bytes) => {
                let end = offset + bytes.len();
                // A length that was lost: later bytes make the file longer, as files do.
                if to.len() < end {
                    to.resize(end, 0);
                }
                to[*offset..end].copy_from_slice(bytes);
            }
        }
    }
}

#[async_trait]
impl SimulatedDisk for Disk {
    type Content = Content;

    fn open(&self) -> io::Result<Content> {
        let mut state = self.state.lock();
        if state.failing == Some(Failing::Full) && state.cache.is_empty() {
            return Err(io::Error::new(io::ErrorKind::StorageFull, "no space left on device"));
        }
        if state.tainted {
            state.lose();
        }
        if !state.cache.starts_with(MAGIC) {
            state.cache.clear();
            state.platter.clear();
            state.unsynced.clear();
        }
        state.opening += 1;
        let opening = state.opening;
        let disk = self.this.upgrade().ok_or_else(|| io::Error::other("it is gone"))?;
        Ok(Content { disk, opening })
    }

    async fn turn(&self) {
        // A disk of its own speed, and one that stands still while its node does.
        let wait = self.state.lock().rng.random_range(100..3_000);
        tokio::time::sleep(std::time::Duration::from_micros(wait)).await;
        while self.network.stands_still(self.node) {
            tokio::time::sleep(POLL).await;
        }
    }
}

impl Content {
    fn with<T>(&self, act: impl FnOnce(&mut State) -> io::Result<T>) -> io::Result<T> {
        let mut state = self.disk.state.lock();
        if state.opening != self.opening {
            return Err(io::Error::other("whoever had opened this is gone"));
        }
        act(&mut state)
    }
}

fn place(offset: u64) -> io::Result<usize> {
    usize::try_from(offset).map_err(io::Error::other)
}

impl StorageBackend for Content {
    fn len(&self) -> io::Result<u64> {
        self.with(|state| Ok(state.cache.len() as u64))
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let offset = place(offset)?;
        self.with(|state| {
            let bytes = state.cache.get(offset..offset + out.len());
            let bytes = bytes.ok_or(io::ErrorKind::UnexpectedEof)?;
            out.copy_from_slice(bytes);
            Ok(())
        })
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let length = place(len)?;
        self.with(|state| state.write(Write::Length(length)))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.with(State::sync)
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let offset = place(offset)?;
        self.with(|state| state.write(Write::Bytes(offset, data.to_vec())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk() -> Arc<Disk> {
        Disk::new(0, Network::new(1), 7)
    }

    #[test]
    fn what_was_synced_outlives_a_crash() {
        let disk = disk();
        let content = disk.open().unwrap();
        let at = MAGIC.len() as u64;
        content.write(0, MAGIC).unwrap();
        content.write(at, b"safe").unwrap();
        content.sync_data().unwrap();
        content.write(at, b"lost").unwrap();
        let mut after = Vec::new();
        for _ in 0..20 {
            disk.crash();
            assert!(content.len().is_err(), "who had it open is gone");
            let mut bytes = [0; 4];
            let content = disk.open().unwrap();
            content.read(at, &mut bytes).unwrap();
            after.push(bytes);
            content.write(at, b"lost").unwrap();
        }
        assert!(after.contains(b"safe") && after.contains(b"lost"));
    }

    #[test]
    fn a_sync_that_failed_is_not_believed_later() {
        let disk = disk();
        let content = disk.open().unwrap();
        content.set_len(1).unwrap();
        content.sync_data().unwrap();
        disk.fail(Some(Failing::Sync));
        content.write(0, b"x").unwrap();
        assert!(content.sync_data().is_err());
        assert!(disk.state.lock().tainted);
        let _ = disk.open().unwrap();
        assert!(disk.state.lock().unsynced.is_empty());
    }
}
