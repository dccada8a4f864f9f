//! Who is linked, who is refused, and what both are told.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tls::mesh::{KeyExchange, MeshIdentity, Secret};
use tokio::io::AsyncWriteExt;

use super::{
    bed::{Bed, wall},
    counted, dial, hello, link,
    node::{Event, Setup, Told},
    pair, tell,
};
use crate::{
    NodeId, UnixMillis,
    link::{
        Allegiance, Down, LaneKind, LinkError, NodeKey, Reason,
        handshake::{self, Fault},
        quic::{QuicError, QuicSettings, QuicTransport},
        transport::{Ended, Incoming, Transport},
    },
    mesh::{Outlet, Pushed},
    registry::RegistryId,
};

both! {
    a_dial_links_both_ends
    a_second_dial_finds_the_link
    two_that_dial_each_other_at_once_have_one_link
    the_wrong_secret_is_named_at_both_ends
    strangers_are_refused_with_a_reason
    a_dialler_who_is_unwanted_or_does_not_want_leaves_no_trace
    a_node_knows_itself
    of_two_with_one_data_directory_the_earlier_is_outlived
    nobody_there_is_unreachable
    releases_without_a_common_version_say_so
    what_is_no_handshake_is_refused
    a_half_handshake_disturbs_nobody
    time_is_learned_from_each_other
}

