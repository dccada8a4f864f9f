//! TLS over any connection, as the server's side of it.
//!
//! rustls keeps no buffers here, and records are decrypted in one that all connections of the thread
//! share. A connection that is idle holds its keys and no buffer; one that is not holds the beginning
//! of a record, what its reader had no room for, and what its socket did not take, each bounded. Which certificate is shown, and by which rules, is
//! the [configuration's](tls::agents); who may begin a handshake, and when, `accept`'s.

mod accept;
mod places;
mod turns;

use std::{
    cell::RefCell,
    io::{self, IoSlice},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use rustls::{
    Error, HandshakeKind, InvalidMessage, ProtocolVersion, ServerConfig,
    server::{ServerConnectionData, UnbufferedServerConnection},
    unbuffered::{
        ConnectionState, EncodeError, EncodeTlsData, EncryptError, InsufficientSizeError,
        UnbufferedStatus, WriteTraffic,
    },
};
use tls::agents::ACME_TLS;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{Connection, ReadHalf, Stream, WriteHalf, any};

pub use self::{
    accept::{Acceptor, HandshakeError},
    places::{Begun, Places},
};

/// Bytes of the longest record: its header, 16 KiB of content, and what encryption may add in TLS 1.2
/// (RFC 5246, section 6.2.3).
const RECORD_MAX: usize = 5 + 16_384 + 2_048;

/// Bytes that are read at once, together with what is left of an unfinished record.
const READ_BYTES: usize = 64 * 1_024;

/// Bytes of content that are encrypted at once: so much, and what encryption adds, may wait for the
/// socket beyond what the session's outbox counts.
const WRITE_BYTES: usize = 64 * 1_024;

/// What encryption adds to one record at the most, with room to spare.
const RECORD_OVERHEAD: usize = 64;

/// Bytes of content of one record.
const CONTENT_MAX: usize = 16_384;

thread_local! {
    /// What is being decrypted.
    static RECEIVED: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_BYTES].into());
}

/// A connection, encrypted.
pub struct TlsStream {
    io: Connection,
    tls: UnbufferedServerConnection,
    /// The beginning of a record whose rest has not come; shorter than [`RECORD_MAX`].
    received: Vec<u8>,
    /// Content that its reader had no room for.
    content: Bytes,
    /// Records that are to be sent, from `sent` on.
    unsent: Vec<u8>,
    sent: usize,
    /// Whether the client has said that nothing more comes.
    heard_all: bool,
    /// Whether the client was told so.
    said_all: bool,
    /// Whether the client broke the rules.
    has_failed: bool,
}

/// What rustls asks for next.
enum Step<'c> {
    /// To be asked again.
    Again,
    /// More bytes from the client, for the handshake is not done.
    Handshaking,
    /// More bytes from the client, or content to encrypt.
    Open(WriteTraffic<'c, ServerConnectionData>),
    /// The client says that nothing more comes.
    HeardAll,
    /// Nothing: both sides have said that nothing more comes.
    Over,
}

impl TlsStream {
    /// A connection whose handshake has not begun.
    fn new(io: Connection, config: Arc<ServerConfig>) -> Result<Self, Error> {
        Ok(Self {
            io,
            tls: UnbufferedServerConnection::new(config)?,
            received: Vec::new(),
            content: Bytes::new(),
            unsent: Vec::new(),
            sent: 0,
            heard_all: false,
            said_all: false,
            has_failed: false,
        })
    }

    /// The version that is spoken; none before it is agreed on.
    pub fn version(&self) -> Option<ProtocolVersion> {
        self.tls.protocol_version()
    }

    /// Whether an earlier session was resumed.
    pub fn is_resumed(&self) -> bool {
        self.tls.handshake_kind() == Some(HandshakeKind::Resumed)
    }

    /// Whether all that is spoken is an authority's challenge (RFC 8737).
    pub fn is_challenge(&self) -> bool {
        self.tls.alpn_protocol() == Some(ACME_TLS)
    }

    /// Whether no buffer is held.
    #[cfg(test)]
    fn is_idle(&self) -> bool {
        let buffers = [self.received.capacity(), self.content.len(), self.unsent.capacity()];
        buffers == [0; 3]
    }

    /// Takes in what the client sent, and lets rustls work on it. Content that is complete goes into
    /// `buf`. `Pending` if nothing has come; the end of the connection without a goodbye is an error.
    fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        RECEIVED.with_borrow_mut(|bytes| {
            let start = self.received.len();
            // Content is shorter than its records: no more than one record has to wait for room.
            let end = buf.remaining().clamp(RECORD_MAX, READ_BYTES);
            bytes[..start].copy_from_slice(&self.received);
            let mut fresh = ReadBuf::new(&mut bytes[start..end]);
            ready!(Pin::new(&mut self.io).poll_read(cx, &mut fresh))?;
            let got = fresh.filled().len();
            if got == 0 {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
            self.received = Vec::new();
            let done = self.work_on(&mut bytes[..start + got], buf);
            // What rustls says to it, an alert above all, is sent whatever came out.
            let sent = self.poll_send(cx);
            done.map_err(invalid)?;
            if let Poll::Ready(Err(error)) = sent {
                return Poll::Ready(Err(error));
            }
            Poll::Ready(Ok(()))
        })
    }

