//! The one task of a session: it reads, and it writes what nobody else could.
//!
//! Reading goes through one buffer per thread, so that an idle session holds none. What is left of
//! an unfinished frame is kept in the session until the rest has come.

use std::{
    cell::RefCell,
    future::poll_fn,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use cluster::UnixMillis;
use tokio::{
    io::{AsyncRead, ReadBuf},
    time::{Sleep, sleep},
};

use super::{
    End, Life, Session, Waiting,
    inbound::{Inbound, Stop, Turn},
    outbox::Frame,
};
use crate::{
    net::ReadHalf,
    relay::Relay,
    router::Outgoing,
    sessions::{Entered, Entry},
    ws::{CloseCode, Event, Reader, Step, Violation},
};

/// Bytes read at a time; holds a message of the default greatest size whole.
const READ_BYTES: usize = 128 * 1_024;

/// An unfinished frame of up to this many bytes is moved back into the thread's buffer, so that
/// what follows it is read along with its rest.
const MOVED_MAX: usize = 4_096;

/// After this many full reads other sessions get their turn.
const READS_PER_TURN: usize = 4;

/// After so many flushes, too.
const FLUSHES_PER_TURN: usize = 4;

/// One read in so many is timed.
const TIMED_READS: u32 = 64;

/// How long a closing session waits for its agent to take the close frame and to answer it.
const CLOSING_DEADLINE: Duration = Duration::from_secs(5);

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::new(Scratch {
        read: vec![0; READ_BYTES].into(),
        work: Work { frame: Vec::new(), unwritten: Vec::new() },
    });
}

/// What the sessions of a thread share, since only one of them runs at a time.
struct Scratch {
    read: Box<[u8]>,
    work: Work,
}

struct Work {
    frame: Vec<u8>,
    unwritten: Vec<Arc<Session>>,
}

/// A session's task.
pub struct Actor {
    relay: Arc<Relay>,
    session: Arc<Session>,
    inbound: Inbound,
    reads: ReadHalf,
    reader: Reader,
    /// The beginning of a frame whose rest has not come.
    unfinished: Vec<u8>,
    /// Bytes that the unfinished frame has when it is whole, as far as its header tells.
    needed: usize,
    listening: Listening,
    /// Whether nothing was read yet, since the session was held; what its agent sent along with its
    /// request is kept in `unfinished`.
    held: bool,
    /// The session's place in the map, until it closes.
    entry: Option<Entry>,
    deadline: Option<Pin<Box<Sleep>>>,
    reads_done: u32,
}

/// What becomes of the bytes that come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Listening {
    /// They are the agent's messages.
    Open,
    /// The relay closes: only the agent's close frame matters.
    ForGoodbye,
    /// The agent broke the rules: its bytes mean nothing any more.
    Deaf,
    /// The agent has said goodbye.
    Over,
}

impl Actor {
    /// Enters the session, with its welcome as the first that it gets, and tells the mesh. `early` is
    /// what the agent sent along with its request.
    pub fn start(
        relay: &Arc<Relay>,
        session: Arc<Session>,
        reads: ReadHalf,
        early: &[u8],
        now: Duration,
        wall: UnixMillis,
    ) -> Self {
        let mut inbound = Inbound::new(Arc::clone(relay), Arc::clone(&session));
        let welcome = inbound.welcome(relay.stamp_time(wall));
        let _ = session.post(&Frame::Small(&welcome), now);
        let entry = match relay.sessions.enter(Arc::clone(&session)) {
            Entered::Alone(entry) => Some(entry),
            Entered::TookOver(entry, older) => {
                older.close(CloseCode::Replaced, REPLACED);
                Some(entry)
            }
            Entered::Outdone => {
                session.close(CloseCode::Replaced, REPLACED);
                None
            }
        };
        tracing::debug!("session opened");
        relay.arrived(&session, now, wall);
        let reader = Reader::new(relay.config.limits.max_message_size);
        Self {
            relay: Arc::clone(relay),
            session,
            inbound,
            reads,
            reader,
            unfinished: early.to_vec(),
            needed: 0,
            listening: Listening::Open,
            held: true,
            entry,
            deadline: None,
            reads_done: 0,
        }
    }

