//! Names that may have been taken for somebody who was told that they are not.
//!
//! Whoever begins an attempt to take a name has a place here until its outcome is known. An attempt
//! that ends otherwise, by a deadline or because whoever waited went away, leaves the name here, to be given
//! back as soon as there is a leader. So no name stays taken with nobody holding its token.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use super::Claim;
use crate::AgentId;

/// How many attempts there may be at a time, those included whose names are to be given back.
const PLACES: usize = 4_096;

/// The names that are to be given back.
#[derive(Debug)]
pub(super) struct Releases {
    places: Arc<Semaphore>,
    pending: Arc<Pending>,
}

#[derive(Debug, Default)]
struct Pending {
    names: Mutex<Vec<Name>>,
    added: Notify,
}

/// A name that may have been taken, and its place.
#[derive(Debug)]
struct Name {
    agent: AgentId,
    claim: Claim,
    /// Given back with it.
    _place: OwnedSemaphorePermit,
}

/// An attempt to take a name; dropped before it is settled, it leaves the name to be given back.
pub(super) struct Attempt {
    name: Option<Name>,
    pending: Arc<Pending>,
}

impl Releases {
    pub(super) fn new() -> Self {
        Self { places: Arc::new(Semaphore::new(PLACES)), pending: Arc::default() }
    }

    /// Begins an attempt; none if there are too many.
    pub(super) fn attempt(&self, agent: AgentId, claim: Claim) -> Option<Attempt> {
        let place = Arc::clone(&self.places).try_acquire_owned().ok()?;
        let name = Some(Name { agent, claim, _place: place });
        Some(Attempt { name, pending: Arc::clone(&self.pending) })
    }

    /// All that are to be given back, once there is one. They are until they
    /// [are](Self::given_back).
    pub(super) async fn pending(&self) -> Vec<(AgentId, Claim)> {
        loop {
            let added = self.pending.added.notified();
            let names = self.names();
            if !names.is_empty() {
                return names;
            }
            added.await;
        }
    }

    /// It is nobody's now, or somebody else's.
    pub(super) fn given_back(&self, claim: &Claim) {
        self.pending.names.lock().retain(|name| name.claim != *claim);
    }

    /// The names that are still to be given back.
    pub(super) fn names(&self) -> Vec<(AgentId, Claim)> {
        let names = self.pending.names.lock();
        names.iter().map(|name| (name.agent.clone(), name.claim)).collect()
    }
}

impl Attempt {
    /// The outcome is known, or whoever wants the name comes again for it.
    pub(super) fn settled(mut self) {
        self.name = None;
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        if let Some(name) = self.name.take() {
            self.pending.names.lock().push(name);
            self.pending.added.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn attempt(releases: &Releases) -> Option<Attempt> {
        releases.attempt("abc".parse().unwrap(), Claim::random())
    }

    #[test]
    fn only_what_is_not_settled_is_given_back() {
        let releases = Releases::new();
        attempt(&releases).unwrap().settled();
        assert!(releases.pending().now_or_never().is_none());
        drop(attempt(&releases));
        let names = releases.pending().now_or_never().unwrap();
        assert_eq!(names.len(), 1);
        releases.given_back(&Claim::random());
        assert_eq!(releases.names(), names);
        releases.given_back(&names[0].1);
        assert!(releases.names().is_empty());
    }

    #[test]
    fn who_finds_no_place_begins_no_attempt() {
        let releases = Releases::new();
        let attempts: Vec<_> = (0..PLACES).map(|_| attempt(&releases).unwrap()).collect();
        assert!(attempt(&releases).is_none());
        drop(attempts);
        assert!(attempt(&releases).is_none(), "the names are to be given back first");
        releases.given_back(&releases.names()[0].1);
        assert!(attempt(&releases).is_some());
    }
}
