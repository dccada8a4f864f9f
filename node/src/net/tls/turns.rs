//! Turns at work that takes the processor for long: so many at a time, the newest first.
//!
//! When many clients come at once, all would be served late in the order of their coming, and those at
//! the end would have given up by then. The newest is the one who is surely still waiting.

use std::{collections::BTreeMap, future::pending, sync::Arc};

use parking_lot::Mutex;
use tokio::sync::oneshot;

/// A number of turns that many want. Clones share it.
#[derive(Clone, Debug)]
pub(super) struct Turns(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    free: usize,
    /// Those who wait, by the number that they drew.
    waiting: BTreeMap<u64, oneshot::Sender<Turn>>,
    drawn: u64,
}

/// A turn; dropped, it is the next one's.
#[derive(Debug)]
pub(super) struct Turn(Turns);

/// A place among those who wait, given up when this is dropped.
struct Waiting<'a> {
    turns: &'a Turns,
    number: u64,
}

impl Turns {
    /// So many turns at a time.
    pub(super) fn new(at_once: usize) -> Self {
        let state = State { free: at_once, waiting: BTreeMap::new(), drawn: 0 };
        Self(Arc::new(Mutex::new(state)))
    }

    /// The next turn that nobody newer wants.
    pub(super) async fn take(&self) -> Turn {
        let (number, given) = match self.take_or_wait() {
            Ok(turn) => return turn,
            Err(waiting) => waiting,
        };
        let _waiting = Waiting { turns: self, number };
        match given.await {
            Ok(turn) => turn,
            // Nobody else drops what gives the turn; and whoever waits has a deadline.
            Err(_) => pending().await,
        }
    }

    fn take_or_wait(&self) -> Result<Turn, (u64, oneshot::Receiver<Turn>)> {
        let mut state = self.0.lock();
        if let Some(left) = state.free.checked_sub(1) {
            state.free = left;
            return Ok(Turn(self.clone()));
        }
        let (give, given) = oneshot::channel();
        let number = state.drawn;
        state.drawn += 1;
        state.waiting.insert(number, give);
        Err((number, given))
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut state = self.0.0.lock();
        let Some((_, newest)) = state.waiting.pop_last() else { return state.free += 1 };
        drop(state);
        // If that one has just given up, the turn is dropped, and goes on from there.
        let _ = newest.send(Self(self.0.clone()));
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.turns.0.lock().waiting.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures_util::{FutureExt, poll};

    use super::*;

    #[tokio::test]
    async fn the_newest_is_next() {
        let turns = Turns::new(2);
        let (first, second) = (turns.take().await, turns.take().await);
        let (mut older, mut newer) = (pin!(turns.take()), pin!(turns.take()));
        assert!(poll!(&mut older).is_pending() && poll!(&mut newer).is_pending());
        drop(first);
        assert!(poll!(&mut older).is_pending(), "the newer one is asked first");
        let third = newer.now_or_never().unwrap();
        drop(third);
        let fourth = older.now_or_never().unwrap();
        drop((second, fourth));
        assert_eq!(turns.0.lock().free, 2);
    }

    #[tokio::test]
    async fn who_gives_up_costs_nobody_a_turn() {
        let turns = Turns::new(1);
        let first = turns.take().await;
        let mut older = pin!(turns.take());
        let mut newer = Box::pin(turns.take());
        assert!(poll!(&mut older).is_pending() && poll!(&mut newer).is_pending());
        drop(first);
        // Its turn is on its way to it.
        drop(newer);
        drop(older.now_or_never().unwrap());
        let mut gone = Box::pin(turns.take());
        let held = gone.as_mut().now_or_never().unwrap();
        let mut waiting = Box::pin(turns.take());
        assert!(poll!(&mut waiting).is_pending());
        drop(waiting);
        assert!(turns.0.lock().waiting.is_empty(), "nothing is left of it");
        drop(held);
        assert_eq!(turns.0.lock().free, 1);
    }
}
