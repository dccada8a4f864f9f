//! The agents' subscriptions on disk: whom each agent follows, one record an agent.
//!
//! A file of its own beside the registry's: what agents can make again never endangers what must not
//! be lost. Every record opens with the number of its format; a release that changes records gives
//! them a new one and keeps reading the old; the tests freeze the bytes. Never decides who follows
//! whom, nor when that ends.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use parking_lot::Mutex;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use serde::{Deserialize, Serialize};

use crate::{
    AgentId, NodeId, UnixMillis, data_dir,
    database::{Content, DatabaseFile, FileError, META, META_SCHEMA, Source},
};

/// When something was changed, and on which node: of two the higher is the newer.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Version {
    /// Mesh time of the change, or a little more, so that it is above that of the change before.
    pub time: UnixMillis,
    /// The node that made it.
    pub node: NodeId,
}

impl Version {
    /// That of a change which `node` makes at `now` to what has this version.
    #[must_use]
    pub fn next(self, node: NodeId, now: UnixMillis) -> Self {
        Self { time: now.max(UnixMillis(self.time.0.saturating_add(1))), node }
    }
}

/// Whom an agent follows, since when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct List {
    /// Whom; nobody if the agent has ended all its subscriptions, which is kept for a while so that
    /// an old copy does not bring them back.
    pub agents: Vec<AgentId>,
    /// When that was changed last; the lowest if the file is from before there were versions.
    pub version: Version,
}

/// An agent, and its list.
pub type Following = (AgentId, List);

/// The file's name in the data directory, and the name of one that could not be read.
pub(crate) const FILE: &str = "subscriptions.redb";
const SET_ASIDE: &str = "subscriptions.redb.damaged";

/// What redb may keep of the file in memory.
const CACHE_BYTES: usize = 1 << 20;

/// The version of records and tables as a whole.
const SCHEMA: u32 = 2;

/// The one before, whose lists had no versions; its files are read, and become those of [`SCHEMA`].
const SCHEMA_BEFORE: u32 = 1;

/// The format of a record, and the one before, which had no version of its list.
const FORMAT: u8 = 2;
const FORMAT_BEFORE: u8 = 1;

/// Agent id → format (one byte), the list's version (time and node, eight bytes each, big-endian),
/// and for each agent that it follows one byte of length and the id.
const FOLLOWING: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("following");

/// Why the subscriptions on disk could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The directory or file cannot be made, read or written.
    #[error("cannot use {file}: {reason}", file = file.display())]
    Io {
        /// The subscriptions' file.
        file: PathBuf,
        /// What the system says.
        reason: io::Error,
    },
    /// Another process has the file open.
    #[error("another process has {file} open", file = .0.display())]
    InUse(PathBuf),
    /// The file is damaged, or was never one of subscriptions.
    #[error(
        "{file} is damaged or holds no subscriptions ({reason}): it may be deleted, only \
         subscriptions are lost with it, and agents can make them again",
        file = file.display()
    )]
    Unreadable {
        /// The subscriptions' file.
        file: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Another release of arc-relay wrote the file.
    #[error(
        "{file} was written by another release of arc-relay (schema {found}, this one has {SCHEMA}): \
         use that release, or move the file away, only subscriptions are lost with it",
        file = file.display()
    )]
    Schema {
        /// The subscriptions' file.
        file: PathBuf,
        /// The version that the file has.
        found: u32,
    },
}

/// Why changes were not saved. They may have reached the disk all the same: save again what is then
/// the case.
#[derive(Debug, thiserror::Error)]
pub enum SaveError {
    /// After an earlier failure the file could not be opened again.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The disk did not take them.
    #[error(transparent)]
    Write(#[from] Box<redb::Error>),
}

/// The agents' subscriptions on disk, open in this process alone.
pub struct SubscriptionStore(Mutex<Kept>);

struct Kept {
    source: Box<dyn Source>,
    /// None after a failure, until the source could be opened again.
    database: Option<Database>,
}

impl SubscriptionStore {
    /// Opens the file in `data_dir`, or founds it there, for its owner alone. Reads the whole file to
    /// check it, and blocks on the disk.
    pub fn open(data_dir: &Path) -> Result<Self, OpenError> {
        Self::open_source(Box::new(DatabaseFile::new(data_dir, FILE, CACHE_BYTES)))
    }

