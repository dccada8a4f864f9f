//! Tasks with a parent that notices their death: such as end with what they serve, and such as are begun
//! anew, for the relay serves its agents without them.

use std::{any::Any, future::Future, panic::AssertUnwindSafe, time::Duration};

use futures_util::FutureExt;
use metrics::Counter;
use tokio::time::sleep;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// What died is begun anew after so long at first, and after twice as long each time, up to a minute: what
/// dies at once again must not fill the log.
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_mins(1);

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

/// What the relay does for those who look at it, and serves its agents without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spare {
    /// What it does.
    pub name: &'static str,
    /// What is missing while it is dead, for whoever operates the relay.
    pub without: &'static str,
}

impl Spare {
    /// Does it until `stop`, which ends it: whenever it panics or ends before, that is logged and counted,
    /// `tell` hears of it, and it is begun anew after a pause.
    pub async fn go_on<F: Future<Output = ()>>(
        self,
        panics: &Counter,
        stop: &CancellationToken,
        tell: impl Fn(String),
        mut begin: impl FnMut() -> F,
    ) {
        let mut pause = PAUSE_MIN;
        while !stop.is_cancelled() {
            // What a panic leaves half done is dropped with the task, and its locks are given back.
            let ended = AssertUnwindSafe(begin()).catch_unwind().await;
            if ended.is_ok() && stop.is_cancelled() {
                return;
            }
            panics.increment(1);
            let why =
                ended.map_or_else(|panic| text_of(&*panic).to_owned(), |()| "it ended".into());
            let Self { name, without } = self;
            tracing::error!(
                task = name,
                panic = why,
                again_in = ?pause,
                "a task that agents do not need has died: this is a bug. {without} until it is begun anew"
            );
            tell(format!("{name} has died and is begun anew in {pause:?}: {without} until then"));
            let _ = stop.run_until_cancelled(sleep(pause)).await;
            pause = PAUSE_MAX.min(pause * 2);
        }
    }
}

fn text_of(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no text")
}

#[cfg(test)]
mod tests {
    use std::{cell::RefCell, time::Duration};

    use futures_util::FutureExt;
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_agents_do_not_need_is_begun_anew_ever_later() {
        let (count, told) = (RefCell::new(0), RefCell::new(Vec::new()));
        let (counter, stop) = (Counter::noop(), CancellationToken::new());
        let spare = Spare { name: "looking", without: "nobody looks" };
        let begin = || {
            *count.borrow_mut() += 1;
            let (turn, stop) = (*count.borrow(), stop.clone());
            async move {
                match turn {
                    1 => panic!("cannot look"),
                    2 => {}
                    _ => stop.cancelled().await,
                }
            }
        };
        let mut on =
            Box::pin(spare.go_on(&counter, &stop, |text| told.borrow_mut().push(text), begin));
        for (at, times) in [(0, 1), (999, 1), (1_000, 2), (2_999, 2), (3_000, 3), (9_000, 3)] {
            assert!(on.as_mut().now_or_never().is_none());
            assert_eq!(*count.borrow(), times, "after {at} ms");
            advance(Duration::from_millis(match at {
                0 => 999,
                999 | 2_999 => 1,
                1_000 => 1_999,
                _ => 6_000,
            }))
            .await;
        }
        stop.cancel();
        assert!(on.now_or_never().is_some(), "it has ended as it should");
        let told = told.borrow();
        assert_eq!(told.len(), 2);
        assert_eq!(told[0], "looking has died and is begun anew in 1s: nobody looks until then");
    }
}
