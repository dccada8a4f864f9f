//! How a request is carried out by the node that leads: decided by the log, then answered.

use std::time::Duration;

use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};

use super::{
    KeyInfo, KeyRotation,
    command::{Command, Issued, Outcome, Secret},
    duties,
    proposer::Proposal,
    request::{Answer, Request},
    shared::SharedRegistry,
    store::{Store, StoreError},
};
use crate::{
    AgentId, UnixMillis,
    token::{SigningError, TokenSigner},
};

/// The most agents that are listed or imported at a time.
pub(super) const AGENTS_MAX: usize = 1_000;

/// Why a request was not carried out, or may not have been.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Signing(#[from] SigningError),
    #[error("too many requests wait: try again")]
    Busy,
    #[error("a majority of its voters has not confirmed it in time")]
    Late,
    /// It was proposed, and perhaps decided.
    #[error("{0}")]
    Undecided(String),
    #[error("it is not founded yet")]
    Unfounded,
    #[error("it gave an outcome that fits no command: run the same release on all nodes")]
    Unfit,
}

impl Failure {
    /// Whether what was asked for may have been done all the same, or may be still.
    fn is_unknown(&self) -> bool {
        matches!(self, Self::Late | Self::Undecided(_) | Self::Signing(_) | Self::Unfit)
    }
}

impl SharedRegistry {
    /// Does what is asked, if this node leads; or answers from its own book what any voter can.
    pub(super) async fn carry_out(&self, request: Request, patience: Duration) -> Answer {
        let may_answer = self.decides() || self.keeps_book() && request.is_for_any_voter();
        if !may_answer {
            return Answer::NotLeader(self.followed_leader());
        }
        let done = timeout(patience, self.carry_out_now(request)).await;
        done.unwrap_or(Err(Failure::Late)).unwrap_or_else(|failure| Answer::Unavailable {
            unknown: failure.is_unknown(),
            why: failure.to_string(),
        })
    }

    async fn carry_out_now(&self, request: Request) -> Result<Answer, Failure> {
        let command = match request {
            Request::Register { agent, .. } if agent.is_reserved() => return Ok(Answer::Reserved),
            Request::Register { agent, claim } => {
                Command::Register { agent, claim, expires: self.expiry() }
            }
            Request::Release { agent, claim } => Command::Release { agent, claim },
            Request::Reissue(agent) => Command::Reissue { agent, expires: self.expiry() },
            Request::Revoke(what) => Command::Revoke(what),
            Request::Ban(agent) => Command::Ban(agent),
            Request::Unban(agent) => Command::Unban(agent),
            Request::Import(agents) => Command::Import(agents),
            Request::PutVault { key, expected, value, audience } => {
                Command::PutVault { key, expected, value, audience }
            }
            Request::RotateKey { retire_after_ms } => {
                return self.rotate(Duration::from_millis(retire_after_ms)).await;
            }
            Request::ChangeVoters(change) => {
                let consensus = self.consensus().ok_or(Failure::Unfounded)?;
                match duties::wish(self, &consensus, change) {
                    Ok(command) => command,
                    Err(refused) => return Ok(Answer::Refused(refused.to_string())),
                }
            }
            Request::Agent(agent) => return self.fresh_agent(agent).await,
            Request::Agents { after, limit } => {
                let limit = usize::try_from(limit).unwrap_or(AGENTS_MAX).clamp(1, AGENTS_MAX);
                let page = self.store().aside(move |store| store.agents(after.as_ref(), limit));
                return Ok(Answer::Agents(page.await?));
            }
            Request::Keys => return Ok(Answer::Keys(self.store().aside(Store::keys).await?)),
        };
        match self.decide(command).await? {
            Outcome::Done => Ok(Answer::Done),
            Outcome::Issued(issued) => self.sign(issued).await,
            Outcome::Taken => Ok(Answer::Taken),
            Outcome::Released => Ok(Answer::Released),
            Outcome::UnknownAgent => Ok(Answer::UnknownAgent),
            Outcome::UnknownToken => Ok(Answer::UnknownToken),
            Outcome::Banned => Ok(Answer::Banned),
            Outcome::Imported { added, existing } => {
                Ok(Answer::Imported(super::Imported { added, existing }))
            }
            Outcome::Version(version) => Ok(Answer::Version(version)),
            Outcome::Conflict(version) => Ok(Answer::Conflict(version)),
            Outcome::Unfounded => Err(Failure::Unfounded),
            Outcome::Key(_) | Outcome::Malformed => Err(Failure::Unfit),
        }
    }

