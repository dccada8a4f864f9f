//! The frame reader against tungstenite, an independent reader of the same RFC: both are given the
//! same bytes, in the same pieces, and must see the same.
//!
//! Ours is the stricter one, in four ways, each on purpose. It refuses lengths that are not encoded
//! minimally, close codes that never travel, and endless empty fragments; and it refuses from the
//! header what tungstenite refuses only when the payload is there. Nothing is accepted by ours alone,
//! but for close code 1014, which IANA registered later (tungstenite answers it with 1002).

use std::{
    collections::VecDeque,
    io::{self, Read, Write},
};

use proptest::{collection::vec, prelude::*, sample::Index};
use tokio_tungstenite::tungstenite::{
    Error, Message, WebSocket,
    protocol::{Role, WebSocketConfig},
};

use super::{
    tests::{LIMIT, Seen, Session, frame},
    *,
};

/// How a connection's bytes ended up.
#[derive(Clone, Debug, PartialEq, Eq)]
enum End<V> {
    Open,
    Closed,
    Refused(V),
}

/// What our reader makes of `pieces`.
///
/// Text is judged behind it as early as tungstenite judges it: at each fragment.
fn ours(pieces: &[&[u8]]) -> (Vec<Seen>, End<Violation>) {
    let mut session = Session::new(LIMIT);
    session.judges_text = true;
    let end = match pieces.iter().try_for_each(|piece| session.feed(piece)) {
        Err(violation) => End::Refused(violation),
        Ok(()) if session.is_closed() => End::Closed,
        Ok(()) => End::Open,
    };
    (session.seen, end)
}

/// What tungstenite makes of `pieces`.
fn theirs(pieces: &[&[u8]]) -> (Vec<Seen>, End<String>) {
    let config = WebSocketConfig::default()
        .read_buffer_size(4_096)
        .max_message_size(Some(LIMIT))
        .max_frame_size(Some(LIMIT));
    let wire = Wire(pieces.iter().map(|piece| piece.to_vec()).collect());
    let mut socket = WebSocket::from_raw_socket(wire, Role::Server, Some(config));
    let mut seen = Vec::new();
    loop {
        seen.push(match socket.read() {
            Ok(Message::Text(text)) => Seen::Text(text.as_bytes().to_vec()),
            Ok(Message::Binary(bytes)) => Seen::Binary(bytes.to_vec()),
            Ok(Message::Ping(payload)) => Seen::Ping(payload.to_vec()),
            Ok(Message::Pong(_)) => Seen::Pong,
            Ok(Message::Close(frame)) => {
                let (code, reason) =
                    frame.map(|frame| (frame.code.into(), frame.reason.to_string())).unzip();
                seen.push(Seen::Close(code, reason.unwrap_or_default()));
                return (seen, End::Closed);
            }
            Ok(Message::Frame(_)) => unreachable!("never read"),
            Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                return (seen, End::Open);
            }
            Err(error) => return (seen, End::Refused(error.to_string())),
        });
    }
}

/// A socket that gives these pieces, one a read, and then has nothing yet.
struct Wire(VecDeque<Vec<u8>>);

impl Read for Wire {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let Some(piece) = self.0.front_mut() else {
            return Err(io::ErrorKind::WouldBlock.into());
        };
        let count = piece.len().min(buf.len());
        buf[..count].copy_from_slice(&piece[..count]);
        piece.drain(..count);
        if piece.is_empty() {
            self.0.pop_front();
        }
        Ok(count)
    }
}

impl Write for Wire {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Cuts `bytes` at the places that `cuts` name; no piece is empty.
fn cut<'a>(bytes: &'a [u8], cuts: &[Index]) -> Vec<&'a [u8]> {
    let mut places: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
    places.extend([0, bytes.len()]);
    places.sort_unstable();
    places.dedup();
    places.windows(2).map(|place| &bytes[place[0]..place[1]]).collect()
}

/// What a client does next, and what the relay is to see of it.
#[derive(Clone, Debug)]
enum Act {
    /// A message in parts; before each part but the first, a ping or pong may stand.
    Message {
        is_text: bool,
        parts: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    },
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<(u16, String)>),
}

