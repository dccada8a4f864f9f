//! When a voter stands for election: when most voters would elect it, for they hear no leader either, and
//! none of them knows more of the log.
//!
//! openraft has a voter that hears no leader raise the term again and again. One that was cut off would
//! come back with a term that unseats the leader whom most others follow: until the next election nobody
//! could decide anything, or learn what was decided last. So openraft holds no elections by itself, and
//! this asks the others first, as Raft's inventor proposes (Ongaro's thesis, 9.6). It decides who stands,
//! never who is elected: no promise of consensus hangs on it.

use std::{collections::BTreeSet, time::Duration};

use futures_util::{StreamExt, stream::FuturesUnordered};
use tokio::{
    sync::{Notify, watch},
    time::{sleep, timeout},
};

use super::{
    consensus::{Consensus, ELECTION_TIMEOUT},
    message::{self, Question},
    raft::LogId,
    shared::SharedRegistry,
};
use crate::NodeId;

/// A leader that has not spoken for so long is heard no more: its lease has run out, and voters vote for
/// another.
const LEASE: Duration = ELECTION_TIMEOUT.1;

/// Who hears no leader asks the others after a random time up to this, that not all stand at once...
const PAUSE_MAX: Duration = Duration::from_millis(500);

/// ...and waits for their word, or as a candidate for their votes, for so long.
const PATIENCE: Duration = ELECTION_TIMEOUT.0;

/// Whether this node hears a leader.
#[derive(Debug, Default)]
pub(super) struct Hearing {
    spoke: Notify,
    hears: watch::Sender<bool>,
}

impl Hearing {
    /// A leader spoke, and this node's raft follows it.
    pub(super) fn spoke(&self) {
        self.spoke.notify_one();
    }

    pub(super) fn hears_leader(&self) -> bool {
        *self.hears.borrow()
    }

    pub(super) fn watch(&self) -> watch::Receiver<bool> {
        self.hears.subscribe()
    }

    /// Returns when the leader has been silent for too long.
    async fn silence(&self) {
        while timeout(LEASE, self.spoke.notified()).await.is_ok() {}
    }

    fn set(&self, hears: bool) {
        self.hears.send_if_modified(|it| std::mem::replace(it, hears) != hears);
    }
}

/// Sees to it for as long as consensus runs; dropped when it ends.
pub(super) async fn attend(registry: &SharedRegistry, consensus: &Consensus) {
    loop {
        tokio::select! {
            () = consensus.hearing.spoke.notified() => {}
            () = stand_when_wanted(registry, consensus) => {}
        }
        consensus.hearing.set(true);
        consensus.hearing.silence().await;
        consensus.hearing.set(false);
    }
}

/// Whether this node would elect another whose log ends so.
pub(super) fn would_elect(
    registry: &SharedRegistry,
    consensus: &Consensus,
    last: Option<LogId>,
) -> bool {
    let has_leader = registry.decides() || consensus.hearing.hears_leader();
    !has_leader && consensus.last_log() <= last
}

/// Stands for election whenever most voters want it, without end.
async fn stand_when_wanted(registry: &SharedRegistry, consensus: &Consensus) {
    loop {
        sleep(pause()).await;
        let situation = consensus.situation();
        let may_stand = situation.votes(registry.identity().node) && !situation.leads;
        // A term that has begun meanwhile is another's, which this node may have voted for.
        let is_free = || consensus.situation().term == situation.term;
        if may_stand && is_wanted(registry, consensus).await && is_free() {
            consensus.stand().await;
            sleep(PATIENCE).await;
        }
    }
}

/// How long whoever wants to lead waits before it asks the others once more.
pub(super) fn pause() -> Duration {
    rand::random_range(Duration::ZERO..PAUSE_MAX)
}

/// Whether most of the voters, this node among them, would elect it.
pub(super) async fn is_wanted(registry: &SharedRegistry, consensus: &Consensus) -> bool {
    let (me, electorates) = (registry.identity().node, consensus.electorates());
    let Some(carry) = &registry.place().carry else { return true };
    let question = message::to_bytes(&Question::WouldElect(consensus.last_log()));
    let ask = async |voter: NodeId| {
        let answer = carry.ask(voter, question.clone(), PATIENCE).await?;
        message::from_bytes::<bool>(&answer)?.then_some(voter)
    };
    let others: BTreeSet<_> = electorates.iter().flatten().filter(|it| **it != me).collect();
    let mut answers: FuturesUnordered<_> = others.into_iter().map(|voter| ask(*voter)).collect();
    let mut want = BTreeSet::from([me]);
    while !electorates.iter().all(|voters| are_most(&want, voters)) {
        match answers.next().await {
            Some(voter) => want.extend(voter),
            None => return false,
        }
    }
    true
}

fn are_most(these: &BTreeSet<NodeId>, of: &BTreeSet<NodeId>) -> bool {
    2 * these.intersection(of).count() > of.len()
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use tokio::time::advance;

    use super::*;

    fn nodes<const N: usize>(ids: [u64; N]) -> BTreeSet<NodeId> {
        ids.into_iter().map(NodeId).collect()
    }

    #[test]
    fn most_are_more_than_half() {
        let of = nodes([1, 2, 3, 4]);
        assert!(!are_most(&nodes([1, 2, 7, 8]), &of));
        assert!(are_most(&nodes([1, 2, 3]), &of));
    }

    #[tokio::test(start_paused = true)]
    async fn a_leader_is_heard_for_as_long_as_its_lease_lasts() {
        let hearing = Hearing::default();
        let mut silence = Box::pin(hearing.silence());
        for _ in 0..5 {
            assert!(silence.as_mut().now_or_never().is_none());
            advance(LEASE / 2).await;
            hearing.spoke();
        }
        assert!(silence.as_mut().now_or_never().is_none());
        advance(LEASE).await;
        assert!(silence.now_or_never().is_some());
    }
}
