//! The registry's file as openraft and the node see it: openraft's own suite, restarts, former releases,
//! keys that change, disks that fail.
#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

use std::sync::{Arc, atomic::Ordering};

use openraft::{
    CommittedLeaderId, EntryPayload, RaftLogReader, RaftNetwork, RaftNetworkFactory, Snapshot,
    error::{Fatal, RPCError, RaftError, ReplicationClosed, StreamingError, Unreachable},
    network::RPCOption,
    raft::{
        AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse,
    },
    storage::{RaftLogStorage, RaftLogStorageExt, RaftStateMachine},
    testing::{StoreBuilder, Suite},
};
use parking_lot::Mutex;

use super::{
    command::{Audience, Batch, Command, Outcome, Secret},
    facts::{Facts, Follow},
    image::{Image, Receiving},
    log::LogStore,
    machine::StateMachine,
    raft::{Entry, LogId, StorageError, TypeConfig, Vote, VoterAddress},
    sealing::AtRest,
    store::{OpenError, Opened, Shared, Store, StoreError},
    writer::{Durable, Job, Work},
    *,
};
use crate::{
    NodeId,
    database::{META, META_SCHEMA, Source},
    test_disk::TestDisk,
    token::{TokenSigner, TokenVerifier},
};

pub(super) const NOW: UnixMillis = UnixMillis(1_795_341_600_000);

pub(super) fn id(text: &str) -> AgentId {
    text.parse().unwrap()
}

/// Remembers what it was told.
#[derive(Default)]
pub(super) struct Told(pub(super) Mutex<Vec<(u64, u64, Facts)>>);

impl Follow for Told {
    fn applied(&self, from: u64, to: u64, facts: Facts) {
        self.0.lock().push((from, to, facts));
    }

    fn replaced(&self, index: u64, all: Facts) {
        self.0.lock().push((0, index, all));
    }
}

/// A store on a disk in memory, and the two halves that openraft would hold.
pub(super) struct Bench {
    pub(super) disk: TestDisk,
    pub(super) keys: Arc<AtRest>,
    pub(super) store: Store,
    pub(super) log: LogStore,
    pub(super) machine: StateMachine,
    pub(super) told: Arc<Told>,
    pub(super) last: u64,
}

impl Bench {
    pub(super) fn new() -> Self {
        Self::open(TestDisk::default(), Arc::new(AtRest::generate()))
    }

    pub(super) fn open(disk: TestDisk, keys: Arc<AtRest>) -> Self {
        let Opened { store, index, .. } = Store::open(disk.clone(), &keys, false, NOW).unwrap();
        let told = Arc::new(Told::default());
        let (log, machine) = (store.log(), store.machine(told.clone()));
        Self { disk, keys, store, log, machine, told, last: index }
    }

    /// Another one with a registry in it.
    pub(super) async fn founded() -> Self {
        let mut bench = Self::new();
        let key = Secret(TokenSigner::from_secret(&[7; 32]).unwrap().secret());
        let found = Command::Found { registry: RegistryId(1), key };
        assert_eq!(bench.commit(vec![found]).await, [Outcome::Done]);
        bench
    }

    pub(super) fn entry(&mut self, commands: Vec<Command>) -> Entry {
        self.last += 1;
        let batch = Batch { time: UnixMillis(NOW.0 + self.last), commands };
        Entry { log_id: log_id(self.last), payload: EntryPayload::Normal(batch) }
    }

    /// Appends one entry and applies it.
    pub(super) async fn commit(&mut self, commands: Vec<Command>) -> Vec<Outcome> {
        self.try_commit(commands).await.unwrap()
    }

    pub(super) async fn try_commit(
        &mut self,
        commands: Vec<Command>,
    ) -> Result<Vec<Outcome>, StorageError> {
        let entry = self.entry(commands);
        self.log.blocking_append([entry.clone()]).await?;
        self.machine.apply([entry]).await.map(|outcomes| outcomes.concat())
    }

