//! The bounded queue of finished frames that wait for one session's socket.
//!
//! Pure: it decides what may wait, what is written next and when a reader is too slow; the session
//! does the writing. Frames are kept as the bytes that go on the wire, so that one write call
//! carries all that waits. Small frames are copied behind each other, large ones are shared with
//! every other outbox that holds them.
//!
//! At most one thread writes at a time: [`Outbox::begin_write`] hands the waiting bytes out,
//! [`Outbox::end_write`] takes back what the socket did not accept. In between the lock is free, so
//! nobody who delivers waits for a write call.

use std::{collections::VecDeque, io::IoSlice, time::Duration};

use bytes::{Buf, Bytes};

#[cfg(test)]
mod tests;

/// From this size on a frame is kept by reference instead of being copied.
pub const SHARE_FROM: usize = 4_096;

/// Copied frames are collected in runs of at most this many bytes.
const RUN_MAX: usize = 65_536;

/// While a write call is under way the socket may well be healthy and only this process slow: until
/// the call returns, this many times the bytes may wait, those being written included …
const BYTES_OVERSHOOT: usize = 4;

/// … and this many times the messages, since a busy sender brings a thousand in a millisecond.
const MESSAGES_OVERSHOOT: usize = 16;

/// How many buffers one write call carries at most.
pub const SLICES_MAX: usize = 32;

/// What may wait for one session that does not read; at the default of 1 MiB a thousand such
/// sessions hold 1 GiB. While a write call is under way more may wait for as long as it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutboxLimits {
    /// Bytes of frames.
    pub bytes: usize,
    /// Number of frames.
    pub messages: usize,
}

/// One finished frame on its way to an outbox.
#[derive(Clone, Debug)]
pub enum Frame<'a> {
    /// Copied into the outbox.
    Small(&'a [u8]),
    /// Kept by reference.
    Large(Bytes),
}

impl Frame<'_> {
    fn len(&self) -> usize {
        match self {
            Frame::Small(bytes) => bytes.len(),
            Frame::Large(bytes) => bytes.len(),
        }
    }
}

/// What became of a frame that was offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offer {
    /// It waits behind others; whoever put the first of them there sees to the writing.
    Queued,
    /// It is the first to wait: the caller sees to it that it is written.
    First,
    /// There is no room, but nobody tried to write yet: write, then offer again.
    Full,
    /// There is no room and the socket takes nothing: the reader is too slow.
    TooSlow,
    /// The session is closing; nothing more is taken.
    Closed,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Writing {
    /// Nobody writes.
    #[default]
    Idle,
    /// Nothing is written before the session is admitted.
    Held,
    /// A thread holds a [`Batch`] of this size.
    Busy { bytes: usize, messages: usize },
    /// The socket took no more at this time; it is tried again when it is writable.
    Blocked { since: Duration },
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    Open,
    /// A close frame is the last that waits.
    Closing,
    /// The socket failed or its time is over: nothing is written any more.
    Dead,
}

/// Where the writing stands after a write call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AfterWrite {
    /// Nothing waits.
    Drained,
    /// More came meanwhile: write again.
    More,
    /// The socket is full: write when it is writable.
    Blocked,
}

/// What the socket said to a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteOutcome {
    /// It took everything, or would take more.
    Open,
    /// It would block.
    Blocked,
    /// It failed.
    Failed,
}

/// The queue of one session; empty, it allocates nothing.
#[derive(Debug, Default)]
pub struct Outbox {
    /// Chunks of whole frames, but that the first may start inside a frame.
    chunks: VecDeque<Bytes>,
    /// Small frames behind the chunks.
    run: Vec<u8>,
    bytes: usize,
    /// Messages among the frames that wait; a close frame is none.
    messages: usize,
    /// Messages that were lost to a failed write and not reported yet.
    lost: usize,
    /// How much is left of a frame of which the socket took the beginning; it leads the queue.
    begun: usize,
    writing: Writing,
    phase: Phase,
}

/// Bytes handed out to be written.
#[derive(Debug)]
pub struct Batch {
    chunks: VecDeque<Bytes>,
    run: Vec<u8>,
    /// How much of `run` is written.
    run_done: usize,
    messages: usize,
    begun: usize,
    len: usize,
    /// Since when the socket took nothing, before this batch was handed out.
    blocked_since: Option<Duration>,
}

impl Outbox {
    /// An empty queue of which nothing is written until [`release`](Self::release), or until it is
    /// closed. Meanwhile as much may wait as during a write call: it is not the reader who is slow.
    pub fn held() -> Self {
        Self { writing: Writing::Held, ..Self::default() }
    }

    /// Lets what waits be written.
    pub fn release(&mut self) {
        if self.writing == Writing::Held {
            self.writing = Writing::Idle;
        }
    }

