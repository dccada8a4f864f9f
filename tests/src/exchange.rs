//! Messages between all.

use serde_json::json;
use tokio::task::JoinHandle;

use crate::Client;

/// Every agent sends to every agent, itself included; each gets each message once and in order.
pub async fn every_pair(agents: &mut [Client]) {
    let ids: Vec<String> = agents.iter().map(|agent| agent.id.clone()).collect();
    for sender in agents.iter_mut() {
        for id in &ids {
            for n in 0..5 {
                sender.send(json!({"to": [id], "payload": n, "type": "pair"})).await;
            }
        }
    }
    for receiver in agents.iter_mut() {
        let mut expected = vec![0; ids.len()];
        for _ in 0..5 * ids.len() {
            let message = receiver.next().await;
            let from = ids.iter().position(|id| message["from"] == *id).expect("a known sender");
            assert_eq!(message["payload"], expected[from], "in order from {from}: {message}");
            expected[from] += 1;
        }
        receiver.fence().await;
    }
}

/// Lets `sender` send `count` numbered messages, one after the other: to all of `to`, and every
/// `broadcast_every`th to everybody.
pub fn flood(
    mut sender: Client,
    to: Vec<String>,
    count: u64,
    broadcast_every: u64,
) -> JoinHandle<Client> {
    tokio::spawn(async move {
        for n in 0..count {
            let to = match (n + 1) % broadcast_every {
                0 => vec!["*".to_owned()],
                _ => to.clone(),
            };
            sender.send(json!({"to": to, "payload": n})).await;
        }
        sender
    })
}

/// Lets `receiver` take the `count` messages of each of `senders`, which must come once and in order,
/// and with none of anybody else between them.
pub fn drink(receiver: Client, senders: Vec<String>, count: u64) -> JoinHandle<Client> {
    drink_each(receiver, senders, count, 1)
}

/// The same for a receiver that gets the broadcasts alone, the last of each `every` messages.
pub fn drink_each(
    mut receiver: Client,
    senders: Vec<String>,
    count: u64,
    every: u64,
) -> JoinHandle<Client> {
    tokio::spawn(async move {
        let mut next = vec![every - 1; senders.len()];
        while next.iter().any(|next| *next < count) {
            let message = receiver.next().await;
            let from = senders.iter().position(|id| message["from"] == id.as_str());
            let from = from.unwrap_or_else(|| panic!("nobody else sends: {message}"));
            assert_eq!(message["payload"], next[from], "in order, none lost: {message}");
            next[from] += every;
        }
        receiver
    })
}
