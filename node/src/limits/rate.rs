//! How many messages one agent may send (PROTOCOL section 8).
//!
//! Owns an agent's quotas and the count of its refusals. They belong to the agent, not to its
//! session: whoever holds a limiter keeps it across reconnects, until [`AgentLimiter::is_idle`].

use std::{num::NonZeroU32, time::Duration};

use cluster::wire::Spent;
use governor::Quota;
use parking_lot::Mutex;
use smallvec::SmallVec;

use super::bucket::{Bucket, Level};
use crate::clock::Clock;

/// Refusals within [`REFUSAL_WINDOW`] that any agent has, however small its quota: a client that
/// backs off only after it has read the first refusal must not be cut off for what was on its way.
pub const REFUSALS_MIN: u32 = 20;

/// How long refusals are counted together, from the first of them.
pub const REFUSAL_WINDOW: Duration = Duration::from_mins(1);

/// What is to become of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It may go on its way; it has been counted.
    Pass,
    /// It is dropped and the agent told `rate_limit`; it has not been counted.
    Refused {
        /// How long until the next message would pass; becomes `retry_ms`, rounded up.
        retry: Duration,
    },
    /// It is dropped and the session closed with 4029: the agent does not heed its refusals.
    CutOff,
}

/// The quotas of one agent: so many messages at once, refilled evenly over a minute and an hour.
///
/// A message passes if **both** have room. One that is refused takes from neither: each quota is
/// asked, and if one of them is empty the other gets back what it gave. So an agent that hammers at
/// its empty hour still has its full minute when the hour has room again, and the other way round.
///
/// About 350 bytes per agent that is not idle.
#[derive(Debug)]
pub struct AgentLimiter {
    minute: Option<Bucket>,
    hour: Option<Bucket>,
    refusals_max: u32,
    clock: Clock,
    /// Held while the buckets are asked, so that nobody takes between a taking and a putting back.
    refusals: Mutex<Refusals>,
}

impl AgentLimiter {
    /// Full quotas of `per_min` and `per_hour` messages; 0 switches one off, and if both are off
    /// there is nothing to limit.
    pub fn new(per_min: u32, per_hour: u32, clock: &Clock) -> Option<Self> {
        let bucket = |quota| Bucket::new(quota, clock);
        let minute = NonZeroU32::new(per_min).map(Quota::per_minute).map(bucket);
        let hour = NonZeroU32::new(per_hour).map(Quota::per_hour).map(bucket);
        (minute.is_some() || hour.is_some()).then(|| Self {
            minute,
            hour,
            refusals_max: per_min.max(REFUSALS_MIN),
            clock: clock.clone(),
            refusals: Mutex::default(),
        })
    }

    /// Judges one message, now.
    ///
    /// Refused messages beyond a minute's quota, or [`REFUSALS_MIN`] if that is more, within
    /// [`REFUSAL_WINDOW`] are answered by [`Verdict::CutOff`]; so is, until the window ends, every
    /// further one of an agent that comes back at once.
    pub fn judge(&self) -> Verdict {
        let mut refusals = self.refusals.lock();
        match self.take() {
            Ok(()) => Verdict::Pass,
            Err(_) if refusals.add(1, self.clock.elapsed()) > self.refusals_max => Verdict::CutOff,
            Err(retry) => Verdict::Refused { retry },
        }
    }

    /// Whether this limiter is as good as a new one, so that it may be forgotten.
    pub fn is_idle(&self) -> bool {
        let refusals = self.refusals.lock();
        refusals.are_over(self.clock.elapsed()) && self.buckets().all(Bucket::is_full)
    }

    /// What the agent has spent and not got back yet, for the node where it goes on.
    pub fn spent(&self) -> Spent {
        let refusals = self.refusals.lock();
        let debt = |bucket: &Option<Bucket>| {
            let debt = bucket.as_ref().map_or(Duration::ZERO, Bucket::debt);
            u64::try_from(debt.as_nanos()).unwrap_or(u64::MAX)
        };
        Spent {
            minute_ns: debt(&self.minute),
            hour_ns: debt(&self.hour),
            refusals: if refusals.are_over(self.clock.elapsed()) { 0 } else { refusals.count },
        }
    }

    /// Adds what the agent has spent on another node to what it has spent here.
    pub fn absorb(&self, spent: &Spent) {
        let mut refusals = self.refusals.lock();
        for (bucket, debt_ns) in [(&self.minute, spent.minute_ns), (&self.hour, spent.hour_ns)] {
            if let Some(bucket) = bucket {
                bucket.add_debt(Duration::from_nanos(debt_ns));
            }
        }
        if spent.refusals > 0 {
            refusals.add(spent.refusals, self.clock.elapsed());
        }
    }

