//! One agent of a measurement: connects, sends when it is its turn, and checks all that it hears.
//!
//! A task of its own, with one socket. Reads and writes as much at a time as there is, so that the
//! measuring costs little beside what is measured.

use std::{
    ops::Range,
    pin::pin,
    sync::{Arc, atomic::Ordering},
};

use bytes::BytesMut;
use futures_util::{FutureExt as _, SinkExt as _, StreamExt as _};
use hyper::StatusCode;
use tokio_tungstenite::tungstenite::{self, Message, Utf8Bytes};

use super::{
    board::{Board, Round},
    checker::{Faults, Stream},
    flaw::Flaw,
    schedule::Pacing,
    stamp::{self, Letter, Reading},
};
use crate::agent::{
    failure::Failure,
    message::Received,
    session::{Dialer, Session, closed, refuse_error},
};

/// Bytes of each agent's read buffer: small, for there may be many.
const READ_BYTES: usize = 4 << 10;
/// Bytes that are gathered before they are written.
const WRITE_BYTES: usize = 16 << 10;
/// Messages that are read or sent before the other is looked at.
const AT_A_TIME: usize = 64;
/// Bytes of the block that outgoing messages are cut from.
const BLOCK_BYTES: usize = 32 << 10;

/// What an agent does.
pub(super) struct Role {
    /// The flow that it is the sender of, and whom it names.
    pub(super) sends: Option<(usize, String)>,
    /// The flows that it hears, its own left out.
    pub(super) hears: Range<usize>,
}

/// What an agent saw.
#[derive(Default)]
pub(super) struct Seen {
    /// Of all that it should have heard.
    pub(super) faults: Faults,
    /// Messages that are none of this run.
    pub(super) foreign: u64,
}

/// An agent that is connected.
struct Member {
    board: Arc<Board>,
    /// Which of all; spreads those who record.
    index: usize,
    speaker: Option<Speaker>,
    ear: Ear,
}

struct Speaker {
    flow: usize,
    letter: Letter,
    block: BytesMut,
    lags: Vec<u64>,
}

struct Ear {
    hears: Range<usize>,
    own: Option<usize>,
    streams: Vec<Stream>,
    spoilt: u64,
    foreign: u64,
    /// Of the messages read at a time: how long they took, and whose they were.
    latencies: Vec<u64>,
    senders: Vec<usize>,
    heard: u64,
    heard_measured: u64,
}

/// Connects and takes part until the board says stop.
pub(super) async fn take_part(
    board: Arc<Board>,
    index: usize,
    dialer: Dialer,
    role: Role,
) -> Result<Seen, Failure> {
    // Boxed, so that what only the handshake needs is given back after it.
    let session = Box::pin(connect(&board, index, &dialer)).await;
    let mut session = session.map_err(|failure| named(index, failure))?;
    drop(dialer);
    let own = role.sends.as_ref().map(|(flow, _)| *flow);
    let speaker = role.sends.map(|(flow, to)| Speaker {
        flow,
        letter: Letter::new(&to, board.run, flow, board.size),
        block: BytesMut::new(),
        lags: Vec::new(),
    });
    let mut member = Member { speaker, ear: Ear::new(role.hears, own), board, index };
    member.go_on(&mut session).await?;
    let seen = member.seen();
    session.close().await;
    Ok(seen)
}

async fn connect(board: &Board, index: usize, dialer: &Dialer) -> Result<Session, Failure> {
    // The semaphore is never closed.
    let _door = board.doors.acquire().await;
    let start = board.now_ns();
    let session = dialer.open_buffered(READ_BYTES, WRITE_BYTES).await?;
    board.handshakes.record(index, &[board.now_ns().saturating_sub(start)]);
    board.connected.fetch_add(1, Ordering::AcqRel);
    Ok(session)
}

/// Whom the relay refuses is told by its number: others may take its place.
fn named(index: usize, failure: Failure) -> Failure {
    match failure {
        Failure::Refused { status: StatusCode::UNAUTHORIZED, .. } => {
            Flaw::Refused { agents: [index].into(), why: Box::new(failure) }.into()
        }
        failure => failure,
    }
}

