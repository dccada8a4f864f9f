//! Handshakes: how a connection that was accepted becomes an encrypted one, while many others do.
//!
//! A handshake waits for its client most of the time, and holds little meanwhile. What takes the
//! processor, a few tenths of a millisecond at a time, it does in [turns](super::turns), so that a
//! crowd of clients leaves time to those that are connected.

use std::{fmt, future::poll_fn, io, sync::Arc, task::Context, task::Poll, time::Duration};

use rustls::{ProtocolVersion::TLSv1_3, ServerConfig};
use tokio::{
    io::{AsyncRead, ReadBuf},
    sync::OwnedSemaphorePermit,
    time::sleep,
};

use super::{Begun, Connection, Places, RECEIVED, RECORD_MAX, TlsStream, turns::Turns};

/// The first byte of each handshake record (RFC 8446, section 5.1).
const HANDSHAKE: u8 = 22;

/// How requests of plain HTTP begin.
const METHODS: [&[u8]; 5] = [b"GET ", b"POST ", b"HEAD ", b"OPTIONS ", b"PUT "];

/// Makes encrypted connections.
#[derive(Clone, Debug)]
pub struct Acceptor {
    config: Arc<ServerConfig>,
    /// The places of handshakes that are not done.
    pub places: Places,
    turns: Turns,
}

/// Why a connection was not encrypted.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// The connection ended, or the system ended it.
    #[error("the connection broke")]
    Broken(#[from] io::Error),
    /// The client speaks HTTP, to a port where TLS is spoken; here it is back.
    #[error("the client speaks plain HTTP")]
    PlainHttp(Connection),
    /// The client speaks something else.
    #[error("the client does not speak TLS")]
    NotTls,
    /// The two could not agree, or one broke the rules.
    #[error("the handshake failed: {0}")]
    Failed(#[from] rustls::Error),
    /// It took too long.
    #[error("the handshake took too long")]
    TimedOut,
    /// There were too many unfinished handshakes, and this was the oldest.
    #[error("newer handshakes took its place")]
    Overtaken,
}

impl Acceptor {
    /// An acceptor by this configuration, which works at so many handshakes at a time.
    pub fn new(config: Arc<ServerConfig>, at_once: usize) -> Self {
        Self { config, places: Places::default(), turns: Turns::new(at_once.max(1)) }
    }

    /// Encrypts a connection within `deadline`; also the permit that the handshake began with.
    ///
    /// # Errors
    /// [`HandshakeError`]. The client was told what TLS has a word for.
    pub async fn accept(
        &self,
        io: Connection,
        begun: Begun,
        deadline: Duration,
    ) -> Result<(TlsStream, OwnedSemaphorePermit), HandshakeError> {
        let stream = tokio::select! {
            stream = self.shake_hands(io) => stream?,
            () = begun.overtaken() => return Err(HandshakeError::Overtaken),
            () = sleep(deadline) => return Err(HandshakeError::TimedOut),
        };
        let permit = begun.finish().ok_or(HandshakeError::Overtaken)?;
        Ok((stream, permit))
    }

    async fn shake_hands(&self, io: Connection) -> Result<TlsStream, HandshakeError> {
        let mut stream = TlsStream::new(io, Arc::clone(&self.config))?;
        poll_fn(|cx| stream.poll_gather(cx)).await?;
        match stream.received.first() {
            Some(&HANDSHAKE) => {}
            _ if METHODS.iter().any(|method| stream.received.starts_with(method)) => {
                return Err(HandshakeError::PlainHttp(stream.io));
            }
            _ => return Err(HandshakeError::NotTls),
        }
        loop {
            let turn = self.turns.take().await;
            let done = stream.understand();
            drop(turn);
            if matches!(done, Ok(true)) && stream.version() == Some(TLSv1_3) {
                // The client does not wait for what is to be sent still, a ticket, and may not read
                // before it has written. It goes with the first read.
                return Ok(stream);
            }
            let sent = poll_fn(|cx| stream.poll_send(cx)).await;
            let done = done?;
            sent?;
            if done {
                return Ok(stream);
            }
            poll_fn(|cx| stream.poll_gather(cx)).await?;
        }
    }
}

impl TlsStream {
    /// Adds what the client has sent to what is not understood yet.
    fn poll_gather(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        RECEIVED.with_borrow_mut(|bytes| {
            let room = RECORD_MAX.saturating_sub(self.received.len());
            let mut fresh = ReadBuf::new(bytes.get_mut(..room).unwrap_or_default());
            std::task::ready!(std::pin::Pin::new(&mut self.io).poll_read(cx, &mut fresh))?;
            if fresh.filled().is_empty() {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
            self.received.extend_from_slice(fresh.filled());
            Poll::Ready(Ok(()))
        })
    }

    /// Works on what has come; whether the handshake is done.
    fn understand(&mut self) -> Result<bool, rustls::Error> {
        let mut bytes = std::mem::take(&mut self.received);
        self.work_on(&mut bytes, &mut ReadBuf::new(&mut []))
    }
}

impl fmt::Debug for TlsStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsStream").field("version", &self.version()).finish_non_exhaustive()
    }
}
