//! The server's frame reader (RFC 6455 section 5): whole frames are unmasked and handed out where
//! they lie in the caller's buffer.
//!
//! Owns the rules of framing and the parts of a fragmented message, nothing else: the buffer is the
//! caller's, so that one per thread serves all its sessions, and an idle session costs the
//! [`Reader`]'s two words. It does no I/O, never panics, and never checks that a text is UTF-8: the
//! message scanner does that once, for the whole message, and the session then closes with 1007.
//!
//! What cannot become valid is refused from the header, before its payload is waited for; so a
//! caller never has to make room for more than one largest message and its header.

use std::borrow::Cow;

use super::{
    CloseCode,
    close::may_travel,
    frame::{CONTROL_PAYLOAD_MAX, FIN, Opcode},
};

#[cfg(test)]
mod conformance;
#[cfg(test)]
mod tests;

/// Bytes of the longest header a client writes: two, a 64-bit length and the mask.
pub const CLIENT_HEADER_BYTES_MAX: usize = 14;

/// Empty frames that may stand in one fragmented message, beside its last.
///
/// A fragment with a payload is bounded by the message's size. An empty one costs nothing of it:
/// without a bound of its own, a message of them would never end, and would never be judged by the
/// rate limit. Streaming clients open with one and may flush one now and then.
pub const EMPTY_FRAGMENTS_MAX: u32 = 64;

const RSV: u8 = 0x70;
const MASKED: u8 = 0x80;
const MASK_BYTES: usize = 4;

/// What a session keeps between two frames.
#[derive(Debug)]
pub struct Reader {
    message_bytes_max: usize,
    partial: Option<Box<Partial>>,
}

/// One step over the caller's buffer.
#[derive(Debug, PartialEq, Eq)]
pub enum Step<'a> {
    /// A complete message or control frame. The first `consumed` bytes of the buffer are done.
    Event {
        /// What came in.
        event: Event<'a>,
        /// Bytes from the buffer's start to the next frame.
        consumed: usize,
    },
    /// A part of a message was taken in; no event yet.
    Fragment {
        /// Bytes from the buffer's start to the next frame.
        consumed: usize,
    },
    /// The buffer holds no whole frame. It is as it was: call again with more.
    Incomplete {
        /// Bytes from the buffer's start that are needed to get on; at most the largest message
        /// and [`CLIENT_HEADER_BYTES_MAX`].
        total: usize,
    },
}

