//! The tables of the registry's file, and what stands alone beside them.

use std::io;

use redb::{ReadTransaction, ReadableTable, TableDefinition, WriteTransaction};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{
    facts::Founded,
    raft::{LogId, Membership},
    record,
};
use crate::{UnixMillis, database::META, token::Serial};

/// The version of the tables and records as a whole, stored beside them.
pub(super) const SCHEMA: u32 = 2;

/// Index → an entry of the log, sealed.
pub(super) const LOG: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("log");
/// Where entries of the log are sealed for.
pub(super) const LOG_PLACE: &str = "log";
/// Agent id → [`AgentEntry`](record::AgentEntry).
pub(super) const AGENTS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("agents");
/// Serial → [`RevokedEntry`](record::RevokedEntry).
pub(super) const REVOKED_TOKENS: TableDefinition<'_, u64, &[u8]> =
    TableDefinition::new("revoked_tokens");
/// Agent id → [`RevokedEntry`](record::RevokedEntry).
pub(super) const REVOKED_AGENTS: TableDefinition<'_, &str, &[u8]> =
    TableDefinition::new("revoked_agents");
/// Agent id → nothing.
pub(super) const BANNED: TableDefinition<'_, &str, ()> = TableDefinition::new("banned");
/// Key id → [`KeyEntry`](record::KeyEntry), and the sealed secret.
pub(super) const KEYS: TableDefinition<'_, u32, &[u8]> = TableDefinition::new("keys");
/// Key → [`VaultRecord`](record::VaultRecord), and the sealed value.
pub(super) const VAULT: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("vault");
/// Claim that was given up → until when it is remembered, Unix ms of log time.
pub(super) const RELEASED: TableDefinition<'_, &[u8; 16], u64> = TableDefinition::new("released");

/// What stands in `META` beside the schema. All but numbers is [`record::to_bytes`].
pub(super) mod meta {
    /// This node's id, `u64`.
    pub(crate) const NODE: &str = "node";
    /// The generation of the node that opened this file last, `u64`.
    pub(crate) const GENERATION: &str = "generation";
    /// Something sealed, that shows whether the key fits.
    pub(crate) const SEAL: &str = "seal";
    /// For whom this node voted last.
    pub(crate) const VOTE: &str = "vote";
    /// The last entry that was removed from the log's front.
    pub(crate) const PURGED: &str = "purged";
    /// The last entry that is in the book.
    pub(crate) const APPLIED: &str = "applied";
    /// Who keeps the book, as far as it says.
    pub(crate) const MEMBERSHIP: &str = "membership";
    /// The book's own [`Head`](super::Head).
    pub(crate) const HEAD: &str = "head";

    /// Schema 1: the ed25519 private key, 32 bytes.
    pub(crate) const SIGNING_KEY: &str = "signing_key";
    /// Schema 1: the serial given out last, `u64`.
    pub(crate) const SERIAL: &str = "serial";
    /// Schema 1: when the last of all tokens expires, `u64` Unix ms; the greatest number: never.
    pub(crate) const TOKENS_END: &str = "tokens_end";
}

/// What the book knows beside its rows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Head {
    pub(super) founded: Option<Founded>,
    /// Log time: the latest of all batches so far.
    pub(super) time: UnixMillis,
    /// The serial given out last.
    pub(super) serial: Serial,
    /// When the last of all tokens issued so far expires; the greatest number: never.
    pub(super) tokens_end: UnixMillis,
    /// How many keys there have been.
    pub(super) keys: u32,
    /// The version given to a value in the vault last.
    pub(super) vault_version: u64,
    /// Who is to keep the book; nobody: each node follows its own seeds.
    pub(super) wanted_voters: Vec<String>,
    /// When the next key retires, or may be forgotten.
    pub(super) keys_change_at: Option<UnixMillis>,
}

