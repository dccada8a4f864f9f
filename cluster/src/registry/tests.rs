//! The registry of one node: names, revocations, restarts, and files that are none.
#![allow(clippy::unwrap_used)] // a test that cannot be set up has failed

use std::{fs, os::unix::fs::PermissionsExt, path::Path, sync::Arc, time::Duration};

use redb::Database;
use tokio::task::JoinSet;

use super::{
    testing::{NOW, Running, TestClock, id, won_and_taken},
    *,
};

const HOUR: Duration = Duration::from_hours(1);

/// Opens the registry in a directory.
fn open(
    dir: &Path,
    clock: &TestClock,
    ttl: Option<Duration>,
) -> Result<Arc<SharedRegistry>, OpenError> {
    let at_rest = AtRest::open(dir, None, None).unwrap_or_else(|_| AtRest::generate());
    SharedRegistry::open(dir, clock.settings(at_rest, ttl))
}

fn refused(dir: &Path) -> OpenError {
    open(dir, &TestClock::new(), None).err().unwrap()
}

/// One that is alone, and founded.
async fn start(dir: &Path) -> Running {
    Running::alone(open(dir, &TestClock::new(), None).unwrap()).await
}

fn verify(registry: &SharedRegistry, token: &str) -> Result<Grant, TokenError> {
    registry.verify(token, NOW)
}

#[tokio::test]
async fn a_name_is_given_once_and_its_token_speaks_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let registry = start(dir.path()).await;
    let first = registry.register(Some(id("rawk-042")), Claim::random()).await.unwrap();
    assert_eq!(first.agent, id("rawk-042"));
    let grant = verify(&registry, &first.token).unwrap();
    assert_eq!((grant.agent(), grant.serial()), (&id("rawk-042"), Serial(1)));
    let again = registry.register(Some(id("rawk-042")), Claim::random()).await;
    assert!(matches!(again, Err(RegisterError::Taken)));
    let reserved = registry.register(Some(id("relay")), Claim::random()).await;
    assert!(matches!(reserved, Err(RegisterError::Reserved)));
    assert_eq!(registry.registered_agents(), 1);
    let record = registry.agent(&id("rawk-042")).await.unwrap().unwrap();
    let expected =
        AgentRecord { registered_at: NOW, serial: Serial(1), revoked: false, banned: false };
    assert_eq!(record, expected);
    assert_eq!(registry.agent(&id("nobody")).await.unwrap(), None);
}

#[tokio::test]
async fn whose_file_was_removed_under_it_registers_nobody_and_still_knows_all() {
    let dir = tempfile::tempdir().unwrap();
    let registry = start(dir.path()).await;
    let first = registry.register(Some(id("first")), Claim::random()).await.unwrap();
    assert_eq!((registry.status().available, registry.status().failure), (true, None));
    let aside = dir.path().join("aside");
    fs::rename(dir.path().join("registry.redb"), &aside).unwrap();
    let refused = registry.register(Some(id("second")), Claim::random()).await.map(drop);
    assert!(
        matches!(&refused, Err(RegisterError::Unavailable(why)) if why.contains("arc-relay backup")),
        "{refused:?}"
    );
    assert!(!registry.status().available && registry.status().failure.is_some());
    assert!(verify(&registry, &first.token).is_ok());
    assert_eq!(registry.agents(None, 10).await.unwrap().agents.len(), 1);
    assert!(registry.export().await.is_ok());
    fs::rename(aside, dir.path().join("registry.redb")).unwrap();
    registry.register(Some(id("second")), Claim::random()).await.unwrap();
}

#[tokio::test]
async fn who_wants_no_name_gets_a_new_one() {
    let dir = tempfile::tempdir().unwrap();
    let registry = start(dir.path()).await;
    let mut names = std::collections::HashSet::new();
    for _ in 0..20 {
        let Registration { agent, token } = registry.register(None, Claim::random()).await.unwrap();
        let random = agent.as_str().strip_prefix("agent-").unwrap();
        assert_eq!(random.len(), 10);
        assert!(random.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()));
        assert_eq!(verify(&registry, &token).unwrap().agent(), &agent);
        assert!(names.insert(agent));
    }
    assert_eq!(registry.registered_agents(), 20);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_claims_to_one_name_one_wins() {
    let dir = tempfile::tempdir().unwrap();
    let registry = start(dir.path()).await;
    let mut claims = JoinSet::new();
    for _ in 0..200 {
        let registry = registry.registry.clone();
        claims.spawn(async move { registry.register(Some(id("wanted")), Claim::random()).await });
    }
    assert_eq!(won_and_taken(claims).await, (1, 199));
    assert_eq!(registry.registered_agents(), 1);
}

