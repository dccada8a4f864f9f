//! The consensus on the registry's log: openraft, as this registry uses it.
//!
//! Owns the running raft of a node and what other nodes' rafts ask of it. Who is to take part, it
//! does not decide: it does as it is told, and says how things stand.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
    time::Duration,
};

use openraft::{
    ChangeMembers, Config, Raft, RaftMetrics, ServerState, SnapshotPolicy,
    error::{ClientWriteError, RaftError},
    storage::{RaftLogStorage, RaftStateMachine},
};
use tokio::sync::watch;

use super::{
    Carry,
    command::{Batch, Outcome},
    elections::Hearing,
    network::{Network, Receiving},
    quiet::Hush,
    raft::{LogId, StorageError, TypeConfig, Vote, VoterAddress},
};
use crate::NodeId;

/// How often a leader is heard of.
const HEARTBEAT: Duration = Duration::from_millis(150);

/// How long an election lasts, and for how long a leader that was heard of is believed to lead.
pub(super) const ELECTION_TIMEOUT: (Duration, Duration) =
    (Duration::from_millis(500), Duration::from_secs(1));

/// A leader that has not heard of a quorum for so long decides nothing.
pub(super) const QUORUM_PATIENCE: Duration = Duration::from_millis(1_500);

/// How much of the log is kept.
#[derive(Clone, Copy, Debug)]
pub(super) struct LogLimits {
    /// Entries between two snapshots.
    pub(super) snapshot_every: u64,
    /// Entries that are kept behind a snapshot for voters that lag.
    pub(super) kept: u64,
}

impl Default for LogLimits {
    fn default() -> Self {
        Self { snapshot_every: 10_000, kept: 1_000 }
    }
}

/// Entries that are sent to a voter at a time, at most; their bytes have a limit of their own.
const ENTRIES_PER_MESSAGE: u64 = 64;

/// How long one piece of a snapshot, or its installation, may take.
const SNAPSHOT_PATIENCE: Duration = Duration::from_secs(10);

/// Why consensus did not do as told.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConsensusError {
    /// Another node leads, or nobody.
    #[error("this node does not lead the registry")]
    NotLeader(Option<NodeId>),
    /// What was asked for cannot be done now, and nothing has happened.
    #[error("{0}")]
    Refused(String),
    /// It has ended, for the disk failed or the node stops.
    #[error("the registry's consensus has ended here: {0}")]
    Ended(String),
}

/// How things stand, as this node knows it.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(super) struct Situation {
    pub(super) leader: Option<NodeId>,
    /// Whether this node leads.
    pub(super) leads: bool,
    /// Whether a quorum follows, if this node leads; else whether there is a leader.
    pub(super) available: bool,
    pub(super) term: u64,
    /// The last entry in this node's log, and the last that it applied; 0: none.
    pub(super) last: u64,
    pub(super) applied: u64,
    /// The last entries that are in the snapshot, and that the log has no more; 0: none.
    pub(super) snapshot: u64,
    pub(super) purged: u64,
    pub(super) members: BTreeMap<NodeId, Member>,
    /// Whether a change of voters is under way: decisions need a quorum of both sets.
    pub(super) joint: bool,
    /// Why it has ended.
    pub(super) ended: Option<String>,
}

/// A node that is given the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Member {
    pub(super) address: VoterAddress,
    /// Whether it decides with the others.
    pub(super) votes: bool,
    /// How many entries it is behind; known only to a leader that most follow.
    pub(super) lag: Option<u64>,
}

/// A node's part in the consensus, running.
pub(super) struct Consensus {
    me: NodeId,
    raft: Raft<TypeConfig>,
    pub(super) receiving: Receiving,
    pub(super) hearing: Hearing,
    pub(super) hush: Arc<Hush>,
}

/// Where the outcome of a proposed batch comes.
pub(super) type Decided =
    <openraft::impls::OneshotResponder<TypeConfig> as openraft::raft::responder::Responder<
        TypeConfig,
    >>::Receiver;