async fn a_dial_links_both_ends(bed: Bed) {
    let (a, b) = pair(&bed).await;
    assert_eq!(a.told.changes(), [Event::Up(b.incarnation)]);
    assert_eq!(b.told.changes(), [Event::Up(a.incarnation)]);
    assert_eq!(a.links.linked(), [b.id()]);
    assert_eq!(b.links.linked(), [a.id()]);
    assert_eq!(b.links.status()[0].peer.address, a.address);
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

async fn strangers_are_refused_with_a_reason(bed: Bed) {
    let registry = |id| Some(Allegiance::new(RegistryId(id), Vec::new()));
    let kept = registry(7).map(|it| it.stored(true));
    let restored = Some(Allegiance::new(RegistryId(9), vec![RegistryId(7)]));
    let a = Setup { allegiance: kept, ..Setup::of(1) }.start(&bed);
    let now = Setup::of(1).wall;
    let clock = |apart_ms| UnixMillis(now.0 + apart_ms);
    let cases = [
        (Setup { cluster: "other".to_owned(), ..Setup::of(2) }, Reason::Cluster, "\"other\""),
        (Setup { wall: clock(31_000), ..Setup::of(3) }, Reason::Clock, "31 s apart"),
        (Setup { wall: clock(30_001), ..Setup::of(4) }, Reason::Clock, "(NTP)"),
        (Setup { name: "node-1".to_owned(), ..Setup::of(5) }, Reason::Name, "\"node-1\""),
        (Setup { allegiance: registry(8), ..Setup::of(8) }, Reason::Registry, "two registries"),
        (Setup { allegiance: restored, ..Setup::of(9) }, Reason::Registry, "empty its DATA_DIR"),
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
    let near = Setup { wall: clock(30_000), allegiance: registry(7), ..Setup::of(6) }.start(&bed);
    link(&near, &a).await;
    // Whose clock is right may have learned from one whose is not.
    let led_astray = Setup { time: clock(45_000), ..Setup::of(10) }.start(&bed);
    link(&led_astray, &a).await;
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
    // Both of its ends have it so.
    counted(&a, Reason::Myself, 4).await;
    assert!(a.told.all().is_empty());
    let refused: u64 = Reason::ALL.iter().map(|why| a.links.counters().refused(*why)).sum();
    assert_eq!(refused, 4, "nothing that anybody has to look at");
}

async fn of_two_with_one_data_directory_the_earlier_is_outlived(bed: Bed) {
    let earlier = Setup::of(1).start(&bed);
    let address = match &bed {
        Bed::Memory(_) => Some(([10, 0, 0, 2], 1).into()),
        Bed::Quic(_) => None,
    };
    let later = Setup { generation: 2, address, ..Setup::of(1) }.start(&bed);
    let outlived = Event::Outlived(later.incarnation.generation);
    let error = earlier.links.dial(later.address).await.unwrap_err();
    assert!(matches!(&error, LinkError::Refused { .. }), "{error:?}");
    assert_eq!(error.reason(), Reason::Generation, "its own end can tell by that, too");
    assert!(error.to_string().contains("was copied, or runs twice"), "{error}");
    assert!(earlier.told.all().is_empty());
    let error = later.links.dial(earlier.address).await.unwrap_err();
    assert_eq!(error.reason(), Reason::Unwanted);
    assert!(error.to_string().contains("was copied, or runs twice"), "{error}");
    earlier.told.until("outlived", |events| events.contains(&outlived).then_some(())).await;
    assert!(later.told.all().is_empty());
}

async fn nobody_there_is_unreachable(bed: Bed) {
    let a = Setup::of(1).start(&bed);
    let error = a.links.dial(bed.nowhere()).await.unwrap_err();
    assert!(matches!(error, LinkError::Unreachable { .. } | LinkError::Deadline(_)), "{error:?}");
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

async fn time_is_learned_from_each_other(bed: Bed) {
    let ahead = UnixMillis(Setup::of(1).time.0 + 5_000);
    let a = Setup::of(1).start(&bed);
    let b = Setup { time: ahead, ..Setup::of(2) }.start(&bed);
    link(&a, &b).await;
    assert_eq!(*a.told.learned.lock(), [ahead]);
    assert_eq!(*b.told.learned.lock(), [Setup::of(1).time]);
}

/// A real endpoint of `node`, with a certificate made at `now`, which is its time.
fn real(
    secret: &Secret,
    node: u64,
    now: Duration,
    address: SocketAddr,
) -> Result<QuicTransport, QuicError> {
    let settings = QuicSettings {
        identity: &MeshIdentity::from_secret(secret, None, node, Arc::new(move || now)).unwrap(),
        key: &NodeKey::generate(),
        key_exchange: KeyExchange::Hybrid,
        rng_seed: None,
    };
    QuicTransport::bind(address, &settings)
}

fn any() -> SocketAddr {
    ([127, 0, 0, 1], 0).into()
}

#[tokio::test]
async fn what_is_no_quic_is_counted() {
    let a = real(&Secret::generate(), 1, wall()(), any()).unwrap();
    let a = Setup::of(1).start_on(Arc::new(a));
    let stranger = tokio::net::UdpSocket::bind(any()).await.unwrap();
    stranger.send_to(b"\x16 hello?", a.address).await.unwrap();
    counted(&a, Reason::Malformed, 1).await;
}

/// Its source address proves nothing.
#[tokio::test]
async fn noise_comes_from_nowhere_in_particular() {
    let a = real(&Secret::generate(), 1, wall()(), any()).unwrap();
    let stranger = tokio::net::UdpSocket::bind(any()).await.unwrap();
    stranger.send_to(b"\x16 hello?", a.local_address().unwrap()).await.unwrap();
    let Incoming { from, connect } = a.accept().await.unwrap();
    assert_eq!(from, None);
    let error = connect.await.unwrap_err().to_string();
    assert!(error.contains(&stranger.local_addr().unwrap().to_string()), "{error}");
}

#[tokio::test]
async fn a_certificate_out_of_its_time_is_refused_at_both_ends() {
    let secret = Secret::generate();
    let month = Duration::from_hours(24 * 30);
    let a = real(&secret, 1, wall()(), any()).unwrap();
    let a = Setup::of(1).start_on(Arc::new(a));
    for (node, now) in [(2, wall()().saturating_sub(month)), (3, wall()() + month)] {
        let b = real(&secret, node, now, any()).unwrap();
        let b = Setup::of(node).start_on(Arc::new(b));
        for (dialler, dialled) in [(&a, &b), (&b, &a)] {
            let error = dialler.links.dial(dialled.address).await.unwrap_err();
            assert_eq!(error.reason(), Reason::Certificate, "{error}");
            assert!(error.to_string().contains("has expired, or is not good yet"), "{error}");
        }
        counted(&b, Reason::Certificate, 2).await;
        counted(&a, Reason::Certificate, 2 * (node - 1)).await;
    }
}

#[tokio::test]
async fn a_new_certificate_touches_no_link() {
    let secret = Secret::generate();
    let month = Duration::from_hours(24 * 30);
    let now = Arc::new(Mutex::new(wall()()));
    let clock = Arc::clone(&now);
    let at: tls::mesh::Wall = Arc::new(move || *clock.lock());
    let make = |node| MeshIdentity::from_secret(&secret, None, node, at.clone()).unwrap();
    let bind = |node| {
        let settings = QuicSettings {
            identity: &make(node),
            key: &NodeKey::generate(),
            key_exchange: KeyExchange::Hybrid,
            rng_seed: None,
        };
        Arc::new(QuicTransport::bind(any(), &settings).unwrap())
    };
    let transports = [1, 2].map(bind);
    let [a, b] = [1, 2].map(|node| {
        Setup::of(node).start_on(Arc::clone(&transports[usize::try_from(node).unwrap() - 1]) as _)
    });
    link(&a, &b).await;
    *now.lock() += month;
    for (node, transport) in [1, 2].into_iter().zip(&transports) {
        transport.renew(&make(node)).unwrap();
    }
    let c = Setup::of(3).start_on(bind(3));
    link(&a, &c).await;
    link(&c, &b).await;
    assert!(a.links.linked().contains(&b.id()) && a.told.changes().len() == 2, "nothing ended");
}

/// The suite's own sockets can be cut; these are the real ones.
#[tokio::test]
async fn real_sockets_link_too() {
    let secret = Secret::generate();
    let bind = |node, address| real(&secret, node, wall()(), address);
    let [a, b] = [1, 2].map(|node| Setup::of(node).start_on(Arc::new(bind(node, any()).unwrap())));
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
