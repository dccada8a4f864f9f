//! The registry's writer on a disk that fails, and with a queue that fills.
#![allow(clippy::unwrap_used)] // a test that cannot be set up has failed

use std::{
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll, Waker},
};

use parking_lot::RwLock;

use super::*;
use crate::test_disk::TestDisk;

const NOW: UnixMillis = UnixMillis(1_795_341_600_000);

fn id(text: &str) -> AgentId {
    text.parse().unwrap()
}

/// A registry on a disk in memory, whose writer stands still while the gate is locked.
struct Bench {
    disk: TestDisk,
    gate: Arc<RwLock<()>>,
    registry: LocalRegistry,
}

impl Bench {
    fn new() -> Self {
        let (disk, gate) = (TestDisk::default(), Arc::new(RwLock::new(())));
        let passed = gate.clone();
        // The writer asks for the time when it has taken a batch, and before it decides.
        let now = Arc::new(move || {
            drop(passed.read());
            NOW
        });
        let options = Options { token_ttl: None, now };
        let registry = LocalRegistry::open_source(disk.clone(), false, options).unwrap();
        Self { disk, gate, registry }
    }

    fn verify(&self, token: &str) -> Result<Grant, TokenError> {
        self.registry.verify(token, NOW)
    }
}

/// Puts a request into the queue, as its first poll does.
fn enqueue<F: Future + Unpin>(request: &mut F) -> Option<F::Output> {
    match std::pin::Pin::new(request).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(answer) => Some(answer),
        Poll::Pending => None,
    }
}

#[tokio::test]
async fn a_full_disk_refuses_and_leaves_no_trace() {
    let bench = Bench::new();
    let (disk, registry) = (&bench.disk, &bench.registry);
    let before = registry.register(Some(id("before")), Claim::random()).await.unwrap();
    let changes = registry.revocations();

    disk.full.store(true, Ordering::SeqCst);
    for _ in 0..3 {
        let outcome = registry.register(Some(id("refused")), Claim::random()).await;
        let Err(RegisterError::Unavailable(reason)) = outcome else { panic!("not refused") };
        assert!(reason.contains("no space left"), "{reason}");
    }
    let outcome = registry.revoke(Revocation::Agent(id("before"))).await;
    assert!(matches!(outcome, Err(AdminError::Unavailable(_))));
    assert_eq!(registry.registered_agents(), 1);
    assert!(bench.verify(&before.token).is_ok());
    assert!(!changes.has_changed().unwrap());

    disk.full.store(false, Ordering::SeqCst);
    let after = registry.register(Some(id("refused")), Claim::random()).await.unwrap();
    assert_eq!(bench.verify(&after.token).unwrap().serial(), Serial(2));
    assert_eq!(registry.registered_agents(), 2);
}

#[tokio::test]
async fn requests_that_wait_share_one_commit() {
    let bench = Bench::new();
    let closed = bench.gate.write();
    let mut waiting: Vec<_> = (0..50)
        .map(|n| bench.registry.register(Some(id(&format!("name-{n}"))), Claim::random()))
        .collect();
    assert!(waiting.iter_mut().all(|request| enqueue(request).is_none()));
    bench.disk.flushes.store(0, Ordering::SeqCst);
    drop(closed);
    let mut serials = std::collections::BTreeSet::new();
    for request in waiting {
        let token = request.await.unwrap().token;
        serials.insert(bench.verify(&token).unwrap().serial());
    }
    assert_eq!(serials.len(), 50);
    assert_eq!(bench.registry.registered_agents(), 50);
    // Two batches at most: what the writer had taken when it came to the gate, and the rest.
    let flushes = bench.disk.flushes.load(Ordering::SeqCst);
    assert!((1..=6).contains(&flushes), "{flushes} flushes");
}

#[tokio::test]
async fn a_full_queue_turns_away_at_once() {
    const REQUESTS: usize = 2000;
    let bench = Bench::new();
    let closed = bench.gate.write();
    let mut requests: Vec<_> = (0..REQUESTS)
        .map(|_| bench.registry.register(Some(id("wanted")), Claim::random()))
        .collect();
    let answers: Vec<_> = requests.iter_mut().map(enqueue).collect();
    drop(closed);
    let (mut turned_away, mut won) = (0, 0);
    for (answer, request) in answers.into_iter().zip(requests) {
        match answer {
            Some(Err(RegisterError::Unavailable(reason))) => {
                assert!(reason.contains("too many requests"), "{reason}");
                turned_away += 1;
            }
            Some(other) => panic!("answered before its commit: {:?}", other.err()),
            None => won += usize::from(request.await.is_ok()),
        }
    }
    assert_eq!(won, 1);
    // The queue and one batch found a place.
    assert!(turned_away >= REQUESTS - 1024 - 256, "{turned_away}");
}

#[tokio::test]
async fn who_stops_waiting_takes_no_name() {
    let bench = Bench::new();
    let closed = bench.gate.write();
    let mut given_up = bench.registry.register(Some(id("wanted")), Claim::random());
    assert!(enqueue(&mut given_up).is_none());
    drop(given_up);
    drop(closed);
    assert!(bench.registry.register(Some(id("wanted")), Claim::random()).await.is_ok());
}