#[test]
fn a_life_is_newer_than_all_before_even_if_the_directory_is_an_older_copy() {
    let dir = tempfile::tempdir().unwrap();
    let clock = TestClock::new();
    let (file, backup) = (dir.path().join("registry.redb"), dir.path().join("backup"));
    let live = || open(dir.path(), &clock, None).unwrap().identity().generation;
    let first = live();
    fs::copy(&file, &backup).unwrap();
    assert!(live() > first, "two starts within one tick of the clock");
    clock.advance(Duration::from_secs(1));
    let last = live();
    clock.advance(Duration::from_secs(1));
    fs::copy(&backup, &file).unwrap();
    let restored = live();
    assert!(restored > last, "peers would take {restored} for a life before {last}");
}

#[tokio::test]
async fn a_restart_forgets_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let data_dir = dir.path().join("new/data");
    let registry = start(&data_dir).await;
    let before = registry.identity();
    let kept = registry.register(Some(id("kept")), Claim::random()).await.unwrap();
    let revoked = registry.register(Some(id("revoked")), Claim::random()).await.unwrap();
    let banned = registry.register(Some(id("banned")), Claim::random()).await.unwrap();
    registry.revoke(Revocation::Token(Serial(2))).await.unwrap();
    registry.revoke(Revocation::Agent(id("banned"))).await.unwrap();
    registry.stop().await;

    let registry = start(&data_dir).await;
    let now = registry.identity();
    assert_eq!((now.node, now.generation.0), (before.node, before.generation.0 + 1));
    assert_eq!(registry.registered_agents(), 3);
    assert!(verify(&registry, &kept.token).is_ok());
    assert_eq!(verify(&registry, &revoked.token).unwrap_err(), TokenError::Revoked);
    assert_eq!(verify(&registry, &banned.token).unwrap_err(), TokenError::Revoked);
    let again = registry.register(Some(id("kept")), Claim::random()).await;
    assert!(matches!(again, Err(RegisterError::Taken)));
    let next = registry.register(Some(id("next")), Claim::random()).await.unwrap();
    assert_eq!(verify(&registry, &next.token).unwrap().serial(), Serial(4));
}

#[tokio::test]
async fn a_retry_after_the_token_was_replaced_is_not_told_that_another_has_the_name() {
    let dir = tempfile::tempdir().unwrap();
    let registry = start(dir.path()).await;
    let claim = Claim::random();
    registry.register(Some(id("rawk-042")), claim).await.unwrap();
    let token = registry.reissue(&id("rawk-042")).await.unwrap().token;
    let retry = registry.register(Some(id("rawk-042")), claim).await;
    assert!(matches!(retry, Err(RegisterError::Unavailable(_))));
    let other = registry.register(Some(id("rawk-042")), Claim::random()).await;
    assert!(matches!(other, Err(RegisterError::Taken)));
    assert!(verify(&registry, &token).is_ok(), "and the name stays with who has the new token");
}

#[tokio::test]
async fn who_keeps_the_book_saves_no_view_and_believes_none() {
    let dir = tempfile::tempdir().unwrap();
    let (file, older) = (dir.path().join("registry.redb"), dir.path().join("older"));
    let view = dir.path().join("registry.view");
    let registry = start(dir.path()).await;
    let token = registry.register(Some(id("abc")), Claim::random()).await.unwrap().token;
    registry.stop().await;
    fs::copy(&file, &older).unwrap();
    let registry = start(dir.path()).await;
    for n in 0..5 {
        registry.register(Some(id(&format!("later-{n}"))), Claim::random()).await.unwrap();
    }
    assert!(!view.exists());
    let (index, facts) = registry.standing().view();
    let sealing = registry.store().sealing();
    registry.stop().await;

    saved::Saved { index, facts }.write(dir.path(), &sealing).unwrap();
    fs::copy(&older, &file).unwrap();
    let registry = start(dir.path()).await;
    assert!(!view.exists());
    assert_eq!(registry.registered_agents(), 1);
    registry.revoke(Revocation::Agent(id("abc"))).await.unwrap();
    assert_eq!(verify(&registry, &token).unwrap_err(), TokenError::Revoked);
}

#[tokio::test]
async fn a_view_without_its_registry_founds_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let registry = start(dir.path()).await;
    let (index, facts) = registry.standing().view();
    saved::Saved { index, facts }.write(dir.path(), &registry.store().sealing()).unwrap();
    registry.stop().await;
    fs::remove_file(dir.path().join("registry.redb")).unwrap();
    let error = refused(dir.path()).to_string();
    assert!(error.contains("registry.view") && error.contains("subscriptions.redb"), "{error}");
    fs::remove_file(dir.path().join("registry.view")).unwrap();
    let registry = start(dir.path()).await;
    assert_eq!(registry.registered_agents(), 0);
}

