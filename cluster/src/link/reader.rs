//! Reads one lane: bytes in, whole frames out, in order.

use std::{io, sync::Arc};

use bytes::{Buf, Bytes, BytesMut};
use tokio::{io::AsyncReadExt, task::yield_now};

use super::{
    Links,
    frames::{self, Frames, GOSSIP_KIND},
    link::{self, Link},
    transport::Receiving,
};
use crate::wire::{self, Control, Lane, WireError};

/// Bytes asked for at once: what waits is handed on together, and an idle lane holds no more.
const READ_BYTES: usize = 32 << 10;

/// After so much other tasks get their turn. A stream of QUIC never says that it was read for long
/// enough, and may hold 8 MiB, or be filled as fast as it is read.
const TURN_BYTES: usize = 128 << 10;

/// A buffer with more room than this is not kept: the longest frame would leave its size behind on
/// every lane.
const KEPT_BYTES: usize = 256 << 10;

/// Why a lane is read no further.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReadFault {
    /// The connection or the stream broke.
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Wire(#[from] WireError),
    /// No such lane, or it is open already.
    #[error("a stream that begins with {0}")]
    Lane(u8),
    /// The lane ends within a frame.
    #[error("a frame that ends too early")]
    CutShort,
}

/// Reads a stream to its end, and hands its frames on. Never waits for who takes them.
pub(super) async fn read(
    link: Arc<Link>,
    links: Arc<Links>,
    mut stream: Receiving,
) -> Result<(), ReadFault> {
    let number = stream.read_u8().await?;
    let lane = link::lane(number).filter(|lane| link.opens(*lane));
    let lane = lane.ok_or(ReadFault::Lane(number))?;
    let mut bytes = BytesMut::new();
    let mut in_turn = 0;
    loop {
        bytes.reserve(READ_BYTES);
        let read = stream.read_buf(&mut bytes).await?;
        if read == 0 {
            return if bytes.is_empty() { Ok(()) } else { Err(ReadFault::CutShort) };
        }
        if link.is_violated() {
            return Ok(());
        }
        let (end, frames) = frames::whole(&bytes)?;
        if frames > 0 {
            links.counters.received(lane.into(), frames, end as u64);
            link.received(end as u64);
            hand_on(&link, &links, lane, bytes.split_to(end).freeze())?;
            trim(&mut bytes);
        }
        in_turn += read;
        if in_turn >= TURN_BYTES {
            in_turn = 0;
            yield_now().await;
        }
    }
}

/// Moves what is left of a large buffer into one of its own size.
fn trim(bytes: &mut BytesMut) {
    if bytes.capacity() > KEPT_BYTES && bytes.len() <= READ_BYTES {
        *bytes = BytesMut::from(&bytes[..]);
    }
}

fn hand_on(link: &Link, links: &Links, lane: Lane, mut bytes: Bytes) -> Result<(), WireError> {
    let from = link.peer.incarnation;
    if let Lane::Data(lane) = lane {
        let mut frames = Frames::new(&mut bytes);
        links.events.data(from, lane, &mut frames);
        return frames.fault();
    }
    while let Some((kind, body, consumed)) = wire::split(&bytes)? {
        bytes.advance(consumed);
        match lane {
            Lane::Gossip if kind == GOSSIP_KIND => links.events.gossip(from, body),
            Lane::Gossip => return Err(WireError::UnknownKind(kind)),
            _ => links.events.control(from, Control::decode(kind, &body)?),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_frame_leaves_no_large_buffer_behind() {
        let mut bytes = BytesMut::zeroed(16 << 20);
        bytes.extend_from_slice(b"next");
        drop(bytes.split_to(16 << 20));
        trim(&mut bytes);
        assert_eq!(bytes, b"next"[..]);
        assert!(bytes.capacity() <= KEPT_BYTES, "{}", bytes.capacity());
    }
}
