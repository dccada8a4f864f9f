//! The origin's side of broadcasts, one lane of it: their numbers, and the last of them for those
//! that missed one.

use std::{collections::VecDeque, time::Duration};

use super::kept::KeptBroadcast;
use crate::wire::Broadcast;

/// How many bytes of broadcasts one lane keeps for those that missed one; on all lanes of a node 32
/// MiB.
pub(crate) const RETAINED_BYTES_MAX: usize = 8 << 20;

/// How long they are kept: as long as a receiver may wait for its lane to say that there are any.
pub(crate) const RETAINED_FOR: Duration = Duration::from_secs(30);

/// How many bytes one `Resend` is answered with, if they are more than one broadcast: who missed more
/// asks again, so that a slow link is not buried under what it is slow with.
const RESENT_BYTES_MAX: usize = 1 << 20;

/// This node's broadcasts on one lane.
#[derive(Debug, Default)]
pub(crate) struct Sent {
    last: u64,
    /// In the order of their numbers.
    retained: VecDeque<(Duration, KeptBroadcast)>,
    retained_bytes: usize,
}

impl Sent {
    /// The number of one more broadcast; the first is 1.
    pub(crate) fn next_number(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    /// The number of the last broadcast; 0 if there was none.
    pub(crate) fn last(&self) -> u64 {
        self.last
    }

    /// Keeps a broadcast, in the order of their numbers, for [`resend`](Self::resend). Called only
    /// while there is another region; the oldest give way.
    pub(crate) fn retain(&mut self, broadcast: &Broadcast<'_>, now: Duration) {
        let kept = KeptBroadcast::share(broadcast);
        self.retained_bytes += kept.bytes();
        self.retained.push_back((now, kept));
        self.expire(now);
    }

    /// Forgets what was kept for long enough; [`retain`](Self::retain) does so too.
    pub(crate) fn expire(&mut self, now: Duration) {
        while let Some((at, oldest)) = self.retained.front() {
            let old = now.saturating_sub(*at) >= RETAINED_FOR;
            if !old && self.retained_bytes <= RETAINED_BYTES_MAX {
                break;
            }
            self.retained_bytes -= oldest.bytes();
            self.retained.pop_front();
        }
    }

    /// What is kept of the broadcasts `from` to `to`, in order, as much as one answer carries.
    pub(crate) fn resend(&self, from: u64, to: u64) -> impl Iterator<Item = Broadcast<'_>> {
        let first = self.retained.partition_point(|(_, kept)| kept.seq < from);
        let mut bytes = 0;
        let fits = move |kept: &&KeptBroadcast| {
            let is_first = bytes == 0;
            bytes += kept.bytes();
            is_first || bytes <= RESENT_BYTES_MAX
        };
        let range = self.retained.range(first..).map(|(_, kept)| kept);
        range.take_while(move |kept| kept.seq <= to).take_while(fits).map(KeptBroadcast::frame)
    }

    /// How many bytes are kept.
    #[cfg(test)]
    pub(crate) fn retained_bytes(&self) -> usize {
        self.retained_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Body, Names};

    /// Sends and keeps one with a body of so many bytes.
    fn send(sent: &mut Sent, bytes: usize, now: Duration) -> u64 {
        let (seq, body) = (sent.next_number(), vec![0; bytes]);
        let body = Body::Borrowed(&body);
        sent.retain(&Broadcast { seq, from: "ann", except: Names::NONE, body }, now);
        seq
    }

    fn resent(sent: &Sent, from: u64, to: u64) -> Vec<u64> {
        sent.resend(from, to).map(|broadcast| broadcast.seq).collect()
    }

    #[test]
    fn what_was_missed_is_there_for_a_time() {
        let mut sent = Sent::default();
        assert_eq!((sent.last(), sent.next_number()), (0, 1));
        for second in 0..5 {
            send(&mut sent, 10, Duration::from_secs(second));
        }
        assert_eq!(resent(&sent, 0, 3), [2, 3], "the first was not kept");
        assert_eq!(resent(&sent, 4, u64::MAX), [4, 5, 6]);
        assert_eq!(resent(&sent, 7, 9), [] as [u64; 0]);
        sent.expire(RETAINED_FOR + Duration::from_secs(2));
        assert_eq!(resent(&sent, 1, 9), [5, 6]);
        sent.expire(RETAINED_FOR * 2);
        assert_eq!((sent.retained_bytes(), sent.last()), (0, 6));
    }

    #[test]
    fn the_oldest_give_way() {
        let mut sent = Sent::default();
        for _ in 0..40 {
            send(&mut sent, 1 << 20, Duration::ZERO);
            assert!(sent.retained_bytes() <= RETAINED_BYTES_MAX);
        }
        assert_eq!(resent(&sent, 1, 40).first(), Some(&34));
    }

    #[test]
    fn one_answer_carries_so_much_and_at_least_one() {
        let mut sent = Sent::default();
        for bytes in [2 << 20, 400 << 10, 400 << 10, 400 << 10] {
            send(&mut sent, bytes, Duration::ZERO);
        }
        assert_eq!(resent(&sent, 1, 4), [1]);
        assert_eq!(resent(&sent, 2, 4), [2, 3]);
        assert_eq!(resent(&sent, 4, 4), [4]);
    }
}
