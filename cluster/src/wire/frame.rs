//! What all frames have in common: a length, a kind, a body.

use bytes::Bytes;

use super::{FRAME_BYTES_MAX, WireError};

/// Bytes of the length field.
const LENGTH_BYTES: usize = 4;

/// The first frame in `bytes`: its kind, its body, and how many bytes it takes. None if its end is
/// not there yet.
///
/// The body shares `bytes`. A length is judged as soon as it is there, before room is made for what
/// it announces.
///
/// # Errors
/// [`WireError::TooLong`], and [`WireError::Malformed`] of kind 0 if the frame has no kind.
pub fn split(bytes: &Bytes) -> Result<Option<(u8, Bytes, usize)>, WireError> {
    let Some((length, rest)) = bytes.split_first_chunk::<LENGTH_BYTES>() else { return Ok(None) };
    let length = usize::try_from(u32::from_le_bytes(*length)).unwrap_or(usize::MAX);
    if length > FRAME_BYTES_MAX {
        return Err(WireError::TooLong(length));
    }
    if length == 0 {
        return Err(WireError::Malformed(0));
    }
    let end = LENGTH_BYTES + length;
    match rest.first() {
        Some(kind) if bytes.len() >= end => {
            Ok(Some((*kind, bytes.slice(LENGTH_BYTES + 1..end), end)))
        }
        _ => Ok(None),
    }
}

/// Appends a frame whose body `write` appends.
pub(super) fn append(out: &mut Vec<u8>, kind: u8, write: impl FnOnce(&mut Vec<u8>)) {
    counted(out, |out| {
        out.push(kind);
        write(out);
    });
}

/// Appends what `write` appends, with its length before it.
pub(super) fn counted(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0; LENGTH_BYTES]);
    write(out);
    let written = out.len() - start - LENGTH_BYTES;
    debug_assert!(written <= FRAME_BYTES_MAX, "a frame of {written} bytes");
    let length = u32::try_from(written).unwrap_or(u32::MAX).to_le_bytes();
    if let Some(field) = out.get_mut(start..start + LENGTH_BYTES) {
        field.copy_from_slice(&length);
    }
}