    /// Takes one from each bucket, or from none, and then gives the longest wait.
    fn take(&self) -> Result<(), Duration> {
        let levels: SmallVec<[Level; 2]> = self.buckets().map(Bucket::level).collect();
        let Some(wait) = self.buckets().filter_map(|bucket| bucket.take().err()).max() else {
            return Ok(());
        };
        self.buckets().zip(levels).for_each(|(bucket, level)| bucket.put_back(level));
        Err(wait)
    }

    fn buckets(&self) -> impl Iterator<Item = &Bucket> {
        self.minute.iter().chain(&self.hour)
    }
}

/// How often an agent was refused since the first refusal of the current window.
#[derive(Debug, Default)]
struct Refusals {
    since: Duration,
    count: u32,
}

impl Refusals {
    /// Counts so many more, and gives the count.
    fn add(&mut self, more: u32, now: Duration) -> u32 {
        if self.are_over(now) {
            *self = Self { since: now, count: 0 };
        }
        self.count = self.count.saturating_add(more);
        self.count
    }

    fn are_over(&self, now: Duration) -> bool {
        self.count == 0 || now.saturating_sub(self.since) >= REFUSAL_WINDOW
    }
}

#[cfg(test)]
mod tests {
    use cluster::UnixMillis;
    use proptest::prelude::*;

    use super::*;

    fn limiter(per_min: u32, per_hour: u32) -> (AgentLimiter, Clock) {
        let clock = Clock::manual(UnixMillis(0));
        let limiter = AgentLimiter::new(per_min, per_hour, &clock).expect("one of them is on");
        (limiter, clock)
    }

    /// How many pass of `count` messages sent at once.
    fn passed(limiter: &AgentLimiter, count: u32) -> usize {
        (0..count).filter(|_| limiter.judge() == Verdict::Pass).count()
    }

    fn retry(limiter: &AgentLimiter) -> Duration {
        match limiter.judge() {
            Verdict::Refused { retry } => retry,
            verdict => panic!("{verdict:?}"),
        }
    }

    #[test]
    fn nothing_is_limited_when_both_are_off() {
        assert!(AgentLimiter::new(0, 0, &Clock::manual(UnixMillis(0))).is_none());
    }

    #[test]
    fn either_quota_limits_alone() {
        assert_eq!(passed(&limiter(5, 0).0, 20), 5);
        assert_eq!(passed(&limiter(0, 7).0, 20), 7);
        assert_eq!(passed(&limiter(5, 7).0, 20), 5);
        assert_eq!(passed(&limiter(7, 5).0, 20), 5);
    }

    #[test]
    fn a_quota_refills_evenly() {
        let (limiter, clock) = limiter(60, 0);
        assert_eq!(passed(&limiter, 60), 60);
        assert_eq!(retry(&limiter), Duration::from_secs(1));
        clock.advance(Duration::from_secs(3));
        assert_eq!(passed(&limiter, 10), 3);
    }

    #[test]
    fn retry_is_the_moment_at_which_a_message_passes() {
        let (limiter, clock) = limiter(100, 110);
        for _ in 0..100 {
            limiter.judge();
        }
        while limiter.judge() != Verdict::Pass {
            let wait = retry(&limiter);
            clock.advance(wait.saturating_sub(Duration::from_nanos(1)));
            assert_eq!(retry(&limiter), Duration::from_nanos(1));
            clock.advance(Duration::from_nanos(1));
        }
    }

    #[test]
    fn the_longer_wait_is_told() {
        let (limiter, _clock) = limiter(2, 2);
        assert_eq!(passed(&limiter, 2), 2);
        assert_eq!(retry(&limiter), Duration::from_mins(30), "the hour's, not the minute's");
    }

    #[test]
    fn hammering_at_an_empty_hour_leaves_the_minute_alone() {
        let (limiter, clock) = limiter(10, 20);
        assert_eq!(passed(&limiter, 10), 10);
        clock.advance(Duration::from_mins(1));
        assert_eq!(passed(&limiter, 30), 10);
        // The hour gives its next one two minutes later: all that time the agent hammers.
        for _ in 0..119 {
            clock.advance(Duration::from_secs(1));
            assert_ne!(limiter.judge(), Verdict::Pass);
        }
        assert!(limiter.minute.as_ref().unwrap().is_full(), "refusals took from the minute");
    }

