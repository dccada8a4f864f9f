//! How links end, and that nothing is lost or told twice.

use std::time::Duration;

use super::{
    bed::Bed,
    dial, hello, join, lane, link,
    node::{Event, Setup, Told},
    pair, tell,
};
use crate::{
    link::{
        Down, Reason,
        transport::{CloseCode, IDLE_TIMEOUT},
    },
    mesh::{Outlet, Pushed},
    wire::Data,
};

both! {
    a_cut_is_noticed_in_the_idle_time
    a_restart_is_noticed_at_once
    a_later_life_replaces_the_former
    goodbye_loses_nothing
    gossip_has_the_last_word
    a_stop_is_a_goodbye_too
    closing_one_link_is_its_end_only
    a_panic_ends_its_link_only
}

async fn a_cut_is_noticed_in_the_idle_time(bed: Bed) {
    let (a, b) = pair(&bed).await;
    bed.cut(a.address, b.address);
    let noticed = async { tokio::join!(a.told.down(b.incarnation), b.told.down(a.incarnation)) };
    let noticed = tokio::time::timeout(IDLE_TIMEOUT + Duration::from_secs(2), noticed).await;
    assert_eq!(noticed, Ok((Down::Lost, Down::Lost)));
    assert!(a.links.linked().is_empty());
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
    let body = vec![1; 30_000];
    for seq in 1..=100 {
        assert_eq!(a.broadcast(&b, 3, seq, &body), Pushed::Queued);
        assert!(a.links.control(b.id(), &tell(seq)));
    }
    a.links.close_all(Duration::from_secs(30)).await;
    assert_eq!(a.told.down(b.incarnation).await, Down::Closed);
    assert_eq!(b.told.down(a.incarnation).await, Down::Left);
    let told = b.told.all();
    assert_eq!(Told::seqs(&told, 3), (1..=100).collect::<Vec<_>>());
    assert!(told.contains(&Event::Control(1, tell(100))));
    assert_eq!(told.last(), Some(&Event::Down(a.incarnation, Down::Left)));
    assert_eq!(b.links.dial(a.address).await.unwrap_err().reason(), Reason::Leaving);
    a.stop().await;
}

async fn gossip_has_the_last_word(bed: Bed) {
    let (a, b) = pair(&bed).await;
    let mut goodbye = Box::pin(a.links.close_all(Duration::from_secs(30)));
    assert!(futures_util::poll!(&mut goodbye).is_pending());
    assert!(!a.links.control(b.id(), &tell(1)), "this is closed");
    assert!(a.links.gossip(b.id(), b"I have left"));
    goodbye.await;
    assert_eq!(b.told.down(a.incarnation).await, Down::Left);
    assert!(b.told.all().contains(&Event::Gossip(1, "I have left".into())));
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

async fn a_panic_ends_its_link_only(bed: Bed) {
    let (a, b) = pair(&bed).await;
    let c = Setup::of(3).start(&bed);
    link(&c, &b).await;
    a.start_lanes(&b);
    // The suite's nodes expect no fences.
    let fence = Data::Fence { agent: "somebody", epoch: 1 };
    assert_eq!(a.links.data(b.id(), 0, &fence), Pushed::Queued);
    assert_eq!(b.told.down(a.incarnation).await, Down::Lost);
    assert_eq!(a.told.down(b.incarnation).await, Down::Lost);
    assert_eq!(b.links.linked(), [c.id()]);
    link(&a, &b).await;
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
