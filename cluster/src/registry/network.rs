//! How the raft of one node reaches those of others: as questions over [`Carry`].
//!
//! Holds nothing of the log. A snapshot goes in pieces, each asked for only when the one before
//! has been taken, so that neither side has more than one in memory; one that was broken off begins anew.

use std::{io, sync::Arc, time::Duration};

use bytes::Bytes;
use openraft::{
    RaftNetworkFactory, Snapshot, StorageIOError,
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
    aside::aside,
    consensus::Consensus,
    image::{self, Image},
    message::{self, Piece, Question, Taken},
    quiet::Hush,
    raft::{StorageError, TypeConfig, Vote, VoterAddress},
};
use crate::NodeId;

/// More than one entry is sent in a message only up to so many bytes.
const MESSAGE_BYTES_MAX: usize = 1 << 20;

/// How long a node that is not linked is left alone.
const BACKOFF: Duration = Duration::from_millis(200);

/// How long the whole of a snapshot may take to be installed.
const INSTALL_PATIENCE: Duration = Duration::from_mins(1);

type RpcError<E = RaftError<u64>> = RPCError<u64, VoterAddress, E>;

/// Makes the ways to other nodes.
pub(super) struct Network {
    me: NodeId,
    carry: Arc<dyn Carry>,
    hush: Arc<Hush>,
}

/// The way to one node.
pub(super) struct Way {
    me: NodeId,
    to: NodeId,
    carry: Arc<dyn Carry>,
    hush: Arc<Hush>,
}

impl Network {
    pub(super) fn new(me: NodeId, carry: Arc<dyn Carry>, hush: Arc<Hush>) -> Self {
        Self { me, carry, hush }
    }
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = Way;