    #[test]
    fn hammering_at_an_empty_minute_leaves_the_hour_alone() {
        let (limiter, clock) = limiter(10, 20);
        assert_eq!(passed(&limiter, 1_000), 10);
        clock.advance(Duration::from_mins(1));
        assert_eq!(passed(&limiter, 1_000), 10);
    }

    #[test]
    fn who_keeps_on_is_cut_off() {
        let (limiter, _clock) = limiter(30, 0);
        assert_eq!(passed(&limiter, 30), 30);
        for _ in 0..30 {
            retry(&limiter);
        }
        assert_eq!(limiter.judge(), Verdict::CutOff);
        assert_eq!(limiter.judge(), Verdict::CutOff, "also on its next connection");
    }

    #[test]
    fn a_small_quota_does_not_cut_off_early() {
        let (limiter, _clock) = limiter(1, 0);
        assert_eq!(passed(&limiter, 1), 1);
        for _ in 0..REFUSALS_MIN {
            retry(&limiter);
        }
        assert_eq!(limiter.judge(), Verdict::CutOff);
    }

    #[test]
    fn refusals_are_forgiven_after_a_minute() {
        let (limiter, clock) = limiter(0, 1);
        assert_eq!(passed(&limiter, 1), 1);
        for _ in 0..3 {
            for _ in 0..REFUSALS_MIN {
                retry(&limiter);
            }
            clock.advance(REFUSAL_WINDOW);
        }
    }

    #[test]
    fn an_agent_that_has_cooled_down_after_being_cut_off_passes() {
        let (limiter, clock) = limiter(30, 0);
        while limiter.judge() != Verdict::CutOff {}
        clock.advance(REFUSAL_WINDOW);
        assert_eq!(passed(&limiter, 30), 30);
    }

    #[test]
    fn idle_means_full_and_without_recent_refusals() {
        let (limiter, clock) = limiter(10, 100);
        assert!(limiter.is_idle());
        limiter.judge();
        assert!(!limiter.is_idle());
        clock.advance(Duration::from_secs(35));
        assert!(!limiter.is_idle(), "the hour refills one in 36 s");
        clock.advance(Duration::from_secs(1));
        assert!(limiter.is_idle());
    }

    #[test]
    fn refusals_outlive_a_bucket_that_refills_fast() {
        let (limiter, clock) = limiter(0, 3_600_000);
        limiter.refusals.lock().add(1, clock.elapsed());
        clock.advance(Duration::from_secs(59));
        assert!(!limiter.is_idle());
        clock.advance(Duration::from_secs(1));
        assert!(limiter.is_idle());
    }

    #[test]
    fn a_limit_moves_with_its_agent() {
        let ((there, _), (here, clock)) = (limiter(10, 100), limiter(10, 100));
        assert_eq!((passed(&there, 12), passed(&here, 4)), (10, 4));
        here.absorb(&there.spent());
        assert_eq!(retry(&here), Duration::from_secs(30), "14 were sent, 10 a minute may be");
        clock.advance(Duration::from_secs(30));
        assert_eq!(passed(&here, 5), 1);
        assert_eq!(limiter(10, 100).0.spent(), Spent::default(), "nothing was spent");
    }

    #[test]
    fn refusals_move_with_their_agent() {
        let ((there, _), (here, _)) = (limiter(30, 0), limiter(30, 0));
        while there.judge() != Verdict::CutOff {}
        here.absorb(&there.spent());
        assert_eq!(here.judge(), Verdict::CutOff, "also on its next node");
    }

    #[test]
    fn what_is_limited_differently_elsewhere_counts_as_far_as_it_can() {
        let ((there, _), (here, _)) = (limiter(0, 10), limiter(10, 0));
        assert_eq!(passed(&there, 10), 10);
        here.absorb(&there.spent());
        assert_eq!(passed(&here, 10), 10);
    }

    proptest! {
        #[test]
        fn no_more_passes_than_the_quotas_give(
            (per_min, per_hour) in (0..50_u32, 0..200_u32),
            waits in proptest::collection::vec(0..20_000_u64, 1..300),
        ) {
            prop_assume!(per_min + per_hour > 0);
            let (limiter, clock) = limiter(per_min, per_hour);
            let mut passed = 0;
            for wait in waits {
                clock.advance(Duration::from_millis(wait));
                passed += u64::from(limiter.judge() == Verdict::Pass);
                let now = u64::try_from(clock.elapsed().as_millis()).expect("short");
                for (quota, window) in [(per_min, 60_000), (per_hour, 3_600_000)] {
                    let quota = u64::from(quota);
                    prop_assert!(quota == 0 || passed <= quota + now * quota / window + 1);
                }
            }
        }
    }
}
