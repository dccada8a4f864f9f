//! One connection of the in-memory network: both its ends, and all streams between them.
//!
//! Everything is under one lock, and whoever waits is woken by every change: it is made for few
//! streams, and for being obviously right.

use std::{
    collections::VecDeque,
    fmt, io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::RTT;
use crate::{
    NodeId,
    link::transport::{CloseCode, Connection, Ended, IDLE_TIMEOUT, Outgoing, Receiving},
};

/// Bytes that one stream holds between its writer and its reader.
const STREAM_BYTES_MAX: usize = 1 << 20;

/// A connection. Its ends have the numbers 0, who dialled, and 1.
pub(super) struct Line {
    hosts: [(NodeId, SocketAddr); 2],
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Nothing passes.
    held: bool,
    /// How it ended, as each end sees it.
    ended: [Option<Ended>; 2],
    streams: Vec<Stream>,
    /// Streams that each end has not accepted yet: one direction, and both.
    uni: [VecDeque<usize>; 2],
    bi: [VecDeque<(usize, usize)>; 2],
    waiting: Vec<Waker>,
}

#[derive(Default)]
struct Stream {
    bytes: VecDeque<u8>,
    finished: bool,
    /// Its reader is gone.
    stopped: bool,
}

impl Line {
    pub(super) fn new(hosts: [(NodeId, SocketAddr); 2]) -> Arc<Self> {
        Arc::new(Self { hosts, state: Mutex::default() })
    }

    pub(super) fn touches(&self, address: SocketAddr) -> bool {
        self.hosts.iter().any(|(_, host)| *host == address)
    }

    pub(super) fn hold(&self, held: bool) {
        self.change(|state| {
            state.held = held;
            // A close that could not pass: who is healed learns that its peer has forgotten it.
            if !held && state.ended.iter().any(Option::is_some) {
                let forgotten = Ended::Lost("forgotten by the peer".to_owned());
                state.end([forgotten.clone(), forgotten]);
            }
        });
    }

    pub(super) fn lose(&self, why: &str) {
        let lost = Ended::Lost(why.to_owned());
        self.change(|state| state.end([lost.clone(), lost]));
    }

    /// Closes it on behalf of a host that is no more.
    pub(super) fn leave(&self, address: SocketAddr) {
        for (end, (_, host)) in self.hosts.iter().enumerate() {
            if *host == address {
                self.close(end, CloseCode::Dropped, "the endpoint was closed");
            }
        }
    }

    fn close(&self, end: usize, code: CloseCode, reason: &str) {
        let there = Ended::There { code, reason: reason.to_owned() };
        self.change(|state| {
            state.ended[end].get_or_insert(Ended::Here);
            if !state.held {
                state.ended[1 - end].get_or_insert(there);
            }
        });
    }

    fn change<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        let (done, waiting) = {
            let mut state = self.state.lock();
            (act(&mut state), std::mem::take(&mut state.waiting))
        };
        waiting.into_iter().for_each(Waker::wake);
        done
    }

    /// Asks `act` until it has something to say.
    fn poll<T>(&self, cx: &Context<'_>, act: impl FnOnce(&mut State) -> Option<T>) -> Poll<T> {
        let mut state = self.state.lock();
        let Some(done) = act(&mut state) else {
            if !state.waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
                state.waiting.push(cx.waker().clone());
            }
            return Poll::Pending;
        };
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        waiting.into_iter().for_each(Waker::wake);
        Poll::Ready(done)
    }

    async fn until<T>(&self, mut act: impl FnMut(&mut State) -> Option<T>) -> T {
        std::future::poll_fn(|cx| self.poll(cx, &mut act)).await
    }
}

impl State {
    /// The first end stands.
    fn end(&mut self, ended: [Ended; 2]) {
        for (seen, ended) in self.ended.iter_mut().zip(ended) {
            seen.get_or_insert(ended);
        }
    }

    fn stream(&mut self) -> usize {
        self.streams.push(Stream::default());
        self.streams.len() - 1
    }
}

/// One end of a [`Line`]; closes it when dropped.
pub(super) struct End {
    line: Arc<Line>,
    end: usize,
}

impl End {
    pub(super) fn new(line: Arc<Line>, end: usize) -> Self {
        Self { line, end }
    }

    fn there(&self) -> usize {
        1 - self.end
    }

    fn outgoing(&self, stream: usize) -> Box<dyn Outgoing> {
        Box::new(Half { line: self.line.clone(), end: self.end, stream, reads: false })
    }

    fn receiving(&self, stream: usize) -> Receiving {
        Box::new(Half { line: self.line.clone(), end: self.end, stream, reads: true })
    }

    fn alive(&self, state: &State) -> Result<(), Ended> {
        state.ended[self.end].clone().map_or(Ok(()), Err)
    }
}

impl fmt::Debug for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("End").field(&self.line.hosts[self.there()]).finish()
    }
}

impl Drop for End {
    fn drop(&mut self) {
        self.line.close(self.end, CloseCode::Dropped, "dropped");
    }
}

#[async_trait]
impl Connection for End {
    fn peer(&self) -> NodeId {
        self.line.hosts[self.there()].0
    }

    fn rtt(&self) -> Duration {
        RTT
    }

