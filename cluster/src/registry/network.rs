//! How the raft of one node reaches those of others: as questions over [`Carry`].
//!
//! Holds nothing of the log. A snapshot goes in pieces, each asked for only when the one before
//! has been taken, so that neither side has more than one in memory; one that was broken off begins anew.

use std::{io, sync::Arc, time::Duration};

use openraft::{
    RaftNetworkFactory, Snapshot, Vote,
    error::{
        Fatal, PayloadTooLarge, RPCError, RaftError, ReplicationClosed, StreamingError, Timeout,
        Unreachable,
    },
    network::{Backoff, RPCOption, RPCTypes, RaftNetwork},
    raft::{
        AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse,
    },
};
use parking_lot::Mutex;
use serde::de::DeserializeOwned;

use super::{
    Carry,
    consensus::Consensus,
    message::{self, Question},
    raft::{TypeConfig, VoterAddress},
};
use crate::NodeId;

/// More than one entry is sent in a message only up to so many bytes.
const MESSAGE_BYTES_MAX: usize = 1 << 20;

/// How long a node that is not linked is left alone.
const BACKOFF: Duration = Duration::from_millis(200);

type RpcError<E = RaftError<u64>> = RPCError<u64, VoterAddress, E>;

/// Makes the ways to other nodes.
pub(super) struct Network {
    me: NodeId,
    carry: Arc<dyn Carry>,
}

/// The way to one node.
pub(super) struct Way {
    me: NodeId,
    to: NodeId,
    carry: Arc<dyn Carry>,
}

impl Network {
    pub(super) fn new(me: NodeId, carry: Arc<dyn Carry>) -> Self {
        Self { me, carry }
    }
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = Way;

    async fn new_client(&mut self, target: u64, _: &VoterAddress) -> Way {
        Way { me: self.me, to: NodeId(target), carry: Arc::clone(&self.carry) }
    }
}

impl Way {
    async fn ask<A: DeserializeOwned, E: std::error::Error>(
        &self,
        action: RPCTypes,
        question: Vec<u8>,
        deadline: Duration,
    ) -> Result<A, RpcError<E>> {
        let answer = self.carry.ask(self.to, question, deadline).await;
        if answer.is_none() && self.carry.linked().contains(&self.to) {
            let (id, target) = (self.me.0, self.to.0);
            return Err(Timeout { action, id, target, timeout: deadline }.into());
        }
        answer
            .and_then(|bytes| message::from_bytes(&bytes))
            .ok_or_else(|| unreachable("it is not linked, or takes no part now").into())
    }
}

impl RaftNetwork<TypeConfig> for Way {
    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<u64>, RpcError> {
        let entries = request.entries.len();
        let bytes = message::to_bytes(&Question::Append(request));
        if entries > 1 && bytes.len() > MESSAGE_BYTES_MAX {
            let fit = entries.saturating_mul(MESSAGE_BYTES_MAX) / bytes.len();
            let hint = fit.clamp(1, entries / 2) as u64;
            return Err(PayloadTooLarge::new_entries_hint(hint).into());
        }
        self.ask(RPCTypes::AppendEntries, bytes, option.hard_ttl()).await
    }

    async fn vote(
        &mut self,
        request: VoteRequest<u64>,
        option: RPCOption,
    ) -> Result<VoteResponse<u64>, RpcError> {
        let bytes = message::to_bytes(&Question::Vote(request));
        self.ask(RPCTypes::Vote, bytes, option.hard_ttl()).await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote<u64>,
        snapshot: Snapshot<TypeConfig>,
        cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<u64>, StreamingError<TypeConfig, Fatal<u64>>> {
        let _ = (vote, snapshot, option);
        Err(StreamingError::Closed(cancel.await))
    }

    fn backoff(&self) -> Backoff {
        Backoff::new(std::iter::repeat(BACKOFF))
    }
}

/// The snapshot that a node is being given, if any.
#[derive(Default)]
pub(super) struct Receiving(Mutex<Option<()>>);

impl Receiving {
    /// Drops what has come of it.
    pub(super) fn forget(&self) {
        *self.0.lock() = None;
    }
}

/// Answers what another node's raft asks; with nothing if it takes no part, which its raft tries again.
pub(super) async fn answer(consensus: &Consensus, question: Question) -> Vec<u8> {
    match question {
        Question::Append(request) => {
            message::answer(consensus.raft().append_entries(request).await.ok())
        }
        Question::Vote(request) => message::answer(consensus.raft().vote(request).await.ok()),
    }
}

fn unreachable(why: &str) -> Unreachable {
    Unreachable::new(&io::Error::other(why.to_owned()))
}
