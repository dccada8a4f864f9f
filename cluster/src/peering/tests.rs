//! A node's part in the mesh, with peers that behave and one that does not.

use std::{
    io,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
};

use tokio::time::{Instant, sleep};

use super::*;
use crate::{link::memory::MemoryNetwork, mesh::engine_tests::Sessions};

struct Nothing;

/// Counts how often it is told who lives.
#[derive(Default)]
struct Counting {
    living: Mutex<Vec<usize>>,
}

#[async_trait]
impl Application for Counting {
    fn linked(&self, _: &Introduction) -> Vec<Vec<u8>> {
        Vec::new()
    }

    fn living(&self, nodes: &BTreeSet<Incarnation>) {
        self.living.lock().push(nodes.len());
    }

    fn told(&self, _: Incarnation, _: &[u8]) -> Vec<Vec<u8>> {
        Vec::new()
    }

    async fn asked(&self, _: Incarnation, body: Vec<u8>) -> Vec<u8> {
        body
    }
}

#[async_trait]
impl Application for Nothing {
    fn linked(&self, _: &Introduction) -> Vec<Vec<u8>> {
        Vec::new()
    }

    fn living(&self, _: &BTreeSet<Incarnation>) {}

    fn told(&self, _: Incarnation, _: &[u8]) -> Vec<Vec<u8>> {
        Vec::new()
    }

    async fn asked(&self, _: Incarnation, body: Vec<u8>) -> Vec<u8> {
        assert_eq!(body, b"a riddle", "a task that panics");
        body
    }
}

impl Resolve for Nothing {
    async fn resolve(&self, _: &SeedAddress) -> io::Result<Vec<SocketAddr>> {
        Ok(Vec::new())
    }
}

fn introduction(node: u8) -> Introduction {
    let incarnation = Incarnation { node: NodeId(node.into()), generation: crate::Generation(1) };
    Introduction {
        incarnation,
        name: format!("node-{node}"),
        region: "r".to_owned(),
        version: "1".to_owned(),
        address: ([10, 0, 0, node], 1).into(),
    }
}

fn host(network: &MemoryNetwork, introduction: &Introduction) -> Arc<dyn Transport> {
    Arc::new(network.host(introduction.address, introduction.incarnation.node, "secret"))
}

#[allow(clippy::disallowed_methods)] // a test's own time, which it pauses
fn clock() -> Monotonic {
    let start = Instant::now();
    Arc::new(move || start.elapsed())
}

fn peering(network: &MemoryNetwork) -> (Arc<Peering>, Tasks<Nothing>) {
    peering_of(network, Arc::new(Nothing))
}

fn peering_of(
    network: &MemoryNetwork,
    application: Arc<dyn Application>,
) -> (Arc<Peering>, Tasks<Nothing>) {
    let introduction = introduction(1);
    Peering::new(Parts {
        transport: host(network, &introduction),
        introduction,
        cluster: "c".to_owned(),
        seeds: Vec::new(),
        resolver: Arc::new(Nothing),
        deliver: Arc::new(Sessions::default()),
        application,
        clock: clock(),
        wall: Arc::new(|| UnixMillis(0)),
    })
}

/// The links of a peer that answers pings only if it is told to.
#[derive(Default)]
struct Peer {
    links: Outward,
    answers: AtomicBool,
    downs: Mutex<Vec<Down>>,
}

impl LinkEvents for Peer {
    fn admit(&self, _: &Introduction) -> Result<(), Refusal> {
        Ok(())
    }

    fn outlived(&self, _: crate::Generation) {}

    fn up(&self, _: &Introduction) {}

    fn down(&self, _: Incarnation, why: Down) {
        self.downs.lock().push(why);
    }

    fn control(&self, from: Incarnation, frame: Control) {
        if let Control::Ping { number, time, .. } = frame
            && self.answers.load(Relaxed)
        {
            self.links.control(from.node, &Control::Pong { number, time });
        }
    }

    fn gossip(&self, _: Incarnation, _: Bytes) {}

