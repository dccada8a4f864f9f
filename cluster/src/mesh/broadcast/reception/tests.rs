//! What comes early, late, twice or never, one lane at a time.

use proptest::prelude::*;

use super::*;
use crate::wire::{Body, Direct, Names};

const MS: Duration = Duration::from_millis(1);

fn message(seq: u64, body: &[u8]) -> Broadcast<'_> {
    Broadcast { seq, from: "ann", except: Names::NONE, body: Body::Borrowed(body) }
}

fn direct() -> Data<'static> {
    let (targets, body) = (Names::List(&["bob"]), Body::Borrowed(b"{}"));
    Data::Direct(Direct { followed: false, resent: false, era: 0, from: "ann", targets, body })
}

const FENCE: Data<'static> = Data::Fence { agent: "bob", epoch: 1 };

/// What is released: numbers of broadcasts, and 0 for all else.
fn released(reception: &mut Reception) -> Vec<u64> {
    std::iter::from_fn(|| reception.released())
        .map(|kept| match kept.frame() {
            Data::Broadcast(broadcast) => broadcast.seq,
            _ => 0,
        })
        .collect()
}

fn started(seq: u64) -> Reception {
    let mut reception = Reception::default();
    reception.start(seq, Duration::ZERO);
    reception
}

#[test]
fn a_direct_message_that_a_broadcast_overtook_is_dropped_and_counted() {
    let mut reception = started(0);
    assert_eq!(reception.relayed(&message(1, b"{}"), Duration::ZERO), Verdict::Held);
    reception.poll(HELD_FOR_MAX);
    assert_eq!(released(&mut reception), [1], "its place was given up");
    reception.take_missed();
    assert_eq!(reception.follow(&direct()), Verdict::Seen);
    assert_eq!(reception.take_missed(), 1);
    assert_eq!(reception.follow(&FENCE), Verdict::Deliver, "only messages can be late");
    reception.start(1, HELD_FOR_MAX);
    assert_eq!(reception.follow(&direct()), Verdict::Deliver, "sent after it");
}

#[test]
fn no_broadcast_overtakes_a_lane_that_is_slow() {
    let (mut reception, late) = (started(0), MS * 29_999);
    assert_eq!(reception.relayed(&message(1, b""), Duration::ZERO), Verdict::Held);
    reception.poll(late);
    assert!(released(&mut reception).is_empty(), "what was sent before it is in the lane");
    assert_eq!(reception.follow(&direct()), Verdict::Deliver);
    reception.start(1, late);
    assert_eq!(released(&mut reception), [1]);
    assert_eq!(reception.take_missed(), 0);
}

#[test]
fn what_a_slow_lane_places_late_can_be_asked_for_then() {
    let (mut reception, late) = (started(0), MS * 29_999);
    reception.relayed(&message(2, b""), Duration::ZERO);
    reception.poll(MS * 50);
    reception.start(2, late);
    assert_eq!(reception.poll(late), Some(Missing { from: 1, to: 1 }));
    let answered = late + MS * 7_999;
    reception.poll(answered);
    assert_eq!(reception.broadcast(&message(1, b""), answered), Verdict::Deliver);
    assert_eq!((released(&mut reception), reception.take_missed()), (vec![2], 0));
}

#[test]
fn what_has_no_place_yet_makes_room_and_is_asked_for_again() {
    let (mut reception, now) = (started(0), Duration::ZERO);
    let large = vec![0; HELD_BYTES_MAX / 3];
    for seq in [1, 2, 3, 4] {
        reception.relayed(&message(seq, &large), now);
    }
    assert!(released(&mut reception).is_empty() && reception.held_bytes() <= HELD_BYTES_MAX);
    assert_eq!(reception.follow(&direct()), Verdict::Deliver, "it is in its place still");
    reception.start(4, MS);
    assert_eq!(released(&mut reception), [1, 2]);
    assert_eq!(reception.poll(MS * 60), Some(Missing { from: 3, to: 4 }));
    for seq in [3, 4] {
        assert_eq!(reception.broadcast(&message(seq, &large), MS * 70), Verdict::Deliver);
    }
    assert_eq!((reception.held_bytes(), reception.take_missed()), (0, 0));
}

