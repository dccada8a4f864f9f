//! Counters that this process can read itself: what is handed to Prometheus cannot be asked for.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use metrics::{Counter, CounterFn};

/// What a counter has counted.
pub(super) struct Tally {
    shown: Counter,
    count: AtomicU64,
}

/// A tally, and the counter beside it.
pub(super) type Shared = Arc<Tally>;

/// The same counter, and what can be read of it.
pub(super) fn readable(shown: Counter) -> (Counter, Shared) {
    let tally = Arc::new(Tally { shown, count: AtomicU64::new(0) });
    (Counter::from_arc(Arc::clone(&tally)), tally)
}

impl Tally {
    /// What was counted since the start.
    pub(super) fn read(&self) -> u64 {
        self.count.load(Relaxed)
    }
}

impl CounterFn for Tally {
    fn increment(&self, by: u64) {
        self.shown.increment(by);
        self.count.fetch_add(by, Relaxed);
    }

    fn absolute(&self, to: u64) {
        self.shown.absolute(to);
        self.count.fetch_max(to, Relaxed);
    }
}

impl std::fmt::Debug for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Tally").field(&self.read()).finish()
    }
}
