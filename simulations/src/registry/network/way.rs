//! The way of one life of a node to the others, as its registry knows it.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use cluster::{
    Incarnation, NodeId,
    registry::{Carry, gives_vote},
};
use tokio::{sync::oneshot, time::timeout};

use super::{Link, Network};

/// The way of one life of a node to the others.
pub(super) struct Way {
    pub(super) network: Arc<Network>,
    pub(super) node: usize,
    pub(super) id: Incarnation,
}

impl Way {
    /// Asks, and does not wait for longer than the link lives.
    async fn ask_over(&self, to: NodeId, body: Vec<u8>) -> Option<Vec<u8>> {
        let (peer, asked, broken) = self.network.state.lock().link(self.node, self.id, to)?;
        let (reply, answer) = oneshot::channel();
        let (network, me, node) = (Arc::clone(&self.network), self.id, self.node);
        let torn = broken.clone();
        // Not ended with whoever asks: a question that is under way arrives.
        self.network.tasks.spawn(async move {
            let handled = async {
                if !network.cross(node, peer).await {
                    return None;
                }
                let life = network.state.lock().lives.get(&peer).cloned();
                let life = life.filter(|life| life.id == asked)?;
                let answer = life.registry.asked(me.node, body.clone()).await;
                if gives_vote(&body, &answer) {
                    network.state.lock().voted(peer, node);
                }
                if !network.cross(peer, node).await {
                    return None;
                }
                Some(answer)
            };
            let answer = tokio::select! {
                biased;
                () = torn.cancelled() => None,
                answer = handled => answer,
            };
            let _ = reply.send(answer); // nobody may wait any more
        });
        tokio::select! {
            biased;
            () = broken.cancelled() => None,
            answer = answer => answer.ok().flatten(),
        }
    }
}

#[async_trait]
impl Carry for Way {
    async fn ask(&self, to: NodeId, body: Vec<u8>, deadline: Duration) -> Option<Vec<u8>> {
        timeout(deadline, self.ask_over(to, body)).await.ok().flatten()
    }

    fn tell(&self, to: NodeId, body: Vec<u8>) {
        self.network.tell(self.node, self.id, to, body);
    }

    fn linked(&self) -> Vec<NodeId> {
        let state = self.network.state.lock();
        let other = |(pair, link): (&(usize, usize), &Link)| match self.node {
            node if node == pair.0 && link.ends.0 == self.id => Some(link.ends.1.node),
            node if node == pair.1 && link.ends.1 == self.id => Some(link.ends.0.node),
            _ => None,
        };
        state.links.iter().filter_map(other).collect()
    }
}
