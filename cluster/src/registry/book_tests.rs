//! The rules of the book, command by command, and that all voters come to the same.
#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

use std::time::Duration;

use openraft::{EntryPayload, storage::RaftStateMachine};
use proptest::prelude::*;

use super::{
    command::{Audience, Batch, Command, Issued, Outcome, Secret},
    facts::Facts,
    raft::Entry,
    store_tests::{Bench, NOW, id, log_id, register},
    *,
};
use crate::token::TokenSigner;

fn claim(n: u8, repeatable: bool) -> Claim {
    Claim { id: [n; 16], repeatable }
}

fn take(agent: &str, claim: Claim) -> Command {
    Command::Register { agent: id(agent), claim, expires: None }
}

fn secret(n: u8) -> Secret {
    Secret(TokenSigner::from_secret(&[n; 32]).unwrap().secret())
}

fn serial(outcome: &Outcome) -> u64 {
    match outcome {
        Outcome::Issued(issued) => issued.serial.0,
        other => panic!("no token: {other:?}"),
    }
}

impl Bench {
    async fn one(&mut self, command: Command) -> Outcome {
        self.commit(vec![command]).await.remove(0)
    }

    /// One entry whose leader's clock says this.
    async fn at(&mut self, time: UnixMillis, commands: Vec<Command>) -> Vec<Outcome> {
        let mut entry = self.entry(Vec::new());
        entry.payload = EntryPayload::Normal(Batch { time, commands });
        self.machine.apply([entry]).await.unwrap().concat()
    }

    fn news(&self) -> Facts {
        self.told.0.lock().last().unwrap().2.clone()
    }
}

#[tokio::test]
async fn nothing_is_done_before_the_founding_or_founded_twice() {
    let mut bench = Bench::new();
    assert_eq!(bench.one(register("abc")).await, Outcome::Unfounded);
    let bad = Command::Found { registry: RegistryId(1), key: Secret(vec![1; 31].into()) };
    assert_eq!(bench.one(bad).await, Outcome::Malformed);
    let found = |n| Command::Found { registry: RegistryId(n), key: secret(7) };
    assert_eq!(bench.one(found(1)).await, Outcome::Done);
    assert_eq!(bench.one(found(2)).await, Outcome::Unfounded);
    let founded = bench.store.memory().unwrap().1.founded.unwrap();
    assert_eq!(founded.registry, RegistryId(1));
    assert_eq!(bench.store.signer().unwrap().unwrap().id(), KeyId(0));
}

#[tokio::test]
async fn a_name_is_given_once_and_the_same_claim_has_the_same_outcome() {
    let mut bench = Bench::founded().await;
    let first = bench.one(take("abc", claim(1, true))).await;
    assert_eq!(serial(&first), 1);
    assert_eq!(bench.one(take("abc", claim(2, true))).await, Outcome::Taken);
    let later = Command::Register {
        agent: id("abc"),
        claim: claim(1, true),
        expires: Some(UnixMillis(u64::MAX - 1)),
    };
    assert_eq!(bench.one(later).await, first, "the token's end is the first one's too");
    assert_eq!(bench.one(take("relay", claim(3, false))).await, Outcome::Taken);
    assert_eq!(bench.news().registered, 1);
}

#[tokio::test]
async fn a_claim_ends_when_the_token_is_replaced_and_its_retry_does_not_hear_that_another_has_the_name()
 {
    for repeatable in [false, true] {
        let mut bench = Bench::founded().await;
        let claimant = || take("abc", claim(1, repeatable));
        bench.one(claimant()).await;
        let reissued = bench.one(Command::Reissue { agent: id("abc"), expires: None }).await;
        assert_eq!(serial(&reissued), 2);
        // The new token is not the claimant's; and the claimant is not somebody else.
        assert_eq!(bench.one(claimant()).await, Outcome::Released);
        assert_eq!(bench.one(take("abc", claim(2, repeatable))).await, Outcome::Taken);
        // Of its retries none is left by then.
        let later = NOW.plus(Duration::from_mins(2));
        bench.at(later, Vec::new()).await;
        assert_eq!(bench.at(later, vec![claimant()]).await, [Outcome::Taken]);
        assert_eq!(bench.store.agent(&id("abc")).unwrap().unwrap().serial, Serial(2));
    }
}

