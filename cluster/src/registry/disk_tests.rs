//! The registry of a node that is alone on a disk that fails, and with a queue that fills.
#![allow(clippy::unwrap_used)] // a test that cannot be set up has failed

use std::{
    path::Path,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll, Waker},
};

use parking_lot::RwLock;
use tempfile::TempDir;

use super::{
    testing::{NOW, Running, id, until},
    *,
};
use crate::{
    database::{FileError, Source},
    test_disk::TestDisk,
};

/// A registry on a disk in memory, which proposes nothing while the gate is locked.
struct Bench {
    disk: TestDisk,
    gate: Arc<RwLock<()>>,
    registry: Running,
    _dir: TempDir,
}

impl Bench {
    async fn new() -> Self {
        let (disk, gate) = (TestDisk::default(), Arc::new(RwLock::new(())));
        let passed = gate.clone();
        // Whoever proposes asks for the time when it has taken what waits.
        let now = Arc::new(move || {
            drop(passed.read());
            NOW
        });
        let dir = tempfile::tempdir().unwrap();
        let settings = Settings { token_ttl: None, now, at_rest: AtRest::generate() };
        let registry =
            SharedRegistry::open_source(disk.clone(), dir.path(), false, settings).unwrap();
        Self { disk, gate, registry: Running::alone(registry).await, _dir: dir }
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_refuses_and_leaves_no_trace() {
    let bench = Bench::new().await;
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
    let status = registry.status();
    assert!(!status.available && status.failure.unwrap().contains("no space left"));

    disk.full.store(false, Ordering::SeqCst);
    until("it works again", || registry.status().available).await;
    until("names are given back", || registry.releases().names().is_empty()).await;
    let after = registry.register(Some(id("refused")), Claim::random()).await.unwrap();
    assert!(bench.verify(&after.token).is_ok());
    assert_eq!(registry.registered_agents(), 2);
}

#[test]
fn a_disk_that_is_full_at_the_start_is_not_taken_for_a_damaged_file() {
    struct FullOnceOpen(TestDisk);

    impl Source for FullOnceOpen {
        fn open(&self) -> Result<redb::Database, FileError> {
            let opened = self.0.open()?;
            self.0.full.store(true, Ordering::SeqCst);
            Ok(opened)
        }

        fn path(&self) -> &Path {
            self.0.path()
        }
    }

    let (dir, disk) = (tempfile::tempdir().unwrap(), TestDisk::default());
    let settings =
        || Settings { token_ttl: None, now: Arc::new(|| NOW), at_rest: AtRest::generate() };
    for when in ["while it is opened", "before"] {
        let source = FullOnceOpen(disk.clone());
        let opened = SharedRegistry::open_source(source, dir.path(), false, settings());
        let error = opened.err().unwrap();
        let OpenError::Io { source, .. } = &error else { panic!("{when}: {error}") };
        assert_eq!(source.kind(), std::io::ErrorKind::StorageFull);
        assert!(source.to_string().contains("no space left"), "{source}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_wait_share_few_commits() {
    let bench = Bench::new().await;
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
    // Two batches at most: what was taken when it came to the gate, and the rest.
    let flushes = bench.disk.flushes.load(Ordering::SeqCst);
    assert!((1..=12).contains(&flushes), "{flushes} flushes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn too_many_requests_are_turned_away_at_once() {
    const REQUESTS: usize = 6_000;
    let bench = Bench::new().await;
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
    assert_eq!(turned_away, REQUESTS - 4_096);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_stops_waiting_takes_no_name() {
    let bench = Bench::new().await;
    let closed = bench.gate.write();
    let mut given_up = bench.registry.register(Some(id("wanted")), Claim::random());
    assert!(enqueue(&mut given_up).is_none());
    drop(given_up);
    drop(closed);
    until("the name is given back", || bench.registry.releases().names().is_empty()).await;
    assert!(bench.registry.register(Some(id("wanted")), Claim::random()).await.is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_is_full_for_long_is_tried_again_until_it_is_not() {
    let bench = Bench::new().await;
    bench.disk.full.store(true, Ordering::SeqCst);
    let repeated = Claim::repeatable("a key that is my own", Some(&id("mine")));
    assert!(bench.registry.register(Some(id("mine")), repeated).await.is_err());
    let opened = || bench.disk.opened.load(Ordering::SeqCst);
    let before = opened();
    until("it is tried again", || opened() > before).await;
    assert!(bench.registry.status().failure.is_some());
    bench.disk.full.store(false, Ordering::SeqCst);
    until("it works again", || bench.registry.status().available).await;
    let registration = bench.registry.register(Some(id("mine")), repeated).await.unwrap();
    assert!(bench.verify(&registration.token).is_ok());
}
