//! What waits, what is written next, and when a reader is too slow.

#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

use super::*;
use proptest::prelude::*;

const LIMITS: OutboxLimits = OutboxLimits { bytes: 1_000, messages: 10 };
const T0: Duration = Duration::from_secs(7);

fn frame(len: usize, fill: u8) -> Vec<u8> {
    let mut bytes = vec![0x81];
    if let Ok(short @ 0..=125) = u8::try_from(len) {
        bytes.push(short);
    } else {
        bytes.push(126);
        bytes.extend(u16::try_from(len).unwrap().to_be_bytes());
    }
    bytes.resize(bytes.len() + len, fill);
    bytes
}

fn take(outbox: &mut Outbox, at_most: usize, outcome: WriteOutcome) -> (Vec<u8>, AfterWrite) {
    let mut batch = outbox.begin_write().expect("something to write");
    let mut slices = [IoSlice::new(&[]); SLICES_MAX];
    let used = batch.slices(&mut slices);
    let mut bytes = slices[..used].iter().flat_map(|s| s.to_vec()).collect::<Vec<u8>>();
    bytes.truncate(at_most);
    batch.advance(bytes.len());
    let after = outbox.end_write(batch, outcome, T0);
    (bytes, after)
}

#[test]
fn the_first_frame_obliges_its_bringer_to_write() {
    let mut outbox = Outbox::default();
    let a = frame(10, b'a');
    assert_eq!(outbox.offer(&Frame::Small(&a), LIMITS), Offer::First);
    assert_eq!(outbox.offer(&Frame::Small(&a), LIMITS), Offer::Queued);
    let (bytes, after) = take(&mut outbox, usize::MAX, WriteOutcome::Open);
    assert_eq!((bytes, after), ([a.clone(), a.clone()].concat(), AfterWrite::Drained));
    assert_eq!(outbox.offer(&Frame::Small(&a), LIMITS), Offer::First);
}

#[test]
fn what_is_held_waits_in_order_until_it_is_released() {
    let mut outbox = Outbox::held();
    let (a, b) = (frame(10, b'a'), frame(10, b'b'));
    assert_eq!(outbox.offer(&Frame::Small(&a), LIMITS), Offer::Queued);
    assert_eq!(outbox.offer(&Frame::Small(&b), LIMITS), Offer::Queued);
    assert!(outbox.begin_write().is_none() && !outbox.wants_write());
    outbox.release();
    assert!(outbox.wants_write());
    assert_eq!(take(&mut outbox, usize::MAX, WriteOutcome::Open).0, [a, b].concat());
}

#[test]
fn a_held_queue_has_an_end() {
    let mut outbox = Outbox::held();
    let a = frame(100, b'a');
    let took = (0..100).take_while(|_| outbox.offer(&Frame::Small(&a), LIMITS) == Offer::Queued);
    assert_eq!(took.count(), 4_000 / 102);
    assert_eq!(outbox.offer(&Frame::Small(&a), LIMITS), Offer::TooSlow);
}

#[test]
fn closing_releases() {
    let mut outbox = Outbox::held();
    let (a, close) = (frame(10, b'a'), frame(2, b'x'));
    outbox.offer(&Frame::Small(&a), LIMITS);
    outbox.close(&close, false);
    assert_eq!(take(&mut outbox, usize::MAX, WriteOutcome::Open).0, [a, close].concat());
    assert!(outbox.is_finished());
}

#[test]
fn what_comes_during_a_write_is_written_after_it() {
    let mut outbox = Outbox::default();
    let (a, b) = (frame(10, b'a'), frame(10, b'b'));
    outbox.offer(&Frame::Small(&a), LIMITS);
    let mut batch = outbox.begin_write().unwrap();
    assert_eq!(outbox.offer(&Frame::Small(&b), LIMITS), Offer::Queued);
    assert!(outbox.begin_write().is_none(), "only one writes");
    batch.advance(12);
    assert_eq!(outbox.end_write(batch, WriteOutcome::Open, T0), AfterWrite::More);
    assert_eq!(take(&mut outbox, usize::MAX, WriteOutcome::Open).0, b);
}

