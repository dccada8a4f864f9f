//! What applied entries change of the book that nodes hold in memory: the news that voters tell.
//!
//! Facts are a difference: whoever has what came before and takes them over, the later in place of
//! the earlier, has what comes after. Facts of everything are a difference to nothing. Serialised as
//! `MessagePack`; a test freezes the bytes.

use std::{collections::BTreeMap, sync::Arc};

use serde::{Deserialize, Serialize};
use tls::acme::Value;

use super::{
    RegistryId,
    command::{Audience, Secret, byte_array},
};
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
    #[serde(with = "byte_array")]
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

impl VaultFact {
    /// The value as it lies on the shelf; none if there is none, or none for this node.
    pub(super) fn shelved(&self) -> Option<Value> {
        let value = self.value.as_ref()?;
        Some(Value { version: self.version, bytes: Arc::new(value.0.clone()) })
    }
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

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a failed unwrap is a failed test
mod tests {
    use data_encoding::HEXLOWER;
    use zeroize::Zeroizing;

    use super::{
        super::record::{from_bytes, to_bytes},
        *,
    };

    fn id(text: &str) -> AgentId {
        text.parse().unwrap()
    }

    fn some() -> Facts {
        let key = KeyFact {
            id: KeyId(1),
            public: [7; 32],
            created_at: UnixMillis(1),
            retires_at: None,
            retired: false,
        };
        let value = Some(Secret(Zeroizing::new(b"pem".to_vec())));
        let fact = VaultFact { audience: Audience::All, version: 2, value };
        Facts {
            founded: Some(Founded { registry: RegistryId(5), lineage: vec![RegistryId(4)] }),
            registered: 3,
            tokens: [(Serial(1), true), (Serial(2), false)].into(),
            agents: [(id("abc"), Some(Serial(9))), (id("def"), None)].into(),
            bans: [(id("abc"), true)].into(),
            keys: Some(vec![key]),
            vault: [("cert".to_owned(), fact)].into(),
            wanted_voters: Some(vec!["a:1".to_owned()]),
        }
    }

    #[test]
    fn the_bytes_are_frozen() {
        assert_eq!(HEXLOWER.encode(&to_bytes(&some())), SOME);
        assert_eq!(HEXLOWER.encode(&to_bytes(&Facts::default())), NONE);
        assert_eq!(from_bytes(&to_bytes(&some())), Some(some()));
        assert_eq!(from_bytes(&to_bytes(&Facts::default())), Some(Facts::default()));
    }

    const SOME: &str = "019892c4100000000000000000000000000000000591c41000000000000000000000000000000004\
        038201c302c282a361626309a3646566c081a3616263c3919501c420070707070707070707070707\
        070707070707070707070707070707070707070701c0c281a46365727493a3416c6c02c40370656d91a3613a31";
    const NONE: &str = "0198c000808080c080c0";

    #[test]
    fn the_later_replaces_the_earlier() {
        let mut facts = some();
        assert!(!facts.is_count_only());
        facts.extend(Facts { registered: 4, ..Facts::default() });
        assert_eq!(facts, Facts { registered: 4, ..some() });
        let later = Facts {
            tokens: [(Serial(1), false)].into(),
            bans: [(id("abc"), false)].into(),
            wanted_voters: Some(Vec::new()),
            ..Facts::default()
        };
        facts.extend(later);
        assert_eq!(facts.tokens, [(Serial(1), false), (Serial(2), false)].into());
        assert_eq!(facts.bans, [(id("abc"), false)].into());
        assert_eq!((facts.registered, facts.wanted_voters), (0, Some(Vec::new())));
        assert_eq!((facts.keys, facts.agents), (some().keys, some().agents));
    }

    #[test]
    fn observers_are_not_told_what_is_for_voters() {
        assert_eq!(some().for_observers(), some());
        let mut facts = some();
        facts.vault.get_mut("cert").unwrap().audience = Audience::Voters;
        let told = facts.for_observers();
        assert_eq!(told.vault["cert"].value, None);
        assert!(!String::from_utf8_lossy(&to_bytes(&told)).contains("pem"));
    }
}
