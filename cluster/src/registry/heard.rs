//! What the linked nodes have said of their part in the registry, last.

use std::collections::BTreeMap;

use tokio::sync::watch;

use super::hello::Hello;
use crate::NodeId;

/// The last word of each linked node.
pub(super) struct Heard(watch::Sender<BTreeMap<NodeId, Hello>>);

impl Heard {
    /// Nobody's yet.
    pub(super) fn new() -> Self {
        Self(watch::Sender::new(BTreeMap::new()))
    }

    /// A node said so.
    pub(super) fn said(&self, node: NodeId, hello: Hello) {
        self.0.send_if_modified(|heard| {
            let is_new = heard.get(&node) != Some(&hello);
            heard.insert(node, hello);
            is_new
        });
    }

    /// A node is not linked any more.
    pub(super) fn lost(&self, node: NodeId) {
        self.0.send_if_modified(|heard| heard.remove(&node).is_some());
    }

    /// What all have said.
    pub(super) fn all(&self) -> BTreeMap<NodeId, Hello> {
        self.0.borrow().clone()
    }

    /// Changes whenever somebody says something else.
    pub(super) fn watch(&self) -> watch::Receiver<BTreeMap<NodeId, Hello>> {
        self.0.subscribe()
    }

    /// Who leads, as those say who know more of the log than the others.
    pub(super) fn leader(&self) -> Option<NodeId> {
        let heard = self.0.borrow();
        let knows = heard.values().filter(|hello| hello.voter && hello.leader.is_some());
        knows.max_by_key(|hello| hello.applied).and_then(|hello| hello.leader)
    }

    /// Whether a node says that it leads; none if it has said nothing.
    pub(super) fn says_to_lead(&self, node: NodeId) -> Option<bool> {
        self.0.borrow().get(&node).map(|hello| hello.leader == Some(node))
    }

    /// Whether some voter that follows a leader tells this node the news.
    pub(super) fn is_told_news(&self) -> bool {
        self.0.borrow().values().any(Hello::follows_log)
    }

    /// The nodes that keep the book, whoever knows most of it first.
    pub(super) fn voters(&self) -> Vec<NodeId> {
        let heard = self.0.borrow();
        let mut voters: Vec<_> = heard.iter().filter(|(_, hello)| hello.voter).collect();
        voters.sort_by_key(|(_, hello)| std::cmp::Reverse(hello.applied));
        voters.into_iter().map(|(node, _)| *node).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::{super::hello::Part, *};

    fn hello(voter: bool, leader: Option<u64>, applied: u64) -> Hello {
        Hello {
            registry: None,
            lineage: Vec::new(),
            part: Part::Observer,
            stored: voter,
            voter,
            leader: leader.map(NodeId),
            applied,
        }
    }

    #[test]
    fn who_knows_most_is_believed() {
        let heard = Heard::new();
        assert_eq!((heard.leader(), heard.voters()), (None, Vec::new()));
        heard.said(NodeId(1), hello(true, Some(1), 7));
        heard.said(NodeId(2), hello(true, Some(3), 9));
        heard.said(NodeId(3), hello(true, None, 10));
        heard.said(NodeId(4), hello(false, Some(4), 11));
        assert_eq!(heard.leader(), Some(NodeId(3)));
        assert_eq!(heard.voters(), [NodeId(3), NodeId(2), NodeId(1)]);
        heard.lost(NodeId(2));
        assert_eq!(heard.leader(), Some(NodeId(1)));
    }

    #[test]
    fn the_same_once_more_is_no_change() {
        let heard = Heard::new();
        heard.said(NodeId(1), hello(true, None, 7));
        let watch = heard.watch();
        heard.said(NodeId(1), hello(true, None, 7));
        heard.lost(NodeId(2));
        assert!(!watch.has_changed().unwrap());
        heard.said(NodeId(1), hello(true, None, 8));
        assert!(watch.has_changed().unwrap());
    }
}
