//! A cluster that falls into two parts, each of which goes on, and is one again.

use std::time::Instant;

use serde_json::json;
use tests::{Client, every_pair, measured, netns::Network};

use crate::{
    nodes::{admitted, count_sessions, links, on_bridge, sees},
    talk::Talk,
};

#[test]
fn both_sides_of_a_partition_go_on_and_become_one_again_by_themselves() {
    let Some(network) = Network::with(3) else { return };
    network.run(async || {
        let cluster = on_bridge(&network).await;
        let [left, right, far_right] = &cluster.nodes[..] else { panic!("three nodes") };
        let up = left.register("goes-right").await;
        let down = left.register("goes-left").await;
        let (new_left, new_right) = (left.register("new-1").await, left.register("new-2").await);
        let talks = [
            Talk::between(left.agent("left-1").await, left.agent("left-2").await),
            Talk::between(right.agent("right-1").await, far_right.agent("right-2").await),
        ];

        network.part(&[0], &[1, 2]);
        // Nobody has noticed yet, and the same agents come on both sides.
        let mut old_up = admitted(left, &up, "unnoticed partition, left").await;
        let mut up = admitted(right, &up, "unnoticed partition, right").await;
        let mut old_down = admitted(far_right, &down, "unnoticed partition, right").await;
        let mut down = admitted(left, &down, "unnoticed partition, left").await;
        let cut = Instant::now();
        sees(left, &["node-0"], &["dead"]).await;
        sees(right, &["node-1", "node-2"], &["dead"]).await;
        sees(far_right, &["node-1", "node-2"], &["dead"]).await;
        links(left, &[]).await;
        links(right, &["node-2"]).await;
        links(far_right, &["node-1"]).await;
        measured(&format!("both sides have given the other up {:.1?} later", cut.elapsed()));
        let mut new_left = admitted(left, &new_left, "noticed partition, left").await;
        let mut new_right = admitted(far_right, &new_right, "noticed partition, right").await;
        // Each side reaches the session that it has.
        for (sender, [one, other]) in
            [(&mut new_left, [&mut old_up, &mut down]), (&mut new_right, [&mut up, &mut old_down])]
        {
            sender.send(json!({"to": [one.id, other.id], "payload": sender.id})).await;
            for agent in [one, other] {
                assert_eq!(agent.next().await["payload"], sender.id.as_str());
            }
        }

        network.heal();
        let healed = Instant::now();
        closed_as_older(&mut old_up).await;
        closed_as_older(&mut old_down).await;
        measured(&format!("older sessions are closed {:.1?} after healing", healed.elapsed()));
        cluster.is_whole().await;
        measured(&format!("three nodes: one cluster again after {:.1?}", healed.elapsed()));
        let mut agents = vec![up, down, new_left, new_right];
        for talk in talks {
            agents.extend(talk.end().await);
        }
        count_sessions(&cluster, agents.len()).await;
        every_pair(&mut agents).await;
    });
}

/// Takes the end of a session that has a newer one, and which got nothing more.
async fn closed_as_older(session: &mut Client) {
    let closed = session.expect_close(4009).await;
    assert!(closed.before.is_empty(), "{closed:?}");
}