/// What a client sent.
///
/// A message is borrowed from the caller's buffer, or owned if it came in fragments.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// A text message; **not yet checked** to be UTF-8.
    Text(Cow<'a, [u8]>),
    /// A binary message.
    Binary(Cow<'a, [u8]>),
    /// A ping, to be answered by a pong with the same payload.
    Ping(&'a [u8]),
    /// A pong; its payload is nobody's concern, that it came says that the client lives.
    Pong,
    /// The client's last frame: answer it and end the session, whatever follows in the buffer.
    Close {
        /// The client's code, if it gave one; valid by [`may_travel`].
        code: Option<u16>,
        /// The client's reason, often empty.
        reason: &'a str,
    },
}

/// Why a session must end at once. The reader is of no use afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// The rules of framing were broken; the text says which.
    #[error("{0}")]
    Protocol(&'static str),
    /// The reason of a close frame was not UTF-8.
    #[error("a close reason must be utf-8")]
    InvalidUtf8,
    /// A message was over the size limit.
    #[error("a message is over the size limit")]
    TooLarge,
}

impl Violation {
    /// The code to close the session with (PROTOCOL section 7).
    pub const fn close_code(self) -> CloseCode {
        match self {
            Self::Protocol(_) => CloseCode::ProtocolError,
            Self::InvalidUtf8 => CloseCode::InvalidUtf8,
            Self::TooLarge => CloseCode::MessageTooLarge,
        }
    }
}

impl Reader {
    /// A reader at the start of a session, for messages of at most `message_bytes_max`.
    pub const fn new(message_bytes_max: usize) -> Self {
        Self { message_bytes_max, partial: None }
    }

    /// Takes the next step over the unread bytes `buf`, which start where the last step ended.
    ///
    /// A frame that lies in `buf` whole is unmasked in place and must not be shown again: the next
    /// call starts `consumed` bytes further on. Each step but [`Step::Incomplete`] consumes.
    pub fn next<'a>(&mut self, buf: &'a mut [u8]) -> Result<Step<'a>, Violation> {
        let head = match Head::parse(buf)? {
            Parsed::Head(head) => head,
            Parsed::Short { total } => return Ok(Step::Incomplete { total }),
        };
        let payload_bytes = self.admit(&head)?;
        let consumed = head.bytes.saturating_add(payload_bytes);
        let masked = buf.get_mut(head.bytes - MASK_BYTES..consumed);
        let Some((mask, payload)) = masked.and_then(<[u8]>::split_first_chunk_mut) else {
            return Ok(Step::Incomplete { total: consumed });
        };
        unmask(payload, *mask);
        let payload: &'a [u8] = payload;
        let event = match head.opcode {
            Opcode::Ping => Event::Ping(payload),
            Opcode::Pong => Event::Pong,
            Opcode::Close => close_event(payload)?,
            Opcode::Text if head.fin => Event::Text(Cow::Borrowed(payload)),
            Opcode::Binary if head.fin => Event::Binary(Cow::Borrowed(payload)),
            Opcode::Text | Opcode::Binary | Opcode::Continuation => {
                match self.gather(&head, payload) {
                    Some(event) => event,
                    None => return Ok(Step::Fragment { consumed }),
                }
            }
        };
        Ok(Step::Event { event, consumed })
    }

    /// Judges a header against what came before it, and gives its payload's length.
    fn admit(&self, head: &Head) -> Result<usize, Violation> {
        let taken = match (head.opcode, &self.partial) {
            (Opcode::Continuation, None) => return Err(CONTINUES_NOTHING),
            (Opcode::Text | Opcode::Binary, Some(_)) => return Err(MESSAGE_IN_MESSAGE),
            (Opcode::Continuation, Some(partial)) => {
                if head.is_empty_fragment() && partial.empty_fragments >= EMPTY_FRAGMENTS_MAX {
                    return Err(EMPTY_FRAGMENTS);
                }
                partial.bytes.len()
            }
            _ => 0,
        };
        let payload_bytes = usize::try_from(head.payload_bytes).map_err(|_| Violation::TooLarge)?;
        // A control frame's bound is its own: a limit below 125 bytes must not forbid a ping.
        let room = if head.opcode.is_control() {
            CONTROL_PAYLOAD_MAX
        } else {
            self.message_bytes_max.saturating_sub(taken)
        };
        if payload_bytes > room { Err(Violation::TooLarge) } else { Ok(payload_bytes) }
    }

    /// Takes in one part of a fragmented message, and gives the message if it was the last.
    fn gather<'a>(&mut self, head: &Head, payload: &[u8]) -> Option<Event<'a>> {
        let is_text = head.opcode == Opcode::Text;
        let partial = self.partial.get_or_insert_with(|| Box::new(Partial::new(is_text)));
        partial.append(payload, self.message_bytes_max);
        if !head.fin {
            partial.empty_fragments += u32::from(head.is_empty_fragment());
            return None;
        }
        self.partial.take().map(|message| {
            let bytes = Cow::Owned(message.bytes);
            if message.is_text { Event::Text(bytes) } else { Event::Binary(bytes) }
        })
    }
}

/// The parts so far of a message that comes in fragments.
#[derive(Debug)]
struct Partial {
    is_text: bool,
    empty_fragments: u32,
    bytes: Vec<u8>,
}

impl Partial {
    const fn new(is_text: bool) -> Self {
        Self { is_text, empty_fragments: 0, bytes: Vec::new() }
    }

    /// Appends `part`. Room grows by doubling, so that many small parts stay cheap, but never past
    /// `bytes_max`, which the caller has seen to hold.
    fn append(&mut self, part: &[u8], bytes_max: usize) {
        let needed = self.bytes.len() + part.len();
        if needed > self.bytes.capacity() {
            let room = self.bytes.capacity().saturating_mul(2).min(bytes_max).max(needed);
            self.bytes.reserve_exact(room - self.bytes.len());
        }
        self.bytes.extend_from_slice(part);
    }
}

/// A frame's header, valid by itself.
struct Head {
    fin: bool,
    opcode: Opcode,
    payload_bytes: u64,
    /// Bytes of the header, its mask included.
    bytes: usize,
}

enum Parsed {
    Head(Head),
    Short { total: usize },
}

