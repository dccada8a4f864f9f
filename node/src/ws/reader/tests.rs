//! Each rule of RFC 6455 that the frame reader enforces, by name.

use super::*;

/// The size limit of the tests, small enough to be passed often.
pub(super) const LIMIT: usize = 70_000;

/// What a session saw, kept beyond the buffer it lay in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    Text(Vec<u8>),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong,
    Close(Option<u16>, String),
}

impl From<Event<'_>> for Seen {
    fn from(event: Event<'_>) -> Self {
        match event {
            Event::Text(bytes) => Self::Text(bytes.into_owned()),
            Event::Binary(bytes) => Self::Binary(bytes.into_owned()),
            Event::Ping(payload) => Self::Ping(payload.to_vec()),
            Event::Pong => Self::Pong,
            Event::Close { code, reason } => Self::Close(code, reason.to_owned()),
        }
    }
}

/// A reader with the buffer that a session would share with others.
pub(super) struct Session {
    pub(super) reader: Reader,
    pub(super) unread: Vec<u8>,
    pub(super) seen: Vec<Seen>,
    /// Whether to refuse text that is not UTF-8, as the message scanner behind the reader does.
    pub(super) judges_text: bool,
}

impl Session {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            reader: Reader::new(limit),
            unread: Vec::new(),
            seen: Vec::new(),
            judges_text: false,
        }
    }

    /// Takes in what one read gave; what follows a close is left alone. Checks at each step what
    /// the reader promises its caller.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> Result<(), Violation> {
        self.unread.extend_from_slice(bytes);
        while !self.is_closed() {
            let (before, there) = (self.unread.clone(), self.unread.len());
            let consumed = match self.reader.next(&mut self.unread)? {
                Step::Event { event: Event::Text(text), .. }
                    if self.judges_text && str::from_utf8(&text).is_err() =>
                {
                    return Err(Violation::InvalidUtf8);
                }
                Step::Event { event, consumed } => {
                    self.seen.push(event.into());
                    consumed
                }
                Step::Fragment { consumed } => consumed,
                Step::Incomplete { total } => {
                    assert!(total > there, "asks for what is there");
                    assert!(total <= self.reader.message_bytes_max.max(125) + 14, "asks too much");
                    assert_eq!(self.unread, before, "an incomplete frame was changed");
                    return Ok(());
                }
            };
            assert!((1..=there).contains(&consumed), "no progress, or beyond the buffer");
            self.unread.drain(..consumed);
            if self.judges_text && self.is_hopeless() {
                return Err(Violation::InvalidUtf8);
            }
        }
        Ok(())
    }

    /// Whether a text that is not complete can no longer become UTF-8.
    fn is_hopeless(&self) -> bool {
        self.reader.partial.as_deref().is_some_and(|partial| {
            let verdict = str::from_utf8(&partial.bytes);
            partial.is_text && verdict.is_err_and(|error| error.error_len().is_some())
        })
    }

    pub(super) fn is_closed(&self) -> bool {
        matches!(self.seen.last(), Some(Seen::Close(..)))
    }
}

/// A frame as a client writes it.
pub(super) fn frame(first: u8, payload: &[u8], mask: [u8; 4]) -> Vec<u8> {
    let mut out = vec![first];
    match payload.len() {
        short @ 0..126 => out.push(0x80 | u8::try_from(short).expect("below 126")),
        medium @ 126..65_536 => {
            out.push(0xFE);
            out.extend(u16::try_from(medium).expect("16 bits").to_be_bytes());
        }
        long => {
            out.push(0xFF);
            out.extend((long as u64).to_be_bytes());
        }
    }
    out.extend(mask);
    out.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    out
}

const MASK: [u8; 4] = [0xA1, 0x02, 0xF3, 0x44];
const TEXT: u8 = 0x81;
const TEXT_PART: u8 = 0x01;
const BINARY: u8 = 0x82;
const PART: u8 = 0x00;
const LAST: u8 = 0x80;
const CLOSE: u8 = 0x88;
const PING: u8 = 0x89;
const PONG: u8 = 0x8A;

