//! Any stream that tokio can read and write, as the halves that a session works with.
//!
//! A stream has one place each for who waits to read and who waits to write, but a session is written
//! to by any thread. So the stream only ever knows one waker, which remembers that something has
//! happened and wakes the session's own task. TCP has a way of its own, without the lock.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};

use atomic_waker::AtomicWaker;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{ReadHalf, WriteHalf};

/// Splits a stream. What the stream itself keeps unwritten, as TLS does, is written on when the reading
/// half is polled.
pub(super) fn split<S>(stream: S) -> (ReadHalf, Box<dyn WriteHalf>)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let happened = Arc::new(Happened { is_new: AtomicBool::new(true), task: AtomicWaker::new() });
    let waker = Waker::from(Arc::clone(&happened));
    let state = Mutex::new(State { stream, unflushed: false, is_shut_down: false });
    let shared = Arc::new(Shared { state, happened, waker });
    (Box::new(Reads(Arc::clone(&shared))), Box::new(Writes(shared)))
}

struct Shared<S> {
    state: Mutex<State<S>>,
    happened: Arc<Happened>,
    waker: Waker,
}

struct State<S> {
    stream: S,
    /// Whether the stream took bytes that it has not written yet.
    unflushed: bool,
    is_shut_down: bool,
}

/// The waker that the stream knows.
struct Happened {
    /// Whether the stream has woken anybody since a write was last tried.
    is_new: AtomicBool,
    task: AtomicWaker,
}

struct Reads<S>(Arc<Shared<S>>);

struct Writes<S>(Arc<Shared<S>>);

impl Wake for Happened {
    fn wake(self: Arc<Self>) {
        self.is_new.store(true, Ordering::Release);
        self.task.wake();
    }
}

impl<S: AsyncWrite + Unpin> State<S> {
    /// Writes what the stream keeps, as far as it can be written.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        self.unflushed = flushed.is_pending();
        flushed
    }

    fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.unflushed && self.poll_flush(cx)?.is_pending() {
            return Poll::Pending;
        }
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, slices)?;
        if written.is_ready() {
            let _ = self.poll_flush(cx)?;
        }
        written.map(Ok)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Reads<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Shared { state, happened, waker } = &*self.0;
        happened.task.register(cx.waker());
        let cx = &mut Context::from_waker(waker);
        let mut state = state.lock();
        if state.unflushed {
            let _ = state.poll_flush(cx)?;
        }
        Pin::new(&mut state.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Send + Unpin + 'static> WriteHalf for Writes<S> {
    fn try_write_vectored(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let Shared { state, happened, waker } = &*self.0;
        let mut state = state.lock();
        happened.is_new.store(false, Ordering::Release);
        match state.poll_write(&mut Context::from_waker(waker), slices) {
            Poll::Ready(written) => written,
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let happened = &self.0.happened;
        happened.task.register(cx.waker());
        if happened.is_new.load(Ordering::Acquire) { Poll::Ready(Ok(())) } else { Poll::Pending }
    }

    fn shut_down_writing(&self) -> bool {
        let mut state = self.0.state.lock();
        if !state.is_shut_down {
            let cx = &mut Context::from_waker(&self.0.waker);
            // An error means that the connection is gone already, which is as good.
            state.is_shut_down = Pin::new(&mut state.stream).poll_shutdown(cx).is_ready();
        }
        state.is_shut_down
    }
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, time::Duration};

    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _, BufWriter, DuplexStream, duplex},
        time::timeout,
    };

    use super::*;

    /// What took this long will never end.
    const HANGS: Duration = Duration::from_secs(20);

    /// Writes all of `bytes` as a session does, reading nothing meanwhile; how often it was blocked.
    async fn write_all(writes: &dyn WriteHalf, mut bytes: &[u8]) -> usize {
        let mut blocked = 0;
        while !bytes.is_empty() {
            match writes.try_write_vectored(&[IoSlice::new(bytes)]) {
                Ok(written) => bytes = &bytes[written..],
                Err(error) => {
                    assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
                    blocked += 1;
                    poll_fn(|cx| writes.poll_write_ready(cx)).await.unwrap();
                }
            }
        }
        blocked
    }

    async fn read_exactly(peer: &mut DuplexStream, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        peer.read_exact(&mut bytes).await.unwrap();
        bytes
    }

    #[tokio::test]
    async fn a_full_stream_is_written_on_when_it_has_room() {
        let (stream, mut peer) = duplex(16);
        let (mut reads, writes) = split(stream);
        let bytes: Vec<u8> = (0..200).collect();
        let both = async {
            tokio::join!(write_all(&*writes, &bytes), read_exactly(&mut peer, bytes.len()))
        };
        let (blocked, got) = timeout(HANGS, both).await.expect("it is written on");
        assert_eq!(got, bytes);
        assert!(blocked > 0);
        peer.write_all(b"hello").await.unwrap();
        let mut heard = [0; 5];
        reads.read_exact(&mut heard).await.unwrap();
        assert_eq!(&heard, b"hello");
    }

    #[tokio::test]
    async fn what_the_stream_keeps_is_written_while_its_session_reads() {
        let (stream, mut peer) = duplex(8);
        let (mut reads, writes) = split(BufWriter::with_capacity(1_024, stream));
        assert_eq!(write_all(&*writes, &[7; 100]).await, 0, "the stream takes all");
        let mut buf = [0; 1];
        tokio::select! {
            biased;
            read = reads.read(&mut buf) => panic!("nothing was sent: {read:?}"),
            got = timeout(HANGS, read_exactly(&mut peer, 100)) => assert_eq!(got.unwrap(), [7; 100]),
        }
    }

    #[tokio::test]
    async fn the_end_is_told_once_nothing_more_is_written() {
        let (stream, mut peer) = duplex(16);
        let (_reads, writes) = split(stream);
        write_all(&*writes, b"bye").await;
        assert!(writes.shut_down_writing() && writes.shut_down_writing());
        let mut all = Vec::new();
        peer.read_to_end(&mut all).await.unwrap();
        assert_eq!(all, b"bye");
    }

    #[tokio::test]
    async fn the_end_waits_for_what_the_stream_keeps() {
        let (stream, mut peer) = duplex(8);
        let (mut reads, writes) = split(BufWriter::with_capacity(1_024, stream));
        write_all(&*writes, &[7; 100]).await;
        assert!(!writes.shut_down_writing(), "it is not sent yet");
        let mut buf = [0; 1];
        let session = poll_fn(|cx| {
            if writes.shut_down_writing() {
                return Poll::Ready(());
            }
            let _ = Pin::new(&mut reads).poll_read(cx, &mut ReadBuf::new(&mut buf));
            Poll::Pending
        });
        let mut all = Vec::new();
        let both = async { tokio::join!(session, peer.read_to_end(&mut all)).1 };
        timeout(HANGS, both).await.expect("it goes on while its session reads").unwrap();
        assert_eq!(all, [7; 100]);
    }
}
