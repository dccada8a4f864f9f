//! The places of handshakes that are not done: when none is free, the oldest one's is taken.
//!
//! Who has not finished after all the others began is a client that is gone, slow, or means ill. So
//! half handshakes, however many, keep nobody out for longer than it takes to begin as many new ones.
//!
//! A handshake begins when its connection is accepted: what a proxy says first of its client is a part of it.

use std::{collections::BTreeMap, sync::Arc};

use parking_lot::Mutex;
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::CancellationToken;

/// What unfinished handshakes hold. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Places(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    begun: u64,
    held: BTreeMap<u64, Held>,
}

#[derive(Debug)]
struct Held {
    permit: OwnedSemaphorePermit,
    overtaken: CancellationToken,
}

/// One handshake's place, given back when this is dropped.
#[derive(Debug)]
pub struct Begun {
    places: Places,
    number: u64,
    overtaken: CancellationToken,
}

impl Places {
    /// Begins a handshake with the permit that is given or, without one, with that of the oldest
    /// handshake, which ends; none if there is none either.
    pub fn begin(&self, free: Option<OwnedSemaphorePermit>) -> Option<Begun> {
        let mut state = self.0.lock();
        let permit = free.or_else(|| {
            let (_, oldest) = state.held.pop_first()?;
            oldest.overtaken.cancel();
            Some(oldest.permit)
        })?;
        let (number, overtaken) = (state.begun, CancellationToken::new());
        state.begun += 1;
        state.held.insert(number, Held { permit, overtaken: overtaken.clone() });
        drop(state);
        Some(Begun { places: self.clone(), number, overtaken })
    }
}

impl Begun {
    /// Returns when a newer handshake has taken the place.
    pub async fn overtaken(&self) {
        self.overtaken.cancelled().await;
    }

    /// The handshake is done: its permit, unless it was overtaken.
    pub(super) fn finish(self) -> Option<OwnedSemaphorePermit> {
        let held = self.places.0.lock().held.remove(&self.number);
        held.map(|held| held.permit)
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        // The permit is given back outside the lock.
        let held = self.places.0.lock().held.remove(&self.number);
        drop(held);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use tokio::sync::Semaphore;

    use super::*;

    #[tokio::test]
    async fn newcomers_take_the_place_of_the_oldest() {
        let semaphore = Arc::new(Semaphore::new(2));
        let free = || Arc::clone(&semaphore).try_acquire_owned().ok();
        let places = Places::default();
        let begin = || places.begin(free());
        let (first, second) = (begin().unwrap(), begin().unwrap());
        assert!(first.overtaken().now_or_never().is_none());
        let third = begin().unwrap();
        assert!(first.overtaken().now_or_never().is_some());
        assert!(second.overtaken().now_or_never().is_none());
        assert!(first.finish().is_none(), "its place is the third one's");
        let done = (second.finish().unwrap(), third.finish().unwrap());
        assert!(begin().is_none(), "who is done is not overtaken");
        drop(done);
        drop(begin().unwrap());
        assert_eq!(semaphore.available_permits(), 2);
    }
}