    fn data(&self, _: Incarnation, _: u8, _: &mut Frames<'_>) {}

    fn wall(&self) -> UnixMillis {
        UnixMillis(0)
    }

    fn mesh_time(&self) -> UnixMillis {
        UnixMillis(0)
    }

    fn learn_time(&self, _: UnixMillis) {}
}

/// A peer on this network, and its links, which do not run yet.
fn peer(network: &MemoryNetwork) -> (Arc<Peer>, Arc<Links>) {
    let (other, peer) = (introduction(2), Arc::new(Peer::default()));
    let transport = host(network, &other);
    let links = Links::new(other, "c".to_owned(), transport, peer.clone(), clock());
    peer.links.0.store(Some(Arc::clone(&links)));
    (peer, links)
}

#[tokio::test]
async fn a_question_at_which_its_task_panics_is_counted_and_makes_room_for_others() {
    let (peering, _tasks) = peering(&MemoryNetwork::new());
    let from = Incarnation { node: NodeId(2), generation: crate::Generation(1) };
    for body in [&b"nonsense"[..], b"a riddle", b"nonsense"] {
        peering.answer(from, 1, body.to_vec());
    }
    assert_eq!(peering.answers.all_ended().await, answers::QUESTIONS_MAX);
    let mut panics = 0;
    peering.with_counters(|counters| panics = counters.panics());
    assert_eq!(panics, 2);
}

#[tokio::test(start_paused = true)]
async fn a_link_that_carries_only_one_way_is_silent() {
    let network = MemoryNetwork::new();
    let (peering, tasks) = peering(&network);
    let (peer, links) = peer(&network);
    let (me, stop) = (introduction(1), CancellationToken::new());
    let is_silent = || peering.silent.lock().contains(&NodeId(2));
    let scenario = async {
        links.dial(me.address).await.expect("a link");
        for _ in 0..20 {
            assert!(links.control(me.incarnation.node, &Control::Synced { ring: 0 }));
            sleep(Duration::from_millis(100)).await;
        }
        assert!(is_silent(), "it speaks, but does not hear");
        peer.answers.store(true, Relaxed);
        sleep(TICK * 2 * u32::try_from(TICKS_PER_LOOK).expect("a few")).await;
        assert!(!is_silent());
        stop.cancel();
    };
    let ((), ended, ()) =
        tokio::join!(links.clone().run(stop.clone()), tasks.run(stop.clone()), scenario);
    ended.expect("gossip goes on to the end");
}

#[tokio::test(start_paused = true)]
async fn loads_that_change_are_no_news_of_who_lives() {
    let application = Arc::new(Counting::default());
    let (peering, tasks) = peering_of(&MemoryNetwork::new(), application.clone());
    let stop = CancellationToken::new();
    let scenario = async {
        let mut members = peering.membership().members();
        for sessions in 1..5 {
            peering.set_load(Load { sessions, messages_per_minute: 0 });
            members
                .wait_for(|members| members[0].load.sessions == sessions)
                .await
                .expect("it runs");
            sleep(Duration::from_secs(3)).await;
        }
        stop.cancel();
    };
    let (ended, ()) = tokio::join!(tasks.run(stop.clone()), scenario);
    ended.expect("gossip goes on to the end");
    assert_eq!(*application.living.lock(), [1]);
}

#[tokio::test(start_paused = true)]
async fn a_mesh_that_is_stopped_says_goodbye() {
    let network = MemoryNetwork::new();
    let (peering, tasks) = peering(&network);
    let (peer, links) = peer(&network);
    let (stop, stop_peer) = (CancellationToken::new(), CancellationToken::new());
    let scenario = async {
        links.dial(introduction(1).address).await.expect("a link");
        stop.cancel();
    };
    let running = async {
        let ended = tokio::join!(tasks.run(stop.clone()), scenario);
        assert!(peering.linked().is_empty());
        // What the peer was told by then is on its way to it.
        sleep(TICK).await;
        stop_peer.cancel();
        ended.0
    };
    let (ended, ()) = tokio::join!(running, links.clone().run(stop_peer.clone()));
    ended.expect("gossip goes on to the end");
    assert_eq!(*peer.downs.lock(), [Down::Left]);
}

#[tokio::test]
async fn a_mesh_whose_tasks_are_given_up_leaves_nothing_behind() {
    let (peering, tasks) = peering(&MemoryNetwork::new());
    let (mesh, links) = (Arc::downgrade(peering.mesh()), Arc::downgrade(&tasks.links));
    let mut run = Box::pin(tasks.run(CancellationToken::new()));
    assert!(futures_util::poll!(&mut run).is_pending());
    drop((run, peering));
    // The task of gossip is dropped at its next turn.
    tokio::task::yield_now().await;
    assert!(mesh.upgrade().is_none() && links.upgrade().is_none());
}

#[test]
fn who_is_being_linked_by_the_other_side_is_not_out_of_reach() {
    let address = SocketAddr::from(([10, 0, 0, 1], 7946));
    assert!(matches!(failure(&LinkError::Underway(address)), DialError::NotNow(_)));
    assert!(matches!(failure(&LinkError::Deadline(address)), DialError::Unreachable(_)));
}

#[test]
fn a_former_life_is_outlived_where_the_other_says_so() {
    let address = SocketAddr::from(([10, 0, 0, 1], 7946));
    let refusal = Refusal::new(Reason::Generation, "there is a later life");
    let theirs = LinkError::Refused { address, refusal: refusal.clone() };
    assert!(matches!(failure(&theirs), DialError::Outlived(_)));
    let ours = LinkError::Unfit { address, refusal };
    assert!(matches!(failure(&ours), DialError::Refused(_)), "the other is the former life");
}
