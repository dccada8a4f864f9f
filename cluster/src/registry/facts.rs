//! What applied entries change of the book that nodes hold in memory: the news that voters tell.
//!
//! Facts are a difference: whoever has what came before and takes them over, the later in place of
//! the earlier, has what comes after. Facts of everything are a difference to nothing. Serialised as
//! `MessagePack`; a test freezes the bytes.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Audience, RegistryId, command::Secret};
use crate::{
    AgentId, UnixMillis,
    token::{KeyId, Serial},
};

/// Follows the book: told on the writer's thread, in order, when the transaction has been committed and
/// before those who asked for it are answered. Must not block.
pub(super) trait Follow: Send + Sync + 'static {
    /// The entries after `from`, up to `to`, have been applied, and changed this.
    fn applied(&self, from: u64, to: u64, facts: Facts);

    /// The book was replaced by what another voter had at `index`; `all` is all of it.
    fn replaced(&self, index: u64, all: Facts);
}

/// What is new in the book, or all of it that is held in memory.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Facts {
    /// Which registry it is; said at its founding, and in facts of everything.
    pub(super) founded: Option<Founded>,
    /// How many names there are now.
    pub(super) registered: u64,
    /// Tokens that are revoked now, or whose revocation is forgotten because they have expired.
    pub(super) tokens: BTreeMap<Serial, bool>,
    /// The last revoked serial of an agent; none: forgotten.
    pub(super) agents: BTreeMap<AgentId, Option<Serial>>,
    /// Who is banned now, or no more.
    pub(super) bans: BTreeMap<AgentId, bool>,
    /// All keys, the first first, if one came, went or is to retire.
    pub(super) keys: Option<Vec<KeyFact>>,
    /// The values that changed, by their keys.
    pub(super) vault: BTreeMap<String, VaultFact>,
    /// Who is to keep the book, if that changed; nobody: each node follows its own seeds.
    pub(super) wanted_voters: Option<Vec<String>>,
}

/// Which registry it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Founded {
    pub(super) registry: RegistryId,
    /// The registries from whose backups it was made, the oldest first.
    pub(super) lineage: Vec<RegistryId>,
}

/// The public half of a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct KeyFact {
    pub(super) id: KeyId,
    /// 32 bytes.
    #[serde(with = "bytes")]
    pub(super) public: [u8; 32],
    pub(super) created_at: UnixMillis,
    pub(super) retires_at: Option<UnixMillis>,
    /// Whether its tokens are refused now.
    pub(super) retired: bool,
}

/// A value in the vault.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct VaultFact {
    pub(super) audience: Audience,
    /// Grows with each change.
    pub(super) version: u64,
    /// None: it was removed, or is not for whoever is told this.
    pub(super) value: Option<Secret>,
}

impl Facts {
    /// Takes over what came after.
    pub(super) fn extend(&mut self, later: Self) {
        self.registered = later.registered;
        self.tokens.extend(later.tokens);
        self.agents.extend(later.agents);
        self.bans.extend(later.bans);
        self.vault.extend(later.vault);
        self.founded = later.founded.or_else(|| self.founded.take());
        self.keys = later.keys.or_else(|| self.keys.take());
        self.wanted_voters = later.wanted_voters.or_else(|| self.wanted_voters.take());
    }

    /// Whether nothing changed but the number of names.
    pub(super) fn is_count_only(&self) -> bool {
        self.founded.is_none()
            && self.tokens.is_empty()
            && self.agents.is_empty()
            && self.bans.is_empty()
            && self.keys.is_none()
            && self.vault.is_empty()
            && self.wanted_voters.is_none()
    }

    /// Without what is for voters alone; what was for all before and is no more, is removed.
    pub(super) fn for_observers(mut self) -> Self {
        for fact in self.vault.values_mut() {
            if fact.audience == Audience::Voters {
                fact.value = None;
            }
        }
        self
    }
}

/// 32 bytes as `MessagePack`'s bytes; serde would make an array of numbers of them.
mod bytes {
    use std::fmt;

    use serde::{Deserializer, Serializer, de};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8; 32], s: S) -> Result<S::Ok, S::Error> {
        s.serialize_bytes(bytes)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<[u8; 32], D::Error> {
        struct Bytes;

        impl de::Visitor<'_> for Bytes {
            type Value = [u8; 32];

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("32 bytes")
            }

            fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<[u8; 32], E> {
                bytes.try_into().map_err(|_| E::invalid_length(bytes.len(), &self))
            }
        }

        d.deserialize_bytes(Bytes)
    }
}
