//! What goes from agent to agent, whichever nodes they are on: PROTOCOL sections 4 to 6.

use serde_json::json;
use tests::{Client, Cluster, eventually, every_pair, http};

/// One agent on each node, in the order of the nodes.
pub(crate) async fn one_each(cluster: &Cluster, prefix: &str) -> Vec<Client> {
    let mut agents = Vec::new();
    for (n, node) in cluster.nodes.iter().enumerate() {
        agents.push(node.agent(&format!("{prefix}-{n}")).await);
    }
    agents
}

#[tokio::test]
async fn three_nodes_carry_messages_between_every_pair() {
    let cluster = Cluster::start(3).await;
    every_pair(&mut one_each(&cluster, "pair").await).await;
}

#[tokio::test]
async fn five_nodes_carry_messages_between_every_pair() {
    let cluster = Cluster::start(5).await;
    every_pair(&mut one_each(&cluster, "pair").await).await;
}

#[tokio::test]
async fn a_message_to_several_reaches_each_once() {
    let cluster = Cluster::start(3).await;
    let mut agents = one_each(&cluster, "one").await;
    agents.extend(one_each(&cluster, "two").await);
    let ids: Vec<String> = agents.iter().map(|agent| agent.id.clone()).collect();
    let mut to = ids.clone();
    to.extend(["offline-1".to_owned(), ids[0].clone()]);
    for n in 0..6 {
        agents[n].send(json!({"to": to, "payload": n})).await;
        for agent in &mut agents {
            let message = agent.next().await;
            assert_eq!(message["payload"], n);
            assert_eq!(message["to"], json!(to), "`to` arrives as it was sent");
        }
    }
    for agent in &mut agents {
        agent.fence().await;
    }
}

#[tokio::test]
async fn a_broadcast_reaches_everybody_but_its_sender_once() {
    let cluster = Cluster::start(3).await;
    let mut agents = one_each(&cluster, "all").await;
    agents.extend(one_each(&cluster, "also").await);
    let count = agents.len();
    for n in 0..count {
        let also = agents[(n + 1) % count].id.clone();
        agents[n].send(json!({"to": ["*", also], "payload": n})).await;
        for (other, agent) in agents.iter_mut().enumerate() {
            if other != n {
                assert_eq!(agent.next().await["payload"], n);
            }
        }
    }
    for agent in &mut agents {
        agent.fence().await;
    }
}

#[tokio::test]
async fn followers_on_other_nodes_get_direct_messages_if_the_relay_says_so() {
    let cluster = Cluster::with(3, &[("SUBSCRIBE_SCOPE", "all")]).await;
    let mut agents = one_each(&cluster, "sub").await;
    let ids: Vec<String> = agents.iter().map(|agent| agent.id.clone()).collect();
    agents[0]
        .send(json!({"to": ["relay"], "type": "subscribe", "payload": {"agents": [ids[1]]}}))
        .await;
    assert_eq!(agents[0].next().await["type"], "subscribed");
    let mut number = 0;
    // The other nodes learn of a subscription within moments.
    let got = loop {
        agents[1].send(json!({"to": [ids[2]], "payload": number})).await;
        assert_eq!(agents[2].next().await["payload"], number);
        agents[1].send(json!({"to": [ids[0]], "payload": "fence"})).await;
        let message = agents[0].next().await;
        if message["payload"] != "fence" {
            assert_eq!(agents[0].next().await["payload"], "fence");
            break message;
        }
        number += 1;
        assert!(number < 1_000, "the subscription is not known on the other node");
    };
    assert_eq!((&got["from"], &got["to"]), (&json!(ids[1]), &json!([ids[2]])));
    // Once each, also if it is among the recipients.
    for to in [json!([ids[2], ids[0], ids[2]]), json!(["*"]), json!(["*", ids[0]])] {
        agents[1].send(json!({"to": to, "payload": "once"})).await;
        for agent in [0, 2] {
            let message = agents[agent].next().await;
            assert_eq!((&message["payload"], &message["to"]), (&json!("once"), &to));
        }
    }
    for agent in [0, 2] {
        agents[1].send(json!({"to": [ids[agent]], "payload": "fence"})).await;
        assert_eq!(agents[agent].next().await["payload"], "fence");
    }
}

#[tokio::test]
async fn statistics_count_the_cluster() {
    let cluster = Cluster::start(3).await;
    let mut agents = one_each(&cluster, "stat").await;
    agents[0].send(json!({"to": ["*"], "payload": null})).await;
    for node in &cluster.nodes {
        eventually("the node counts all agents of the cluster", || async {
            let stats = node.stats().await;
            stats["nodes"] == 3
                && stats["active_connections"] == 3
                && stats["registered_agents"] == 3
                && stats["messages_per_minute"].as_u64() >= Some(1)
                && stats["node"]["active_connections"] == 1
        })
        .await;
    }
}

#[tokio::test]
async fn operators_see_nodes_and_links() {
    let cluster = Cluster::with(3, &[("REGION", "north")]).await;
    let view = tests::cluster::view(&cluster.nodes[0]).await;
    let nodes = view["nodes"].as_array().expect("a list of nodes");
    let shares: f64 = nodes.iter().filter_map(|node| node["ring_share"].as_f64()).sum();
    assert!((shares - 1.0).abs() < 0.01, "{view}");
    for node in nodes {
        assert_eq!((&node["state"], &node["region"]), (&json!("alive"), &json!("north")), "{view}");
    }
    let links = view["links"].as_array().expect("a list of links");
    assert_eq!(links.len(), 2, "{view}");
    assert!(links.iter().all(|link| link["rtt_ms"].as_f64() > Some(0.0)), "{view}");

    let url = format!("http://{}", cluster.nodes[0].ops);
    let mut command = std::process::Command::new(tests::arc_relay());
    command.args(["status", "--ops", &url]);
    let status = tests::process::run(command).await.expect_code(0).stdout;
    for name in ["node-0", "node-1", "node-2"] {
        assert!(status.contains(name), "{status}");
    }
    http::get(cluster.nodes[0].ops, "/ready").await.expect_status(200);
}
