//! What a frame is (RFC 6455 section 5.2), and the frames the relay writes: never masked, never
//! fragmented.
//!
//! The payload of a message is written by whoever has it; this module owns the bytes before it and
//! the control frames, which are small enough to be written whole.

/// Bytes of the longest header the relay writes: two, and a 64-bit length.
pub const HEADER_BYTES_MAX: usize = 10;

/// Bytes of payload a control frame may carry (RFC 6455 section 5.5).
pub const CONTROL_PAYLOAD_MAX: usize = 125;

/// Bytes of text a close frame may carry beside its code.
pub const CLOSE_REASON_MAX: usize = CONTROL_PAYLOAD_MAX - 2;

/// Set in a header's first byte on the last, or only, frame of a message.
pub(super) const FIN: u8 = 0x80;

/// What a frame is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Opcode {
    /// A further part of a fragmented message.
    Continuation = 0x0,
    /// A message, or its first part, that is UTF-8.
    Text = 0x1,
    /// A message, or its first part, of any bytes.
    Binary = 0x2,
    /// The end of the session, with a code and a reason.
    Close = 0x8,
    /// A question whether the other side lives.
    Ping = 0x9,
    /// The answer to a ping, with its payload.
    Pong = 0xA,
}

impl Opcode {
    /// The opcode in the low four bits of a header's first byte; none if it is reserved.
    pub const fn from_first_byte(byte: u8) -> Option<Self> {
        Some(match byte & 0x0F {
            0x0 => Self::Continuation,
            0x1 => Self::Text,
            0x2 => Self::Binary,
            0x8 => Self::Close,
            0x9 => Self::Ping,
            0xA => Self::Pong,
            _ => return None,
        })
    }

    /// Whether this is a close, ping or pong.
    pub const fn is_control(self) -> bool {
        matches!(self, Self::Close | Self::Ping | Self::Pong)
    }
}

/// The header of an unmasked frame, ready to be written before its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    bytes: [u8; HEADER_BYTES_MAX],
    used: u8,
}

impl Header {
    /// The header of a whole message, or control frame, with a payload of `payload_bytes`.
    pub fn new(opcode: Opcode, payload_bytes: usize) -> Self {
        let mut header = Self { bytes: [0; HEADER_BYTES_MAX], used: 2 };
        let [first, second, length @ ..] = &mut header.bytes;
        *first = FIN | opcode as u8;
        if let Ok(short @ 0..=125) = u8::try_from(payload_bytes) {
            *second = short;
        } else if let Ok(medium) = u16::try_from(payload_bytes) {
            *second = 126;
            length[..2].copy_from_slice(&medium.to_be_bytes());
            header.used = 4;
        } else {
            *second = 127;
            length.copy_from_slice(&(payload_bytes as u64).to_be_bytes());
            header.used = 10;
        }
        header
    }

    /// The bytes to write: 2, 4 or 10 of them.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.used)]
    }
}

/// Appends a text frame's header for a payload of `payload_bytes`, which the caller appends next.
pub fn text_header(payload_bytes: usize, out: &mut Vec<u8>) {
    out.extend_from_slice(Header::new(Opcode::Text, payload_bytes).as_bytes());
}

/// Appends a close frame. Of a reason over [`CLOSE_REASON_MAX`] bytes as many whole characters are
/// sent as fit.
///
/// `code` is a [`CloseCode`](super::CloseCode), or the client's own code when its close is answered
/// (RFC 6455 section 5.5.1); a client that gave none is answered with 1000.
pub fn close_frame(code: impl Into<u16>, reason: &str, out: &mut Vec<u8>) {
    let reason = &reason[..reason.floor_char_boundary(CLOSE_REASON_MAX)];
    out.extend_from_slice(Header::new(Opcode::Close, 2 + reason.len()).as_bytes());
    out.extend_from_slice(&code.into().to_be_bytes());
    out.extend_from_slice(reason.as_bytes());
}

