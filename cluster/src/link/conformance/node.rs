//! A node of the suite: links, and a record of all that they say.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::{sync::watch, task::JoinSet, time::timeout};
use tokio_util::sync::CancellationToken;

use super::bed::Bed;
use crate::{
    Generation, Incarnation, NodeId, UnixMillis,
    link::{
        Allegiance, Down, Frames, Introduction, LinkEvents, Links, Reason, Refusal,
        transport::Transport,
    },
    mesh::{Outlet, Pushed},
    wire::{Body, Broadcast, Control, Data, LANES, Names},
};

/// Longer than anything takes that happens at all.
const PATIENCE: Duration = Duration::from_mins(1);

/// What a node is told by its links.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Event {
    Up(Incarnation),
    Down(Incarnation, Down),
    Control(u64, Control),
    Gossip(u64, Bytes),
    Started(u64, u8),
    Broadcast(u64, u8, u64, Bytes),
    Outlived(Generation),
}

/// How a node is set up, if not as usual.
pub(super) struct Setup {
    pub(super) node: u64,
    pub(super) generation: u64,
    pub(super) name: String,
    pub(super) cluster: String,
    pub(super) secret: String,
    /// Mesh time.
    pub(super) time: UnixMillis,
    pub(super) wall: UnixMillis,
    pub(super) address: Option<SocketAddr>,
    pub(super) unwanted: Option<String>,
    pub(super) allegiance: Option<Allegiance>,
}

pub(super) struct Node {
    pub(super) links: Arc<Links>,
    pub(super) told: Arc<Told>,
    pub(super) address: SocketAddr,
    pub(super) incarnation: Incarnation,
    pub(super) stop: CancellationToken,
    pub(super) tasks: JoinSet<()>,
}

/// All that a node was told, in order.
pub(super) struct Told {
    events: watch::Sender<Vec<Event>>,
    time: UnixMillis,
    wall: UnixMillis,
    unwanted: Option<String>,
    allegiance: Option<Allegiance>,
    pub(super) learned: Mutex<Vec<UnixMillis>>,
}

impl Setup {
    pub(super) fn of(node: u64) -> Self {
        Self {
            node,
            generation: 1,
            name: format!("node-{node}"),
            cluster: "cluster".to_owned(),
            secret: "secret".to_owned(),
            time: UnixMillis(1_000_000_000),
            wall: UnixMillis(1_000_000_000),
            address: None,
            unwanted: None,
            allegiance: None,
        }
    }

    pub(super) fn introduction(&self, address: SocketAddr) -> Introduction {
        Introduction {
            incarnation: Incarnation {
                node: NodeId(self.node),
                generation: Generation(self.generation),
            },
            name: self.name.clone(),
            region: "region".to_owned(),
            version: "1.0.0".to_owned(),
            address,
        }
    }

    /// Starts the node.
    pub(super) fn start(self, bed: &Bed) -> Node {
        let transport = bed.host(self.node, &self.secret, self.address);
        self.start_on(transport)
    }

    pub(super) fn start_on(self, transport: Arc<dyn Transport>) -> Node {
        let address = transport.local_address().unwrap();
        let introduction = self.introduction(address);
        let told = Arc::new(Told {
            events: watch::Sender::default(),
            time: self.time,
            wall: self.wall,
            unwanted: self.unwanted,
            allegiance: self.allegiance,
            learned: Mutex::default(),
        });
        let incarnation = introduction.incarnation;
        let clock = Arc::new(|| Duration::ZERO);
        let links = Links::new(introduction, self.cluster, transport, told.clone(), clock);
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        tasks.spawn(links.clone().run(stop.clone()));
        Node { links, told, address, incarnation, stop, tasks }
    }
}

impl Node {
    pub(super) fn id(&self) -> NodeId {
        self.incarnation.node
    }

    /// Starts all data lanes to a peer.
    pub(super) fn start_lanes(&self, to: &Node) {
        for lane in 0..LANES {
            let start = Data::Start { seq: 0 };
            let lane = u8::try_from(lane).unwrap();
            assert_eq!(self.links.data(to.id(), lane, &start), Pushed::Queued);
        }
    }