#[test]
fn full_before_any_write_is_not_slow() {
    let mut outbox = Outbox::default();
    let a = frame(100, b'a');
    for _ in 0..9 {
        outbox.offer(&Frame::Small(&a), LIMITS);
    }
    assert_eq!(outbox.offer(&Frame::Small(&a), LIMITS), Offer::Full);
    take(&mut outbox, 0, WriteOutcome::Blocked);
    assert_eq!(outbox.offer(&Frame::Small(&a), LIMITS), Offer::TooSlow);
    assert_eq!(outbox.bytes(), 9 * 102);
}

#[test]
fn messages_are_bounded_in_number_too() {
    let mut outbox = Outbox::default();
    let a = frame(1, b'a');
    outbox.offer(&Frame::Small(&a), LIMITS);
    take(&mut outbox, 0, WriteOutcome::Blocked);
    for _ in 1..10 {
        assert_eq!(outbox.offer(&Frame::Small(&a), LIMITS), Offer::Queued);
    }
    assert_eq!(outbox.offer(&Frame::Small(&a), LIMITS), Offer::TooSlow);
    take(&mut outbox, 4, WriteOutcome::Blocked);
    assert_eq!(outbox.offer(&Frame::Small(&a), LIMITS), Offer::Queued, "one whole frame left");
    assert_eq!(outbox.offer(&Frame::Small(&a), LIMITS), Offer::TooSlow);
}

#[test]
fn during_a_write_more_may_wait_but_not_without_end() {
    let mut outbox = Outbox::default();
    let a = frame(100, b'a');
    outbox.offer(&Frame::Small(&a), LIMITS);
    let batch = outbox.begin_write().unwrap();
    let took = (0..100).take_while(|_| outbox.offer(&Frame::Small(&a), LIMITS) == Offer::Queued);
    assert_eq!(took.count(), 4_000 / 102 - 1);
    assert_eq!(outbox.offer(&Frame::Small(&a), LIMITS), Offer::TooSlow);
    assert_eq!(outbox.end_write(batch, WriteOutcome::Blocked, T0), AfterWrite::Blocked);
    assert_eq!(outbox.offer(&Frame::Small(&a), LIMITS), Offer::TooSlow);
}

#[test]
fn a_hurried_close_keeps_the_frame_that_is_half_written() {
    let mut outbox = Outbox::default();
    let (a, b, close) = (frame(10, b'a'), frame(10, b'b'), frame(2, b'x'));
    outbox.offer(&Frame::Small(&a), LIMITS);
    outbox.offer(&Frame::Small(&b), LIMITS);
    outbox.offer(&Frame::Small(&b), LIMITS);
    take(&mut outbox, 12 + 5, WriteOutcome::Blocked);
    assert_eq!(outbox.close(&close, true), Some(1));
    assert_eq!(outbox.offer(&Frame::Small(&a), LIMITS), Offer::Closed);
    let (bytes, _) = take(&mut outbox, usize::MAX, WriteOutcome::Open);
    assert_eq!(bytes, [&b[5..], &close].concat());
    assert!(outbox.is_finished());
}

#[test]
fn a_calm_close_comes_last() {
    let mut outbox = Outbox::default();
    let (a, close) = (frame(10, b'a'), frame(2, b'x'));
    outbox.offer(&Frame::Small(&a), LIMITS);
    assert_eq!(outbox.close(&close, false), Some(0));
    assert_eq!(outbox.close(&close, false), None);
    assert!(!outbox.is_finished());
    assert_eq!(take(&mut outbox, usize::MAX, WriteOutcome::Open).0, [a, close].concat());
    assert!(outbox.is_finished());
}

#[test]
fn a_block_lasts_from_the_last_byte_taken() {
    let mut outbox = Outbox::default();
    outbox.offer(&Frame::Small(&frame(50, b'a')), LIMITS);
    let mut write = |at_most, now| {
        let mut batch = outbox.begin_write().unwrap();
        batch.advance(at_most);
        outbox.end_write(batch, WriteOutcome::Blocked, now);
        outbox.blocked_since()
    };
    assert_eq!(write(10, T0), Some(T0));
    assert_eq!(write(0, T0 * 2), Some(T0));
    assert_eq!(write(1, T0 * 3), Some(T0 * 3));
    outbox.forgive(T0);
    assert_eq!(
        outbox.blocked_since(),
        Some(T0 * 4),
        "but for the time that this process stood still"
    );
}

