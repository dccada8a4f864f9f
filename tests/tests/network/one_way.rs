//! A network on which packets get through one way only.

use tests::{Client, every_pair, netns::Network};

use crate::{
    nodes::{admitted, count_sessions, heal, links, on_bridge, sees},
    talk::Talk,
};

#[test]
fn a_node_that_hears_but_is_not_heard_goes_on_and_is_taken_back() {
    let Some(network) = Network::with(3) else { return };
    network.run(async || {
        let cluster = on_bridge(&network).await;
        let [mute, one, other] = &cluster.nodes[..] else { panic!("three nodes") };
        let token = mute.register("mover").await;
        let talks = [
            Talk::between(mute.agent("mute-1").await, mute.agent("mute-2").await),
            Talk::between(one.agent("heard-1").await, other.agent("heard-2").await),
        ];
        network.cut(0, 1);
        network.cut(0, 2);
        let mut older = admitted(mute, &token, "unnoticed, from the mute node").await;
        let newer = admitted(one, &token, "unnoticed, from a heard node").await;
        sees(mute, &["node-0"], &["dead"]).await;
        sees(one, &["node-1", "node-2"], &["dead"]).await;
        sees(other, &["node-1", "node-2"], &["dead"]).await;
        heal(&network, &cluster, "one node that was not heard").await;
        older.expect_close(4009).await;
        let mut agents = vec![newer];
        for talk in talks {
            agents.extend(talk.end().await);
        }
        count_sessions(&cluster, agents.len()).await;
        every_pair(&mut agents).await;
    });
}

#[test]
fn two_nodes_one_of_which_does_not_hear_the_other_disturb_no_third() {
    let Some(network) = Network::with(3) else { return };
    network.run(async || {
        let cluster = on_bridge(&network).await;
        let [one, other, third] = &cluster.nodes[..] else { panic!("three nodes") };
        let token = one.register("mover").await;
        let talks = [
            Talk::between(one.agent("to-third").await, third.agent("from-one").await),
            Talk::between(third.agent("to-other").await, other.agent("from-third").await),
            Talk::between(other.agent("to-third-too").await, third.agent("from-other").await),
        ];
        network.cut(0, 1);
        let mut sessions: Vec<Client> = Vec::new();
        for (hop, node) in [one, other, third, one, other].into_iter().enumerate() {
            sessions.push(admitted(node, &token, &format!("one way cut, hop {hop}")).await);
        }
        links(one, &["node-2"]).await;
        links(other, &["node-2"]).await;
        for (hop, node) in [other, one, third, other].into_iter().enumerate() {
            sessions.push(admitted(node, &token, &format!("no link, hop {hop}")).await);
        }
        heal(&network, &cluster, "one path that led nowhere").await;
        let newest = sessions.pop().expect("it hopped");
        for mut session in sessions {
            session.expect_close(4009).await;
        }
        let mut agents = vec![newest];
        for talk in talks {
            agents.extend(talk.end().await);
        }
        count_sessions(&cluster, agents.len()).await;
        every_pair(&mut agents).await;
    });
}
