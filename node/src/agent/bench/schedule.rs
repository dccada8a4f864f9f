//! When a message is to be sent: on a fixed schedule, or as soon as others have arrived.
//!
//! Pure arithmetic. The schedule goes on while the relay does not, so that a message that had to wait
//! is measured from the time at which it should have been sent; a generator that waits with the relay
//! would leave out just those waits.

use super::args::Rate;

/// Nanoseconds in a second.
pub(super) const SECOND_NS: u64 = 1_000_000_000;

/// Nanoseconds times messages per 1,000 s that make one message.
const ONE_MESSAGE: u128 = 1_000 * SECOND_NS as u128;

/// How senders are paced.
#[derive(Clone, Copy, Debug)]
pub(super) enum Pacing {
    /// By a schedule, whatever the relay does: an open loop.
    Fixed(Schedule),
    /// At most so many messages of each sender under way: a closed loop, as fast as it goes.
    Window(u64),
}

/// Messages at a fixed rate, each sender's turn after the other's.
#[derive(Clone, Copy, Debug)]
pub(super) struct Schedule {
    start_ns: u64,
    senders: u64,
    rate: Rate,
}

impl Schedule {
    /// A schedule of `rate` for all `senders` together, from `start_ns` on.
    pub(super) fn new(start_ns: u64, senders: usize, rate: Rate) -> Self {
        let senders = u64::try_from(senders).unwrap_or(u64::MAX).max(1);
        Self { start_ns, senders, rate }
    }

    /// When the message is due that comes after `before` others, of whichever sender.
    pub(super) fn turn_ns(&self, before: u64) -> u64 {
        let after = u128::from(before) * ONE_MESSAGE / u128::from(self.rate.per_1000_s());
        self.start_ns.saturating_add(u64::try_from(after).unwrap_or(u64::MAX))
    }

    /// Whose turn that is.
    pub(super) fn turn_of(&self, before: u64) -> usize {
        usize::try_from(before % self.senders).unwrap_or_default()
    }

    /// When this sender's message is due before which it sends `number` others.
    pub(super) fn due_ns(&self, sender: usize, number: u64) -> u64 {
        let sender = u64::try_from(sender).unwrap_or_default();
        self.turn_ns(number.saturating_mul(self.senders).saturating_add(sender))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn schedule(senders: usize, rate: &str) -> Schedule {
        Schedule::new(5, senders, rate.parse().expect("a rate"))
    }

    #[test]
    fn messages_are_evenly_spread_over_time_and_senders() {
        let schedule = schedule(4, "1000");
        let ms = 1_000_000;
        assert_eq!(
            [0, 1, 2, 3].map(|s| schedule.due_ns(s, 0)),
            [5, ms + 5, 2 * ms + 5, 3 * ms + 5]
        );
        assert_eq!(schedule.due_ns(0, 1), 4 * ms + 5);
        assert_eq!([0, 1, 4, 7].map(|before| schedule.turn_of(before)), [0, 1, 0, 3]);
    }

    #[test]
    fn a_slow_and_an_odd_rate_do_not_drift() {
        assert_eq!(schedule(1, "0.5").due_ns(0, 3), 6 * SECOND_NS + 5);
        assert_eq!(schedule(3, "3").due_ns(0, 1_000_000), 1_000_000 * SECOND_NS + 5);
    }

    proptest! {
        #[test]
        fn a_turn_is_its_senders_next_message(senders in 1_usize..50, before in 0_u64..100_000) {
            let schedule = schedule(senders, "12345.678");
            let count = u64::try_from(senders).expect("a small number");
            let due = schedule.due_ns(schedule.turn_of(before), before / count);
            prop_assert_eq!(due, schedule.turn_ns(before));
        }
    }
}
