//! When a leader keeps quiet: when most voters have not followed it for so long that those who still hear it
//! must be free to elect another.
//!
//! openraft lets a leader that has lost most voters lead on, and whoever hears it gives nobody else its
//! vote, though that may be the one that the others need for a majority. That the leader says it decides
//! nothing would not help: openraft itself refuses a vote for as long as the leader speaks. So it is
//! silent, and asks the others as whoever wants to stand does; when most would elect it, it speaks again,
//! for by then nobody else may know enough to be elected. It decides who speaks, never who is elected.

use std::{
    future::pending,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

use super::{
    consensus::{Consensus, ELECTION_TIMEOUT, Situation},
    elections,
    shared::SharedRegistry,
};

/// A leader that is known to decide nothing, or that is new, still has so long to be followed: the slowest
/// answer to its first word takes less.
const GRACE: Duration = ELECTION_TIMEOUT.1;

/// The term in which this node leads and keeps quiet. Another term is another leader, who speaks.
#[derive(Debug, Default)]
pub(super) struct Hush(AtomicU64);

/// No term: they are counted from 1.
const NONE: u64 = 0;

impl Hush {
    /// Whether a leader of this term is to keep quiet.
    pub(super) fn covers(&self, term: u64) -> bool {
        self.0.load(Ordering::Relaxed) == term && term != NONE
    }

    fn begin(&self, term: u64) {
        self.0.store(term, Ordering::Relaxed);
    }

    fn end(&self) {
        self.0.store(NONE, Ordering::Relaxed);
    }
}

/// Sees to it for as long as consensus runs; dropped when it ends.
pub(super) async fn attend(registry: &SharedRegistry, consensus: &Consensus) {
    let mut metrics = consensus.metrics();
    loop {
        let unfollowed = |it: &_| unfollowed_term(&consensus.situation_in(it));
        let term = lasting(&mut metrics, unfollowed).await;
        tracing::info!(
            term,
            "most voters do not follow this leader: it is silent until they would"
        );
        consensus.hush.begin(term);
        while unfollowed_term(&consensus.situation()) == Some(term)
            && !elections::is_wanted(registry, consensus).await
        {
            sleep(elections::pause()).await;
        }
        consensus.hush.end();
    }
}

/// The term that this node leads in without being followed, if so.
fn unfollowed_term(situation: &Situation) -> Option<u64> {
    (situation.leads && !situation.available).then_some(situation.term)
}

/// The term that what is watched has had for as long as is patiently waited.
async fn lasting<T>(watched: &mut watch::Receiver<T>, term_of: impl Fn(&T) -> Option<u64>) -> u64 {
    loop {
        let Ok(begun) = watched.wait_for(|it| term_of(it).is_some()).await.map(|it| term_of(&it))
        else {
            return pending().await; // consensus has ended, and this with it
        };
        let passes = timeout(GRACE, watched.wait_for(|it| term_of(it) != begun)).await;
        if let (Some(term), Err(_)) = (begun, passes.map(drop)) {
            return term;
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use tokio::time::advance;

    use super::*;

    #[test]
    fn who_leads_unfollowed_is_known_by_its_term() {
        let term = |leads, available| {
            unfollowed_term(&Situation { leads, available, term: 7, ..Situation::default() })
        };
        assert_eq!(term(true, false), Some(7));
        assert_eq!((term(true, true), term(false, false), term(false, true)), (None, None, None));
    }

    #[test]
    fn a_leader_of_a_later_term_speaks() {
        let hush = Hush::default();
        assert!(!hush.covers(0) && !hush.covers(1));
        hush.begin(3);
        assert!(hush.covers(3) && !hush.covers(4));
        hush.end();
        assert!(!hush.covers(3));
    }

    #[tokio::test(start_paused = true)]
    async fn a_leader_that_is_followed_again_in_time_is_not_silenced() {
        let (term, mut watched) = watch::channel(Some(2));
        let mut lasts = Box::pin(lasting(&mut watched, |it| *it));
        for change in [None, Some(3), Some(4), None, Some(5)] {
            assert!(lasts.as_mut().now_or_never().is_none());
            advance(GRACE * 3 / 4).await;
            term.send_replace(change);
        }
        assert!(lasts.as_mut().now_or_never().is_none());
        advance(GRACE).await;
        assert_eq!(lasts.now_or_never(), Some(5));
    }
}
