//! One live WebSocket of one agent.
//!
//! [`Session`] is the handle that everybody else holds: whoever delivers puts frames into its
//! outbox and may write them to the socket at once. The reading half and all decisions about what
//! the agent sends belong to its one [`actor`].

pub mod actor;
mod end;
#[cfg(test)]
mod held_tests;
mod inbound;
pub mod outbox;
mod permission;
#[cfg(test)]
pub(crate) mod testing;

use std::{
    fmt,
    io::{self, IoSlice},
    net::IpAddr,
    sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering},
    task::{Context, Poll, Waker},
    time::Duration,
};

use atomic_waker::AtomicWaker;
use cluster::{
    AgentId, SessionId, UnixMillis,
    token::{Grant, TokenError},
    wire::lane_of,
};
use parking_lot::Mutex;

use crate::{
    config::Timing,
    net::WriteHalf,
    ws::{
        CloseCode,
        frame::{close_frame, ping_frame},
    },
};
pub use end::End;
use outbox::{AfterWrite, Batch, Frame, Offer, Outbox, OutboxLimits, SLICES_MAX, WriteOutcome};

/// Why a slow consumer is cut off, as its close frame says.
const SLOW_READER: &str = "slow consumer: messages waited for too long; read faster";

/// How often an outbox is emptied for one message, when others fill it at the same time.
const OFFERS_MAX: usize = 4;

/// Write calls in a row by whoever came by; then the session's own task goes on.
const WRITES_MAX: usize = 8;

/// One live WebSocket, as everybody but its actor sees it.
pub struct Session {
    id: SessionId,
    agent: AgentId,
    from: IpAddr,
    grant: Grant,
    opened: Duration,
    socket: Box<dyn WriteHalf>,
    outbox: Mutex<Outbox>,
    limits: OutboxLimits,
    waker: AtomicWaker,
    /// Seconds of the relay's clock, rounded down.
    heard: AtomicU32,
    pinged: AtomicU32,
    may_receive: AtomicBool,
    /// Whether the session is not admitted yet.
    held: AtomicBool,
    /// Whether messages from this node may still be on their way to the agent's former home.
    fenced: AtomicBool,
    /// The data lane of its messages to other nodes.
    lane: u8,
    /// When the grant's answers may change, in Unix milliseconds.
    recheck_at: AtomicU64,
    /// An [`End`], or 0 while the session lives.
    end: AtomicU8,
}

/// What a session is made of.
pub struct Opening {
    /// Its id.
    pub id: SessionId,
    /// What its token allows, and for whom.
    pub grant: Grant,
    /// The client's address.
    pub from: IpAddr,
    /// The connection's writing half.
    pub socket: Box<dyn WriteHalf>,
    /// What may wait for it.
    pub limits: OutboxLimits,
    /// Whether the session waits until the other nodes know of it: until it is
    /// [admitted](Session::admit) nothing is written, nothing is read, broadcasts pass it by, and
    /// messages to it from this node go by way of the mesh.
    pub held: bool,
}

/// What became of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// It waits, and somebody sees to its being written.
    Queued,
    /// It waits, and the caller calls [`Session::flush`] or [`Session::wake`] soon.
    Unwritten,
    /// The session is closing, or its token does not allow it to receive.
    Refused,
    /// The reader is too slow: the session is being closed, and this many messages are lost, this
    /// one included.
    CutOff(usize),
}

/// How far the life of a session is, as its outbox knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    /// It takes messages.
    Open,
    /// A close frame is the last that waits.
    Closing,
    /// The close frame has left.
    Closed,
    /// The socket failed, or was given up.
    Dead,
}

/// What is to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Waiting {
    /// Nothing, or somebody is at it.
    Nothing,
    /// Bytes that nobody tried to write.
    Untried,
    /// Bytes that the socket did not take.
    Blocked,
}

/// What a look at a session's clocks asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// Nothing.
    Nothing,
    /// A ping.
    Ping,
    /// Its end: nothing was heard of it for too long.
    Silent,
    /// Its end: a write waits for its reader for too long.
    Stuck,
}

impl Session {
    /// A session with an empty outbox, heard of `now`.
    pub fn new(opening: Opening, now: Duration, wall: UnixMillis) -> Self {
        let Opening { id, grant, from, socket, limits, held } = opening;
        let session = Self {
            id,
            agent: grant.agent().clone(),
            from,
            opened: now,
            socket,
            outbox: Mutex::new(if held { Outbox::held() } else { Outbox::default() }),
            limits,
            waker: AtomicWaker::new(),
            heard: AtomicU32::new(seconds(now)),
            pinged: AtomicU32::new(seconds(now)),
            may_receive: AtomicBool::new(true),
            held: AtomicBool::new(held),
            fenced: AtomicBool::new(held),
            lane: lane_of(grant.agent().as_str()),
            recheck_at: AtomicU64::new(u64::MAX),
            end: AtomicU8::new(0),
            grant,
        };
        session.note_grant(wall);
        session
    }

