//! What every registry does, whatever it is made of: one suite for the real one and for the one in memory.
#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

use std::time::Duration;

use super::{
    testing::{NOW, Running, TestClock, id, until},
    *,
};
use crate::test_disk::TestDisk;

const TTL: Duration = Duration::from_hours(1);

trait Book: Registry + Administration {}

impl<R: Registry + Administration> Book for R {}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_real_one_conforms() {
    let (dir, disk, clock) = (tempfile::tempdir().unwrap(), TestDisk::default(), TestClock::new());
    let settings = clock.settings(AtRest::generate(), Some(TTL));
    let registry = SharedRegistry::open_source(disk, dir.path(), false, settings).unwrap();
    let running = Running::alone(registry).await;
    conforms(&*running.registry, &clock).await;
}

#[tokio::test]
async fn the_one_in_memory_conforms() {
    let clock = TestClock::new();
    let now = clock.clone();
    conforms(&MemoryRegistry::new(Some(TTL), move || now.now()), &clock).await;
}

async fn conforms(book: &impl Book, clock: &TestClock) {
    names(book, clock).await;
    claims(book, clock).await;
    imports(book).await;
    revocations(book, clock).await;
    keys(book, clock).await;
}

fn grant(book: &impl Book, token: &str, clock: &TestClock) -> Grant {
    book.verify(token, clock.now()).unwrap()
}

async fn names(book: &impl Book, clock: &TestClock) {
    let first = book.register(Some(id("ann")), Claim::random()).await.unwrap();
    let of_first = grant(book, &first.token, clock);
    assert_eq!((of_first.agent(), of_first.serial()), (&id("ann"), Serial(1)));
    let taken = book.register(Some(id("ann")), Claim::random()).await;
    assert!(matches!(taken, Err(RegisterError::Taken)));
    let reserved = book.register(Some(id("relay")), Claim::random()).await;
    assert!(matches!(reserved, Err(RegisterError::Reserved)));
    let assigned = book.register(None, Claim::random()).await.unwrap().agent;
    assert_eq!(assigned.as_str().strip_prefix("agent-").unwrap().len(), 10);
    assert_eq!(book.registered_agents(), 2);
    let record =
        AgentRecord { registered_at: NOW, serial: Serial(1), revoked: false, banned: false };
    assert_eq!(book.agent(&id("ann")).await.unwrap(), Some(record));
    assert_eq!(book.agent(&id("nobody")).await.unwrap(), None);
}

async fn claims(book: &impl Book, clock: &TestClock) {
    for claim in [Claim::random(), Claim::repeatable("0123456789abcdef", None)] {
        let first = book.register(None, claim).await.unwrap();
        clock.advance(Duration::from_mins(1));
        let again = book.register(None, claim).await.unwrap();
        assert_eq!(first.agent, again.agent);
        let (one, other) = (grant(book, &first.token, clock), grant(book, &again.token, clock));
        assert_eq!((one.serial(), one.expires()), (other.serial(), other.expires()));
        // Whoever claimed the name has no claim to a later token.
        book.reissue(&first.agent).await.unwrap();
        let late = book.register(Some(first.agent), claim).await;
        assert!(late.is_err());
    }
}

async fn imports(book: &impl Book) {
    let refused = book.import(vec![id("relay")]).await;
    assert!(matches!(refused, Err(AdminError::Refused(_))));
    let names = ["imp-1", "imp-2", "imp-3"].map(id);
    let imported = book.import(names.to_vec()).await.unwrap();
    assert_eq!(imported, Imported { added: 3, existing: Vec::new() });
    let again = book.import(vec![id("imp-4"), id("imp-2")]).await.unwrap();
    assert_eq!(again, Imported { added: 1, existing: vec![id("imp-2")] });
    let page = book.agents(Some(id("imp-1")), 2).await.unwrap();
    let listed: Vec<_> = page.agents.iter().map(|(agent, it)| (agent.clone(), it.serial)).collect();
    assert_eq!(listed, [(id("imp-2"), Serial(0)), (id("imp-3"), Serial(0))]);
    assert!(page.more && !book.agents(Some(id("imp-3")), 2).await.unwrap().more);
    let taken = book.register(Some(id("imp-1")), Claim::random()).await;
    assert!(matches!(taken, Err(RegisterError::Taken)));
    book.reissue(&id("imp-1")).await.unwrap();
}

async fn revocations(book: &impl Book, clock: &TestClock) {
    let refused = |token: &str| matches!(book.verify(token, clock.now()), Err(TokenError::Revoked));
    let mut versions = book.revocations();
    let mut has_changed = || {
        let changed = versions.has_changed().unwrap();
        versions.mark_unchanged();
        changed
    };
    let first = book.register(Some(id("bob")), Claim::random()).await.unwrap().token;
    let second = book.reissue(&id("bob")).await.unwrap().token;
    let granted = grant(book, &first, clock);
    assert!(!has_changed() && !book.is_revoked(&granted));
    book.revoke(Revocation::Token(granted.serial())).await.unwrap();
    assert!(has_changed() && book.is_revoked(&granted) && refused(&first) && !refused(&second));
    assert!(!book.agent(&id("bob")).await.unwrap().unwrap().revoked, "the last one is not");
    book.revoke(Revocation::Agent(id("bob"))).await.unwrap();
    assert!(has_changed() && refused(&second));
    assert!(book.agent(&id("bob")).await.unwrap().unwrap().revoked);
    let third = book.reissue(&id("bob")).await.unwrap().token;
    assert!(!refused(&third));
    book.ban(&id("bob")).await.unwrap();
    assert!(has_changed() && refused(&third));
    assert!(matches!(book.reissue(&id("bob")).await, Err(AdminError::Banned)));
    book.unban(&id("bob")).await.unwrap();
    assert!(!refused(&third));
    let never = book.revoke(Revocation::Token(Serial(1_000))).await;
    assert!(matches!(never, Err(AdminError::UnknownToken)));
    for unknown in [
        book.revoke(Revocation::Agent(id("nobody"))).await,
        book.ban(&id("nobody")).await,
        book.unban(&id("nobody")).await,
        book.reissue(&id("nobody")).await.map(drop),
    ] {
        assert!(matches!(unknown, Err(AdminError::UnknownAgent)));
    }
    assert!(!has_changed());
}

async fn keys(book: &impl Book, clock: &TestClock) {
    let old = book.register(Some(id("cid")), Claim::random()).await.unwrap().token;
    let granted = grant(book, &old, clock);
    let rotation = book.rotate_key(Duration::from_mins(1)).await.unwrap();
    assert_eq!((rotation.retires.id, rotation.signs.id), (KeyId(0), KeyId(1)));
    assert_eq!(book.keys().await.unwrap(), [rotation.signs.clone(), rotation.retires]);
    let new = book.reissue(&id("cid")).await.unwrap().token;
    assert_eq!(grant(book, &new, clock).key(), KeyId(1));
    assert_eq!((granted.key(), book.is_revoked(&granted)), (KeyId(0), false));
    let changes = book.revocations();
    clock.advance(Duration::from_mins(1));
    until("the key retires", || book.is_revoked(&granted)).await;
    assert!(changes.has_changed().unwrap(), "open sessions are to be looked through");
    assert!(matches!(book.verify(&old, clock.now()), Err(TokenError::Revoked)));
    assert!(book.verify(&new, clock.now()).is_ok());
    assert_eq!(book.keys().await.unwrap(), [rotation.signs]);
    clock.advance(TTL);
    assert!(matches!(book.verify(&new, clock.now()), Err(TokenError::Expired)));
}
