//! Frames as they were received: how much of the bytes are whole ones, and what is in them.

use bytes::{Buf, Bytes};

use crate::wire::{self, Data, FRAME_BYTES_MAX, WireError};

/// The one kind of frame on the gossip lane: a message of the membership, opaque here.
pub(super) const GOSSIP_KIND: u8 = 32;

/// Appends a frame of the gossip lane.
pub(super) fn append_gossip(out: &mut Vec<u8>, message: &[u8]) {
    // Longer ones find no room in the lane.
    let length = u32::try_from(message.len() + 1).unwrap_or(u32::MAX);
    out.extend_from_slice(&length.to_le_bytes());
    out.push(GOSSIP_KIND);
    out.extend_from_slice(message);
}

/// Frames that were received together.
#[derive(Debug)]
pub struct Frames<'a> {
    bytes: &'a mut Bytes,
    fault: Option<WireError>,
}

impl<'a> Frames<'a> {
    /// The whole frames in `bytes`; what is left of it afterwards is the beginning of another.
    pub fn new(bytes: &'a mut Bytes) -> Self {
        Self { bytes, fault: None }
    }

    /// Takes every whole frame off the front, and calls `each` for it.
    ///
    /// # Errors
    /// The first frame that is none ends it; the link is closed as [`Violation`](super::Down) when
    /// the caller returns.
    pub fn for_each(&mut self, mut each: impl FnMut(Data<'_>)) -> Result<(), WireError> {
        let read = self.read(&mut each);
        self.fault = read.clone().err();
        read
    }

    fn read(&mut self, each: &mut impl FnMut(Data<'_>)) -> Result<(), WireError> {
        while let Some((kind, body, consumed)) = wire::split(self.bytes)? {
            self.bytes.advance(consumed);
            each(Data::decode(kind, &body)?);
        }
        Ok(())
    }

    /// What was wrong with the frames that were read so far.
    pub(super) fn fault(self) -> Result<(), WireError> {
        self.fault.map_or(Ok(()), Err)
    }
}

/// How many bytes at the front of `bytes` are whole frames, and how many frames they are.
///
/// A length is judged as soon as it is there, before room is made for what it announces.
pub(super) fn whole(bytes: &[u8]) -> Result<(usize, u64), WireError> {
    let (mut end, mut frames) = (0, 0);
    while let Some(length) = bytes.get(end..).and_then(<[u8]>::first_chunk::<4>) {
        let length = usize::try_from(u32::from_le_bytes(*length)).unwrap_or(usize::MAX);
        if length > FRAME_BYTES_MAX {
            return Err(WireError::TooLong(length));
        }
        if bytes.len() - end - 4 < length {
            break;
        }
        end += 4 + length;
        frames += 1;
    }
    Ok((end, frames))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_length_above_the_longest_is_refused_before_its_frame_is_there() {
        let length = u32::try_from(FRAME_BYTES_MAX).unwrap();
        assert_eq!(whole(&length.to_le_bytes()), Ok((0, 0)));
        assert_eq!(
            whole(&(length + 1).to_le_bytes()),
            Err(WireError::TooLong(FRAME_BYTES_MAX + 1))
        );
    }

    proptest! {
        #[test]
        fn counts_whole_frames_and_leaves_the_rest(
            lengths in proptest::collection::vec(0usize..300, 0..20),
            cut in 0usize..400,
        ) {
            let mut bytes = Vec::new();
            let mut ends = vec![0];
            for length in lengths {
                bytes.extend(u32::try_from(length).unwrap().to_le_bytes());
                bytes.resize(bytes.len() + length, 7);
                ends.push(bytes.len());
            }
            bytes.truncate(bytes.len().saturating_sub(cut));
            let frames = ends.iter().filter(|end| **end <= bytes.len()).count() - 1;
            prop_assert_eq!(whole(&bytes), Ok((ends[frames], frames as u64)));
        }

        #[test]
        fn any_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = whole(&bytes);
            let _ = Frames::new(&mut Bytes::from(bytes)).for_each(|_| {});
        }
    }
}
