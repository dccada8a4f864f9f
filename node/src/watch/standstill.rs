//! Whether this process stood still: what the others make of it then, it must not blame on them. Pure.

use std::time::Duration;

use cluster::UnixMillis;

use super::ROUND;
use crate::clock::Clock;

/// A round that comes so much too late is worth a word: within less, no node takes another for dead.
const LATE_MIN: Duration = Duration::from_secs(2);

/// A moment by both clocks of the machine. The one stands still while a machine sleeps, the other is
/// sometimes set.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    elapsed: Duration,
    wall: UnixMillis,
}

impl Moment {
    /// Now.
    pub(super) fn now(clock: &Clock) -> Self {
        Self { elapsed: clock.elapsed(), wall: clock.wall() }
    }

    /// What to tell if much more than a round has passed since the round `before`.
    pub(super) fn standstill(self, before: Self) -> Option<String> {
        let taken = self.elapsed.saturating_sub(before.elapsed);
        let by_wall = Duration::from_millis(self.wall.0.saturating_sub(before.wall.0));
        let (late, jump) = (taken.saturating_sub(ROUND), by_wall.saturating_sub(taken));
        if late > LATE_MIN {
            return Some(format!(
                "this process stood still for {:.1} s: the machine was suspended or overloaded; others may \
                 have taken this node for dead",
                late.as_secs_f64()
            ));
        }
        (jump > LATE_MIN).then(|| {
            format!(
                "this machine's clock went ahead by {:.1} s: it was set, or the machine was suspended, and \
                 others may have taken this node for dead",
                jump.as_secs_f64()
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is told of a round that took so long, by both clocks, in milliseconds.
    fn told(elapsed: u64, wall: u64) -> Option<String> {
        let start = Moment { elapsed: Duration::from_secs(5), wall: UnixMillis(1_800_000_000_000) };
        let taken = Duration::from_millis(elapsed);
        let wall = UnixMillis(start.wall.0 + wall);
        Moment { elapsed: start.elapsed + taken, wall }.standstill(start)
    }

    #[test]
    fn a_round_that_comes_in_time_is_not_worth_a_word() {
        for millis in [0, 1_000, 1_400, 3_000] {
            assert_eq!(told(millis, millis), None);
        }
        assert_eq!(told(1_000, 0), None, "a clock that is set back says nothing of this process");
        assert_eq!(told(1_000, 3_000), None);
    }

    #[test]
    fn a_process_that_was_stopped_says_for_how_long() {
        let said = told(13_300, 13_300).expect("it was stopped");
        assert!(said.starts_with("this process stood still for 12.3 s: "), "{said}");
        assert!(told(3_001, 3_001).is_some());
    }

    #[test]
    fn a_machine_that_slept_is_told_by_its_wall_clock() {
        let said = told(1_000, 61_000).expect("it slept");
        assert!(said.starts_with("this machine's clock went ahead by 60.0 s: "), "{said}");
    }
}
