//! Every kind's bytes, frozen, and what holds for any bytes.
#![allow(clippy::unwrap_used)] // a test that cannot be set up has failed

use bytes::Bytes;
use data_encoding::HEXLOWER_PERMISSIVE;
use proptest::prelude::*;

use super::*;
use crate::{AgentId, Generation, Incarnation, NodeId, SessionId, UnixMillis, link::Frames};

const SESSION: SessionId = SessionId { time: 0x0102_0304_0506_0708, node: NodeId(9) };
const SPENT: Spent = Spent { minute_ns: 1, hour_ns: 200, refusals: 3 };

fn abc() -> AgentId {
    "abc".parse().unwrap()
}

/// Each frame of the control lane, and its bytes. A change here is a change of the protocol: nodes of
/// two releases could not talk.
fn control_frames() -> Vec<(Control, &'static str)> {
    let (agent, session) = (abc(), SESSION);
    let moved = |was, now| Control::Moved { agent: abc(), was, now };
    let located = |place| Control::Located { ask: 1, agent: abc(), place };
    let published = |outcome| Control::Published { agent: abc(), session, outcome };
    let nodes = vec![NodeId(9), NodeId(u64::MAX)];
    let body = vec![0, 0x7f, 0xff];
    vec![
        (
            Control::Ping { number: 7, time: UnixMillis(256), broadcasts: [1, 2, 3, 300] },
            "0d000000 01 93 07 cd0100 94 01 02 03 cd012c",
        ),
        (Control::Pong { number: 7, time: UnixMillis(1) }, "04000000 02 92 07 01"),
        (
            Control::Publish { agent: agent.clone(), session, arrival: true },
            "12000000 03 93 a3616263 92 cf0102030405060708 09 c3",
        ),
        (
            published(Published::Accepted { notified: nodes }),
            "27000000 04 93 a3616263 92 cf0102030405060708 09 \
             81 a84163636570746564 91 92 09 cfffffffffffffffff",
        ),
        (
            published(Published::Outdone(session)),
            "25000000 04 93 a3616263 92 cf0102030405060708 09 \
             81 a74f7574646f6e65 92 cf0102030405060708 09",
        ),
        (
            Control::Withdraw { agent: agent.clone(), session },
            "11000000 05 92 a3616263 92 cf0102030405060708 09",
        ),
        (Control::Synced { ring: u64::MAX }, "0b000000 06 91 cfffffffffffffffff"),
        (
            Control::Lookup { ask: 1, agent: agent.clone(), home_only: false },
            "08000000 07 93 01 a3616263 c2",
        ),
        (
            located(Located::At(session)),
            "16000000 08 93 01 a3616263 81 a24174 92 cf0102030405060708 09",
        ),
        (located(Located::Nobody), "0e000000 08 93 01 a3616263 a64e6f626f6479"),
        (located(Located::Unsettled), "11000000 08 93 01 a3616263 a9556e736574746c6564"),
        (moved(None, Some(session)), "12000000 09 93 a3616263 c0 92 cf0102030405060708 09"),
        (moved(Some(session), None), "12000000 09 93 a3616263 92 cf0102030405060708 09 c0"),
        (Control::Leaving, "02000000 0a c0"),
        (Control::Resend { lane: 3, from: 5, to: 6 }, "05000000 0b 93 03 05 06"),
        (
            Control::Park { agent: agent.clone(), session, spent: SPENT },
            "16000000 0c 93 a3616263 92 cf0102030405060708 09 93 01 ccc8 03",
        ),
        (
            Control::Unpark { agent: agent.clone(), session },
            "11000000 0d 92 a3616263 92 cf0102030405060708 09",
        ),
        (
            Control::Spent { agent, session, spent: SPENT },
            "16000000 0e 93 a3616263 92 cf0102030405060708 09 93 01 ccc8 03",
        ),
        (Control::Ask { ask: 1, body: body.clone() }, "08000000 0f 92 01 c403007fff"),
        (Control::Answer { ask: 1, body: body.clone() }, "08000000 10 92 01 c403007fff"),
        (Control::Tell { body }, "07000000 11 91 c403007fff"),
    ]
}

