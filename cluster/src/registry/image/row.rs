//! The rows of the book's tables, as they stand in the stream.

use std::sync::Arc;

use redb::{ReadTransaction, WriteTransaction};
use zeroize::Zeroizing;

use super::super::{
    KeyId,
    book::VAULT_PLACE,
    keys,
    record::{AgentEntry, KeyEntry, RevokedEntry, VaultRecord},
    sealing::{Place, Sealing},
    tables::{self, StoreError},
};
use crate::AgentId;

/// The rows of all tables, in the order of the stream; each is read when it is asked for.
pub(in super::super) type Rows = Box<dyn Iterator<Item = Result<Row, StoreError>> + Send>;

/// One row: its table, its key, and its record with what is secret open.
#[derive(Debug, PartialEq, Eq)]
pub(in super::super) struct Row {
    pub(super) kind: u8,
    pub(super) key: Vec<u8>,
    pub(super) value: Zeroizing<Vec<u8>>,
}

// The tables' numbers in the stream.
pub(super) const AGENT: u8 = 1;
const REVOKED_TOKEN: u8 = 2;
const REVOKED_AGENT: u8 = 3;
const BANNED: u8 = 4;
const KEY: u8 = 5;
const VAULT: u8 = 6;
const RELEASED: u8 = 7;

impl Row {
    fn new(kind: u8, key: &[u8], value: &[u8]) -> Self {
        Self { kind, key: key.to_vec(), value: Zeroizing::new(value.to_vec()) }
    }

    /// Whether this release can put it into the book.
    pub(super) fn is_sound(&self) -> bool {
        let (key, value) = (&self.key[..], &self.value[..]);
        match self.kind {
            AGENT => is_agent(key) && AgentEntry::from_bytes(value).is_some(),
            REVOKED_TOKEN => key.len() == 8 && RevokedEntry::from_bytes(value).is_some(),
            REVOKED_AGENT => is_agent(key) && RevokedEntry::from_bytes(value).is_some(),
            BANNED => is_agent(key) && value.is_empty(),
            KEY => key.len() == 4 && KeyEntry::from_bytes(value).is_some(),
            VAULT => str::from_utf8(key).is_ok() && VaultRecord::from_bytes(value).is_some(),
            RELEASED => key.len() == 16 && value.len() == 8,
            _ => false,
        }
    }
}

fn is_agent(key: &[u8]) -> bool {
    str::from_utf8(key).is_ok_and(AgentId::is_well_formed)
}

/// All rows that the transaction sees.
pub(super) fn all(
    transaction: &ReadTransaction,
    sealing: Arc<Sealing>,
) -> Result<Rows, StoreError> {
    let for_vault = sealing.clone();
    let agents = transaction.open_table(tables::AGENTS)?.range_owned::<&str>(..)?;
    let tokens = transaction.open_table(tables::REVOKED_TOKENS)?.range_owned::<u64>(..)?;
    let revoked = transaction.open_table(tables::REVOKED_AGENTS)?.range_owned::<&str>(..)?;
    let banned = transaction.open_table(tables::BANNED)?.range_owned::<&str>(..)?;
    let keys = transaction.open_table(tables::KEYS)?.range_owned::<u32>(..)?;
    let vault = transaction.open_table(tables::VAULT)?.range_owned::<&str>(..)?;
    let released = transaction.open_table(tables::RELEASED)?.range_owned::<&[u8; 16]>(..)?;
    let agents = agents.map(|row| {
        let (id, entry) = row?;
        Ok(Row::new(AGENT, id.value().as_bytes(), entry.value()))
    });
    let tokens = tokens.map(|row| {
        let (serial, entry) = row?;
        Ok(Row::new(REVOKED_TOKEN, &serial.value().to_be_bytes(), entry.value()))
    });
    let revoked = revoked.map(|row| {
        let (id, entry) = row?;
        Ok(Row::new(REVOKED_AGENT, id.value().as_bytes(), entry.value()))
    });
    let banned = banned.map(|row| Ok(Row::new(BANNED, row?.0.value().as_bytes(), &[])));
    let keys = keys.map(move |row| {
        let (id, record) = row?;
        let value = keys::unsealed(&sealing, KeyId(id.value()), record.value())?;
        Ok(Row { kind: KEY, key: id.value().to_be_bytes().to_vec(), value })
    });
    let vault = vault.map(move |row| {
        let (key, record) = row?;
        let value = vault_unsealed(&for_vault, key.value(), record.value())?;
        Ok(Row { kind: VAULT, key: key.value().as_bytes().to_vec(), value })
    });
    let released = released.map(|row| {
        let (claim, until) = row?;
        Ok(Row::new(RELEASED, claim.value(), &until.value().to_be_bytes()))
    });
    let revoked = agents.chain(tokens).chain(revoked).chain(banned);
    Ok(Box::new(revoked.chain(keys).chain(vault).chain(released)))
}