impl Consensus {
    /// Starts with what is stored; a node with an empty store waits to be let in, or
    /// [initialized](Self::initialize).
    pub(super) async fn start<L, M>(
        me: NodeId,
        mut log: L,
        machine: M,
        carry: Arc<dyn Carry>,
        limits: LogLimits,
    ) -> Result<Self, ConsensusError>
    where
        L: RaftLogStorage<TypeConfig>,
        M: RaftStateMachine<TypeConfig>,
    {
        let ended = |error: &dyn fmt::Display| ConsensusError::Ended(error.to_string());
        step_down(me, &mut log).await.map_err(|error| ended(&error))?;
        let hush = Arc::<Hush>::default();
        let network = Network::new(me, carry, Arc::clone(&hush));
        let raft = Raft::new(me.0, Arc::new(config(limits)), network, log, machine).await;
        let raft = raft.map_err(|error| ended(&error))?;
        let alone = raft.with_raft_state(move |state| {
            state.membership_state.effective().voter_ids().eq([me.0])
        });
        // There is nobody to wait for.
        if alone.await.map_err(|error| ended(&error))? {
            raft.trigger().elect().await.map_err(|error| ended(&error))?;
        }
        let (receiving, hearing) = (Receiving::default(), Hearing::default());
        Ok(Self { me, raft, receiving, hearing, hush })
    }

    /// Makes these the first voters. For an empty store only, and one node of them: whoever else
    /// does it with others makes a second registry.
    pub(super) async fn initialize(
        &self,
        voters: BTreeMap<NodeId, VoterAddress>,
    ) -> Result<(), ConsensusError> {
        let voters: BTreeMap<u64, VoterAddress> =
            voters.into_iter().map(|(node, address)| (node.0, address)).collect();
        self.raft.initialize(voters).await.map_err(|error| match error {
            RaftError::APIError(error) => ConsensusError::Refused(error.to_string()),
            RaftError::Fatal(error) => ConsensusError::Ended(error.to_string()),
        })
    }

    /// Gives the log to one more node, which does not vote. Done when that is decided.
    pub(super) async fn add_learner(
        &self,
        node: NodeId,
        address: VoterAddress,
    ) -> Result<(), ConsensusError> {
        self.change(ChangeMembers::AddNodes([(node.0, address)].into())).await
    }

    /// Knows a node that is given the log by another address from now on.
    pub(super) async fn rename(
        &self,
        node: NodeId,
        address: VoterAddress,
    ) -> Result<(), ConsensusError> {
        // The addresses are for people: nodes are reached by their ids.
        self.change(ChangeMembers::SetNodes([(node.0, address)].into())).await
    }