/// Each frame of the data lanes, and its bytes; as [`control_frames`].
fn data_frames() -> Vec<(Data<'static>, &'static str)> {
    let body = Body::Borrowed(b"{}");
    let broadcast =
        Broadcast { seq: 2, from: "abc", except: Names::List(&["x-1"]), body: body.clone() };
    let origin = Incarnation { node: NodeId(9), generation: Generation(4) };
    let two = Names::List(&["abc", "defg"]);
    let direct =
        Direct { followed: false, resent: false, era: 0x0102, from: "x-1", targets: two, body };
    let followed =
        Direct { followed: true, resent: true, body: Body::Borrowed(b""), ..direct.clone() };
    let to_all = Broadcast { except: Names::NONE, ..broadcast.clone() };
    vec![
        (Data::Start { seq: 258 }, "09000000 40 0201000000000000"),
        (
            Data::Direct(direct),
            "19000000 41 00 02010000 03782d31 09000000 03616263 0464656667 7b7d",
        ),
        (Data::Bounced(followed), "17000000 42 03 02010000 03782d31 09000000 03616263 0464656667"),
        (Data::Broadcast(to_all), "13000000 43 0200000000000000 03616263 00000000 7b7d"),
        (
            Data::Relayed(Relayed { origin, lane: 3, broadcast }),
            "28000000 44 0900000000000000 0400000000000000 03 \
             0200000000000000 03616263 04000000 03782d31 7b7d",
        ),
        (Data::Fence { agent: "abc", epoch: 5 }, "0d000000 45 0500000000000000 03616263"),
        (Data::Fenced { agent: "abc", epoch: 5 }, "0d000000 46 0500000000000000 03616263"),
        (
            Data::Barrier { agent: "abc", session: SESSION },
            "15000000 47 0807060504030201 0900000000000000 03616263",
        ),
    ]
}

fn bytes_of(hex: &str) -> Bytes {
    let digits: String = hex.split_whitespace().collect();
    HEXLOWER_PERMISSIVE.decode(digits.as_bytes()).unwrap().into()
}

fn encoded(frame: &Data<'_>) -> Bytes {
    let mut out = Vec::new();
    frame.encode(&mut out);
    out.into()
}

fn encoded_control(frame: &Control) -> Bytes {
    let mut out = Vec::new();
    frame.encode(&mut out);
    out.into()
}

/// The kind and the body of bytes that are one whole frame.
fn whole(bytes: &Bytes) -> (u8, Bytes) {
    let (kind, body, consumed) = split(bytes).unwrap().unwrap();
    assert_eq!(consumed, bytes.len());
    (kind, body)
}

#[test]
fn control_frames_have_their_frozen_bytes() {
    for (frame, hex) in control_frames() {
        let bytes = encoded_control(&frame);
        assert_eq!(bytes, bytes_of(hex), "{frame:?} is {bytes:02x?}");
        let (kind, body) = whole(&bytes);
        assert_eq!(Control::decode(kind, &body), Ok(frame));
    }
}

#[test]
fn data_frames_have_their_frozen_bytes() {
    for (frame, hex) in data_frames() {
        let bytes = encoded(&frame);
        assert_eq!(bytes, bytes_of(hex), "{frame:?} is {bytes:02x?}");
        let (kind, body) = whole(&bytes);
        assert_eq!(Data::decode(kind, &body), Ok(frame));
    }
}

#[test]
fn every_kind_is_in_the_tables() {
    let control: std::collections::BTreeSet<_> =
        control_frames().iter().map(|(frame, _)| whole(&encoded_control(frame)).0).collect();
    assert!(control.into_iter().eq(1..=17));
    let data: Vec<_> = data_frames().iter().map(|(frame, _)| whole(&encoded(frame)).0).collect();
    assert!(data.into_iter().eq(64..=71));
    for kind in (0..=u8::MAX).filter(|kind| !(1..=17).contains(kind)) {
        assert_eq!(Control::decode(kind, &[0xc0]), Err(WireError::UnknownKind(kind)));
    }
    for kind in (0..=u8::MAX).filter(|kind| !(64..=71).contains(kind)) {
        assert_eq!(Data::decode(kind, &Bytes::new()), Err(WireError::UnknownKind(kind)));
    }
}