    /// Runs until the session has ended.
    pub async fn run(mut self) {
        poll_fn(|cx| self.poll_turn(cx)).await;
    }

    fn poll_turn(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.session.register(cx.waker());
        for _ in 0..READS_PER_TURN {
            self.write_what_waits(cx);
            if self.is_over() || self.poll_deadline(cx).is_ready() {
                return Poll::Ready(());
            }
            if self.held {
                ready!(self.poll_admitted());
                continue;
            }
            if ready!(self.poll_read(cx)).is_err() {
                return Poll::Ready(());
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Writes a few times at most; a flush that leaves something behind wakes this task again.
    fn write_what_waits(&mut self, cx: &mut Context<'_>) {
        for _ in 0..FLUSHES_PER_TURN {
            let (life, waiting) = self.session.state();
            if life != Life::Open {
                self.leave();
            }
            let writable = match waiting {
                Waiting::Nothing => false,
                Waiting::Untried => true,
                Waiting::Blocked => self.session.poll_writable(cx).is_ready(),
            };
            if !writable {
                return;
            }
            self.session.flush(self.relay.clock.elapsed());
        }
    }

    /// Gives up the session's place: messages go elsewhere, or nowhere, from now on.
    fn leave(&mut self) {
        if self.listening == Listening::Open {
            self.listening = Listening::ForGoodbye;
        }
        self.give_back_entry();
        if self.deadline.is_none() {
            self.deadline = Some(Box::pin(sleep(CLOSING_DEADLINE)));
        }
    }

    fn give_back_entry(&mut self) {
        if let Some(entry) = self.entry.take() {
            self.relay.left(&self.session, entry, self.inbound.give_back_limiter());
        }
    }

    fn is_over(&self) -> bool {
        match self.session.state().0 {
            Life::Open | Life::Closing => false,
            Life::Dead => true,
            Life::Closed if self.listening == Listening::Deaf => {
                // The agent's goodbye would not be understood: the end of the stream tells it to go.
                self.session.shut_down_writing();
                false
            }
            // What TLS keeps is sent while this reads on; the deadline of closing bounds that.
            Life::Closed => self.listening == Listening::Over && self.session.shut_down_writing(),
        }
    }

    fn poll_deadline(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.deadline {
            Some(deadline) => deadline.as_mut().poll(cx),
            None => Poll::Pending,
        }
    }

    /// Ready once the session is admitted, or closing, and what its agent sent early was acted on.
    fn poll_admitted(&mut self) -> Poll<()> {
        if self.session.is_held() {
            return Poll::Pending;
        }
        self.held = false;
        let mut early = std::mem::take(&mut self.unfinished);
        if !early.is_empty() {
            SCRATCH.with_borrow_mut(|scratch| self.read_in(&mut early, &mut scratch.work));
        }
        Poll::Ready(())
    }

    /// Reads once and acts on it. An error is the end of the connection, whatever the reason.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        SCRATCH.with_borrow_mut(|Scratch { read, work }| {
            if self.unfinished.len() > MOVED_MAX {
                return self.poll_read_rest(cx, work);
            }
            let start = self.unfinished.len();
            read[..start].copy_from_slice(&self.unfinished);
            let mut buf = ReadBuf::new(&mut read[start..]);
            ready!(Pin::new(&mut self.reads).poll_read(cx, &mut buf))?;
            let got = buf.filled().len();
            if got == 0 {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
            self.unfinished = Vec::new();
            self.read_in(&mut read[..start + got], work);
            Poll::Ready(Ok(()))
        })
    }

    /// Reads no more than the rest of a large unfinished frame, right behind its beginning.
    fn poll_read_rest(&mut self, cx: &mut Context<'_>, work: &mut Work) -> Poll<io::Result<()>> {
        let start = self.unfinished.len();
        let end = self.needed.clamp(start + 1, start + READ_BYTES);
        self.unfinished.resize(end, 0);
        let mut buf = ReadBuf::new(&mut self.unfinished[start..]);
        let polled = Pin::new(&mut self.reads).poll_read(cx, &mut buf);
        let got = buf.filled().len();
        self.unfinished.truncate(start + got);
        ready!(polled)?;
        if got == 0 {
            return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
        }
        if self.unfinished.len() >= self.needed {
            let mut whole = std::mem::take(&mut self.unfinished);
            self.read_in(&mut whole, work);
        } else {
            self.session.hear(self.relay.clock.elapsed());
        }
        Poll::Ready(Ok(()))
    }

    /// Acts on the frames in `bytes`, which start at a frame's beginning.
    fn read_in(&mut self, bytes: &mut [u8], work: &mut Work) {
        let (now, wall) = (self.relay.clock.elapsed(), self.relay.clock.wall());
        self.session.hear(now);
        if matches!(self.listening, Listening::Deaf | Listening::Over) {
            return;
        }
        let relay = Arc::clone(&self.relay);
        let outgoing = Outgoing::new(&relay, now, &mut work.unwritten);
        let ts = relay.stamp_time(wall);
        let mut turn = Turn { wall, ts, outgoing, frame: &mut work.frame };
        self.frames(bytes, &mut turn);
        drop(turn);
        self.reads_done = self.reads_done.wrapping_add(1);
        if self.reads_done % TIMED_READS == 1 {
            let spent = relay.clock.elapsed().saturating_sub(now);
            relay.metrics.relay_seconds.record(spent);
        }
    }

    fn frames(&mut self, bytes: &mut [u8], turn: &mut Turn<'_>) {
        let mut rest = bytes;
        while !rest.is_empty() {
            let (consumed, stop) = match self.reader.next(rest) {
                Ok(Step::Event { event, consumed }) => {
                    let goodbye = matches!(event, Event::Close { .. });
                    let heed = self.listening == Listening::Open || goodbye;
                    let result = if heed { self.inbound.event(event, turn) } else { Ok(()) };
                    (consumed, result.err())
                }
                Ok(Step::Fragment { consumed }) => (consumed, None),
                Ok(Step::Incomplete { total }) => {
                    self.unfinished = Vec::with_capacity(total.max(rest.len()));
                    self.unfinished.extend_from_slice(rest);
                    self.needed = total;
                    return;
                }
                Err(violation) => return self.violated(violation, turn),
            };
            if let Some(stop) = stop {
                self.stop(&stop);
            }
            if self.listening == Listening::Over {
                return;
            }
            rest = rest.get_mut(consumed..).unwrap_or_default();
        }
    }

    fn violated(&mut self, violation: Violation, turn: &mut Turn<'_>) {
        if violation == Violation::TooLarge && self.listening == Listening::Open {
            self.inbound.too_large(turn);
        }
        self.session.close(violation.close_code(), &violation.to_string());
        self.listening = Listening::Deaf;
        self.unfinished = Vec::new();
    }

    fn stop(&mut self, stop: &Stop) {
        match *stop {
            Stop::Goodbye(code) => {
                self.session.answer_close(code);
                self.listening = Listening::Over;
            }
            Stop::Close(code, reason) => {
                self.session.close(code, reason);
                self.listening = Listening::ForGoodbye;
            }
        }
    }
}

/// However the task ends, what it took is given back and the end is counted.
impl Drop for Actor {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.session.close(CloseCode::InternalError, "internal error");
            self.session.flush(self.relay.clock.elapsed());
        }
        let lost = self.session.kill(End::Lost);
        self.relay.metrics.dropped.session_lost.increment(lost as u64);
        self.session.shut_down_writing();
        self.give_back_entry();
        self.relay.ended(&self.session, self.inbound.last_stamped());
    }
}