#[test]
fn a_request_is_repeated_less_and_less_often_until_something_comes() {
    let mut reception = started(0);
    reception.start(3, Duration::ZERO);
    let asked = |reception: &mut Reception, from: u32, to: u32| -> Vec<u32> {
        (from..to).step_by(50).filter(|ms| reception.poll(MS * *ms).is_some()).collect()
    };
    assert_eq!(asked(&mut reception, 50, 4_000), [50, 200, 500, 1_100, 2_300]);
    reception.broadcast(&message(1, b""), MS * 4_000);
    assert_eq!(asked(&mut reception, 4_750, 5_000), [4_750, 4_900], "two are missing still");
}

#[test]
fn what_comes_in_order_is_never_kept() {
    let (mut reception, now) = (started(0), Duration::ZERO);
    for seq in 1..100 {
        assert_eq!(reception.broadcast(&message(seq, b""), now), Verdict::Deliver);
        assert_eq!(reception.follow(&direct()), Verdict::Deliver);
        assert_eq!(reception.follow(&FENCE), Verdict::Deliver);
    }
    assert_eq!(reception.early.len() + reception.behind.capacity(), 0);
    assert_eq!(reception.ready.capacity() + reception.held_bytes(), 0);
}

#[test]
fn the_lane_decides_where_a_broadcast_has_its_place() {
    let (mut reception, now) = (started(4), Duration::ZERO);
    assert_eq!(reception.relayed(&message(5, b""), now), Verdict::Held);
    assert_eq!(reception.follow(&direct()), Verdict::Deliver, "it was sent before");
    assert!(released(&mut reception).is_empty());
    reception.start(5, now);
    assert_eq!(released(&mut reception), [5]);
    assert_eq!(reception.relayed(&message(5, b""), now), Verdict::Seen);
}

#[test]
fn what_follows_a_missing_broadcast_waits_in_its_order() {
    let (mut reception, now) = (started(4), Duration::ZERO);
    reception.start(5, now);
    assert_eq!(reception.follow(&FENCE), Verdict::Held);
    assert_eq!(reception.broadcast(&message(6, b""), now), Verdict::Held);
    assert_eq!(reception.relayed(&message(6, b""), now), Verdict::Seen);
    reception.start(6, now);
    assert_eq!(reception.follow(&direct()), Verdict::Held);
    assert!(released(&mut reception).is_empty());
    assert_eq!(reception.relayed(&message(5, b""), now), Verdict::Deliver);
    assert_eq!(reception.follow(&direct()), Verdict::Held, "others are before it");
    assert_eq!(released(&mut reception), [0, 6, 0, 0]);
    assert_eq!(reception.follow(&FENCE), Verdict::Deliver);
    assert_eq!(reception.held_bytes(), 0);
}

#[test]
fn before_the_start_all_is_held_and_then_only_what_is_above_it_delivered() {
    let (mut reception, now) = (Reception::default(), Duration::ZERO);
    for seq in [6, 4, 5] {
        assert_eq!(reception.relayed(&message(seq, b""), now), Verdict::Held);
    }
    reception.start(4, now);
    reception.start(6, now);
    assert_eq!(released(&mut reception), [5, 6]);
    assert_eq!((reception.held_bytes(), reception.poll(MS * 60)), (0, None));
    assert_eq!(reception.take_unplaced(), 1, "what was before the start");
}

#[test]
fn what_waits_for_a_start_that_does_not_come_is_counted() {
    let (mut reception, now) = (Reception::default(), Duration::ZERO);
    let large = vec![0; HELD_BYTES_MAX / 2];
    for seq in [1, 2, 3] {
        reception.relayed(&message(seq, &large), now);
    }
    assert_eq!(reception.take_unplaced(), 2, "there is no room for more than one");
    reception.poll(HELD_FOR_MAX);
    assert_eq!((reception.take_unplaced(), reception.held_bytes()), (1, 0));
}