/// Appends a ping; a payload over [`CONTROL_PAYLOAD_MAX`] bytes is cut there.
pub fn ping_frame(payload: &[u8], out: &mut Vec<u8>) {
    control_frame(Opcode::Ping, payload, out);
}

/// Appends the answer to a ping with this payload, which a [`Reader`](super::Reader) never gives
/// over [`CONTROL_PAYLOAD_MAX`] bytes.
pub fn pong_frame(payload: &[u8], out: &mut Vec<u8>) {
    control_frame(Opcode::Pong, payload, out);
}

fn control_frame(opcode: Opcode, payload: &[u8], out: &mut Vec<u8>) {
    let payload = &payload[..payload.len().min(CONTROL_PAYLOAD_MAX)];
    out.extend_from_slice(Header::new(opcode, payload.len()).as_bytes());
    out.extend_from_slice(payload);
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a failed unwrap is a failed test
mod tests {
    use std::io::Cursor;

    use tokio_tungstenite::tungstenite::protocol::frame::{
        FrameHeader, FrameSocket,
        coding::{Control, OpCode},
    };

    use super::*;

    #[test]
    fn headers_are_minimal_at_every_boundary_and_read_back() {
        let cases = [
            (0, 2),
            (1, 2),
            (125, 2),
            (126, 4),
            (127, 4),
            (65_535, 4),
            (65_536, 10),
            (u32::MAX as usize, 10),
        ];
        for (payload_bytes, header_bytes) in cases {
            let header = Header::new(Opcode::Text, payload_bytes);
            assert_eq!(header.as_bytes().len(), header_bytes, "{payload_bytes}");
            let (parsed, length) =
                FrameHeader::parse(&mut Cursor::new(header.as_bytes())).unwrap().unwrap();
            assert_eq!(length, payload_bytes as u64);
            assert!(parsed.is_final && parsed.mask.is_none());
            assert_eq!(u8::from(parsed.opcode), Opcode::Text as u8);
        }
    }

    #[test]
    fn every_opcode_is_read_from_its_own_number() {
        let known: Vec<u8> =
            (0..16).filter(|byte| Opcode::from_first_byte(*byte).is_some()).collect();
        assert_eq!(known, [0x0, 0x1, 0x2, 0x8, 0x9, 0xA]);
        for byte in known {
            assert_eq!(Opcode::from_first_byte(byte | 0xF0).unwrap() as u8, byte);
        }
    }

    #[test]
    fn text_header_precedes_its_payload() {
        let mut out = b"before".to_vec();
        text_header(5, &mut out);
        out.extend_from_slice(b"hello");
        assert_eq!(out, b"before\x81\x05hello");
    }

    #[test]
    fn close_frame_carries_code_and_reason() {
        let mut out = Vec::new();
        close_frame(super::super::CloseCode::Replaced, "replaced", &mut out);
        assert_eq!(out, b"\x88\x0a\x0f\xa9replaced");
    }

    #[test]
    fn close_reason_is_cut_between_characters() {
        let mut out = Vec::new();
        close_frame(1001_u16, &"ü".repeat(100), &mut out);
        assert_eq!(out[1], 2 + 122, "61 characters of two bytes fit into 123");
        let frame = FrameSocket::new(Cursor::new(out)).read(None).unwrap().unwrap();
        assert_eq!(frame.header().opcode, OpCode::Control(Control::Close));
        assert_eq!(&frame.payload()[2..], "ü".repeat(61).as_bytes());
    }

    #[test]
    fn ping_and_pong_carry_their_payload_up_to_the_bound() {
        let mut out = Vec::new();
        ping_frame(b"hb", &mut out);
        pong_frame(&[7; 125], &mut out);
        ping_frame(&[7; 126], &mut out);
        assert_eq!(out[..4], *b"\x89\x02hb");
        assert_eq!(out[4..6], [0x8A, 125]);
        assert_eq!(out[4 + 127..][..2], [0x89, 125]);
        assert_eq!(out.len(), 4 + 127 + 127);
    }
}