impl Member {
    async fn go_on(&mut self, session: &mut Session) -> Result<(), Failure> {
        let board = Arc::clone(&self.board);
        let own = self.speaker.as_ref().and_then(|speaker| board.flows.get(speaker.flow));
        let mut stopped = pin!(board.stop.cancelled());
        loop {
            let turn = async {
                match own {
                    Some(flow) => flow.turn.notified().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = &mut stopped => return Ok(()),
                frame = session.socket().next() => self.hear(frame, session)?,
                () = turn => self.speak(session).await?,
            }
        }
    }

    /// Takes this frame and those that have come with it, but not more than some at a time.
    fn hear(&mut self, first: Option<Frame>, session: &mut Session) -> Result<(), Failure> {
        let round = self.board.round.get();
        let mut frame = first;
        for left in (0..AT_A_TIME).rev() {
            match frame {
                Some(Ok(Message::Text(text))) => self.ear.take(&text, &self.board, round)?,
                Some(Ok(Message::Close(frame))) => return Err(closed(frame)),
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(Box::new(error).into()),
                None => return Err(closed(None)),
            }
            // What is read is taken: nothing is read when there is no turn left to take it.
            match (left > 0).then(|| session.socket().next().now_or_never()).flatten() {
                Some(next) => frame = next,
                None => break,
            }
        }
        self.ear.report(&self.board, round, self.index);
        Ok(())
    }

    /// Sends what is due, but not more than some at a time.
    async fn speak(&mut self, session: &mut Session) -> Result<(), Failure> {
        let Self { board, speaker, index, .. } = self;
        let (Some(round), Some(speaker)) = (board.round.get(), speaker) else { return Ok(()) };
        let Some(flow) = board.flows.get(speaker.flow) else { return Ok(()) };
        let mut is_more = true;
        for _ in 0..AT_A_TIME {
            let now = board.now_ns();
            let Some(due) = round.next_due(flow, speaker.flow, now) else {
                is_more = false;
                break;
            };
            let number = flow.sent.fetch_add(1, Ordering::AcqRel);
            session.socket().feed(speaker.message(number, due)).await.map_err(Box::new)?;
            if round.measured_ns.contains(&due) {
                speaker.lags.push(now.saturating_sub(due));
            }
        }
        session.socket().flush().await.map_err(Box::new)?;
        board.lags.record(*index, &speaker.lags);
        speaker.lags.clear();
        if is_more {
            flow.turn.notify_one();
        }
        Ok(())
    }

    fn seen(self) -> Seen {
        let Ear { hears, own, streams, spoilt, foreign, .. } = self.ear;
        let mut faults = Faults { spoilt, ..Faults::default() };
        for (flow, stream) in hears.zip(&streams) {
            if let Some(sender) = self.board.flows.get(flow).filter(|_| Some(flow) != own) {
                faults.add(&stream.faults(sender.sent.load(Ordering::Acquire)));
            }
        }
        Seen { faults, foreign }
    }
}

type Frame = Result<Message, tungstenite::Error>;

impl Speaker {
    fn message(&mut self, number: u64, due_ns: u64) -> Message {
        let text = self.letter.stamped(number, due_ns);
        if self.block.capacity() < text.len() {
            // Takes the old block again if all that was cut from it is written.
            self.block.reserve(text.len().max(BLOCK_BYTES));
        }
        self.block.extend_from_slice(text);
        // It is ASCII; anything else would be refused by the relay and told.
        Message::Text(Utf8Bytes::try_from(self.block.split().freeze()).unwrap_or_default())
    }
}

impl Ear {
    fn new(hears: Range<usize>, own: Option<usize>) -> Self {
        let streams = hears.clone().map(|_| Stream::default()).collect();
        Self {
            hears,
            own,
            streams,
            spoilt: 0,
            foreign: 0,
            latencies: Vec::new(),
            senders: Vec::new(),
            heard: 0,
            heard_measured: 0,
        }
    }

    fn take(&mut self, text: &str, board: &Board, round: Option<&Round>) -> Result<(), Failure> {
        let now = board.now_ns();
        let (stamp, from) = match stamp::read(text, board.size) {
            Reading::Sound(stamp, from) if stamp.run == board.run => (stamp, from),
            Reading::Spoilt => {
                self.spoilt += 1;
                return Ok(());
            }
            Reading::Sound(..) | Reading::Foreign => {
                self.foreign += 1;
                return relays_word(text);
            }
        };
        let place = stamp.sender.checked_sub(self.hears.start);
        let stream = place.and_then(|place| self.streams.get_mut(place));
        let flow = board.flows.get(stamp.sender).filter(|flow| flow.name == from);
        let (Some(stream), Some(flow), false) = (stream, flow, self.own == Some(stamp.sender))
        else {
            self.spoilt += 1;
            return Ok(());
        };
        if !stream.note(stamp.number) {
            return Ok(());
        }
        flow.delivered.fetch_add(1, Ordering::AcqRel);
        self.heard += 1;
        if self.senders.last() != Some(&stamp.sender) {
            self.senders.push(stamp.sender);
        }
        let Some(round) = round else { return Ok(()) };
        self.heard_measured += u64::from(round.measured_ns.contains(&now));
        if round.measured_ns.contains(&stamp.due_ns) {
            self.latencies.push(now.saturating_sub(stamp.due_ns));
        }
        Ok(())
    }

    /// Tells the board what was heard, and wakes those whose window it may have opened.
    fn report(&mut self, board: &Board, round: Option<&Round>, index: usize) {
        board.latencies.record(index, &self.latencies);
        self.latencies.clear();
        board.delivered.fetch_add(std::mem::take(&mut self.heard), Ordering::AcqRel);
        let measured = std::mem::take(&mut self.heard_measured);
        board.delivered_measured.fetch_add(measured, Ordering::AcqRel);
        let waits = matches!(round, Some(Round { pacing: Pacing::Window(_), .. }));
        for sender in self.senders.drain(..) {
            if let Some(flow) = board.flows.get(sender).filter(|_| waits) {
                flow.turn.notify_one();
            }
        }
    }
}

/// What the relay itself says may be that it has refused a message.
fn relays_word(text: &str) -> Result<(), Failure> {
    if text.contains("\"from\":\"relay\"") {
        refuse_error(&Received::from(Utf8Bytes::from(text)))?;
    }
    Ok(())
}