#[tokio::test]
async fn what_is_stored_is_for_the_owner_alone() {
    let dir = tempfile::tempdir().unwrap();
    let data_dir = dir.path().join("data");
    let registry = start(&data_dir).await;
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&data_dir), 0o700);
    assert_eq!(mode(&data_dir.join("registry.redb")), 0o600);
    registry.stop().await;
}

#[tokio::test]
async fn revoking_a_token_spares_the_agents_others() {
    let dir = tempfile::tempdir().unwrap();
    let registry = start(dir.path()).await;
    let old = registry.register(Some(id("rawk-042")), Claim::random()).await.unwrap();
    let new = registry.reissue(&id("rawk-042")).await.unwrap();
    let grant = verify(&registry, &old.token).unwrap();
    let mut changes = registry.revocations();
    registry.revoke(Revocation::Token(Serial(1))).await.unwrap();
    assert!(changes.has_changed().unwrap());
    changes.mark_unchanged();
    assert!(registry.is_revoked(&grant));
    assert_eq!(verify(&registry, &old.token).unwrap_err(), TokenError::Revoked);
    assert!(verify(&registry, &new.token).is_ok());
    let record = registry.agent(&id("rawk-042")).await.unwrap().unwrap();
    assert_eq!((record.serial, record.revoked), (Serial(2), false));
    registry.revoke(Revocation::Token(Serial(2))).await.unwrap();
    assert!(changes.has_changed().unwrap());
    assert!(registry.agent(&id("rawk-042")).await.unwrap().unwrap().revoked);
}

#[tokio::test]
async fn a_revoked_agent_can_be_given_a_new_token() {
    let dir = tempfile::tempdir().unwrap();
    let registry = start(dir.path()).await;
    let first = registry.register(Some(id("rawk-042")), Claim::random()).await.unwrap();
    let second = registry.reissue(&id("rawk-042")).await.unwrap();
    let other = registry.register(Some(id("other")), Claim::random()).await.unwrap();
    registry.revoke(Revocation::Agent(id("rawk-042"))).await.unwrap();
    for token in [&first.token, &second.token] {
        assert_eq!(verify(&registry, token).unwrap_err(), TokenError::Revoked);
    }
    assert!(registry.agent(&id("rawk-042")).await.unwrap().unwrap().revoked);
    assert!(verify(&registry, &other.token).is_ok());

    let third = registry.reissue(&id("rawk-042")).await.unwrap();
    assert!(verify(&registry, &third.token).is_ok());
    assert!(!registry.agent(&id("rawk-042")).await.unwrap().unwrap().revoked);
    assert_eq!(verify(&registry, &first.token).unwrap_err(), TokenError::Revoked);
    registry.stop().await;
    let registry = start(dir.path()).await;
    assert!(verify(&registry, &third.token).is_ok());
}

#[tokio::test]
async fn what_was_never_issued_cannot_be_revoked() {
    let dir = tempfile::tempdir().unwrap();
    let registry = start(dir.path()).await;
    registry.register(Some(id("rawk-042")), Claim::random()).await.unwrap();
    let changes = registry.revocations();
    for serial in [0, 2, u64::MAX] {
        let outcome = registry.revoke(Revocation::Token(Serial(serial))).await;
        assert!(matches!(outcome, Err(AdminError::UnknownToken)), "{serial}");
    }
    let outcome = registry.revoke(Revocation::Agent(id("nobody"))).await;
    assert!(matches!(outcome, Err(AdminError::UnknownAgent)));
    assert!(matches!(registry.reissue(&id("nobody")).await, Err(AdminError::UnknownAgent)));
    assert!(!changes.has_changed().unwrap());
}

#[tokio::test]
async fn revocations_are_forgotten_long_after_every_token_has_expired() {
    let dir = tempfile::tempdir().unwrap();
    let clock = TestClock::new();
    let start = async || Running::alone(open(dir.path(), &clock, Some(HOUR)).unwrap()).await;
    let registry = start().await;
    let token = registry.register(Some(id("rawk-042")), Claim::random()).await.unwrap().token;
    registry.revoke(Revocation::Agent(id("rawk-042"))).await.unwrap();
    registry.revoke(Revocation::Token(Serial(1))).await.unwrap();
    registry.stop().await;

    clock.advance(HOUR.saturating_sub(Duration::from_millis(1)));
    let registry = start().await;
    assert_eq!(registry.verify(&token, clock.now()).unwrap_err(), TokenError::Revoked);
    registry.stop().await;

    clock.advance(Duration::from_secs(2));
    let registry = start().await;
    assert_eq!(registry.verify(&token, clock.now()).unwrap_err(), TokenError::Expired);
    // The log's time passes with the next change.
    clock.advance(Duration::from_hours(8 * 24));
    registry.register(None, Claim::random()).await.unwrap();
    let (_, known) = registry.standing().view();
    assert!(known.tokens.is_empty() && known.agents.is_empty());
}

