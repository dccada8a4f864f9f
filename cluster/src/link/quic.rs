//! Links over QUIC: mutual TLS 1.3, one UDP port for everything.
//!
//! Who dials is asked to prove its address before anything is kept for it. The keys of resets and of
//! connection ids outlive the process, so that peers notice a restart at once instead of after the
//! idle timeout.

use std::{future::ready, io, net::SocketAddr, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use async_trait::async_trait;
use aws_lc_rs::{hkdf, hmac};
use quinn::{
    AsyncUdpSocket, ClientConfig, ConnectionError, Endpoint, EndpointConfig, IdleTimeout,
    MtuDiscoveryConfig, RecvStream, Runtime, SendStream, ServerConfig, TokioRuntime,
    TransportConfig, VarInt,
    crypto::{
        HandshakeTokenKey,
        rustls::{NoInitialCipherSuite, QuicClientConfig, QuicServerConfig},
    },
};
use quinn_proto::HashedConnectionIdGenerator;
use rustls::pki_types::CertificateDer;
use tls::mesh::{IdentityError, KeyExchange, MeshIdentity, SERVER_NAME};

use super::{
    NodeKey,
    congestion::Congestion,
    noise::{Noise, watch},
    transport::{
        CloseCode, ConnectError, Connection, Ended, IDLE_TIMEOUT, Incoming, Outgoing, Packets,
        Receiving, Transport,
    },
};
use crate::{NodeId, port, wire::LANES};

/// Asked of the kernel for each direction; its own default loses datagrams even on loopback.
pub const SOCKET_BUFFER_BYTES: usize = 4 << 20;

/// What a peer may send on one stream beyond what was read.
const STREAM_WINDOW_BYTES: u32 = 8 << 20;

/// The same for all streams of a connection, and what is kept of the sent until it is acknowledged:
/// 48 MiB. Room for every lane's window, so that no lane ever waits for another's.
const LINK_WINDOW_BYTES: u32 = STREAM_WINDOW_BYTES * STREAMS;

/// A link's streams in one direction: control, gossip and the data lanes.
const STREAMS: u32 = 6;
const _: () = assert!(STREAMS as usize == LANES + 2);

/// All of them, and room to notice that a peer opens more.
const UNI_STREAMS_MAX: u32 = STREAMS + 2;

/// The handshake's stream, and room to notice another.
const BI_STREAMS_MAX: u32 = 2;

/// A sign of life when there is nothing else to send.
const KEEP_ALIVE: Duration = Duration::from_secs(1);

/// The largest payload that Ethernet carries in a UDP datagram over IPv6.
const MTU_MAX: u16 = 1452;

/// How long the end may take: three round trips or so.
const CLOSE_DEADLINE: Duration = Duration::from_secs(2);

/// What a node's endpoint is made of.
#[derive(Debug)]
pub struct QuicSettings<'a> {
    /// Who this node is, and whom it trusts.
    pub identity: &'a MeshIdentity,
    /// What its peers must find unchanged after a restart.
    pub key: &'a NodeKey,
    /// How keys are agreed on.
    pub key_exchange: KeyExchange,
    /// Makes simulations repeatable; none for real nodes.
    pub rng_seed: Option<[u8; 32]>,
}

/// Why there is no endpoint.
#[derive(Debug, thiserror::Error)]
pub enum QuicError {
    /// The node's certificate or key is of no use.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// TLS was made without what QUIC needs.
    #[error("cannot use TLS for QUIC: {0}")]
    Tls(#[from] NoInitialCipherSuite),
    /// The port cannot be bound.
    #[error("cannot listen on UDP {address}")]
    Bind {
        /// Where.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
}

/// The mesh's endpoint on one UDP port.
pub struct QuicTransport {
    endpoint: Endpoint,
    client: ArcSwap<ClientConfig>,
    noise: Arc<Noise>,
    token_key: Arc<dyn HandshakeTokenKey>,
    key_exchange: KeyExchange,
}

impl QuicTransport {
    /// Binds a UDP port; port 0 takes any. To be called within a tokio runtime.
    pub fn bind(address: SocketAddr, settings: &QuicSettings<'_>) -> Result<Self, QuicError> {
        let bound = bind(address).and_then(|socket| TokioRuntime.wrap_udp_socket(socket));
        let socket = bound.map_err(|source| QuicError::Bind { address, source })?;
        Self::over(socket, settings)
    }

    /// Uses a socket of any kind, such as a simulated one.
    pub fn over(
        socket: Arc<dyn AsyncUdpSocket>,
        settings: &QuicSettings<'_>,
    ) -> Result<Self, QuicError> {
        let token_key: Arc<dyn HandshakeTokenKey> = Arc::new(
            hkdf::Salt::new(hkdf::HKDF_SHA256, &[])
                .extract(&*settings.key.derive("quic address tokens")),
        );
        let key_exchange = settings.key_exchange;
        let (server, client) = configs(settings.identity, key_exchange, &token_key)?;
        let address = socket.local_addr();
        let (socket, noise) = watch(socket);
        let endpoint = Endpoint::new_with_abstract_socket(
            endpoint_config(settings),
            Some(server),
            socket,
            Arc::new(TokioRuntime),
        );
        let endpoint = endpoint.map_err(|source| {
            let address = address.unwrap_or_else(|_| SocketAddr::from(([0, 0, 0, 0], 0)));
            QuicError::Bind { address, source }
        })?;
        Ok(Self { endpoint, client: ArcSwap::from_pointee(client), noise, token_key, key_exchange })
    }

    /// Shows another certificate to peers from now on, or believes others. Connections that stand are
    /// not touched.
    pub fn renew(&self, identity: &MeshIdentity) -> Result<(), QuicError> {
        let (server, client) = configs(identity, self.key_exchange, &self.token_key)?;
        self.endpoint.set_server_config(Some(server));
        self.client.store(Arc::new(client));
        Ok(())
    }
}

fn configs(
    identity: &MeshIdentity,
    key_exchange: KeyExchange,
    token_key: &Arc<dyn HandshakeTokenKey>,
) -> Result<(ServerConfig, ClientConfig), QuicError> {
    let transport = Arc::new(transport_config());
    let tls = identity.server_config(key_exchange)?;
    let mut server = ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls)?));
    server.transport_config(transport.clone()).token_key(Arc::clone(token_key));
    let tls = identity.client_config(key_exchange)?;
    let mut client = ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls)?));
    client.transport_config(transport);
    Ok((server, client))
}