    /// Closes the store, and opens what it has left.
    pub(super) fn restart(self) -> Self {
        let (disk, keys) = (self.disk.clone(), self.keys.clone());
        drop(self);
        Self::open(disk, keys)
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        bytes(self.store.export().unwrap())
    }
}

pub(super) fn log_id(index: u64) -> LogId {
    LogId::new(CommittedLeaderId::new(1, 1), index)
}

pub(super) fn bytes(mut image: Image) -> Vec<u8> {
    let mut bytes = Vec::new();
    while let Some(chunk) = image.next_chunk().unwrap() {
        bytes.extend_from_slice(&chunk);
    }
    bytes
}

pub(super) fn register(agent: &str) -> Command {
    Command::Register { agent: id(agent), claim: Claim::random(), expires: None }
}

struct Builder;

impl StoreBuilder<TypeConfig, LogStore, StateMachine, Store> for Builder {
    async fn build(&self) -> Result<(Store, LogStore, StateMachine), StorageError> {
        let Bench { store, log, machine, .. } = Bench::new();
        Ok((store, log, machine))
    }
}

#[test]
fn openraft_is_satisfied() {
    Suite::test_all(Builder).unwrap();
}

#[tokio::test]
async fn everything_is_there_after_a_restart() {
    let mut bench = Bench::founded().await;
    bench.log.save_vote(&Vote::new_committed(3, 7)).await.unwrap();
    let commands = vec![register("abc"), register("def"), Command::Ban(id("def"))];
    bench.commit(commands).await;
    let (before, page) = (bench.bytes(), bench.store.agents(None, 10).unwrap());
    let memory = bench.store.memory().unwrap();

    let mut bench = bench.restart();
    assert_eq!(bench.bytes(), before);
    assert_eq!(bench.store.agents(None, 10).unwrap(), page);
    assert_eq!(bench.store.memory().unwrap(), memory);
    assert_eq!(bench.log.read_vote().await.unwrap(), Some(Vote::new_committed(3, 7)));
    assert_eq!(bench.log.get_log_state().await.unwrap().last_log_id, Some(log_id(2)));
    assert_eq!(bench.log.try_get_log_entries(..).await.unwrap().len(), 2);
    assert_eq!(bench.machine.applied_state().await.unwrap().0, Some(log_id(2)));
    assert!(bench.store.signer().unwrap().is_some());
    assert!(!bench.store.is_empty().unwrap());
}

#[tokio::test]
async fn a_crash_loses_no_entry_and_no_revocation() {
    let mut bench = Bench::founded().await;
    bench.commit(vec![register("abc"), register("def")]).await;
    bench.commit(vec![Command::Revoke(Revocation::Agent(id("abc")))]).await;
    let after = Bench::open(bench.disk.crashed(), bench.keys.clone());
    assert_eq!(after.bytes(), bench.bytes(), "a revocation is on the disk when it is answered");
    bench.commit(vec![register("ghi")]).await;
    assert_eq!(bench.store.memory().unwrap().1.registered, 3);

    let mut after = Bench::open(bench.disk.crashed(), bench.keys.clone());
    // The last entry was committed to the log; that it is in the book, nobody was to rely on.
    let (applied, facts) = after.store.memory().unwrap();
    assert_eq!((applied, facts.registered), (3, 2));
    assert_eq!(facts.agents, [(id("abc"), Some(Serial(1)))].into());
    let replayed = after.log.try_get_log_entries(applied + 1..).await.unwrap();
    assert_eq!(replayed.len(), 1);
    after.machine.apply(replayed).await.unwrap();
    assert_eq!(after.bytes(), bench.bytes());
}

