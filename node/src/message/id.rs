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
        Self { last: UnixMillis(0), counter: 0, tag }
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