impl Head {
    /// Reads a header and judges whatever of it is there; the mask need not be yet.
    fn parse(buf: &[u8]) -> Result<Parsed, Violation> {
        let &[first, second, ref rest @ ..] = buf else {
            return Ok(Parsed::Short { total: 2 });
        };
        let fin = first & FIN != 0;
        let opcode = Opcode::from_first_byte(first).ok_or(RESERVED_OPCODE)?;
        if first & RSV != 0 {
            return Err(RESERVED_BITS);
        }
        if second & MASKED == 0 {
            return Err(NOT_MASKED);
        }
        let length = second & !MASKED;
        if opcode.is_control() {
            judge_control(fin, length)?;
        }
        let (payload_bytes, bytes) = match length {
            126 => match rest.first_chunk() {
                Some(length) => (u64::from(u16::from_be_bytes(*length)), 2 + 2 + MASK_BYTES),
                None => return Ok(Parsed::Short { total: 2 + 2 }),
            },
            127 => match rest.first_chunk() {
                Some(length) => (u64::from_be_bytes(*length), 2 + 8 + MASK_BYTES),
                None => return Ok(Parsed::Short { total: 2 + 8 }),
            },
            length => (u64::from(length), 2 + MASK_BYTES),
        };
        judge_length(length, payload_bytes)?;
        Ok(Parsed::Head(Self { fin, opcode, payload_bytes, bytes }))
    }

    const fn is_empty_fragment(&self) -> bool {
        !self.fin && self.payload_bytes == 0
    }
}

const fn judge_control(fin: bool, length: u8) -> Result<(), Violation> {
    if !fin {
        return Err(CONTROL_FRAGMENTED);
    }
    if length as usize > CONTROL_PAYLOAD_MAX {
        return Err(CONTROL_TOO_LONG);
    }
    Ok(())
}

/// RFC 6455 section 5.2: the shortest encoding must be used, and the top bit of the longest is 0.
const fn judge_length(encoding: u8, payload_bytes: u64) -> Result<(), Violation> {
    match (encoding, payload_bytes) {
        (126, ..126) | (127, ..=0xFFFF) => Err(LENGTH_NOT_MINIMAL),
        (127, 0x8000_0000_0000_0000..) => Err(LENGTH_TOP_BIT),
        _ => Ok(()),
    }
}

/// Reads a close frame's payload (RFC 6455 section 5.5.1).
fn close_event(payload: &[u8]) -> Result<Event<'_>, Violation> {
    let Some((code, reason)) = payload.split_first_chunk() else {
        return match payload {
            [] => Ok(Event::Close { code: None, reason: "" }),
            _ => Err(CLOSE_ONE_BYTE),
        };
    };
    let code = u16::from_be_bytes(*code);
    if !may_travel(code) {
        return Err(CLOSE_CODE);
    }
    let reason = str::from_utf8(reason).map_err(|_| Violation::InvalidUtf8)?;
    Ok(Event::Close { code: Some(code), reason })
}

/// RFC 6455 section 5.3, eight bytes at a time: the compiler makes wide instructions of it.
fn unmask(payload: &mut [u8], mask: [u8; MASK_BYTES]) {
    let [a, b, c, d] = mask;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (chunks, tail) = payload.as_chunks_mut();
    for chunk in chunks {
        *chunk = (u64::from_ne_bytes(*chunk) ^ wide).to_ne_bytes();
    }
    for (byte, mask) in tail.iter_mut().zip(mask.into_iter().cycle()) {
        *byte ^= mask;
    }
}

const RESERVED_BITS: Violation = Violation::Protocol("reserved bits must be 0");
const RESERVED_OPCODE: Violation = Violation::Protocol("the opcode is reserved");
const NOT_MASKED: Violation = Violation::Protocol("a client must mask its frames");
const CONTROL_FRAGMENTED: Violation = Violation::Protocol("a control frame must not be fragmented");
const CONTROL_TOO_LONG: Violation =
    Violation::Protocol("a control frame must not exceed 125 bytes");
const LENGTH_NOT_MINIMAL: Violation = Violation::Protocol("a length must be encoded minimally");
const LENGTH_TOP_BIT: Violation = Violation::Protocol("a length's top bit must be 0");
const CONTINUES_NOTHING: Violation =
    Violation::Protocol("a continuation needs a message to continue");
const MESSAGE_IN_MESSAGE: Violation =
    Violation::Protocol("a fragmented message must end before the next begins");
const EMPTY_FRAGMENTS: Violation = Violation::Protocol("a message has too many empty fragments");
const CLOSE_ONE_BYTE: Violation = Violation::Protocol("a close frame of one byte holds no code");
const CLOSE_CODE: Violation = Violation::Protocol("the close code must not be sent");