#[test]
fn a_failed_socket_ends_it_all() {
    let mut outbox = Outbox::default();
    outbox.offer(&Frame::Small(&frame(10, b'a')), LIMITS);
    let batch = outbox.begin_write().unwrap();
    outbox.offer(&Frame::Small(&frame(10, b'b')), LIMITS);
    assert_eq!(outbox.end_write(batch, WriteOutcome::Failed, T0), AfterWrite::Drained);
    assert!(outbox.is_dead() && outbox.is_finished() && outbox.bytes() == 0);
    assert_eq!((outbox.kill(), outbox.kill()), (2, 0), "what was lost is reported once");
}

#[test]
fn an_end_during_a_write_counts_what_is_being_written() {
    let mut outbox = Outbox::default();
    outbox.offer(&Frame::Small(&frame(10, b'a')), LIMITS);
    let batch = outbox.begin_write().unwrap();
    outbox.offer(&Frame::Small(&frame(10, b'b')), LIMITS);
    outbox.close(&frame(2, b'x'), false);
    assert_eq!(outbox.kill(), 2, "a close frame is no message");
    assert_eq!(outbox.end_write(batch, WriteOutcome::Failed, T0), AfterWrite::Drained);
    assert_eq!(outbox.kill(), 0);
}

#[test]
fn idle_outboxes_hold_no_memory() {
    let mut outbox = Outbox::default();
    outbox.offer(&Frame::Small(&frame(100, b'a')), LIMITS);
    take(&mut outbox, usize::MAX, WriteOutcome::Open);
    assert_eq!((outbox.run.capacity(), outbox.chunks.capacity()), (0, 0));
}

proptest! {
    /// Whatever sizes, cuts and moments of closing: the socket sees exactly the accepted
    /// frames, whole and in order, and the counts agree with what waits.
    #[test]
    fn the_wire_is_the_accepted_frames_in_order(
        steps in proptest::collection::vec((0_usize..400, any::<bool>(), 0_usize..900), 1..60),
        hurry in any::<bool>(),
    ) {
        let limits = OutboxLimits { bytes: 2_000, messages: 12 };
        let (mut outbox, mut wire, mut accepted) = (Outbox::default(), Vec::new(), Vec::new());
        for (i, (len, large, cut)) in steps.into_iter().enumerate() {
            let bytes = frame(len, u8::try_from(i).unwrap());
            let shared = Bytes::from(bytes.clone());
            let offered = if large { Frame::Large(shared) } else { Frame::Small(&bytes) };
            if matches!(outbox.offer(&offered, limits), Offer::First | Offer::Queued) {
                accepted.push(bytes);
            }
            prop_assert!(outbox.bytes <= limits.bytes && outbox.messages <= limits.messages);
            if cut % 3 == 0 && outbox.bytes() > 0 {
                wire.extend(take(&mut outbox, cut, WriteOutcome::Blocked).0);
                let waiting: usize = outbox.chunks.iter().map(Bytes::len).sum();
                prop_assert_eq!(outbox.bytes, waiting + outbox.run.len());
                let whole: Vec<_> = accepted.concat();
                prop_assert_eq!(&wire[..], &whole[..wire.len()]);
                let mut end = 0;
                let written = accepted.iter().take_while(|f| { end += f.len(); end <= wire.len() });
                prop_assert_eq!(outbox.messages, accepted.len() - written.count());
            }
        }
        outbox.close(&frame(2, 0xff), hurry);
        while !outbox.is_finished() {
            wire.extend(take(&mut outbox, 700, WriteOutcome::Open).0);
        }
        let mut at = 0;
        let mut seen = Vec::new();
        while at < wire.len() {
            let end = at + frame_len(&wire[at..]);
            seen.push(wire[at..end].to_vec());
            at = end;
        }
        prop_assert_eq!(seen.pop(), Some(frame(2, 0xff)));
        prop_assert_eq!(&seen[..], &accepted[..seen.len()], "a prefix, whole frames only");
        prop_assert!(hurry || seen.len() == accepted.len());
    }
}