#[tokio::test]
async fn a_closed_store_has_everything_on_the_disk() {
    let mut bench = Bench::founded().await;
    bench.commit(vec![register("abc")]).await;
    let before = bench.bytes();
    bench.store.close().await;
    assert!(bench.store.agent(&id("abc")).is_err());
    assert!(bench.try_commit(vec![register("def")]).await.is_err());
    let after = Bench::open(bench.disk.crashed(), bench.keys.clone());
    assert_eq!(after.bytes(), before);
}

/// Has the writer stand still until it is let go.
struct Gate(std::sync::mpsc::Receiver<()>);

impl Job for Gate {
    fn write(&mut self, _: &Work<'_>) -> Result<Durable, StoreError> {
        self.0.recv().unwrap();
        Ok(Durable::No)
    }

    fn settle(self: Box<Self>, _: Result<(), StoreError>, _: &Shared) {}
}

#[tokio::test]
async fn jobs_that_wait_share_a_flush() {
    let mut bench = Bench::founded().await;
    let entries: Vec<_> = (0..40).map(|n| bench.entry(vec![register(&format!("n-{n}"))])).collect();
    let (open, gate) = std::sync::mpsc::sync_channel(1);
    bench.store.send(0, Box::new(Gate(gate))).await;
    bench.disk.flushes.store(0, Ordering::SeqCst);
    let mut appends = Vec::new();
    for entry in entries {
        let mut log = bench.log.clone();
        let mut append = Box::pin(async move { log.blocking_append([entry]).await });
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(append.as_mut().poll(&mut context).is_pending());
        appends.push(append);
    }
    let unflushed = bench.log.try_get_log_entries(..).await.unwrap();
    assert_eq!(unflushed.len(), 41, "what is on its way to the disk is read already");
    open.send(()).unwrap();
    for append in appends {
        append.await.unwrap();
    }
    // All of them at once, or those that the writer took with the gate and the rest.
    let flushes = bench.disk.flushes.load(Ordering::SeqCst);
    assert!((1..=6).contains(&flushes), "{flushes}");
    assert_eq!(bench.restart().log.try_get_log_entries(..).await.unwrap(), unflushed);
}

#[tokio::test]
async fn entries_are_read_from_memory_and_disk_alike() {
    let mut bench = Bench::founded().await;
    let names: Vec<_> = (0..200).map(|n| id(&format!("name-{n}"))).collect();
    for _ in 0..20 {
        bench.commit(vec![Command::Import(names.clone()); 50]).await;
    }
    let whole = bench.log.try_get_log_entries(..).await.unwrap();
    let part = bench.log.limited_get_log_entries(3, 22).await.unwrap();
    let one = bench.log.try_get_log_entries(21..=21).await.unwrap();
    assert_eq!((whole.len(), one.len()), (21, 1));
    assert!((2..19).contains(&part.len()), "{} entries are at most 1 MiB", part.len());
    assert_eq!(part[..], whole[2..2 + part.len()]);

    let mut bench = bench.restart();
    assert_eq!(bench.log.try_get_log_entries(..).await.unwrap(), whole);
    assert_eq!(bench.log.limited_get_log_entries(3, 22).await.unwrap(), part);
    bench.log.purge(log_id(5)).await.unwrap();
    bench.log.truncate(log_id(20)).await.unwrap();
    assert_eq!(bench.log.try_get_log_entries(..).await.unwrap(), whole[5..19]);
    let state = bench.log.get_log_state().await.unwrap();
    assert_eq!(state.last_purged_log_id, Some(log_id(5)));
    assert_eq!(state.last_log_id, Some(log_id(19)));
}

#[tokio::test]
async fn who_follows_is_told_before_who_asked() {
    let mut bench = Bench::founded().await;
    bench.commit(vec![register("abc"), Command::Ban(id("abc"))]).await;
    let told = bench.told.0.lock().split_off(0);
    assert_eq!(told.iter().map(|(from, to, _)| (*from, *to)).collect::<Vec<_>>(), [(0, 1), (1, 2)]);
    let mut facts = told[0].2.clone();
    facts.extend(told[1].2.clone());
    facts.wanted_voters = Some(Vec::new());
    assert_eq!((2, facts), bench.store.memory().unwrap());
}

