//! The keys that sign tokens: how they come, retire and are forgotten.

use std::time::Duration;

use redb::{ReadTransaction, ReadableTable, Table, WriteTransaction};
use zeroize::Zeroizing;

use super::{
    KeyId, KeyInfo,
    command::Secret,
    facts::KeyFact,
    record::KeyEntry,
    sealing::{Place, Sealing},
    tables::{self, StoreError},
};
use crate::{UnixMillis, token::TokenSigner};

/// Where the keys' secrets are sealed for.
const PLACE: &str = "keys";

/// How long a retired key is known by its public half, so that its tokens are told from others'.
const RETIRED_KEPT: Duration = Duration::from_hours(90 * 24);

/// The table of keys, open in one transaction.
pub(super) struct Keys<'t> {
    table: Table<'t, u32, &'static [u8]>,
    sealing: &'t Sealing,
}

impl<'t> Keys<'t> {
    pub(super) fn open(
        transaction: &'t WriteTransaction,
        sealing: &'t Sealing,
    ) -> Result<Self, StoreError> {
        Ok(Self { table: transaction.open_table(tables::KEYS)?, sealing })
    }

    /// A key that signs from now on; false if `secret` is none.
    pub(super) fn add(
        &mut self,
        id: KeyId,
        secret: &Secret,
        now: UnixMillis,
    ) -> Result<bool, StoreError> {
        let Some(public) = TokenSigner::from_secret(&secret.0).ok().map(|key| key.public()) else {
            return Ok(false);
        };
        let entry = KeyEntry { public, created_at: now, retires_at: None, retired: false };
        self.put(id, entry, Some(&secret.0))?;
        Ok(true)
    }

    /// Writes a key as it is, for example from a backup.
    pub(super) fn put(
        &mut self,
        id: KeyId,
        entry: KeyEntry,
        secret: Option<&[u8]>,
    ) -> Result<(), StoreError> {
        let sealed = secret.map(|secret| self.sealing.seal(place(&id.0.to_be_bytes()), secret));
        let sealed = sealed.transpose()?;
        let record = entry.to_bytes(&sealed.unwrap_or_default());
        self.table.insert(id.0, record.as_slice())?;
        Ok(())
    }

    /// Says when the key's tokens end.
    pub(super) fn retire_at(&mut self, id: KeyId, at: UnixMillis) -> Result<(), StoreError> {
        let record = {
            let Some(stored) = self.table.get(id.0)? else { return Ok(()) };
            let (entry, sealed) = read(stored.value())?;
            KeyEntry { retires_at: Some(at), ..entry }.to_bytes(sealed)
        };
        self.table.insert(id.0, record.as_slice())?;
        Ok(())
    }

    /// Takes the secret from keys whose time has come, and forgets those that retired long ago.
    pub(super) fn retire(&mut self, now: UnixMillis) -> Result<(), StoreError> {
        for (id, entry) in self.entries()? {
            match entry.retires_at {
                Some(at) if at.plus(RETIRED_KEPT) <= now => {
                    self.table.remove(id.0)?;
                }
                Some(at) if at <= now => {
                    self.put(id, KeyEntry { retired: true, ..entry }, None)?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// When a key retires next, or may be forgotten.
    pub(super) fn next_change(&self) -> Result<Option<UnixMillis>, StoreError> {
        let change = |entry: KeyEntry| match (entry.retires_at, entry.retired) {
            (Some(at), true) => Some(at.plus(RETIRED_KEPT)),
            (at, _) => at,
        };
        Ok(self.entries()?.into_iter().filter_map(|(_, entry)| change(entry)).min())
    }

    pub(super) fn facts(&self) -> Result<Vec<KeyFact>, StoreError> {
        Ok(self.entries()?.into_iter().map(fact).collect())
    }

    fn entries(&self) -> Result<Vec<(KeyId, KeyEntry)>, StoreError> {
        entries(&self.table)
    }
}

/// All keys, those that retired too, the first first.
pub(super) fn facts(transaction: &ReadTransaction) -> Result<Vec<KeyFact>, StoreError> {
    Ok(entries(&transaction.open_table(tables::KEYS)?)?.into_iter().map(fact).collect())
}

/// The keys that have not retired, the one that signs first.
pub(super) fn infos(transaction: &ReadTransaction) -> Result<Vec<KeyInfo>, StoreError> {
    let entries = entries(&transaction.open_table(tables::KEYS)?)?.into_iter().rev();
    let info = |(id, entry): (KeyId, KeyEntry)| KeyInfo {
        id,
        public: entry.public.to_vec(),
        created_at: entry.created_at,
        retires_at: entry.retires_at,
    };
    Ok(entries.filter(|(_, entry)| !entry.retired).map(info).collect())
}

/// What signs now; none before the founding.
pub(super) fn signer(
    transaction: &ReadTransaction,
    sealing: &Sealing,
) -> Result<Option<TokenSigner>, StoreError> {
    let table = transaction.open_table(tables::KEYS)?;
    let Some((id, stored)) = table.last()? else { return Ok(None) };
    let (id, (_, sealed)) = (KeyId(id.value()), read(stored.value())?);
    let secret = open(sealing, id, sealed)?;
    let signer = TokenSigner::from_secret(&secret).map_err(|_| StoreError::Damaged("key"))?;
    Ok(Some(signer.with_id(id)))
}

/// The record of a key with its secret opened instead of sealed.
pub(super) fn unsealed(
    sealing: &Sealing,
    id: KeyId,
    record: &[u8],
) -> Result<Zeroizing<Vec<u8>>, StoreError> {
    let (entry, sealed) = read(record)?;
    let secret = if sealed.is_empty() { Zeroizing::default() } else { open(sealing, id, sealed)? };
    Ok(Zeroizing::new(entry.to_bytes(&secret)))
}

/// The record of a key with its secret sealed instead of open.
pub(super) fn sealed(sealing: &Sealing, id: KeyId, record: &[u8]) -> Result<Vec<u8>, StoreError> {
    let (entry, secret) = read(record)?;
    let sealed = if secret.is_empty() {
        Vec::new()
    } else {
        sealing.seal(place(&id.0.to_be_bytes()), secret)?
    };
    Ok(entry.to_bytes(&sealed))
}

fn open(sealing: &Sealing, id: KeyId, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, StoreError> {
    sealing.open(place(&id.0.to_be_bytes()), sealed).ok_or(StoreError::Unsealable("key"))
}

fn place(id: &[u8]) -> Place<'_> {
    Place(PLACE, id)
}

fn read(record: &[u8]) -> Result<(KeyEntry, &[u8]), StoreError> {
    KeyEntry::from_bytes(record).ok_or(StoreError::Damaged("key"))
}

fn entries(
    table: &impl ReadableTable<u32, &'static [u8]>,
) -> Result<Vec<(KeyId, KeyEntry)>, StoreError> {
    let mut entries = Vec::new();
    for row in table.iter()? {
        let (id, record) = row?;
        entries.push((KeyId(id.value()), read(record.value())?.0));
    }
    Ok(entries)
}

fn fact((id, entry): (KeyId, KeyEntry)) -> KeyFact {
    let KeyEntry { public, created_at, retires_at, retired } = entry;
    KeyFact { id, public, created_at, retires_at, retired }
}
