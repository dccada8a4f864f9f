//! Gossip: what every node says of itself, passed on until all know it, and whose heartbeats come.
//!
//! Drives chitchat over whatever carries messages. It has no socket and no seeds: messages go out
//! through [`GossipOut`], which drops what it cannot send at once, and whoever makes links says when a
//! new one is worth a word ([`Gossip::greet`]). It keeps five small keys a node and nothing of agents.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use chitchat::{
    Chitchat, ChitchatConfig, ChitchatHandle, ChitchatId, ChitchatMessage, Deserializable,
    FailureDetectorConfig, NodeState, Serializable,
    transport::{Socket, Transport},
};
use parking_lot::Mutex;
use tokio::sync::mpsc;

use super::{Heard, Load, Says};
use crate::{Generation, Incarnation, link::Introduction};

/// How often a node talks to three random others. One round makes its heartbeat known to most of a
/// hundred nodes, and costs each about 180 kB/s at that size.
const INTERVAL: Duration = Duration::from_millis(300);

/// A node is dead when its heartbeat is missing for so many times the mean interval.
const PHI: f64 = 8.0;

/// Heartbeats that the mean is made of, beside five of [`INITIAL_INTERVAL`] that chitchat always adds.
/// One, so that the limit is almost fixed: 2.3 s of silence where heartbeats come all the time, 3.7 s
/// where they come once a second. A mean of many would end at 0.8 s in a small cluster, a hiccup of a
/// busy machine. With the half second or so for which others still pass on the last heartbeats of a
/// crashed node, all know of its death within 5 s, also of a hundred nodes.
const SAMPLES: usize = 1;

/// The interval that heartbeats are assumed to have.
const INITIAL_INTERVAL: Duration = Duration::from_millis(350);

/// Longer intervals are pauses, not intervals: they do not count into the mean.
const MAX_INTERVAL: Duration = Duration::from_secs(1);

/// How long a dead node is remembered, for operators to see. Twice that may pass until others have
/// stopped passing it on.
const REMEMBERED: Duration = Duration::from_mins(10);

/// Messages that wait to be read. What finds no room is dropped: gossip repairs itself. A message is
/// at most 64 KiB, so they take at most 16 MiB; with 100 nodes, and 12 KiB each, 3 MiB.
pub(super) const INBOX_MESSAGES: usize = 256;

/// Keys of a node's own state. Short, since each travels to every node.
mod key {
    pub(super) const SAYS: &str = "s";
    pub(super) const NAME: &str = "n";
    pub(super) const REGION: &str = "r";
    pub(super) const VERSION: &str = "v";
    pub(super) const LOAD: &str = "l";
}

/// The way out for gossip.
pub(super) trait GossipOut: Send + Sync + 'static {
    /// Sends a message to the node at the address, at once or never; `false` if it was dropped.
    fn gossip(&self, to: SocketAddr, message: &[u8]) -> bool;

    /// A message came that is none.
    fn malformed(&self);
}

/// Messages that came, each with the address that its sender is reached at.
pub(super) type Inbox = mpsc::Receiver<(SocketAddr, Bytes)>;

/// Gossip failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GossipError {
    /// It could not start.
    #[error("gossip cannot start: {0}")]
    Start(String),
    /// It ended by itself. Without it a node knows nobody: it must be restarted.
    #[error("gossip ended by itself: {0}")]
    Ended(String),
}

/// The gossip of one node. Ends when dropped.
pub(super) struct Gossip {
    handle: ChitchatHandle,
}

impl Gossip {
    /// Starts to gossip as `own` within `cluster`.
    pub(super) async fn start(
        cluster: String,
        own: &Introduction,
        out: Arc<dyn GossipOut>,
        inbox: Inbox,
    ) -> Result<Self, GossipError> {
        let config = config(cluster, own);
        let state = vec![
            (key::SAYS.to_owned(), Says::Alive.as_str().to_owned()),
            (key::NAME.to_owned(), own.name.clone()),
            (key::REGION.to_owned(), own.region.clone()),
            (key::VERSION.to_owned(), own.version.clone()),
            (key::LOAD.to_owned(), Load::default().to_text()),
        ];
        let transport = Lane { parts: Mutex::new(Some((out, inbox))) };
        let handle = chitchat::spawn_chitchat(config, state, &transport)
            .await
            .map_err(|e| GossipError::Start(format!("{e:#}")))?;
        Ok(Self { handle })
    }

