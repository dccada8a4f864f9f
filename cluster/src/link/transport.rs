//! What carries links: connections between two nodes that know each other by certificate, each with
//! ordered streams of bytes.
//!
//! Knows nothing of frames, lanes or who may be linked. [`quic`](super::quic) is the real one;
//! [`memory`](super::memory) keeps the same promises within one process. One conformance suite holds
//! for both.

use std::{fmt, io, net::SocketAddr, sync::Arc, time::Duration};

use async_trait::async_trait;
use futures_util::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::NodeId;

/// Nothing of a peer for this long, and the connection counts as lost.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(5);

/// What both ends are told of a certificate whose time is over, or is to come.
const EXPIRED: &str = "a certificate has expired, or is not good yet: set both nodes' clocks right, and \
                       renew MESH_CERT if they have one";

/// An endpoint that dials and is dialled.
#[async_trait]
pub trait Transport: Send + Sync + 'static {
    /// Where it is reached.
    fn local_address(&self) -> io::Result<SocketAddr>;

    /// Connects, and verifies the certificate of who answers.
    async fn dial(&self, address: SocketAddr) -> Result<Arc<dyn Connection>, ConnectError>;

    /// Waits for somebody who dials; none once the endpoint is closed. Safe to cancel.
    async fn accept(&self) -> Option<Incoming>;

    /// Closes all connections, and waits until their peers were told.
    async fn close(&self);
}

/// Somebody who dials; dropped, it is turned away.
pub struct Incoming {
    /// From where; none if whoever sent it may have written any address there.
    pub from: Option<SocketAddr>,
    /// Exchanges and verifies certificates.
    pub connect: BoxFuture<'static, Result<Arc<dyn Connection>, ConnectError>>,
}

/// A connection to a node whose certificate was verified. Dropped by all, it is closed.
#[async_trait]
pub trait Connection: Send + Sync + fmt::Debug + 'static {
    /// The node that the peer's certificate names.
    fn peer(&self) -> NodeId;

    /// The round trip, as estimated now.
    fn rtt(&self) -> Duration;

    /// What became of its datagrams; nothing where there are none.
    fn packets(&self) -> Packets {
        Packets::default()
    }

    /// Opens the stream for the handshake. The peer learns of it with its first bytes.
    async fn open_bi(&self) -> Result<(Box<dyn Outgoing>, Receiving), Ended>;

    /// Waits for a stream that the peer opens in both directions. Safe to cancel.
    async fn accept_bi(&self) -> Result<(Box<dyn Outgoing>, Receiving), Ended>;

    /// Opens a lane's stream. Of all that wait to be sent, the highest priority goes first.
    async fn open_uni(&self, priority: i32) -> Result<Box<dyn Outgoing>, Ended>;

    /// Waits for a lane's stream of the peer's. Fails only after all that came before the
    /// connection's end were given. Safe to cancel.
    async fn accept_uni(&self) -> Result<Receiving, Ended>;

    /// Tells the peer that this is the end. What was not delivered yet is lost; what was received
    /// can still be read.
    fn close(&self, code: CloseCode, reason: &str);

    /// Waits for the end. Safe to cancel.
    async fn closed(&self) -> Ended;
}

/// What became of a connection's datagrams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Packets {
    /// Sent since it was made.
    pub sent: u64,
    /// Those of them that are taken for lost; what was in them was sent again.
    pub lost: u64,
}

/// The reading end of a stream. After the connection's end it gives what was received before.
pub type Receiving = Box<dyn AsyncRead + Send + Unpin>;

/// The writing end of a stream.
#[async_trait]
pub trait Outgoing: AsyncWrite + Send + Unpin {
    /// Ends the stream, and waits until the peer's end has received all of it.
    async fn deliver(&mut self) -> io::Result<()>;
}

/// Why a connection was closed, as the peer is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum CloseCode {
    /// It was just dropped, or for a reason that this release does not know.
    Dropped = 0,
    /// The node stops.
    Left = 1,
    /// Another connection of the same pair lives.
    Duplicate = 2,
    /// The peer may not be linked.
    Refused = 3,
    /// The peer broke the rules of the wire.
    Violation = 4,
    /// The node wants this link no more.
    Closed = 5,
}

impl From<u64> for CloseCode {
    fn from(code: u64) -> Self {
        match code {
            1 => Self::Left,
            2 => Self::Duplicate,
            3 => Self::Refused,
            4 => Self::Violation,
            5 => Self::Closed,
            _ => Self::Dropped,
        }
    }
}

/// How a connection ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Ended {
    /// This end closed it.
    #[error("closed by this node")]
    Here,
    /// The peer closed it.
    #[error("closed by the peer: {reason}")]
    There {
        /// Why.
        code: CloseCode,
        /// Why, for people.
        reason: String,
    },
    /// The peer does not accept this node's certificate.
    #[error("the peer does not share our CLUSTER_SECRET")]
    Distrusted,
    /// The peer finds that this node's certificate is not good at this time.
    #[error("{EXPIRED}")]
    Expired,
    /// The peer fell silent, forgot the connection, or broke it.
    #[error("lost: {0}")]
    Lost(String),
}

impl From<Ended> for io::Error {
    fn from(ended: Ended) -> Self {
        Self::new(io::ErrorKind::ConnectionAborted, ended)
    }
}

/// Why there is no connection.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// One end's certificate is not signed by the other's authority.
    #[error("its certificate is not of our CLUSTER_SECRET, or ours is not of its")]
    Distrusted,
    /// One end's certificate is not good at this time.
    #[error("{EXPIRED}")]
    Expired,
    /// The certificate names no node.
    #[error("its certificate names no node")]
    Nameless,
    /// What came is no attempt to connect at all.
    #[error(
        "datagrams that are not QUIC come from {0}, if that is true: has somebody else the mesh's port?"
    )]
    Noise(SocketAddr),
    /// Nobody answers there, or not as a node does.
    #[error("{0}")]
    Unreachable(String),
}