#[test]
fn no_body_is_shorter_or_longer_than_its_frame() {
    for (frame, _) in control_frames() {
        let (kind, body) = whole(&encoded_control(&frame));
        for end in 0..body.len() {
            let cut = Control::decode(kind, &body[..end]);
            assert_eq!(cut, Err(WireError::Malformed(kind)), "{frame:?}");
        }
        let longer = [&body[..], &[0xc0]].concat();
        assert_eq!(Control::decode(kind, &longer), Err(WireError::Malformed(kind)), "{frame:?}");
    }
    for (frame, _) in data_frames() {
        let (kind, body) = whole(&encoded(&frame));
        let message = match &frame {
            Data::Direct(direct) | Data::Bounced(direct) => direct.body.as_slice().len(),
            Data::Broadcast(broadcast) => broadcast.body.as_slice().len(),
            Data::Relayed(relayed) => relayed.broadcast.body.as_slice().len(),
            _ => 0,
        };
        let fixed = body.len() - message;
        for end in 0..fixed {
            let cut = body.slice(..end);
            assert_eq!(Data::decode(kind, &cut), Err(WireError::Malformed(kind)), "{frame:?}");
        }
        if (69..=71).contains(&kind) || kind == 64 {
            let longer = Bytes::from([&body[..], &[0]].concat());
            assert_eq!(Data::decode(kind, &longer), Err(WireError::Malformed(kind)), "{frame:?}");
        }
    }
}

#[test]
fn fields_that_cannot_be_are_refused() {
    for (why, kind, hex) in [
        ("an unknown flag", 65, "04 00000000 03782d31 04000000 03616263"),
        ("no target", 65, "00 00000000 03782d31 00000000"),
        ("a name in capitals", 65, "00 00000000 03582d31 04000000 03616263"),
        ("a target in capitals", 65, "00 00000000 03782d31 04000000 03416263"),
        ("a target over the edge", 65, "00 00000000 03782d31 04000000 04616263 64"),
        ("a target of no letters", 65, "00 00000000 03782d31 05000000 00 03616263"),
        ("names over the end", 67, "0000000000000000 03616263 05000000 03616263"),
        ("a name that is no text", 69, "0000000000000000 03ff6263"),
        (
            "a lane too many",
            68,
            "0900000000000000 0400000000000000 04 \
          0200000000000000 03616263 00000000",
        ),
    ] {
        assert_eq!(Data::decode(kind, &bytes_of(hex)), Err(WireError::Malformed(kind)), "{why}");
    }
    let bad_name = bytes_of("92 a3414243 92 01 09");
    assert_eq!(Control::decode(5, &bad_name), Err(WireError::Malformed(5)));
}

#[test]
fn nesting_without_end_is_refused_on_a_small_stack() {
    // A session as a map with an unknown field, whose value is passed over.
    let mut body = bytes_of("92 a3616263 81 a178").to_vec();
    body.resize(1 << 20, 0x91);
    let read = move || Control::decode(5, &body);
    let thread = std::thread::Builder::new().stack_size(1 << 20).spawn(read).unwrap();
    assert_eq!(thread.join().unwrap(), Err(WireError::Malformed(5)));
}

#[test]
fn a_length_is_judged_before_its_frame_is_there() {
    let too_long = u32::try_from(FRAME_BYTES_MAX + 1).unwrap().to_le_bytes().to_vec();
    assert_eq!(split(&too_long.into()), Err(WireError::TooLong(FRAME_BYTES_MAX + 1)));
    assert_eq!(split(&vec![0xff; 4].into()), Err(WireError::TooLong(0xffff_ffff)));
    let longest = u32::try_from(FRAME_BYTES_MAX).unwrap().to_le_bytes().to_vec();
    assert_eq!(split(&longest.into()), Ok(None));
    assert_eq!(split(&vec![0; 4].into()), Err(WireError::Malformed(0)));
    assert_eq!(split(&vec![0; 3].into()), Ok(None));
}

