//! Order and loss while the cluster is busy and changes.

use tests::{Cluster, drink, drink_each, flood};

/// Messages of each sender.
const COUNT: u64 = 2_000;

/// Of so many messages the last is to all.
const BROADCAST_EVERY: u64 = 50;

#[tokio::test]
async fn order_is_kept_under_load_while_a_node_joins_and_another_crashes() {
    let mut cluster = Cluster::start(4).await;
    let (mut floods, mut drinks) = (Vec::new(), Vec::new());
    let senders: Vec<String> = (0..3).map(|n| format!("from-{n}")).collect();
    let receivers: Vec<String> = (0..3).map(|n| format!("to-{n}")).collect();
    for (n, id) in receivers.iter().enumerate() {
        drinks.push(drink(cluster.nodes[n].agent(id).await, senders.clone(), COUNT));
    }
    let mut sources = Vec::new();
    for (n, id) in senders.iter().enumerate() {
        sources.push(cluster.nodes[(n + 1) % 3].agent(id).await);
    }
    for source in sources {
        floods.push(flood(source, receivers.clone(), COUNT, BROADCAST_EVERY));
    }
    // The fourth node carries no agent of theirs.
    cluster.nodes[3].kill9();
    cluster.add(&[]);
    for flood in floods {
        let sender = flood.await.expect("a sender goes on");
        let others = senders.iter().filter(|id| **id != sender.id).cloned().collect();
        drinks.push(drink_each(sender, others, COUNT, BROADCAST_EVERY));
    }
    for drink in drinks {
        drink.await.expect("a receiver gets all").fence().await;
    }
}
