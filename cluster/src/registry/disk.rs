//! Opening the registry's file: founding a node in it, taking over what the release before wrote, and
//! finding the key that what is secret in it was sealed with.

use std::{collections::BTreeMap, io, path::Path};

use redb::{Database, ReadTransaction, ReadableTable, ReadableTableMetadata, WriteTransaction};
use zeroize::Zeroizing;

use super::{
    KeyId, RegistryId,
    command::Secret,
    facts::{Facts, Founded, VaultFact},
    image,
    keys::{self, Keys},
    raft::{LogId, Membership, VoterAddress},
    record::{RevokedEntry, VaultRecord},
    saved,
    sealing::{AtRest, Place, Sealing},
    store::OpenError,
    tables::{self, Head, Reading, StoreError, meta, number, put_meta},
};
use crate::{
    AgentId, Generation, Incarnation, NodeId, UnixMillis,
    database::{self, Content, DatabaseFile, FileError, META, META_SCHEMA, Source},
    subscription_store,
    token::Serial,
};

/// The file's name in the data directory.
pub(super) const FILE: &str = "registry.redb";

/// Files that show that there was a registry: each start makes the subscriptions' after it, and only
/// who knows of one saves a view.
pub(super) const TRACES: [&str; 2] = [subscription_store::FILE, saved::FILE];

/// What redb may keep of the file in memory.
const CACHE_BYTES: usize = 16 << 20;

/// What is sealed to see whether a key fits.
const SEALED: &[u8] = b"arc-relay registry";

/// Why what was opened is of no use; the file is as it was.
#[derive(Debug)]
enum Unfit {
    Lost,
    Foreign,
    Schema(u32),
    Sealed,
    Store(StoreError),
}

impl<E: Into<StoreError>> From<E> for Unfit {
    fn from(error: E) -> Self {
        Self::Store(error.into())
    }
}

/// The registry's file in a data directory.
pub(super) fn file(data_dir: &Path) -> DatabaseFile {
    DatabaseFile::new(data_dir, FILE, CACHE_BYTES)
}

/// How large the file in a data directory is; none if the system does not tell.
pub(super) fn file_bytes(data_dir: &Path) -> Option<u64> {
    data_dir.join(FILE).metadata().ok().map(|metadata| metadata.len())
}

/// Whether there is no such file in a data directory.
pub(super) fn is_missing(data_dir: &Path) -> bool {
    let found = data_dir.join(FILE).metadata();
    found.is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
}

/// Opens what should hold a registry, or nothing yet. Reads all of it, to check it.
pub(super) fn open(source: &impl Source) -> Result<Database, OpenError> {
    source.open().map_err(|error| match error {
        FileError::Io(error) => OpenError::Io { dir: source.dir().to_owned(), source: error },
        FileError::InUse => OpenError::InUse(source.dir().to_owned()),
        FileError::Unreadable(reason) => {
            OpenError::Unreadable { file: source.path().to_owned(), reason, others: false }
        }
    })
}

/// Why a file that was opened is of no use: the system does not let it be read or written, or it is
/// damaged.
pub(super) fn unusable(source: &impl Source, error: StoreError) -> OpenError {
    match error {
        StoreError::Io(kind, text) => {
            OpenError::Io { dir: source.dir().to_owned(), source: io::Error::new(kind, text) }
        }
        other => {
            let reason = other.to_string();
            OpenError::Unreadable { file: source.path().to_owned(), reason, others: false }
        }
    }
}

/// Makes the file a node's if it is empty, takes over what an older release wrote, seals anew what a
/// former key has sealed, and begins a new life of the node.
///
/// Where there was one before, none is made: names would be given twice.
pub(super) fn start(
    database: &Database,
    source: &impl Source,
    at_rest: &AtRest,
    had_one: bool,
    now: UnixMillis,
) -> Result<(Incarnation, Sealing), OpenError> {
    begin(database, at_rest, had_one, now).map_err(|unfit| unfit.into_error(source))
}

/// All that memory holds of the book, and the last entry that is in it.
pub(super) fn memory(
    transaction: &ReadTransaction,
    sealing: &Sealing,
) -> Result<(u64, Facts), StoreError> {
    let head = transaction.head()?;
    let mut facts = Facts {
        founded: head.founded,
        registered: transaction.open_table(tables::AGENTS)?.len()?,
        keys: Some(keys::facts(transaction)?),
        wanted_voters: Some(head.wanted_voters),
        ..Facts::default()
    };
    for row in transaction.open_table(tables::REVOKED_TOKENS)?.iter()? {
        facts.tokens.insert(Serial(row?.0.value()), true);
    }
    for row in transaction.open_table(tables::REVOKED_AGENTS)?.iter()? {
        let (agent, entry) = row?;
        let entry = RevokedEntry::from_bytes(entry.value());
        let until = entry.ok_or(StoreError::Damaged("revoked agent"))?.until;
        facts.agents.insert(agent_id(agent.value())?, Some(until));
    }
    for row in transaction.open_table(tables::BANNED)?.iter()? {
        facts.bans.insert(agent_id(row?.0.value())?, true);
    }
    for row in transaction.open_table(tables::VAULT)?.iter()? {
        let (key, record) = row?;
        let fact = vault_fact(sealing, key.value(), record.value())?;
        facts.vault.insert(key.value().to_owned(), fact);
    }
    let applied = transaction.applied()?;
    Ok((applied.map_or(0, |id| id.index), facts))
}

