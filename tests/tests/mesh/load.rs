//! Order and loss while the cluster is busy and changes.

use serde_json::json;
use tests::{Client, Cluster};

/// Messages of each sender.
const COUNT: u64 = 2_000;

/// So often, and at last, one of them is to all.
const BROADCAST_EVERY: u64 = 50;

/// Sends numbered messages to all of `to`, one after the other.
fn flood(mut sender: Client, to: Vec<String>) -> tokio::task::JoinHandle<Client> {
    tokio::spawn(async move {
        for n in 0..COUNT {
            let to = if n % BROADCAST_EVERY == BROADCAST_EVERY - 1 {
                vec!["*".to_owned()]
            } else {
                to.clone()
            };
            sender.send(json!({"to": to, "payload": n})).await;
        }
        sender
    })
}

/// Takes all messages of these senders, and checks that each comes once and in order: every `step`th
/// of them, up to the last.
fn drink(mut receiver: Client, senders: Vec<String>, step: u64) -> tokio::task::JoinHandle<Client> {
    tokio::spawn(async move {
        let mut next = vec![step - 1; senders.len()];
        while next.iter().any(|next| *next < COUNT) {
            let message = receiver.next().await;
            let from = senders.iter().position(|id| message["from"] == id.as_str());
            let from = from.unwrap_or_else(|| panic!("nobody else sends: {message}"));
            assert_eq!(message["payload"], next[from], "in order, none lost: {message}");
            next[from] += step;
        }
        receiver
    })
}

#[tokio::test]
async fn order_is_kept_under_load_while_a_node_joins_and_another_crashes() {
    let mut cluster = Cluster::start(4).await;
    let (mut floods, mut drinks) = (Vec::new(), Vec::new());
    let senders: Vec<String> = (0..3).map(|n| format!("from-{n}")).collect();
    let receivers: Vec<String> = (0..3).map(|n| format!("to-{n}")).collect();
    for (n, id) in receivers.iter().enumerate() {
        drinks.push(drink(cluster.nodes[n].agent(id).await, senders.clone(), 1));
    }
    let mut sources = Vec::new();
    for (n, id) in senders.iter().enumerate() {
        sources.push(cluster.nodes[(n + 1) % 3].agent(id).await);
    }
    for source in sources {
        floods.push(flood(source, receivers.clone()));
    }
    // The fourth node carries no agent of theirs.
    cluster.nodes[3].kill9();
    cluster.add(&[]);
    for flood in floods {
        let sender = flood.await.expect("a sender goes on");
        let others = senders.iter().filter(|id| **id != sender.id).cloned().collect();
        drinks.push(drink(sender, others, BROADCAST_EVERY));
    }
    for drink in drinks {
        drink.await.expect("a receiver gets all").fence().await;
    }
}