    async fn new_client(&mut self, target: u64, _: &VoterAddress) -> Way {
        let (carry, hush) = (Arc::clone(&self.carry), Arc::clone(&self.hush));
        Way { me: self.me, to: NodeId(target), carry, hush }
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

impl Way {
    /// Sends a snapshot, piece by piece.
    async fn send(
        &self,
        vote: Vote,
        snapshot: Snapshot<TypeConfig>,
        patience: Duration,
    ) -> Result<SnapshotResponse<u64>, StreamingError<TypeConfig, Fatal<u64>>> {
        let Snapshot { meta, snapshot: mut image } = snapshot;
        let transfer = rand::random();
        for number in 0_u64.. {
            let (rest, chunk) = read(image).await?;
            image = rest;
            let last = chunk.is_none().then(|| (vote, meta.clone()));
            let patience = if last.is_some() { INSTALL_PATIENCE } else { patience };
            let piece = Piece { transfer, number, chunk: chunk.unwrap_or_default(), last };
            let question = message::to_bytes(&Question::Snapshot(piece));
            let answer = self.carry.ask(self.to, question, patience).await;
            match answer.and_then(|bytes| message::from_bytes(&bytes)) {
                Some(Taken::Next) => {}
                Some(Taken::All(vote)) => return Ok(SnapshotResponse::new(vote)),
                Some(Taken::Broken) | None => break,
            }
        }
        Err(unreachable("the snapshot was not taken").into())
    }
}

impl RaftNetwork<TypeConfig> for Way {
    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<u64>, RpcError> {
        if self.hush.covers(request.vote.leader_id.term) {
            return Err(unreachable("this leader keeps quiet, for most do not follow it").into());
        }
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
        vote: Vote,
        snapshot: Snapshot<TypeConfig>,
        cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<u64>, StreamingError<TypeConfig, Fatal<u64>>> {
        tokio::select! {
            outcome = self.send(vote, snapshot, option.hard_ttl()) => outcome,
            closed = cancel => Err(StreamingError::Closed(closed)),
        }
    }

    fn backoff(&self) -> Backoff {
        Backoff::new(std::iter::repeat(BACKOFF))
    }
}

/// Answers what another node's raft asks; with nothing if it takes no part, which its raft tries again.
pub(super) async fn append(
    consensus: &Consensus,
    request: AppendEntriesRequest<TypeConfig>,
) -> Vec<u8> {
    let response = consensus.raft().append_entries(request).await.ok();
    if response.as_ref().is_some_and(|it| !matches!(it, AppendEntriesResponse::HigherVote(_))) {
        consensus.hearing.spoke();
    }
    message::answer(response.as_ref())
}

/// As [`append`].
pub(super) async fn vote(consensus: &Consensus, request: VoteRequest<u64>) -> Vec<u8> {
    message::answer(consensus.raft().vote(request).await.ok().as_ref())
}

/// As [`append`], of a piece of a snapshot.
pub(super) async fn take(consensus: &Consensus, from: NodeId, piece: Piece) -> Vec<u8> {
    let Some((vote, meta)) = piece.last.clone() else {
        return message::to_bytes(&consensus.receiving.push(from, piece));
    };
    let Some(image) = consensus.receiving.finish(from, piece) else {
        return message::to_bytes(&Taken::Broken);
    };
    let snapshot = Snapshot { meta, snapshot: Box::new(image) };
    let installed = consensus.raft().install_full_snapshot(vote, snapshot).await;
    message::answer(installed.ok().map(|response| Taken::All(response.vote)).as_ref())
}

/// The snapshot that a node is being given, if any: one at a time, the latest.
#[derive(Default)]
pub(super) struct Receiving(Mutex<Option<Incoming>>);

struct Incoming {
    from: NodeId,
    transfer: u64,
    /// The number of the piece that is waited for.
    next: u64,
    image: image::Receiving,
}

impl Receiving {
    fn push(&self, from: NodeId, piece: Piece) -> Taken {
        let mut incoming = self.0.lock();
        if piece.number == 0 {
            let (transfer, image) = (piece.transfer, image::Receiving::new());
            *incoming = Some(Incoming { from, transfer, next: 0, image });
        }
        let awaited = |it: &&mut Incoming| {
            (it.from, it.transfer, it.next) == (from, piece.transfer, piece.number)
        };
        let Some(it) = incoming.as_mut().filter(awaited) else { return Taken::Broken };
        it.next += 1;
        if piece.chunk.is_empty() {
            return Taken::Next;
        }
        if let Err(error) = it.image.push(piece.chunk) {
            tracing::warn!(%error, %from, "cannot take a snapshot of the registry");
            *incoming = None;
            return Taken::Broken;
        }
        Taken::Next
    }

    /// The whole of it, with its last piece.
    fn finish(&self, from: NodeId, piece: Piece) -> Option<Image> {
        let transfer = piece.transfer;
        if self.push(from, piece) != Taken::Next {
            return None; // and another's, which may be half-way, stays
        }
        let incoming = self.0.lock().take_if(|it| (it.from, it.transfer) == (from, transfer))?;
        let finished = incoming.image.finish();
        finished
            .inspect_err(|error| {
                tracing::warn!(%error, %from, "cannot take a snapshot of the registry");
            })
            .ok()
    }

    /// Drops what has come of it from a node that is not linked any more.
    pub(super) fn broken_off(&self, from: NodeId) {
        self.0.lock().take_if(|incoming| incoming.from == from);
    }

    /// Drops what has come of it.
    pub(super) fn forget(&self) {
        *self.0.lock() = None;
    }
}

/// The next chunk, read where it may block.
async fn read(mut image: Box<Image>) -> Result<(Box<Image>, Option<Bytes>), StorageError> {
    let failed = |reason: String| StorageError::IO {
        source: StorageIOError::read_snapshot(None, &io::Error::other(reason)),
    };
    let read = aside(move || image.next_chunk().map(|chunk| (image, chunk))).await;
    read.map_err(|error| failed(error.to_string()))?.map_err(|error| failed(error.to_string()))
}

fn unreachable(why: &str) -> Unreachable {
    Unreachable::new(&io::Error::other(why.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(transfer: u64, number: u64) -> Piece {
        Piece { transfer, number, chunk: Bytes::new(), last: None }
    }

    #[test]
    fn a_last_piece_that_comes_late_breaks_off_nobody_elses_snapshot() {
        let (receiving, former, leader) = (Receiving::default(), NodeId(1), NodeId(2));
        assert_eq!(receiving.push(leader, piece(7, 0)), Taken::Next);
        assert!(receiving.finish(former, piece(6, 9)).is_none());
        receiving.broken_off(former);
        assert_eq!(receiving.push(leader, piece(7, 1)), Taken::Next);
        receiving.broken_off(leader);
        assert_eq!(receiving.push(leader, piece(7, 2)), Taken::Broken);
    }
}