#[tokio::test]
async fn a_full_disk_fails_the_store_until_it_was_opened_anew() {
    let mut bench = Bench::founded().await;
    bench.commit(vec![register("before")]).await;
    let mut failure = bench.store.failure();
    assert_eq!(*failure.borrow_and_update(), None);

    bench.disk.full.store(true, Ordering::SeqCst);
    for _ in 0..3 {
        assert!(bench.try_commit(vec![register("refused")]).await.is_err());
    }
    assert!(bench.log.save_vote(&Vote::new(9, 9)).await.is_err());
    let reason = failure.borrow_and_update().clone().unwrap();
    assert!(reason.contains("no space left"), "{reason}");
    assert!(bench.store.agent(&id("before")).is_err(), "what a failed disk holds is not known");
    assert!(bench.store.reopen().await.is_err(), "the disk is still full");
    assert!(failure.borrow().is_some());

    bench.disk.full.store(false, Ordering::SeqCst);
    assert!(bench.try_commit(vec![register("refused")]).await.is_err(), "nobody opened it");
    let (index, facts) = bench.store.reopen().await.unwrap();
    assert_eq!(*failure.borrow_and_update(), None);
    assert!(bench.try_commit(vec![register("refused")]).await.is_err(), "halves of before");
    assert!(bench.store.agent(&id("refused")).unwrap().is_none());
    assert!(facts.registered <= 1 && index <= 2);

    (bench.log, bench.machine) = (bench.store.log(), bench.store.machine(bench.told.clone()));
    bench.last = bench.log.get_log_state().await.unwrap().last_log_id.unwrap().index;
    assert_eq!(bench.last, 2, "what was acknowledged, and nothing else");
    let replayed = bench.log.try_get_log_entries(index + 1..).await.unwrap();
    bench.machine.apply(replayed).await.unwrap();
    let outcomes = bench.commit(vec![register("refused")]).await;
    assert!(matches!(&outcomes[..], [Outcome::Issued(issued)] if issued.serial == Serial(2)));
}

#[tokio::test]
async fn a_page_that_rotted_is_refused() {
    let mut bench = Bench::founded().await;
    bench.commit(vec![register("rawk-042")]).await;
    bench.store.close().await;
    let (disk, keys) = (bench.disk.clone(), bench.keys.clone());
    drop(bench);
    disk.rot(b"rawk-042");
    let Err(error) = Store::open(disk, &keys, true, NOW) else { panic!("believed") };
    assert!(matches!(&error, OpenError::Unreadable { .. }), "{error}");
    assert!(error.to_string().contains("restore a backup into it"), "{error}");
}

#[tokio::test]
async fn nothing_secret_lies_open_on_the_disk() {
    let mut bench = Bench::founded().await;
    let value = Some(Secret(b"-----BEGIN PRIVATE KEY-----".to_vec().into()));
    let put = Command::PutVault {
        key: "certificate".into(),
        expected: 0,
        value,
        audience: Audience::All,
    };
    assert_eq!(bench.commit(vec![put]).await, [Outcome::Version(1)]);
    assert!(bench.disk.shows(b"certificate"), "the test looks at the disk");
    assert!(!bench.disk.shows(b"BEGIN PRIVATE"));
    assert!(!bench.disk.shows(&[7; 32]), "the signing key");
}

