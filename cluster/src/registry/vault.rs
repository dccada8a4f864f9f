//! Small secrets that the registry keeps for the cluster: the ACME account, orders, certificates.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use zeroize::Zeroizing;

use crate::NodeId;

/// A replicated shelf of small values, each replaced only by who knows its present version.
#[async_trait]
pub trait Vault: Send + Sync + 'static {
    /// The value at `key`, as this node knows it; none if there is none.
    fn get(&self, key: &str) -> Option<VaultEntry>;

    /// Replaces the value at `key` if its version is `expected` (0: there is none); `None` removes
    /// it. The new version.
    async fn put(
        &self,
        key: &str,
        expected: u64,
        value: Option<Zeroizing<Vec<u8>>>,
        audience: Audience,
    ) -> Result<u64, VaultError>;

    /// Changes whenever a value has changed here.
    fn changes(&self) -> tokio::sync::watch::Receiver<u64>;

    /// Returns when all live nodes know of everything that this node knows of now; else who does
    /// not at the deadline, counted from now.
    async fn spread(&self, deadline: Duration) -> Result<(), Vec<NodeId>>;

    /// Whether this node is the registry's leader now: it alone acts for the cluster.
    fn leads(&self) -> tokio::sync::watch::Receiver<bool>;
}

/// A value and its version.
#[derive(Clone, Debug)]
pub struct VaultEntry {
    /// Grows with each change; never 0.
    pub version: u64,
    /// At most 64 KiB.
    pub value: Arc<Zeroizing<Vec<u8>>>,
}

/// The longest value, in bytes: a chain of certificates and its key take a few thousand.
pub(super) const VAULT_BYTES_MAX: usize = 64 << 10;

/// Which nodes are given a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Audience {
    /// Voters alone.
    Voters,
    /// Every node.
    All,
}

/// Why a value was not put.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VaultError {
    /// Somebody else was faster; the present version, 0 if there is no value.
    #[error("the value has been changed meanwhile: it has version {0}")]
    Conflict(u64),
    /// It is too long.
    #[error("a value in the vault has at most {VAULT_BYTES_MAX} bytes")]
    TooLong,
    /// The registry cannot decide or write now.
    #[error("the registry cannot be changed now: {0}")]
    Unavailable(String),
}
