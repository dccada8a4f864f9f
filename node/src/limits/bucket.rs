//! One quota of one agent or address: `governor`'s rate limiter on the relay's clock.
//!
//! Owns the bucket's only state, the time at which it will be full again, and so can do what
//! governor's own state cannot: tell whether the bucket is full, and put back what was taken.

use std::{sync::Arc, time::Duration};

use governor::{
    Quota, RateLimiter,
    clock::{Clock as _, Reference},
    middleware::NoOpMiddleware,
    nanos::Nanos,
    state::{NotKeyed, StateStore},
};
use parking_lot::Mutex;

use crate::clock::Clock;

/// The longest time in which a bucket is full again, whatever other nodes said of it.
const DEBT_MAX: Duration = Duration::from_hours(1);

/// A quota that may be used up at once and then refills evenly.
#[derive(Debug)]
pub(super) struct Bucket {
    limiter: RateLimiter<NotKeyed, FullAt, RelayClock, NoOpMiddleware<Duration>>,
    full_at: FullAt,
    start: Duration,
}

/// What a bucket held at some moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Level(Option<Nanos>);

impl Bucket {
    /// A full bucket.
    pub(super) fn new(quota: Quota, clock: &Clock) -> Self {
        let full_at = FullAt::default();
        let limiter = RateLimiter::new(quota, full_at.clone(), RelayClock(clock.clone()));
        Self { limiter, full_at, start: clock.elapsed() }
    }

    /// Takes one, or says how long to wait until there is one.
    pub(super) fn take(&self) -> Result<(), Duration> {
        self.limiter.check().map_err(|until| until.wait_time_from(self.limiter.clock().now()))
    }

    /// What the bucket holds now.
    pub(super) fn level(&self) -> Level {
        Level(*self.full_at.0.lock())
    }

    /// Puts the bucket back to `level`. Whoever took from it in between takes for nothing: the
    /// caller sees to it that nobody does.
    pub(super) fn put_back(&self, level: Level) {
        *self.full_at.0.lock() = level.0;
    }

    /// Whether the bucket is full: as good as a new one.
    pub(super) fn is_full(&self) -> bool {
        self.debt().is_zero()
    }

    /// How long the bucket will take to be full.
    pub(super) fn debt(&self) -> Duration {
        let full_at = self.full_at.0.lock().map_or(0, Nanos::as_u64);
        Duration::from_nanos(full_at.saturating_sub(self.age().as_u64()))
    }

    /// Lets the bucket be full so much later, but in [`DEBT_MAX`] at the latest.
    pub(super) fn add_debt(&self, debt: Duration) {
        let sum = self.debt().saturating_add(debt).min(DEBT_MAX);
        *self.full_at.0.lock() = Some(self.age() + Nanos::from(sum));
    }

    fn age(&self) -> Nanos {
        self.limiter.clock().now().duration_since(self.start)
    }
}

/// When a bucket will be full, counted from its making ("theoretical arrival time" in governor's
/// terms); none if nothing was ever taken.
#[derive(Clone, Debug, Default)]
struct FullAt(Arc<Mutex<Option<Nanos>>>);

impl StateStore for FullAt {
    type Key = NotKeyed;

    fn measure_and_replace<T, F, E>(&self, _key: &NotKeyed, measure: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let mut full_at = self.0.lock();
        let (outcome, next) = measure(*full_at)?;
        *full_at = Some(next);
        Ok(outcome)
    }
}

/// The relay's clock, as governor reads one.
#[derive(Clone, Debug)]
struct RelayClock(Clock);

impl governor::clock::Clock for RelayClock {
    type Instant = Duration;

    fn now(&self) -> Duration {
        self.0.elapsed()
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use cluster::UnixMillis;

    use super::*;

    fn two_per_minute() -> (Bucket, Clock) {
        let clock = Clock::manual(UnixMillis(0));
        clock.advance(Duration::from_secs(7)); // a bucket is rarely as old as its clock
        let quota = Quota::per_minute(NonZeroU32::MIN.saturating_add(1));
        (Bucket::new(quota, &clock), clock)
    }

    #[test]
    fn a_bucket_gives_its_quota_at_once_and_then_evenly() {
        let (bucket, clock) = two_per_minute();
        assert_eq!((bucket.take(), bucket.take()), (Ok(()), Ok(())));
        assert_eq!(bucket.take(), Err(Duration::from_secs(30)));
        clock.advance(Duration::from_secs(29));
        assert_eq!(bucket.take(), Err(Duration::from_secs(1)));
        clock.advance(Duration::from_secs(1));
        assert_eq!(bucket.take(), Ok(()));
        assert_eq!(bucket.take(), Err(Duration::from_secs(30)));
    }

    #[test]
    fn a_bucket_is_full_when_all_has_refilled() {
        let (bucket, clock) = two_per_minute();
        assert!(bucket.is_full());
        let _ = (bucket.take(), bucket.take(), bucket.take());
        clock.advance(Duration::from_millis(59_999));
        assert!(!bucket.is_full());
        clock.advance(Duration::from_millis(1));
        assert!(bucket.is_full());
    }

    #[test]
    fn what_is_put_back_can_be_taken_again() {
        let (bucket, _clock) = two_per_minute();
        let full = bucket.level();
        let _ = (bucket.take(), bucket.take());
        bucket.put_back(full);
        assert!(bucket.is_full());
        assert_eq!((bucket.take(), bucket.take()), (Ok(()), Ok(())));
        assert!(bucket.take().is_err());
    }

    #[test]
    fn a_debt_moves_from_one_bucket_to_another() {
        let ((from, _), (to, clock)) = (two_per_minute(), two_per_minute());
        let _ = (from.take(), to.take());
        to.add_debt(from.debt());
        assert_eq!(to.take(), Err(Duration::from_secs(30)), "each took one of two");
        clock.advance(Duration::from_mins(1));
        assert!(to.is_full());
    }

    #[test]
    fn no_debt_is_for_ever() {
        let (bucket, clock) = two_per_minute();
        bucket.add_debt(Duration::MAX);
        clock.advance(DEBT_MAX);
        assert!(bucket.is_full());
    }

    #[test]
    fn a_bucket_is_small() {
        // With the 40 bytes that its state takes on the heap: what the limits' arithmetic counts on.
        assert!(size_of::<Bucket>() <= 96, "{}", size_of::<Bucket>());
    }
}
