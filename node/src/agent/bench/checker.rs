//! Whether what one sender sent to one recipient came once, and in order.
//!
//! Pure: follows the numbers of the messages, and knows no clock and no socket.

use std::collections::BTreeMap;

use serde::Serialize;

/// What was wrong with the delivery, in messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Faults {
    /// Never came.
    pub(super) lost: u64,
    /// Came again after they had come.
    pub(super) twice: u64,
    /// Came after a later one.
    pub(super) out_of_order: u64,
    /// Came with another payload or sender than they were sent with, or to somebody else.
    pub(super) spoilt: u64,
}

impl Faults {
    /// Whether there is none.
    pub(super) fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// Counts the other's, too.
    pub(super) fn add(&mut self, other: &Self) {
        self.lost += other.lost;
        self.twice += other.twice;
        self.out_of_order += other.out_of_order;
        self.spoilt += other.spoilt;
    }
}

/// What one recipient has of one sender: constant memory while all is well, and some bytes for each
/// gap.
#[derive(Debug, Default)]
pub(super) struct Stream {
    /// The number after the highest seen.
    next: u64,
    /// What was skipped: first number and the number after the last.
    gaps: BTreeMap<u64, u64>,
    twice: u64,
    out_of_order: u64,
}

impl Stream {
    /// Notes that a message came; whether it came for the first time.
    pub(super) fn note(&mut self, number: u64) -> bool {
        if number >= self.next {
            if number > self.next {
                self.gaps.insert(self.next, number);
            }
            self.next = number.saturating_add(1);
            return true;
        }
        let was_missing = self.fill(number);
        if was_missing {
            self.out_of_order += 1;
        } else {
            self.twice += 1;
        }
        was_missing
    }

    /// What was wrong, now that nothing more comes of the `sent` messages.
    pub(super) fn faults(&self, sent: u64) -> Faults {
        let skipped: u64 = self.gaps.iter().map(|(first, end)| end - first).sum();
        Faults {
            lost: skipped + sent.saturating_sub(self.next),
            twice: self.twice,
            out_of_order: self.out_of_order,
            // What was never sent cannot have come.
            spoilt: self.next.saturating_sub(sent),
        }
    }

    /// Takes a number out of the gap it is in, if it is in one.
    fn fill(&mut self, number: u64) -> bool {
        let Some((first, end)) = self.gaps.range(..=number).next_back().map(|(f, e)| (*f, *e))
        else {
            return false;
        };
        if number >= end {
            return false;
        }
        self.gaps.remove(&first);
        if first < number {
            self.gaps.insert(first, number);
        }
        if number + 1 < end {
            self.gaps.insert(number + 1, end);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The faults when these numbers came of so many that were sent: (lost, twice, out of order).
    fn faults(came: &[u64], sent: u64) -> (u64, u64, u64) {
        let mut stream = Stream::default();
        for number in came {
            stream.note(*number);
        }
        let Faults { lost, twice, out_of_order, .. } = stream.faults(sent);
        (lost, twice, out_of_order)
    }

    #[test]
    fn all_once_and_in_order_is_no_fault() {
        assert_eq!(faults(&[0, 1, 2, 3], 4), (0, 0, 0));
        assert_eq!(faults(&[], 0), (0, 0, 0));
    }

    #[test]
    fn what_did_not_come_is_lost() {
        assert_eq!(faults(&[0, 1], 4), (2, 0, 0));
        assert_eq!(faults(&[1, 3], 4), (2, 0, 0));
        assert_eq!(faults(&[], 4), (4, 0, 0));
    }

    #[test]
    fn what_came_again_came_twice() {
        assert_eq!(faults(&[0, 1, 1, 0, 2], 3), (0, 2, 0));
        assert_eq!(faults(&[0, 4, 4, 2, 2], 5), (2, 2, 1));
    }

    #[test]
    fn what_a_later_one_overtook_is_out_of_order_and_not_lost() {
        assert_eq!(faults(&[0, 2, 1, 3], 4), (0, 0, 1));
        assert_eq!(faults(&[4, 2, 0, 1, 3], 5), (0, 0, 4));
    }

    #[test]
    fn what_was_never_sent_is_spoilt() {
        let mut stream = Stream::default();
        stream.note(0);
        stream.note(1);
        assert_eq!(stream.faults(1), Faults { spoilt: 1, ..Faults::default() });
        assert!(!stream.faults(1).is_none());
    }

    proptest! {
        /// The ranges count as a set of all numbers would.
        #[test]
        fn counts_are_those_of_a_simple_set(came in prop::collection::vec(0_u64..40, 0..120)) {
            let mut seen = std::collections::BTreeSet::new();
            let (mut twice, mut late) = (0, 0);
            for number in &came {
                if seen.last().is_some_and(|last| last > number) && !seen.contains(number) {
                    late += 1;
                }
                twice += u64::from(!seen.insert(*number));
            }
            let lost = 40 - u64::try_from(seen.len()).expect("a small number");
            prop_assert_eq!(faults(&came, 40), (lost, twice, late));
        }
    }
}
