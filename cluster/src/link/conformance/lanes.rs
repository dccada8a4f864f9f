//! What lanes carry, in which order, and how much; and what breaks their rules.

#![allow(clippy::cast_possible_truncation)] // lanes and small numbers of the tests' own

use tokio::io::AsyncWriteExt;

use super::{
    bed::Bed,
    dial, join, lane,
    node::{Event, Node, Setup, Told},
    pair, tell,
};
use crate::{
    NodeId,
    link::{
        Down, LaneKind,
        transport::{CloseCode, Connection, Ended},
    },
    mesh::{Outlet, Pushed},
    wire::{Control, Data},
};

both! {
    lanes_keep_their_order
    nothing_comes_before_the_start_of_a_lane
    the_longest_frames_pass
    a_full_lane_says_so_and_loses_nothing_that_it_took
    a_busy_lane_leaves_others_their_turns
    what_waits_when_a_link_goes_down_is_counted
    too_many_control_frames_end_the_link
    a_malformed_frame_is_a_violation
    a_stream_that_is_no_lane_is_a_violation
    a_lane_that_is_opened_twice_is_a_violation
}

async fn lanes_keep_their_order(bed: Bed) {
    const FRAMES: u64 = 3_000;
    let (a, b) = pair(&bed).await;
    a.start_lanes(&b);
    for seq in 1..=FRAMES {
        for lane in 0..4 {
            assert_eq!(a.broadcast(&b, lane, seq, &vec![lane; seq as usize % 500]), Pushed::Queued);
        }
        assert!(a.links.control(b.id(), &tell(seq)));
        if seq % 100 == 0 {
            tokio::task::yield_now().await;
        }
    }
    for lane in 0..4 {
        let all: Vec<_> = (1..=FRAMES).collect();
        b.told.until("all", |it| (Told::seqs(it, lane) == all).then_some(())).await;
    }
    let controls = |events: &[Event]| {
        let numbers = events.iter().filter_map(|event| match event {
            Event::Control(_, Control::Synced { ring }) => Some(*ring),
            _ => None,
        });
        numbers.eq(1..=FRAMES).then_some(())
    };
    b.told.until("all of control", controls).await;
    let counts = b.links.counters().lane(LaneKind::Data);
    assert_eq!(counts.frames_received, 4 * FRAMES + 4);
    assert_eq!(a.links.counters().lane(LaneKind::Data).dropped_full, 0);
    assert_eq!(a.links.status()[0].queue_bytes, 0);
}

async fn nothing_comes_before_the_start_of_a_lane(bed: Bed) {
    let (a, b) = pair(&bed).await;
    assert_eq!(a.broadcast(&b, 1, 1, b""), Pushed::NoLink);
    assert_eq!(a.links.data(b.id(), 1, &Data::Start { seq: 0 }), Pushed::Queued);
    assert_eq!(a.broadcast(&b, 1, 1, b""), Pushed::Queued);
    assert_eq!(a.broadcast(&b, 2, 1, b""), Pushed::NoLink);
    assert_eq!(a.broadcast(&b, 4, 1, b""), Pushed::NoLink);
    b.told.until("one", |it| (Told::seqs(it, 1) == [1]).then_some(())).await;
}

async fn the_longest_frames_pass(bed: Bed) {
    let (a, b) = pair(&bed).await;
    a.start_lanes(&b);
    let body: Vec<u8> = (0..16_u32 << 20).map(|i| (i % 251) as u8).collect();
    assert_eq!(a.broadcast(&b, 0, 1, &body), Pushed::Queued);
    assert_eq!(a.broadcast(&b, 0, 2, b"after"), Pushed::Queued);
    let came = b.told.until("both", |events| {
        let came: Vec<_> = events
            .iter()
            .filter_map(|event| match event {
                Event::Broadcast(_, 0, _, body) => Some(body.clone()),
                _ => None,
            })
            .collect();
        (came.len() == 2).then_some(came)
    });
    let came = came.await;
    assert!(came[0] == body, "the body is another one");
    assert_eq!(came[1], b"after"[..]);
}

async fn a_full_lane_says_so_and_loses_nothing_that_it_took(bed: Bed) {
    let (a, b) = pair(&bed).await;
    a.start_lanes(&b);
    bed.cut(a.address, b.address);
    let body = vec![0; 1 << 20];
    let mut queued = 0;
    while a.broadcast(&b, 2, queued + 1, &body) == Pushed::Queued {
        queued += 1;
        assert!(queued < 200, "200 MiB were taken");
        tokio::task::yield_now().await;
    }
    assert!(queued > 30, "{queued}");
    assert_eq!(a.broadcast(&b, 3, 1, &body), Pushed::Full);
    assert_eq!(a.links.counters().lane(LaneKind::Data).dropped_full, 2);
    assert!(a.links.status()[0].queue_bytes <= 32 << 20);
    assert!(a.links.control(b.id(), &tell(1)), "control has room of its own");
    bed.heal(a.address, b.address);
    let all: Vec<_> = (1..=queued).collect();
    b.told.until("all", |it| (Told::seqs(it, 2) == all).then_some(())).await;
}