/// A bound socket with large buffers.
pub(super) fn bind(address: SocketAddr) -> io::Result<std::net::UdpSocket> {
    let socket = port::bind(address, socket2::Type::DGRAM)?;
    socket.set_recv_buffer_size(SOCKET_BUFFER_BYTES)?;
    socket.set_send_buffer_size(SOCKET_BUFFER_BYTES)?;
    let granted = socket.recv_buffer_size()?.min(socket.send_buffer_size()?);
    if granted < SOCKET_BUFFER_BYTES {
        tracing::warn!(
            granted,
            wanted = SOCKET_BUFFER_BYTES,
            "the kernel limits the mesh's socket buffers, which loses packets under load: raise \
             net.core.rmem_max and net.core.wmem_max",
        );
    }
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

fn transport_config() -> TransportConfig {
    let mut mtu = MtuDiscoveryConfig::default();
    mtu.upper_bound(MTU_MAX);
    let idle_ms = u32::try_from(IDLE_TIMEOUT.as_millis()).unwrap_or(u32::MAX);
    let mut config = TransportConfig::default();
    config
        .max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(idle_ms))))
        .keep_alive_interval(Some(KEEP_ALIVE))
        .stream_receive_window(STREAM_WINDOW_BYTES.into())
        .receive_window(LINK_WINDOW_BYTES.into())
        .send_window(LINK_WINDOW_BYTES.into())
        .max_concurrent_uni_streams(UNI_STREAMS_MAX.into())
        .max_concurrent_bidi_streams(BI_STREAMS_MAX.into())
        .datagram_receive_buffer_size(None)
        .congestion_controller_factory(Arc::new(Congestion::default()))
        .mtu_discovery_config(Some(mtu));
    config
}

fn endpoint_config(settings: &QuicSettings<'_>) -> EndpointConfig {
    let reset = hmac::Key::new(hmac::HMAC_SHA256, &*settings.key.derive("quic resets"));
    let mut config = EndpointConfig::new(Arc::new(reset));
    let ids = settings.key.derive("quic connection ids");
    let ids = ids.first_chunk().copied().map(u64::from_le_bytes).unwrap_or_default();
    config.cid_generator(move || Box::new(HashedConnectionIdGenerator::from_key(ids)));
    config.rng_seed(settings.rng_seed);
    // So that what is not QUIC can be told by its first byte.
    config.grease_quic_bit(false);
    config
}

#[async_trait]
impl Transport for QuicTransport {
    fn local_address(&self) -> io::Result<SocketAddr> {
        self.endpoint.local_addr()
    }

    async fn dial(&self, address: SocketAddr) -> Result<Arc<dyn Connection>, ConnectError> {
        let unreachable = |error: quinn::ConnectError| ConnectError::Unreachable(error.to_string());
        let config = ClientConfig::clone(&self.client.load());
        let connecting =
            self.endpoint.connect_with(config, address, SERVER_NAME).map_err(unreachable)?;
        QuicConnection::verified(connecting.await)
    }

    async fn accept(&self) -> Option<Incoming> {
        loop {
            let incoming = tokio::select! {
                biased;
                incoming = self.endpoint.accept() => incoming?,
                from = self.noise.heard() => {
                    let connect = Box::pin(ready(Err(ConnectError::Noise(from))));
                    return Some(Incoming { from: None, connect });
                }
            };
            // Nothing is kept for a stranger before it answers from the address that it names.
            if incoming.remote_address_validated() || !incoming.may_retry() {
                let from = Some(incoming.remote_address());
                let connect = async move { QuicConnection::verified(incoming.await) };
                return Some(Incoming { from, connect: Box::pin(connect) });
            }
            // It fails only for those who have retried already.
            let _ = incoming.retry();
        }
    }