    /// Lets rustls work on `bytes` until it needs more, and keeps what it left. Whether the handshake
    /// is done.
    fn work_on(&mut self, bytes: &mut [u8], buf: &mut ReadBuf<'_>) -> Result<bool, Error> {
        let mut later = Vec::new();
        let mut take_in = |content: &[u8]| {
            let (now, rest) = content.split_at(content.len().min(buf.remaining()));
            buf.put_slice(now);
            later.extend_from_slice(rest);
        };
        let mut used = 0;
        let worked = loop {
            let rest = bytes.get_mut(used..).unwrap_or_default();
            let (discard, step) = step(&mut self.tls, rest, &mut take_in, &mut self.unsent);
            used += discard;
            match step {
                Ok(Step::Again) => {}
                Ok(Step::HeardAll) => self.heard_all = true,
                Ok(Step::Handshaking) => break Ok(false),
                Ok(Step::Open(_) | Step::Over) => break Ok(true),
                Err(error) => break Err(error),
            }
        };
        if !later.is_empty() {
            self.content = Bytes::from(later);
        }
        let kept = worked
            .and_then(|is_open| self.keep(bytes.get(used..).unwrap_or_default()).map(|()| is_open));
        kept.inspect_err(|_| self.fail())
    }

    /// Nothing more is to be understood: rustls must not see the bytes that it failed at again. What it
    /// has to say about them, an alert, is sent still.
    fn fail(&mut self) {
        self.has_failed = true;
        while self.tls.wants_write() {
            let _ = step(&mut self.tls, &mut [], &mut |_| {}, &mut self.unsent);
        }
    }

    /// Keeps the beginning of a record.
    fn keep(&mut self, rest: &[u8]) -> Result<(), Error> {
        if rest.len() >= RECORD_MAX {
            // A message of the handshake over several records: none that is sound is so long.
            return Err(InvalidMessage::HandshakePayloadTooLarge.into());
        }
        self.received = rest.to_vec();
        Ok(())
    }

    /// Encrypts as much of `slices` as is encrypted at once; returns how much that was.
    fn encrypt(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.with_traffic(|traffic, out| {
            let mut taken = 0;
            for slice in slices {
                let content = slice.get(..slice.len().min(WRITE_BYTES - taken)).unwrap_or_default();
                if !content.is_empty() {
                    append(out, sealed_bytes(content.len()), |room| {
                        traffic.encrypt(content, room)
                    })?;
                    taken += content.len();
                }
            }
            Ok(taken)
        })
    }

    /// Tells the client, once, that nothing more comes.
    fn say_all(&mut self) -> io::Result<()> {
        if self.said_all || self.has_failed || self.tls.is_handshaking() {
            return Ok(());
        }
        self.said_all = true;
        self.with_traffic(|traffic, out| {
            append(out, sealed_bytes(2), |room| traffic.queue_close_notify(room)).map(drop)
        })
    }

    /// Lets `say` encrypt something, behind all that rustls itself has to say.
    fn with_traffic<T>(
        &mut self,
        say: impl FnOnce(
            &mut WriteTraffic<'_, ServerConnectionData>,
            &mut Vec<u8>,
        ) -> Result<T, EncryptError>,
    ) -> io::Result<T> {
        if self.has_failed {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        // rustls has seen this, and looks for it where it was.
        let (mut received, mut content) = (std::mem::take(&mut self.received), Vec::new());
        let mut take_in = |some: &[u8]| content.extend_from_slice(some);
        let said = loop {
            let (discard, step) =
                step(&mut self.tls, &mut received, &mut take_in, &mut self.unsent);
            received.drain(..discard.min(received.len()));
            match step {
                Ok(Step::Again | Step::HeardAll) => {}
                Ok(Step::Open(mut traffic)) => {
                    break say(&mut traffic, &mut self.unsent).map_err(io::Error::other);
                }
                Ok(Step::Handshaking | Step::Over) => break Err(io::ErrorKind::BrokenPipe.into()),
                Err(error) => {
                    self.fail();
                    break Err(invalid(error));
                }
            }
        };
        self.received = received;
        if !content.is_empty() {
            self.content = [&self.content, content.as_slice()].concat().into();
        }
        said
    }

    /// Sends what is to be sent; `Pending` if the socket does not take it all.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(rest) = self.unsent.get(self.sent..).filter(|rest| !rest.is_empty()) {
            match ready!(Pin::new(&mut self.io).poll_write(cx, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                sent => self.sent += sent,
            }
        }
        (self.unsent, self.sent) = (Vec::new(), 0);
        Poll::Ready(Ok(()))
    }
}

