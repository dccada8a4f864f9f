//! What the registry's file costs, in numbers: how often it was written, how long that took, how large it
//! and its log are. To be read by whoever shows it; nothing is decided by any of it.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

/// Upper bounds of the buckets that writes are counted in, in seconds: from an idle solid-state drive to a
/// disk that is about to fail.
pub const WRITE_BUCKETS: [f64; 11] =
    [0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0];

/// The registry's file, as operators see it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StorageReport {
    /// Bytes of the file; none if the system does not tell.
    pub file_bytes: Option<u64>,
    /// Entries of the log that are kept.
    pub log_entries: u64,
    /// The last entry in this node's log; 0 if it keeps none.
    pub log_last: u64,
    /// The last entry that is in the snapshot which voters far behind are given; 0: there is none.
    pub snapshot: u64,
    /// What was written since the start.
    pub writes: WriteCounts,
}

/// Transactions that were written since the start.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct WriteCounts {
    /// Those that are on the disk, by how long they took: no longer than the bound of the same place in
    /// [`WRITE_BUCKETS`], and longer than the one before.
    pub buckets: [u64; WRITE_BUCKETS.len()],
    /// Those that took longer than any bound.
    pub slower: u64,
    /// How long all of them took together.
    pub took: Duration,
    /// Those that failed.
    pub failures: u64,
}

/// Counts writes.
#[derive(Debug, Default)]
pub(super) struct WriteCounters {
    /// The last is for those that are slower than any bound.
    buckets: [AtomicU64; WRITE_BUCKETS.len() + 1],
    took_us: AtomicU64,
    failures: AtomicU64,
}

impl WriteCounters {
    pub(super) fn wrote(&self, took: Duration) {
        let seconds = took.as_secs_f64();
        let place = WRITE_BUCKETS.iter().position(|bound| seconds <= *bound);
        if let Some(bucket) = self.buckets.get(place.unwrap_or(WRITE_BUCKETS.len())) {
            bucket.fetch_add(1, Relaxed);
        }
        self.took_us.fetch_add(u64::try_from(took.as_micros()).unwrap_or(u64::MAX), Relaxed);
    }

    pub(super) fn failed(&self) {
        self.failures.fetch_add(1, Relaxed);
    }

    pub(super) fn counts(&self) -> WriteCounts {
        let [buckets @ .., slower] = &self.buckets;
        WriteCounts {
            buckets: buckets.each_ref().map(|bucket| bucket.load(Relaxed)),
            slower: slower.load(Relaxed),
            took: Duration::from_micros(self.took_us.load(Relaxed)),
            failures: self.failures.load(Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_is_counted_where_it_belongs() {
        let counters = WriteCounters::default();
        for micros in [500, 501, 1_000, 9_000_000] {
            counters.wrote(Duration::from_micros(micros));
        }
        counters.failed();
        let counts = counters.counts();
        assert_eq!((counts.buckets[0], counts.buckets[1], counts.slower), (1, 2, 1));
        assert_eq!((counts.took, counts.failures), (Duration::from_micros(9_002_001), 1));
    }
}