/// Why a transaction failed; nothing of it has happened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum StoreError {
    /// In the system's words.
    #[error("{1}")]
    Io(io::ErrorKind, String),
    /// In redb's words.
    #[error("{0}")]
    Failed(String),
    #[error("its record `{0}` is damaged")]
    Damaged(&'static str),
    #[error("its {0} was sealed with another key, or altered")]
    Unsealable(&'static str),
    #[error("a secret cannot be sealed: the system gives no randomness")]
    Unsealed,
    /// The file failed before, and was not opened anew yet, or was closed.
    #[error("it is not open: {0}")]
    Closed(String),
}

impl From<redb::Error> for StoreError {
    fn from(error: redb::Error) -> Self {
        match error {
            // Invalid data is redb's own finding, of a file that the system has read.
            redb::Error::Io(error) if error.kind() != io::ErrorKind::InvalidData => {
                Self::Io(error.kind(), error.to_string())
            }
            other => Self::Failed(other.to_string()),
        }
    }
}

macro_rules! failed {
    ($($error:ty),+) => {$(
        impl From<$error> for StoreError {
            fn from(error: $error) -> Self {
                redb::Error::from(error).into()
            }
        }
    )+};
}

failed!(
    redb::StorageError,
    redb::TableError,
    redb::TransactionError,
    redb::SetDurabilityError,
    redb::CommitError
);

/// What both kinds of transactions can do for those who read.
pub(super) trait Reading {
    /// A value of [`META`] that [`record::to_bytes`] wrote; none if there is none.
    fn meta<T: DeserializeOwned>(&self, name: &'static str) -> Result<Option<T>, StoreError>;

    /// The last entry that is in the book.
    fn applied(&self) -> Result<Option<LogId>, StoreError> {
        self.meta(meta::APPLIED)
    }

    /// Who keeps the book, as far as it says.
    fn membership(&self) -> Result<Membership, StoreError> {
        Ok(self.meta(meta::MEMBERSHIP)?.unwrap_or_default())
    }

    fn head(&self) -> Result<Head, StoreError> {
        Ok(self.meta(meta::HEAD)?.unwrap_or_default())
    }
}

impl Reading for ReadTransaction {
    fn meta<T: DeserializeOwned>(&self, name: &'static str) -> Result<Option<T>, StoreError> {
        value(&self.open_table(META)?, name)
    }
}

impl Reading for WriteTransaction {
    fn meta<T: DeserializeOwned>(&self, name: &'static str) -> Result<Option<T>, StoreError> {
        value(&self.open_table(META)?, name)
    }
}

/// Writes a value of [`META`] that [`Reading::meta`] reads.
pub(super) fn put_meta(
    transaction: &WriteTransaction,
    name: &'static str,
    value: &impl Serialize,
) -> Result<(), StoreError> {
    transaction.open_table(META)?.insert(name, record::to_bytes(value).as_slice())?;
    Ok(())
}

/// A number of [`META`].
pub(super) fn number(
    meta: &impl ReadableTable<&'static str, &'static [u8]>,
    name: &'static str,
) -> Result<u64, StoreError> {
    let stored = meta.get(name)?.ok_or(StoreError::Damaged(name))?;
    let bytes = stored.value().try_into().map_err(|_| StoreError::Damaged(name))?;
    Ok(u64::from_be_bytes(bytes))
}

/// Makes all tables that are not there yet, so that those who read find them.
pub(super) fn make(transaction: &WriteTransaction) -> Result<(), StoreError> {
    transaction.open_table(LOG)?;
    transaction.open_table(AGENTS)?;
    transaction.open_table(REVOKED_TOKENS)?;
    transaction.open_table(REVOKED_AGENTS)?;
    transaction.open_table(BANNED)?;
    transaction.open_table(KEYS)?;
    transaction.open_table(VAULT)?;
    transaction.open_table(RELEASED)?;
    Ok(())
}

/// Empties the book, and leaves the log and the node's own.
pub(super) fn clear_book(transaction: &WriteTransaction) -> Result<(), StoreError> {
    transaction.delete_table(AGENTS)?;
    transaction.delete_table(REVOKED_TOKENS)?;
    transaction.delete_table(REVOKED_AGENTS)?;
    transaction.delete_table(BANNED)?;
    transaction.delete_table(KEYS)?;
    transaction.delete_table(VAULT)?;
    transaction.delete_table(RELEASED)?;
    make(transaction)
}

fn value<T: DeserializeOwned>(
    meta: &impl ReadableTable<&'static str, &'static [u8]>,
    name: &'static str,
) -> Result<Option<T>, StoreError> {
    let Some(stored) = meta.get(name)? else { return Ok(None) };
    record::from_bytes(stored.value()).ok_or(StoreError::Damaged(name)).map(Some)
}

#[cfg(test)]
mod tests {
    use data_encoding::HEXLOWER;

    use super::*;
    use crate::registry::{RegistryId, raft::VoterAddress};

    fn frozen<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(
        value: &T,
        bytes: &str,
    ) {
        assert_eq!(HEXLOWER.encode(&record::to_bytes(value)), bytes);
        assert_eq!(record::from_bytes::<T>(&record::to_bytes(value)).as_ref(), Some(value));
    }

    #[test]
    fn the_bytes_beside_the_rows_are_frozen() {
        let founded = Founded { registry: RegistryId(5), lineage: vec![RegistryId(4)] };
        let head = Head {
            founded: Some(founded),
            time: UnixMillis(1),
            serial: Serial(2),
            tokens_end: UnixMillis(u64::MAX),
            keys: 3,
            vault_version: 4,
            wanted_voters: vec!["a:1".to_owned()],
            keys_change_at: Some(UnixMillis(6)),
        };
        frozen(
            &head,
            "019892c4100000000000000000000000000000000591c41000000000000000000000000000000004\
             0102cfffffffffffffffff030491a3613a3106",
        );
        let id = LogId { leader_id: openraft::CommittedLeaderId::new(2, 3), index: 4 };
        frozen(&id, "019292020304");
        frozen(&openraft::Vote::<u64>::new_committed(2, 3), "0192920203c3");
        let nodes = std::collections::BTreeMap::from([(3, VoterAddress::default())]);
        let membership = openraft::Membership::new(vec![[3].into()], nodes);
        frozen(&Membership::new(Some(id), membership), "0192929202030492919103810391a0");
    }
}
