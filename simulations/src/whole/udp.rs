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

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicU64, Ordering::Relaxed},
        time::Duration,
    };

    use cluster::link::{
        NodeKey,
        quic::{QuicSettings, QuicTransport},
        transport::{Connection, Transport},
    };
    use rand::random;
    use tls::mesh::{KeyExchange, MeshIdentity, Secret};
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        time::{interval, sleep},
    };

    use super::*;
    use crate::{entropy, whole::client::host_name};

    const PORT: u16 = 7946;

    /// When nothing gets through any more, and when all that was kept does.
    const STALL: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(6));

    /// What each side writes, and how often: 10 KB a second.
    const WRITTEN: [u8; 100] = [7; 100];
    const EVERY: Duration = Duration::from_millis(10);

    async fn transport(node: usize, secret: Secret) -> QuicTransport {
        let identity = MeshIdentity::from_secret(
            &secret,
            None,
            node as u64,
            Arc::new(|| Duration::from_hours(498_706)),
        )
        .expect("a certificate");
        let settings = QuicSettings {
            identity: &identity,
            key: &NodeKey::generate(),
            key_exchange: KeyExchange::Classical,
            rng_seed: Some(random()),
        };
        let socket = Udp::bind(PORT, node, Arc::default()).await.expect("a socket");
        QuicTransport::over(socket, &settings).expect("an endpoint")
    }

    /// Writes and reads for ever; counts what it got.
    async fn talk(connection: Arc<dyn Connection>, got: Arc<AtomicU64>) {
        let mut to = connection.open_uni(0).await.expect("a stream");
        let writes = async move {
            let mut ticks = interval(EVERY);
            loop {
                ticks.tick().await;
                to.write_all(&WRITTEN).await.expect("the link lives");
            }
        };
        let reads = async {
            let mut from = connection.accept_uni().await.expect("a stream");
            let mut bytes = [0; 4096];
            loop {
                let read = from.read(&mut bytes).await.expect("the link lives");
                got.fetch_add(read as u64, Relaxed);
            }
        };
        tokio::join!(writes, reads);
    }

    /// What each side has got a quarter of a second after a stall, and how much was written by then.
    fn after_a_stall() -> ([u64; 2], u64) {
        let mut sim = turmoil::Builder::new()
            .simulation_duration(STALL.1 * 2)
            .max_message_latency(Duration::from_millis(20))
            .udp_capacity(1 << 14)
            .build();
        let secret = Secret::generate();
        let got: [Arc<AtomicU64>; 2] = Default::default();
        let (ours, key) = (Arc::clone(&got[0]), secret.clone());
        sim.client(host_name(0), async move {
            let transport = transport(0, key).await;
            let incoming = transport.accept().await.ok_or("nobody came")?;
            talk(incoming.connect.await?, ours).await;
            Ok(())
        });
        let theirs = Arc::clone(&got[1]);
        sim.client(host_name(1), async move {
            sleep(Duration::from_millis(100)).await;
            let to = SocketAddr::new(turmoil::lookup(host_name(0)), PORT);
            talk(transport(1, secret).await.dial(to).await?, theirs).await;
            Ok(())
        });
        let until = |end: Duration, sim: &mut turmoil::Sim<'_>| {
            while sim.elapsed() < end {
                sim.step().expect("both go on");
            }
        };
        until(STALL.0, &mut sim);
        sim.hold(host_name(0), host_name(1));
        until(STALL.1, &mut sim);
        sim.release(host_name(0), host_name(1));
        until(STALL.1 + Duration::from_millis(250), &mut sim);
        let writing = STALL.1.as_millis() - 300;
        let written = writing / EVERY.as_millis() * WRITTEN.len() as u128;
        (got.map(|side| side.load(Relaxed)), u64::try_from(written).expect("some bytes"))
    }

    #[test]
    fn a_link_goes_on_at_once_after_a_stall() {
        let _alone = entropy::ALONE.lock();
        let (got, written) = entropy::seeded(1, after_a_stall);
        assert!(got.iter().all(|got| *got >= written), "{got:?} of {written} bytes");
    }
}
