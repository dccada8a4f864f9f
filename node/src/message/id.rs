//! Message ids and times: what the relay assigns to each message of one sender.
//!
//! Pure: the time comes in, and randomness once, when the process starts.

use std::fmt;

use cluster::UnixMillis;

/// Crockford's base 32: the order of the digits' bytes is the order of their values.
const DIGITS: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
const PREFIX: &[u8; 4] = b"msg_";
const TIME_LEN: usize = 10;
const COUNTER_LEN: usize = 3;
/// Messages of one sender within one millisecond.
const COUNTER_END: u16 = 1 << (5 * COUNTER_LEN);
const SESSION_LEN: usize = 7;
const PROCESS_LEN: usize = 8;
const TAG_LEN: usize = SESSION_LEN + PROCESS_LEN;
const ID_LEN: usize = PREFIX.len() + TIME_LEN + COUNTER_LEN + TAG_LEN;

/// What tells the ids of this run of this process from those of every other: 40 random bits, which
/// matter only among processes that write in the same millisecond.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProcessTag(u64);

impl ProcessTag {
    /// Takes the lowest 40 of `random` bits.
    pub fn from_random(random: u64) -> Self {
        Self(random)
    }

    /// How all ids end that this process gives.
    pub fn ending(self) -> String {
        let mut digits = [0; PROCESS_LEN];
        write_digits(&mut digits, self.0);
        digits.iter().map(|digit| char::from(*digit)).collect()
    }
}

/// What tells the ids of one session's sender from those of every other sender, for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionTag([u8; TAG_LEN]);

impl SessionTag {
    /// For the session with this number, which the process gives to no other. Numbers repeat
    /// after 2^35, when the first ones' milliseconds are long over.
    pub fn new(process: ProcessTag, session: u64) -> Self {
        let mut tag = [0; TAG_LEN];
        let (session_digits, process_digits) = tag.split_at_mut(SESSION_LEN);
        write_digits(session_digits, session);
        write_digits(process_digits, process.0);
        Self(tag)
    }
}

/// Text unique in the cluster for ever: `msg_`, 10 characters of time, 3 that count within the
/// millisecond, 15 of the sender's tag. Sorts by time, and for one sender by order of sending.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageId([u8; ID_LEN]);

impl MessageId {
    /// The id as text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    /// The id's text as bytes; ASCII that needs no escaping.
    pub fn as_bytes(&self) -> &[u8; ID_LEN] {
        &self.0
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What the relay assigns to one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Its id.
    pub id: MessageId,
    /// When it was accepted, as the recipients see it.
    pub ts: UnixMillis,
}

/// Assigns ids and times to the messages of one sender: ids strictly increase and times never
/// decrease, whatever the clock does.
#[derive(Clone, Debug)]
pub struct Stamper {
    last: UnixMillis,
    counter: u16,
    tag: SessionTag,
}

impl Stamper {
    /// For a sender that nobody else stamps for.
    pub fn new(tag: SessionTag) -> Self {
        Self::not_before(UnixMillis(0), tag)
    }

    /// The same, for a sender whose earlier session was stamped until `floor`.
    pub fn not_before(floor: UnixMillis, tag: SessionTag) -> Self {
        Self { last: floor, counter: 0, tag }
    }

    /// The time of the last stamp.
    pub fn last(&self) -> UnixMillis {
        self.last
    }

    /// The stamp of a message accepted at `now`. If the clock went back, the last time stays; if a
    /// millisecond's 32,768 ids are used up, the next one begins early.
    pub fn next(&mut self, now: UnixMillis) -> Stamp {
        if now > self.last {
            self.last = now;
            self.counter = 0;
        } else {
            self.counter += 1;
            if self.counter == COUNTER_END {
                self.last = UnixMillis(self.last.0 + 1);
                self.counter = 0;
            }
        }
        Stamp { id: self.id(), ts: self.last }
    }

    fn id(&self) -> MessageId {
        let mut id = [0; ID_LEN];
        let (prefix, rest) = id.split_at_mut(PREFIX.len());
        let (time, rest) = rest.split_at_mut(TIME_LEN);
        let (counter, tag) = rest.split_at_mut(COUNTER_LEN);
        prefix.copy_from_slice(PREFIX);
        write_digits(time, self.last.0);
        write_digits(counter, u64::from(self.counter));
        tag.copy_from_slice(&self.tag.0);
        MessageId(id)
    }
}

/// Fills `to` with the lowest digits of `number`, the highest of them first.
#[inline]
fn write_digits(to: &mut [u8], mut number: u64) {
    for digit in to.iter_mut().rev() {
        *digit = DIGITS[(number % 32) as usize];
        number /= 32;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn stamper(process: u64, session: u64) -> Stamper {
        Stamper::new(SessionTag::new(ProcessTag::from_random(process), session))
    }

    #[test]
    fn the_format_stays_as_it_is() {
        let mut stamper = stamper(u64::MAX, 33);
        let first = stamper.next(UnixMillis(1_760_000_000_123));
        let second = stamper.next(UnixMillis(1_760_000_000_123));
        assert_eq!(first.id.as_str(), "msg_01k742sg3v0000000011zzzzzzzz");
        assert_eq!(second.id.as_str(), "msg_01k742sg3v0010000011zzzzzzzz");
        assert_eq!(first.ts, UnixMillis(1_760_000_000_123));
    }

    #[test]
    fn a_clock_that_goes_back_is_not_followed() {
        let mut stamper = stamper(1, 1);
        let before = stamper.next(UnixMillis(5_000));
        let after = stamper.next(UnixMillis(4_000));
        assert_eq!(after.ts, UnixMillis(5_000));
        assert!(after.id > before.id);
    }

    #[test]
    fn a_full_millisecond_flows_into_the_next() {
        let mut stamper = stamper(1, 1);
        let stamps: Vec<_> = (0..70_000).map(|_| stamper.next(UnixMillis(5_000))).collect();
        assert!(stamps.windows(2).all(|pair| pair[0].id < pair[1].id));
        let used = [stamps[32_767].ts, stamps[32_768].ts, stamps[65_536].ts];
        assert_eq!(used, [UnixMillis(5_000), UnixMillis(5_001), UnixMillis(5_002)]);
    }

    proptest! {
        #[test]
        fn ids_increase_and_times_never_decrease(clock in prop::collection::vec(0..1_u64 << 50, 2..50)) {
            let mut stamper = stamper(1, 1);
            let stamps: Vec<_> = clock.iter().map(|now| stamper.next(UnixMillis(*now))).collect();
            for pair in stamps.windows(2) {
                prop_assert!(pair[0].id < pair[1].id);
                prop_assert!(pair[0].id.as_str() < pair[1].id.as_str());
                prop_assert!(pair[0].ts <= pair[1].ts);
            }
        }

        #[test]
        fn ids_sort_by_time_across_senders(a in 1..1_u64 << 50, b in 1..1_u64 << 50, tags: [u64; 4]) {
            let earlier = stamper(tags[0], tags[1]).next(UnixMillis(a));
            let later = stamper(tags[2], tags[3]).next(UnixMillis(b));
            prop_assume!(a != b);
            prop_assert_eq!(earlier.id < later.id, a < b);
        }

        #[test]
        fn ids_of_two_sessions_differ(sessions: [u32; 2], processes: [u32; 2]) {
            prop_assume!((sessions[0], processes[0]) != (sessions[1], processes[1]));
            let id = |n: usize| {
                stamper(processes[n].into(), sessions[n].into()).next(UnixMillis(1)).id
            };
            prop_assert_ne!(id(0), id(1));
        }
    }
}
