//! One link: its queues, and the tasks that write and read them.

use std::{
    io,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU8, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{
    io::AsyncWriteExt,
    task::{JoinError, JoinSet},
};
use tokio_util::sync::CancellationToken;

use super::{
    Down, Introduction, LaneKind, LinkCounters, LinkStatus, Links,
    lane::{Budget, CONTROL_BUDGET, DATA_BUDGET, GOSSIP_BUDGET, Queue},
    pairing::Claim,
    reader::{self, ReadFault},
    transport::{CloseCode, Connection, Ended},
};
use crate::{
    NodeId,
    wire::{LANES, Lane},
};

/// All lanes of a link in one direction.
const ALL: [Lane; LANES + 2] =
    [Lane::Control, Lane::Gossip, Lane::Data(0), Lane::Data(1), Lane::Data(2), Lane::Data(3)];

/// The byte that a lane's stream begins with.
pub(super) fn number(lane: Lane) -> u8 {
    match lane {
        Lane::Control => 0,
        Lane::Gossip => 1,
        Lane::Data(lane) => 2 + lane,
    }
}

/// Which lane a stream is that begins so.
pub(super) fn lane(number: u8) -> Option<Lane> {
    ALL.get(usize::from(number)).copied()
}

fn priority(lane: Lane) -> i32 {
    match lane {
        Lane::Control => 2,
        Lane::Gossip => 1,
        Lane::Data(_) => 0,
    }
}

/// A link to a peer.
pub(super) struct Link {
    pub(super) peer: Introduction,
    connection: Arc<dyn Connection>,
    control: Queue,
    gossip: Queue,
    data: [Queue; LANES],
    /// By [`LaneKind`].
    budgets: [Arc<Budget>; LaneKind::ALL.len()],
    /// When the last frame was sent whose answer has come, by the node's clock: until then it carried
    /// both ways.
    answered_ns: AtomicU64,
    /// Bytes of frames that were handed to the transport.
    sent_bytes: AtomicU64,
    /// Bytes of frames that were received whole.
    received_bytes: AtomicU64,
    /// The peer's lanes that were opened, a bit each.
    opened: AtomicU8,
    /// Why this node ends it; the first reason stands.
    why: OnceLock<(Down, CloseCode)>,
    ending: CancellationToken,
    flushed: CancellationToken,
    ended: CancellationToken,
}

impl Link {
    pub(super) fn new(
        peer: Introduction,
        connection: Arc<dyn Connection>,
        now: Duration,
    ) -> Arc<Self> {
        let budgets = [CONTROL_BUDGET, GOSSIP_BUDGET, DATA_BUDGET].map(Budget::new);
        let [control, gossip, data] = &budgets;
        let link = Self {
            peer,
            connection,
            control: Queue::new(control.clone()),
            gossip: Queue::new(gossip.clone()),
            data: std::array::from_fn(|_| Queue::to_be_started(data.clone())),
            budgets,
            answered_ns: AtomicU64::default(),
            sent_bytes: AtomicU64::default(),
            received_bytes: AtomicU64::default(),
            opened: AtomicU8::default(),
            why: OnceLock::new(),
            ending: CancellationToken::new(),
            flushed: CancellationToken::new(),
            ended: CancellationToken::new(),
        };
        link.answered(now);
        Arc::new(link)
    }

    pub(super) fn node(&self) -> NodeId {
        self.peer.incarnation.node
    }

    /// The queue of a lane; none if there is no such lane.
    pub(super) fn queue(&self, lane: Lane) -> Option<&Queue> {
        match lane {
            Lane::Control => Some(&self.control),
            Lane::Gossip => Some(&self.gossip),
            Lane::Data(lane) => self.data.get(usize::from(lane)),
        }
    }

    /// Ends it for this reason, unless it ends already.
    pub(super) fn end(&self, why: Down) {
        let code = match why {
            Down::Violation => CloseCode::Violation,
            Down::Left => CloseCode::Left,
            Down::Lost | Down::Closed => CloseCode::Closed,
        };
        self.end_with(why, code);
    }

    /// Says goodbye: the peer will see [`Down::Left`].
    pub(super) fn say_goodbye(&self) {
        self.end_with(Down::Closed, CloseCode::Left);
    }

    fn end_with(&self, why: Down, code: CloseCode) {
        let _ = self.why.set((why, code));
        self.ending.cancel();
    }

    /// Takes no more frames, and waits until the peer has received all that waited. What gossip says until
    /// the rest is there goes with it: that this node leaves is said in these moments.
    pub(super) async fn flush(&self) {
        self.close_queues(|lane| lane != Lane::Gossip);
        self.flushed.cancelled().await;
    }

    /// Waits until all its events were given.
    pub(super) async fn ended(&self) {
        self.ended.cancelled().await;
    }

    /// What was sent at that moment has been answered.
    pub(super) fn answered(&self, sent: Duration) {
        self.answered_ns.fetch_max(u64::try_from(sent.as_nanos()).unwrap_or(u64::MAX), Relaxed);
    }

    /// When the last frame was sent whose answer has come.
    pub(super) fn last_answered(&self) -> Duration {
        Duration::from_nanos(self.answered_ns.load(Relaxed))
    }

    /// Frames of so many bytes came.
    pub(super) fn received(&self, bytes: u64) {
        self.received_bytes.fetch_add(bytes, Relaxed);
    }

    pub(super) fn is_violated(&self) -> bool {
        matches!(self.why.get(), Some((Down::Violation, _)))
    }

    /// Whether the peer opens this lane for the first time.
    pub(super) fn opens(&self, lane: Lane) -> bool {
        let bit = 1 << number(lane);
        self.opened.fetch_or(bit, Relaxed) & bit == 0
    }

    pub(super) fn status(&self, now: Duration) -> LinkStatus {
        LinkStatus {
            peer: self.peer.clone(),
            rtt: self.connection.rtt(),
            queue_bytes: self.budgets.iter().map(|budget| budget.bytes()).sum(),
            sent_bytes: self.sent_bytes.load(Relaxed),
            received_bytes: self.received_bytes.load(Relaxed),
            packets: self.connection.packets(),
            silent_for: now.saturating_sub(self.last_answered()),
        }
    }

    /// Carries frames both ways until the end. Gives [`up`](super::LinkEvents::up) first and
    /// [`down`](super::LinkEvents::down) last; calls `linked` after the former.
    pub(super) async fn run(
        self: Arc<Self>,
        links: Arc<Links>,
        claim: Claim,
        linked: impl FnOnce(),
    ) {
        let entry = links.enter(&self);
        links.counters.up();
        tracing::info!(peer = %self.peer.name, node = %self.node(), address = %self.peer.address, "linked");
        links.events.up(&self.peer);
        linked();
        if links.leaving.is_cancelled() {
            self.say_goodbye();
        }
        let mut tasks = Tasks::default();
        for lane in ALL {
            tasks.writers.spawn(self.clone().write(lane, links.clone()));
        }
        let ended = self.carry(&mut tasks, &links, &claim).await;
        drop(entry);
        claim.release();
        tasks.writers.shutdown().await;
        self.count_lost(&links.counters);
        while let Some(done) = tasks.readers.join_next().await {
            self.notice(done, &links.counters);
        }
        let why = self.why(&ended);
        links.counters.down(why);
        tracing::info!(peer = %self.peer.name, node = %self.node(), ?why, %ended, "link is down");
        links.events.down(self.peer.incarnation, why);
        self.flushed.cancel();
        self.ended.cancel();
    }

    /// Counts what waits and is written no more. Whoever found the link when it was there still may be
    /// about to push: from here on that finds none.
    fn count_lost(&self, counters: &LinkCounters) {
        self.close_queues(|_| true);
        for (kind, budget) in LaneKind::ALL.into_iter().zip(&self.budgets) {
            counters.lost(kind, budget.frames() as u64);
        }
    }

    fn close_queues(&self, which: impl Fn(Lane) -> bool) {
        let lanes = ALL.into_iter().filter(|lane| which(*lane));
        lanes.filter_map(|lane| self.queue(lane)).for_each(Queue::close);
    }

    async fn carry(
        self: &Arc<Self>,
        tasks: &mut Tasks,
        links: &Arc<Links>,
        claim: &Claim,
    ) -> Ended {
        let mut told = false;
        loop {
            tokio::select! {
                biased;
                stream = self.connection.accept_uni() => match stream {
                    Ok(stream) if tasks.read < ALL.len() => {
                        tasks.read += 1;
                        tasks.readers.spawn(reader::read(self.clone(), links.clone(), stream));
                    }
                    Ok(_) => self.violated("a stream that is no lane"),
                    Err(ended) => return ended,
                },
                Ok(_) = self.connection.accept_bi() => self.violated("a second handshake"),
                // What was received before the end is accepted first, above.
                _ = self.connection.closed() => {}
                () = self.ending.cancelled(), if !told => {
                    told = true;
                    let (why, code) = self.why.get().copied().unwrap_or((Down::Closed, CloseCode::Closed));
                    self.connection.close(code, why.label());
                }
                () = claim.replaced().cancelled(), if !told => self.end(Down::Lost),
                Some(done) = tasks.writers.join_next() => {
                    self.notice(done.map(|written| written.map_err(ReadFault::from)), &links.counters);
                    match tasks.writers.len() {
                        0 => self.flushed.cancel(),
                        1 => self.gossip.close(),
                        _ => {}
                    }
                }
                Some(done) = tasks.readers.join_next() => self.notice(done, &links.counters),
            }
        }
    }

    async fn write(self: Arc<Self>, lane: Lane, links: Arc<Links>) -> io::Result<()> {
        let Some(queue) = self.queue(lane) else { return Ok(()) };
        let mut stream = self.connection.open_uni(priority(lane)).await?;
        stream.write_all(&[number(lane)]).await?;
        let count = |frames, bytes| {
            links.counters.sent(lane.into(), frames, bytes);
            self.sent_bytes.fetch_add(bytes, Relaxed);
        };
        queue.write(&mut *stream, count).await
    }

    /// A task has ended: if not well, neither does the link.
    fn notice(&self, done: Result<Result<(), ReadFault>, JoinError>, counters: &LinkCounters) {
        match done {
            Ok(Err(ReadFault::Io(_))) => self.end(Down::Lost),
            Ok(Err(fault)) => self.violated(&fault.to_string()),
            Err(error) if error.is_panic() => {
                counters.panicked();
                tracing::error!(peer = %self.peer.name, %error, "a link's task has panicked");
                self.end(Down::Lost);
            }
            Ok(Ok(())) | Err(_) => {}
        }
    }

    fn violated(&self, what: &str) {
        if !self.is_violated() {
            tracing::warn!(
                peer = %self.peer.name, node = %self.node(), release = %self.peer.version, what,
                "the peer breaks the rules of the wire; the link is closed",
            );
        }
        self.end(Down::Violation);
    }

    fn why(&self, ended: &Ended) -> Down {
        match ended {
            Ended::Here => self.why.get().map_or(Down::Closed, |(why, _)| *why),
            Ended::There { code: CloseCode::Left, .. } => Down::Left,
            Ended::There { .. } | Ended::Distrusted | Ended::Expired | Ended::Lost(_) => Down::Lost,
        }
    }
}

#[derive(Default)]
struct Tasks {
    writers: JoinSet<io::Result<()>>,
    readers: JoinSet<Result<(), ReadFault>>,
    /// How many readers there were.
    read: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_lane_has_its_number() {
        for (expected, each) in ALL.into_iter().enumerate() {
            assert_eq!(usize::from(number(each)), expected);
            assert_eq!(lane(number(each)), Some(each));
        }
        assert_eq!(lane(6), None);
    }
}
