//! The handle that the rest of the node holds: what the links tell goes in, the members come out.
//!
//! Every call takes the view's lock for a moment and returns; none waits. What there is to do about
//! it, the [`Driver`] does.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use parking_lot::Mutex;
use smallvec::SmallVec;
use tokio::sync::{Notify, mpsc, watch};

use super::{
    Change, Driver, Event, Load, Member, MemberCounters, MemberState, Says, SeedAddress,
    SeedRefusal, View, gossip, gossip::GossipOut,
};
use crate::{
    Generation, Incarnation, NodeId,
    link::{Down, Introduction, Refusal},
};

/// Time since some fixed moment; never goes back.
pub type Monotonic = Arc<dyn Fn() -> Duration + Send + Sync>;

/// Members whose load alone has changed are told of so often.
const LOAD_INTERVAL: Duration = Duration::from_secs(2);

/// Which nodes there are. Clones are the same membership.
#[derive(Clone)]
pub struct Membership {
    shared: Arc<Shared>,
}

/// What the handle and the driver have in common.
pub(super) struct Shared {
    clock: Monotonic,
    state: Mutex<State>,
    members: watch::Sender<Arc<[Member]>>,
    joined: watch::Sender<bool>,
    displaced: watch::Sender<bool>,
    refusals: watch::Sender<Arc<[SeedRefusal]>>,
    inlet: mpsc::Sender<(SocketAddr, Bytes)>,
    pub(super) counters: MemberCounters,
    woken: Notify,
}

struct State {
    view: View,
    load_told: Option<Duration>,
}

impl Membership {
    /// The membership of the node `own` in `cluster`, and the driver that brings it to life. Two
    /// clusters never mix, whatever their seeds are.
    pub fn new(
        own: Introduction,
        cluster: String,
        seeds: Vec<SeedAddress>,
        clock: Monotonic,
    ) -> (Self, Driver) {
        let view = View::new(own.clone());
        let (inlet, inbox) = mpsc::channel(gossip::INBOX_MESSAGES);
        let shared = Arc::new(Shared {
            clock,
            members: watch::Sender::new(Arc::from(view.members())),
            state: Mutex::new(State { view, load_told: None }),
            joined: watch::Sender::new(false),
            displaced: watch::Sender::new(false),
            refusals: watch::Sender::default(),
            inlet,
            counters: MemberCounters::default(),
            woken: Notify::new(),
        });
        let driver = Driver::new(Arc::clone(&shared), own, cluster, seeds, inbox);
        (Self { shared }, driver)
    }

    /// The members by node id, this node among them; changes whenever they do. A change of loads
    /// alone is told of every 2 s at most.
    pub fn members(&self) -> watch::Receiver<Arc<[Member]>> {
        self.shared.members.subscribe()
    }

    /// Whether this node is linked with all that are there, or is alone, and may serve. Once `true`,
    /// it stays so.
    pub fn joined(&self) -> watch::Receiver<bool> {
        self.shared.joined.subscribe()
    }

    /// The seeds that refuse this node, or that it refuses, and are not linked; changes whenever they do.
    pub fn refusals(&self) -> watch::Receiver<Arc<[SeedRefusal]>> {
        self.shared.refusals.subscribe()
    }

    /// Whether a process that was started later has this node's id: it has this node's place, for all
    /// others refuse an older life. Once `true`, it stays so.
    pub fn displaced(&self) -> watch::Receiver<bool> {
        self.shared.displaced.subscribe()
    }

    /// Whether a peer may be linked ([`LinkEvents::admit`](crate::link::LinkEvents::admit)).
    pub fn admit(&self, peer: &Introduction) -> Result<(), Refusal> {
        self.shared.view(|view| view.admit(peer))
    }

    /// A process that was started later has this node's id
    /// ([`LinkEvents::outlived`](crate::link::LinkEvents::outlived)).
    pub fn outlived(&self, by: Generation) {
        self.shared.apply_and_wake(Event::Outlived(by));
    }

    /// A link is there ([`LinkEvents::up`](crate::link::LinkEvents::up)).
    pub fn up(&self, peer: &Introduction) {
        self.shared.apply_and_wake(Event::LinkUp(peer.clone()));
    }

