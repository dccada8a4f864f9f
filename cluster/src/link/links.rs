//! All links of a node: who is linked, dialled and accepted; the way in for frames.

use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::{
    sync::{mpsc, oneshot},
    task::{JoinError, JoinSet},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::{
    Down, Introduction, LinkError, LinkEvents, LinkStatus,
    counters::LinkCounters,
    frames,
    handshake::Hello,
    lane::Role,
    link::Link,
    meeting::Met,
    pairing::Pairing,
    refusal::{Logged, Reason, Refusal},
    transport::{Incoming, Transport},
};
use crate::{
    NodeId,
    mesh::{Outlet, Pushed},
    wire::{Control, Data, Lane},
};

/// From the first packet to the last word of a handshake.
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(5);

/// Handshakes that others have begun, at once: some 10 MiB. One more, and the oldest is dropped: an
/// honest one takes a few round trips, so who holds many open keeps nobody out.
const HANDSHAKES_MAX: usize = 512;

/// Dials that wait to be begun.
const DIALS_MAX: usize = 64;

/// How long stopped links may take to give their last events.
const STOP_DEADLINE: Duration = Duration::from_secs(2);

/// The clock that tells how long a link is silent: any that never goes back.
pub type Clock = Arc<dyn Fn() -> Duration + Send + Sync>;

/// All links of a node.
///
/// [`run`](Self::run) owns all tasks; without it nothing is dialled or accepted.
pub struct Links {
    introduction: Introduction,
    cluster: String,
    /// Tells this process from one that has a copy of its data directory.
    process: u64,
    clock: Clock,
    pub(super) transport: Arc<dyn Transport>,
    pub(super) events: Arc<dyn LinkEvents>,
    pub(super) pairing: Arc<Pairing>,
    pub(super) linked: ArcSwap<BTreeMap<NodeId, Arc<Link>>>,
    pub(super) counters: LinkCounters,
    /// No more links are made, from here on.
    pub(super) leaving: CancellationToken,
    /// Not even those that are being made.
    stopping: CancellationToken,
    logged: Logged,
    dials: mpsc::Sender<Dial>,
    wanted: Mutex<Option<mpsc::Receiver<Dial>>>,
}

struct Dial {
    address: SocketAddr,
    outcome: oneshot::Sender<Result<Introduction, LinkError>>,
}

impl Links {
    /// Links of the node that introduces itself so, in the cluster with this id.
    pub fn new(
        introduction: Introduction,
        cluster: String,
        transport: Arc<dyn Transport>,
        events: Arc<dyn LinkEvents>,
        clock: Clock,
    ) -> Arc<Self> {
        let (dials, wanted) = mpsc::channel(DIALS_MAX);
        Arc::new(Self {
            pairing: Pairing::new(introduction.incarnation.node),
            introduction,
            cluster,
            process: rand::random(),
            clock,
            transport,
            events,
            linked: ArcSwap::default(),
            counters: LinkCounters::default(),
            leaving: CancellationToken::new(),
            stopping: CancellationToken::new(),
            logged: Logged::default(),
            dials,
            wanted: Mutex::new(Some(wanted)),
        })
    }

    /// Dials and accepts, and carries what the links carry, until `stop`; then closes whatever is
    /// open, with what waits in it: [`close_all`](Self::close_all) comes first. To be called once.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let Some(mut wanted) = self.wanted.lock().take() else { return };
        let mut handshakes = Handshakes::default();
        let mut tasks = JoinSet::new();
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                Some(done) = tasks.join_next() => self.notice(done),
                Some(dial) = wanted.recv() => { tasks.spawn(self.clone().dialled(dial)); }
                incoming = self.transport.accept() => match incoming {
                    None => break,
                    Some(incoming) => {
                        tasks.spawn(self.clone().accepted(incoming, handshakes.begin()));
                    }
                },
            }
        }
        wanted.close();
        self.leaving.cancel();
        self.stopping.cancel();
        for link in self.linked.load().values() {
            link.say_goodbye();
        }
        let ended = timeout(STOP_DEADLINE, async {
            while let Some(done) = tasks.join_next().await {
                self.notice(done);
            }
        });
        if ended.await.is_err() {
            tracing::error!("links did not end in time; their tasks are dropped");
        }
        self.transport.close().await;
    }

    /// Links the node at `address`, unless it is linked: returns when both ends know, so the peer
    /// can be sent to. Logs why not, once a minute.
    pub async fn dial(&self, address: SocketAddr) -> Result<Introduction, LinkError> {
        if let Some(link) = self.linked.load().values().find(|it| it.peer.address == address) {
            return Ok(link.peer.clone());
        }
        if self.leaving.is_cancelled() {
            return Err(LinkError::Stopped);
        }
        let (outcome, linked) = oneshot::channel();
        let sent = self.dials.send(Dial { address, outcome }).await;
        sent.map_err(|_| LinkError::Stopped)?;
        linked.await.map_err(|_| LinkError::Stopped)?
    }

    /// Says goodbye: takes no new links and no frames, waits until the peers have received all that
    /// was pushed, but no longer than `deadline`, and closes all links so that the peers see
    /// [`Down::Left`].
    pub async fn close_all(&self, deadline: Duration) {
        self.leaving.cancel();
        let links: Vec<_> = self.linked.load().values().cloned().collect();
        let flushed = futures_util::future::join_all(links.iter().map(|link| link.flush()));
        if timeout(deadline, flushed).await.is_err() {
            tracing::warn!("not all peers have received all that was sent before the deadline");
        }
        for link in &links {
            link.say_goodbye();
        }
        let ended = futures_util::future::join_all(links.iter().map(|link| link.ended()));
        if timeout(STOP_DEADLINE, ended).await.is_err() {
            tracing::error!("links did not end in time");
        }
    }

    /// Ends the link to a node, if there is one. The peer sees [`Down::Lost`], or, for `Left`, that.
    pub fn close(&self, node: NodeId, why: Down) {
        if let Some(link) = self.linked.load().get(&node) {
            link.end(why);
        }
    }

    /// The nodes that frames can be pushed to.
    pub fn linked(&self) -> Vec<NodeId> {
        self.linked.load().keys().copied().collect()
    }

    /// A ping to the node, sent at that moment, has been answered.
    pub fn answered(&self, node: NodeId, sent: Duration) {
        if let Some(link) = self.linked.load().get(&node) {
            link.answered(sent.min(self.now()));
        }
    }

    /// When the last ping was sent that each node has answered, or its link came up.
    pub fn all_answered(&self) -> BTreeMap<NodeId, Duration> {
        self.linked.load().iter().map(|(node, link)| (*node, link.last_answered())).collect()
    }

    /// The links' present state, by node.
    pub fn status(&self) -> Vec<LinkStatus> {
        let now = self.now();
        self.linked.load().values().map(|link| link.status(now)).collect()
    }

    /// What was counted since the start.
    pub fn counters(&self) -> &LinkCounters {
        &self.counters
    }

    /// Puts a message of the membership onto the gossip lane; `false` if there is no link, or no
    /// room: gossip repairs itself.
    pub fn gossip(&self, to: NodeId, message: &[u8]) -> bool {
        let pushed =
            self.push(to, Lane::Gossip, Role::Carrier, |out| frames::append_gossip(out, message));
        pushed == Pushed::Queued
    }

    fn push(
        &self,
        to: NodeId,
        lane: Lane,
        role: Role,
        encode: impl FnOnce(&mut Vec<u8>),
    ) -> Pushed {
        let linked = self.linked.load();
        let Some(link) = linked.get(&to) else { return Pushed::NoLink };
        let Some(queue) = link.queue(lane) else { return Pushed::NoLink };
        let pushed = queue.push(role, encode);
        if pushed == Pushed::Full {
            self.counters.dropped(lane.into());
            if lane == Lane::Control || role != Role::Carrier {
                tracing::warn!(peer = %link.peer.name, ?lane, "a lane is full: the link is closed");
                link.end(Down::Lost);
            }
        }
        pushed
    }
}