#[tokio::test]
async fn a_released_name_is_free_and_its_claim_comes_too_late() {
    let mut bench = Bench::founded().await;
    let release = |n| Command::Release { agent: id("abc"), claim: claim(n, false) };
    bench.one(take("abc", claim(1, false))).await;
    assert_eq!(bench.one(release(2)).await, Outcome::Done);
    assert!(bench.store.agent(&id("abc")).unwrap().is_some(), "another's claim");
    assert_eq!(bench.one(release(1)).await, Outcome::Done);
    assert!(bench.store.agent(&id("abc")).unwrap().is_none());
    assert_eq!(bench.one(take("abc", claim(1, false))).await, Outcome::Released);
    assert_eq!(serial(&bench.one(take("abc", claim(3, false))).await), 2);
    assert_eq!(bench.one(take("other", claim(2, false))).await, Outcome::Released);

    // Long after, nobody asks with it any more, and it is forgotten.
    let later = NOW.plus(Duration::from_mins(2));
    bench.at(later, Vec::new()).await;
    assert_eq!(serial(&bench.at(later, vec![take("other", claim(2, false))]).await[0]), 3);
}

#[tokio::test]
async fn a_ban_holds_until_it_is_lifted() {
    let mut bench = Bench::founded().await;
    assert_eq!(bench.one(Command::Ban(id("abc"))).await, Outcome::UnknownAgent);
    bench.one(register("abc")).await;
    assert_eq!(bench.one(Command::Ban(id("abc"))).await, Outcome::Done);
    assert_eq!(bench.news().bans, [(id("abc"), true)].into());
    let reissue = Command::Reissue { agent: id("abc"), expires: None };
    assert_eq!(bench.one(reissue.clone()).await, Outcome::Banned);
    let record = bench.store.agent(&id("abc")).unwrap().unwrap();
    assert!(record.banned && !record.revoked);
    assert_eq!(bench.one(Command::Unban(id("abc"))).await, Outcome::Done);
    assert_eq!(bench.news().bans, [(id("abc"), false)].into());
    assert_eq!(serial(&bench.one(reissue).await), 2);
}

#[tokio::test]
async fn a_revocation_touches_what_was_issued_before() {
    let mut bench = Bench::founded().await;
    bench.commit(vec![register("abc"), register("def")]).await;
    let token = |serial| Command::Revoke(Revocation::Token(Serial(serial)));
    assert_eq!(bench.one(token(0)).await, Outcome::UnknownToken);
    assert_eq!(bench.one(token(3)).await, Outcome::UnknownToken);
    assert_eq!(bench.one(token(2)).await, Outcome::Done);
    assert_eq!(bench.news().tokens, [(Serial(2), true)].into());
    let agent = |name| Command::Revoke(Revocation::Agent(id(name)));
    assert_eq!(bench.one(agent("ghi")).await, Outcome::UnknownAgent);
    assert_eq!(bench.one(agent("abc")).await, Outcome::Done);
    assert_eq!(bench.news().agents, [(id("abc"), Some(Serial(1)))].into());
    let revoked = |name| bench.store.agent(&id(name)).unwrap().unwrap().revoked;
    assert!(revoked("abc") && revoked("def"));
    bench.one(Command::Reissue { agent: id("abc"), expires: None }).await;
    assert!(!bench.store.agent(&id("abc")).unwrap().unwrap().revoked);
    assert_eq!(bench.one(register("abc")).await, Outcome::Taken, "the id stays taken");
}

#[tokio::test]
async fn a_revocation_is_forgotten_long_after_all_its_tokens_have_expired() {
    let mut bench = Bench::founded().await;
    let expires = NOW.plus(Duration::from_hours(1));
    let short =
        Command::Register { agent: id("abc"), claim: claim(1, false), expires: Some(expires) };
    bench.one(short).await;
    bench.one(Command::Revoke(Revocation::Token(Serial(1)))).await;
    bench.one(Command::Revoke(Revocation::Agent(id("abc")))).await;
    // A leader's clock may have been days ahead, and the log's time does not go back.
    bench.at(expires.plus(Duration::from_hours(6 * 24)), Vec::new()).await;
    assert_eq!(bench.news().tokens.len() + bench.news().agents.len(), 0);
    bench.at(expires.plus(Duration::from_hours(8 * 24)), Vec::new()).await;
    assert_eq!(bench.news().tokens, [(Serial(1), false)].into());
    assert_eq!(bench.news().agents, [(id("abc"), None)].into());
    let (_, all) = bench.store.memory().unwrap();
    assert!(all.tokens.is_empty() && all.agents.is_empty());
}

