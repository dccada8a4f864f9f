//! A lane's queue: finished bytes that wait for one writer.
//!
//! Who pushes encodes straight into the queue's buffer, under its lock; the writer swaps the buffer
//! for an empty one and writes all of it in one go. Bounded in bytes and in count; what was written
//! counts until the transport has taken it.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use parking_lot::Mutex;
use tokio::{io::AsyncWriteExt, sync::Notify};

use super::transport::Outgoing;
use crate::mesh::Pushed;

/// What all data lanes to one peer hold together: 32 MiB, and 262,144 frames of 128 bytes.
pub(super) const DATA_BUDGET: (usize, usize) = (32 << 20, 262_144);

/// What the control lane holds; beyond it the link is of no use.
pub(super) const CONTROL_BUDGET: (usize, usize) = (16 << 20, 262_144);

/// What the gossip lane holds: sixteen of the longest messages of the membership.
pub(super) const GOSSIP_BUDGET: (usize, usize) = (1 << 20, 4_096);

/// A buffer keeps no more than this when it is empty; two buffers a lane.
const KEPT_BYTES: usize = 256 << 10;

/// A bound that lanes share.
#[derive(Debug)]
pub(super) struct Budget {
    bytes_max: usize,
    frames_max: usize,
    bytes: AtomicUsize,
    frames: AtomicUsize,
}

impl Budget {
    pub(super) fn new((bytes_max, frames_max): (usize, usize)) -> Arc<Self> {
        let (bytes, frames) = Default::default();
        Arc::new(Self { bytes_max, frames_max, bytes, frames })
    }

    /// Bytes that wait.
    pub(super) fn bytes(&self) -> usize {
        self.bytes.load(Relaxed)
    }

    /// Frames that wait, or are being written.
    pub(super) fn frames(&self) -> usize {
        self.frames.load(Relaxed)
    }

    /// Takes room for a frame; never more than there is.
    fn take(&self, bytes: usize) -> bool {
        if self.frames.fetch_add(1, Relaxed) >= self.frames_max {
            self.frames.fetch_sub(1, Relaxed);
            return false;
        }
        if self.bytes.fetch_add(bytes, Relaxed) + bytes > self.bytes_max {
            self.give_back(bytes, 1);
            return false;
        }
        true
    }

    /// Takes room for a mark, beyond the bound too, but not beyond twice as many.
    fn take_for_mark(&self, bytes: usize) -> bool {
        self.bytes.fetch_add(bytes, Relaxed);
        let fits = self.frames.fetch_add(1, Relaxed) < self.frames_max.saturating_mul(2);
        if !fits {
            self.give_back(bytes, 1);
        }
        fits
    }

    fn give_back(&self, bytes: usize, frames: usize) {
        self.bytes.fetch_sub(bytes, Relaxed);
        self.frames.fetch_sub(frames, Relaxed);
    }

    fn is_full(&self) -> bool {
        self.bytes.load(Relaxed) >= self.bytes_max || self.frames.load(Relaxed) >= self.frames_max
    }
}

/// What a frame is to its lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// It carries something: if the lane is full, it is dropped.
    Carrier,
    /// It says where others have their place: some tens of bytes, for which there is room when there
    /// is none for carriers.
    Mark,
    /// It is a mark, and may be the first on its lane.
    Start,
}

/// One lane's queue.
pub(super) struct Queue {
    budget: Arc<Budget>,
    waiting: Mutex<Waiting>,
    wake: Notify,
}

#[derive(Default)]
struct Waiting {
    bytes: Vec<u8>,
    frames: usize,
    /// Whether the lane's first frame was pushed, if it has to be a certain one.
    started: bool,
    /// No more is taken.
    closed: bool,
    /// The writer has found nothing, and must be woken.
    idle: bool,
}