impl Outlet for Links {
    /// Over the lane's bound the link is closed as lost, since neither a control frame nor a mark on a
    /// data lane is ever dropped alone.
    fn control(&self, to: NodeId, frame: &Control) -> bool {
        let pushed = self.push(to, Lane::Control, Role::Carrier, |out| frame.encode(out));
        pushed == Pushed::Queued
    }

    /// [`Pushed::NoLink`] too for what comes before [`Data::Start`] on a new link's lane.
    fn data(&self, to: NodeId, lane: u8, frame: &Data<'_>) -> Pushed {
        let role = match frame {
            Data::Start { .. } => Role::Start,
            Data::Fence { .. } | Data::Fenced { .. } | Data::Barrier { .. } => Role::Mark,
            Data::Direct(_) | Data::Bounced(_) | Data::Broadcast(_) | Data::Relayed(_) => {
                Role::Carrier
            }
        };
        self.push(to, Lane::Data(lane), role, |out| frame.encode(out))
    }
}

impl Links {
    pub(super) fn node(&self) -> NodeId {
        self.introduction.incarnation.node
    }

    pub(super) fn now(&self) -> Duration {
        (self.clock)()
    }

    pub(super) fn hello(&self) -> Hello {
        Hello {
            cluster: self.cluster.clone(),
            introduction: self.introduction.clone(),
            time: self.events.mesh_time(),
            wall: self.events.wall(),
            process: self.process,
            allegiance: self.events.allegiance(),
        }
    }