impl Act {
    fn write(&self, mask: u32, wire: &mut Vec<u8>, seen: &mut Vec<Seen>) {
        let mut put =
            |first: u8, payload: &[u8]| wire.extend(frame(first, payload, mask.to_be_bytes()));
        match self {
            Self::Message { is_text, parts } => {
                for (at, (part, ping)) in parts.iter().enumerate() {
                    if let (1.., Some(ping)) = (at, ping) {
                        put(0x89, ping);
                        seen.push(Seen::Ping(ping.clone()));
                    }
                    let opcode = if at > 0 { 0 } else { 2 - u8::from(*is_text) };
                    put(if at + 1 == parts.len() { 0x80 | opcode } else { opcode }, part);
                }
                let whole = parts.iter().flat_map(|(part, _)| part).copied().collect();
                seen.push(if *is_text { Seen::Text(whole) } else { Seen::Binary(whole) });
            }
            Self::Ping(payload) => {
                put(0x89, payload);
                seen.push(Seen::Ping(payload.clone()));
            }
            Self::Pong(payload) => {
                put(0x8A, payload);
                seen.push(Seen::Pong);
            }
            Self::Close(None) => {
                put(0x88, &[]);
                seen.push(Seen::Close(None, String::new()));
            }
            Self::Close(Some((code, reason))) => {
                put(0x88, &[&code.to_be_bytes()[..], reason.as_bytes()].concat());
                seen.push(Seen::Close(Some(*code), reason.clone()));
            }
        }
    }
}

fn payload() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        6 => vec(any::<u8>(), 0..40),
        2 => vec(any::<u8>(), 120..130),
        1 => any::<u8>().prop_map(|byte| vec![byte; 65_535]),
        1 => any::<u8>().prop_map(|byte| vec![byte; 65_536]),
    ]
}

/// Parts of a text, cut anywhere, in the midst of a character too.
fn text_parts() -> impl Strategy<Value = Vec<Vec<u8>>> {
    ("\\PC{0,60}", vec(any::<Index>(), 0..4)).prop_map(|(text, cuts)| {
        let parts: Vec<_> = cut(text.as_bytes(), &cuts).into_iter().map(<[u8]>::to_vec).collect();
        if parts.is_empty() { vec![Vec::new()] } else { parts }
    })
}

fn message() -> impl Strategy<Value = Act> {
    let parts = prop_oneof![
        3 => text_parts().prop_map(|parts| (true, parts)),
        1 => payload().prop_map(|whole| (false, vec![whole])),
        1 => vec(vec(any::<u8>(), 0..20), 1..5).prop_map(|parts| (false, parts)),
    ];
    (parts, vec(proptest::option::of(vec(any::<u8>(), 0..=125)), 64)).prop_map(
        |((is_text, parts), pings)| Act::Message {
            is_text,
            parts: parts.into_iter().zip(pings).collect(),
        },
    )
}

fn close() -> impl Strategy<Value = Act> {
    let code = prop_oneof![1000..=1003_u16, 1007..=1013_u16, 3000..=4999_u16];
    proptest::option::of((code, "\\PC{0,30}")).prop_map(Act::Close)
}

/// What a client writes in one connection, and what the relay is to see of it.
fn connection() -> impl Strategy<Value = (Vec<u8>, Vec<Seen>)> {
    let act = prop_oneof![
        4 => message(),
        1 => vec(any::<u8>(), 0..=125).prop_map(Act::Ping),
        1 => vec(any::<u8>(), 0..=125).prop_map(Act::Pong),
    ];
    (vec((act, any::<u32>()), 0..8), proptest::option::of((close(), any::<u32>()))).prop_map(
        |(acts, close)| {
            let (mut wire, mut seen) = (Vec::new(), Vec::new());
            for (act, mask) in acts.into_iter().chain(close) {
                act.write(mask, &mut wire, &mut seen);
            }
            (wire, seen)
        },
    )
}

/// Whether ours may refuse for this reason what tungstenite takes.
fn is_stricter(violation: Violation) -> bool {
    [LENGTH_NOT_MINIMAL, CLOSE_CODE, EMPTY_FRAGMENTS].contains(&violation)
}