#[test]
fn the_largest_message_for_the_most_agents_fits() {
    let message = vec![b'x'; (16 << 20) + 4096];
    let name = "a".repeat(64);
    let names = vec![name.as_str(); NAMES_MAX];
    let direct = Direct {
        followed: true,
        resent: true,
        era: u32::MAX,
        from: &name,
        targets: Names::List(&names),
        body: Body::Borrowed(&message),
    };
    let bytes = encoded(&Data::Direct(direct));
    assert!(split(&bytes).unwrap().is_some());
    let ask = Control::Ask { ask: u64::MAX, body: message };
    assert!(split(&encoded_control(&ask)).unwrap().is_some());
}

#[test]
fn a_message_is_sliced_out_of_what_was_received() {
    let frame = Data::Fence { agent: "abc", epoch: 1 };
    let direct = Data::Direct(Direct {
        followed: false,
        resent: false,
        era: 0,
        from: "abc",
        targets: Names::List(&["def"]),
        body: Body::Borrowed(b"payload"),
    });
    let mut received = Vec::new();
    frame.encode(&mut received);
    direct.encode(&mut received);
    let mut received = Bytes::from(received);
    let memory = received.as_ptr_range();
    Frames::new(&mut received)
        .for_each(|frame| {
            let Data::Direct(Direct { body: Body::Shared(body), .. }) = frame else { return };
            assert_eq!(body, "payload");
            assert!(memory.contains(&body.as_ptr()), "copied");
        })
        .unwrap();
    assert!(received.is_empty());
}

#[test]
fn frames_are_taken_off_wherever_the_bytes_are_cut() {
    let mut stream = Vec::new();
    let frames = data_frames();
    for (frame, _) in &frames {
        frame.encode(&mut stream);
    }
    for cut in 0..=stream.len() {
        let mut seen = Vec::new();
        let mut left = Vec::new();
        for piece in [&stream[..cut], &stream[cut..]] {
            left.extend_from_slice(piece);
            let mut bytes = Bytes::from(left);
            Frames::new(&mut bytes).for_each(|frame| seen.push(encoded(&frame))).unwrap();
            left = bytes.to_vec();
        }
        assert!(left.is_empty(), "cut at {cut}");
        assert!(seen.iter().eq(&frames.iter().map(|(f, _)| encoded(f)).collect::<Vec<_>>()));
    }
}

#[test]
fn what_is_read_stops_at_the_first_bad_frame() {
    let mut stream = encoded(&Data::Start { seq: 1 }).to_vec();
    Control::Leaving.encode(&mut stream);
    let mut bytes = Bytes::from(stream);
    let mut seen = 0;
    let read = Frames::new(&mut bytes).for_each(|_| seen += 1);
    assert_eq!((read, seen), (Err(WireError::UnknownKind(10)), 1));
}

#[test]
fn lanes_of_senders_stay_where_they_are() {
    let lanes = ["abc", "rawk-042", "0-0", "relay", "agent-1", "agent-2"].map(lane_of);
    assert_eq!(lanes, [2, 3, 3, 1, 1, 2]);
}

fn name() -> impl Strategy<Value = String> {
    "[a-z0-9][a-z0-9-]{1,62}[a-z0-9]"
}

fn session() -> impl Strategy<Value = SessionId> {
    (any::<u64>(), any::<u64>()).prop_map(|(time, node)| SessionId { time, node: NodeId(node) })
}

fn spent() -> impl Strategy<Value = Spent> {
    any::<(u64, u64, u32)>().prop_map(|(minute_ns, hour_ns, refusals)| Spent {
        minute_ns,
        hour_ns,
        refusals,
    })
}

