//! The room that all waiting messages of a node share.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// How many bytes wait in all routes together.
const WAITING_BYTES_MAX: usize = 32 << 20;

/// What a waiting message is charged beside its body, so that messages to agents that do not exist
/// are paid for with their routes: 65,536 of them at the most.
const WAITING_OVERHEAD_BYTES: usize = 512;

/// The room that waiting messages share, in bytes taken.
#[derive(Debug, Default)]
pub(super) struct Room(AtomicUsize);

/// Bytes taken of the [`Room`], given back when dropped.
#[derive(Debug)]
pub(super) struct Charge {
    room: Arc<Room>,
    bytes: usize,
}

impl Room {
    /// Bytes that are taken.
    #[cfg(test)]
    pub(super) fn used(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// Takes room for a message, if there is any.
    pub(super) fn take(self: &Arc<Self>, body_bytes: usize) -> Option<Charge> {
        let bytes = body_bytes.checked_add(WAITING_OVERHEAD_BYTES)?;
        let taken = |used: usize| used.checked_add(bytes).filter(|sum| *sum <= WAITING_BYTES_MAX);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, taken).ok()?;
        Some(Charge { room: self.clone(), bytes })
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.room.0.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}