/// All tasks of the test take turns on one thread: between two of its own, each has had one.
async fn a_busy_lane_leaves_others_their_turns(bed: Bed) {
    const FRAMES: u64 = 900;
    let (a, b) = pair(&bed).await;
    a.start_lanes(&b);
    for seq in 1..=FRAMES {
        assert_eq!(a.broadcast(&b, 1, seq, &[0; 1 << 10]), Pushed::Queued);
    }
    let (mut came, mut most) = (0, 0);
    while came < FRAMES as usize {
        tokio::task::yield_now().await;
        let now = b.told.until("whatever came", |it| Some(Told::seqs(it, 1).len())).await;
        (came, most) = (now, most.max(now - came));
    }
    assert!(most < 500, "{most} of {FRAMES} came in one turn");
}

async fn what_waits_when_a_link_goes_down_is_counted(bed: Bed) {
    let (a, b) = pair(&bed).await;
    a.start_lanes(&b);
    bed.cut(a.address, b.address);
    let mut pushed = 0;
    while a.broadcast(&b, 2, pushed + 1, &vec![0; 1 << 20]) == Pushed::Queued {
        pushed += 1;
        tokio::task::yield_now().await;
    }
    let control = Control::Tell { body: vec![0; 1 << 20] };
    let told = (0..12).filter(|_| a.links.control(b.id(), &control)).count() as u64;
    a.links.close(b.id(), Down::Lost);
    a.told.down(b.incarnation).await;
    for (kind, pushed) in [(LaneKind::Control, told), (LaneKind::Data, pushed + 4)] {
        let counts = a.links.counters().lane(kind);
        assert!(counts.lost > 0, "{kind:?}");
        assert_eq!(counts.frames_sent + counts.lost, pushed, "{kind:?}");
    }
    assert_eq!(a.links.counters().lane(LaneKind::Gossip).lost, 0);
}

async fn too_many_control_frames_end_the_link(bed: Bed) {
    let (a, b) = pair(&bed).await;
    bed.cut(a.address, b.address);
    let frame = Control::Tell { body: vec![0; 1 << 20] };
    // Taken by the transport, by the lane, and one too many.
    let pushed = (0..100).take_while(|_| a.links.control(b.id(), &frame)).count();
    assert!((15..100).contains(&pushed), "{pushed}");
    assert_eq!(a.told.down(b.incarnation).await, Down::Lost);
    assert_eq!(a.links.counters().lane(LaneKind::Control).dropped_full, 1);
    assert_eq!(a.links.counters().downs(Down::Lost), 1);
}

async fn violates(a: &Node, connection: &dyn Connection, node: u64) {
    let peer = Setup::of(node).introduction(a.address).incarnation;
    assert_eq!(a.told.down(peer).await, Down::Violation);
    let ended = connection.closed().await;
    assert!(matches!(ended, Ended::There { code: CloseCode::Violation, .. }), "{ended:?}");
    assert!(!a.links.linked().contains(&NodeId(node)));
}

async fn a_malformed_frame_is_a_violation(bed: Bed) {
    let a = Setup::of(1).start(&bed);
    let frames: [&[u8]; 7] = [
        // An unknown kind on the control, the gossip and a data lane.
        &[0, 1, 0, 0, 0, 200],
        &[1, 1, 0, 0, 0, 200],
        &[2, 1, 0, 0, 0, 200],
        // No kind at all, and a body that is none.
        &[0, 0, 0, 0, 0],
        &[0, 2, 0, 0, 0, 3, 0xc1],
        // Too long.
        &[2, 0, 0, 0, 255],
        // No such lane.
        &[6],
    ];
    for (node, frame) in (10..).zip(frames) {
        let (_transport, connection) = dial(&bed, node, &a).await;
        join(&*connection, node).await;
        let _lane = lane(&*connection, frame).await;
        violates(&a, &*connection, node).await;
    }
    // A frame that ends with its lane.
    let (_transport, connection) = dial(&bed, 30, &a).await;
    join(&*connection, 30).await;
    let _ = lane(&*connection, &[2, 9, 0, 0, 0, 64]).await.deliver().await;
    violates(&a, &*connection, 30).await;
}

async fn a_stream_that_is_no_lane_is_a_violation(bed: Bed) {
    let a = Setup::of(1).start(&bed);
    let (_transport, connection) = dial(&bed, 2, &a).await;
    join(&*connection, 2).await;
    let mut lanes = Vec::new();
    for number in 0..7 {
        lanes.push(lane(&*connection, &[number]).await);
    }
    violates(&a, &*connection, 2).await;
    let (_transport, connection) = dial(&bed, 3, &a).await;
    join(&*connection, 3).await;
    let (mut to, _from) = connection.open_bi().await.unwrap();
    to.write_all(&[0]).await.unwrap();
    violates(&a, &*connection, 3).await;
}

async fn a_lane_that_is_opened_twice_is_a_violation(bed: Bed) {
    let a = Setup::of(1).start(&bed);
    let (_transport, connection) = dial(&bed, 2, &a).await;
    join(&*connection, 2).await;
    let _lanes = [lane(&*connection, &[3]).await, lane(&*connection, &[3]).await];
    violates(&a, &*connection, 2).await;
}
