//! Five nodes that fall apart and come together again and again, while agents hop.

use serde_json::json;
use tests::{Client, Cluster, Relay, netns::Network};

use crate::{
    nodes::{count_sessions, heal, links, on_bridge, sees},
    talk::Talk,
};

/// The two parts of each round, and how far each has got with giving the other up before they meet again.
const ROUNDS: [([usize; 2], [usize; 3], Notices); 3] = [
    ([0, 1], [2, 3, 4], Notices::Silence),
    ([1, 2], [0, 3, 4], Notices::Death),
    ([0, 4], [1, 2, 3], Notices::LostLinks),
];

/// What a node notices of a partition, in this order.
#[derive(Clone, Copy, PartialEq)]
enum Notices {
    /// Nothing is heard of the others.
    Silence,
    /// By gossip they are dead.
    Death,
    /// The links to them are lost.
    LostLinks,
}

/// Agents that hop.
const HOPPERS: usize = 3;

#[test]
fn five_nodes_become_one_again_and_again_while_agents_hop() {
    let Some(network) = Network::with(5) else { return };
    network.run(async || {
        let cluster = on_bridge(&network).await;
        let mut hoppers = Vec::new();
        for n in 0..HOPPERS {
            hoppers.push(cluster.nodes[n].agent(&format!("hopper-{n}")).await);
        }
        let mut watchers = Vec::new();
        for (n, node) in cluster.nodes.iter().enumerate() {
            watchers.push(node.agent(&format!("watcher-{n}")).await);
        }
        for (number, (few, many, notices)) in ROUNDS.iter().enumerate() {
            let node = |n: usize| &cluster.nodes[n];
            let talks = [
                talk(node(few[0]), node(few[1]), &format!("few-{number}")).await,
                talk(node(many[0]), node(many[2]), &format!("many-{number}")).await,
            ];
            network.part(few, many);
            let mut older = Vec::new();
            for (n, hopper) in hoppers.iter_mut().enumerate() {
                // From side to side, and on the second one once more.
                let way = [few[n % 2], many[n], many[(n + 1) % 3]];
                older.extend(hop(hopper, &cluster, way).await);
            }
            for n in 0..5 {
                let side: &[usize] = if few.contains(&n) { few } else { many };
                noticed(&cluster, n, side, *notices).await;
            }
            heal(&network, &cluster, &format!("five nodes, round {number}")).await;
            for session in &mut older {
                session.expect_close(4009).await;
            }
            for talk in talks {
                for agent in talk.end().await {
                    agent.leave().await;
                }
            }
            count_sessions(&cluster, watchers.len() + hoppers.len()).await;
            all_reach(&mut watchers, &mut hoppers).await;
        }
    });
}

async fn talk(from: &Relay, to: &Relay, name: &str) -> Talk {
    let sender = from.agent(&format!("from-{name}")).await;
    Talk::between(sender, to.agent(&format!("to-{name}")).await)
}

/// Waits until a node has noticed so much of not hearing of any but its own side.
async fn noticed(cluster: &Cluster, node: usize, side: &[usize], notices: Notices) {
    let names: Vec<String> = side.iter().map(|n| format!("node-{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let others: &[&str] =
        if notices == Notices::Silence { &["suspect", "dead"] } else { &["dead"] };
    sees(&cluster.nodes[node], &names, others).await;
    if notices == Notices::LostLinks {
        let own = format!("node-{node}");
        let linked: Vec<&str> = names.into_iter().filter(|name| *name != own).collect();
        links(&cluster.nodes[node], &linked).await;
    }
}

/// Opens a session on one node after the other, and returns those that are not the newest any more.
async fn hop(agent: &mut Client, cluster: &Cluster, way: [usize; 3]) -> Vec<Client> {
    let mut older = Vec::new();
    for node in way {
        let newer = Client::connect(&cluster.nodes[node], &agent.token).await;
        older.push(std::mem::replace(agent, newer));
    }
    older
}

/// Each of `senders` reaches each of `receivers`, directly and by a broadcast, once and in order.
async fn all_reach(senders: &mut [Client], receivers: &mut [Client]) {
    let to: Vec<String> = receivers.iter().map(|agent| agent.id.clone()).collect();
    for sender in senders.iter_mut() {
        sender.send(json!({"to": to, "payload": 0})).await;
        sender.send(json!({"to": ["*"], "payload": 1})).await;
        sender.send(json!({"to": to, "payload": 2})).await;
    }
    let from: Vec<String> = senders.iter().map(|agent| agent.id.clone()).collect();
    for receiver in receivers {
        let mut next = vec![0; from.len()];
        for _ in 0..3 * from.len() {
            let message = receiver.next().await;
            let sender = from.iter().position(|id| message["from"] == id.as_str());
            let sender = sender.unwrap_or_else(|| panic!("nobody else sends: {message}"));
            assert_eq!(message["payload"], next[sender], "once and in order: {message}");
            next[sender] += 1;
        }
        receiver.fence().await;
    }
    // The senders got each other's broadcasts.
    for sender in senders {
        for _ in 1..from.len() {
            assert_eq!(sender.next().await["payload"], 1);
        }
        sender.fence().await;
    }
}
