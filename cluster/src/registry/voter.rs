//! The node that keeps the mesh's book of names, as the other nodes reach it.

use std::{cmp::Reverse, sync::Arc};

use super::{LocalRegistry, Registry, remote};
use crate::NodeId;

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

    /// Whether this node is the one to stop, if `other` tells news of its own: two voters would give
    /// one name twice. The one with fewer names does, or, with as many, the one with the higher id.
    pub fn gives_way(&self, other: NodeId, news: &[u8]) -> bool {
        let own = self.registry.incarnation().node;
        remote::from_bytes::<remote::View>(news).is_some_and(|theirs| {
            (self.registered_agents(), Reverse(own)) < (theirs.registered, Reverse(other))
        })
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

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a failed unwrap is a failed test
mod tests {
    use super::*;
    use crate::{
        UnixMillis,
        registry::{Claim, Options},
    };

    #[tokio::test]
    async fn of_two_voters_one_gives_way() {
        let dirs = [(); 2].map(|()| tempfile::tempdir().unwrap());
        let voter = |dir: &tempfile::TempDir| {
            let options = Options { token_ttl: None, now: Arc::new(|| UnixMillis(1)) };
            let registry = LocalRegistry::open(dir.path(), options).unwrap();
            (registry.incarnation().node, Voter::new(Arc::new(registry)))
        };
        let ((a, one), (b, other)) = (voter(&dirs[0]), voter(&dirs[1]));
        assert_eq!(one.gives_way(b, &other.news()), a > b);
        assert_eq!(other.gives_way(a, &one.news()), b > a);
        one.registry.register(None, Claim::random()).await.unwrap();
        assert!(!one.gives_way(b, &other.news()), "it has given a name");
        assert!(other.gives_way(a, &one.news()));
        assert!(!one.gives_way(b, b"junk"));
    }
}