    /// Lets frames be pushed to the link's peer until the entry is dropped.
    pub(super) fn enter(self: &Arc<Self>, link: &Arc<Link>) -> Entry {
        self.linked.rcu(|linked| {
            let mut linked = BTreeMap::clone(linked);
            linked.insert(link.node(), link.clone());
            linked
        });
        Entry { links: self.clone(), link: link.clone() }
    }

    async fn dialled(self: Arc<Self>, dial: Dial) {
        let Dial { address, outcome } = dial;
        let met = timeout(HANDSHAKE_DEADLINE, self.meet(address));
        let met = match self.stopping.run_until_cancelled(met).await {
            Some(met) => met.unwrap_or(Err(LinkError::Deadline(address))),
            None => Err(LinkError::Stopped),
        };
        match met {
            Ok(Met::Known(peer)) => {
                let _ = outcome.send(Ok(peer));
            }
            Ok(Met::Linked(link, claim)) => {
                let told = || {
                    let _ = outcome.send(Ok(link.peer.clone()));
                };
                link.clone().run(self, claim, told).await;
            }
            Err(error) => {
                self.note(Some(address), error.reason(), &error.to_string());
                let _ = outcome.send(Err(error));
            }
        }
    }

    async fn accepted(self: Arc<Self>, incoming: Incoming, crowded: CancellationToken) {
        let done = crowded.clone().drop_guard();
        // Each dial comes from a port of its own.
        let from = incoming.from.map(|from| SocketAddr::new(from.ip().to_canonical(), 0));
        let answer = timeout(HANDSHAKE_DEADLINE, self.answer(incoming));
        let answer = crowded.run_until_cancelled(answer);
        let met = match self.stopping.run_until_cancelled(answer).await {
            Some(Some(Ok(met))) => met,
            Some(Some(Err(_))) => {
                Err(Refusal::new(Reason::Deadline, "the handshake took too long"))
            }
            Some(None) => Err(Refusal::new(Reason::Busy, "too many handshakes at once")),
            None => Err(Refusal::new(Reason::Leaving, "the node stops")),
        };
        drop(done);
        match met {
            Ok(Met::Linked(link, claim)) => link.run(self, claim, || {}).await,
            Ok(Met::Known(_)) => {}
            Err(refusal) => self.note(from, refusal.reason, &refusal.text),
        }
    }

    /// A task has ended.
    fn notice(&self, done: Result<(), JoinError>) {
        if let Err(error) = done
            && error.is_panic()
        {
            self.counters.panicked();
            tracing::error!(%error, "a link's task has panicked");
        }
    }

    /// Counts what has failed, and logs it if somebody has to look at it.
    fn note(&self, address: Option<SocketAddr>, reason: Reason, text: &str) {
        self.counters.refuse(reason);
        let shown = address.map(tracing::field::display);
        if reason.is_ordinary() {
            tracing::debug!(address = shown, reason = reason.label(), text, "no link");
        } else if self.logged.is_due(address, reason, self.now()) {
            tracing::warn!(address = shown, reason = reason.label(), text, "no link");
        }
    }
}

/// The handshakes that others have begun, oldest first; each is cancelled when it ends, or has to.
#[derive(Default)]
struct Handshakes(VecDeque<CancellationToken>);

impl Handshakes {
    fn begin(&mut self) -> CancellationToken {
        self.0.retain(|handshake| !handshake.is_cancelled());
        if self.0.len() >= HANDSHAKES_MAX
            && let Some(oldest) = self.0.pop_front()
        {
            oldest.cancel();
        }
        let handshake = CancellationToken::new();
        self.0.push_back(handshake.clone());
        handshake
    }
}

/// A link's place among those that frames can be pushed to.
pub(super) struct Entry {
    links: Arc<Links>,
    link: Arc<Link>,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.links.linked.rcu(|linked| {
            let mut linked = BTreeMap::clone(linked);
            linked.remove(&self.link.node());
            linked
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_handshake_makes_room() {
        let mut handshakes = Handshakes::default();
        let begun: Vec<_> = (0..HANDSHAKES_MAX).map(|_| handshakes.begin()).collect();
        begun[5].cancel();
        let after_an_end = handshakes.begin();
        assert!(!begun[0].is_cancelled(), "there was room");
        handshakes.begin();
        assert!(begun[0].is_cancelled() && !begun[1].is_cancelled());
        assert!(!after_an_end.is_cancelled());
    }
}