#[tokio::test]
async fn one_token_without_end_keeps_every_revocation() {
    let dir = tempfile::tempdir().unwrap();
    let clock = TestClock::new();
    let start = async |ttl| Running::alone(open(dir.path(), &clock, ttl).unwrap()).await;
    let registry = start(None).await;
    registry.register(Some(id("for-ever")), Claim::random()).await.unwrap();
    registry.stop().await;
    let registry = start(Some(HOUR)).await;
    registry.revoke(Revocation::Token(Serial(1))).await.unwrap();
    clock.advance(1000 * HOUR);
    registry.register(None, Claim::random()).await.unwrap();
    registry.stop().await;
    let (_, known) = start(Some(HOUR)).await.standing().view();
    assert!(known.tokens.contains_key(&Serial(1)));
}

#[test]
fn a_second_process_is_turned_away() {
    let dir = tempfile::tempdir().unwrap();
    let first = open(dir.path(), &TestClock::new(), None).unwrap();
    let error = refused(dir.path());
    assert!(matches!(error, OpenError::InUse(_)));
    assert!(error.to_string().starts_with("another arc-relay runs on this data directory"));
    drop(first);
    open(dir.path(), &TestClock::new(), None).unwrap();
}

#[test]
fn a_file_that_is_no_registry_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("registry.redb");
    for content in ["x".to_owned(), "Dear diary,\n".repeat(10_000)] {
        fs::write(&file, &content).unwrap();
        let error = refused(dir.path());
        assert!(matches!(error, OpenError::Unreadable { .. }), "{error}");
        assert!(error.to_string().contains("registry.redb"), "{error}");
        assert_eq!(fs::read_to_string(&file).unwrap(), content);
    }
}

#[test]
fn what_to_do_about_a_file_of_no_use_depends_on_whether_others_have_the_names() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("registry.redb"), "x").unwrap();
    let alone = refused(dir.path()).to_string();
    let all = "move away registry.redb, subscriptions.redb, registry.view there";
    assert!(alone.contains(all) && alone.contains("restore a backup into it"), "{alone}");
    let one_of_several = refused(dir.path()).among_others(true).to_string();
    assert!(one_of_several.contains("the other nodes have the names: empty DATA_DIR"));
    assert!(!one_of_several.contains("move away"), "{one_of_several}");
}

#[test]
fn another_programs_database_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let database = Database::create(dir.path().join("registry.redb")).unwrap();
    let transaction = database.begin_write().unwrap();
    transaction.open_table(redb::TableDefinition::<u64, u64>::new("theirs")).unwrap();
    transaction.commit().unwrap();
    drop(database);
    let error = refused(dir.path());
    assert!(error.to_string().contains("it holds something else"), "{error}");
}

#[tokio::test]
async fn a_damaged_registry_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let registry = start(dir.path()).await;
    for n in 0..50 {
        registry.register(Some(id(&format!("agent-{n}"))), Claim::random()).await.unwrap();
    }
    registry.stop().await;
    let file = dir.path().join("registry.redb");
    let mut content = fs::read(&file).unwrap();
    let needle = b"agent-7";
    let places: Vec<_> =
        (0..content.len()).filter(|at| content[*at..].starts_with(needle)).collect();
    for at in places {
        content[at + 6] = b'8';
    }
    fs::write(&file, &content).unwrap();
    let error = refused(dir.path());
    assert!(matches!(error, OpenError::Unreadable { .. }), "{error}");
}

#[test]
fn another_releases_file_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path(), &TestClock::new(), None).unwrap());
    let database = Database::open(dir.path().join("registry.redb")).unwrap();
    let transaction = database.begin_write().unwrap();
    let newer = 3_u32.to_be_bytes();
    transaction
        .open_table(crate::database::META)
        .unwrap()
        .insert("schema", newer.as_slice())
        .unwrap();
    transaction.commit().unwrap();
    drop(database);
    let error = refused(dir.path());
    assert!(matches!(error, OpenError::Schema { found: 3, .. }), "{error}");
}

#[test]
fn a_directory_that_cannot_be_made_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    let data_dir = file.join("data");
    let error = refused(&data_dir);
    assert!(error.to_string().contains(&data_dir.display().to_string()), "{error}");
}
