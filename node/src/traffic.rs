//! How many messages were accepted within the last minute.

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

/// Seconds looked back on.
const WINDOW: usize = 60;

/// A count that is cheap to add to, and its growth over the last minute.
#[derive(Debug)]
pub struct Traffic {
    total: AtomicU64,
    /// The total at each of the last seconds, oldest overwritten first.
    seconds: Mutex<Seconds>,
}

#[derive(Debug)]
struct Seconds {
    totals: [u64; WINDOW],
    next: usize,
}

impl Default for Traffic {
    fn default() -> Self {
        Self {
            total: AtomicU64::new(0),
            seconds: Mutex::new(Seconds { totals: [0; WINDOW], next: 0 }),
        }
    }
}

impl Traffic {
    /// Counts messages.
    pub fn count(&self, messages: u64) {
        if messages > 0 {
            self.total.fetch_add(messages, Ordering::Relaxed);
        }
    }

    /// To be called once a second.
    pub fn second(&self) {
        let total = self.total.load(Ordering::Relaxed);
        let mut seconds = self.seconds.lock();
        let next = seconds.next;
        if let Some(oldest) = seconds.totals.get_mut(next) {
            *oldest = total;
        }
        seconds.next = (next + 1) % WINDOW;
    }

    /// Messages counted within the last minute, to the second.
    pub fn last_minute(&self) -> u64 {
        let seconds = self.seconds.lock();
        let then = seconds.totals.get(seconds.next).copied().unwrap_or_default();
        self.total.load(Ordering::Relaxed).saturating_sub(then)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_counts_for_a_minute() {
        let traffic = Traffic::default();
        traffic.count(5);
        assert_eq!(traffic.last_minute(), 5);
        traffic.second();
        traffic.count(2);
        for _ in 0..WINDOW - 1 {
            assert_eq!(traffic.last_minute(), 7);
            traffic.second();
        }
        assert_eq!(traffic.last_minute(), 2);
        traffic.second();
        assert_eq!(traffic.last_minute(), 0);
    }
}
