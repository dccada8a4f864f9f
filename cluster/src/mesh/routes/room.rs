//! The room that all waiting messages of a node share.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// How many bytes wait in all routes together.
const WAITING_BYTES_MAX: usize = 32 << 20;

/// What a waiting message is charged for each of its recipients, beside its body, which they share: so
/// messages to agents that do not exist are paid for with their routes, 65,536 of them at the most.
const WAITING_OVERHEAD_BYTES: usize = 512;

/// The room that waiting messages share, in bytes taken.
#[derive(Debug, Default)]
pub(super) struct Room(AtomicUsize);

/// What one recipient's message takes of the [`Room`], given back when dropped.
#[derive(Debug)]
pub(super) struct Charge {
    _place: Taken,
    _body: Arc<Taken>,
}

/// Bytes taken of the [`Room`], given back when dropped.
#[derive(Debug)]
pub(super) struct Taken {
    room: Arc<Room>,
    bytes: usize,
}

impl Room {
    /// Bytes that are taken.
    #[cfg(test)]
    pub(super) fn used(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// Takes room for a body, if there is any.
    pub(super) fn take_for_body(self: &Arc<Self>, bytes: usize) -> Option<Arc<Taken>> {
        self.take(bytes).map(Arc::new)
    }

    /// Takes room for one more recipient of a body, if there is any.
    pub(super) fn take_for_recipient(self: &Arc<Self>, body: Arc<Taken>) -> Option<Charge> {
        Some(Charge { _place: self.take(WAITING_OVERHEAD_BYTES)?, _body: body })
    }

    fn take(self: &Arc<Self>, bytes: usize) -> Option<Taken> {
        let taken = |used: usize| used.checked_add(bytes).filter(|sum| *sum <= WAITING_BYTES_MAX);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, taken).ok()?;
        Some(Taken { room: self.clone(), bytes })
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.room.0.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}
