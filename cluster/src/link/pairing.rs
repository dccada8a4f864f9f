//! Which connection of two nodes lives, when both may dial, and dial again.
//!
//! Each end decides alone and both decide the same: an offer (the dialler's opening is on its way)
//! is accepted or refused by the other end, and that answer is the decision. While a node's own
//! offer is open, it refuses those of higher nodes, so of two that cross the lower node's lives. A
//! later life of the peer replaces a connection with an earlier one. Touches no connection itself.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use super::{
    Introduction,
    refusal::{Reason, Refusal},
};
use crate::{Generation, NodeId};

/// Pairs that are remembered, some 200 bytes each, though nothing lives or is offered in them: so that no
/// earlier life of a node is linked after a later one. Only who is of the cluster can make one; beyond
/// this those go whose last life began first.
const PAIRS_MAX: usize = 4_096;

/// The pairs that a node is in.
pub(super) struct Pairing {
    me: NodeId,
    pairs: Mutex<HashMap<NodeId, Pair>>,
}

#[derive(Default)]
struct Pair {
    /// The open offer of this node, by its number.
    offered: Option<u64>,
    live: Option<Live>,
    /// Those that may still have events to give; they come before those of the next.
    lives: Vec<Life>,
    /// The latest life of the peer that was ever accepted.
    generation: Generation,
    /// Numbers offers and lives.
    counter: u64,
}

struct Live {
    life: Life,
    peer: Introduction,
}

#[derive(Clone)]
struct Life {
    number: u64,
    replaced: CancellationToken,
    ended: CancellationToken,
}

/// What becomes of the wish to dial a node.
pub(super) enum Wish {
    /// Send the opening.
    Offer(Offer),
    /// The node is linked.
    Linked(Introduction),
    /// Another offer to the node is open.
    Open,
}

/// An open offer; dropped, it is withdrawn.
pub(super) struct Offer {
    pairing: Arc<Pairing>,
    peer: NodeId,
    number: u64,
}

/// The right to be the one connection to a peer; dropped, it is given back.
pub(super) struct Claim {
    pairing: Arc<Pairing>,
    peer: NodeId,
    life: Life,
    former: Vec<Life>,
}

impl Pairing {
    pub(super) fn new(me: NodeId) -> Arc<Self> {
        Arc::new(Self { me, pairs: Mutex::default() })
    }

    /// The peer was reached: is an opening to be sent?
    pub(super) fn wish(self: &Arc<Self>, peer: NodeId) -> Wish {
        let mut pairs = self.pairs.lock();
        let pair = pair_with(&mut pairs, peer);
        if let Some(live) = &pair.live {
            return Wish::Linked(live.peer.clone());
        }
        if pair.offered.is_some() {
            return Wish::Open;
        }
        pair.counter += 1;
        pair.offered = Some(pair.counter);
        Wish::Offer(Offer { pairing: self.clone(), peer, number: pair.counter })
    }

    /// The peer offers a connection: accept it?
    pub(super) fn accept(self: &Arc<Self>, peer: &Introduction) -> Result<Claim, Refusal> {
        let node = peer.incarnation.node;
        let mut pairs = self.pairs.lock();
        let pair = pair_with(&mut pairs, node);
        pair.check_generation(peer)?;
        let earlier = |live: &Live| live.peer.incarnation < peer.incarnation;
        if pair.live.as_ref().is_some_and(|live| !earlier(live)) {
            return Err(duplicate("we are linked already"));
        }
        if pair.offered.is_some() && self.me < node {
            return Err(duplicate("our own offer to you is open"));
        }
        Ok(self.claim(pair, peer))
    }

    /// The peer has accepted this node's offer. It has decided, so whatever lives here does no more
    /// there.
    pub(super) fn accepted(
        self: &Arc<Self>,
        offer: Offer,
        peer: &Introduction,
    ) -> Result<Claim, Refusal> {
        let mut pairs = self.pairs.lock();
        let pair = pairs.entry(offer.peer).or_default();
        pair.check_generation(peer)?;
        pair.offered = None;
        let claim = self.claim(pair, peer);
        drop(pairs);
        drop(offer);
        Ok(claim)
    }

    fn claim(self: &Arc<Self>, pair: &mut Pair, peer: &Introduction) -> Claim {
        pair.counter += 1;
        let life = Life {
            number: pair.counter,
            replaced: CancellationToken::new(),
            ended: CancellationToken::new(),
        };
        pair.generation = peer.incarnation.generation;
        pair.live = Some(Live { life: life.clone(), peer: peer.clone() });
        pair.lives.retain(|life| !life.ended.is_cancelled());
        let former = pair.lives.clone();
        pair.lives.push(life.clone());
        Claim { pairing: self.clone(), peer: peer.incarnation.node, life, former }
    }
}

/// The pair with a peer. Who comes new takes the place of an idle one if there are too many.
fn pair_with(pairs: &mut HashMap<NodeId, Pair>, peer: NodeId) -> &mut Pair {
    if pairs.len() >= PAIRS_MAX && !pairs.contains_key(&peer) {
        let idle = pairs.iter().filter(|(_, pair)| pair.is_idle());
        let oldest = idle.min_by_key(|(_, pair)| pair.generation).map(|(node, _)| *node);
        oldest.map(|node| pairs.remove(&node));
    }
    pairs.entry(peer).or_default()
}

impl Pair {
    /// Whether nobody holds an offer or a claim of it.
    fn is_idle(&self) -> bool {
        let no_life = self.lives.iter().all(|life| life.ended.is_cancelled());
        self.offered.is_none() && self.live.is_none() && no_life
    }

    fn check_generation(&self, peer: &Introduction) -> Result<(), Refusal> {
        if peer.incarnation.generation >= self.generation {
            return Ok(());
        }
        let text = format!(
            "node {} is known in a later life ({} after {}): is an old copy of its data directory \
             running?",
            peer.incarnation.node, self.generation, peer.incarnation.generation,
        );
        Err(Refusal::new(Reason::Generation, text))
    }
}

impl Drop for Offer {
    fn drop(&mut self) {
        if let Some(pair) = self.pairing.pairs.lock().get_mut(&self.peer)
            && pair.offered == Some(self.number)
        {
            pair.offered = None;
        }
    }
}

impl Claim {
    /// Ends what lived before, and waits until all its events were given.
    pub(super) async fn former_ended(&self) {
        for former in &self.former {
            former.replaced.cancel();
        }
        for former in &self.former {
            former.ended.cancelled().await;
        }
    }

    /// Cancelled when another connection takes this one's place.
    pub(super) fn replaced(&self) -> &CancellationToken {
        &self.life.replaced
    }

    /// The connection is no more: another may be accepted, though it waits until this claim is
    /// dropped.
    pub(super) fn release(&self) {
        if let Some(pair) = self.pairing.pairs.lock().get_mut(&self.peer)
            && pair.live.as_ref().is_some_and(|live| live.life.number == self.life.number)
        {
            pair.live = None;
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.release();
        self.life.ended.cancel();
    }
}

fn duplicate(text: &str) -> Refusal {
    Refusal::new(Reason::Duplicate, text)
}

#[cfg(test)]
mod tests;
