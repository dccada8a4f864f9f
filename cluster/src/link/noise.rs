//! What arrives at the mesh's port and is no QUIC: noticed, so that it can be counted and told.
//!
//! Looks at one byte of each datagram. Leaves it to quinn to do with the datagram what it likes, which
//! is nothing.

use std::{
    fmt,
    io::{self, IoSliceMut},
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use parking_lot::Mutex;
use quinn::{
    AsyncUdpSocket, UdpPoller,
    udp::{RecvMeta, Transmit},
};
use tokio::sync::Notify;

/// Set in the first byte of every QUIC packet (RFC 9000, section 17).
const FIXED_BIT: u8 = 0x40;

/// Where noise came from last.
#[derive(Debug, Default)]
pub(super) struct Noise {
    from: Mutex<Option<SocketAddr>>,
    heard: Notify,
}

impl Noise {
    /// Waits for noise, and tells where it comes from. Much of it at once is told once. Safe to cancel.
    pub(super) async fn heard(&self) -> SocketAddr {
        loop {
            if let Some(from) = self.from.lock().take() {
                return from;
            }
            self.heard.notified().await;
        }
    }

    fn hear(&self, from: SocketAddr) {
        if self.from.lock().replace(from).is_none() {
            self.heard.notify_one();
        }
    }
}

/// The socket, watched for noise.
pub(super) fn watch(socket: Arc<dyn AsyncUdpSocket>) -> (Arc<dyn AsyncUdpSocket>, Arc<Noise>) {
    let noise = Arc::new(Noise::default());
    (Arc::new(Watched { socket, noise: Arc::clone(&noise) }), noise)
}

struct Watched {
    socket: Arc<dyn AsyncUdpSocket>,
    noise: Arc<Noise>,
}

impl AsyncUdpSocket for Watched {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Arc::clone(&self.socket).create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.socket.try_send(transmit)
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let received = self.socket.poll_recv(cx, bufs, meta);
        if let Poll::Ready(Ok(count)) = &received {
            for (buf, meta) in bufs.iter().zip(meta.iter()).take(*count) {
                if is_noise(buf, meta) {
                    self.noise.hear(meta.addr);
                }
            }
        }
        received
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.socket.max_transmit_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.socket.max_receive_segments()
    }

    fn may_fragment(&self) -> bool {
        self.socket.may_fragment()
    }
}

/// Whether any of the datagrams, of `stride` bytes each, is no QUIC.
fn is_noise(buf: &[u8], meta: &RecvMeta) -> bool {
    let received = buf.get(..meta.len).unwrap_or(buf);
    let mut datagrams = received.chunks(meta.stride.max(1));
    datagrams.any(|datagram| datagram.first().is_some_and(|first| first & FIXED_BIT == 0))
}

impl fmt::Debug for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Watched").field(&self.socket).finish()
    }
}