/// Puts rows into the tables, which are empty.
pub(in super::super) fn insert(
    transaction: &WriteTransaction,
    sealing: &Sealing,
    rows: Rows,
) -> Result<(), StoreError> {
    let mut agents = transaction.open_table(tables::AGENTS)?;
    let mut revoked_tokens = transaction.open_table(tables::REVOKED_TOKENS)?;
    let mut revoked_agents = transaction.open_table(tables::REVOKED_AGENTS)?;
    let mut banned = transaction.open_table(tables::BANNED)?;
    let mut keys = transaction.open_table(tables::KEYS)?;
    let mut vault = transaction.open_table(tables::VAULT)?;
    let mut released = transaction.open_table(tables::RELEASED)?;
    for row in rows {
        let Row { kind, key, value } = row?;
        let text = || str::from_utf8(&key).map_err(|_| StoreError::Damaged("row"));
        match kind {
            AGENT => drop(agents.insert(text()?, value.as_slice())?),
            REVOKED_TOKEN => {
                let serial = u64::from_be_bytes(fixed(&key)?);
                revoked_tokens.insert(serial, value.as_slice())?;
            }
            REVOKED_AGENT => drop(revoked_agents.insert(text()?, value.as_slice())?),
            BANNED => drop(banned.insert(text()?, ())?),
            KEY => {
                let id = u32::from_be_bytes(fixed(&key)?);
                keys.insert(id, keys::sealed(sealing, KeyId(id), &value)?.as_slice())?;
            }
            VAULT => {
                vault.insert(text()?, vault_sealed(sealing, text()?, &value)?.as_slice())?;
            }
            RELEASED => {
                released.insert(&fixed(&key)?, u64::from_be_bytes(fixed(&value)?))?;
            }
            _ => return Err(StoreError::Damaged("row")),
        }
    }
    Ok(())
}

/// The record of a value with the value opened instead of sealed.
pub(in super::super) fn vault_unsealed(
    sealing: &Sealing,
    key: &str,
    record: &[u8],
) -> Result<Zeroizing<Vec<u8>>, StoreError> {
    let (entry, sealed) = VaultRecord::from_bytes(record).ok_or(StoreError::Damaged("vault"))?;
    let value = sealing.open(Place(VAULT_PLACE, key.as_bytes()), sealed);
    Ok(Zeroizing::new(entry.to_bytes(&value.ok_or(StoreError::Unsealable("vault"))?)))
}

/// The record of a value with the value sealed instead of open.
pub(in super::super) fn vault_sealed(
    sealing: &Sealing,
    key: &str,
    record: &[u8],
) -> Result<Vec<u8>, StoreError> {
    let (entry, value) = VaultRecord::from_bytes(record).ok_or(StoreError::Damaged("vault"))?;
    Ok(entry.to_bytes(&sealing.seal(Place(VAULT_PLACE, key.as_bytes()), value)?))
}

fn fixed<const N: usize>(bytes: &[u8]) -> Result<[u8; N], StoreError> {
    bytes.try_into().map_err(|_| StoreError::Damaged("row"))
}