/// Why an older session ends, as its close frame says.
pub const REPLACED: &str = "replaced by a newer session of this agent";

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a failed unwrap is a failed test
mod tests {
    use cluster::registry::Claim;
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _, BufWriter, duplex},
        join,
    };

    use super::*;
    use crate::{
        deliver::Sink,
        net::Connection,
        peers::testing::{Shown, mesh},
        relay::{Phase, testing::relay},
        session::{Opening, outbox::OutboxLimits},
    };

    /// The agent's goodbye, with the code 1000.
    const GOODBYE: [u8; 8] = [0x88, 0x82, 0, 0, 0, 0, 0x03, 0xe8];

    /// What an agent gets that says this, and says goodbye, on a connection that takes all at once and
    /// sends it later, as TLS does.
    async fn got(relay: &Arc<Relay>, says: &[u8]) -> (Vec<u8>, Option<End>) {
        relay.enter_phase(Phase::Serving);
        let (mut agent, stream) = duplex(16);
        let (reads, socket) = Connection::of(BufWriter::with_capacity(1 << 16, stream)).split();
        let token = relay.registry.register(None, Claim::random()).await.unwrap().token;
        let (now, wall) = (relay.clock.elapsed(), relay.clock.wall());
        let opening = Opening {
            id: relay.next_session_id(wall),
            grant: relay.registry.verify(&token, wall).unwrap(),
            from: [127, 0, 0, 1].into(),
            socket,
            limits: OutboxLimits { bytes: 10_000, messages: 10 },
            held: false,
        };
        let session = Arc::new(Session::new(opening, now, wall));
        let actor = Actor::start(relay, Arc::clone(&session), reads, &[], now, wall);
        let life = async move {
            actor.run().await;
            session.end()
        };
        let mut got = Vec::new();
        let client = async {
            agent.write_all(&[says, &GOODBYE].concat()).await.unwrap();
            agent.read_to_end(&mut got).await.unwrap();
        };
        let (end, ()) = join!(life, client);
        (got, end)
    }

    #[tokio::test]
    async fn who_says_goodbye_gets_what_the_connection_keeps_and_the_answer() {
        let (relay, _, _) = relay();
        let ping = br#"{"to":["relay"],"type":"ping"}"#;
        let header = [0x81, 0x80 | u8::try_from(ping.len()).unwrap(), 0, 0, 0, 0];
        let (got, end) = got(&relay, &[&header[..], ping].concat()).await;
        assert!(String::from_utf8_lossy(&got).contains(r#""type":"pong""#), "{got:?}");
        assert!(got.ends_with(&[0x88, 0x02, 0x03, 0xe8]), "the answer is the last: {got:?}");
        assert_eq!(end, Some(End::Client));
    }

    #[tokio::test]
    async fn messages_show_the_time_of_the_fastest_clock_that_links_allow() {
        let (relay, _, _) = relay();
        relay.join(mesh(relay.node, Arc::new(Sink::new(&relay))), Arc::<Shown>::default());
        let ping = br#"{"to":["relay"],"type":"ping"}"#;
        let header = [0x81, 0x80 | u8::try_from(ping.len()).unwrap(), 0, 0, 0, 0];
        let wall = relay.clock.wall();
        for (learned, shown) in [(0, 0), (20, 20), (10, 20), (45, 30)] {
            relay.mesh().unwrap().learn_time(wall, wall.plus(Duration::from_secs(learned)));
            let (got, _) = got(&relay, &[&header[..], ping].concat()).await;
            let ts = format!(r#""ts":{}}}"#, wall.plus(Duration::from_secs(shown)).0);
            let times = String::from_utf8_lossy(&got).matches(&ts).count();
            assert_eq!(times, 2, "welcome and pong at {learned}: {ts}");
        }
    }

    #[tokio::test]
    async fn a_pong_is_no_message() {
        let (relay, _, _) = relay();
        let (got, _) = got(&relay, &[0x89, 0x80, 0, 0, 0, 0]).await;
        assert!(got.ends_with(&[0x8a, 0x00, 0x88, 0x02, 0x03, 0xe8]), "{got:?}");
        let none = "arc_messages_delivered_total{kind=\"relay\"} 0";
        assert!(relay.metrics.render().lines().any(|line| line == none));
    }
}