#[tokio::test]
async fn a_new_secret_seals_everything_anew() {
    let mut bench = Bench::founded().await;
    bench.commit(vec![register("abc")]).await;
    let put = Command::PutVault {
        key: "certificate".into(),
        expected: 0,
        value: Some(Secret(b"pem".to_vec().into())),
        audience: Audience::Voters,
    };
    bench.commit(vec![put]).await;
    let (before, disk, former) = (bench.bytes(), bench.disk.clone(), bench.keys.clone());
    let entries = bench.log.try_get_log_entries(..).await.unwrap();
    drop(bench);

    let present = AtRest::generate();
    let Err(error) = Store::open(disk.clone(), &present, true, NOW) else { panic!("no key fits") };
    assert!(matches!(&error, OpenError::Sealed { .. }), "{error}");
    assert!(error.to_string().contains("CLUSTER_SECRET_PREVIOUS"), "{error}");
    for keys in [present.in_place_of(&former), present] {
        let mut bench = Bench::open(disk.clone(), Arc::new(keys));
        assert_eq!(bench.bytes(), before);
        assert_eq!(bench.log.try_get_log_entries(..).await.unwrap(), entries);
        assert!(bench.store.signer().unwrap().is_some());
    }
    assert!(Store::open(disk, &former, true, NOW).is_err());
}

#[test]
fn where_a_registry_was_none_is_made() {
    let keys = AtRest::generate();
    let Err(error) = Store::open(TestDisk::default(), &keys, true, NOW) else { panic!("made") };
    assert!(error.to_string().contains("there was a registry"), "{error}");
}

#[test]
fn each_life_is_a_later_generation_of_the_same_node() {
    let (disk, keys) = (TestDisk::default(), AtRest::generate());
    let life = |now| Store::open(disk.clone(), &keys, false, UnixMillis(now)).unwrap().identity;
    let (first, second, third) = (life(10), life(20), life(5));
    assert_eq!((first.node, second.node), (second.node, third.node));
    assert_eq!([first, second, third].map(|life| life.generation.0), [10, 20, 21]);
}

/// The file of release 0.1.0 with the key of seven sevens, the names `abc` and `def`, and a revocation of
/// each kind; byte by byte as that release wrote it.
fn first_release(issued: u64) -> TestDisk {
    let disk = TestDisk::default();
    let database = disk.open().unwrap();
    let write = database.begin_write().unwrap();
    let record =
        |first: u64, second: u64| [&[1][..], &first.to_be_bytes(), &second.to_be_bytes()].concat();
    {
        let mut meta = write.open_table(META).unwrap();
        let mut put = |name, bytes: &[u8]| drop(meta.insert(name, bytes).unwrap());
        put(META_SCHEMA, &1_u32.to_be_bytes());
        put("node", &42_u64.to_be_bytes());
        put("generation", &17_u64.to_be_bytes());
        put("signing_key", &[7; 32]);
        put("serial", &issued.to_be_bytes());
        put("tokens_end", &u64::MAX.to_be_bytes());
        let table = redb::TableDefinition::<&str, &[u8]>::new;
        let mut agents = write.open_table(table("agents")).unwrap();
        let mut revoked_agents = write.open_table(table("revoked_agents")).unwrap();
        let tokens = redb::TableDefinition::<u64, &[u8]>::new("revoked_tokens");
        let mut revoked_tokens = write.open_table(tokens).unwrap();
        if issued > 0 {
            agents.insert("abc", record(1, 1000).as_slice()).unwrap();
            agents.insert("def", record(3, 2000).as_slice()).unwrap();
            revoked_agents.insert("abc", record(1, u64::MAX).as_slice()).unwrap();
            revoked_tokens.insert(2, record(2, u64::MAX).as_slice()).unwrap();
        }
    }
    write.commit().unwrap();
    disk
}

