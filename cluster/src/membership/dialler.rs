//! Whom to dial, and when: pure. The driver does the dialling.
//!
//! A node dials every seed until it knows who is behind it, and every node that gossip tells of and
//! that it has no link to. Of two nodes the one with the smaller id dials first.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use super::{MemberState, View, seeds::Seeds};
use crate::{
    Incarnation, NodeId,
    link::{Reason, Refusal},
};

/// Dials at one time: 16 handshakes are some 50 ms of work, and no burst for a network.
const DIALS_MAX: usize = 16;

/// The node with the greater id gives the other so much time to dial first.
const COURTESY: Duration = Duration::from_millis(500);

/// The pause after the first failure; it doubles with each.
const PAUSE: Duration = Duration::from_millis(100);

/// The longest pause for a node that should be there.
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// The longest pause for one that need not be: a dead member, or one more address of a seed that was
/// reached by another.
const PAUSE_MAX_UNLIKELY: Duration = Duration::from_secs(10);

/// Where this node has met itself it dials again after so long: the address may be one of several nodes
/// in turn.
const ONESELF_AGAIN: Duration = Duration::from_secs(10);

/// What a dial came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialled {
    /// There is a link to this peer.
    Peer(Incarnation),
    /// Who answered is this node itself.
    Oneself,
}

/// Why there is no link after a dial.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DialError {
    /// Nobody answered.
    #[error("no answer: {0}")]
    Unreachable(String),
    /// Somebody answered who is linked by another connection just now, is busy, or stops: nothing that
    /// an operator should mend.
    #[error("not now: {0}")]
    NotNow(String),
    /// Somebody answered who knows a later life of this node, and links that one.
    #[error("outlived: {0}")]
    Outlived(String),
    /// Somebody answered, and one of both will not be linked before an operator mends something.
    /// Whoever dialled has logged it.
    #[error("refused: {0}")]
    Refused(Refusal),
}

impl DialError {
    /// Why there will be no link before an operator mends something, if so.
    fn refusal(&self) -> Option<Refusal> {
        match self {
            Self::Refused(refusal) => Some(refusal.clone()),
            Self::Outlived(text) => Some(Refusal::new(Reason::Generation, text.clone())),
            Self::Unreachable(_) | Self::NotNow(_) => None,
        }
    }
}

/// An address worth dialling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Target {
    address: SocketAddr,
    peer: Option<Incarnation>,
    likely: bool,
}

/// The dials of a node.
#[derive(Debug)]
pub(super) struct Dialler {
    own: NodeId,
    own_address: SocketAddr,
    /// Other addresses at which this node met itself at the last dial, and when the next one is due.
    met_oneself: BTreeMap<SocketAddr, Duration>,
    behind: BTreeMap<SocketAddr, NodeId>,
    attempts: BTreeMap<SocketAddr, Attempt>,
}

/// What was tried at an address.
#[derive(Debug)]
struct Attempt {
    target: Target,
    under_way: bool,
    failures: u32,
    refused: Option<Refusal>,
    next: Duration,
}

impl Dialler {
    pub(super) fn new(own: NodeId, own_address: SocketAddr) -> Self {
        Self {
            own,
            own_address,
            met_oneself: BTreeMap::new(),
            behind: BTreeMap::new(),
            attempts: BTreeMap::new(),
        }
    }

    /// The addresses to dial now. Each is named once until [`done`](Self::done) tells its outcome.
    pub(super) fn due(&mut self, view: &View, seeds: &Seeds, now: Duration) -> Vec<SocketAddr> {
        self.behind.retain(|address, _| seeds.at(*address).is_some());
        let mut targets = self.targets(view, seeds);
        self.met_oneself.retain(|address, _| targets.contains_key(address));
        targets
            .retain(|address, _| self.met_oneself.get(address).is_none_or(|again| *again <= now));
        self.attempts.retain(|address, tried| tried.under_way || targets.contains_key(address));
        for target in targets.into_values() {
            self.aim(target, now);
        }
        let under_way = self.attempts.values().filter(|tried| tried.under_way).count();
        let mut due: Vec<_> = self
            .attempts
            .values()
            .filter(|tried| !tried.under_way && tried.next <= now)
            .map(|tried| (tried.next, tried.target.address))
            .collect();
        due.sort_unstable();
        due.truncate(DIALS_MAX.saturating_sub(under_way));
        for (_, address) in &due {
            if let Some(tried) = self.attempts.get_mut(address) {
                tried.under_way = true;
            }
        }
        due.into_iter().map(|(_, address)| address).collect()
    }

