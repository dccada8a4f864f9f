//! What HTTP and sessions run over: connections that can be split in halves, and what accepts them.
//!
//! Here is TCP, and [a way](Connection::of) for whatever else can be read and written: TLS, a simulated
//! network. Knows nothing of HTTP, `WebSocket`s or agents.

mod any;
pub mod proxy;
pub mod tls;

use std::{
    fmt,
    io::{self, IoSlice},
    net::{Shutdown, SocketAddr},
    pin::Pin,
    task::{Context, Poll},
};

use async_trait::async_trait;
use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream, tcp::OwnedWriteHalf},
};

/// Accepts connections.
#[async_trait]
pub trait Listener: Send + 'static {
    /// The next connection, and where it comes from. Nothing is lost if the call is given up. An
    /// error that is not the connection's own means that the system has no room for more.
    async fn accept(&mut self) -> io::Result<(Connection, SocketAddr)>;
}

/// A connection, both ways.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static {
    /// The halves that a session works with.
    fn split(self: Box<Self>) -> (ReadHalf, Box<dyn WriteHalf>);
}

/// What a session reads from.
pub type ReadHalf = Box<dyn AsyncRead + Send + Unpin>;

/// What is written to a session's agent by whichever thread has something for it.
pub trait WriteHalf: Send + Sync + 'static {
    /// Writes as much as the connection takes now. `WouldBlock` if it takes nothing; then
    /// [`poll_write_ready`](Self::poll_write_ready) says when it will.
    fn try_write_vectored(&self, slices: &[IoSlice<'_>]) -> io::Result<usize>;

    /// Ready if a write is worth a try. Only the session's own task asks.
    fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Tells the other end that nothing more comes, and whether it was told: what was written before may
    /// have to be sent first, which goes on when the session's task reads. To be called again until then;
    /// once more does no harm.
    fn shut_down_writing(&self) -> bool;
}

/// A connection of any kind.
pub struct Connection(Box<dyn Stream>);

impl Connection {
    /// Wraps a stream that knows how it is split.
    pub fn new(stream: impl Stream) -> Self {
        Self(Box::new(stream))
    }

    /// Wraps any other stream.
    pub fn of(stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> Self {
        Self(Box::new(Box::new(stream)))
    }

    /// The halves that a session works with.
    pub fn split(self) -> (ReadHalf, Box<dyn WriteHalf>) {
        self.0.split()
    }
}

#[async_trait]
impl Listener for TcpListener {
    async fn accept(&mut self) -> io::Result<(Connection, SocketAddr)> {
        let (stream, peer) = Self::accept(self).await?;
        // Only delays small frames if it fails.
        let _ = stream.set_nodelay(true);
        Ok((Connection::new(stream), peer))
    }
}

impl Stream for TcpStream {
    fn split(self: Box<Self>) -> (ReadHalf, Box<dyn WriteHalf>) {
        let (reads, writes) = self.into_split();
        (Box::new(reads), Box::new(writes))
    }
}

impl WriteHalf for OwnedWriteHalf {
    fn try_write_vectored(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match slices {
            [slice] => self.try_write(slice),
            slices => Self::try_write_vectored(self, slices),
        }
    }

    fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.as_ref().poll_write_ready(cx)
    }

    fn shut_down_writing(&self) -> bool {
        // The connection may be gone already, which is as good. Else the system sends the rest.
        let _ = SockRef::from(self.as_ref()).shutdown(Shutdown::Write);
        true
    }
}

/// What is boxed once more has no way of its own to be split.
impl<S> Stream for Box<S>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    fn split(self: Box<Self>) -> (ReadHalf, Box<dyn WriteHalf>) {
        any::split(*self)
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Connection")
    }
}

/// Connections for the tests of others.
#[cfg(test)]
pub(crate) mod testing {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    use parking_lot::Mutex;

    use super::*;

    /// A writing half that keeps what was written, as it would have gone to an agent.
    #[derive(Clone, Debug, Default)]
    pub(crate) struct Written {
        bytes: Arc<Mutex<Vec<u8>>>,
        last_at: Arc<AtomicUsize>,
    }

    impl Written {
        /// What was written since this was asked last, as text.
        pub(crate) fn take(&self) -> String {
            String::from_utf8_lossy(&std::mem::take(&mut *self.bytes.lock())).into_owned()
        }

        /// Where in memory that lay which was written last.
        pub(crate) fn last_at(&self) -> usize {
            self.last_at.load(Ordering::Relaxed)
        }
    }

    impl WriteHalf for Written {
        fn try_write_vectored(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
            let mut written = self.bytes.lock();
            for slice in slices {
                self.last_at.store(slice.as_ptr().addr(), Ordering::Relaxed);
                written.extend_from_slice(slice);
            }
            Ok(slices.iter().map(|slice| slice.len()).sum())
        }

        fn poll_write_ready(&self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn shut_down_writing(&self) -> bool {
            true
        }
    }
}
