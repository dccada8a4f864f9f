//! Frames of the data lanes: what carries the agents' messages.

use bytes::Bytes;

use crate::{Incarnation, SessionId};

/// A frame of a data lane. Borrows what it is made of when it is sent, and shares the received
/// bytes when it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Data<'a> {
    /// Kind 64, the first on each lane of a new link: the sender's broadcasts above this number are
    /// for the receiver. Said again to a node of another region: those up to this number have their
    /// place before what follows on the lane.
    Start {
        /// The last number before.
        seq: u64,
    },
    /// Kind 65: for these agents, whose home the receiver is thought to be.
    Direct(Direct<'a>),
    /// Kind 66, back on the same lane: these agents are not here.
    Bounced(Direct<'a>),
    /// Kind 67: for all agents of the receiver, by the link's peer.
    Broadcast(Broadcast<'a>),
    /// Kind 68: for all agents of the receiver, by another node of another region.
    Relayed(Relayed<'a>),
    /// Kind 69: answer with `Fenced` behind all that came before on this lane.
    Fence {
        /// Whose messages are fenced.
        agent: &'a str,
        /// Told back.
        epoch: u64,
    },
    /// Kind 70: the answer to a `Fence`, behind the `Bounced` ones.
    Fenced {
        /// Whose messages are fenced.
        agent: &'a str,
        /// The fence's number.
        epoch: u64,
    },
    /// Kind 71: from here on the sender knows of this session; what came before on this lane is not
    /// for it.
    Barrier {
        /// Whose session.
        agent: &'a str,
        /// Which one.
        session: SessionId,
    },
}

/// A message for named agents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Direct<'a> {
    /// Whether the targets get it as followers of its sender, not because it names them.
    pub followed: bool,
    /// Whether it bounced before, from another node. Then it is not sent a third time.
    pub resent: bool,
    /// The era of its sender's node in which it was pushed: told back, and of meaning only there.
    pub era: u32,
    /// Who sent it; not the receiver's own choice where it matters: only told apart, never shown.
    pub from: &'a str,
    /// For whom; at least one.
    pub targets: Names<'a>,
    /// The finished bytes.
    pub body: Body<'a>,
}

/// A message for all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broadcast<'a> {
    /// Counts the origin's broadcasts on this lane, from 1.
    pub seq: u64,
    /// Who sent it, and does not get it.
    pub from: &'a str,
    /// Who does not get it either, since it goes to them as a direct message.
    pub except: Names<'a>,
    /// The finished bytes.
    pub body: Body<'a>,
}

/// A broadcast that comes by way of the receiver's region.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relayed<'a> {
    /// Where it comes from.
    pub origin: Incarnation,
    /// The lane it has at its origin, which counts it.
    pub lane: u8,
    /// The broadcast itself.
    pub broadcast: Broadcast<'a>,
}

/// Agents' names: a list to be sent, or as they were received.
#[derive(Clone, Copy, Debug)]
pub enum Names<'a> {
    /// To be sent; well-formed ids, at most [`NAMES_MAX`](super::NAMES_MAX).
    List(&'a [&'a str]),
    /// As received: for each a length (u8) and its bytes. All were checked to be well-formed ids when
    /// the frame was read.
    Encoded(&'a [u8]),
}

/// A message's bytes.
#[derive(Clone, Debug)]
pub enum Body<'a> {
    /// Somebody else's, copied when they are kept.
    Borrowed(&'a [u8]),
    /// Shared with what was received or is kept.
    Shared(Bytes),
}

impl Body<'_> {
    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        match self {
            Self::Borrowed(bytes) => bytes,
            Self::Shared(bytes) => bytes,
        }
    }

    /// The bytes, to be kept: copied only if they are somebody else's.
    pub fn to_shared(&self) -> Bytes {
        match self {
            Self::Borrowed(bytes) => Bytes::copy_from_slice(bytes),
            Self::Shared(bytes) => bytes.clone(),
        }
    }
}

impl PartialEq for Body<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.as_slice() == other.as_slice()
    }
}

impl Eq for Body<'_> {}

impl<'a> Names<'a> {
    /// No names.
    pub const NONE: Self = Self::List(&[]);

    /// The names in order.
    pub fn iter(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        let (list, encoded) = match *self {
            Self::List(list) => (list, &[][..]),
            Self::Encoded(bytes) => (&[][..], bytes),
        };
        list.iter().copied().chain(Encoded(encoded))
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }
}

impl PartialEq for Names<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for Names<'_> {}

struct Encoded<'a>(&'a [u8]);

impl<'a> Iterator for Encoded<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        let (len, rest) = self.0.split_first()?;
        let (name, rest) = rest.split_at_checked(usize::from(*len))?;
        self.0 = rest;
        std::str::from_utf8(name).ok()
    }
}
