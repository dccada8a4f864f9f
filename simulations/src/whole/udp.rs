//! UDP for QUIC over turmoil's network: what is lost, and a place in the run's digest.
//!
//! Latency, order and partitions are turmoil's. Loss is drawn here, because turmoil's would hit TCP
//! as well, which it does not send again.

use std::{
    fmt,
    future::Future,
    io::{self, IoSliceMut},
    net::{Ipv4Addr, SocketAddr},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use parking_lot::Mutex;
use quinn::{
    AsyncUdpSocket, UdpPoller,
    udp::{RecvMeta, Transmit},
};
use rand::{Rng, SeedableRng, rngs::SmallRng};
use turmoil::net::UdpSocket;

use super::seen::Seen;

/// A socket of one life of a node.
pub(super) struct Udp {
    socket: Arc<UdpSocket>,
    address: SocketAddr,
    node: usize,
    seen: Arc<Seen>,
    rng: Mutex<SmallRng>,
    readable: Mutex<Option<Readable>>,
}

/// Ends when there is something to read. Nobody else may read until then.
type Readable = Pin<Box<dyn Future<Output = io::Result<()>> + Send>>;

impl Udp {
    /// Binds a port of the host that runs.
    pub(super) async fn bind(port: u16, node: usize, seen: Arc<Seen>) -> io::Result<Arc<Self>> {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)).await?;
        Ok(Arc::new(Self {
            address: socket.local_addr()?,
            socket: Arc::new(socket),
            node,
            seen,
            rng: Mutex::new(SmallRng::from_rng(&mut rand::rng())),
            readable: Mutex::default(),
        }))
    }

    fn is_lost(&self) -> bool {
        let one_in = self.seen.loss_one_in();
        one_in > 0 && self.rng.lock().random_ratio(1, one_in)
    }

    /// Reads one datagram if there is one.
    fn poll_one(
        &self,
        readable: &mut Option<Readable>,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<(usize, SocketAddr)>> {
        loop {
            if let Some(waiting) = readable {
                match waiting.as_mut().poll(cx) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(ready) => ready?,
                }
                *readable = None;
            }
            match self.socket.try_recv_from(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => return Poll::Ready(read),
            }
            let socket = Arc::clone(&self.socket);
            *readable = Some(Box::pin(async move { socket.readable().await }));
        }
    }
}

impl AsyncUdpSocket for Udp {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(AlwaysWritable)
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let size = transmit.segment_size.unwrap_or(transmit.contents.len()).max(1);
        for datagram in transmit.contents.chunks(size) {
            self.seen.packet(self.node, transmit.destination, datagram.len());
            if !self.is_lost() {
                // An error means that there is no such host: as good as lost.
                let _ = self.socket.try_send_to(datagram, transmit.destination);
            }
        }
        Ok(())
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let mut readable = self.readable.lock();
        let mut read = 0;
        for (buffer, meta) in buffers.iter_mut().zip(meta) {
            match self.poll_one(&mut readable, cx, buffer) {
                Poll::Ready(Ok((len, addr))) => {
                    *meta = RecvMeta { addr, len, stride: len, ..RecvMeta::default() };
                    read += 1;
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending if read == 0 => return Poll::Pending,
                Poll::Pending => break,
            }
        }
        Poll::Ready(Ok(read))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }

    fn may_fragment(&self) -> bool {
        false
    }
}

impl fmt::Debug for Udp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Udp(node-{})", self.node)
    }
}

/// Turmoil's sockets are always writable.
#[derive(Debug)]
struct AlwaysWritable;

impl UdpPoller for AlwaysWritable {
    fn poll_writable(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
