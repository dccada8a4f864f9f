//! Times as a distribution, never as an average alone.
//!
//! Values are kept to three digits (`hdrhistogram`); a percentile is therefore right to 0.1 %.

use hdrhistogram::Histogram;
use parking_lot::Mutex;
use serde::Serialize;

/// Shortest time that is told apart from none, in nanoseconds.
const SHORTEST_NS: u64 = 100;
/// Longest time that is told apart from longer ones, in nanoseconds: a minute.
const LONGEST_NS: u64 = 60_000_000_000;
/// Digits kept of each value.
const DIGITS: u8 = 3;
/// Histograms that recipients share among them, so that few wait for each other; each has 200 KB.
const SHARDS: usize = 8;

/// Times that many tasks record.
pub(super) struct Times {
    shards: Box<[Mutex<Histogram<u64>>]>,
}

/// What is told of a distribution, in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Percentiles {
    /// Values in it.
    pub(super) count: u64,
    /// The mean, which hides what the others show.
    pub(super) mean: f64,
    /// Half of all are not above this.
    pub(super) p50: f64,
    /// Nine of ten.
    pub(super) p90: f64,
    /// 99 of 100.
    pub(super) p99: f64,
    /// 999 of 1,000.
    pub(super) p99_9: f64,
    /// The largest.
    pub(super) max: f64,
}

impl Times {
    /// None recorded.
    pub(super) fn new() -> Self {
        Self { shards: (0..SHARDS).map(|_| Mutex::new(histogram())).collect() }
    }

    /// Records times in nanoseconds; `by` spreads those who record.
    pub(super) fn record(&self, by: usize, times_ns: &[u64]) {
        let Some(shard) = self.shards.get(by % SHARDS).filter(|_| !times_ns.is_empty()) else {
            return;
        };
        let mut shard = shard.lock();
        for time in times_ns {
            shard.saturating_record(*time);
        }
    }

    /// What was recorded so far; none if that is nothing.
    pub(super) fn percentiles(&self) -> Option<Percentiles> {
        let mut all = histogram();
        for shard in &self.shards {
            // All have the same bounds, so that adding cannot fail.
            let _ = all.add(&*shard.lock());
        }
        (!all.is_empty()).then(|| Percentiles::of(&all))
    }
}

impl Percentiles {
    fn of(times: &Histogram<u64>) -> Self {
        let at = |quantile| micros(times.value_at_quantile(quantile).min(times.max()));
        Self {
            count: times.len(),
            mean: tenths(times.mean() / 1_000.0),
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p99_9: at(0.999),
            max: micros(times.max()),
        }
    }
}

fn histogram() -> Histogram<u64> {
    let made = Histogram::new_with_bounds(SHORTEST_NS, LONGEST_NS, DIGITS);
    made.expect("the bounds are constants, and in order")
}

#[allow(clippy::cast_precision_loss)] // below 2^53 ns, which are a hundred days
fn micros(ns: u64) -> f64 {
    tenths(ns as f64 / 1_000.0)
}

fn tenths(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_of_a_known_distribution() {
        let times = Times::new();
        assert_eq!(times.percentiles(), None);
        for n in 1..=1_000 {
            times.record(usize::try_from(n).expect("a small number"), &[n * 1_000]);
        }
        let found = times.percentiles().expect("times were recorded");
        assert_eq!(found.count, 1_000);
        for (is, should) in [
            (found.mean, 500.5),
            (found.p50, 500.0),
            (found.p90, 900.0),
            (found.p99, 990.0),
            (found.p99_9, 999.0),
            (found.max, 1_000.0),
        ] {
            assert!((is - should).abs() / should < 0.002, "{is} is not {should}");
        }
    }

    #[test]
    fn one_stall_shows_in_the_tail_and_what_is_too_long_is_kept_as_the_longest() {
        let times = Times::new();
        times.record(0, &[1_000_000; 999]);
        times.record(1, &[u64::MAX]);
        let found = times.percentiles().expect("times were recorded");
        assert!(found.p99 < 1_002.0 && found.max >= 60_000_000.0, "{found:?}");
    }
}