    fn open_source(source: Box<dyn Source>) -> Result<Self, OpenError> {
        let database = Some(open_checked(&*source)?);
        Ok(Self(Mutex::new(Kept { source, database })))
    }

    /// The list of each agent, in the order of the agents' ids. Blocks on the disk.
    pub fn load(&self) -> Result<Vec<Following>, OpenError> {
        let mut kept = self.0.lock();
        let database = kept.take()?;
        let records = read(&database).map_err(|error| reading(&*kept.source, error))?;
        let records = records.ok_or_else(|| unreadable(&*kept.source, "a record is damaged"))?;
        kept.database = Some(database);
        Ok(records)
    }

    /// Saves the lists that these agents have now; who has none any more is forgotten. Either all is
    /// durable when this returns, or nothing is promised. Blocks on the disk.
    pub fn save(
        &self,
        changes: impl IntoIterator<Item = (AgentId, Option<List>)>,
    ) -> Result<(), SaveError> {
        let mut kept = self.0.lock();
        let database = kept.take()?;
        write(&database, changes).map_err(Box::new)?;
        kept.database = Some(database);
        Ok(())
    }
}

impl Kept {
    /// The database, until it is put back; opened anew if it never was.
    fn take(&mut self) -> Result<Database, OpenError> {
        self.database.take().map_or_else(|| open_checked(&*self.source), Ok)
    }
}

/// Moves a file that cannot be read out of the way, so that a new one can be founded, and returns
/// its new place. One that was set aside before is replaced.
pub fn set_aside(data_dir: &Path) -> io::Result<PathBuf> {
    let place = data_dir.join(SET_ASIDE);
    fs::rename(data_dir.join(FILE), &place)?;
    data_dir::sync(data_dir)?;
    Ok(place)
}

fn open_checked(source: &dyn Source) -> Result<Database, OpenError> {
    let file = || source.path().to_owned();
    let database = source.open().map_err(|error| match error {
        FileError::Io(reason) => OpenError::Io { file: file(), reason },
        FileError::InUse => OpenError::InUse(file()),
        FileError::Unreadable(reason) => OpenError::Unreadable { file: file(), reason },
    })?;
    match claim(&database).map_err(|error| reading(source, error))? {
        Content::Nothing | Content::Schema(SCHEMA_BEFORE | SCHEMA) => Ok(database),
        Content::Schema(found) => Err(OpenError::Schema { file: file(), found }),
        Content::Foreign => Err(unreadable(source, "it holds something else")),
    }
}

fn reading(source: &dyn Source, error: redb::Error) -> OpenError {
    match error {
        redb::Error::Io(reason) => OpenError::Io { file: source.path().to_owned(), reason },
        other => unreadable(source, &other.to_string()),
    }
}

fn unreadable(source: &dyn Source, reason: &str) -> OpenError {
    OpenError::Unreadable { file: source.path().to_owned(), reason: reason.to_owned() }
}

/// Makes a database that is empty, or from the release before, one of this release, and returns what
/// it was.
fn claim(database: &Database) -> Result<Content, redb::Error> {
    let transaction = database.begin_write()?;
    let content = Content::of(&transaction)?;
    if !matches!(content, Content::Nothing | Content::Schema(SCHEMA_BEFORE)) {
        transaction.abort()?;
        return Ok(content);
    }
    transaction.open_table(META)?.insert(META_SCHEMA, SCHEMA.to_be_bytes().as_slice())?;
    transaction.open_table(FOLLOWING)?;
    transaction.commit()?;
    Ok(content)
}

/// All records; none if one of them is damaged.
fn read(database: &Database) -> Result<Option<Vec<Following>>, redb::Error> {
    let transaction = database.begin_read()?;
    let mut records = Vec::new();
    for entry in transaction.open_table(FOLLOWING)?.iter()? {
        let (follower, record) = entry?;
        let (Ok(follower), Some(list)) = (follower.value().parse(), from_bytes(record.value()))
        else {
            return Ok(None);
        };
        records.push((follower, list));
    }
    Ok(Some(records))
}

fn write(
    database: &Database,
    changes: impl IntoIterator<Item = (AgentId, Option<List>)>,
) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    let mut table = transaction.open_table(FOLLOWING)?;
    for (follower, list) in changes {
        if let Some(list) = list {
            table.insert(follower.as_str(), to_bytes(&list).as_slice())?;
        } else {
            table.remove(follower.as_str())?;
        }
    }
    drop(table);
    transaction.commit()?;
    Ok(())
}