#[test]
fn what_was_placed_before_the_start_is_not_waited_for_without_end() {
    let mut reception = Reception::default();
    assert_eq!(reception.broadcast(&message(51, b""), Duration::ZERO), Verdict::Held);
    reception.poll(HELD_FOR_MAX);
    reception.start(0, HELD_FOR_MAX);
    assert_eq!(reception.follow(&direct()), Verdict::Held, "the lane says that it is behind 51");
    reception.poll(HELD_FOR_MAX * 2);
    assert_eq!((released(&mut reception), reception.held_bytes()), (vec![0], 0));
}

#[test]
fn a_gap_is_asked_for_when_it_is_old_enough_and_not_too_often() {
    let mut reception = started(0);
    reception.start(2, MS * 10);
    assert_eq!(reception.poll(MS * 59), None);
    assert_eq!(reception.poll(MS * 60), Some(Missing { from: 1, to: 2 }));
    reception.start(9, MS * 100);
    assert_eq!(reception.poll(MS * 209), None);
    assert_eq!(reception.relayed(&message(7, b""), MS * 209), Verdict::Held);
    assert_eq!(reception.poll(MS * 210), Some(Missing { from: 1, to: 6 }));
    for seq in 1..=6 {
        assert!(!reception.passes_on(seq) && reception.passes_on(7));
        reception.broadcast(&message(seq, b""), MS * 220);
    }
    assert_eq!(released(&mut reception), [7]);
    assert_eq!(reception.poll(MS * 220), Some(Missing { from: 8, to: 9 }), "another gap");
    reception.link_lost();
    assert_eq!(reception.poll(MS * 900), None, "nobody can be asked");
}

#[test]
fn a_ping_counts_when_the_next_one_comes() {
    let mut reception = started(0);
    reception.pinged(3, MS);
    assert_eq!(reception.poll(MS * 900), None);
    reception.pinged(3, MS * 1_000);
    assert_eq!(reception.poll(MS * 1_050), Some(Missing { from: 1, to: 3 }));
}

#[test]
fn what_does_not_come_is_given_up_and_counted() {
    let mut reception = started(0);
    reception.start(3, Duration::ZERO);
    assert_eq!(reception.follow(&FENCE), Verdict::Held);
    reception.relayed(&message(2, b""), MS * 5);
    reception.relayed(&message(5, b""), MS * 100);
    reception.poll(MS * 7_999);
    assert!(released(&mut reception).is_empty());
    reception.poll(ANSWERED_WITHIN);
    assert_eq!(released(&mut reception), [2, 0]);
    assert_eq!(reception.take_missed(), 2);
    assert_eq!(reception.relayed(&message(1, b""), ANSWERED_WITHIN), Verdict::Seen);
    reception.poll(HELD_FOR_MAX + MS * 99);
    assert!(released(&mut reception).is_empty());
    reception.poll(HELD_FOR_MAX + MS * 100);
    assert_eq!(released(&mut reception), [5], "its place is given up too");
    assert_eq!((reception.take_missed(), reception.held_bytes()), (1, 0));
}

#[test]
fn what_was_sent_before_the_link_came_up_is_not_waited_for_as_long() {
    let mut reception = started(3);
    reception.broadcast(&message(4, b""), Duration::ZERO);
    reception.link_lost();
    reception.link_up();
    reception.start(7, Duration::ZERO);
    reception.start(9, MS);
    reception.relayed(&message(6, b""), MS);
    assert_eq!(reception.follow(&FENCE), Verdict::Held);
    reception.poll(MS * 1_999);
    assert!(released(&mut reception).is_empty());
    reception.poll(BEFORE_LINK_WITHIN);
    assert_eq!((released(&mut reception), reception.take_missed()), (vec![6], 2), "5 and 7");
    reception.poll(MS * 7_999);
    assert!(released(&mut reception).is_empty());
    reception.poll(ANSWERED_WITHIN);
    assert_eq!((released(&mut reception), reception.take_missed()), (vec![0], 2), "8 and 9");
}

#[test]
fn a_broadcast_without_a_number_is_dropped() {
    for mut reception in [Reception::default(), started(0)] {
        assert_eq!(reception.relayed(&message(0, b""), Duration::ZERO), Verdict::Seen);
        assert_eq!(reception.held_bytes(), 0);
    }
}

