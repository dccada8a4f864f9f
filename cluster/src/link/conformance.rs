//! What links promise, proven over each transport.

#![allow(clippy::cast_possible_truncation)] // lanes and small numbers of the tests' own

mod bed;
mod node;

use std::{sync::Arc, time::Duration};

use tls::mesh::{KeyExchange, MeshIdentity, Secret};
use tokio::io::AsyncWriteExt;

use self::{
    bed::Bed,
    node::{Event, Node, Setup, Told},
};
use super::{
    Down, LaneKind, LinkError, NodeKey, Reason,
    handshake::{self, Fault, Hello},
    quic::{QuicSettings, QuicTransport},
    transport::{CloseCode, Connection, Ended, IDLE_TIMEOUT, Outgoing, Transport},
};
use crate::{
    NodeId, UnixMillis,
    mesh::{Outlet, Pushed},
    wire::{Control, Data, LANES},
};

/// Each promise once per transport. In memory, time passes only when nothing else can.
macro_rules! both {
    ($($name:ident)*) => {
        mod memory {
            $(
                #[tokio::test(start_paused = true)]
                async fn $name() {
                    super::$name(super::Bed::memory()).await;
                }
            )*
        }
        mod quic {
            $(
                #[tokio::test]
                async fn $name() {
                    super::$name(super::Bed::quic()).await;
                }
            )*
        }
    };
}

both! {
    a_dial_links_both_ends
    a_second_dial_finds_the_link
    two_that_dial_each_other_at_once_have_one_link
    lanes_keep_their_order
    nothing_comes_before_the_start_of_a_lane
    the_longest_frames_pass
    a_full_lane_says_so_and_loses_nothing_that_it_took
    too_many_control_frames_end_the_link
    a_cut_is_noticed_in_the_idle_time
    a_restart_is_noticed_at_once
    a_later_life_replaces_the_former
    goodbye_loses_nothing
    a_stop_is_a_goodbye_too
    closing_one_link_is_its_end_only
    the_wrong_secret_is_named_at_both_ends
    strangers_are_refused_with_a_reason
    a_dialler_who_is_unwanted_or_does_not_want_leaves_no_trace
    a_node_knows_itself
    nobody_there_is_unreachable
    releases_without_a_common_version_say_so
    what_is_no_handshake_is_refused
    a_half_handshake_disturbs_nobody
    a_malformed_frame_is_a_violation
    a_stream_that_is_no_lane_is_a_violation
    a_lane_that_is_opened_twice_is_a_violation
    time_is_learned_from_each_other
}

async fn pair(bed: &Bed) -> (Node, Node) {
    let (a, b) = (Setup::of(1).start(bed), Setup::of(2).start(bed));
    link(&a, &b).await;
    (a, b)
}

async fn link(a: &Node, b: &Node) {
    let peer = a.links.dial(b.address).await.unwrap();
    assert_eq!(peer.incarnation, b.incarnation);
    b.told.up(a).await;
}

fn tell(number: u64) -> Control {
    Control::Synced { ring: number }
}

async fn a_dial_links_both_ends(bed: Bed) {
    let (a, b) = pair(&bed).await;
    assert_eq!(a.told.changes(), [Event::Up(b.incarnation)]);
    assert_eq!(b.told.changes(), [Event::Up(a.incarnation)]);
    assert_eq!(a.links.linked(), [b.id()]);
    assert!(b.links.is_linked(a.id()));
    assert_eq!(b.links.address_of(a.id()), Some(a.address));
    assert_eq!(a.links.status()[0].peer.name, "node-2");
    assert!(a.links.gossip(b.id(), b"word"));
    assert!(b.links.control(a.id(), &tell(7)));
    let word = Event::Gossip(1, "word".into());
    b.told.until("gossip", |events| events.contains(&word).then_some(())).await;
    let told = Event::Control(2, tell(7));
    a.told.until("control", |events| events.contains(&told).then_some(())).await;
    assert_eq!(a.links.counters().ups(), 1);
    assert_eq!(a.links.counters().lane(LaneKind::Control).frames_received, 1);
    assert_eq!(b.links.counters().lane(LaneKind::Gossip).frames_received, 1);
    assert!(!a.links.gossip(NodeId(3), b"word"));
    assert!(!a.links.control(NodeId(3), &tell(7)));
}

async fn a_second_dial_finds_the_link(bed: Bed) {
    let (a, b) = pair(&bed).await;
    assert_eq!(a.links.dial(b.address).await.unwrap().incarnation, b.incarnation);
    assert_eq!(b.links.dial(a.address).await.unwrap().incarnation, a.incarnation);
    assert_eq!(a.links.counters().ups() + b.links.counters().ups(), 2);
}

