//! The registry's tables: founding them, and reading all of them that lives in memory.

use std::path::Path;

use redb::{
    Database, ReadableDatabase, ReadableTable, ReadableTableMetadata, TableDefinition,
    WriteTransaction,
};
use zeroize::Zeroizing;

use super::{
    super::{OpenError, standing::Revoked},
    record::{RevokedEntry, SCHEMA},
};
use crate::{
    Generation, NodeId, UnixMillis,
    database::{Content, DatabaseFile, FileError, META, META_SCHEMA, Source},
    subscription_store,
    token::{Serial, SigningError, TokenSigner},
};

/// Agent id → [`AgentEntry`](super::record::AgentEntry).
pub(in super::super) const AGENTS: TableDefinition<'_, &str, &[u8]> =
    TableDefinition::new("agents");
/// Serial → [`RevokedEntry`].
pub(in super::super) const REVOKED_TOKENS: TableDefinition<'_, u64, &[u8]> =
    TableDefinition::new("revoked_tokens");
/// Agent id → [`RevokedEntry`].
pub(in super::super) const REVOKED_AGENTS: TableDefinition<'_, &str, &[u8]> =
    TableDefinition::new("revoked_agents");

// What stands in `META` beside the schema:

/// This node's id, `u64`.
const META_NODE: &str = "node";
/// The [`Generation`] of the node that opened this file last, `u64`.
const META_GENERATION: &str = "generation";
/// The ed25519 private key that signs tokens, 32 bytes.
const META_SIGNING_KEY: &str = "signing_key";
/// The serial given out last, `u64`.
pub(in super::super) const META_SERIAL: &str = "serial";
/// When the last of all tokens issued so far expires, `u64` Unix ms; the greatest number: never.
pub(in super::super) const META_TOKENS_END: &str = "tokens_end";

/// The file's name in the data directory.
const FILE: &str = "registry.redb";

/// What redb may keep of the file in memory.
pub(in super::super) const CACHE_BYTES: usize = 4 << 20;

