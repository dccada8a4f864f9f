//! The two transports as test beds: hosts that come, crash and come again, ways that are cut.

use std::{
    collections::{HashMap, HashSet},
    fmt, io,
    io::IoSliceMut,
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
use tls::mesh::{KeyExchange, MeshIdentity, Secret};
use tokio::io::ReadBuf;

use crate::{
    NodeId,
    link::{
        NodeKey,
        memory::MemoryNetwork,
        quic::{self, QuicSettings, QuicTransport},
        transport::Transport,
    },
};

/// A clock that stands still, some time in 2026.
pub(super) fn wall() -> tls::mesh::Wall {
    Arc::new(|| std::time::Duration::from_hours(498_706))
}

/// Where a suite runs.
pub(super) enum Bed {
    Memory(MemoryNetwork),
    Quic(QuicBed),
}

/// Real endpoints on loopback, whose datagrams can be withheld.
#[derive(Default)]
pub(super) struct QuicBed {
    keys: Mutex<HashMap<u64, Arc<NodeKey>>>,
    secrets: Mutex<HashMap<String, Arc<Secret>>>,
    sockets: Mutex<HashMap<SocketAddr, Arc<Socket>>>,
    cut: Arc<Mutex<HashSet<(SocketAddr, SocketAddr)>>>,
}

impl Bed {
    pub(super) fn memory() -> Self {
        Self::Memory(MemoryNetwork::new())
    }

    pub(super) fn quic() -> Self {
        Self::Quic(QuicBed::default())
    }

    /// A node's endpoint, at a place of its own or where it was before.
    pub(super) fn host(
        &self,
        node: u64,
        secret: &str,
        address: Option<SocketAddr>,
    ) -> Arc<dyn Transport> {
        match self {
            Self::Memory(network) => {
                let port = u16::try_from(node).unwrap();
                let address = address.unwrap_or(SocketAddr::from(([10, 0, 0, 1], port)));
                Arc::new(network.host(address, NodeId(node), secret))
            }
            Self::Quic(bed) => bed.host(node, secret, address),
        }
    }

    /// An address at which nobody is.
    pub(super) fn nowhere(&self) -> SocketAddr {
        match self {
            Self::Memory(_) => SocketAddr::from(([10, 0, 0, 1], 60_000)),
            Self::Quic(_) => {
                std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
            }
        }
    }

    pub(super) fn cut(&self, a: SocketAddr, b: SocketAddr) {
        match self {
            Self::Memory(network) => network.cut(a, b),
            Self::Quic(bed) => bed.cut.lock().extend([(a, b), (b, a)]),
        }
    }

    pub(super) fn heal(&self, a: SocketAddr, b: SocketAddr) {
        match self {
            Self::Memory(network) => network.heal(a, b),
            Self::Quic(bed) => {
                bed.cut.lock().remove(&(a, b));
                bed.cut.lock().remove(&(b, a));
            }
        }
    }

    /// Takes a host away: from now on not one more datagram leaves it, and its port is free.
    pub(super) fn crash(&self, address: SocketAddr) {
        match self {
            Self::Memory(network) => network.crash(address),
            Self::Quic(bed) => {
                if let Some(socket) = bed.sockets.lock().remove(&address) {
                    socket.inner.lock().take();
                }
            }
        }
    }
}

impl QuicBed {
    fn host(&self, node: u64, secret: &str, address: Option<SocketAddr>) -> Arc<dyn Transport> {
        let mut secrets = self.secrets.lock();
        let secret = secrets.entry(secret.to_owned()).or_insert_with(|| Secret::generate().into());
        let identity = MeshIdentity::from_secret(secret, None, node, wall()).unwrap();
        let key =
            self.keys.lock().entry(node).or_insert_with(|| NodeKey::generate().into()).clone();
        let address = address.unwrap_or(SocketAddr::from(([127, 0, 0, 1], 0)));
        let socket = Arc::new(Socket::bind(address, self.cut.clone()));
        self.sockets.lock().insert(socket.address, socket.clone());
        let settings = QuicSettings {
            identity: &identity,
            key: &key,
            key_exchange: KeyExchange::Classical,
            rng_seed: None,
        };
        Arc::new(QuicTransport::over(socket, &settings).unwrap())
    }
}

struct Socket {
    address: SocketAddr,
    inner: Mutex<Option<Ends>>,
    cut: Arc<Mutex<HashSet<(SocketAddr, SocketAddr)>>>,
}

/// The two ends of one socket.
struct Ends {
    send: std::net::UdpSocket,
    receive: tokio::net::UdpSocket,
}

impl Socket {
    fn bind(address: SocketAddr, cut: Arc<Mutex<HashSet<(SocketAddr, SocketAddr)>>>) -> Self {
        let send = quic::bind(address).unwrap();
        let address = send.local_addr().unwrap();
        let receive = tokio::net::UdpSocket::from_std(send.try_clone().unwrap()).unwrap();
        Self { address, inner: Mutex::new(Some(Ends { send, receive })), cut }
    }
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Socket({})", self.address)
    }
}

/// What the kernel does not take at once is lost, as it may be anywhere.
#[derive(Debug)]
struct Writable;

impl UdpPoller for Writable {
    fn poll_writable(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl AsyncUdpSocket for Socket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(Writable)
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let cut = self.cut.lock().contains(&(self.address, transmit.destination));
        if let Some(inner) = &*self.inner.lock()
            && !cut
        {
            let _ = inner.send.send_to(transmit.contents, transmit.destination);
        }
        Ok(())
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let inner = self.inner.lock();
        let Some(Ends { receive, .. }) = &*inner else { return Poll::Pending };
        let mut received = 0;
        for (buf, meta) in bufs.iter_mut().zip(meta) {
            let mut buf = ReadBuf::new(buf);
            match receive.poll_recv_from(cx, &mut buf)? {
                Poll::Ready(from) => {
                    let len = buf.filled().len();
                    *meta = RecvMeta { addr: from, len, stride: len, ..RecvMeta::default() };
                    received += 1;
                }
                Poll::Pending if received == 0 => return Poll::Pending,
                Poll::Pending => break,
            }
        }
        Poll::Ready(Ok(received))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }

    fn may_fragment(&self) -> bool {
        false
    }
}