/// What the writer found.
#[derive(Debug, PartialEq, Eq)]
enum Taken {
    /// So many frames, in its buffer.
    Frames(usize),
    /// Nothing; somebody will wake it.
    Nothing,
    /// Nothing, and there never will be.
    Closed,
}

impl Queue {
    /// A queue whose first frame may be any.
    pub(super) fn new(budget: Arc<Budget>) -> Self {
        let waiting = Waiting { started: true, ..Waiting::default() };
        Self { budget, waiting: Mutex::new(waiting), wake: Notify::new() }
    }

    /// A queue that takes nothing before a frame that starts it.
    pub(super) fn to_be_started(budget: Arc<Budget>) -> Self {
        let queue = Self::new(budget);
        queue.waiting.lock().started = false;
        queue
    }

    /// Appends the frame that `encode` writes.
    pub(super) fn push(&self, role: Role, encode: impl FnOnce(&mut Vec<u8>)) -> Pushed {
        let mut waiting = self.waiting.lock();
        if waiting.closed || !(waiting.started || role == Role::Start) {
            return Pushed::NoLink;
        }
        let is_mark = role != Role::Carrier;
        if self.budget.is_full() && !is_mark {
            return Pushed::Full;
        }
        let start = waiting.bytes.len();
        encode(&mut waiting.bytes);
        let bytes = waiting.bytes.len() - start;
        let fits = if is_mark { self.budget.take_for_mark(bytes) } else { self.budget.take(bytes) };
        if !fits {
            waiting.bytes.truncate(start);
            return Pushed::Full;
        }
        waiting.frames += 1;
        waiting.started = true;
        if std::mem::take(&mut waiting.idle) {
            drop(waiting);
            self.wake.notify_one();
        }
        Pushed::Queued
    }

    /// Takes no more; what waits is still written.
    pub(super) fn close(&self) {
        let mut waiting = self.waiting.lock();
        waiting.closed = true;
        waiting.idle = false;
        drop(waiting);
        self.wake.notify_one();
    }

    /// Swaps all that waits for an empty buffer.
    fn take(&self, batch: &mut Vec<u8>) -> Taken {
        let mut waiting = self.waiting.lock();
        if waiting.frames == 0 {
            waiting.idle = !waiting.closed;
            return if waiting.closed { Taken::Closed } else { Taken::Nothing };
        }
        std::mem::swap(&mut waiting.bytes, batch);
        Taken::Frames(std::mem::take(&mut waiting.frames))
    }