#[test]
fn without_a_link_nobody_can_be_asked_and_less_is_waited() {
    let mut reception = started(0);
    reception.start(3, Duration::ZERO);
    reception.relayed(&message(2, b""), Duration::ZERO);
    reception.poll(UNLINKED_FOR);
    assert!(released(&mut reception).is_empty());
    reception.link_lost();
    reception.poll(UNLINKED_FOR);
    assert_eq!((released(&mut reception), reception.take_missed()), (vec![2], 2));
}

#[test]
fn without_a_link_numbers_alone_decide() {
    let mut reception = started(0);
    reception.relayed(&message(1, b""), Duration::ZERO);
    reception.relayed(&message(3, b""), Duration::ZERO);
    reception.link_lost();
    assert_eq!(released(&mut reception), [1]);
    assert_eq!(reception.relayed(&message(2, b""), Duration::ZERO), Verdict::Deliver);
    assert_eq!(released(&mut reception), [3]);
    reception.link_up();
    assert_eq!(reception.relayed(&message(4, b""), Duration::ZERO), Verdict::Held);
    reception.start(4, Duration::ZERO);
    assert_eq!(released(&mut reception), [4]);
}

#[test]
fn numbers_that_no_origin_reaches_end_nothing() {
    for seq in [u64::MAX - 1, u64::MAX] {
        for wait in [Duration::ZERO, HELD_FOR_MAX] {
            let mut reception = started(0);
            reception.pinged(seq, Duration::ZERO);
            reception.pinged(seq, Duration::ZERO);
            reception.relayed(&message(seq, b""), Duration::ZERO);
            reception.start(seq, Duration::ZERO);
            reception.follow(&FENCE);
            reception.poll(wait);
            reception.broadcast(&message(seq, b""), wait);
            reception.poll(wait + HELD_FOR_MAX);
            assert_eq!(released(&mut reception).last(), Some(&0), "the fence");
            assert_eq!(reception.held_bytes(), 0);
            assert_eq!(reception.broadcast(&message(seq, b""), wait), Verdict::Seen);
        }
        let mut reception = Reception::default();
        reception.start(seq, Duration::ZERO);
        reception.poll(HELD_FOR_MAX);
        assert_eq!(reception.follow(&FENCE), Verdict::Deliver);
    }
}

proptest! {
    /// Whatever comes, however large: nothing twice, all in order, and within the bounds.
    #[test]
    fn any_frames_are_kept_within_bounds(
        steps in proptest::collection::vec((0_u8..8, 0_u64..60, 0_usize..1_500_000), 0..200)
    ) {
        let (mut reception, mut now, body) = (Reception::default(), Duration::ZERO, vec![0; 1_500_000]);
        let (mut last, mut count) = (0, 0);
        for (kind, seq, n) in steps {
            let broadcast = message(seq, &body[..n]);
            let verdict = match kind {
                0 => { reception.start(seq, now); Verdict::Held }
                1 => reception.broadcast(&broadcast, now),
                2 | 3 => reception.relayed(&broadcast, now),
                4 => { reception.start(seq, now); reception.follow(&direct()); Verdict::Held }
                5 => { reception.link_lost(); Verdict::Held }
                6 => { reception.pinged(seq, now); Verdict::Held }
                _ => {
                    now += MS * u32::try_from(n / 2_000).unwrap();
                    reception.poll(now);
                    Verdict::Held
                }
            };
            let mut delivered = released(&mut reception);
            if verdict == Verdict::Deliver {
                delivered.insert(0, seq);
            }
            for seq in delivered.into_iter().filter(|seq| *seq > 0) {
                prop_assert!(seq > last, "{} after {}", seq, last);
                (last, count) = (seq, count + 1);
            }
            let held = reception.early.values().chain(reception.behind.iter().map(|(_, kept)| kept));
            prop_assert_eq!(held.map(Kept::bytes).sum::<usize>(), reception.held_bytes());
            prop_assert!(reception.held_bytes() <= HELD_BYTES_MAX);
            prop_assert!(reception.news.0.len() <= 201 && reception.due.0.len() <= 201);
        }
        reception.poll(now + HELD_FOR_MAX);
        released(&mut reception);
        prop_assert_eq!(reception.held_bytes(), 0, "nothing waits for longer");
    }
}