    /// Offers a message.
    pub fn offer(&mut self, frame: &Frame<'_>, limits: OutboxLimits) -> Offer {
        if self.phase != Phase::Open {
            return Offer::Closed;
        }
        if !self.has_room(frame.len(), limits) {
            let untried = self.writing == Writing::Idle && self.bytes > 0;
            return if untried { Offer::Full } else { Offer::TooSlow };
        }
        let first = self.bytes == 0 && self.writing == Writing::Idle;
        self.push(frame);
        if first { Offer::First } else { Offer::Queued }
    }

    /// Queues a close frame as the last thing that this session gets, behind what waits or, if
    /// `hurry` (the reader is too slow to get the rest), right behind the frame that is half
    /// written. Returns the number of messages dropped, or none if the session was closing already.
    pub fn close(&mut self, close_frame: &[u8], hurry: bool) -> Option<usize> {
        if self.phase != Phase::Open {
            return None;
        }
        self.release();
        let dropped = if hurry { self.drop_waiting() } else { 0 };
        self.push(&Frame::Small(close_frame));
        self.messages -= 1;
        self.phase = Phase::Closing;
        Some(dropped)
    }

    /// Nothing is written from now on; returns the number of messages lost, those included that are
    /// being written, or were lost to a failed write before.
    pub fn kill(&mut self) -> usize {
        let written = match self.writing {
            Writing::Busy { messages, .. } if self.phase != Phase::Dead => messages,
            _ => 0,
        };
        let lost = std::mem::take(&mut self.lost) + self.messages + written;
        self.clear();
        self.phase = Phase::Dead;
        lost
    }

    /// Hands out what waits, unless somebody writes already or there is nothing.
    pub fn begin_write(&mut self) -> Option<Batch> {
        let taken = matches!(self.writing, Writing::Busy { .. } | Writing::Held);
        if self.bytes == 0 || taken || self.phase == Phase::Dead {
            return None;
        }
        let blocked_since = self.blocked_since();
        self.writing = Writing::Busy { bytes: self.bytes, messages: self.messages };
        let batch = Batch {
            chunks: std::mem::take(&mut self.chunks),
            run: std::mem::take(&mut self.run),
            run_done: 0,
            messages: self.messages,
            begun: self.begun,
            len: self.bytes,
            blocked_since,
        };
        self.clear();
        Some(batch)
    }

    /// Takes back what is left of a batch.
    pub fn end_write(&mut self, batch: Batch, outcome: WriteOutcome, now: Duration) -> AfterWrite {
        self.writing = Writing::Idle;
        if outcome == WriteOutcome::Failed && self.phase != Phase::Dead {
            self.lost = batch.messages + self.messages;
            self.clear();
            self.phase = Phase::Dead;
        }
        if self.phase == Phase::Dead {
            return AfterWrite::Drained;
        }
        let since = batch.blocked_since.unwrap_or(now);
        if batch.len > 0 {
            self.put_back(batch);
        }
        if self.bytes == 0 {
            return AfterWrite::Drained;
        }
        if outcome == WriteOutcome::Blocked {
            self.writing = Writing::Blocked { since };
            return AfterWrite::Blocked;
        }
        AfterWrite::More
    }

    /// Whether bytes wait that nobody has tried to write.
    pub fn wants_write(&self) -> bool {
        self.bytes > 0 && self.writing == Writing::Idle
    }

    /// Since when the socket takes nothing at all, if it is blocked.
    pub fn blocked_since(&self) -> Option<Duration> {
        match self.writing {
            Writing::Blocked { since } => Some(since),
            Writing::Idle | Writing::Held | Writing::Busy { .. } => None,
        }
    }

    /// The socket was not tried for so long: that is no time for which it takes nothing.
    pub fn forgive(&mut self, time: Duration) {
        if let Writing::Blocked { since } = &mut self.writing {
            *since += time;
        }
    }

    /// Whether messages are still taken.
    pub fn is_open(&self) -> bool {
        self.phase == Phase::Open
    }

    /// Whether the close frame has left, or never will.
    pub fn is_finished(&self) -> bool {
        match self.phase {
            Phase::Open => false,
            Phase::Closing => self.bytes == 0 && self.writing == Writing::Idle,
            Phase::Dead => true,
        }
    }

    /// Whether the socket failed or its time was over.
    pub fn is_dead(&self) -> bool {
        self.phase == Phase::Dead
    }