async fn two_that_dial_each_other_at_once_have_one_link(bed: Bed) {
    for round in 0..10 {
        let [low, high] = [10 + round * 2, 11 + round * 2];
        let (a, b) = (Setup::of(low).start(&bed), Setup::of(high).start(&bed));
        let (to_b, to_a) = tokio::join!(a.links.dial(b.address), b.links.dial(a.address));
        assert!(to_b.is_ok() || to_a.is_ok(), "{to_b:?} {to_a:?}");
        a.told.up(&b).await;
        b.told.up(&a).await;
        assert!(a.links.control(b.id(), &tell(round)));
        assert!(b.links.control(a.id(), &tell(round)));
        for (node, from) in [(&a, high), (&b, low)] {
            let told = Event::Control(from, tell(round));
            node.told.until("control", |events| events.contains(&told).then_some(())).await;
            assert_eq!(node.told.changes().len(), 1, "{:?}", node.told.changes());
        }
    }
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
    let mut queued = vec![0; LANES];
    let mut full = 0;
    for seq in 1..=200_u64 {
        let lane = (seq % LANES as u64) as usize;
        match a.broadcast(&b, lane as u8, queued[lane] + 1, &body) {
            Pushed::Queued => queued[lane] += 1,
            Pushed::Full => full += 1,
            Pushed::NoLink => panic!("the link is gone"),
        }
        tokio::task::yield_now().await;
    }
    assert!(full > 0, "200 MiB were taken");
    assert_eq!(a.links.counters().lane(LaneKind::Data).dropped_full, full);
    assert!(a.links.status()[0].queue_bytes <= 32 << 20);
    bed.heal(a.address, b.address);
    for (lane, queued) in queued.into_iter().enumerate() {
        let all: Vec<_> = (1..=queued).collect();
        b.told.until("all", |it| (Told::seqs(it, lane as u8) == all).then_some(())).await;
    }
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

async fn a_cut_is_noticed_in_the_idle_time(bed: Bed) {
    let (a, b) = pair(&bed).await;
    bed.cut(a.address, b.address);
    let noticed = async { tokio::join!(a.told.down(b.incarnation), b.told.down(a.incarnation)) };
    let noticed = tokio::time::timeout(IDLE_TIMEOUT + Duration::from_secs(2), noticed).await;
    assert_eq!(noticed, Ok((Down::Lost, Down::Lost)));
    assert!(!a.links.is_linked(b.id()));
    assert!(!a.links.control(b.id(), &tell(1)));
    bed.heal(a.address, b.address);
    a.links.dial(b.address).await.unwrap();
}

async fn a_restart_is_noticed_at_once(bed: Bed) {
    let (a, b) = pair(&bed).await;
    let (address, former) = (b.address, b.incarnation);
    b.crash(&bed).await;
    let again = Setup { generation: 2, address: Some(address), ..Setup::of(2) }.start(&bed);
    let noticed = tokio::time::timeout(IDLE_TIMEOUT / 2, a.told.down(former)).await;
    assert_eq!(noticed, Ok(Down::Lost));
    link(&a, &again).await;
}

async fn a_later_life_replaces_the_former(bed: Bed) {
    let (a, b) = pair(&bed).await;
    // The former life is still there, and so is its connection: only the generation tells.
    let later = Setup { generation: 2, ..Setup::of(2) };
    let later = match &bed {
        Bed::Memory(_) => Setup { address: Some(([10, 0, 0, 2], 1).into()), ..later }.start(&bed),
        Bed::Quic(_) => later.start(&bed),
    };
    later.links.dial(a.address).await.unwrap();
    a.told.up(&later).await;
    let changes = [
        Event::Up(b.incarnation),
        Event::Down(b.incarnation, Down::Lost),
        Event::Up(later.incarnation),
    ];
    assert_eq!(a.told.changes(), changes);
    assert_eq!(b.told.down(a.incarnation).await, Down::Lost);
    let refused = b.links.dial(a.address).await.unwrap_err();
    assert_eq!(refused.reason(), Reason::Generation, "{refused}");
    assert_eq!(a.told.changes(), changes);
}

async fn goodbye_loses_nothing(bed: Bed) {
    let (a, b) = pair(&bed).await;
    a.start_lanes(&b);
    let body = vec![1; 100_000];
    for seq in 1..=100 {
        assert_eq!(a.broadcast(&b, 3, seq, &body), Pushed::Queued);
        assert!(a.links.control(b.id(), &tell(seq)));
    }
    a.links.close_all(Duration::from_secs(10)).await;
    assert_eq!(a.told.down(b.incarnation).await, Down::Closed);
    assert_eq!(b.told.down(a.incarnation).await, Down::Left);
    let told = b.told.all();
    assert_eq!(Told::seqs(&told, 3), (1..=100).collect::<Vec<_>>());
    assert!(told.contains(&Event::Control(1, tell(100))));
    assert_eq!(told.last(), Some(&Event::Down(a.incarnation, Down::Left)));
    assert_eq!(b.links.dial(a.address).await.unwrap_err().reason(), Reason::Leaving);
    a.stop().await;
}

async fn a_stop_is_a_goodbye_too(bed: Bed) {
    let (a, b) = pair(&bed).await;
    let a_was = a.incarnation;
    a.stop().await;
    assert_eq!(b.told.down(a_was).await, Down::Left);
}

async fn closing_one_link_is_its_end_only(bed: Bed) {
    let (a, b) = pair(&bed).await;
    let c = Setup::of(3).start(&bed);
    link(&a, &c).await;
    a.links.close(b.id(), Down::Closed);
    assert_eq!(a.told.down(b.incarnation).await, Down::Closed);
    assert_eq!(b.told.down(a.incarnation).await, Down::Lost);
    assert_eq!(a.links.linked(), [c.id()]);
    link(&a, &b).await;
}

async fn the_wrong_secret_is_named_at_both_ends(bed: Bed) {
    let a = Setup::of(1).start(&bed);
    let b = Setup { secret: "another".to_owned(), ..Setup::of(2) }.start(&bed);
    let error = a.links.dial(b.address).await.unwrap_err();
    assert_eq!(error, LinkError::Distrusted(b.address));
    let text = format!("node at {} does not share our CLUSTER_SECRET", b.address);
    assert!(error.to_string().starts_with(&text), "{error}");
    counted(&b, Reason::Secret, 1).await;
    assert_eq!(a.links.counters().refused(Reason::Secret), 1);
    assert!(a.told.all().is_empty() && b.told.all().is_empty());
}

/// Waits until a node has counted a refusal.
async fn counted(node: &Node, reason: Reason, times: u64) {
    let counted = async {
        let mut looks = tokio::time::interval(Duration::from_millis(5));
        while node.links.counters().refused(reason) < times {
            looks.tick().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), counted).await.expect("it is counted");
    assert_eq!(node.links.counters().refused(reason), times);
}

async fn strangers_are_refused_with_a_reason(bed: Bed) {
    let a = Setup::of(1).start(&bed);
    let time = Setup::of(1).time;
    let clock = |apart_ms| UnixMillis(time.0 + apart_ms);
    let cases = [
        (Setup { cluster: "other".to_owned(), ..Setup::of(2) }, Reason::Cluster, "\"other\""),
        (Setup { time: clock(31_000), ..Setup::of(3) }, Reason::Clock, "31 s apart"),
        (Setup { time: clock(30_001), ..Setup::of(4) }, Reason::Clock, "(NTP)"),
        (Setup { name: "node-1".to_owned(), ..Setup::of(5) }, Reason::Name, "\"node-1\""),
    ];
    for (stranger, reason, text) in cases {
        let stranger = stranger.start(&bed);
        for (dialler, dialled) in [(&stranger, &a), (&a, &stranger)] {
            let error = dialler.links.dial(dialled.address).await.unwrap_err();
            assert!(matches!(error, LinkError::Refused { .. }), "{error:?}");
            assert_eq!(error.reason(), reason);
            assert!(error.to_string().contains(text), "{error}");
        }
        assert!(stranger.told.all().is_empty());
    }
    assert!(a.told.all().is_empty());
    let near = Setup { time: clock(30_000), ..Setup::of(6) }.start(&bed);
    link(&near, &a).await;
    let namesake = Setup { name: "node-6".to_owned(), ..Setup::of(7) }.start(&bed);
    let error = namesake.links.dial(a.address).await.unwrap_err();
    assert_eq!(error.reason(), Reason::Name);
}

async fn a_dialler_who_is_unwanted_or_does_not_want_leaves_no_trace(bed: Bed) {
    let picky = Setup { unwanted: Some("not you".to_owned()), ..Setup::of(1) }.start(&bed);
    let other = Setup::of(2).start(&bed);
    let error = other.links.dial(picky.address).await.unwrap_err();
    assert_eq!(error.reason(), Reason::Unwanted);
    assert!(matches!(&error, LinkError::Refused { .. }), "{error:?}");
    assert!(error.to_string().ends_with("not you"), "{error}");
    let error = picky.links.dial(other.address).await.unwrap_err();
    assert!(matches!(&error, LinkError::Unfit { .. }), "{error:?}");
    counted(&other, Reason::Unwanted, 2).await;
    assert!(picky.told.all().is_empty() && other.told.all().is_empty());
    assert!(other.links.linked().is_empty());
}

async fn a_node_knows_itself(bed: Bed) {
    let a = Setup::of(1).start(&bed);
    for _ in 0..2 {
        assert_eq!(a.links.dial(a.address).await, Err(LinkError::Myself(a.address)));
    }
    assert!(a.told.all().is_empty());
    // The second did not even dial.
    assert_eq!(a.links.counters().refused(Reason::Myself), 1);
}

async fn nobody_there_is_unreachable(bed: Bed) {
    let a = Setup::of(1).start(&bed);
    let error = a.links.dial(bed.nowhere()).await.unwrap_err();
    assert!(matches!(error, LinkError::Unreachable { .. } | LinkError::Deadline(_)), "{error:?}");
}

/// Dials by hand.
async fn dial(bed: &Bed, node: u64, to: &Node) -> (Arc<dyn Transport>, Arc<dyn Connection>) {
    let transport = bed.host(node, "secret", None);
    let connection = transport.dial(to.address).await.unwrap();
    (transport, connection)
}

fn hello(node: u64) -> Hello {
    let setup = Setup::of(node);
    Hello {
        cluster: setup.cluster.clone(),
        introduction: setup.introduction(([10, 0, 0, 9], 9).into()),
        time: setup.time,
    }
}

/// Is linked by hand.
async fn join(connection: &dyn Connection, node: u64) {
    let (mut to, mut from) = connection.open_bi().await.unwrap();
    handshake::open(&mut *to, &hello(node)).await.unwrap();
    handshake::answer(&mut from).await.unwrap();
    handshake::confirm(&mut *to).await.unwrap();
}

async fn releases_without_a_common_version_say_so(bed: Bed) {
    let a = Setup::of(1).start(&bed);
    let (_transport, connection) = dial(&bed, 2, &a).await;
    let (mut to, mut from) = connection.open_bi().await.unwrap();
    let mut newer = hello(2);
    newer.introduction.version = "9.0.0".to_owned();
    handshake::open_as(&mut *to, &newer, (2, 3)).await.unwrap();
    let Err(Fault::Refused(refusal)) = handshake::answer(&mut from).await else {
        panic!("it was accepted");
    };
    assert_eq!(refusal.reason, Reason::Version);
    for part in ["release 9.0.0 speaks versions 2 to 3", "release 1.0.0 1 to 1", "upgrade"] {
        assert!(refusal.text.contains(part), "{refusal}");
    }
    counted(&a, Reason::Version, 1).await;
    let (_transport, connection) = dial(&bed, 3, &a).await;
    let (mut to, mut from) = connection.open_bi().await.unwrap();
    handshake::open_as(&mut *to, &hello(3), (0, 7)).await.unwrap();
    assert_eq!(handshake::answer(&mut from).await.unwrap().introduction.name, "node-1");
}

async fn what_is_no_handshake_is_refused(bed: Bed) {
    let a = Setup::of(1).start(&bed);
    let (_transport, connection) = dial(&bed, 2, &a).await;
    let (mut to, _from) = connection.open_bi().await.unwrap();
    to.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    counted(&a, Reason::Malformed, 1).await;
    let (_transport, connection) = dial(&bed, 3, &a).await;
    let (mut to, mut from) = connection.open_bi().await.unwrap();
    // It says to be another than its certificate does.
    handshake::open(&mut *to, &hello(4)).await.unwrap();
    let Err(Fault::Refused(refusal)) = handshake::answer(&mut from).await else {
        panic!("it was accepted");
    };
    assert_eq!(refusal.reason, Reason::Certificate);
    assert!(a.told.all().is_empty());
}

async fn a_half_handshake_disturbs_nobody(bed: Bed) {
    let a = Setup::of(1).start(&bed);
    // One who says nothing, one who stops in the middle, one who never confirms.
    let mut halves = Vec::new();
    for node in 10..13 {
        halves.push(dial(&bed, node, &a).await);
    }
    let (mut to, _from) = halves[1].1.open_bi().await.unwrap();
    to.write_all(b"ARC").await.unwrap();
    let (mut to, mut from) = halves[2].1.open_bi().await.unwrap();
    handshake::open(&mut *to, &hello(12)).await.unwrap();
    handshake::answer(&mut from).await.unwrap();
    assert!(a.links.linked().is_empty(), "linked before it was confirmed");
    let b = Setup::of(2).start(&bed);
    link(&b, &a).await;
    for (_, half) in &halves {
        let ended = tokio::time::timeout(Duration::from_secs(10), half.closed()).await.unwrap();
        assert!(matches!(ended, Ended::There { .. }), "{ended:?}");
    }
    assert_eq!(a.told.changes(), [Event::Up(b.incarnation)]);
    // Nothing of the half ones stands in the way of a whole one.
    let late = Setup::of(12).start(&bed);
    link(&late, &a).await;
}

async fn violates(a: &Node, connection: &dyn Connection, node: u64) {
    let peer = Setup::of(node).introduction(a.address).incarnation;
    assert_eq!(a.told.down(peer).await, Down::Violation);
    let ended = connection.closed().await;
    assert!(matches!(ended, Ended::There { code: CloseCode::Violation, .. }), "{ended:?}");
    assert!(!a.links.is_linked(NodeId(node)));
}

async fn lane(connection: &dyn Connection, bytes: &[u8]) -> Box<dyn Outgoing> {
    let mut stream = connection.open_uni(0).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    stream
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

async fn time_is_learned_from_each_other(bed: Bed) {
    let ahead = UnixMillis(Setup::of(1).time.0 + 5_000);
    let a = Setup::of(1).start(&bed);
    let b = Setup { time: ahead, ..Setup::of(2) }.start(&bed);
    link(&a, &b).await;
    assert_eq!(*a.told.learned.lock(), [ahead]);
    assert_eq!(*b.told.learned.lock(), [Setup::of(1).time]);
}

/// Over QUIC it is up to the network how much came before.
#[tokio::test]
async fn what_came_before_the_end_is_given() {
    let bed = Bed::memory();
    let a = Setup::of(1).start(&bed);
    let (_transport, connection) = dial(&bed, 2, &a).await;
    join(&*connection, 2).await;
    let mut frame = vec![0];
    tell(7).encode(&mut frame);
    let _lane = lane(&*connection, &frame).await;
    connection.close(CloseCode::Left, "that was it");
    let peer = hello(2).introduction.incarnation;
    assert_eq!(a.told.down(peer).await, Down::Left);
    let told = [Event::Up(peer), Event::Control(2, tell(7)), Event::Down(peer, Down::Left)];
    assert_eq!(a.told.all(), told);
}

/// The suite's own sockets can be cut; these are the real ones.
#[tokio::test]
async fn real_sockets_link_too() {
    let secret = Secret::generate();
    let bind = |node, address| {
        let settings = QuicSettings {
            identity: &MeshIdentity::from_secret(&secret, node).unwrap(),
            key: &NodeKey::generate(),
            key_exchange: KeyExchange::Hybrid,
            rng_seed: None,
        };
        QuicTransport::bind(address, &settings)
    };
    let any = ([127, 0, 0, 1], 0).into();
    let [a, b] = [1, 2].map(|node| Setup::of(node).start_on(Arc::new(bind(node, any).unwrap())));
    link(&a, &b).await;
    let taken = bind(3, a.address);
    let error = taken.err().unwrap().to_string();
    assert!(error.starts_with(&format!("cannot listen on UDP {}", a.address)), "{error}");
    let former = a.incarnation;
    a.stop().await;
    assert_eq!(b.told.down(former).await, Down::Left);
}

/// What strangers send to the port is not even counted.
#[tokio::test]
async fn garbage_on_the_port_disturbs_nobody() {
    let bed = Bed::quic();
    let (a, b) = pair(&bed).await;
    let stranger = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut bytes = [0_u8; 1_200];
    for number in 0..1_000_u16 {
        // Some look like the first packet of a connection (RFC 9000, section 17.2.2).
        bytes[0] = if number % 2 == 0 { 0xc3 } else { number.to_le_bytes()[0] };
        bytes[1..5].copy_from_slice(&1_u32.to_be_bytes());
        bytes[5] = 8;
        bytes[6..8].copy_from_slice(&number.to_le_bytes());
        bytes[14] = 8;
        let len = if number % 3 == 0 { usize::from(number) } else { bytes.len() };
        stranger.send_to(&bytes[..len], a.address).unwrap();
    }
    a.start_lanes(&b);
    assert_eq!(a.broadcast(&b, 0, 1, b"still"), Pushed::Queued);
    b.told.until("one", |it| (Told::seqs(it, 0) == [1]).then_some(())).await;
    let c = Setup::of(3).start(&bed);
    link(&c, &a).await;
    assert_eq!(a.told.changes(), [Event::Up(b.incarnation), Event::Up(c.incarnation)]);
}
