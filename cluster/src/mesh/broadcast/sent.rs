//! The origin's side of broadcasts, one lane of it: their numbers, and the last of them for those
//! that missed one.

use std::{collections::VecDeque, time::Duration};

use super::kept::KeptBroadcast;
use crate::wire::Broadcast;

/// How many bytes of broadcasts one lane keeps for those that missed one; on all lanes of a node 32
/// MiB.
pub const RETAINED_BYTES_MAX: usize = 8 << 20;

/// How long they are kept: longer than any receiver waits for one.
pub const RETAINED_FOR: Duration = Duration::from_secs(10);

/// How many bytes one `Resend` is answered with, if they are more than one broadcast: who missed more
/// asks again, so that a slow link is not buried under what it is slow with.
const RESENT_BYTES_MAX: usize = 1 << 20;

/// This node's broadcasts on one lane.
#[derive(Debug, Default)]
pub struct Sent {
    last: u64,
    /// In the order of their numbers.
    retained: VecDeque<(Duration, KeptBroadcast)>,
    retained_bytes: usize,
}

impl Sent {
    /// The number of one more broadcast; the first is 1.
    pub fn next(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    /// The number of the last broadcast; 0 if there was none.
    pub fn last(&self) -> u64 {
        self.last
    }

    /// Keeps a broadcast, in the order of their numbers, for [`resend`](Self::resend). Called only
    /// while there is another region; the oldest give way.
    pub fn retain(&mut self, broadcast: &Broadcast<'_>, now: Duration) {
        let kept = KeptBroadcast::share(broadcast);
        self.retained_bytes += kept.bytes();
        self.retained.push_back((now, kept));
        self.expire(now);
    }

    /// Forgets what was kept for long enough; [`retain`](Self::retain) does so too.
    pub fn expire(&mut self, now: Duration) {
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
    pub fn resend(&self, from: u64, to: u64) -> impl Iterator<Item = Broadcast<'_>> {
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
    pub fn retained_bytes(&self) -> usize {
        self.retained_bytes
    }
}