    /// Takes the outcome of a dial; `jitter`, from 0 to 1, spreads the next one.
    pub(super) fn done(
        &mut self,
        address: SocketAddr,
        outcome: &Result<Dialled, DialError>,
        now: Duration,
        jitter: f64,
    ) {
        self.met_oneself.remove(&address);
        match outcome {
            Ok(Dialled::Peer(peer)) => {
                self.behind.insert(address, peer.node);
            }
            Ok(Dialled::Oneself) => {
                self.met_oneself.insert(address, now + ONESELF_AGAIN);
                self.attempts.remove(&address);
            }
            Err(_) => {}
        }
        let Some(tried) = self.attempts.get_mut(&address) else { return };
        tried.under_way = false;
        tried.refused = outcome.as_ref().err().and_then(DialError::refusal);
        tried.failures = if outcome.is_ok() { 0 } else { tried.failures.saturating_add(1) };
        // After a success the link is told of in a moment, and the address is no target any more.
        let pause =
            if outcome.is_ok() { PAUSE_MAX } else { tried.pause().mul_f64(0.5 + jitter / 2.0) };
        tried.next = now + pause + courtesy(self.own, tried.target.peer);
    }

    /// Whether the address is this node's own, as far as is known.
    pub(super) fn is_own(&self, address: SocketAddr) -> bool {
        address == self.own_address || self.met_oneself.contains_key(&address)
    }

    /// Whether a dial of the address has failed, and none has succeeded since.
    pub(super) fn has_failed(&self, address: SocketAddr) -> bool {
        self.attempts.get(&address).is_some_and(|tried| tried.failures > 0)
    }

    /// What the last dial of the address was answered with, if that was a refusal.
    pub(super) fn refusal(&self, address: SocketAddr) -> Option<&Refusal> {
        self.attempts.get(&address)?.refused.as_ref()
    }

    /// Whether there is a link to the node at the address, as far as it is known.
    pub(super) fn is_linked(&self, address: SocketAddr, view: &View) -> bool {
        self.behind.get(&address).is_some_and(|node| view.is_linked(*node))
            || view.linked().any(|peer| peer.address == address)
    }

    fn targets(&self, view: &View, seeds: &Seeds) -> BTreeMap<SocketAddr, Target> {
        let of_seeds = seeds.iter().flat_map(|seed| {
            let likely = !seed.found().iter().any(|address| self.is_linked(*address, view));
            let strange = seed.found().iter().filter(|address| !self.is_answered(**address, view));
            strange.map(move |address| Target { address: *address, peer: None, likely })
        });
        let mut targets: BTreeMap<_, _> = of_seeds.map(|target| (target.address, target)).collect();
        for heard in view.known() {
            let peer = heard.incarnation;
            let state = view.member(peer.node).map(|member| member.state);
            // A dead node is not where another one answers: that has taken its place, and is linked.
            let is_replaced =
                state == Some(MemberState::Dead) && self.is_linked(heard.address, view);
            if view.is_linked(peer.node) || state == Some(MemberState::Left) || is_replaced {
                continue;
            }
            let target = targets.entry(heard.address).or_insert(Target {
                address: heard.address,
                peer: None,
                likely: false,
            });
            target.likely |= state != Some(MemberState::Dead);
            target.peer = target.peer.max(Some(peer));
        }
        targets.remove(&self.own_address);
        targets
    }

    /// Whether it is known who is behind a seed's address, and that it is there.
    fn is_answered(&self, address: SocketAddr, view: &View) -> bool {
        self.is_linked(address, view)
            || self.behind.get(&address).is_some_and(|node| view.is_present(*node))
    }

    /// Starts to dial a new target, or starts over if it is not what it was: restarted, or back.
    fn aim(&mut self, target: Target, now: Duration) {
        let fresh = Attempt {
            target,
            under_way: false,
            failures: 0,
            refused: None,
            next: now + courtesy(self.own, target.peer),
        };
        match self.attempts.get_mut(&target.address) {
            Some(tried) if tried.under_way => tried.target = target,
            Some(tried) if !tried.target.is_renewed_by(&target) => tried.target = target,
            _ => {
                self.attempts.insert(target.address, fresh);
            }
        }
    }
}

/// How long this node waits for the peer to dial first.
fn courtesy(own: NodeId, peer: Option<Incarnation>) -> Duration {
    if peer.is_some_and(|peer| peer.node < own) { COURTESY } else { Duration::ZERO }
}

impl Target {
    fn is_renewed_by(&self, new: &Self) -> bool {
        let restarted = self.peer.is_some() && new.peer.is_some() && self.peer != new.peer;
        restarted || (new.likely && !self.likely)
    }
}

impl Attempt {
    fn pause(&self) -> Duration {
        let longest = if self.target.likely { PAUSE_MAX } else { PAUSE_MAX_UNLIKELY };
        (PAUSE * 2u32.saturating_pow(self.failures.saturating_sub(1).min(10))).min(longest)
    }
}

#[cfg(test)]
#[path = "dialler_tests.rs"]
mod tests;
