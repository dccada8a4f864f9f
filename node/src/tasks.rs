//! Tasks with a parent that notices their death.

use std::{any::Any, future::Future, panic::AssertUnwindSafe};

use futures_util::FutureExt;
use metrics::Counter;
use tokio_util::task::TaskTracker;

/// The tasks of connections and sessions: their panics are logged and counted, and the relay waits
/// for their ends.
#[derive(Clone, Debug)]
pub struct Tasks {
    tracker: TaskTracker,
    panics: Counter,
}

impl Tasks {
    /// No tasks yet; `panics` counts those that panic.
    pub fn new(panics: Counter) -> Self {
        Self { tracker: TaskTracker::new(), panics }
    }

    /// Returns when no task is left; none may be spawned from then on.
    pub async fn all_ended(&self) {
        self.tracker.close();
        self.tracker.wait().await;
    }

    /// Runs `task` until it ends.
    pub fn spawn(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let panics = self.panics.clone();
        self.tracker.spawn(async move {
            if let Err(panic) = AssertUnwindSafe(task).catch_unwind().await {
                panics.increment(1);
                tracing::error!(
                    task = name,
                    panic = text_of(&*panic),
                    "a task panicked: this is a bug"
                );
            }
        });
    }
}

fn text_of(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no text")
}