/// The value at `key` in the vault; none if there is none.
pub(super) fn vault(
    transaction: &ReadTransaction,
    sealing: &Sealing,
    key: &str,
) -> Result<Option<VaultFact>, StoreError> {
    let stored = transaction.open_table(tables::VAULT)?.get(key)?;
    stored.map(|record| vault_fact(sealing, key, record.value())).transpose()
}

fn vault_fact(sealing: &Sealing, key: &str, record: &[u8]) -> Result<VaultFact, StoreError> {
    let record = image::vault_unsealed(sealing, key, record)?;
    let (VaultRecord { version, audience }, value) =
        VaultRecord::from_bytes(&record).ok_or(StoreError::Damaged("vault"))?;
    let value = Some(Secret(Zeroizing::new(value.to_vec())));
    Ok(VaultFact { audience, version, value })
}

/// Makes this node the only one that keeps the book, which becomes as if it had been founded with it.
pub(super) fn settle_alone(transaction: &WriteTransaction, node: NodeId) -> Result<(), StoreError> {
    // As if there had been entries before: index 0 is what nodes without a book are at.
    let first = LogId { index: 1, ..LogId::default() };
    let nodes = BTreeMap::from([(node.0, VoterAddress::default())]);
    let membership = openraft::Membership::new(vec![[node.0].into()], nodes);
    let membership: Membership = openraft::StoredMembership::new(Some(first), membership);
    put_meta(transaction, meta::PURGED, &first)?;
    put_meta(transaction, meta::APPLIED, &first)?;
    put_meta(transaction, meta::MEMBERSHIP, &membership)
}

fn agent_id(text: &str) -> Result<AgentId, StoreError> {
    text.parse().map_err(|_| StoreError::Damaged("agent"))
}

fn begin(
    database: &Database,
    at_rest: &AtRest,
    had_one: bool,
    now: UnixMillis,
) -> Result<(Incarnation, Sealing), Unfit> {
    let mut sealings = at_rest.sealings();
    let sealing = sealings.next().ok_or(Unfit::Sealed)?;
    let transaction = database::begin_write(database)?;
    match Content::of(&transaction)? {
        Content::Nothing if had_one => return Err(Unfit::Lost),
        Content::Nothing => make(&transaction, &sealing)?,
        Content::Schema(1) => migrate(&transaction, &sealing, now)?,
        Content::Schema(tables::SCHEMA) => fit(&transaction, &sealing, sealings)?,
        Content::Schema(found) => return Err(Unfit::Schema(found)),
        Content::Foreign => return Err(Unfit::Foreign),
    }
    let identity = begin_life(&transaction, now)?;
    transaction.commit()?;
    Ok((identity, sealing))
}

fn make(transaction: &WriteTransaction, sealing: &Sealing) -> Result<(), StoreError> {
    let mut meta = transaction.open_table(META)?;
    meta.insert(META_SCHEMA, tables::SCHEMA.to_be_bytes().as_slice())?;
    meta.insert(meta::NODE, rand::random::<u64>().to_be_bytes().as_slice())?;
    meta.insert(meta::GENERATION, 0_u64.to_be_bytes().as_slice())?;
    meta.insert(meta::SEAL, sealing.seal(SEAL, SEALED)?.as_slice())?;
    tables::make(transaction)
}

/// Where the check for the key is sealed for.
const SEAL: Place<'static> = Place("meta", b"seal");

