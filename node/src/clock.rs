//! The only place that reads a clock.
//!
//! Everything that decides takes the time as an argument; what needs to ask for it holds a
//! [`Clock`]. Tests and simulations hold one that stands still until it is moved.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use cluster::UnixMillis;

/// A source of wall-clock time and of time that never goes back.
#[derive(Clone, Debug)]
pub struct Clock(Source);

#[derive(Clone, Debug)]
enum Source {
    System { start: tokio::time::Instant },
    Runtime { start: tokio::time::Instant, wall_start: UnixMillis },
    Manual { wall_start: UnixMillis, elapsed_ns: Arc<AtomicU64> },
}

impl Clock {
    /// The machine's clocks.
    #[allow(clippy::disallowed_methods)] // this is the place
    pub fn system() -> Self {
        Self(Source::System { start: tokio::time::Instant::now() })
    }

    /// A clock that shows `wall` now and goes as fast as the runtime's timers: in a simulation both
    /// jump from one event to the next.
    #[allow(clippy::disallowed_methods)] // this is the place
    pub fn starting_at(wall: UnixMillis) -> Self {
        Self(Source::Runtime { start: tokio::time::Instant::now(), wall_start: wall })
    }

    /// A clock that stands at `wall` until [`advance`](Self::advance) moves it.
    pub fn manual(wall: UnixMillis) -> Self {
        Self(Source::Manual { wall_start: wall, elapsed_ns: Arc::default() })
    }

    /// Moves a manual clock, and all its clones, forward; other clocks are left alone.
    pub fn advance(&self, by: Duration) {
        if let Source::Manual { elapsed_ns, .. } = &self.0 {
            let ns = u64::try_from(by.as_nanos()).unwrap_or(u64::MAX);
            elapsed_ns.fetch_add(ns, Ordering::SeqCst);
        }
    }

    /// Wall-clock time; may go back when the machine's clock is set.
    #[allow(clippy::disallowed_methods)] // this is the place
    pub fn wall(&self) -> UnixMillis {
        match &self.0 {
            Source::System { .. } => SystemTime::now().into(),
            Source::Runtime { wall_start, .. } | Source::Manual { wall_start, .. } => {
                wall_start.plus(self.elapsed())
            }
        }
    }

    /// Time since this clock was made; never goes back.
    pub fn elapsed(&self) -> Duration {
        match &self.0 {
            Source::System { start } | Source::Runtime { start, .. } => start.elapsed(),
            Source::Manual { elapsed_ns, .. } => {
                Duration::from_nanos(elapsed_ns.load(Ordering::SeqCst))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_with_a_start_shows_it_and_goes_on_from_there() {
        let clock = Clock::starting_at(UnixMillis(5_000));
        let wall = |elapsed| UnixMillis(5_000).plus(elapsed);
        let (before, between, after) = (clock.elapsed(), clock.wall(), clock.elapsed());
        assert!(wall(before) <= between && between <= wall(after));
    }

    #[test]
    fn a_manual_clock_moves_with_its_clones_only() {
        let clock = Clock::manual(UnixMillis(1_000));
        let clone = clock.clone();
        clone.advance(Duration::from_millis(250));
        assert_eq!(clock.wall(), UnixMillis(1_250));
        assert_eq!(clock.elapsed(), Duration::from_millis(250));
    }
}