    /// The session's id.
    pub fn id(&self) -> SessionId {
        self.id
    }

    /// Whose session it is.
    pub fn agent(&self) -> &AgentId {
        &self.agent
    }

    /// Its client's address.
    pub fn from(&self) -> IpAddr {
        self.from
    }

    /// The data lane of its messages to other nodes.
    pub fn lane(&self) -> u8 {
        self.lane
    }

    /// The other nodes know of the session: it greets its agent, and hears it.
    pub fn admit(&self) {
        // First of all: who has read the welcome may send a broadcast that is for this session.
        self.held.store(false, Ordering::Release);
        self.outbox.lock().release();
        self.wake();
    }

    /// Whether the session waits to be admitted.
    pub fn is_held(&self) -> bool {
        self.held.load(Ordering::Acquire)
    }

    /// Messages from here may go to the session directly.
    pub fn unfence(&self) {
        self.fenced.store(false, Ordering::Release);
    }

    /// Whether messages from here go to the session by way of the mesh, to keep their order with
    /// those on their way to the agent's former home.
    pub fn is_fenced(&self) -> bool {
        self.fenced.load(Ordering::Acquire)
    }

    /// What the session's token allows.
    pub fn grant(&self) -> &Grant {
        &self.grant
    }

    /// When it was opened, by the relay's clock.
    pub fn opened(&self) -> Duration {
        self.opened
    }

    /// Puts a message into the outbox.
    pub fn deliver(&self, frame: &Frame<'_>, now: Duration) -> Delivery {
        if self.may_receive() { self.post(frame, now) } else { Delivery::Refused }
    }

    /// Puts one of the relay's own messages into the outbox, whatever the token allows.
    pub fn post(&self, frame: &Frame<'_>, now: Duration) -> Delivery {
        let mut offer = self.outbox.lock().offer(frame, self.limits);
        for _ in 0..OFFERS_MAX {
            if offer != Offer::Full {
                break;
            }
            self.flush(now);
            offer = self.outbox.lock().offer(frame, self.limits);
        }
        match offer {
            Offer::Queued => Delivery::Queued,
            Offer::First => Delivery::Unwritten,
            Offer::Closed => Delivery::Refused,
            Offer::Full | Offer::TooSlow => {
                let dropped = self.close(CloseCode::SlowConsumer, SLOW_READER);
                Delivery::CutOff(dropped.unwrap_or_default() + 1)
            }
        }
    }

    /// Writes what waits, as far as the socket takes it. Never blocks; any thread may call it.
    pub fn flush(&self, now: Duration) {
        for _ in 0..WRITES_MAX {
            let Some(mut batch) = self.outbox.lock().begin_write() else { return };
            let outcome = self.write(&mut batch);
            let mut outbox = self.outbox.lock();
            let after = outbox.end_write(batch, outcome, now);
            let actor_is_needed = outbox.is_finished() || after == AfterWrite::Blocked;
            drop(outbox);
            if actor_is_needed {
                self.wake();
            }
            if after != AfterWrite::More {
                return;
            }
        }
        self.wake();
    }

    /// Lets the session's own actor look after it: write what waits, or end.
    pub fn wake(&self) {
        self.waker.wake();
    }

    /// Starts to close the session: nothing more is taken, and a close frame is the last that its
    /// agent gets, behind what waits. A slow consumer does not get what waits. Returns the number of
    /// messages dropped, or none if the session was closing already.
    pub fn close(&self, code: CloseCode, reason: &str) -> Option<usize> {
        let mut frame = Vec::new();
        close_frame(code, reason, &mut frame);
        let hurry = code == CloseCode::SlowConsumer;
        let dropped = self.outbox.lock().close(&frame, hurry);
        if dropped.is_some() {
            self.held.store(false, Ordering::Release);
            self.note_end(End::of(code));
            self.log_close(code, reason);
            self.wake();
        }
        dropped
    }

    /// Answers the agent's close frame with its own code (RFC 6455 section 5.5.1), behind what
    /// waits.
    pub fn answer_close(&self, code: Option<u16>) {
        let mut frame = Vec::new();
        close_frame(code.unwrap_or(CloseCode::Normal.into()), "", &mut frame);
        if self.outbox.lock().close(&frame, false).is_some() {
            self.note_end(End::Client);
        }
    }

    /// Ends the session without a word; returns the number of messages dropped.
    pub fn kill(&self, end: End) -> usize {
        let dropped = self.outbox.lock().kill();
        self.held.store(false, Ordering::Release);
        self.note_end(end);
        self.wake();
        dropped
    }

    /// Why the session ended, if it has.
    pub fn end(&self) -> Option<End> {
        End::ALL.into_iter().find(|end| *end as u8 == self.end.load(Ordering::Relaxed))
    }

