//! WebSocket frames as a client writes them, well-formed or not (RFC 6455 section 5.2).

/// First byte of a text message in one frame.
pub const TEXT: u8 = 0x81;
/// First byte of a text message's first fragment.
pub const TEXT_BEGINS: u8 = 0x01;
/// First byte of a binary message in one frame.
pub const BINARY: u8 = 0x82;
/// First byte of a fragment that is neither first nor last.
pub const GOES_ON: u8 = 0x00;
/// First byte of the last fragment.
pub const ENDS: u8 = 0x80;
/// First byte of a close frame.
pub const CLOSE: u8 = 0x88;
/// First byte of a ping.
pub const PING: u8 = 0x89;

const MASK_BIT: u8 = 0x80;
/// Instead of a length: the next two bytes are it.
const LENGTH_IN_2_BYTES: u8 = 0x7e;
/// Instead of a length: the next eight bytes are it.
const LENGTH_IN_8_BYTES: u8 = 0x7f;

/// A masked frame with this first byte.
pub fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let key = [0x37, 0xfa, 0x21, 0x3d];
    let mut frame = header(first, payload.len() as u64);
    frame.extend(key);
    frame.extend(payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key));
    frame
}

/// A frame without a mask, as no client may send it.
pub fn unmasked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = header(first, payload.len() as u64);
    frame[1] &= !MASK_BIT;
    frame.extend(payload);
    frame
}

/// The first bytes of a masked frame that claims `len` bytes of payload, up to its mask's key.
pub fn header(first: u8, len: u64) -> Vec<u8> {
    let mut header = vec![first];
    match (u8::try_from(len), u16::try_from(len)) {
        (Ok(len @ 0..=125), _) => header.push(MASK_BIT | len),
        (_, Ok(len)) => {
            header.push(MASK_BIT | LENGTH_IN_2_BYTES);
            header.extend(len.to_be_bytes());
        }
        _ => {
            header.push(MASK_BIT | LENGTH_IN_8_BYTES);
            header.extend(len.to_be_bytes());
        }
    }
    header
}
