//! When a voter may stand for election: only while most voters say that they hear no leader either.
//!
//! openraft has a voter that hears no leader raise the term again and again. One that was cut off would
//! come back with a term that unseats the leader whom most others follow: until the next election nobody
//! could decide anything, or learn what was decided last. So openraft may hold elections only when this
//! says so. It decides who stands, never who is elected: no promise of consensus hangs on it.

use std::{collections::BTreeSet, time::Duration};

use futures_util::{StreamExt, stream::FuturesUnordered};
use tokio::{
    sync::{Notify, watch},
    time::{sleep, timeout},
};

use super::{
    consensus::{Consensus, ELECTION},
    message::{self, Question},
    shared::SharedRegistry,
};
use crate::NodeId;

/// A leader that has not spoken for so long is heard no more: its lease has run out, and voters may vote
/// for another. openraft's patience lasts half a second longer, in which the others are asked: an election
/// comes as soon as it would.
const LEASE: Duration = ELECTION.1;

/// Who hears no leader asks the others so often, and waits so long for their word.
const ASK_EVERY: Duration = Duration::from_millis(100);
const ASK_PATIENCE: Duration = Duration::from_millis(500);

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
            () = stand_when_leaderless(registry, consensus) => {}
        }
        consensus.let_stand(false);
        consensus.hearing.set(true);
        consensus.hearing.silence().await;
        consensus.hearing.set(false);
    }
}

/// Lets this node stand whenever most voters hear no leader, without end.
async fn stand_when_leaderless(registry: &SharedRegistry, consensus: &Consensus) {
    loop {
        let situation = consensus.situation();
        let may_stand = !situation.leads
            && situation.votes(registry.identity().node)
            && are_leaderless(registry, &consensus.electorates()).await;
        consensus.let_stand(may_stand);
        sleep(ASK_EVERY).await;
    }
}

/// Whether most of each of these voters, this node among them, say that they hear no leader.
async fn are_leaderless(registry: &SharedRegistry, electorates: &[BTreeSet<NodeId>]) -> bool {
    let me = registry.identity().node;
    let Some(carry) = &registry.place().carry else { return true };
    let question = message::to_bytes(&Question::Leaderless);
    let ask = async |voter: NodeId| {
        let answer = carry.ask(voter, question.clone(), ASK_PATIENCE).await?;
        message::from_bytes::<bool>(&answer)?.then_some(voter)
    };
    let others: BTreeSet<_> = electorates.iter().flatten().filter(|it| **it != me).collect();
    let mut answers: FuturesUnordered<_> = others.into_iter().map(|voter| ask(*voter)).collect();
    let mut leaderless = BTreeSet::from([me]);
    while !electorates.iter().all(|voters| are_most(&leaderless, voters)) {
        match answers.next().await {
            Some(voter) => leaderless.extend(voter),
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