    async fn open_bi(&self) -> Result<(Box<dyn Outgoing>, Receiving), Ended> {
        let (out, back) = self.line.change(|state| {
            self.alive(state)?;
            let (out, back) = (state.stream(), state.stream());
            state.bi[self.there()].push_back((out, back));
            Ok::<_, Ended>((out, back))
        })?;
        Ok((self.outgoing(out), self.receiving(back)))
    }

    async fn accept_bi(&self) -> Result<(Box<dyn Outgoing>, Receiving), Ended> {
        let accepted = |state: &mut State| match state.bi[self.end].pop_front() {
            Some(opened) if !state.held => Some(Ok(opened)),
            Some(opened) => {
                state.bi[self.end].push_front(opened);
                None
            }
            None => self.alive(state).err().map(Err),
        };
        let (back, out) = self.line.until(accepted).await?;
        Ok((self.outgoing(out), self.receiving(back)))
    }

    async fn open_uni(&self, _priority: i32) -> Result<Box<dyn Outgoing>, Ended> {
        let stream = self.line.change(|state| {
            self.alive(state)?;
            let stream = state.stream();
            state.uni[self.there()].push_back(stream);
            Ok::<_, Ended>(stream)
        })?;
        Ok(self.outgoing(stream))
    }

    async fn accept_uni(&self) -> Result<Receiving, Ended> {
        let accepted = |state: &mut State| {
            // Its first bytes tell of a stream.
            let first = state.uni[self.end].front().copied().filter(|stream| {
                let stream = &state.streams[*stream];
                !state.held && (stream.finished || !stream.bytes.is_empty())
            });
            match first {
                Some(stream) => {
                    state.uni[self.end].pop_front();
                    Some(Ok(stream))
                }
                None => self.alive(state).err().map(Err),
            }
        };
        Ok(self.receiving(self.line.until(accepted).await?))
    }

    fn close(&self, code: CloseCode, reason: &str) {
        self.line.close(self.end, code, reason);
    }

    async fn closed(&self) -> Ended {
        loop {
            let ended = |state: &State| state.ended[self.end].clone();
            let held = self.line.until(|state| match ended(state) {
                Some(ended) => Some(Err(ended)),
                None => state.held.then_some(Ok(())),
            });
            if let Err(ended) = held.await {
                return ended;
            }
            let released = self.line.until(|state| match ended(state) {
                Some(ended) => Some(Err(ended)),
                None => (!state.held).then_some(Ok(())),
            });
            match tokio::time::timeout(IDLE_TIMEOUT, released).await {
                Ok(Ok(())) => {}
                Ok(Err(ended)) => return ended,
                Err(_) => self.line.lose("timed out"),
            }
        }
    }
}

/// One end's half of a stream.
struct Half {
    line: Arc<Line>,
    end: usize,
    stream: usize,
    reads: bool,
}

impl Half {
    fn poll<T>(
        &self,
        cx: &Context<'_>,
        act: impl FnOnce(&mut Stream, bool) -> Option<T>,
    ) -> Poll<io::Result<T>> {
        self.line.poll(cx, |state| {
            let held = state.held;
            if let Some(done) = act(&mut state.streams[self.stream], held) {
                return Some(Ok(done));
            }
            state.ended[self.end].clone().map(|ended| Err(ended.into()))
        })
    }
}

impl AsyncRead for Half {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.poll(cx, |stream, held| {
            if held || (stream.bytes.is_empty() && !stream.finished) {
                return None;
            }
            let len = stream.bytes.len().min(buf.remaining());
            let (front, back) = stream.bytes.as_slices();
            let in_front = len.min(front.len());
            buf.put_slice(&front[..in_front]);
            buf.put_slice(&back[..len - in_front]);
            stream.bytes.drain(..len);
            Some(())
        })
    }
}

impl AsyncWrite for Half {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.line.poll(cx, |state| {
            if let Some(ended) = state.ended[self.end].clone() {
                return Some(Err(ended.into()));
            }
            let stream = &mut state.streams[self.stream];
            if stream.stopped {
                return Some(Err(io::ErrorKind::BrokenPipe.into()));
            }
            let room = STREAM_BYTES_MAX - stream.bytes.len();
            let len = room.min(buf.len());
            stream.bytes.extend(&buf[..len]);
            (len > 0 || buf.is_empty()).then_some(Ok(len))
        })
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.line.change(|state| state.streams[self.stream].finished = true);
        Poll::Ready(Ok(()))
    }
}

#[async_trait]
impl Outgoing for Half {
    async fn deliver(&mut self) -> io::Result<()> {
        self.line.change(|state| state.streams[self.stream].finished = true);
        std::future::poll_fn(|cx| {
            // Received is received, read or not: only a cut way keeps it.
            self.poll(cx, |stream, held| (!held || stream.stopped).then_some(()))
        })
        .await
    }
}

impl Drop for Half {
    fn drop(&mut self) {
        self.line.change(|state| {
            let alive = state.ended[self.end].is_none();
            let stream = &mut state.streams[self.stream];
            if self.reads {
                stream.stopped = true;
                stream.bytes = VecDeque::new();
            } else {
                stream.finished |= alive;
            }
        });
    }
}
