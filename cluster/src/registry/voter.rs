//! The node that keeps the mesh's book of names, as the other nodes reach it.

use std::sync::Arc;

use super::{LocalRegistry, Registry, remote};

/// Answers observers, and has news for them. The mesh has one voter: the first of the seeds.
#[derive(Clone, Debug)]
pub struct Voter {
    registry: Arc<LocalRegistry>,
}

impl Voter {
    /// The voter that keeps its names in `registry`.
    pub fn new(registry: Arc<LocalRegistry>) -> Self {
        Self { registry }
    }

    /// Answers what an observer asked. Bytes that are no request are answered by none.
    pub async fn answer(&self, request: &[u8]) -> Vec<u8> {
        match remote::from_bytes(request) {
            Some(request) => remote::to_bytes(&remote::answer(&self.registry, request).await),
            None => remote::to_bytes(&remote::Answer::Unavailable(
                "its voter does not know this request: run the same release on all nodes".into(),
            )),
        }
    }

    /// All that observers keep, for one that was linked just now and whenever
    /// [`changes`](Self::changes) says so.
    pub fn news(&self) -> Vec<u8> {
        remote::to_bytes(&remote::View::of(&self.registry))
    }

    /// Changes whenever something was revoked, which observers are to know at once.
    pub fn changes(&self) -> tokio::sync::watch::Receiver<u64> {
        self.registry.revocations()
    }

    /// How many names there are; observers learn it now and then.
    pub fn registered_agents(&self) -> u64 {
        self.registry.registered_agents()
    }
}
