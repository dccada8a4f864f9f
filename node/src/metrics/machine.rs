//! What a scrape shows of the machine: the process, the disk, the registry's file.
//!
//! Owns the last look at them. To look is to ask the file system, which does not answer while a disk
//! hangs: never on the runtime's threads, which carry agents, and by one at a time.

use std::{sync::Arc, time::Duration};

use cluster::registry::StorageReport;
use parking_lot::Mutex;
use tokio::{sync::Semaphore, task::spawn_blocking, time::timeout};

use crate::{
    process::{self, DiskReport, ProcessReport},
    relay::Relay,
};

/// How long a scrape waits for a look: it takes microseconds, unless a disk hangs.
const PATIENCE: Duration = Duration::from_secs(1);

/// What was seen at a look.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// This process.
    pub process: ProcessReport,
    /// The file system of the data directory; none if it cannot be asked.
    pub disk: Option<DiskReport>,
    /// How the registry is stored; none if it is not.
    pub storage: Option<StorageReport>,
}

/// The machine, as it was seen last.
#[derive(Debug)]
pub struct Machine {
    last: Mutex<Seen>,
    place: Arc<Semaphore>,
}

impl Default for Machine {
    fn default() -> Self {
        Self { last: Mutex::default(), place: Arc::new(Semaphore::new(1)) }
    }
}

impl Seen {
    /// Looks now, for as long as the file system takes.
    pub fn of(relay: &Relay) -> Self {
        Self {
            process: process::report(),
            disk: process::disk(&relay.config.data_dir),
            storage: relay.registry.storage(),
        }
    }
}

impl Machine {
    /// What `look` sees on a thread of its own; what was seen last, if that takes too long.
    pub async fn see(self: &Arc<Self>, look: impl FnOnce() -> Seen + Send + 'static) -> Seen {
        let looked = async {
            let place = Arc::clone(&self.place).acquire_owned().await;
            let machine = Arc::clone(self);
            let keep = move || {
                let seen = look();
                *machine.last.lock() = seen;
                drop(place);
            };
            spawn_blocking(keep).await
        };
        // A look that is late goes on by itself, and keeps others from beginning until it ends.
        let _ = timeout(PATIENCE, looked).await;
        self.last.lock().clone()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a failed unwrap is a failed test
mod tests {
    use std::sync::mpsc;

    use super::*;

    fn threads(threads: u64) -> Seen {
        let process = ProcessReport { threads: Some(threads), ..ProcessReport::default() };
        Seen { process, ..Seen::default() }
    }

    #[tokio::test]
    async fn a_look_that_hangs_holds_up_no_scrape_and_is_the_only_one() {
        let machine = Arc::new(Machine::default());
        assert_eq!(machine.see(|| threads(1)).await.process.threads, Some(1));
        let (free, held) = mpsc::sync_channel::<()>(0);
        let hang = move || {
            let _ = held.recv();
            threads(2)
        };
        assert_eq!(machine.see(hang).await.process.threads, Some(1), "the last is shown");
        let second = machine.see(|| panic!("two look at a time")).await;
        assert_eq!(second.process.threads, Some(1));
        drop(free);
        assert_eq!(machine.see(|| threads(3)).await.process.threads, Some(3));
    }
}
