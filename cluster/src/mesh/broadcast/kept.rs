//! Frames that are kept beyond the bytes they came in.
//!
//! Owns its bytes, all of them: a slice of what was received would keep the whole read buffer, and
//! no bound would hold.

use bytes::Bytes;

use crate::{
    Incarnation, SessionId,
    wire::{Body, Broadcast, Data, Direct, Names, Relayed},
};

/// What keeping one frame costs beside its names and body, at most: the entry in a map and the
/// allocations' own.
const OVERHEAD_BYTES: usize = 192;

/// A frame of a data lane that waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Kept(Frame);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Frame {
    Start { seq: u64 },
    Direct(KeptDirect),
    Bounced(KeptDirect),
    Broadcast(KeptBroadcast),
    Relayed { origin: Incarnation, lane: u8, broadcast: KeptBroadcast },
    Fence { agent: Box<str>, epoch: u64 },
    Fenced { agent: Box<str>, epoch: u64 },
    Barrier { agent: Box<str>, session: SessionId },
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct KeptDirect {
    followed: bool,
    resent: bool,
    era: u32,
    from: Box<str>,
    targets: Box<[u8]>,
    body: Bytes,
}

/// A broadcast that waits, or is kept to be sent again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct KeptBroadcast {
    pub(super) seq: u64,
    from: Box<str>,
    except: Box<[u8]>,
    body: Bytes,
}

impl Kept {
    /// A copy of the frame.
    pub(crate) fn new(frame: &Data<'_>) -> Self {
        Self(match *frame {
            Data::Start { seq } => Frame::Start { seq },
            Data::Direct(ref direct) => Frame::Direct(direct.into()),
            Data::Bounced(ref direct) => Frame::Bounced(direct.into()),
            Data::Broadcast(ref broadcast) => Frame::Broadcast(KeptBroadcast::copy(broadcast)),
            Data::Relayed(Relayed { origin, lane, ref broadcast }) => {
                Frame::Relayed { origin, lane, broadcast: KeptBroadcast::copy(broadcast) }
            }
            Data::Fence { agent, epoch } => Frame::Fence { agent: agent.into(), epoch },
            Data::Fenced { agent, epoch } => Frame::Fenced { agent: agent.into(), epoch },
            Data::Barrier { agent, session } => Frame::Barrier { agent: agent.into(), session },
        })
    }

    /// The frame.
    pub(crate) fn frame(&self) -> Data<'_> {
        match self.0 {
            Frame::Start { seq } => Data::Start { seq },
            Frame::Direct(ref direct) => Data::Direct(direct.frame()),
            Frame::Bounced(ref direct) => Data::Bounced(direct.frame()),
            Frame::Broadcast(ref broadcast) => Data::Broadcast(broadcast.frame()),
            Frame::Relayed { origin, lane, ref broadcast } => {
                Data::Relayed(Relayed { origin, lane, broadcast: broadcast.frame() })
            }
            Frame::Fence { ref agent, epoch } => Data::Fence { agent, epoch },
            Frame::Fenced { ref agent, epoch } => Data::Fenced { agent, epoch },
            Frame::Barrier { ref agent, session } => Data::Barrier { agent, session },
        }
    }

    /// What it costs to keep it, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        match &self.0 {
            Frame::Start { .. } => OVERHEAD_BYTES,
            Frame::Direct(direct) | Frame::Bounced(direct) => {
                OVERHEAD_BYTES + direct.from.len() + direct.targets.len() + direct.body.len()
            }
            Frame::Broadcast(broadcast) | Frame::Relayed { broadcast, .. } => broadcast.bytes(),
            Frame::Fence { agent, .. }
            | Frame::Fenced { agent, .. }
            | Frame::Barrier { agent, .. } => OVERHEAD_BYTES + agent.len(),
        }
    }
}

impl KeptDirect {
    fn frame(&self) -> Direct<'_> {
        Direct {
            followed: self.followed,
            resent: self.resent,
            era: self.era,
            from: &self.from,
            targets: Names::Encoded(&self.targets),
            body: Body::Shared(self.body.clone()),
        }
    }
}

impl From<&Direct<'_>> for KeptDirect {
    fn from(direct: &Direct<'_>) -> Self {
        Self {
            followed: direct.followed,
            resent: direct.resent,
            era: direct.era,
            from: direct.from.into(),
            targets: encoded(&direct.targets),
            body: Bytes::copy_from_slice(direct.body.as_slice()),
        }
    }
}

impl KeptBroadcast {
    /// A copy of the broadcast.
    pub(super) fn copy(broadcast: &Broadcast<'_>) -> Self {
        Self::new(broadcast, Bytes::copy_from_slice(broadcast.body.as_slice()))
    }

    /// The broadcast, its body shared if it can be.
    pub(super) fn share(broadcast: &Broadcast<'_>) -> Self {
        Self::new(broadcast, broadcast.body.to_shared())
    }

    fn new(broadcast: &Broadcast<'_>, body: Bytes) -> Self {
        let (from, except) = (broadcast.from.into(), encoded(&broadcast.except));
        Self { seq: broadcast.seq, from, except, body }
    }

    pub(super) fn frame(&self) -> Broadcast<'_> {
        Broadcast {
            seq: self.seq,
            from: &self.from,
            except: Names::Encoded(&self.except),
            body: Body::Shared(self.body.clone()),
        }
    }

    pub(super) fn bytes(&self) -> usize {
        OVERHEAD_BYTES + self.from.len() + self.except.len() + self.body.len()
    }
}

/// The names as `Names::Encoded` reads them. Agents' names have 64 bytes at most; what is longer
/// names nobody, and is left out.
fn encoded(names: &Names<'_>) -> Box<[u8]> {
    let mut bytes = Vec::new();
    for name in names.iter() {
        if let Ok(length) = u8::try_from(name.len()) {
            bytes.push(length);
            bytes.extend_from_slice(name.as_bytes());
        }
    }
    bytes.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Generation, NodeId};

    #[test]
    fn each_frame_comes_back_as_it_was() {
        let names = ["bob-1", "cid"];
        let body = || Body::Borrowed(b"{}");
        let direct = || Direct {
            followed: true,
            resent: true,
            era: 7,
            from: "ann",
            targets: Names::List(&names),
            body: body(),
        };
        let broadcast =
            || Broadcast { seq: 9, from: "ann", except: Names::List(&names), body: body() };
        let origin = Incarnation { node: NodeId(3), generation: Generation(4) };
        let frames = [
            Data::Start { seq: 5 },
            Data::Direct(direct()),
            Data::Bounced(direct()),
            Data::Broadcast(broadcast()),
            Data::Relayed(Relayed { origin, lane: 2, broadcast: broadcast() }),
            Data::Fence { agent: "ann", epoch: 1 },
            Data::Fenced { agent: "ann", epoch: 2 },
            Data::Barrier { agent: "ann", session: SessionId { time: 6, node: NodeId(8) } },
        ];
        for frame in frames {
            assert_eq!(Kept::new(&frame).frame(), frame);
        }
    }

    #[test]
    fn what_is_kept_is_a_copy_and_what_is_shared_is_not() {
        let received = Bytes::from(vec![b'x'; 100]);
        let body = Body::Shared(received.slice(10..20));
        let broadcast = Broadcast { seq: 1, from: "ann", except: Names::NONE, body };
        let start = |kept: &KeptBroadcast| kept.body.as_ptr();
        assert_ne!(start(&KeptBroadcast::copy(&broadcast)), received[10..].as_ptr());
        assert_eq!(start(&KeptBroadcast::share(&broadcast)), received[10..].as_ptr());
    }
}