fn control() -> impl Strategy<Value = Control> {
    let agent = || name().prop_map(|name| name.parse::<AgentId>().unwrap());
    let body = || prop::collection::vec(any::<u8>(), 0..300);
    let outcome = prop_oneof![
        prop::collection::vec(any::<u64>().prop_map(NodeId), 0..20)
            .prop_map(|notified| Published::Accepted { notified }),
        session().prop_map(Published::Outdone),
    ];
    let place = prop_oneof![
        session().prop_map(Located::At),
        Just(Located::Nobody),
        Just(Located::Unsettled)
    ];
    prop_oneof![
        any::<(u64, u64, [u64; LANES])>().prop_map(|(number, time, broadcasts)| {
            Control::Ping { number, time: UnixMillis(time), broadcasts }
        }),
        (agent(), session(), any::<bool>())
            .prop_map(|(agent, session, arrival)| Control::Publish { agent, session, arrival }),
        (agent(), session(), outcome).prop_map(|(agent, session, outcome)| Control::Published {
            agent,
            session,
            outcome
        }),
        (any::<u64>(), agent(), any::<bool>())
            .prop_map(|(ask, agent, home_only)| Control::Lookup { ask, agent, home_only }),
        (any::<u64>(), agent(), place).prop_map(|(ask, agent, place)| Control::Located {
            ask,
            agent,
            place
        }),
        (agent(), prop::option::of(session()), prop::option::of(session()))
            .prop_map(|(agent, was, now)| Control::Moved { agent, was, now }),
        (agent(), session(), spent()).prop_map(|(agent, session, spent)| Control::Park {
            agent,
            session,
            spent
        }),
        (any::<u64>(), body()).prop_map(|(ask, body)| Control::Ask { ask, body }),
    ]
}

/// Calls `check` with each kind of data frame that carries these.
fn each_data(
    (a, b, c): (u64, u64, u64),
    (from, list): (&str, &[&str]),
    message: &[u8],
    mut check: impl FnMut(&Data<'_>) -> Result<(), TestCaseError>,
) -> Result<(), TestCaseError> {
    let (names, body) = (Names::List(list), Body::Borrowed(message));
    let broadcast = Broadcast { seq: a, from, except: names, body: body.clone() };
    check(&Data::Broadcast(broadcast.clone()))?;
    let origin = Incarnation { node: NodeId(b), generation: Generation(c) };
    let lane = u8::try_from(c % LANES as u64).unwrap();
    check(&Data::Relayed(Relayed { origin, lane, broadcast }))?;
    let session = SessionId { time: a, node: NodeId(b) };
    check(&Data::Barrier { agent: from, session })?;
    check(&Data::Fence { agent: from, epoch: a })?;
    if list.is_empty() {
        return Ok(());
    }
    let (followed, resent, era) = (b % 2 == 0, a % 2 == 0, u32::try_from(c >> 32).unwrap());
    let direct = Direct { followed, resent, era, from, targets: names, body };
    check(&Data::Direct(direct.clone()))?;
    check(&Data::Bounced(direct))
}

proptest! {
    #[test]
    fn control_comes_back(frame in control()) {
        let (kind, body) = whole(&encoded_control(&frame));
        prop_assert_eq!(Control::decode(kind, &body), Ok(frame));
    }

    #[test]
    fn data_comes_back_and_goes_out_again_unchanged(
        numbers in any::<(u64, u64, u64)>(),
        from in name(),
        list in prop::collection::vec(name(), 0..5),
        message in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        let list: Vec<_> = list.iter().map(String::as_str).collect();
        each_data(numbers, (&from, &list), &message, |frame| {
            let bytes = encoded(frame);
            let (kind, body) = whole(&bytes);
            let read = Data::decode(kind, &body);
            prop_assert_eq!(read.as_ref(), Ok(frame));
            prop_assert_eq!(encoded(&read.unwrap()), bytes);
            Ok(())
        })?;
    }

    #[test]
    fn any_bytes_are_read_or_refused(kind: u8, bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut bytes = Bytes::from(bytes);
        let _ = Control::decode(kind, &bytes);
        if let Ok(frame) = Data::decode(kind, &bytes) {
            prop_assert_eq!(whole(&encoded(&frame)), (kind, bytes.clone()));
        }
        let _ = Frames::new(&mut bytes).for_each(|_| {});
    }

    #[test]
    fn nearly_right_bytes_are_read_or_refused(
        which in any::<prop::sample::Index>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let frames: Vec<_> = data_frames().iter().map(|(frame, _)| encoded(frame))
            .chain(control_frames().iter().map(|(frame, _)| encoded_control(frame)))
            .collect();
        let (kind, body) = whole(which.get(&frames));
        let mut body = body.to_vec();
        for (place, byte) in changes {
            let place = place.index(body.len());
            body[place] = byte;
        }
        let body = Bytes::from(body);
        let _ = Control::decode(kind, &body);
        if let Ok(frame) = Data::decode(kind, &body) {
            prop_assert_eq!(whole(&encoded(&frame)), (kind, body.clone()));
        }
    }
}
