//! What blocks is done aside.

use tokio::{
    runtime::{Handle, RuntimeFlavor},
    task::{JoinError, spawn_blocking},
};

/// Does what blocks on a thread that may be blocked.
///
/// A runtime of one thread is a test's or a simulation's, and does it at once: nothing else comes in
/// between, so that a simulated run is repeatable.
pub(super) async fn aside<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, JoinError> {
    if Handle::current().runtime_flavor() == RuntimeFlavor::CurrentThread {
        return Ok(work());
    }
    spawn_blocking(work).await
}