#[tokio::test]
async fn imported_names_have_no_token_yet() {
    let mut bench = Bench::founded().await;
    bench.one(register("abc")).await;
    let names = ["abc", "def", "ghi", "relay", "def"].map(id).to_vec();
    let existing = ["abc", "relay", "def"].map(id).to_vec();
    assert_eq!(bench.one(Command::Import(names)).await, Outcome::Imported { added: 2, existing });
    assert_eq!(bench.store.agent(&id("def")).unwrap().unwrap().serial, Serial(0));
    assert_eq!(bench.one(register("def")).await, Outcome::Taken);
    let reissue = Command::Reissue { agent: id("def"), expires: None };
    assert_eq!(serial(&bench.one(reissue).await), 2);
    assert_eq!(bench.news().registered, 3);
}

#[tokio::test]
async fn a_new_key_signs_and_the_former_retires_when_its_time_has_come() {
    let mut bench = Bench::founded().await;
    let retires_at = NOW.plus(Duration::from_hours(1));
    let add = |n| Command::AddKey { secret: secret(n), retires_at };
    let bad = Command::AddKey { secret: Secret(Vec::new().into()), retires_at };
    assert_eq!(bench.one(bad).await, Outcome::Malformed);
    assert_eq!(bench.one(add(8)).await, Outcome::Key(KeyId(1)));
    assert_eq!(bench.store.signer().unwrap().unwrap().id(), KeyId(1));
    let keys = bench.store.keys().unwrap();
    assert_eq!(keys.iter().map(|key| key.id.0).collect::<Vec<_>>(), [1, 0]);
    assert_eq!((keys[0].retires_at, keys[1].retires_at), (None, Some(retires_at)));
    assert_eq!(bench.store.head().unwrap().keys_change_at, Some(retires_at));

    bench.at(retires_at, Vec::new()).await;
    let keys = bench.news().keys.unwrap();
    assert_eq!(keys.iter().map(|key| key.retired).collect::<Vec<_>>(), [true, false]);
    assert_eq!(bench.store.keys().unwrap().len(), 1);
    bench.at(retires_at.plus(Duration::from_hours(91 * 24)), Vec::new()).await;
    assert_eq!(bench.news().keys.unwrap().len(), 1);
    assert_eq!(bench.store.head().unwrap().keys_change_at, None);
    assert_eq!(bench.one(add(9)).await, Outcome::Key(KeyId(2)));
}

#[tokio::test]
async fn a_value_is_replaced_by_who_knows_its_version() {
    let mut bench = Bench::founded().await;
    let put = |expected, value: Option<&[u8]>| Command::PutVault {
        key: "cert".into(),
        expected,
        value: value.map(|value| Secret(value.to_vec().into())),
        audience: Audience::All,
    };
    assert_eq!(bench.one(put(1, Some(b"a"))).await, Outcome::Conflict(0));
    assert_eq!(bench.one(put(0, Some(b"a"))).await, Outcome::Version(1));
    assert_eq!(bench.one(put(0, Some(b"b"))).await, Outcome::Conflict(1));
    assert_eq!(bench.one(put(1, Some(b"b"))).await, Outcome::Version(2));
    assert_eq!(bench.news().vault["cert"].value, Some(Secret(b"b".to_vec().into())));
    assert_eq!(bench.store.memory().unwrap().1.vault["cert"].version, 2);
    assert_eq!(bench.one(put(2, None)).await, Outcome::Version(0));
    assert_eq!(bench.news().vault["cert"].value, None);
    assert!(bench.store.memory().unwrap().1.vault.is_empty());
    assert_eq!(bench.one(put(0, Some(b"c"))).await, Outcome::Version(4), "never one of before");
    let long = put(4, Some(&vec![0; (64 << 10) + 1]));
    assert_eq!(bench.one(long).await, Outcome::Malformed);
}

#[tokio::test]
async fn time_in_the_log_never_goes_back() {
    let mut bench = Bench::founded().await;
    let late = NOW.plus(Duration::from_secs(5));
    bench.at(late, vec![register("abc")]).await;
    let outcomes = bench.at(NOW, vec![register("def")]).await;
    let [Outcome::Issued(Issued { issued_at, .. })] = outcomes[..] else { panic!("no token") };
    assert_eq!(issued_at, late);
}

#[tokio::test]
async fn agents_are_listed_in_pages() {
    let mut bench = Bench::founded().await;
    let names = ["aaa", "bbb", "ccc", "ddd", "eee"];
    bench.commit(names.map(register).to_vec()).await;
    let page = |after: Option<&str>, limit| {
        let page = bench.store.agents(after.map(id).as_ref(), limit).unwrap();
        let names = page.agents.iter().map(|(id, _)| id.to_string()).collect::<Vec<_>>();
        (names.join(" "), page.more)
    };
    assert_eq!(page(None, 2), ("aaa bbb".into(), true));
    assert_eq!(page(Some("bbb"), 3), ("ccc ddd eee".into(), false));
    assert_eq!(page(Some("bcc"), 1), ("ccc".into(), true));
    assert_eq!(page(Some("eee"), 9), (String::new(), false));
}