    /// Bytes that wait.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    fn has_room(&self, len: usize, limits: OutboxLimits) -> bool {
        let being_written = match self.writing {
            Writing::Busy { bytes, .. } => bytes,
            Writing::Held => 0,
            Writing::Idle | Writing::Blocked { .. } => {
                return self.bytes + len <= limits.bytes && self.messages < limits.messages;
            }
        };
        let bytes = limits.bytes.saturating_mul(BYTES_OVERSHOOT).saturating_sub(being_written);
        let messages = limits.messages.saturating_mul(MESSAGES_OVERSHOOT);
        self.bytes + len <= bytes && self.messages < messages
    }

    fn push(&mut self, frame: &Frame<'_>) {
        self.bytes += frame.len();
        self.messages += 1;
        match frame {
            Frame::Small(bytes) => {
                if self.run.len() + bytes.len() > RUN_MAX {
                    self.seal_run();
                }
                self.run.extend_from_slice(bytes);
            }
            Frame::Large(bytes) => {
                self.seal_run();
                self.chunks.push_back(bytes.clone());
            }
        }
    }

    fn seal_run(&mut self) {
        if !self.run.is_empty() {
            self.chunks.push_back(std::mem::take(&mut self.run).into());
        }
    }

    fn put_back(&mut self, batch: Batch) {
        self.bytes += batch.len;
        self.messages += batch.messages;
        self.begun = batch.begun;
        let mut chunks = batch.chunks;
        if batch.run_done < batch.run.len() {
            let run = Bytes::from(batch.run);
            chunks.push_back(run.slice(batch.run_done..));
        }
        chunks.append(&mut self.chunks);
        self.chunks = chunks;
    }

    /// Drops all but the rest of the frame that is half written.
    fn drop_waiting(&mut self) -> usize {
        self.seal_run();
        let rest = match self.chunks.front() {
            Some(first) if self.begun > 0 => first.slice(..self.begun.min(first.len())),
            _ => Bytes::new(),
        };
        let dropped = self.messages.saturating_sub(usize::from(!rest.is_empty()));
        self.clear();
        if !rest.is_empty() {
            self.begun = rest.len();
            self.bytes = rest.len();
            self.messages = 1;
            self.chunks.push_back(rest);
        }
        dropped
    }

    fn clear(&mut self) {
        self.chunks = VecDeque::new();
        self.run = Vec::new();
        self.bytes = 0;
        self.messages = 0;
        self.begun = 0;
    }
}

impl Batch {
    /// Whether everything was written.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The next bytes to write, as many buffers as one call takes.
    pub fn slices<'a>(&'a self, slices: &mut [IoSlice<'a>; SLICES_MAX]) -> usize {
        let run = self.run.get(self.run_done..).unwrap_or_default();
        let all = self.chunks.iter().map(|chunk| &chunk[..]).chain(std::iter::once(run));
        let mut used = 0;
        for (slot, bytes) in slices.iter_mut().zip(all.filter(|bytes| !bytes.is_empty())) {
            *slot = IoSlice::new(bytes);
            used += 1;
        }
        used
    }

    /// Notes that the socket took the first `written` bytes. If that was everything the frames are
    /// not counted one by one.
    pub fn advance(&mut self, written: usize) {
        let written = written.min(self.len);
        if written > 0 {
            self.blocked_since = None;
        }
        if written == self.len {
            self.len = 0;
            self.messages = 0;
            self.chunks.clear();
            self.run_done = self.run.len();
            return;
        }
        self.len -= written;
        let mut left = written;
        while let Some(chunk) = self.chunks.front_mut() {
            let part = left.min(chunk.len());
            let (done, begun) = frames_done(chunk, self.begun, part);
            self.messages -= done.min(self.messages);
            self.begun = begun;
            left -= part;
            chunk.advance(part);
            if !chunk.is_empty() {
                return;
            }
            self.chunks.pop_front();
        }
        let run = self.run.get(self.run_done..).unwrap_or_default();
        let (done, begun) = frames_done(run, self.begun, left);
        self.messages -= done.min(self.messages);
        self.begun = begun;
        self.run_done += left;
    }
}

/// How many frames end within the first `written` bytes of `bytes`, which start with the last
/// `begun` bytes of one frame, and how much is left of the frame that is cut then.
fn frames_done(bytes: &[u8], begun: usize, written: usize) -> (usize, usize) {
    if written < begun {
        return (0, begun - written);
    }
    let (mut done, mut at) = (usize::from(begun > 0), begun);
    while at < written {
        let end = at + frame_len(bytes.get(at..).unwrap_or_default());
        if end > written {
            return (done, end - written);
        }
        done += 1;
        at = end;
    }
    (done, 0)
}

/// Length of the unmasked frame at the start of `bytes` (RFC 6455 section 5.2), header included.
fn frame_len(bytes: &[u8]) -> usize {
    let big = |range: std::ops::Range<usize>| {
        let bytes = bytes.get(range).unwrap_or_default();
        bytes.iter().fold(0_usize, |n, b| (n << 8) | usize::from(*b))
    };
    match bytes.get(1) {
        Some(126) => 4 + big(2..4),
        Some(127) => 10 + big(2..10),
        Some(len) => 2 + usize::from(*len),
        None => 2,
    }
}
