//! The bytes of [`Data`] frames, laid out by hand.
//!
//! Numbers are little-endian. A name is a length (u8) and its bytes; names are their length in bytes
//! (u32) and one after the other; an agent's message is what is left of the frame.

use bytes::Bytes;

use super::{
    Body, Broadcast, Data, Direct, LANES, NAMES_MAX, Names, Relayed, WireError,
    frame::{append, counted},
};
use crate::{AgentId, Generation, Incarnation, NodeId, SessionId};

const START: u8 = 64;
const DIRECT: u8 = 65;
const BOUNCED: u8 = 66;
const BROADCAST: u8 = 67;
const RELAYED: u8 = 68;
const FENCE: u8 = 69;
const FENCED: u8 = 70;
const BARRIER: u8 = 71;

/// The flags of a direct message: its targets follow its sender; it bounced before.
const FOLLOWED: u8 = 1;
const RESENT: u8 = 2;

impl<'a> Data<'a> {
    /// Appends the frame, whole: nothing is allocated but what `out` lacks, and the agent's message is
    /// copied once.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Start { seq } => append(out, START, |out| put_u64(out, *seq)),
            Self::Direct(direct) => append(out, DIRECT, |out| put_direct(out, direct)),
            Self::Bounced(direct) => append(out, BOUNCED, |out| put_direct(out, direct)),
            Self::Broadcast(broadcast) => {
                append(out, BROADCAST, |out| put_broadcast(out, broadcast));
            }
            Self::Relayed(relayed) => append(out, RELAYED, |out| put_relayed(out, relayed)),
            Self::Fence { agent, epoch } => append(out, FENCE, |out| put_fence(out, agent, *epoch)),
            Self::Fenced { agent, epoch } => {
                append(out, FENCED, |out| put_fence(out, agent, *epoch));
            }
            Self::Barrier { agent, session } => append(out, BARRIER, |out| {
                put_u64(out, session.time);
                put_u64(out, session.node.0);
                put_name(out, agent);
            }),
        }
    }

    /// Reads the body of a frame of this kind. Names and the agent's message are not copied.
    ///
    /// # Errors
    /// [`WireError::UnknownKind`] if it is no kind of the data lanes', and [`WireError::Malformed`] if
    /// the body is not one frame's, or more than one's, or names what cannot be an agent or a lane.
    pub fn decode(kind: u8, body: &'a Bytes) -> Result<Self, WireError> {
        let mut fields = Fields { body, rest: body };
        let frame = match kind {
            START => fields.u64().map(|seq| Self::Start { seq }),
            DIRECT => fields.direct().map(Self::Direct),
            BOUNCED => fields.direct().map(Self::Bounced),
            BROADCAST => fields.broadcast().map(Self::Broadcast),
            RELAYED => fields.relayed().map(Self::Relayed),
            FENCE => fields.fence().map(|(agent, epoch)| Self::Fence { agent, epoch }),
            FENCED => fields.fence().map(|(agent, epoch)| Self::Fenced { agent, epoch }),
            BARRIER => fields.barrier().map(|(agent, session)| Self::Barrier { agent, session }),
            _ => return Err(WireError::UnknownKind(kind)),
        };
        frame.filter(|_| fields.rest.is_empty()).ok_or(WireError::Malformed(kind))
    }
}

fn put_direct(out: &mut Vec<u8>, direct: &Direct<'_>) {
    debug_assert!(!direct.targets.is_empty(), "a message for nobody");
    let flag = |set, flag| if set { flag } else { 0 };
    out.push(flag(direct.followed, FOLLOWED) | flag(direct.resent, RESENT));
    out.extend_from_slice(&direct.era.to_le_bytes());
    put_name(out, direct.from);
    put_names(out, direct.targets);
    out.extend_from_slice(direct.body.as_slice());
}

fn put_relayed(out: &mut Vec<u8>, relayed: &Relayed<'_>) {
    put_u64(out, relayed.origin.node.0);
    put_u64(out, relayed.origin.generation.0);
    out.push(relayed.lane);
    put_broadcast(out, &relayed.broadcast);
}

