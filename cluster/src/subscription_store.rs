//! The agents' subscriptions on disk: whom each agent follows, one record an agent.
//!
//! A file of its own beside the registry's: what agents can make again never endangers what must not
//! be lost. Every record opens with its version; a release that changes records gives them a new one
//! and keeps reading the old; the tests freeze the bytes. Never decides who follows whom, nor when
//! that ends.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use parking_lot::Mutex;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};

use crate::{
    AgentId, data_dir,
    database::{Content, DatabaseFile, FileError, META, META_SCHEMA, Source},
};

/// An agent, and whom it follows.
pub type Following = (AgentId, Vec<AgentId>);

/// The file's name in the data directory, and the name of one that could not be read.
pub(crate) const FILE: &str = "subscriptions.redb";
const SET_ASIDE: &str = "subscriptions.redb.damaged";

/// What redb may keep of the file in memory.
const CACHE_BYTES: usize = 1 << 20;

/// The version of records and tables as a whole.
const SCHEMA: u32 = 1;

/// The version of a record.
const VERSION: u8 = 1;

/// Agent id → version, and for each agent that it follows one byte of length and the id.
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

    /// Whom each agent follows, in the order of the agents' ids. Blocks on the disk.
    pub fn load(&self) -> Result<Vec<Following>, OpenError> {
        let mut kept = self.0.lock();
        let database = kept.take()?;
        let records = read(&database).map_err(|error| reading(&*kept.source, error))?;
        let records = records.ok_or_else(|| unreadable(&*kept.source, "a record is damaged"))?;
        kept.database = Some(database);
        Ok(records)
    }

    /// Saves whom these agents follow now; who follows nobody has no record. Either all is durable
    /// when this returns, or nothing is promised. Blocks on the disk.
    pub fn save(&self, changes: impl IntoIterator<Item = Following>) -> Result<(), SaveError> {
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
    match found_if_empty(&database).map_err(|error| reading(source, error))? {
        Content::Nothing | Content::Schema(SCHEMA) => Ok(database),
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

/// Makes an empty database one of subscriptions, and returns what it was before.
fn found_if_empty(database: &Database) -> Result<Content, redb::Error> {
    let transaction = database.begin_write()?;
    let content = Content::of(&transaction)?;
    if content != Content::Nothing {
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
        let (Ok(follower), Some(agents)) = (follower.value().parse(), from_bytes(record.value()))
        else {
            return Ok(None);
        };
        records.push((follower, agents));
    }
    Ok(Some(records))
}

fn write(
    database: &Database,
    changes: impl IntoIterator<Item = Following>,
) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    let mut table = transaction.open_table(FOLLOWING)?;
    for (follower, agents) in changes {
        if agents.is_empty() {
            table.remove(follower.as_str())?;
        } else {
            table.insert(follower.as_str(), to_bytes(&agents).as_slice())?;
        }
    }
    drop(table);
    transaction.commit()?;
    Ok(())
}

fn to_bytes(agents: &[AgentId]) -> Vec<u8> {
    let mut bytes = vec![VERSION];
    for agent in agents {
        let id = agent.as_str();
        // An id has 64 characters at most.
        bytes.push(u8::try_from(id.len()).unwrap_or(u8::MAX));
        bytes.extend_from_slice(id.as_bytes());
    }
    bytes
}

fn from_bytes(bytes: &[u8]) -> Option<Vec<AgentId>> {
    let (&VERSION, mut rest) = bytes.split_first()? else { return None };
    let mut agents = Vec::new();
    while let Some((length, more)) = rest.split_first() {
        let (id, more) = more.split_at_checked(usize::from(*length))?;
        agents.push(std::str::from_utf8(id).ok()?.parse().ok()?);
        rest = more;
    }
    Some(agents)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a test that cannot be set up has failed
mod tests {
    use std::{os::unix::fs::PermissionsExt, sync::atomic::Ordering};

    use proptest::prelude::*;

    use super::*;
    use crate::test_disk::TestDisk;

    const FROZEN: &[u8] = b"\x01\x05bob-1\x03cid";

    fn id(text: &str) -> AgentId {
        text.parse().unwrap()
    }

    fn follows(follower: &str, agents: &[&str]) -> Following {
        (id(follower), agents.iter().copied().map(id).collect())
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
        store.save([follows("bob", &["eve"]), follows("ann", &["bob", "cid"])]).unwrap();
        store.save([follows("eve", &["ann"])]).unwrap();
        drop(store);
        let all =
            [follows("ann", &["bob", "cid"]), follows("bob", &["eve"]), follows("eve", &["ann"])];
        assert_eq!(reopened(&data_dir), all);
        let mode = fs::metadata(data_dir.join(FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn who_follows_nobody_has_no_record() {
        let dir = tempfile::tempdir().unwrap();
        let store = SubscriptionStore::open(dir.path()).unwrap();
        store.save([follows("ann", &["bob", "cid"]), follows("bob", &["eve"])]).unwrap();
        let now = [follows("ann", &[]), follows("bob", &["cid"]), follows("nobody", &[])];
        store.save(now).unwrap();
        drop(store);
        assert_eq!(reopened(dir.path()), [follows("bob", &["cid"])]);
    }

    #[test]
    fn bytes_are_frozen() {
        let agents = [id("bob-1"), id("cid")];
        assert_eq!(to_bytes(&agents), FROZEN);
        assert_eq!(from_bytes(FROZEN), Some(agents.to_vec()));
    }

    #[test]
    fn other_versions_and_broken_records_are_not_read() {
        for bytes in [&b""[..], b"\x02\x03cid", b"\x01\x03ci", b"\x01\x03-id", b"\x01\x00"] {
            assert_eq!(from_bytes(bytes), None, "{bytes:?}");
        }
        let dir = tempfile::tempdir().unwrap();
        drop(SubscriptionStore::open(dir.path()).unwrap());
        let database = Database::open(dir.path().join(FILE)).unwrap();
        let transaction = database.begin_write().unwrap();
        transaction.open_table(FOLLOWING).unwrap().insert("ann", &b"\x02"[..]).unwrap();
        transaction.commit().unwrap();
        drop(database);
        assert!(matches!(refused(dir.path()), OpenError::Unreadable { .. }));
    }

    #[test]
    fn what_is_damaged_is_refused_and_can_be_set_aside() {
        let dir = tempfile::tempdir().unwrap();
        let store = SubscriptionStore::open(dir.path()).unwrap();
        store.save([follows("ann", &["bob-of-all-bobs"])]).unwrap();
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
        let database = Database::open(dir.path().join(FILE)).unwrap();
        let transaction = database.begin_write().unwrap();
        let newer = 2_u32.to_be_bytes();
        transaction.open_table(META).unwrap().insert(META_SCHEMA, newer.as_slice()).unwrap();
        transaction.commit().unwrap();
        drop(database);
        assert!(matches!(refused(dir.path()), OpenError::Schema { found: 2, .. }));
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
            store.save([follows(&format!("ann-{n}"), &["bob", "cid"])]).unwrap();
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
        store.save([follows("ann", &["bob"])]).unwrap();
        disk.full.store(true, Ordering::SeqCst);
        for _ in 0..2 {
            assert!(store.save([follows("ann", &["cid"])]).is_err());
        }
        disk.full.store(false, Ordering::SeqCst);
        store.save([follows("bob", &["eve"])]).unwrap();
        let all = store.load().unwrap();
        assert_eq!(all, [follows("ann", &["bob"]), follows("bob", &["eve"])]);
    }

    proptest! {
        #[test]
        fn records_come_back(ids in proptest::collection::vec("[a-z0-9][a-z0-9-]{1,62}[a-z0-9]", 0..20)) {
            let agents: Vec<_> = ids.iter().map(|text| id(text)).collect();
            prop_assert_eq!(from_bytes(&to_bytes(&agents)), Some(agents));
        }

        #[test]
        fn any_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = from_bytes(&bytes);
        }
    }
}