#[tokio::test]
async fn the_first_release_is_taken_over() {
    let (disk, keys) = (first_release(3), Arc::new(AtRest::generate()));
    let opened = Store::open(disk.clone(), &keys, true, NOW).unwrap();
    assert_eq!((opened.identity.node, opened.identity.generation.0), (NodeId(42), NOW.0));
    let facts = opened.facts;
    let founded = facts.founded.clone().unwrap();
    assert!(founded.lineage.is_empty());
    assert_eq!(facts.registered, 2);
    assert_eq!(facts.tokens, [(Serial(2), true)].into());
    assert_eq!(facts.agents, [(id("abc"), Some(Serial(1)))].into());
    let def = opened.store.agent(&id("def")).unwrap().unwrap();
    let expected = AgentRecord {
        registered_at: UnixMillis(2000),
        serial: Serial(3),
        revoked: false,
        banned: false,
    };
    assert_eq!(def, expected);
    assert!(opened.store.agent(&id("abc")).unwrap().unwrap().revoked);
    // Tokens of before are good, and the next one follows them.
    let former = TokenSigner::from_secret(&[7; 32]).unwrap();
    let token = former.issue(&id("def"), Serial(3), NOW, None).unwrap();
    let keys_now = facts.keys.unwrap();
    let verifier = TokenVerifier::new(keys_now.iter().map(|key| (key.id, key.public)));
    assert!(verifier.verify(&token, NOW).is_ok());
    assert_eq!(opened.store.signer().unwrap().unwrap().public(), former.public());
    drop(opened.store);

    let mut bench = Bench::open(disk, keys);
    assert_eq!(bench.store.memory().unwrap().1.founded, Some(founded), "taken over once");
    let outcomes = bench.commit(vec![register("ghi")]).await;
    assert!(matches!(&outcomes[..], [Outcome::Issued(issued)] if issued.serial == Serial(4)));
    let lone = bench.machine.applied_state().await.unwrap().1;
    assert_eq!(lone.voter_ids().collect::<Vec<_>>(), [42]);
}

#[test]
fn a_first_release_without_names_is_not_founded() {
    let (disk, keys) = (first_release(0), AtRest::generate());
    let opened = Store::open(disk, &keys, true, NOW).unwrap();
    assert_eq!((opened.identity.node, opened.facts.founded), (NodeId(42), None));
    assert!(opened.store.is_empty().unwrap());
    assert!(opened.store.signer().unwrap().is_none());
}

#[tokio::test]
async fn a_snapshot_takes_the_place_of_what_was_there() {
    let mut from = Bench::founded().await;
    from.commit(vec![register("abc"), register("def")]).await;
    from.commit(vec![Command::Revoke(Revocation::Agent(id("abc"))), Command::Ban(id("def"))]).await;
    let snapshot = from.machine.get_current_snapshot().await.unwrap().unwrap();
    let bytes = bytes(*snapshot.snapshot);
    let mut receiving = Receiving::new();
    for chunk in bytes.chunks(7) {
        receiving.push(chunk.to_vec().into()).unwrap();
    }
    let image = receiving.finish().unwrap();

    let mut to = Bench::founded().await;
    to.commit(vec![register("other")]).await;
    to.machine.install_snapshot(&snapshot.meta, Box::new(image)).await.unwrap();
    assert_eq!(to.bytes(), bytes);
    assert_eq!(to.store.agent(&id("other")).unwrap(), None);
    assert_eq!(to.machine.applied_state().await.unwrap().0, Some(log_id(3)));
    let told = to.told.0.lock().pop().unwrap();
    assert_eq!((told.1, told.2), from.store.memory().unwrap());
    let to = Bench::open(to.disk.crashed(), to.keys.clone());
    assert_eq!(to.bytes(), bytes, "it was durable");
}

#[tokio::test]
async fn a_restored_registry_descends_from_the_former() {
    let mut from = Bench::founded().await;
    from.commit(vec![register("abc"), Command::WantVoters(Some(vec!["a:1".into()]))]).await;
    let image = from.store.export().unwrap();
    let to = Bench::new();
    let founded = to.store.restore(image, NodeId(7), NOW).await.unwrap();
    assert_eq!(founded.lineage, [RegistryId(1)]);
    let again = to.store.restore(from.store.export().unwrap(), NodeId(7), NOW).await;
    assert!(again.unwrap_err().to_string().contains("empty data directory"));

    let mut to = to.restart();
    let (_, facts) = to.store.memory().unwrap();
    assert_eq!((facts.founded, facts.registered), (Some(founded), 1));
    assert!(facts.wanted_voters.unwrap().is_empty());
    assert_eq!(to.store.keys().unwrap(), from.store.keys().unwrap());
    assert_eq!(to.commit(vec![register("abc")]).await, [Outcome::Taken]);
    let empty = Bench::new().store.export().unwrap();
    let error = Bench::new().store.restore(empty, NodeId(7), NOW).await.unwrap_err();
    assert!(error.to_string().contains("no registry"), "{error}");
}