/// Why a transaction failed; nothing of it has happened.
#[derive(Debug, thiserror::Error)]
pub(in super::super) enum StoreError {
    #[error(transparent)]
    Storage(#[from] redb::StorageError),
    #[error(transparent)]
    Table(#[from] redb::TableError),
    #[error(transparent)]
    Transaction(#[from] redb::TransactionError),
    #[error(transparent)]
    Durability(#[from] redb::SetDurabilityError),
    #[error(transparent)]
    Commit(#[from] redb::CommitError),
    #[error(transparent)]
    Signing(#[from] SigningError),
    #[error("its record `{0}` is damaged")]
    Damaged(&'static str),
    #[error("it holds something else")]
    Foreign,
    #[error(
        "it is empty or was missing, though {} beside it shows that there was a registry; to start \
         anew, move that away too",
        subscription_store::FILE
    )]
    Lost,
    #[error("schema {0}")]
    Schema(u32),
}

/// What a node is, for as long as its data directory lasts.
pub(in super::super) struct Identity {
    pub(in super::super) node: NodeId,
    pub(in super::super) generation: Generation,
    pub(in super::super) signer: TokenSigner,
}

/// The registry's file in a data directory.
pub(in super::super) fn file(data_dir: &Path) -> DatabaseFile {
    DatabaseFile::new(data_dir, FILE, CACHE_BYTES)
}

/// Opens what should hold a registry.
pub(in super::super) fn open(source: &impl Source) -> Result<Database, OpenError> {
    source.open().map_err(|error| match error {
        FileError::Io(error) => OpenError::Io { dir: source.dir().to_owned(), source: error },
        FileError::InUse => OpenError::InUse(source.dir().to_owned()),
        FileError::Unreadable(reason) => {
            OpenError::Unreadable { file: source.path().to_owned(), reason }
        }
    })
}

/// Makes the file a registry if it is empty, begins a new life of the node, and forgets what may be
/// forgotten.
///
/// Where there was one before, none is founded: names would be given twice.
pub(in super::super) fn start(
    database: &Database,
    had_one: bool,
    now: UnixMillis,
) -> Result<Identity, StoreError> {
    let transaction = database.begin_write()?;
    match Content::of(&transaction)? {
        Content::Nothing if had_one => return Err(StoreError::Lost),
        Content::Nothing => found(&transaction)?,
        Content::Schema(SCHEMA) => {}
        Content::Schema(found) => return Err(StoreError::Schema(found)),
        Content::Foreign => return Err(StoreError::Foreign),
    }
    let identity = begin_life(&transaction, now)?;
    forget(&transaction, now)?;
    transaction.commit()?;
    Ok(identity)
}

/// What is kept in memory: the number of names, and the revocations.
pub(in super::super) fn standing(database: &Database) -> Result<(u64, Revoked), StoreError> {
    let transaction = database.begin_read()?;
    let registered = transaction.open_table(AGENTS)?.len()?;
    let mut revoked = Revoked::default();
    for entry in transaction.open_table(REVOKED_TOKENS)?.iter()? {
        revoked.tokens.insert(Serial(entry?.0.value()));
    }
    for entry in transaction.open_table(REVOKED_AGENTS)?.iter()? {
        let (agent, entry) = entry?;
        let agent = agent.value().parse().map_err(|_| StoreError::Damaged("revoked agent"))?;
        let entry = RevokedEntry::from_bytes(entry.value());
        let until = entry.ok_or(StoreError::Damaged("revoked agent"))?.until;
        revoked.agents.insert(agent, until);
    }
    Ok((registered, revoked))
}

/// Reads a number that [`start`] has put there.
pub(in super::super) fn number(
    meta: &impl ReadableTable<&'static str, &'static [u8]>,
    name: &'static str,
) -> Result<u64, StoreError> {
    let stored = meta.get(name)?.ok_or(StoreError::Damaged(name))?;
    let bytes = stored.value().try_into().map_err(|_| StoreError::Damaged(name))?;
    Ok(u64::from_be_bytes(bytes))
}

fn found(transaction: &WriteTransaction) -> Result<(), StoreError> {
    let mut meta = transaction.open_table(META)?;
    meta.insert(META_SCHEMA, SCHEMA.to_be_bytes().as_slice())?;
    meta.insert(META_NODE, rand::random::<u64>().to_be_bytes().as_slice())?;
    meta.insert(META_SIGNING_KEY, TokenSigner::generate().secret().as_slice())?;
    for counter in [META_GENERATION, META_SERIAL, META_TOKENS_END] {
        meta.insert(counter, 0_u64.to_be_bytes().as_slice())?;
    }
    transaction.open_table(AGENTS)?;
    transaction.open_table(REVOKED_TOKENS)?;
    transaction.open_table(REVOKED_AGENTS)?;
    Ok(())
}

/// The generation is the time of the start, so that it is a new and the highest one also where the file
/// is an older copy of itself: others would refuse a life that they take for a former one. Where the
/// clock was set back, it is the next number.
fn begin_life(transaction: &WriteTransaction, now: UnixMillis) -> Result<Identity, StoreError> {
    let mut meta = transaction.open_table(META)?;
    let node = NodeId(number(&meta, META_NODE)?);
    let generation = number(&meta, META_GENERATION)?.saturating_add(1).max(now.0);
    meta.insert(META_GENERATION, generation.to_be_bytes().as_slice())?;
    let stored = meta.get(META_SIGNING_KEY)?.ok_or(StoreError::Damaged(META_SIGNING_KEY))?;
    let secret = Zeroizing::new(stored.value().to_vec());
    let signer = TokenSigner::from_secret(&secret)?;
    Ok(Identity { node, generation: Generation(generation), signer })
}

/// Drops the revocations of tokens that have all expired.
fn forget(transaction: &WriteTransaction, now: UnixMillis) -> Result<(), StoreError> {
    let in_force =
        |bytes: &[u8]| RevokedEntry::from_bytes(bytes).is_none_or(|entry| entry.forget_at > now);
    transaction.open_table(REVOKED_TOKENS)?.retain(|_, bytes| in_force(bytes))?;
    transaction.open_table(REVOKED_AGENTS)?.retain(|_, bytes| in_force(bytes))?;
    Ok(())
}
