//! Group commit: what waits to be decided becomes one entry of the log.
//!
//! Two entries at most are on their way at a time; what comes meanwhile shares the next. So a thousand
//! claims cost a few writes to the disks, and one that comes alone waits for nobody.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use futures_util::{StreamExt, stream::FuturesUnordered};
use tokio::{
    sync::{mpsc, oneshot},
    time::sleep,
};

use super::{
    command::{Batch, Command, Outcome},
    consensus::{self, Consensus, ConsensusError, Decided},
};
use crate::{AgentId, UnixMillis};

/// How many commands may wait: 16 full entries, a megabyte of registrations.
pub(super) const QUEUE_MAX: usize = 4_096;

/// The most commands of one entry.
const BATCH_MAX: usize = 256;

/// An entry with more than one command has about so many bytes at most.
const BATCH_BYTES_MAX: usize = 512 << 10;

/// Entries on their way at a time.
const FLYING_MAX: usize = 2;

/// Nobody waits longer than this for what comes of a command.
const PATIENCE: Duration = Duration::from_secs(2);

/// A command, and who waits for what comes of it.
pub(super) struct Proposal {
    pub(super) command: Command,
    pub(super) outcome: oneshot::Sender<Result<Outcome, Undecided>>,
}

/// A command whose outcome this node does not know.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Undecided(pub(super) String);

/// Proposes what comes out of `queue` for as long as this is polled. Whoever waits for the outcome of
/// what is on its way when this is dropped learns that it is not known.
pub(super) async fn run(
    consensus: &Consensus,
    queue: &mut mpsc::Receiver<Proposal>,
    now: &Arc<dyn Fn() -> UnixMillis + Send + Sync>,
) {
    let (mut waiting, mut fresh) = (VecDeque::new(), Vec::with_capacity(BATCH_MAX));
    let mut flying = FuturesUnordered::new();
    loop {
        // Who does not wait any more would never learn the token of the name that it took.
        waiting.retain(|proposal: &Proposal| !proposal.outcome.is_closed());
        while flying.len() < FLYING_MAX && !waiting.is_empty() {
            let (commands, outcomes) = next_batch(&mut waiting);
            let decided = consensus.propose(Batch { time: now(), commands }).await;
            flying.push(settle(outcomes_of(decided), consensus.deposed(), outcomes));
        }
        let room = BATCH_MAX.saturating_sub(waiting.len());
        tokio::select! {
            Some(()) = flying.next(), if !flying.is_empty() => {}
            count = queue.recv_many(&mut fresh, room), if room > 0 => if count == 0 {
                return std::future::pending().await; // whoever could ask is gone
            }
        }
        waiting.extend(fresh.drain(..));
    }
}

type Outcomes = Vec<oneshot::Sender<Result<Outcome, Undecided>>>;

/// The first of those that wait, as many as fit.
fn next_batch(waiting: &mut VecDeque<Proposal>) -> (Vec<Command>, Outcomes) {
    let (mut commands, mut outcomes, mut bytes) = (Vec::new(), Vec::new(), 0);
    while let Some(proposal) = waiting.front() {
        bytes += weight(&proposal.command);
        if commands.len() == BATCH_MAX || !commands.is_empty() && bytes > BATCH_BYTES_MAX {
            break;
        }
        if let Some(Proposal { command, outcome }) = waiting.pop_front() {
            commands.push(command);
            outcomes.push(outcome);
        }
    }
    (commands, outcomes)
}

/// About how many bytes a command takes.
fn weight(command: &Command) -> usize {
    /// The rest of any command.
    const REST: usize = 128;
    REST + match command {
        Command::Import(agents) => agents.iter().map(|agent: &AgentId| agent.as_str().len()).sum(),
        Command::PutVault { value: Some(value), .. } => value.0.len(),
        _ => 0,
    }
}

async fn outcomes_of(
    decided: Result<Decided, ConsensusError>,
) -> Result<Vec<Outcome>, ConsensusError> {
    consensus::outcomes(decided?).await
}

/// Tells everybody what came of a batch. Of one that another leader had decided, and that came back to this
/// node in a snapshot, openraft tells nothing, ever.
async fn settle(
    decided: impl Future<Output = Result<Vec<Outcome>, ConsensusError>>,
    deposed: impl Future<Output = ()>,
    waiting: Outcomes,
) {
    let forgotten = async {
        deposed.await;
        sleep(PATIENCE).await;
        Err(ConsensusError::NotLeader(None))
    };
    let outcomes = tokio::select! {
        outcomes = decided => outcomes,
        outcomes = forgotten => outcomes,
    };
    // An error in sending means that nobody waits any more.
    match outcomes {
        Ok(outcomes) => {
            for (waits, outcome) in waiting.into_iter().zip(outcomes) {
                let _ = waits.send(Ok(outcome));
            }
        }
        Err(error) => {
            for waits in waiting {
                let _ = waits.send(Err(Undecided(error.to_string())));
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a failed unwrap is a failed test
mod tests {
    use std::future::pending;

    use futures_util::FutureExt;
    use tokio::time::advance;

    use super::*;
    use crate::registry::command::{Audience, Secret};

    fn waiting(commands: impl IntoIterator<Item = Command>) -> VecDeque<Proposal> {
        let proposal = |command| Proposal { command, outcome: oneshot::channel().0 };
        commands.into_iter().map(proposal).collect()
    }

    fn value(bytes: usize) -> Command {
        let value = Some(Secret(zeroize::Zeroizing::new(vec![0; bytes])));
        Command::PutVault { key: "key".into(), expected: 0, value, audience: Audience::All }
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_led_does_not_wait_for_ever_for_what_another_may_have_decided() {
        let (outcome, mut waits) = oneshot::channel();
        let (depose, deposed) = oneshot::channel::<()>();
        let deposed = async { drop(deposed.await) };
        let mut settles = Box::pin(settle(pending(), deposed, vec![outcome]));
        assert!(settles.as_mut().now_or_never().is_none());
        advance(PATIENCE * 10).await;
        assert!(settles.as_mut().now_or_never().is_none(), "it leads");
        depose.send(()).unwrap();
        assert!(settles.as_mut().now_or_never().is_none(), "it may hear of it still");
        advance(PATIENCE).await;
        assert!(settles.now_or_never().is_some());
        assert!(matches!(waits.try_recv(), Ok(Err(Undecided(_)))));
    }

    #[test]
    fn a_batch_is_full_by_commands_or_by_bytes() {
        let ban = || Command::Ban("abc".parse().unwrap());
        let mut many = waiting((0..300).map(|_| ban()));
        assert_eq!(next_batch(&mut many).0.len(), BATCH_MAX);
        assert_eq!(next_batch(&mut many).0.len(), 300 - BATCH_MAX);

        let mut long = waiting((0..20).map(|_| value(60 << 10)));
        assert_eq!(next_batch(&mut long).0.len(), 8);
        let mut longest = waiting([value(BATCH_BYTES_MAX), ban()]);
        assert_eq!(next_batch(&mut longest).0.len(), 1, "one alone is always taken");
        assert_eq!(next_batch(&mut longest).0.len(), 1);
    }
}