    /// Has one command decided. The outcome is durable on a majority of the voters.
    pub(super) async fn decide(&self, command: Command) -> Result<Outcome, Failure> {
        let (outcome, decided) = oneshot::channel();
        self.proposals().try_send(Proposal { command, outcome }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => Failure::Busy,
            mpsc::error::TrySendError::Closed(_) => Failure::Undecided("it has ended".into()),
        })?;
        match decided.await {
            Ok(outcome) => outcome.map_err(|error| Failure::Undecided(error.to_string())),
            Err(_) => Err(Failure::Undecided("consensus has ended here meanwhile".into())),
        }
    }

    /// Signs what was decided. Only voters have the key.
    async fn sign(&self, issued: Issued) -> Result<Answer, Failure> {
        let Issued { agent, serial, issued_at, expires } = issued;
        let signer = self.signer().await.map_err(|error| after_decision(&error))?;
        let signer = signer.ok_or(Failure::Unfit)?;
        let token = signer.issue(&agent, serial, issued_at, expires)?;
        Ok(Answer::Registered { agent, token })
    }

    async fn rotate(&self, retire_after: Duration) -> Result<Answer, Failure> {
        let secret = Secret(TokenSigner::generate().secret());
        let retires_at = self.now().plus(retire_after);
        let Outcome::Key(signs) = self.decide(Command::AddKey { secret, retires_at }).await? else {
            return Err(Failure::Unfit);
        };
        let keys = self.store().aside(Store::keys).await.map_err(|error| after_decision(&error))?;
        let signs = keys.iter().find(|key| key.id == signs);
        let before = |key: &&KeyInfo| signs.is_some_and(|signs| key.id < signs.id);
        let retires = keys.iter().filter(before).max_by_key(|key| key.id);
        match (signs.cloned(), retires.cloned()) {
            (Some(signs), Some(retires)) => Ok(Answer::Rotated(KeyRotation { signs, retires })),
            _ => Err(Failure::Unfit),
        }
    }

    /// What is known of an agent once all that was decided before is applied here.
    async fn fresh_agent(&self, agent: AgentId) -> Result<Answer, Failure> {
        let consensus = self.consensus().ok_or(Failure::Unfounded)?;
        match consensus.ensure_linearizable().await {
            Ok(()) => {
                let record = self.store().aside(move |store| store.agent(&agent)).await?;
                Ok(Answer::Agent(record))
            }
            Err(super::consensus::ConsensusError::NotLeader(leader)) => {
                Ok(Answer::NotLeader(leader))
            }
            Err(error) => Err(Failure::Undecided(error.to_string())),
        }
    }

    fn expiry(&self) -> Option<UnixMillis> {
        self.token_ttl().map(|ttl| self.now().plus(ttl))
    }
}

/// The book cannot be read any more, but what was asked for has been done.
fn after_decision(error: &StoreError) -> Failure {
    Failure::Undecided(error.to_string())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a failed unwrap is a failed test
mod tests {
    use std::sync::Arc;

    use tokio::{runtime, task::JoinSet};

    use super::{
        super::{
            AtRest,
            testing::{NOW, Running, TestClock},
        },
        *,
    };
    use crate::{test_disk::TestDisk, token::Serial};

    /// Longer than it takes on any machine.
    const PATIENCE: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn what_was_decided_and_cannot_be_signed_may_have_been_done() {
        let (dir, disk) = (tempfile::tempdir().unwrap(), TestDisk::default());
        let at_rest = AtRest::open(dir.path(), None, None).unwrap();
        let settings = TestClock::new().settings(at_rest, None);
        let registry = SharedRegistry::open_source(disk, dir.path(), false, settings).unwrap();
        let running = Running::alone(registry).await;
        running.store().close().await;
        let agent = "abc".parse().unwrap();
        let issued = Issued { agent, serial: Serial(1), issued_at: NOW, expires: None };
        let failure = running.sign(issued).await.unwrap_err();
        assert!(failure.is_unknown(), "{failure:?}");
    }

    #[test]
    fn what_reads_a_disk_that_hangs_holds_no_thread_of_the_runtime() {
        let runtime = runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.unwrap();
        let dir = tempfile::tempdir().unwrap();
        let disk = TestDisk::uncached();
        let at_rest = AtRest::open(dir.path(), None, None).unwrap();
        let settings = TestClock::new().settings(at_rest, None);
        let registry =
            SharedRegistry::open_source(disk.clone(), dir.path(), false, settings).unwrap();
        let running = runtime.block_on(Running::alone(registry));
        let held = disk.hangs.lock();
        let mut reading = JoinSet::new();
        let read = |request| {
            let registry = Arc::clone(&running.registry);
            async move { registry.carry_out(request, PATIENCE).await }
        };
        let requests = [
            Request::Agents { after: None, limit: 1_000 },
            Request::Agent("abc".parse().unwrap()),
            Request::Keys,
        ];
        for request in requests {
            reading.spawn_on(read(request), runtime.handle());
        }
        let (free, is_free) = std::sync::mpsc::sync_channel(1);
        runtime.spawn(async move { free.send(()) });
        is_free.recv_timeout(PATIENCE).expect("the runtime's only thread waits for the disk");
        assert!(reading.try_join_next().is_none(), "nothing is read from the disk");
        drop(held);
        let answers = runtime.block_on(reading.join_all());
        let is_read = |answer: &Answer| {
            matches!(answer, Answer::Agents(_) | Answer::Agent(None) | Answer::Keys(_))
        };
        assert!(answers.iter().all(is_read), "{answers:?}");
        runtime.block_on(running.stop());
    }
}
