//! The one clock of a run, which stands still while anybody has something to do.

use std::time::Duration;

use cluster::UnixMillis;

pub(super) use tokio::time::Instant;

/// When every run begins.
const EPOCH: UnixMillis = UnixMillis(1_795_341_600_000);

/// Now, as the run's runtime has it.
#[allow(clippy::disallowed_methods)] // it is the simulated clock, and this its one reader
pub(super) fn now() -> Instant {
    Instant::now()
}

/// The wall clock of a node that goes wrong by `skew` milliseconds, in a run that began at `start`.
pub(super) fn wall(start: Instant, skew: i64) -> UnixMillis {
    let passed = u64::try_from(now().duration_since(start).as_millis()).unwrap_or(u64::MAX);
    EPOCH.plus(Duration::from_millis(passed.saturating_add_signed(skew)))
}