    /// The voters that a change was to end with that was broken off in its middle.
    pub(super) fn unfinished(&self) -> Option<BTreeSet<NodeId>> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow();
        match metrics.membership_config.membership().get_joint_config().as_slice() {
            [_, .., last] => Some(last.iter().copied().map(NodeId).collect()),
            _ => None,
        }
    }

    /// Gives the log to a learner no longer.
    pub(super) async fn remove_learner(&self, node: NodeId) -> Result<(), ConsensusError> {
        self.change(ChangeMembers::RemoveNodes([node.0].into())).await
    }

    /// Makes these learners and voters the voters, and no others; who voted is given the log no
    /// longer. Done when a quorum of the new ones has decided so.
    pub(super) async fn change_voters(
        &self,
        voters: BTreeSet<NodeId>,
    ) -> Result<(), ConsensusError> {
        let voters = voters.into_iter().map(|node| node.0).collect();
        self.change(ChangeMembers::ReplaceAllVoters(voters)).await
    }

    async fn change(&self, change: ChangeMembers<u64, VoterAddress>) -> Result<(), ConsensusError> {
        let retain = false;
        self.raft.change_membership(change, retain).await.map(drop).map_err(|error| match error {
            RaftError::APIError(error) => error.into(),
            RaftError::Fatal(error) => ConsensusError::Ended(error.to_string()),
        })
    }

    /// Has a batch decided; its outcomes come later, or an error that says nothing of the outcome.
    pub(super) async fn propose(&self, batch: Batch) -> Result<Decided, ConsensusError> {
        let decided = self.raft.client_write_ff(batch).await;
        decided.map_err(|error| ConsensusError::Ended(error.to_string()))
    }

    /// Returns when this node leads for certain, and has applied all that was decided before now.
    pub(super) async fn ensure_linearizable(&self) -> Result<(), ConsensusError> {
        self.raft.ensure_linearizable().await.map(drop).map_err(|error| {
            error.forward_to_leader().map_or_else(
                || ConsensusError::Refused(error.to_string()),
                |to| ConsensusError::NotLeader(to.leader_id.map(NodeId)),
            )
        })
    }

    /// The raft itself, for what other nodes' rafts ask of it.
    pub(super) fn raft(&self) -> &Raft<TypeConfig> {
        &self.raft
    }

    /// How things stand now.
    pub(super) fn situation(&self) -> Situation {
        self.situation_in(&self.raft.metrics().borrow())
    }

    /// How things stand by these metrics.
    pub(super) fn situation_in(&self, metrics: &RaftMetrics<u64, VoterAddress>) -> Situation {
        Situation::of(self.me, metrics, self.hearing.hears_leader())
    }

    /// The sets of voters each of which most must vote for who is to lead: two during a change.
    pub(super) fn electorates(&self) -> Vec<BTreeSet<NodeId>> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow();
        let sets = metrics.membership_config.membership().get_joint_config().iter();
        sets.map(|voters| voters.iter().copied().map(NodeId).collect()).collect()
    }

    /// The last entry in this node's log.
    pub(super) fn last_log(&self) -> Option<LogId> {
        self.raft.data_metrics().borrow().last_log
    }

    /// Has this node stand for election, if it votes and does not lead.
    pub(super) async fn stand(&self) {
        let _ = self.raft.trigger().elect().await; // that it has ended is noticed elsewhere
    }

    /// Changes whenever the situation may have changed, several times a second.
    pub(super) fn metrics(&self) -> watch::Receiver<RaftMetrics<u64, VoterAddress>> {
        self.raft.metrics()
    }

    /// Returns when this node leads no more, or was elected anew.
    pub(super) async fn deposed(&self) {
        let mut metrics = self.raft.metrics();
        let term = metrics.borrow().current_term;
        let leads =
            |it: &RaftMetrics<_, _>| it.state == ServerState::Leader && it.current_term == term;
        // An error means that consensus has ended.
        let _ = metrics.wait_for(|it| !leads(it)).await;
    }

    /// Ends it; the store is free then.
    pub(super) async fn shutdown(&self) {
        self.receiving.forget();
        // Its tasks' panics are seen as an ended consensus.
        let _ = self.raft.shutdown().await;
    }
}

impl Situation {
    /// What the raft of `me` says, which knows a leader for long after it has heard it last.
    fn of(me: NodeId, metrics: &RaftMetrics<u64, VoterAddress>, hears_leader: bool) -> Self {
        let leads = metrics.state == ServerState::Leader && metrics.running_state.is_ok();
        let leader = metrics.current_leader.filter(|_| leads || hears_leader).map(NodeId);
        let membership = metrics.membership_config.membership();
        let voters: BTreeSet<u64> = membership.voter_ids().collect();
        let last = metrics.last_log_index.unwrap_or(0);
        let followed = voters.len() == 1 && voters.contains(&me.0)
            || metrics
                .millis_since_quorum_ack
                .is_some_and(|millis| Duration::from_millis(millis) < QUORUM_PATIENCE);
        let lag = |node: u64| {
            if !(leads && followed) {
                return None; // what it knew when others followed it says nothing of now
            }
            let replicated = metrics.replication.as_ref()?.get(&node)?;
            Some(last.saturating_sub(replicated.map_or(0, |id| id.index)))
        };
        let member = |(node, address): (&u64, &VoterAddress)| {
            let decides = voters.contains(node);
            (NodeId(*node), Member { address: address.clone(), votes: decides, lag: lag(*node) })
        };
        Self {
            leader,
            leads,
            available: if leads { followed } else { leader.is_some_and(|leader| leader != me) },
            term: metrics.current_term,
            last,
            applied: metrics.last_applied.map_or(0, |id| id.index),
            snapshot: metrics.snapshot.map_or(0, |id| id.index),
            purged: metrics.purged.map_or(0, |id| id.index),
            members: membership.nodes().map(member).collect(),
            joint: membership.get_joint_config().len() > 1,
            ended: metrics.running_state.as_ref().err().map(ToString::to_string),
        }
    }