    /// Writes what is pushed, until the queue is closed and the peer has all of it. `count` is told the
    /// frames and bytes that were written.
    pub(super) async fn write(
        &self,
        stream: &mut dyn Outgoing,
        count: impl Fn(u64, u64),
    ) -> std::io::Result<()> {
        let mut batch = Vec::new();
        loop {
            match self.take(&mut batch) {
                Taken::Nothing => self.wake.notified().await,
                Taken::Closed => return stream.deliver().await,
                Taken::Frames(frames) => {
                    let mut rest = batch.as_slice();
                    while !rest.is_empty() {
                        let written = stream.write(rest).await?;
                        rest = rest.get(written..).unwrap_or_default();
                        self.budget.give_back(written, 0);
                    }
                    self.budget.give_back(0, frames);
                    count(frames as u64, batch.len() as u64);
                    batch.clear();
                    batch.shrink_to(KEPT_BYTES);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use async_trait::async_trait;

    use super::*;

    #[async_trait]
    impl Outgoing for Vec<u8> {
        async fn deliver(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn queue(bytes_max: usize, frames_max: usize) -> Queue {
        Queue::new(Budget::new((bytes_max, frames_max)))
    }

    fn push(queue: &Queue, bytes: &[u8]) -> Pushed {
        queue.push(Role::Carrier, |out| out.extend_from_slice(bytes))
    }

    #[test]
    fn what_is_pushed_is_taken_at_once_and_in_order() {
        let queue = queue(100, 100);
        assert_eq!(push(&queue, b"ab"), Pushed::Queued);
        assert_eq!(push(&queue, b"c"), Pushed::Queued);
        let mut batch = Vec::new();
        assert_eq!(queue.take(&mut batch), Taken::Frames(2));
        assert_eq!(batch, b"abc");
        batch.clear();
        assert_eq!(queue.take(&mut batch), Taken::Nothing);
    }

    #[test]
    fn a_frame_that_finds_no_room_leaves_no_trace() {
        let queue = queue(4, 100);
        assert_eq!(push(&queue, b"abc"), Pushed::Queued);
        assert_eq!(push(&queue, b"de"), Pushed::Full);
        assert_eq!(push(&queue, b"f"), Pushed::Queued);
        assert_eq!(push(&queue, b""), Pushed::Full);
        let mut batch = Vec::new();
        assert_eq!(queue.take(&mut batch), Taken::Frames(2));
        assert_eq!(batch, b"abcf");
        assert_eq!(queue.budget.bytes(), 4, "taken is not written yet");
    }

    #[test]
    fn frames_are_bounded_in_count_too() {
        let queue = queue(100, 2);
        assert_eq!(push(&queue, b""), Pushed::Queued);
        assert_eq!(push(&queue, b""), Pushed::Queued);
        assert_eq!(push(&queue, b""), Pushed::Full);
    }

    #[test]
    fn lanes_share_their_bound() {
        let budget = Budget::new((4, 100));
        let [a, b] = [Queue::new(budget.clone()), Queue::new(budget)];
        assert_eq!(push(&a, b"abc"), Pushed::Queued);
        assert_eq!(push(&b, b"de"), Pushed::Full);
    }

    #[test]
    fn marks_have_room_when_carriers_have_none() {
        let queue = Queue::new(Budget::new((10, 2)));
        assert_eq!(push(&queue, &[0; 9]), Pushed::Queued);
        assert_eq!(push(&queue, &[0; 9]), Pushed::Full);
        let mark = || queue.push(Role::Mark, |out| out.extend_from_slice(&[1; 9]));
        assert_eq!(
            [mark(), mark(), mark(), mark()],
            [Pushed::Queued, Pushed::Queued, Pushed::Queued, Pushed::Full]
        );
        assert_eq!(push(&queue, &[0; 1]), Pushed::Full);
    }

    #[test]
    fn nothing_comes_before_the_frame_that_starts() {
        let queue = Queue::to_be_started(Budget::new((100, 100)));
        assert_eq!(push(&queue, b"b"), Pushed::NoLink);
        assert_eq!(queue.push(Role::Start, |out| out.push(b'a')), Pushed::Queued);
        assert_eq!(push(&queue, b"b"), Pushed::Queued);
    }

    #[test]
    fn a_closed_queue_takes_nothing_but_gives_what_waits() {
        let queue = queue(100, 100);
        push(&queue, b"a");
        queue.close();
        assert_eq!(push(&queue, b"b"), Pushed::NoLink);
        let mut batch = Vec::new();
        assert_eq!(queue.take(&mut batch), Taken::Frames(1));
        batch.clear();
        assert_eq!(queue.take(&mut batch), Taken::Closed);
    }

    #[tokio::test]
    async fn what_is_written_makes_room() {
        let queue = queue(4, 2);
        let (counted, mut written) = (Cell::new((0, 0)), Vec::new());
        assert_eq!(push(&queue, b"abc"), Pushed::Queued);
        assert_eq!(push(&queue, b"d"), Pushed::Queued);
        assert_eq!(push(&queue, b""), Pushed::Full);
        queue.close();
        queue.write(&mut written, |frames, bytes| counted.set((frames, bytes))).await.unwrap();
        assert_eq!(written, b"abcd");
        assert_eq!((queue.budget.bytes(), queue.budget.frames.load(Relaxed)), (0, 0));
        assert_eq!(counted.get(), (2, 4));
    }
}