fn put_broadcast(out: &mut Vec<u8>, broadcast: &Broadcast<'_>) {
    put_u64(out, broadcast.seq);
    put_name(out, broadcast.from);
    put_names(out, broadcast.except);
    out.extend_from_slice(broadcast.body.as_slice());
}

fn put_fence(out: &mut Vec<u8>, agent: &str, epoch: u64) {
    put_u64(out, epoch);
    put_name(out, agent);
}

fn put_names(out: &mut Vec<u8>, names: Names<'_>) {
    counted(out, |out| match names {
        Names::List(list) => {
            debug_assert!(list.len() <= NAMES_MAX, "{} names", list.len());
            for name in list {
                put_name(out, name);
            }
        }
        Names::Encoded(bytes) => out.extend_from_slice(bytes),
    });
}

/// A name that is none is refused by whoever reads it, like the rest of its frame.
fn put_name(out: &mut Vec<u8>, name: &str) {
    debug_assert!(AgentId::is_well_formed(name), "{name:?}");
    out.push(u8::try_from(name.len()).unwrap_or_default());
    out.extend_from_slice(name.as_bytes());
}

fn put_u64(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(&number.to_le_bytes());
}

/// What is left to read of a body.
struct Fields<'a> {
    body: &'a Bytes,
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    fn direct(&mut self) -> Option<Direct<'a>> {
        let flags = self.u8().filter(|flags| flags & !(FOLLOWED | RESENT) == 0)?;
        Some(Direct {
            followed: flags & FOLLOWED != 0,
            resent: flags & RESENT != 0,
            era: self.u32()?,
            from: self.name()?,
            targets: self.names().filter(|names| !names.is_empty())?,
            body: self.message(),
        })
    }

    fn broadcast(&mut self) -> Option<Broadcast<'a>> {
        Some(Broadcast {
            seq: self.u64()?,
            from: self.name()?,
            except: self.names()?,
            body: self.message(),
        })
    }

    fn relayed(&mut self) -> Option<Relayed<'a>> {
        let node = NodeId(self.u64()?);
        let generation = Generation(self.u64()?);
        let lane = self.u8().filter(|lane| usize::from(*lane) < LANES)?;
        let origin = Incarnation { node, generation };
        Some(Relayed { origin, lane, broadcast: self.broadcast()? })
    }

    fn fence(&mut self) -> Option<(&'a str, u64)> {
        let epoch = self.u64()?;
        Some((self.name()?, epoch))
    }

    fn barrier(&mut self) -> Option<(&'a str, SessionId)> {
        let session = SessionId { time: self.u64()?, node: NodeId(self.u64()?) };
        Some((self.name()?, session))
    }

    /// All that is left.
    fn message(&mut self) -> Body<'a> {
        let start = self.body.len() - self.rest.len();
        self.rest = &[];
        Body::Shared(self.body.slice(start..))
    }

    /// Looks at each name once, so that [`Names::iter`] never ends before the last.
    fn names(&mut self) -> Option<Names<'a>> {
        let length = usize::try_from(self.u32()?).ok()?;
        let bytes = self.take(length)?;
        let mut names = Fields { body: self.body, rest: bytes };
        for _ in 0..NAMES_MAX {
            if names.rest.is_empty() {
                return Some(Names::Encoded(bytes));
            }
            names.name()?;
        }
        names.rest.is_empty().then_some(Names::Encoded(bytes))
    }

    fn name(&mut self) -> Option<&'a str> {
        let length = self.u8()?;
        let name = std::str::from_utf8(self.take(length.into())?).ok()?;
        AgentId::is_well_formed(name).then_some(name)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_le_bytes)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (array, rest) = self.rest.split_first_chunk()?;
        self.rest = rest;
        Some(*array)
    }

    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(count)?;
        self.rest = rest;
        Some(taken)
    }
}
