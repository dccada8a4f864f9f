//! How the registry reaches the other nodes.

use std::{collections::BTreeMap, time::Duration};

use async_trait::async_trait;

use crate::NodeId;

/// The way to the other nodes: the mesh's links, or a simulated network.
#[async_trait]
pub trait Carry: Send + Sync + 'static {
    /// Asks a node; none if it is not linked or does not answer by `deadline`, counted from now.
    async fn ask(&self, to: NodeId, body: Vec<u8>, deadline: Duration) -> Option<Vec<u8>>;

    /// Tells a node something; lost without a link.
    fn tell(&self, to: NodeId, body: Vec<u8>);

    /// The nodes that are linked now.
    fn linked(&self) -> Vec<NodeId>;

    /// Those of them that answer: one that has crashed is linked for seconds.
    fn heard(&self) -> Vec<NodeId> {
        self.linked()
    }

    /// The seeds that refuse this node, each with a sentence that says why.
    fn refusals(&self) -> BTreeMap<String, String> {
        BTreeMap::new()
    }
}