    /// A link is gone ([`LinkEvents::down`](crate::link::LinkEvents::down)).
    pub fn down(&self, peer: Incarnation, why: Down) {
        self.shared.apply_and_wake(Event::LinkDown(peer, why));
    }

    /// A link has not answered for [`SUSPECT_AFTER`](super::SUSPECT_AFTER) (`true`), or has again.
    pub fn silent(&self, peer: Incarnation, silent: bool) {
        self.shared.apply_and_wake(Event::LinkSilent(peer, silent));
    }

    /// A peer said that it stops soon ([`Control::Leaving`](crate::wire::Control::Leaving)): no need
    /// to wait for gossip.
    pub fn peer_leaves(&self, peer: Incarnation) {
        self.shared.apply_and_wake(Event::Leaving(peer));
    }

    /// A message of gossip came ([`LinkEvents::gossip`](crate::link::LinkEvents::gossip)). Dropped if
    /// too many wait: gossip repairs itself.
    pub fn gossip(&self, from: Incarnation, message: Bytes) {
        let Some(address) = self.shared.view(|view| view.address_of(from)) else { return };
        if self.shared.inlet.try_send((address, message)).is_err() {
            self.shared.counters.dropped_gossip();
        }
    }

    /// What was counted since the start.
    pub fn counters(&self) -> &MemberCounters {
        &self.shared.counters
    }

    /// How much this node carries. Others hear of it every 2 s at most.
    pub fn set_load(&self, load: Load) {
        self.shared.apply(Event::OwnLoad(load));
    }

    /// This node stops soon: it leaves all rings, here and, as gossip spreads, everywhere.
    pub fn leave(&self) {
        self.shared.apply_and_wake(Event::Own(Says::Leaving));
    }

    /// This node has nothing left to do; called before its links say goodbye.
    pub fn left(&self) {
        self.shared.apply_and_wake(Event::Own(Says::Left));
    }
}

impl Shared {
    pub(super) fn now(&self) -> Duration {
        (self.clock)()
    }

    /// Looks at the view.
    pub(super) fn view<T>(&self, look: impl FnOnce(&View) -> T) -> T {
        look(&self.state.lock().view)
    }

    /// Whether nobody has to look for the node at this address: it is linked, alive, or has said
    /// goodbye. A dial of it that ends late says nothing new.
    pub(super) fn is_accounted_for(&self, address: SocketAddr) -> bool {
        self.view(|view| {
            let settled =
                |member: &&Member| matches!(member.state, MemberState::Alive | MemberState::Left);
            view.linked().any(|peer| peer.address == address)
                || view.members().iter().filter(settled).any(|member| member.address == address)
        })
    }

    /// Takes in what happened, tells who watches the members, and logs what changed.
    pub(super) fn apply(&self, event: Event) {
        let now = self.now();
        let mut state = self.state.lock();
        let changes = state.view.apply(event, now);
        self.publish(&mut state, now);
        // A node that has said goodbye loses all the others, which is no news of them.
        let is_news = state.view.says() != Says::Left;
        drop(state);
        if changes.iter().any(|change| matches!(change, Change::OwnIdTaken { .. })) {
            self.displaced();
        }
        if is_news {
            for change in &changes {
                self.counters.changed(change);
                log(change);
            }
        }
    }

    /// Another process has this node's place.
    pub(super) fn displaced(&self) {
        self.displaced.send_replace(true);
    }

    fn apply_and_wake(&self, event: Event) {
        self.apply(event);
        self.woken.notify_one();
    }

    /// Waits until something happened that the driver should look at.
    pub(super) async fn woken(&self) {
        self.woken.notified().await;
    }

    /// These seeds refuse this node now.
    pub(super) fn set_refusals(&self, now: Vec<SeedRefusal>) {
        self.refusals.send_if_modified(|refusals| {
            let is_new = **refusals != *now;
            if is_new {
                *refusals = Arc::from(now);
            }
            is_new
        });
    }

    /// The node has joined; `true` at the first time.
    pub(super) fn set_joined(&self) -> bool {
        self.joined.send_if_modified(|joined| !std::mem::replace(joined, true))
    }

