//! The questions of peers, while this node works on them: a task each, bounded in count, and none dies
//! unnoticed.

use std::{any::Any, future::Future, panic::AssertUnwindSafe, sync::Arc};

use futures_util::FutureExt;
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

/// Questions that are worked on at a time; more are not answered.
pub(super) const QUESTIONS_MAX: usize = 4_096;

/// The tasks that answer.
pub(super) struct Answers {
    room: Arc<Semaphore>,
    tasks: TaskTracker,
}

impl Answers {
    pub(super) fn new() -> Self {
        Self { room: Arc::new(Semaphore::new(QUESTIONS_MAX)), tasks: TaskTracker::new() }
    }

    /// Runs `answer`, unless there are too many already; calls `panicked` with what it says if it
    /// panics.
    pub(super) fn spawn(
        &self,
        answer: impl Future<Output = ()> + Send + 'static,
        panicked: impl FnOnce(&str) + Send + 'static,
    ) {
        let Ok(room) = Arc::clone(&self.room).try_acquire_owned() else { return };
        self.tasks.spawn(async move {
            if let Err(panic) = AssertUnwindSafe(answer).catch_unwind().await {
                panicked(text_of(&*panic));
            }
            drop(room);
        });
    }

    /// Takes no more.
    pub(super) fn close(&self) {
        self.tasks.close();
    }
}

fn text_of(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no text")
}

#[cfg(test)]
impl Answers {
    /// Waits for those that were asked; returns how many more may be.
    pub(super) async fn all_ended(&self) -> usize {
        self.close();
        self.tasks.wait().await;
        self.room.available_permits()
    }
}