fn commands() -> impl Strategy<Value = Command> {
    let agent = || (0..6_u8).prop_map(|n| id(&format!("agent-{n}")));
    let claim = || (0..8_u8, any::<bool>()).prop_map(|(n, repeatable)| claim(n, repeatable));
    let expires = || proptest::option::of((0..200_u64).prop_map(|s| UnixMillis(NOW.0 + s * 1000)));
    let value = || proptest::option::of((0..3_u8).prop_map(|n| Secret(vec![n; 3].into())));
    prop_oneof![
        4 => (agent(), claim(), expires())
            .prop_map(|(agent, claim, expires)| Command::Register { agent, claim, expires }),
        2 => (agent(), claim()).prop_map(|(agent, claim)| Command::Release { agent, claim }),
        2 => (agent(), expires()).prop_map(|(agent, expires)| Command::Reissue { agent, expires }),
        1 => (0..20_u64).prop_map(|n| Command::Revoke(Revocation::Token(Serial(n)))),
        1 => agent().prop_map(|agent| Command::Revoke(Revocation::Agent(agent))),
        1 => agent().prop_map(Command::Ban),
        1 => agent().prop_map(Command::Unban),
        1 => proptest::collection::vec(agent(), 0..4).prop_map(Command::Import),
        1 => (0..200_u64).prop_map(|s| Command::AddKey {
            secret: secret(8),
            retires_at: UnixMillis(NOW.0 + s * 1000),
        }),
        1 => (0..4_u64, value(), any::<bool>()).prop_map(|(expected, value, all)| {
            let audience = if all { Audience::All } else { Audience::Voters };
            Command::PutVault { key: "cert".into(), expected, value, audience }
        }),
        1 => Just(Command::WantVoters(Some(vec!["a:1".into()]))),
    ]
}

fn batches() -> impl Strategy<Value = Vec<Batch>> {
    let time = (0..200_u64).prop_map(|s| UnixMillis(NOW.0 + s * 1000));
    let batch = (time, proptest::collection::vec(commands(), 0..6))
        .prop_map(|(time, commands)| Batch { time, commands });
    proptest::collection::vec(batch, 1..12).prop_map(|mut batches| {
        let found = Command::Found { registry: RegistryId(1), key: secret(7) };
        batches[0].commands.insert(0, found);
        batches
    })
}

/// The book, the outcomes and the facts after these batches, so many of which are applied at once.
fn result(batches: &[Batch], at_once: usize) -> (Vec<u8>, Vec<Vec<Outcome>>, Facts) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let mut bench = Bench::new();
        let mut outcomes = Vec::new();
        let entries = batches.iter().zip(1..).map(|(batch, index)| Entry {
            log_id: log_id(index),
            payload: EntryPayload::Normal(batch.clone()),
        });
        for group in entries.collect::<Vec<_>>().chunks(at_once) {
            outcomes.extend(bench.machine.apply(group.to_vec()).await.unwrap());
        }
        let mut facts = Facts::default();
        bench.told.0.lock().drain(..).for_each(|(_, _, news)| facts.extend(news));
        (bench.bytes(), outcomes, facts)
    })
}

/// What is in force, of facts that say what came and went.
fn in_force(mut facts: Facts) -> Facts {
    facts.tokens.retain(|_, revoked| *revoked);
    facts.agents.retain(|_, until| until.is_some());
    facts.bans.retain(|_, banned| *banned);
    facts.vault.retain(|_, fact| fact.value.is_some());
    facts.wanted_voters.get_or_insert_default();
    facts
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn all_voters_come_to_the_same_book(batches in batches(), at_once in 2..12_usize) {
        let (book, outcomes, facts) = result(&batches, 1);
        let (other_book, other_outcomes, other_facts) = result(&batches, at_once);
        prop_assert_eq!(outcomes, other_outcomes);
        prop_assert_eq!(&facts, &other_facts);
        prop_assert_eq!(&book, &other_book);
    }

    #[test]
    fn who_follows_knows_what_the_book_says(batches in batches()) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let mut bench = Bench::new();
            for batch in &batches {
                bench.at(batch.time, batch.commands.clone()).await;
            }
            let mut facts = Facts::default();
            bench.told.0.lock().drain(..).for_each(|(_, _, news)| facts.extend(news));
            prop_assert_eq!(in_force(facts), bench.store.memory().unwrap().1);
            Ok(())
        })?;
    }
}