/// What release 0.1.0 has kept alone becomes a registry that was founded here. One that never issued a
/// token was none: nodes of a mesh had such a file beside the voter's.
fn migrate(
    transaction: &WriteTransaction,
    sealing: &Sealing,
    now: UnixMillis,
) -> Result<(), StoreError> {
    let mut meta = transaction.open_table(META)?;
    let serial = Serial(number(&meta, meta::SERIAL)?);
    let tokens_end = UnixMillis(number(&meta, meta::TOKENS_END)?);
    let secret = {
        let stored = meta.get(meta::SIGNING_KEY)?;
        let stored = stored.ok_or(StoreError::Damaged(meta::SIGNING_KEY))?;
        Secret(Zeroizing::new(stored.value().to_vec()))
    };
    for former in [meta::SIGNING_KEY, meta::SERIAL, meta::TOKENS_END] {
        meta.remove(former)?;
    }
    meta.insert(META_SCHEMA, tables::SCHEMA.to_be_bytes().as_slice())?;
    meta.insert(meta::SEAL, sealing.seal(SEAL, SEALED)?.as_slice())?;
    let node = NodeId(number(&meta, meta::NODE)?);
    drop(meta);
    tables::make(transaction)?;
    if serial == Serial(0) {
        return Ok(());
    }
    if !Keys::open(transaction, sealing)?.add(KeyId(0), &secret, now)? {
        return Err(StoreError::Damaged(meta::SIGNING_KEY));
    }
    let founded = Founded { registry: RegistryId::random(), lineage: Vec::new() };
    let head =
        Head { founded: Some(founded), time: now, serial, tokens_end, keys: 1, ..Head::default() };
    put_meta(transaction, meta::HEAD, &head)?;
    settle_alone(transaction, node)
}

/// Finds the key that fits, and seals everything with the present one if it was another.
fn fit(
    transaction: &WriteTransaction,
    present: &Sealing,
    formers: impl Iterator<Item = Sealing>,
) -> Result<(), Unfit> {
    let check = {
        let meta = transaction.open_table(META)?;
        let stored = meta.get(meta::SEAL)?.ok_or(StoreError::Damaged(meta::SEAL))?;
        stored.value().to_vec()
    };
    let fits = |sealing: &Sealing| {
        sealing.open(SEAL, &check).is_some_and(|opened| opened.as_slice() == SEALED)
    };
    if fits(present) {
        return Ok(());
    }
    let former = formers.into_iter().find(fits).ok_or(Unfit::Sealed)?;
    reseal(transaction, &former, present)?;
    Ok(())
}

fn reseal(
    transaction: &WriteTransaction,
    former: &Sealing,
    present: &Sealing,
) -> Result<(), StoreError> {
    transaction.open_table(META)?.insert(meta::SEAL, present.seal(SEAL, SEALED)?.as_slice())?;
    let mut log = transaction.open_table(tables::LOG)?;
    let mut indices = Vec::new();
    for row in log.iter()? {
        indices.push(row?.0.value());
    }
    for index in indices {
        let key = index.to_be_bytes();
        let place = Place(tables::LOG_PLACE, &key);
        let opened = log.get(index)?.and_then(|sealed| former.open(place, sealed.value()));
        let opened = opened.ok_or(StoreError::Unsealable("log"))?;
        log.insert(index, present.seal(place, &opened)?.as_slice())?;
    }
    let mut keys = transaction.open_table(tables::KEYS)?;
    let mut records = Vec::new();
    for row in keys.iter()? {
        let (id, record) = row?;
        let id = KeyId(id.value());
        let opened = keys::unsealed(former, id, record.value())?;
        records.push((id, keys::sealed(present, id, &opened)?));
    }
    for (id, record) in records {
        keys.insert(id.0, record.as_slice())?;
    }
    let mut vault = transaction.open_table(tables::VAULT)?;
    let mut records = Vec::new();
    for row in vault.iter()? {
        let (key, record) = row?;
        let opened = image::vault_unsealed(former, key.value(), record.value())?;
        let sealed = image::vault_sealed(present, key.value(), &opened)?;
        records.push((key.value().to_owned(), sealed));
    }
    for (key, record) in records {
        vault.insert(key.as_str(), record.as_slice())?;
    }
    Ok(())
}

/// The generation is the time of the start, so that it is a new and the highest one also where the file
/// is an older copy of itself: others would refuse a life that they take for a former one. Where the
/// clock was set back, it is the next number.
fn begin_life(transaction: &WriteTransaction, now: UnixMillis) -> Result<Incarnation, StoreError> {
    let mut meta = transaction.open_table(META)?;
    let node = NodeId(number(&meta, meta::NODE)?);
    let generation = number(&meta, meta::GENERATION)?.saturating_add(1).max(now.0);
    meta.insert(meta::GENERATION, generation.to_be_bytes().as_slice())?;
    Ok(Incarnation { node, generation: Generation(generation) })
}

impl Unfit {
    fn into_error(self, source: &impl Source) -> OpenError {
        let file = source.path().to_owned();
        let reason = match self {
            Self::Schema(found) => return OpenError::Schema { file, found },
            Self::Sealed => return OpenError::Sealed { file },
            Self::Foreign => "it holds something else".to_owned(),
            Self::Lost => {
                "it is empty or was missing, though what lies beside it shows that there was a registry"
                    .to_owned()
            }
            Self::Store(error) => return unusable(source, error),
        };
        OpenError::Unreadable { file, reason, others: false }
    }
}
