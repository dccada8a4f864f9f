//! All followers' records, and the digest of them, which is kept with each change: of a million records
//! it takes a third of a second to make, for which every agent that comes or goes would have to wait. Pure.

use std::{collections::BTreeMap, ops::Deref};

use cluster::AgentId;

use super::record::Following;

/// The parts of a digest.
pub(super) const BUCKETS: usize = 256;

/// The records, in the order of names, in which other nodes are told of them a few at a time.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Records {
    all: BTreeMap<AgentId, Following>,
    digest: [u64; BUCKETS],
}

impl Default for Records {
    fn default() -> Self {
        Self { all: BTreeMap::new(), digest: [0; BUCKETS] }
    }
}

impl Deref for Records {
    type Target = BTreeMap<AgentId, Following>;

    fn deref(&self) -> &Self::Target {
        &self.all
    }
}

impl Records {
    /// For each bucket the sum of its records' fingerprints.
    pub(super) fn digest(&self) -> &[u64; BUCKETS] {
        &self.digest
    }

    /// Enters a record, in place of the follower's former one.
    pub(super) fn insert(&mut self, follower: &AgentId, following: Following) {
        self.remove(follower);
        add(&mut self.digest, follower, &following);
        self.all.insert(follower.clone(), following);
    }

    /// Removes the follower's record.
    pub(super) fn remove(&mut self, follower: &AgentId) -> Option<Following> {
        let following = self.all.remove(follower)?;
        subtract(&mut self.digest, follower, &following);
        Some(following)
    }

    /// Changes the follower's record; none if there is none.
    pub(super) fn change<T>(
        &mut self,
        follower: &AgentId,
        change: impl FnOnce(&mut Following) -> T,
    ) -> Option<T> {
        let following = self.all.get_mut(follower)?;
        subtract(&mut self.digest, follower, following);
        let changed = change(following);
        add(&mut self.digest, follower, following);
        Some(changed)
    }

    /// Changes the records of which `is_meant` is true.
    pub(super) fn change_all(
        &mut self,
        is_meant: impl Fn(&Following) -> bool,
        change: impl Fn(&mut Following),
    ) {
        for (follower, following) in self.all.iter_mut().filter(|(_, it)| is_meant(it)) {
            subtract(&mut self.digest, follower, following);
            change(following);
            add(&mut self.digest, follower, following);
        }
    }
}

fn add(digest: &mut [u64; BUCKETS], follower: &AgentId, following: &Following) {
    let (bucket, hash) = following.fingerprint(follower);
    let sum = &mut digest[usize::from(bucket)];
    *sum = sum.wrapping_add(hash);
}

fn subtract(digest: &mut [u64; BUCKETS], follower: &AgentId, following: &Following) {
    let (bucket, hash) = following.fingerprint(follower);
    let sum = &mut digest[usize::from(bucket)];
    *sum = sum.wrapping_sub(hash);
}