/// Judges that ours accepts nothing that theirs does not, and refuses only for a known reason.
fn agree(bytes: &[u8], cuts: &[Index]) -> Result<(), TestCaseError> {
    let pieces = cut(bytes, cuts);
    let (mut our_seen, our_end) = ours(&pieces);
    let (their_seen, their_end) = theirs(&pieces);
    if let Some(Seen::Close(code @ Some(1014), reason)) = our_seen.last_mut() {
        *code = Some(1002);
        "Protocol violation".clone_into(reason);
    }
    match our_end {
        End::Open => prop_assert_eq!(their_end, End::Open),
        End::Closed => prop_assert_eq!(their_end, End::Closed),
        End::Refused(violation) if is_stricter(violation) => {
            prop_assert!(their_seen.starts_with(&our_seen));
            return Ok(());
        }
        // What theirs has not refused yet, it still waits for the payload of.
        End::Refused(_) => prop_assert_ne!(their_end, End::Closed),
    }
    prop_assert_eq!(our_seen, their_seen);
    Ok(())
}

proptest! {
    #[test]
    fn what_a_client_sends_is_seen_however_it_is_cut(
        (wire, expected) in connection(),
        cuts in vec(any::<Index>(), 0..12),
    ) {
        let pieces = cut(&wire, &cuts);
        let (seen, end) = ours(&pieces);
        prop_assert_eq!(&seen, &expected);
        prop_assert!(!matches!(end, End::Refused(_)));
        prop_assert_eq!(theirs(&pieces).0, expected);
    }

    #[test]
    fn one_wrong_byte_is_judged_as_tungstenite_judges_it(
        (mut wire, _) in connection(),
        (place, flip) in (any::<Index>(), 1..=255_u8),
        cuts in vec(any::<Index>(), 0..6),
    ) {
        wire.push(0x81); // so that there is a byte to be wrong
        let at = place.index(wire.len());
        wire[at] ^= flip;
        agree(&wire, &cuts)?;
    }

    #[test]
    fn one_wrong_byte_in_small_frames_is_judged_as_tungstenite_judges_it(
        frames in vec((any::<bool>(), 0..11_u8, vec(any::<u8>(), 0..6), any::<u32>()), 1..10),
        (place, flip) in (any::<Index>(), any::<u8>()),
    ) {
        let mut wire: Vec<u8> = frames
            .iter()
            .flat_map(|(fin, opcode, payload, mask)| {
                frame(u8::from(*fin) << 7 | opcode, payload, mask.to_be_bytes())
            })
            .collect();
        let at = place.index(wire.len());
        wire[at] ^= flip;
        agree(&wire, &[])?;
    }

    #[test]
    fn any_bytes_are_judged_without_a_panic_and_with_progress(
        bytes in vec(any::<u8>(), 0..300),
        cuts in vec(any::<Index>(), 0..6),
    ) {
        agree(&bytes, &cuts)?;
    }

    #[test]
    fn any_bytes_behind_a_masked_header_too(
        first in any::<u8>(),
        second in 0x80..=0xFF_u8,
        rest in vec(any::<u8>(), 0..300),
        limit in 0..400_usize,
    ) {
        let bytes = [&[first, second][..], &rest].concat();
        agree(&bytes, &[])?;
        let _ = Session::new(limit).feed(&bytes);
    }
}

#[test]
fn a_frame_cut_short_at_any_byte_is_incomplete() {
    for len in [0, 5, 125, 126, 300, 65_536] {
        let whole = frame(0x82, &vec![7; len], [1, 2, 3, 4]);
        // Each cut of the long ones would read megabytes over and over: their headers and ends do.
        for cut in (0..whole.len()).filter(|cut| *cut < 400 || *cut + 20 > whole.len()) {
            let mut session = Session::new(LIMIT);
            assert_eq!(session.feed(&whole[..cut]), Ok(()));
            assert_eq!(session.seen, []);
            assert_eq!(session.feed(&whole[cut..]), Ok(()));
            assert_eq!(session.seen, [Seen::Binary(vec![7; len])], "cut at {cut} of {len}");
        }
    }
}

#[test]
fn asking_is_enough_to_get_on() {
    let whole = frame(0x82, &vec![7; 70_000], [1, 2, 3, 4]);
    let (mut reader, mut asked) = (Reader::new(LIMIT), vec![0]);
    while let Some(there) = asked.last().copied() {
        match reader.next(&mut whole[..there].to_vec()) {
            Ok(Step::Incomplete { total }) => asked.push(total),
            step => {
                assert!(matches!(step, Ok(Step::Event { consumed: 70_014, .. })));
                break;
            }
        }
    }
    assert_eq!(asked, [0, 2, 10, 70_014], "the first two bytes, the length, and the rest");
}