    pub(super) fn broadcast(&self, to: &Node, lane: u8, seq: u64, body: &[u8]) -> Pushed {
        let body = Body::Borrowed(body);
        let frame = Broadcast { seq, from: "somebody", except: Names::NONE, body };
        self.links.data(to.id(), lane, &Data::Broadcast(frame))
    }

    /// Everything stops at once, as when the process is killed.
    pub(super) async fn crash(mut self, bed: &Bed) {
        bed.crash(self.address);
        self.tasks.shutdown().await;
    }

    pub(super) async fn stop(mut self) {
        self.stop.cancel();
        while let Some(done) = self.tasks.join_next().await {
            done.unwrap();
        }
    }
}

impl Told {
    /// Waits until what was told holds what is looked for.
    pub(super) async fn until<T>(&self, what: &str, find: impl Fn(&[Event]) -> Option<T>) -> T {
        let mut events = self.events.subscribe();
        let found = timeout(PATIENCE, async {
            loop {
                if let Some(found) = find(&events.borrow_and_update()) {
                    return found;
                }
                events.changed().await.unwrap();
            }
        });
        let Ok(found) = found.await else {
            panic!("{what} never came; what came: {:.2000?}", self.all());
        };
        found
    }

    pub(super) async fn up(&self, peer: &Node) {
        let up = Event::Up(peer.incarnation);
        self.until("up", |events| events.contains(&up).then_some(())).await;
    }

    pub(super) async fn down(&self, peer: Incarnation) -> Down {
        self.until("down", |events| {
            events.iter().find_map(|event| match event {
                Event::Down(of, why) if *of == peer => Some(*why),
                _ => None,
            })
        })
        .await
    }

    pub(super) fn all(&self) -> Vec<Event> {
        self.events.borrow().clone()
    }

    /// Ups and downs alone.
    pub(super) fn changes(&self) -> Vec<Event> {
        let changes = |event: &Event| matches!(event, Event::Up(_) | Event::Down(..));
        self.all().into_iter().filter(changes).collect()
    }

    /// The numbers of the broadcasts of a lane.
    pub(super) fn seqs(events: &[Event], lane: u8) -> Vec<u64> {
        let seqs = events.iter().filter_map(|event| match event {
            Event::Broadcast(_, on, seq, _) if *on == lane => Some(*seq),
            _ => None,
        });
        seqs.collect()
    }

    fn tell(&self, event: Event) {
        self.events.send_modify(|events| events.push(event));
    }
}

impl LinkEvents for Told {
    fn allegiance(&self) -> Option<Allegiance> {
        self.allegiance.clone()
    }

    fn admit(&self, _: &Introduction) -> Result<(), Refusal> {
        let unwanted = self.unwanted.as_ref().map(|text| Refusal::new(Reason::Unwanted, text));
        unwanted.map_or(Ok(()), Err)
    }

    fn outlived(&self, by: Generation) {
        self.tell(Event::Outlived(by));
    }

    fn up(&self, peer: &Introduction) {
        self.tell(Event::Up(peer.incarnation));
    }

    fn down(&self, peer: Incarnation, why: Down) {
        self.tell(Event::Down(peer, why));
    }

    fn control(&self, from: Incarnation, frame: Control) {
        self.tell(Event::Control(from.node.0, frame));
    }

    fn gossip(&self, from: Incarnation, message: Bytes) {
        self.tell(Event::Gossip(from.node.0, message));
    }

    fn data(&self, from: Incarnation, lane: u8, frames: &mut Frames<'_>) {
        let from = from.node.0;
        // What is wrong with them, the links know.
        let _ = frames.for_each(|frame| match frame {
            Data::Start { .. } => self.tell(Event::Started(from, lane)),
            Data::Broadcast(it) => {
                self.tell(Event::Broadcast(from, lane, it.seq, it.body.to_shared()));
            }
            other => panic!("{other:?}"),
        });
    }

    fn wall(&self) -> UnixMillis {
        self.wall
    }

    fn mesh_time(&self) -> UnixMillis {
        self.time
    }

    fn learn_time(&self, time: UnixMillis) {
        self.learned.lock().push(time);
    }
}
