//! The registry's file after a crash and damage: it is refused, or has everything that was acknowledged.
#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

use openraft::RaftLogReader;

use super::{
    command::Command,
    store::{OpenError, Opened, Store},
    store_tests::{Bench, NOW, id},
    *,
};
use crate::test_disk::TestDisk;

/// redb's pages.
const PAGE_BYTES: usize = 4_096;

/// What one place is overwritten with.
const DAMAGE: [u8; 64] = [0xA5; 64];

fn register(name: &str) -> Command {
    let claim = Claim { id: [7; 16], ..Claim::random() };
    Command::Register { agent: id(name), claim, expires: None }
}

/// A registry's disk after a crash, the keys that it is sealed with, and how many entries its log has.
async fn crashed() -> (TestDisk, AtRest, u64) {
    let mut bench = Bench::founded().await;
    for n in 1..=20 {
        bench.commit(vec![register(&format!("n-{n}"))]).await;
    }
    bench.commit(vec![register("keep")]).await;
    let disk = bench.disk.crashed();
    let last = bench.last;
    drop(bench.store);
    drop((bench.log, bench.machine));
    let keys = std::sync::Arc::into_inner(bench.keys).unwrap();
    (disk, keys, last)
}

/// The names of all entries in the log behind the founding.
async fn names(store: &Store, last: u64) -> Vec<String> {
    let entries = store.log().try_get_log_entries(2..=last).await.unwrap();
    let name = |entry: super::raft::Entry| match entry.payload {
        openraft::EntryPayload::Normal(batch) => match batch.commands.into_iter().next() {
            Some(Command::Register { agent, .. }) => agent.as_str().to_owned(),
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    };
    entries.into_iter().map(name).collect()
}

#[tokio::test]
async fn after_a_crash_damage_anywhere_is_noticed_or_hurts_nothing() {
    let (disk, keys, last) = crashed().await;
    let Opened { store, .. } = Store::open(disk.crashed(), &keys, true, NOW).unwrap();
    let all = names(&store, last).await;
    assert_eq!((all.len(), all.last().map(String::as_str)), (21, Some("keep")));
    let header = (0..PAGE_BYTES).step_by(DAMAGE.len());
    let pages = (PAGE_BYTES..disk.bytes()).step_by(PAGE_BYTES / 2);
    let mut refused = 0;
    for at in header.chain(pages) {
        let damaged = disk.overwritten(at, &DAMAGE);
        match Store::open(damaged, &keys, true, NOW) {
            Ok(Opened { store, .. }) => {
                assert_eq!(names(&store, last).await, all, "damaged at {at}");
            }
            Err(OpenError::Unreadable { .. }) => refused += 1,
            Err(error) => panic!("damaged at {at}: {error}"),
        }
    }
    assert!(refused > 10, "only {refused} of the places were in use");
}
