//! The registry's vault as the shelf on which `tls` keeps what certificates are made of.
//!
//! Owns nothing and decides nothing: it only puts one crate's words for the other's.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use cluster::{
    NodeId,
    registry::{Audience, Vault, VaultError},
};
use tls::acme::{Shelf, ShelfError, Value};
use tokio::sync::watch;
use zeroize::Zeroizing;

/// A registry's vault, seen as a shelf.
pub struct VaultShelf<V>(Arc<V>);

impl<V: Vault> VaultShelf<V> {
    /// The shelf that `vault` is.
    pub fn new(vault: Arc<V>) -> Self {
        Self(vault)
    }
}

#[async_trait]
impl<V: Vault> Shelf for VaultShelf<V> {
    fn get(&self, key: &str) -> Option<Value> {
        self.0.get(key).map(|entry| Value { version: entry.version, bytes: entry.value })
    }

    async fn put(
        &self,
        key: &str,
        expected: u64,
        value: Option<Zeroizing<Vec<u8>>>,
        for_all: bool,
    ) -> Result<u64, ShelfError> {
        let audience = if for_all { Audience::All } else { Audience::Voters };
        self.0.put(key, expected, value, audience).await.map_err(|error| match error {
            VaultError::Conflict(_) => ShelfError::Conflict,
            VaultError::TooLong | VaultError::Unavailable(_) => {
                ShelfError::Unavailable(error.to_string())
            }
        })
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.0.changes()
    }

    async fn spread(&self, deadline: Duration) -> Result<(), String> {
        self.0.spread(deadline).await.map_err(|behind| told(&behind, deadline))
    }

    fn leads(&self) -> watch::Receiver<bool> {
        self.0.leads()
    }
}

fn told(behind: &[NodeId], deadline: Duration) -> String {
    let nodes: Vec<_> = behind.iter().map(ToString::to_string).collect();
    format!("{} did not follow within {} s", nodes.join(", "), deadline.as_secs())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a failed unwrap is a failed test
mod tests {
    use cluster::registry::VaultEntry;
    use parking_lot::Mutex;

    use super::*;

    /// A vault that remembers what it was told, refuses it, and says that two nodes are behind.
    struct Refusing(VaultError, Mutex<Vec<Audience>>);

    #[async_trait]
    impl Vault for Refusing {
        fn get(&self, key: &str) -> Option<VaultEntry> {
            let value = Arc::new(Zeroizing::new(key.as_bytes().to_vec()));
            (key != "none").then_some(VaultEntry { version: 7, value })
        }

        async fn put(
            &self,
            _: &str,
            _: u64,
            _: Option<Zeroizing<Vec<u8>>>,
            audience: Audience,
        ) -> Result<u64, VaultError> {
            self.1.lock().push(audience);
            Err(self.0.clone())
        }

        fn changes(&self) -> watch::Receiver<u64> {
            watch::Sender::new(1).subscribe()
        }

        async fn spread(&self, _: Duration) -> Result<(), Vec<NodeId>> {
            Err(vec![NodeId(1), NodeId(2)])
        }

        fn leads(&self) -> watch::Receiver<bool> {
            watch::Sender::new(true).subscribe()
        }
    }

    #[tokio::test]
    async fn words_are_put_for_words() {
        for (error, expected) in [
            (VaultError::Conflict(3), ShelfError::Conflict),
            (
                VaultError::Unavailable("no quorum".into()),
                ShelfError::Unavailable("the registry cannot be changed now: no quorum".into()),
            ),
        ] {
            let vault = Arc::new(Refusing(error, Mutex::default()));
            let shelf = VaultShelf::new(Arc::clone(&vault));
            assert_eq!(shelf.put("key", 1, None, true).await.unwrap_err(), expected);
            shelf.put("key", 1, None, false).await.unwrap_err();
            assert_eq!(*vault.1.lock(), [Audience::All, Audience::Voters]);
            let value = shelf.get("key").unwrap();
            assert_eq!((value.version, value.bytes.as_slice()), (7, b"key".as_slice()));
            assert!(shelf.get("none").is_none());
            let behind = shelf.spread(Duration::from_secs(30)).await.unwrap_err();
            let expected = "0000000000000001, 0000000000000002 did not follow within 30 s";
            assert_eq!(behind, expected);
        }
    }
}