fn read(bytes: &[u8]) -> Result<Vec<Seen>, Violation> {
    let mut session = Session::new(LIMIT);
    session.feed(bytes)?;
    Ok(session.seen)
}

fn frames(frames: &[(u8, &[u8])]) -> Vec<u8> {
    frames.iter().flat_map(|(first, payload)| frame(*first, payload, MASK)).collect()
}

fn close(payload: &[u8]) -> Result<Vec<Seen>, Violation> {
    read(&frame(CLOSE, payload, MASK))
}

#[test]
fn the_reader_is_two_words_and_its_events_small() {
    assert_eq!(size_of::<Reader>(), 16);
    assert!(size_of::<Result<Step<'_>, Violation>>() <= 48);
}

#[test]
fn the_masked_hello_of_the_rfc() {
    let bytes = [0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
    assert_eq!(read(&bytes), Ok(vec![Seen::Text(b"Hello".to_vec())]));
}

#[test]
fn unmasking_is_right_at_every_length_and_place() {
    let plain: Vec<u8> = (0..=255).cycle().take(600).collect();
    for start in 0..9 {
        for end in (start..start + 70).chain([500, 599]) {
            let mut buf = plain.clone();
            unmask(&mut buf[start..end], MASK);
            for (at, byte) in buf.iter().enumerate() {
                let mask = if (start..end).contains(&at) { MASK[(at - start) % 4] } else { 0 };
                assert_eq!(*byte, plain[at] ^ mask, "{start}..{end} at {at}");
            }
        }
    }
}

#[test]
fn a_whole_message_is_borrowed_where_it_lies() {
    let mut buf = frames(&[(TEXT, b"one"), (TEXT, b"two")]);
    let start = buf.as_ptr();
    let step = Reader::new(LIMIT).next(&mut buf);
    let Ok(Step::Event { event: Event::Text(Cow::Borrowed(text)), consumed: 9 }) = step else {
        panic!("{step:?}");
    };
    assert_eq!((text, text.as_ptr()), (&b"one"[..], start.wrapping_add(6)));
}

#[test]
fn every_length_encoding_is_read() {
    for len in [0, 1, 125, 126, 127, 65_535, 65_536, LIMIT] {
        let payload = vec![b'x'; len];
        assert_eq!(read(&frame(BINARY, &payload, MASK)), Ok(vec![Seen::Binary(payload)]), "{len}");
    }
}

#[test]
fn text_is_not_judged_here() {
    assert_eq!(read(&frame(TEXT, b"\xff", MASK)), Ok(vec![Seen::Text(b"\xff".to_vec())]));
}

#[test]
fn a_client_must_mask() {
    assert_eq!(read(&[0x81, 0x05]), Err(NOT_MASKED));
    assert_eq!(read(&[0x89, 0x00]), Err(NOT_MASKED));
}

#[test]
fn reserved_bits_are_refused() {
    for bit in [0x40, 0x20, 0x10] {
        assert_eq!(read(&frame(TEXT | bit, b"", MASK)), Err(RESERVED_BITS));
        assert_eq!(read(&frame(PING | bit, b"", MASK)), Err(RESERVED_BITS));
    }
}

#[test]
fn reserved_opcodes_are_refused() {
    for opcode in [0x3, 0x4, 0x5, 0x6, 0x7, 0xB, 0xC, 0xD, 0xE, 0xF] {
        assert_eq!(read(&frame(0x80 | opcode, b"", MASK)), Err(RESERVED_OPCODE));
    }
}

#[test]
fn control_frames_hold_125_bytes_and_no_more() {
    let (most, over) = ([1; 125], [1; 126]);
    assert_eq!(read(&frame(PING, &most, MASK)), Ok(vec![Seen::Ping(most.to_vec())]));
    assert_eq!(read(&frame(PONG, &most, MASK)), Ok(vec![Seen::Pong]));
    for first in [PING, PONG, CLOSE] {
        assert_eq!(read(&frame(first, &over, MASK)), Err(CONTROL_TOO_LONG));
        assert_eq!(read(&[first, 0xFF]), Err(CONTROL_TOO_LONG));
    }
}

#[test]
fn control_frames_are_never_fragmented() {
    for first in [PING, PONG, CLOSE] {
        assert_eq!(read(&frame(first & !FIN, b"", MASK)), Err(CONTROL_FRAGMENTED));
    }
}

#[test]
fn lengths_are_encoded_minimally() {
    for len in [0_u16, 125] {
        let [a, b] = len.to_be_bytes();
        assert_eq!(read(&[TEXT, 0xFE, a, b]), Err(LENGTH_NOT_MINIMAL));
    }
    for len in [0_u64, 125, 126, 65_535] {
        let bytes = [&[TEXT, 0xFF][..], &len.to_be_bytes()].concat();
        assert_eq!(read(&bytes), Err(LENGTH_NOT_MINIMAL));
    }
}

#[test]
fn the_top_bit_of_a_length_is_zero() {
    for len in [1 << 63, u64::MAX] {
        let bytes = [&[TEXT, 0xFF][..], &len.to_be_bytes()].concat();
        assert_eq!(read(&bytes), Err(LENGTH_TOP_BIT));
    }
}

#[test]
fn fragments_make_one_message() {
    let bytes = frames(&[(TEXT_PART, b"one "), (PART, b"two "), (LAST, b"three"), (TEXT, b"four")]);
    let expected = [&b"one two three"[..], b"four"].map(|text| Seen::Text(text.to_vec()));
    assert_eq!(read(&bytes), Ok(expected.to_vec()));
    let bytes = frames(&[(0x02, b"a"), (LAST, b"b")]);
    assert_eq!(read(&bytes), Ok(vec![Seen::Binary(b"ab".to_vec())]));
}

#[test]
fn control_frames_may_come_between_fragments() {
    let bytes = frames(&[(TEXT_PART, b"a"), (PING, b"p"), (PART, b"b"), (PONG, b""), (LAST, b"c")]);
    let expected = [Seen::Ping(b"p".to_vec()), Seen::Pong, Seen::Text(b"abc".to_vec())];
    assert_eq!(read(&bytes), Ok(expected.to_vec()));
    let bytes = frames(&[(TEXT_PART, b"a"), (CLOSE, b"")]);
    assert_eq!(read(&bytes), Ok(vec![Seen::Close(None, String::new())]));
}

#[test]
fn a_continuation_needs_a_start() {
    assert_eq!(read(&frame(LAST, b"", MASK)), Err(CONTINUES_NOTHING));
    assert_eq!(read(&frame(PART, b"a", MASK)), Err(CONTINUES_NOTHING));
    let after_end = frames(&[(TEXT_PART, b"a"), (LAST, b"b"), (LAST, b"c")]);
    assert_eq!(read(&after_end), Err(CONTINUES_NOTHING));
}

#[test]
fn no_message_begins_inside_another() {
    for first in [TEXT, TEXT_PART, BINARY, 0x02] {
        assert_eq!(read(&frames(&[(TEXT_PART, b"a"), (first, b"b")])), Err(MESSAGE_IN_MESSAGE));
    }
}

#[test]
fn a_message_over_the_limit_is_refused_from_its_header() {
    let header = &frame(TEXT, &vec![0; LIMIT + 1], MASK)[..10];
    assert_eq!(read(header), Err(Violation::TooLarge));
    let huge = [&[BINARY, 0xFF][..], &(u64::MAX >> 1).to_be_bytes()].concat();
    assert_eq!(read(&huge), Err(Violation::TooLarge));
}

#[test]
fn fragments_over_the_limit_together_are_refused_from_the_header() {
    let half = vec![0; LIMIT / 2];
    let whole = frames(&[(TEXT_PART, &half), (PART, &half), (LAST, b"")]);
    assert_eq!(read(&whole).map(|seen| seen.len()), Ok(1));
    let over = frames(&[(TEXT_PART, &half), (PART, &half), (LAST, b"a")]);
    assert_eq!(read(&over[..over.len() - 5]), Err(Violation::TooLarge));
}

#[test]
fn a_small_message_limit_forbids_no_control_frame() {
    let mut session = Session::new(1);
    let bytes = frames(&[(TEXT_PART, b"a"), (PING, &[7; 125]), (LAST, b"")]);
    assert_eq!(session.feed(&bytes), Ok(()));
    assert_eq!(session.seen, [Seen::Ping(vec![7; 125]), Seen::Text(b"a".to_vec())]);
}

#[test]
fn fragments_never_take_room_beyond_the_limit() {
    let mut session = Session::new(1_000);
    let mut bytes = frame(TEXT_PART, b"", MASK);
    for _ in 0..1_000 {
        assert_eq!(session.feed(&bytes), Ok(()));
        bytes = frame(PART, b"x", MASK);
        let room = session.reader.partial.as_ref().map(|partial| partial.bytes.capacity());
        assert!(room <= Some(1_000), "{room:?}");
    }
    assert_eq!(session.feed(&frame(LAST, b"x", MASK)), Ok(()));
    assert_eq!(session.seen, [Seen::Text(vec![b'x'; 1_000])]);
    assert!(session.reader.partial.is_none());
}

#[test]
fn a_message_of_empty_fragments_ends_by_itself() {
    let mut session = Session::new(LIMIT);
    session.feed(&frame(TEXT_PART, b"", MASK)).expect("the first of them");
    let refused = (1..1_000).find(|_| session.feed(&frame(PART, b"", MASK)).is_err());
    assert_eq!(refused, Some(EMPTY_FRAGMENTS_MAX));
}

#[test]
fn empty_fragments_are_counted_anew_for_each_message() {
    let mut session = Session::new(LIMIT);
    for _ in 0..3 {
        let mut bytes = frame(TEXT_PART, b"", MASK);
        (1..EMPTY_FRAGMENTS_MAX).for_each(|_| bytes.extend(frame(PART, b"", MASK)));
        bytes.extend(frames(&[(PART, b"x"), (LAST, b"")]));
        assert_eq!(session.feed(&bytes), Ok(()));
    }
    assert_eq!(session.seen, vec![Seen::Text(b"x".to_vec()); 3]);
}

#[test]
fn a_close_may_carry_nothing_or_a_code_or_a_reason_too() {
    assert_eq!(close(b""), Ok(vec![Seen::Close(None, String::new())]));
    assert_eq!(close(b"\x03\xe8"), Ok(vec![Seen::Close(Some(1000), String::new())]));
    assert_eq!(close(b"\x0f\xa0bye"), Ok(vec![Seen::Close(Some(4000), "bye".into())]));
}

#[test]
fn a_close_of_one_byte_is_refused() {
    assert_eq!(close(b"\x03"), Err(CLOSE_ONE_BYTE));
}

#[test]
fn close_codes_that_never_travel_are_refused() {
    for code in 0..=u16::MAX {
        let allowed = matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999);
        assert_eq!(close(&code.to_be_bytes()).is_ok(), allowed, "{code}");
    }
}

#[test]
fn a_close_reason_is_utf8() {
    assert_eq!(close(b"\x03\xe8\xc3\xbc"), Ok(vec![Seen::Close(Some(1000), "ü".into())]));
    assert_eq!(close(b"\x03\xe8\xc3"), Err(Violation::InvalidUtf8));
}

#[test]
fn violations_close_with_their_code() {
    assert_eq!(NOT_MASKED.close_code(), CloseCode::ProtocolError);
    assert_eq!(Violation::InvalidUtf8.close_code(), CloseCode::InvalidUtf8);
    assert_eq!(Violation::TooLarge.close_code(), CloseCode::MessageTooLarge);
    assert_eq!(NOT_MASKED.to_string(), "a client must mask its frames");
}
