//! Messages between all.

use serde_json::json;

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