    async fn close(&self) {
        self.endpoint.close(VarInt::from_u32(CloseCode::Left as u32), b"the node stops");
        let idle = tokio::time::timeout(CLOSE_DEADLINE, self.endpoint.wait_idle());
        if idle.await.is_err() {
            tracing::debug!("not all peers have acknowledged the end");
        }
    }
}

#[derive(Debug)]
struct QuicConnection {
    connection: quinn::Connection,
    peer: NodeId,
}

impl QuicConnection {
    fn verified(
        connected: Result<quinn::Connection, ConnectionError>,
    ) -> Result<Arc<dyn Connection>, ConnectError> {
        let connection = connected.map_err(|error| match Ended::from(error) {
            Ended::Distrusted => ConnectError::Distrusted,
            Ended::Expired => ConnectError::Expired,
            other => ConnectError::Unreachable(other.to_string()),
        })?;
        let peer = named(&connection).ok_or(ConnectError::Nameless)?;
        Ok(Arc::new(Self { connection, peer }))
    }
}

/// The node that the peer's certificate names.
fn named(connection: &quinn::Connection) -> Option<NodeId> {
    let chain = connection.peer_identity()?.downcast::<Vec<CertificateDer<'static>>>().ok()?;
    tls::mesh::node_of(chain.first()?).ok().map(NodeId)
}

#[async_trait]
impl Connection for QuicConnection {
    fn peer(&self) -> NodeId {
        self.peer
    }

    fn rtt(&self) -> Duration {
        self.connection.rtt()
    }

    fn packets(&self) -> Packets {
        let path = self.connection.stats().path;
        Packets { sent: path.sent_packets, lost: path.lost_packets }
    }

    async fn open_bi(&self) -> Result<(Box<dyn Outgoing>, Receiving), Ended> {
        Ok(boxed(self.connection.open_bi().await?))
    }

    async fn accept_bi(&self) -> Result<(Box<dyn Outgoing>, Receiving), Ended> {
        Ok(boxed(self.connection.accept_bi().await?))
    }

    async fn open_uni(&self, priority: i32) -> Result<Box<dyn Outgoing>, Ended> {
        let stream = self.connection.open_uni().await?;
        // It fails only for a stream that has ended.
        let _ = stream.set_priority(priority);
        Ok(Box::new(stream))
    }

    async fn accept_uni(&self) -> Result<Receiving, Ended> {
        Ok(Box::new(self.connection.accept_uni().await?))
    }

    fn close(&self, code: CloseCode, reason: &str) {
        self.connection.close(VarInt::from_u32(code as u32), reason.as_bytes());
    }

    async fn closed(&self) -> Ended {
        self.connection.closed().await.into()
    }
}

fn boxed((to, from): (SendStream, RecvStream)) -> (Box<dyn Outgoing>, Receiving) {
    (Box::new(to), Box::new(from))
}

#[async_trait]
impl Outgoing for SendStream {
    async fn deliver(&mut self) -> io::Result<()> {
        // It fails only for a stream that has ended.
        let _ = self.finish();
        self.stopped().await.map(|_| ()).map_err(io::Error::other)
    }
}

impl From<ConnectionError> for Ended {
    fn from(error: ConnectionError) -> Self {
        let code = match &error {
            ConnectionError::TransportError(error) => Some(error.code),
            ConnectionError::ConnectionClosed(close) => Some(close.error_code),
            _ => None,
        };
        match error {
            _ if code.is_some_and(|code| is_distrust(code.into())) => Self::Distrusted,
            _ if code.is_some_and(|code| u64::from(code) == CERTIFICATE_EXPIRED) => Self::Expired,
            ConnectionError::LocallyClosed => Self::Here,
            ConnectionError::ApplicationClosed(close) => Self::There {
                code: close.error_code.into_inner().into(),
                reason: String::from_utf8_lossy(&close.reason).into_owned(),
            },
            other => Self::Lost(other.to_string()),
        }
    }
}

/// The alert `certificate_expired` (RFC 8446, section 6.2) as a transport's error code; rustls says it of
/// certificates that are not good yet, too.
const CERTIFICATE_EXPIRED: u64 = 0x100 + 45;

/// Whether a transport's error code (RFC 9001, section 4.8) is an alert (RFC 8446, section 6.2) that
/// says: not signed by an authority of mine.
fn is_distrust(code: u64) -> bool {
    const BAD_CERTIFICATE: u64 = 0x100 + 42;
    const UNKNOWN_CA: u64 = 0x100 + 48;
    const DECRYPT_ERROR: u64 = 0x100 + 51;
    matches!(code, BAD_CERTIFICATE | UNKNOWN_CA | DECRYPT_ERROR)
}