/// Asks rustls what is next, and does what needs nobody else. Also the bytes of `received` that are not
/// needed any more.
fn step<'c>(
    tls: &'c mut UnbufferedServerConnection,
    received: &mut [u8],
    take_in: &mut dyn FnMut(&[u8]),
    out: &mut Vec<u8>,
) -> (usize, Result<Step<'c>, Error>) {
    let UnbufferedStatus { mut discard, state } = tls.process_tls_records(received);
    let step = match state {
        Ok(ConnectionState::ReadTraffic(mut traffic)) => loop {
            match traffic.next_record() {
                Some(Ok(record)) => {
                    discard += record.discard;
                    take_in(record.payload);
                }
                Some(Err(error)) => break Err(error),
                None => break Ok(Step::Again),
            }
        },
        Ok(ConnectionState::EncodeTlsData(mut data)) => encode(&mut data, out),
        Ok(ConnectionState::TransmitTlsData(data)) => {
            // It goes out before anything that is encrypted later.
            data.done();
            Ok(Step::Again)
        }
        Ok(ConnectionState::BlockedHandshake) => Ok(Step::Handshaking),
        Ok(ConnectionState::WriteTraffic(traffic)) => Ok(Step::Open(traffic)),
        Ok(ConnectionState::PeerClosed) => Ok(Step::HeardAll),
        Ok(ConnectionState::Closed) => Ok(Step::Over),
        Ok(_) => Err(Error::General("nobody may send early data".into())),
        Err(error) => Err(error),
    };
    (discard, step)
}

fn encode<'c>(
    data: &mut EncodeTlsData<'_, ServerConnectionData>,
    out: &mut Vec<u8>,
) -> Result<Step<'c>, Error> {
    match append(out, 0, |room| data.encode(room)) {
        Ok(()) => Ok(Step::Again),
        Err(error) => Err(Error::General(error.to_string())),
    }
}

/// Lets `write` add to `out`, with `room` bytes at first, and with as many as it asks for then.
fn append<E: Shortage>(
    out: &mut Vec<u8>,
    mut room: usize,
    mut write: impl FnMut(&mut [u8]) -> Result<usize, E>,
) -> Result<(), E> {
    let start = out.len();
    loop {
        out.resize(start + room, 0);
        let written = write(out.get_mut(start..).unwrap_or_default());
        out.truncate(start + written.as_ref().map_or(0, |written| *written));
        match written {
            Ok(_) => return Ok(()),
            Err(error) => match error.required() {
                Some(required) if required > room => room = required,
                _ => return Err(error),
            },
        }
    }
}

/// An error that may mean that there was too little room.
trait Shortage {
    /// The room that is needed, if that is it.
    fn required(&self) -> Option<usize>;
}

impl Shortage for EncodeError {
    fn required(&self) -> Option<usize> {
        match self {
            Self::InsufficientSize(InsufficientSizeError { required_size }) => Some(*required_size),
            Self::AlreadyEncoded => None,
        }
    }
}

impl Shortage for EncryptError {
    fn required(&self) -> Option<usize> {
        match self {
            Self::InsufficientSize(InsufficientSizeError { required_size }) => Some(*required_size),
            Self::EncryptExhausted => None,
        }
    }
}

/// Room for the records of so much content.
fn sealed_bytes(content: usize) -> usize {
    content + (content / CONTENT_MAX + 1) * RECORD_OVERHEAD
}

fn invalid(error: Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

impl Stream for TlsStream {
    fn split(self: Box<Self>) -> (ReadHalf, Box<dyn WriteHalf>) {
        any::split(*self)
    }
}

impl AsyncRead for TlsStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let _ = this.poll_send(cx)?;
        if this.has_failed {
            return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
        }
        let before = buf.filled().len();
        loop {
            if this.content.has_remaining() {
                let now = this.content.split_to(this.content.len().min(buf.remaining()));
                buf.put_slice(&now);
                if this.content.is_empty() {
                    this.content = Bytes::new();
                }
            }
            if buf.filled().len() > before || buf.remaining() == 0 || this.heard_all {
                return Poll::Ready(Ok(()));
            }
            ready!(this.poll_receive(cx, buf))?;
        }
    }
}

impl AsyncWrite for TlsStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_send(cx))?;
        let taken = self.encrypt(slices)?;
        let _ = self.poll_send(cx)?;
        Poll::Ready(Ok(taken))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_send(cx))?;
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.say_all()?;
        ready!(self.poll_send(cx))?;
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests;