    /// Whether messages are delivered to the session, as far as its token is asked.
    pub fn may_receive(&self) -> bool {
        self.may_receive.load(Ordering::Relaxed)
    }

    /// Notes that the agent was heard of.
    pub fn hear(&self, now: Duration) {
        self.heard.store(seconds(now), Ordering::Relaxed);
    }

    /// Its clocks stood still for so long: neither the agent's silence then counts, nor that it took
    /// nothing.
    pub fn forgive(&self, time: Duration) {
        self.heard.fetch_add(seconds(time), Ordering::Relaxed);
        self.outbox.lock().forgive(time);
    }

    /// What the session's clocks ask for at `now`.
    pub fn due(&self, now: Duration, timing: &Timing) -> Due {
        let since = |at: &AtomicU32| {
            Duration::from_secs(seconds(now).saturating_sub(at.load(Ordering::Relaxed)).into())
        };
        let blocked_since = self.outbox.lock().blocked_since();
        if blocked_since.is_some_and(|at| now.saturating_sub(at) >= timing.write_deadline) {
            Due::Stuck
        } else if since(&self.heard) >= timing.idle_deadline {
            Due::Silent
        } else if since(&self.pinged) >= timing.ping_interval {
            Due::Ping
        } else {
            Due::Nothing
        }
    }

    /// Sends a ping; the actor writes it. Returns how many messages are lost because there was no
    /// room for it.
    pub fn ping(&self, now: Duration) -> usize {
        self.pinged.store(seconds(now), Ordering::Relaxed);
        let mut frame = Vec::new();
        ping_frame(&[], &mut frame);
        let delivery = self.post(&Frame::Small(&frame), now);
        self.wake();
        match delivery {
            // The ping itself is no message.
            Delivery::CutOff(lost) => lost - 1,
            Delivery::Queued | Delivery::Unwritten | Delivery::Refused => 0,
        }
    }

    /// Looks at the token again if its answers may have changed by `wall`.
    pub fn recheck(&self, wall: UnixMillis) -> Result<(), TokenError> {
        if wall.0 < self.recheck_at.load(Ordering::Relaxed) {
            return Ok(());
        }
        self.note_grant(wall);
        self.grant.check_time(wall)
    }

    /// Bytes that wait in the outbox.
    pub fn outbox_bytes(&self) -> usize {
        self.outbox.lock().bytes()
    }

    fn log_close(&self, code: CloseCode, reason: &str) {
        let (id, agent, code) = (self.id, &self.agent, u16::from(code));
        if code == u16::from(CloseCode::SlowConsumer) {
            tracing::info!(%id, %agent, code, reason, "cut off a slow consumer");
        } else {
            tracing::debug!(%id, %agent, code, reason, "closing a session");
        }
    }

    fn register(&self, waker: &Waker) {
        self.waker.register(waker);
    }

    fn state(&self) -> (Life, Waiting) {
        let outbox = self.outbox.lock();
        let life = match () {
            () if outbox.is_open() => Life::Open,
            () if outbox.is_dead() => Life::Dead,
            () if outbox.is_finished() => Life::Closed,
            () => Life::Closing,
        };
        let waiting = match () {
            () if outbox.wants_write() => Waiting::Untried,
            () if outbox.blocked_since().is_some() => Waiting::Blocked,
            () => Waiting::Nothing,
        };
        (life, waiting)
    }

    fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.socket.poll_write_ready(cx)
    }

    /// Whether the agent was told that nothing more comes; see [`WriteHalf::shut_down_writing`].
    fn shut_down_writing(&self) -> bool {
        self.socket.shut_down_writing()
    }

    fn note_end(&self, end: End) {
        let _ = self.end.compare_exchange(0, end as u8, Ordering::Relaxed, Ordering::Relaxed);
    }

    fn note_grant(&self, wall: UnixMillis) {
        let next = self.grant.next_change(wall).map_or(u64::MAX, |at| at.0);
        self.recheck_at.store(next, Ordering::Relaxed);
        self.may_receive.store(self.grant.may_receive(wall), Ordering::Relaxed);
    }

    fn write(&self, batch: &mut Batch) -> WriteOutcome {
        while !batch.is_empty() {
            let mut slices = [IoSlice::new(&[]); SLICES_MAX];
            let used = batch.slices(&mut slices);
            match self.socket.try_write_vectored(&slices[..used]) {
                Ok(0) => return WriteOutcome::Failed,
                Ok(written) => batch.advance(written),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return WriteOutcome::Blocked;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return WriteOutcome::Failed,
            }
        }
        WriteOutcome::Open
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("id", &self.id)
            .field("agent", &self.agent)
            .finish_non_exhaustive()
    }
}

/// Whole seconds of the relay's clock; enough for 136 years.
fn seconds(now: Duration) -> u32 {
    u32::try_from(now.as_secs()).unwrap_or(u32::MAX)
}