    /// All that is known now of other nodes and this one.
    pub(super) async fn heard(&self) -> Vec<Heard> {
        self.handle.with_chitchat(|chitchat| all_heard(chitchat)).await
    }

    /// Says how this node is from now on.
    pub(super) async fn say(&self, says: Says) {
        self.handle
            .with_chitchat(|chitchat| chitchat.self_node_state().set(key::SAYS, says.as_str()))
            .await;
    }

    /// Says how much this node carries.
    pub(super) async fn say_load(&self, load: Load) {
        self.handle
            .with_chitchat(|chitchat| chitchat.self_node_state().set(key::LOAD, load.to_text()))
            .await;
    }

    /// Exchanges with the node at the address what both know, now and not at the next round.
    pub(super) fn greet(&self, address: SocketAddr) {
        let _ = self.handle.gossip(address); // fails only if gossip has ended, which `ended` tells
    }

    /// Waits until gossip ends by itself.
    pub(super) async fn ended(&self) -> GossipError {
        match self.handle.termination_watcher().await {
            Ok(()) => GossipError::Ended("it was told to stop".to_owned()),
            Err(e) => GossipError::Ended(format!("{e:#}")),
        }
    }
}

impl Drop for Gossip {
    fn drop(&mut self) {
        self.handle.abort();
    }
}

fn config(cluster: String, own: &Introduction) -> ChitchatConfig {
    let Incarnation { node, generation } = own.incarnation;
    ChitchatConfig {
        chitchat_id: ChitchatId::new(node.to_string(), generation.0, own.address),
        cluster_id: cluster,
        gossip_interval: INTERVAL,
        listen_addr: own.address,
        seed_nodes: Vec::new(), // the dialler knows them, and greets whoever is linked
        failure_detector_config: FailureDetectorConfig {
            phi_threshold: PHI,
            sampling_window_size: SAMPLES,
            max_interval: MAX_INTERVAL,
            initial_interval: INITIAL_INTERVAL,
            dead_node_grace_period: REMEMBERED,
        },
        marked_for_deletion_grace_period: REMEMBERED,
        catchup_callback: None,
        extra_liveness_predicate: None,
    }
}

fn all_heard(chitchat: &Chitchat) -> Vec<Heard> {
    let live: std::collections::HashSet<&ChitchatId> = chitchat.live_nodes().collect();
    chitchat
        .node_states()
        .iter()
        .filter_map(|(id, state)| heard(id, state, live.contains(id)))
        .collect()
}

/// What is known of one life of a node; none until it has told all of itself.
fn heard(id: &ChitchatId, state: &NodeState, live: bool) -> Option<Heard> {
    let node = id.node_id.parse().ok()?;
    let text = |key| state.get(key).map(str::to_owned);
    Some(Heard {
        incarnation: Incarnation { node, generation: Generation(id.generation_id) },
        name: text(key::NAME)?,
        region: text(key::REGION)?,
        version: text(key::VERSION)?,
        address: id.gossip_advertise_addr,
        says: Says::from_text(state.get(key::SAYS)?),
        load: state.get(key::LOAD).and_then(Load::from_text).unwrap_or_default(),
        live,
    })
}

impl Says {
    fn as_str(self) -> &'static str {
        match self {
            Self::Alive => "alive",
            Self::Leaving => "leaving",
            Self::Left => "left",
        }
    }

    /// A word of a later release is taken for the best: the node is there.
    fn from_text(text: &str) -> Self {
        match text {
            "leaving" => Self::Leaving,
            "left" => Self::Left,
            _ => Self::Alive,
        }
    }
}

impl Load {
    fn to_text(self) -> String {
        format!("{} {}", self.sessions, self.messages_per_minute)
    }

    fn from_text(text: &str) -> Option<Self> {
        let (sessions, messages) = text.split_once(' ')?;
        Some(Self { sessions: sessions.parse().ok()?, messages_per_minute: messages.parse().ok()? })
    }
}

/// chitchat's transport: the way out and the inbox, handed over at its only opening.
struct Lane {
    parts: Mutex<Option<(Arc<dyn GossipOut>, Inbox)>>,
}