    /// Who leads, unless that is this node and nobody follows it, or it was voted out of those that keep
    /// the book: then it does not know who leads now.
    pub(super) fn followed_leader(&self) -> Option<NodeId> {
        self.leader.filter(|_| self.available)
    }

    /// Whether `node` decides with the others.
    pub(super) fn votes(&self, node: NodeId) -> bool {
        self.members.get(&node).is_some_and(|member| member.votes)
    }

    /// Whether this node, `me`, is given the log. Who was a learner is not told that it is none any more,
    /// but hears no leader.
    pub(super) fn is_given_log(&self, me: NodeId) -> bool {
        self.votes(me) || self.members.contains_key(&me) && self.leader.is_some()
    }
}

impl From<ClientWriteError<u64, VoterAddress>> for ConsensusError {
    fn from(error: ClientWriteError<u64, VoterAddress>) -> Self {
        match error {
            ClientWriteError::ForwardToLeader(to) => Self::NotLeader(to.leader_id.map(NodeId)),
            ClientWriteError::ChangeMembershipError(error) => Self::Refused(error.to_string()),
        }
    }
}

/// What came of a batch.
pub(super) async fn outcomes(decided: Decided) -> Result<Vec<Outcome>, ConsensusError> {
    match decided.await {
        Ok(Ok(response)) => Ok(response.data),
        Ok(Err(error)) => Err(error.into()),
        Err(_) => Err(ConsensusError::Ended("it was stopped".into())),
    }
}

/// Whoever led before it stopped leads no more until it is elected anew.
///
/// openraft would have it lead at once, in its old term. But what it had sent to others and not yet on
/// its own disk may have been decided: it would answer reads without, and give the same place in the
/// log, under the same name, to something else.
async fn step_down<L>(me: NodeId, log: &mut L) -> Result<(), StorageError>
where
    L: RaftLogStorage<TypeConfig>,
{
    match log.read_vote().await? {
        Some(vote) if vote.committed && vote.leader_id.node_id == me.0 => {
            log.save_vote(&Vote { committed: false, ..vote }).await
        }
        _ => Ok(()),
    }
}

fn config(limits: LogLimits) -> Config {
    let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    Config {
        cluster_name: "registry".into(),
        heartbeat_interval: millis(HEARTBEAT),
        election_timeout_min: millis(ELECTION_TIMEOUT.0),
        election_timeout_max: millis(ELECTION_TIMEOUT.1),
        install_snapshot_timeout: millis(SNAPSHOT_PATIENCE),
        max_payload_entries: ENTRIES_PER_MESSAGE,
        snapshot_policy: SnapshotPolicy::LogsSinceLast(limits.snapshot_every),
        max_in_snapshot_log_to_keep: limits.kept,
        enable_elect: false, // but as `elections` says
        ..Config::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leader_that_was_voted_out_does_not_take_itself_for_one() {
        for state in [ServerState::Learner, ServerState::Candidate, ServerState::Follower] {
            let initial = RaftMetrics::new_initial(1);
            let metrics = RaftMetrics { state, current_leader: Some(1), ..initial };
            let followed = |node, hears_leader| {
                Situation::of(NodeId(node), &metrics, hears_leader).followed_leader()
            };
            assert_eq!(followed(1, true), None);
            assert_eq!(followed(2, true), Some(NodeId(1)));
            assert_eq!(followed(2, false), None, "it has not spoken for long");
        }
    }

    #[test]
    fn how_far_others_are_behind_is_known_only_to_a_leader_that_is_followed() {
        let voters = openraft::Membership::new(vec![[1, 2, 3].into()], ());
        let replication = [(2, None)].into();
        let lag = |state, millis_since_quorum_ack| {
            let metrics = RaftMetrics {
                state,
                millis_since_quorum_ack,
                last_log_index: Some(7),
                replication: Some(std::collections::BTreeMap::clone(&replication)),
                membership_config: Arc::new(openraft::StoredMembership::new(None, voters.clone())),
                ..RaftMetrics::new_initial(1)
            };
            Situation::of(NodeId(1), &metrics, false).members[&NodeId(2)].lag
        };
        assert_eq!(lag(ServerState::Leader, Some(10)), Some(7));
        assert_eq!(lag(ServerState::Leader, Some(60_000)), None, "they may be dead");
        assert_eq!(lag(ServerState::Follower, None), None);
    }
}
