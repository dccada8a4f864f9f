//! What links promise, proven over each transport.

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

mod bed;
mod ends;
mod lanes;
mod meetings;
mod node;

use std::{sync::Arc, time::Duration};

use tokio::io::AsyncWriteExt;

use self::{
    bed::Bed,
    node::{Node, Setup},
};
use super::{
    Reason,
    handshake::{self, Hello},
    transport::{Connection, Outgoing, Transport},
};
use crate::wire::Control;

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
        wall: setup.wall,
        process: node,
        allegiance: setup.allegiance,
    }
}

/// Is linked by hand.
async fn join(connection: &dyn Connection, node: u64) {
    let (mut to, mut from) = connection.open_bi().await.unwrap();
    handshake::open(&mut *to, &hello(node)).await.unwrap();
    handshake::answer(&mut from).await.unwrap();
    handshake::confirm(&mut *to).await.unwrap();
}

async fn lane(connection: &dyn Connection, bytes: &[u8]) -> Box<dyn Outgoing> {
    let mut stream = connection.open_uni(0).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    stream
}