fn to_bytes(list: &List) -> Vec<u8> {
    let mut bytes = vec![FORMAT];
    bytes.extend_from_slice(&list.version.time.0.to_be_bytes());
    bytes.extend_from_slice(&list.version.node.0.to_be_bytes());
    for agent in &list.agents {
        let id = agent.as_str();
        // An id has 64 characters at most.
        bytes.push(u8::try_from(id.len()).unwrap_or(u8::MAX));
        bytes.extend_from_slice(id.as_bytes());
    }
    bytes
}

fn from_bytes(bytes: &[u8]) -> Option<List> {
    let (format, mut rest) = bytes.split_first()?;
    let version = match *format {
        FORMAT_BEFORE => Version::default(),
        FORMAT => {
            let (time, node);
            (time, rest) = rest.split_first_chunk()?;
            (node, rest) = rest.split_first_chunk()?;
            let time = UnixMillis(u64::from_be_bytes(*time));
            Version { time, node: NodeId(u64::from_be_bytes(*node)) }
        }
        _ => return None,
    };
    let mut agents = Vec::new();
    while let Some((length, more)) = rest.split_first() {
        let (id, more) = more.split_at_checked(usize::from(*length))?;
        agents.push(std::str::from_utf8(id).ok()?.parse().ok()?);
        rest = more;
    }
    Some(List { agents, version })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a test that cannot be set up has failed
mod tests {
    use std::{os::unix::fs::PermissionsExt, sync::atomic::Ordering};

    use proptest::prelude::*;

    use super::*;
    use crate::test_disk::TestDisk;

    const FROZEN: &[u8] =
        b"\x02\x00\x00\x01\x02\x03\x04\x05\x06\x00\x00\x00\x00\x00\x00\x00\x07\x05bob-1\x03cid";
    const FROZEN_BEFORE: &[u8] = b"\x01\x05bob-1\x03cid";

    fn id(text: &str) -> AgentId {
        text.parse().unwrap()
    }

    fn list(agents: &[&str]) -> List {
        let version = Version { time: UnixMillis(0x0102_0304_0506), node: NodeId(7) };
        List { agents: agents.iter().copied().map(id).collect(), version }
    }

    fn follows(follower: &str, agents: &[&str]) -> Following {
        (id(follower), list(agents))
    }

    fn save<const N: usize>(
        store: &SubscriptionStore,
        all: [Following; N],
    ) -> Result<(), SaveError> {
        store.save(all.map(|(follower, list)| (follower, Some(list))))
    }

    fn reopened(dir: &Path) -> Vec<Following> {
        SubscriptionStore::open(dir).unwrap().load().unwrap()
    }

    fn refused(dir: &Path) -> OpenError {
        let opened = SubscriptionStore::open(dir).and_then(|store| store.load());
        opened.expect_err("it opens")
    }

    #[test]
    fn a_restart_forgets_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let data_dir = dir.path().join("new/data");
        let store = SubscriptionStore::open(&data_dir).unwrap();
        assert_eq!(store.load().unwrap(), []);
        save(&store, [follows("bob", &["eve"]), follows("ann", &["bob", "cid"])]).unwrap();
        save(&store, [follows("eve", &["ann"])]).unwrap();
        drop(store);
        let all =
            [follows("ann", &["bob", "cid"]), follows("bob", &["eve"]), follows("eve", &["ann"])];
        assert_eq!(reopened(&data_dir), all);
        let mode = fs::metadata(data_dir.join(FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn who_has_no_list_has_no_record_and_an_empty_list_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let store = SubscriptionStore::open(dir.path()).unwrap();
        save(&store, [follows("ann", &["bob", "cid"]), follows("bob", &["eve"])]).unwrap();
        let now = [("ann", None), ("bob", Some(list(&["cid"]))), ("nobody", None)];
        store.save(now.map(|(follower, list)| (id(follower), list))).unwrap();
        save(&store, [follows("eve", &[])]).unwrap();
        drop(store);
        assert_eq!(reopened(dir.path()), [follows("bob", &["cid"]), follows("eve", &[])]);
    }

    #[test]
    fn bytes_are_frozen() {
        let list = list(&["bob-1", "cid"]);
        assert_eq!(to_bytes(&list), FROZEN);
        assert_eq!(from_bytes(FROZEN), Some(list.clone()));
        let unversioned = List { version: Version::default(), ..list };
        assert_eq!(from_bytes(FROZEN_BEFORE), Some(unversioned));
    }

    /// Writes a record and a schema into the file as another release would.
    fn write_raw(dir: &Path, schema: u32, record: &[u8]) {
        let database = Database::open(dir.join(FILE)).unwrap();
        let transaction = database.begin_write().unwrap();
        let schema = schema.to_be_bytes();
        transaction.open_table(META).unwrap().insert(META_SCHEMA, schema.as_slice()).unwrap();
        transaction.open_table(FOLLOWING).unwrap().insert("ann", record).unwrap();
        transaction.commit().unwrap();
    }

    #[test]
    fn a_file_of_the_release_before_is_read_and_becomes_one_of_this() {
        let dir = tempfile::tempdir().unwrap();
        drop(SubscriptionStore::open(dir.path()).unwrap());
        write_raw(dir.path(), SCHEMA_BEFORE, FROZEN_BEFORE);
        let store = SubscriptionStore::open(dir.path()).unwrap();
        let unversioned = List { version: Version::default(), ..list(&["bob-1", "cid"]) };
        assert_eq!(store.load().unwrap(), [(id("ann"), unversioned)]);
        save(&store, [follows("ann", &["eve"])]).unwrap();
        assert_eq!(store.load().unwrap(), [follows("ann", &["eve"])]);
        drop(store);
        let database = Database::open(dir.path().join(FILE)).unwrap();
        let transaction = database.begin_write().unwrap();
        assert_eq!(Content::of(&transaction).unwrap(), Content::Schema(SCHEMA));
    }

    #[test]
    fn other_versions_and_broken_records_are_not_read() {
        let cut = &FROZEN[..10];
        for bytes in [b"", &b"\x03\x03cid"[..], b"\x01\x03ci", b"\x01\x03-id", b"\x01\x00", cut] {
            assert_eq!(from_bytes(bytes), None, "{bytes:?}");
        }
        let dir = tempfile::tempdir().unwrap();
        drop(SubscriptionStore::open(dir.path()).unwrap());
        write_raw(dir.path(), SCHEMA, b"\x03");
        assert!(matches!(refused(dir.path()), OpenError::Unreadable { .. }));
    }

    #[test]
    fn what_is_damaged_is_refused_and_can_be_set_aside() {
        let dir = tempfile::tempdir().unwrap();
        let store = SubscriptionStore::open(dir.path()).unwrap();
        save(&store, [follows("ann", &["bob-of-all-bobs"])]).unwrap();
        drop(store);
        let mut content = fs::read(dir.path().join(FILE)).unwrap();
        let needle = b"bob-of-all-bobs";
        let found: Vec<_> =
            (0..content.len()).filter(|at| content[*at..].starts_with(needle)).collect();
        assert!(!found.is_empty());
        for at in found {
            content[at] = b'r';
        }
        fs::write(dir.path().join(FILE), &content).unwrap();
        let error = refused(dir.path());
        assert!(matches!(error, OpenError::Unreadable { .. }), "{error}");
        assert!(error.to_string().contains("only subscriptions are lost"), "{error}");

        let place = set_aside(dir.path()).unwrap();
        assert_eq!(fs::read(place).unwrap().len(), content.len());
        assert_eq!(reopened(dir.path()), []);
    }

    #[test]
    fn another_releases_file_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        drop(SubscriptionStore::open(dir.path()).unwrap());
        write_raw(dir.path(), SCHEMA + 1, b"");
        assert!(matches!(refused(dir.path()), OpenError::Schema { found: 3, .. }));
    }

    #[test]
    fn a_file_that_is_no_database_or_anothers_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(FILE), "Dear diary,\n".repeat(10_000)).unwrap();
        assert!(matches!(refused(dir.path()), OpenError::Unreadable { .. }));
        fs::remove_file(dir.path().join(FILE)).unwrap();
        let database = Database::create(dir.path().join(FILE)).unwrap();
        let transaction = database.begin_write().unwrap();
        transaction.open_table(TableDefinition::<u64, u64>::new("meta")).unwrap();
        transaction.commit().unwrap();
        drop(database);
        let error = refused(dir.path());
        assert!(matches!(error, OpenError::Unreadable { .. }), "{error}");
        assert!(error.to_string().contains("something else"), "{error}");
    }

    #[test]
    fn whatever_is_damaged_is_told_from_a_disk_that_fails() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join(FILE);
        let store = SubscriptionStore::open(dir.path()).unwrap();
        for n in 0..40 {
            save(&store, [follows(&format!("ann-{n}"), &["bob", "cid"])]).unwrap();
        }
        drop(store);
        let sound = fs::read(&file).unwrap();
        let cut = (0..sound.len()).step_by(sound.len() / 20).map(|end| sound[..end].to_vec());
        // All that redb's header uses, and some of the pages.
        let changed = (0..320).chain((320..sound.len()).step_by(1_023).take(100)).map(|at| {
            let mut content = sound.clone();
            content[at] ^= 0xff;
            content
        });
        for content in cut.chain(changed) {
            fs::write(&file, content).unwrap();
            match SubscriptionStore::open(dir.path()).and_then(|store| store.load()) {
                Ok(_) | Err(OpenError::Unreadable { .. }) => {}
                Err(other) => panic!("{other}"),
            }
        }
    }

    #[test]
    fn a_disk_that_was_full_can_be_written_again() {
        let disk = TestDisk::default();
        let store = SubscriptionStore::open_source(Box::new(disk.clone())).unwrap();
        save(&store, [follows("ann", &["bob"])]).unwrap();
        disk.full.store(true, Ordering::SeqCst);
        for _ in 0..2 {
            assert!(save(&store, [follows("ann", &["cid"])]).is_err());
        }
        disk.full.store(false, Ordering::SeqCst);
        save(&store, [follows("bob", &["eve"])]).unwrap();
        let all = store.load().unwrap();
        assert_eq!(all, [follows("ann", &["bob"]), follows("bob", &["eve"])]);
    }

    proptest! {
        #[test]
        fn records_come_back(
            ids in proptest::collection::vec("[a-z0-9][a-z0-9-]{1,62}[a-z0-9]", 0..20),
            time in any::<u64>(),
            node in any::<u64>(),
        ) {
            let agents: Vec<_> = ids.iter().map(|text| id(text)).collect();
            let version = Version { time: UnixMillis(time), node: NodeId(node) };
            let list = List { agents, version };
            prop_assert_eq!(from_bytes(&to_bytes(&list)), Some(list));
        }

        #[test]
        fn any_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = from_bytes(&bytes);
        }
    }
}