    pub(super) fn has_joined(&self) -> bool {
        *self.joined.borrow()
    }

    fn publish(&self, state: &mut State, now: Duration) {
        let members = state.view.members();
        let told = Arc::clone(&self.members.borrow());
        if *told == *members {
            return;
        }
        let is_load_due = state.load_told.is_none_or(|before| now >= before + LOAD_INTERVAL);
        if is_load_due || !differ_in_load_only(&told, members) {
            self.members.send_replace(Arc::from(members));
            state.load_told = Some(now);
        }
    }
}

/// Whether two lists name the same members in the same states.
fn differ_in_load_only(before: &[Member], now: &[Member]) -> bool {
    let identity = |member: &Member| (member.incarnation, member.state);
    before.iter().map(identity).eq(now.iter().map(identity))
}

fn log(change: &Change) {
    match change {
        Change::State { member, name, was, now } => {
            let was = was.map_or("unknown", MemberState::as_str);
            let now = now.as_str();
            if matches!(now, "suspect" | "dead") {
                tracing::warn!(node = %member, name, was, now, "a member changed");
            } else {
                tracing::info!(node = %member, name, was, now, "a member changed");
            }
        }
        Change::Restarted { member, name } => {
            tracing::info!(node = %member, name, "a member was started again");
        }
        Change::Forgotten { member, name } => {
            tracing::debug!(node = %member, name, "a member was forgotten");
        }
        Change::NameConflict { name, one, other } => tracing::error!(
            name,
            one = %one,
            other = %other,
            "two nodes use one name: give one of them another NODE_NAME"
        ),
        Change::OwnIdTaken { generation } => tracing::error!(
            %generation,
            "another process has this node's id: its data directory was copied, or runs twice; \
             stop one of them and empty its data directory"
        ),
        Change::OwnAddressTaken { name, address } => tracing::error!(
            name,
            %address,
            "another node says that it is reached at this node's address: give each an ADVERTISE of \
             its own"
        ),
    }
}

impl MemberState {
    /// The word for it in logs, counters and the ops port.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Alive => "alive",
            Self::Suspect => "suspect",
            Self::Leaving => "leaving",
            Self::Left => "left",
            Self::Dead => "dead",
        }
    }
}

/// Gossip's way out over the links, by the addresses of the linked peers.
pub(super) struct OverLinks<P> {
    pub(super) shared: Arc<Shared>,
    pub(super) peers: Arc<P>,
}

impl<P: super::Peers> GossipOut for OverLinks<P> {
    /// A crashed node's link may outlive it by seconds while another node has its address: all links
    /// to the address are used.
    fn gossip(&self, to: SocketAddr, message: &[u8]) -> bool {
        let nodes: SmallVec<[NodeId; 1]> = self.shared.view(|view| {
            let there = view.linked().filter(|peer| peer.address == to);
            there.map(|peer| peer.incarnation.node).collect()
        });
        nodes.into_iter().fold(false, |sent, node| self.peers.gossip(node, message) | sent)
    }

    fn malformed(&self) {
        self.shared.counters.malformed_gossip();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Generation;

    fn introduction(node: u64) -> Introduction {
        Introduction {
            incarnation: Incarnation { node: NodeId(node), generation: Generation(1) },
            name: node.to_string(),
            region: String::new(),
            version: String::new(),
            address: ([10, 0, 0, 1], u16::try_from(node).expect("a small number")).into(),
        }
    }

    #[test]
    fn who_is_linked_or_has_said_goodbye_is_not_looked_for() {
        let clock: Monotonic = Arc::new(|| Duration::ZERO);
        let (own, peer) = (introduction(1), introduction(2));
        let (membership, _driver) = Membership::new(own, "test".to_owned(), Vec::new(), clock);
        let is_accounted_for = || membership.shared.is_accounted_for(peer.address);
        assert!(!is_accounted_for(), "nobody has heard of it");
        membership.up(&peer);
        assert!(is_accounted_for(), "gossip may not have heard of it yet");
        membership.down(peer.incarnation, Down::Lost);
        assert!(!is_accounted_for(), "it may have crashed");
    }
}