/// A network in which nobody else is.
struct Alone;

impl RaftNetworkFactory<TypeConfig> for Alone {
    type Network = Self;

    async fn new_client(&mut self, _: u64, _: &VoterAddress) -> Self {
        Self
    }
}

fn nobody() -> Unreachable {
    Unreachable::new(&std::io::Error::other("nobody is there"))
}

impl RaftNetwork<TypeConfig> for Alone {
    async fn append_entries(
        &mut self,
        _: AppendEntriesRequest<TypeConfig>,
        _: RPCOption,
    ) -> Result<AppendEntriesResponse<u64>, RPCError<u64, VoterAddress, RaftError<u64>>> {
        Err(nobody().into())
    }

    async fn vote(
        &mut self,
        _: VoteRequest<u64>,
        _: RPCOption,
    ) -> Result<VoteResponse<u64>, RPCError<u64, VoterAddress, RaftError<u64>>> {
        Err(nobody().into())
    }

    async fn full_snapshot(
        &mut self,
        _: Vote,
        _: Snapshot<TypeConfig>,
        _: impl Future<Output = ReplicationClosed> + Send + 'static,
        _: RPCOption,
    ) -> Result<SnapshotResponse<u64>, StreamingError<TypeConfig, Fatal<u64>>> {
        Err(nobody().into())
    }
}

async fn lone_raft(node: u64, bench: &Bench) -> openraft::Raft<TypeConfig> {
    let config = openraft::Config {
        heartbeat_interval: 20,
        election_timeout_min: 40,
        election_timeout_max: 80,
        snapshot_policy: openraft::SnapshotPolicy::LogsSinceLast(20),
        max_in_snapshot_log_to_keep: 5,
        ..openraft::Config::default()
    };
    let (log, machine) = (bench.log.clone(), bench.machine.clone());
    openraft::Raft::new(node, config.validate().unwrap().into(), Alone, log, machine).await.unwrap()
}

#[tokio::test]
async fn a_lone_node_goes_on_with_what_the_first_release_left() {
    let (mut disk, keys) = (first_release(3), Arc::new(AtRest::generate()));
    for life in 0..3_u64 {
        let bench = Bench::open(disk.clone(), keys.clone());
        let raft = lone_raft(42, &bench).await;
        raft.wait(None).state(openraft::ServerState::Leader, "a lone voter leads").await.unwrap();
        for n in 0..30 {
            let name = format!("life-{life}-{n}");
            let batch = Batch { time: NOW, commands: vec![register(&name)] };
            let outcomes = raft.client_write(batch).await.unwrap().data;
            let expected = 4 + life * 30 + n;
            assert!(matches!(&outcomes[..], [Outcome::Issued(i)] if i.serial.0 == expected));
        }
        raft.shutdown().await.unwrap();
        // The last life ends without a goodbye.
        disk = if life == 1 { disk.crashed() } else { disk };
    }
    let mut bench = Bench::open(disk, keys);
    assert!(bench.log.get_log_state().await.unwrap().last_purged_log_id.unwrap().index > 40);
    let (applied, _) = bench.machine.applied_state().await.unwrap();
    let rest = bench.log.try_get_log_entries(applied.unwrap().index + 1..).await.unwrap();
    bench.machine.apply(rest).await.unwrap();
    assert_eq!(bench.store.memory().unwrap().1.registered, 92);
}