#[async_trait]
impl Transport for Lane {
    async fn open(&self, _: SocketAddr) -> anyhow::Result<Box<dyn Socket>> {
        let parts = self.parts.lock().take();
        let (out, inbox) =
            parts.ok_or_else(|| anyhow::anyhow!("the gossip lane is open already"))?;
        Ok(Box::new(OpenLane { out, inbox, buffer: Vec::new() }))
    }
}

struct OpenLane {
    out: Arc<dyn GossipOut>,
    inbox: Inbox,
    buffer: Vec<u8>,
}

#[async_trait]
impl Socket for OpenLane {
    /// Never waits: chitchat has one loop, and it is in here.
    async fn send(&mut self, to: SocketAddr, message: ChitchatMessage) -> anyhow::Result<()> {
        self.buffer.clear();
        message.serialize(&mut self.buffer);
        if !self.out.gossip(to, &self.buffer) {
            tracing::trace!(%to, "gossip had no way there");
        }
        Ok(())
    }

    /// Bytes that are no message are the sender's fault: an error would end gossip for good.
    async fn recv(&mut self) -> anyhow::Result<(SocketAddr, ChitchatMessage)> {
        loop {
            let (from, bytes) =
                self.inbox.recv().await.ok_or_else(|| anyhow::anyhow!("its inbox was closed"))?;
            match ChitchatMessage::deserialize(&mut &bytes[..]) {
                Ok(message) => return Ok((from, message)),
                Err(error) => {
                    self.out.malformed();
                    tracing::debug!(%from, error = format!("{error:#}"), "malformed gossip");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::NodeId;

    #[test]
    fn words_and_loads_travel_as_text() {
        for says in [Says::Alive, Says::Leaving, Says::Left] {
            assert_eq!(Says::from_text(says.as_str()), says);
        }
        assert_eq!(Says::from_text("pondering"), Says::Alive);
        let load = Load { sessions: 12, messages_per_minute: u64::MAX };
        assert_eq!(Load::from_text(&load.to_text()), Some(load));
        for text in ["", "1", "1 x", "-1 2", "1 2 3"] {
            assert_eq!(Load::from_text(text), None, "{text:?}");
        }
    }

    struct Nowhere;

    impl GossipOut for Nowhere {
        fn gossip(&self, _: SocketAddr, _: &[u8]) -> bool {
            false
        }

        fn malformed(&self) {}
    }

    fn own() -> Introduction {
        Introduction {
            incarnation: Incarnation { node: NodeId(0xa1), generation: Generation(3) },
            name: "one".to_owned(),
            region: "eu".to_owned(),
            version: "0.1.0".to_owned(),
            address: SocketAddr::from(([10, 0, 0, 1], 7946)),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_hears_itself_and_what_it_says() {
        let (_inlet, inbox) = mpsc::channel(1);
        let gossip = Gossip::start("c".to_owned(), &own(), Arc::new(Nowhere), inbox).await.unwrap();
        gossip.say(Says::Leaving).await;
        gossip.say_load(Load { sessions: 7, messages_per_minute: 8 }).await;
        let Introduction { incarnation, name, region, version, address } = own();
        let load = Load { sessions: 7, messages_per_minute: 8 };
        let says = Says::Leaving;
        let expected =
            Heard { incarnation, name, region, version, address, says, load, live: true };
        assert_eq!(gossip.heard().await, [expected]);
    }

    #[tokio::test(start_paused = true)]
    async fn garbage_is_passed_over_and_a_closed_inbox_is_told() {
        let (inlet, inbox) = mpsc::channel(4);
        let gossip = Gossip::start("c".to_owned(), &own(), Arc::new(Nowhere), inbox).await.unwrap();
        for garbage in [&b""[..], b"garbage", &[0x53, 0xb0, 0, 9]] {
            inlet.send((own().address, Bytes::copy_from_slice(garbage))).await.unwrap();
        }
        let ended = tokio::time::timeout(Duration::from_secs(5), gossip.ended()).await;
        assert!(ended.is_err(), "{ended:?}");
        drop(inlet);
        assert_eq!(gossip.ended().await, GossipError::Ended("its inbox was closed".to_owned()),);
    }
}
