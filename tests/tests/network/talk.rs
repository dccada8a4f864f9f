//! Two agents that talk while something happens, and lose nothing.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::json;
use tests::{Client, measured};
use tokio::task::JoinHandle;

/// Messages that are on their way together.
const BURST: u64 = 10;

/// Between two bursts.
const PAUSE: Duration = Duration::from_millis(10);

/// One agent that sends to another, which checks that each message comes, once and in order.
pub(crate) struct Talk {
    over: Arc<AtomicBool>,
    task: JoinHandle<[Client; 2]>,
}

impl Talk {
    /// Lets `sender` send to `receiver`, to whom nobody else may send, until the talk is ended.
    pub(crate) fn between(mut sender: Client, mut receiver: Client) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let is_over = Arc::clone(&over);
        let task = tokio::spawn(async move {
            let (mut sent, mut slowest) = (0, Duration::ZERO);
            while !is_over.load(Ordering::Relaxed) {
                let start = Instant::now();
                for n in sent..sent + BURST {
                    sender.send(json!({"to": [receiver.id], "payload": n})).await;
                }
                for n in sent..sent + BURST {
                    assert_eq!(receiver.next().await["payload"], n, "each once and in order");
                }
                slowest = slowest.max(start.elapsed());
                sent += BURST;
                tokio::time::sleep(PAUSE).await;
            }
            receiver.fence().await;
            let (from, to) = (&sender.id, &receiver.id);
            measured(&format!("{from} to {to}: {sent} messages, slowest {slowest:.1?}"));
            [sender, receiver]
        });
        Self { over, task }
    }

    /// Ends the talk, in which nothing may have been lost.
    pub(crate) async fn end(self) -> [Client; 2] {
        self.over.store(true, Ordering::Relaxed);
        self.task.await.expect("nothing gets lost between agents that stay connected")
    }
}
