//! The questions of peers, while this node works on them: a task each, bounded in count and in bytes, and
//! none dies unnoticed.

use std::{any::Any, future::Future, panic::AssertUnwindSafe, sync::Arc};

use futures_util::FutureExt;
use tokio::sync::Semaphore;
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};

/// Questions that are worked on at a time; more are not answered.
pub(super) const QUESTIONS_MAX: usize = 4_096;

/// The bytes of the questions that are worked on at a time; what would be more is not answered.
const QUESTION_BYTES_MAX: usize = 64 << 20;

/// The tasks that answer.
pub(super) struct Answers {
    room: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
    tasks: TaskTracker,
    closed: CancellationToken,
}

impl Answers {
    pub(super) fn new() -> Self {
        Self {
            room: Arc::new(Semaphore::new(QUESTIONS_MAX)),
            bytes: Arc::new(Semaphore::new(QUESTION_BYTES_MAX)),
            tasks: TaskTracker::new(),
            closed: CancellationToken::new(),
        }
    }

    /// Runs `answer` to a question of so many bytes, unless there are too many already; calls `panicked`
    /// with what it says if it panics.
    pub(super) fn spawn(
        &self,
        bytes: usize,
        answer: impl Future<Output = ()> + Send + 'static,
        panicked: impl FnOnce(&str) + Send + 'static,
    ) {
        let Ok(room) = Arc::clone(&self.room).try_acquire_owned() else { return };
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let Ok(bytes) = Arc::clone(&self.bytes).try_acquire_many_owned(bytes) else { return };
        let closed = self.closed.clone();
        self.tasks.spawn(async move {
            let answered =
                closed.run_until_cancelled(AssertUnwindSafe(answer).catch_unwind()).await;
            if let Some(Err(panic)) = answered {
                panicked(text_of(&*panic));
            }
            drop((room, bytes));
        });
    }

    /// Whoever drops this ends those that are worked on, each where it waits next.
    pub(super) fn end(&self) -> DropGuard {
        self.closed.clone().drop_guard()
    }

    /// Takes no more, and ends those that are worked on. Returns when they have ended.
    pub(super) async fn close(&self) {
        self.room.close();
        self.closed.cancel();
        self.tasks.close();
        self.tasks.wait().await;
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
        self.tasks.close();
        self.tasks.wait().await;
        self.room.available_permits()
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;

    #[tokio::test]
    async fn what_is_closed_ends_all_and_takes_no_more() {
        let answers = Answers::new();
        let held = Arc::new(());
        let ask = || {
            let held = Arc::clone(&held);
            let answer = async move {
                pending::<()>().await;
                drop(held);
            };
            answers.spawn(1, answer, |panic| panic!("{panic}"));
        };
        ask();
        ask();
        assert_eq!(Arc::strong_count(&held), 3);
        answers.close().await;
        assert_eq!(Arc::strong_count(&held), 1);
        ask();
        assert_eq!(Arc::strong_count(&held), 1);
    }

    #[tokio::test]
    async fn what_has_too_many_bytes_with_the_others_is_not_worked_on() {
        let answers = Answers::new();
        let worked_on = Arc::new(());
        let ask = |bytes| {
            let worked_on = Arc::clone(&worked_on);
            let answer = async move {
                pending::<()>().await;
                drop(worked_on);
            };
            answers.spawn(bytes, answer, |panic| panic!("{panic}"));
        };
        ask(QUESTION_BYTES_MAX - 10);
        ask(11);
        assert_eq!(Arc::strong_count(&worked_on), 2);
        ask(10);
        assert_eq!(Arc::strong_count(&worked_on), 3);
        drop(answers.end());
        answers.all_ended().await;
        assert_eq!(Arc::strong_count(&worked_on), 1);
    }
}
