//! The engine's own: what it refuses of what it is told, seen from outside.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;

use super::{
    Batch, Deliver, Home, Lost, Mesh, Outgoing, Outlet, Pushed, routes::ASKED_OF_OTHERS_MAX,
};
use crate::{
    AgentId, Generation, Incarnation, NodeId, SessionId, UnixMillis,
    membership::{Load, Member, MemberState},
    wire::{
        Body, Broadcast, Control, Data, Direct, LANES, Located, NAMES_MAX, Names, Relayed, Spent,
    },
};

const ME: NodeId = NodeId(1);
const PEER: NodeId = NodeId(2);
const NOW: Duration = Duration::from_secs(100);

/// The links that there are, how many names each broadcast on them leaves out, the `Moved` that went out on
/// them, and whose place was asked of others than owners.
#[derive(Default)]
struct Links {
    there: Mutex<BTreeSet<NodeId>>,
    left_out: Mutex<Vec<usize>>,
    moved: Mutex<Vec<(NodeId, Option<SessionId>)>>,
    asked: Mutex<Vec<AgentId>>,
}

impl Outlet for Links {
    fn control(&self, to: NodeId, frame: &Control) -> bool {
        let is_there = self.there.lock().contains(&to);
        if let Control::Moved { now, .. } = frame
            && is_there
        {
            self.moved.lock().push((to, *now));
        }
        if let Control::Lookup { agent, home_only: true, .. } = frame {
            self.asked.lock().push(agent.clone());
        }
        is_there
    }

    fn data(&self, to: NodeId, _: u8, frame: &Data<'_>) -> Pushed {
        if let Data::Broadcast(broadcast) = frame {
            self.left_out.lock().push(broadcast.except.iter().count());
        }
        if self.there.lock().contains(&to) { Pushed::Queued } else { Pushed::NoLink }
    }
}

/// Sessions that get nothing; notes what was lost, and of which messages that was told, and what was
/// spent, and how many broadcasts came.
#[derive(Default)]
pub(crate) struct Sessions {
    lost: Mutex<Vec<Lost>>,
    missed: Mutex<Vec<Lost>>,
    broadcasts: AtomicUsize,
    spent: Mutex<Vec<Spent>>,
}

impl Deliver for Sessions {
    fn batch(&self) -> Box<dyn Batch + '_> {
        Box::new(Nobody(self))
    }

    fn direct(&self, _: &AgentId, _: &Body<'_>, _: bool) -> bool {
        false
    }

    fn replaced(&self, _: &AgentId, _: SessionId) {}

    fn admitted(&self, _: &AgentId, _: SessionId) {}

    fn unfenced(&self, _: &AgentId) {}

    fn spent(&self, _: &AgentId, spent: Spent) {
        self.spent.lock().push(spent);
    }

    fn lost(&self, why: Lost, _: u64) {
        self.lost.lock().push(why);
    }

    fn missed(&self, why: Lost, _: &Body<'_>) {
        self.missed.lock().push(why);
    }
}

struct Nobody<'s>(&'s Sessions);

impl Batch for Nobody<'_> {
    fn direct(&mut self, _: &str, _: &Body<'_>, _: bool) -> bool {
        false
    }

    fn broadcast(&mut self, _: &str, _: Names<'_>, _: &Body<'_>) {
        self.0.broadcasts.fetch_add(1, Ordering::Relaxed);
    }
}

fn incarnation(node: NodeId) -> Incarnation {
    Incarnation { node, generation: Generation(1) }
}

fn home(node: NodeId) -> Home {
    home_in("r", node)
}

fn home_in(region: &str, node: NodeId) -> Home {
    Home { me: incarnation(node), region: region.to_owned() }
}

fn member(node: NodeId) -> Member {
    Member {
        incarnation: incarnation(node),
        name: node.to_string(),
        region: "r".to_owned(),
        version: String::new(),
        address: ([10, 0, 0, 1], 1).into(),
        state: MemberState::Alive,
        load: Load::default(),
    }
}

/// A node among these members, itself one of them.
fn node(members: &[NodeId]) -> (Mesh, Arc<Links>, Arc<Sessions>) {
    let (links, sessions) = (Arc::<Links>::default(), Arc::<Sessions>::default());
    let mesh = Mesh::new(home(ME), links.clone(), sessions.clone());
    let members: Vec<_> = members.iter().copied().map(member).collect();
    mesh.members(&members, Duration::ZERO);
    (mesh, links, sessions)
}

fn owned_by(owner: NodeId, mesh: &Mesh) -> AgentId {
    let is_its = |agent: &AgentId| mesh.rings().owner("r", agent.as_str()) == Some(owner);
    let names = (0..).map(|n| format!("agent-{n}").parse().expect("a name"));
    names.into_iter().find(is_its).expect("there are many")
}

fn send(mesh: &Mesh, to: &AgentId) {
    let from = "ann".parse().expect("a name");
    let body = Body::Borrowed(b"{}");
    mesh.direct(&Outgoing { from: &from, lane: 0, followed: false, body }, &[to.as_str()], NOW);
}

#[test]
fn word_of_a_link_that_is_gone_does_not_bring_it_back() {
    let (mesh, links, sessions) = node(&[ME, PEER]);
    let bob = owned_by(ME, &mesh);
    links.there.lock().insert(PEER);
    mesh.link_up(&home(PEER), NOW);
    mesh.link_suspect(PEER, true, NOW);
    let session = SessionId { time: 5, node: PEER };
    mesh.control(PEER, Control::Publish { agent: bob.clone(), session, arrival: true }, NOW);
    links.there.lock().remove(&PEER);
    mesh.link_down(incarnation(PEER), NOW);
    mesh.link_suspect(PEER, false, NOW);
    send(&mesh, &bob);
    mesh.tick(NOW);
    assert_eq!(*sessions.lost.lock(), [], "it waits for the link, or for news");
}

#[test]
fn a_node_corrects_what_is_said_of_its_sessions() {
    let (mesh, links, _) = node(&[ME, PEER]);
    let bob = owned_by(ME, &mesh);
    links.there.lock().insert(PEER);
    mesh.link_up(&home(PEER), NOW);
    let own = SessionId { time: 5, node: ME };
    mesh.opened(&bob, own, NOW);
    let older = SessionId { time: 4, node: PEER };
    let moved = |was, now| Control::Moved { agent: bob.clone(), was, now };
    links.moved.lock().clear();
    mesh.control(PEER, moved(None, Some(older)), NOW);
    assert_eq!(std::mem::take(&mut *links.moved.lock()), [(PEER, Some(own))], "it is outdone");
    mesh.control(PEER, moved(Some(own), None), NOW);
    assert_eq!(std::mem::take(&mut *links.moved.lock()), [(PEER, Some(own))], "it has not ended");
    mesh.control(PEER, moved(Some(older), None), NOW);
    assert_eq!(*links.moved.lock(), []);
}

#[test]
fn a_node_is_told_when_it_is_linked_of_what_was_welcomed_without_it() {
    let (mesh, links, sessions) = node(&[ME, PEER]);
    let bob = owned_by(ME, &mesh);
    let session = SessionId { time: 5, node: ME };
    mesh.opened(&bob, session, NOW);
    for _ in 0..2 {
        links.there.lock().insert(PEER);
        mesh.link_up(&home(PEER), NOW);
        assert_eq!(std::mem::take(&mut *links.moved.lock()), [(PEER, Some(session))]);
        mesh.link_down(incarnation(PEER), NOW);
    }
    mesh.link_up(&home(PEER), NOW);
    for lane in (0..).take(LANES) {
        let barrier = Data::Barrier { agent: bob.as_str(), session };
        mesh.data(PEER, lane, &barrier, &mut Nobody(&sessions), NOW);
    }
    mesh.link_down(incarnation(PEER), NOW);
    links.moved.lock().clear();
    mesh.link_up(&home(PEER), NOW);
    assert_eq!(*links.moved.lock(), [], "it has said that it knows");
}

#[test]
fn an_owner_that_names_a_session_which_has_ended_here_is_not_believed() {
    let next = NodeId(3);
    let (mesh, links, sessions) = node(&[ME, PEER, next]);
    let bob = owned_by(PEER, &mesh);
    links.there.lock().extend([PEER, next]);
    mesh.link_up(&home(PEER), NOW);
    mesh.link_up(&home(next), NOW);
    let ended = mesh.next_session(UnixMillis(1));
    mesh.opened(&bob, ended, NOW);
    // The next home does not reach the owner, and tells the former home itself.
    let session = SessionId { time: ended.time + 1, node: next };
    mesh.control(next, Control::Moved { agent: bob.clone(), was: None, now: Some(session) }, NOW);
    send(&mesh, &bob);
    let old = Located::At(ended);
    mesh.control(PEER, Control::Located { ask: 1, agent: bob.clone(), place: old }, NOW);
    assert_eq!(*sessions.lost.lock(), [], "others may know");
}

#[test]
fn what_was_spent_by_a_session_that_has_ended_waits_for_the_next() {
    let (mesh, _, sessions) = node(&[ME]);
    let bob: AgentId = "bob".parse().expect("a name");
    let spent = Spent { minute_ns: 0, hour_ns: 1_000_000_000_000, refusals: 0 };
    let ended = mesh.next_session(UnixMillis(1));
    mesh.opened(&bob, ended, NOW);
    mesh.closed(&bob, ended, None, NOW);
    mesh.control(PEER, Control::Spent { agent: bob.clone(), session: ended, spent }, NOW);
    assert_eq!(*sessions.spent.lock(), []);
    mesh.opened(&bob, mesh.next_session(UnixMillis(2)), NOW);
    assert_eq!(*sessions.spent.lock(), [spent]);
}

#[test]
fn broadcasts_are_relayed_within_a_region_from_another_and_not_otherwise() {
    let [far, elsewhere, unlinked] = [3, 4, 5].map(NodeId);
    let (mesh, links, sessions) = node(&[ME, PEER, unlinked]);
    for (region, peer) in [("r", PEER), ("far", far), ("elsewhere", elsewhere)] {
        links.there.lock().insert(peer);
        mesh.link_up(&home_in(region, peer), NOW);
    }
    let mut batch = sessions.batch();
    mesh.data(far, 0, &Data::Start { seq: 0 }, &mut *batch, NOW);
    let mut relay = |from: NodeId, origin: NodeId| {
        let body = Body::Borrowed(b"{}");
        let broadcast = Broadcast { seq: 1, from: "ann", except: Names::NONE, body };
        let relayed = Relayed { origin: incarnation(origin), lane: 0, broadcast };
        mesh.data(from, 0, &Data::Relayed(relayed), &mut *batch, NOW);
        mesh.data(far, 0, &Data::Start { seq: 1 }, &mut *batch, NOW);
        (sessions.broadcasts.load(Ordering::Relaxed), std::mem::take(&mut *sessions.lost.lock()))
    };
    for (from, origin) in
        [(elsewhere, far), (far, far), (NodeId(9), far), (PEER, PEER), (PEER, ME), (PEER, unlinked)]
    {
        assert_eq!(relay(from, origin), (0, vec![Lost::Stray]), "{origin} by {from}");
    }
    assert_eq!(relay(PEER, far), (1, vec![]));
    assert_eq!(*sessions.missed.lock(), [Lost::Stray; 6], "those who trace are told of each");
}

#[test]
fn what_cannot_be_given_back_is_counted_and_told_of() {
    let (mesh, links, sessions) = node(&[ME, PEER]);
    links.there.lock().insert(PEER);
    mesh.link_up(&home(PEER), NOW);
    let mut batch = sessions.batch();
    mesh.data(PEER, 0, &Data::Start { seq: 0 }, &mut *batch, NOW);
    links.there.lock().clear();
    let (targets, body) = (Names::List(&["bob"]), Body::Borrowed(b"{}"));
    let direct = Direct { from: "ann", targets, followed: false, resent: false, era: 0, body };
    mesh.data(PEER, 0, &Data::Direct(direct), &mut *batch, NOW);
    assert_eq!(*sessions.lost.lock(), [Lost::LinkLost]);
    assert_eq!(*sessions.missed.lock(), [Lost::LinkLost]);
}

#[test]
fn a_broadcast_that_finds_a_node_without_a_link_is_counted() {
    let (mesh, links, sessions) = node(&[ME, PEER]);
    mesh.link_up(&home(PEER), NOW);
    let ann = "ann".parse().expect("a name");
    let say = || {
        let body = Body::Borrowed(b"{}");
        mesh.broadcast(&Outgoing { from: &ann, lane: 0, followed: false, body }, NOW);
        std::mem::take(&mut *sessions.lost.lock())
    };
    assert_eq!(say(), [Lost::LinkLost], "its link is down, or has not begun");
    links.there.lock().insert(PEER);
    assert_eq!(say(), []);
}

#[test]
fn a_broadcast_that_waits_for_more_than_a_frame_can_name_is_counted_and_breaks_no_link() {
    let (mesh, links, sessions) = node(&[ME]);
    links.there.lock().insert(PEER);
    mesh.link_up(&home(PEER), NOW);
    let ann: AgentId = "ann".parse().expect("a name");
    let message = || Outgoing { from: &ann, lane: 0, followed: false, body: Body::Borrowed(b"{}") };
    let [first, then] = [5, 6].map(|time| SessionId { time, node: PEER });
    let agent = |number: usize| -> AgentId { format!("agent-{number}").parse().expect("a name") };
    for agent in (0..=NAMES_MAX).map(agent) {
        let publish = Control::Publish { agent: agent.clone(), session: first, arrival: false };
        mesh.control(PEER, publish, NOW);
        mesh.direct(&message(), &[agent.as_str()], NOW);
    }
    // Messages may be on their way to its former home.
    let moves = |agent| {
        mesh.control(ME, Control::Moved { agent, was: Some(first), now: Some(then) }, NOW);
    };
    (0..NAMES_MAX).map(agent).for_each(moves);
    assert_eq!(mesh.broadcast(&message(), NOW).len(), NAMES_MAX);
    assert_eq!(*links.left_out.lock(), [NAMES_MAX]);
    moves(agent(NAMES_MAX));
    sessions.lost.lock().clear();
    assert_eq!(mesh.broadcast(&message(), NOW).len(), NAMES_MAX + 1);
    assert_eq!(*links.left_out.lock(), [NAMES_MAX], "no second one");
    assert!(sessions.lost.lock().contains(&Lost::RouteFull));
    assert!(sessions.missed.lock().contains(&Lost::RouteFull));
}

#[test]
fn however_many_are_looked_for_the_others_are_asked_so_much_at_a_time_and_of_each() {
    const AGENTS: usize = 10_000;
    let nodes: Vec<NodeId> = (1..=12).map(NodeId).collect();
    let (mesh, links, _) = node(&nodes);
    // There is no link to the last one: so no owner knows for sure who is nowhere.
    for peer in &nodes[1..11] {
        links.there.lock().insert(*peer);
        mesh.link_up(&home(*peer), NOW);
    }
    let from = "ann".parse().expect("a name");
    let names: Vec<String> = (0..AGENTS).map(|n| format!("nobody-{n}")).collect();
    for chunk in names.chunks(250) {
        let targets: Vec<&str> = chunk.iter().map(String::as_str).collect();
        let body = Body::Borrowed(b"{}");
        mesh.direct(&Outgoing { from: &from, lane: 0, followed: false, body }, &targets, NOW);
    }
    let mut asked = BTreeSet::new();
    for tick in 1..20 {
        let of_others = std::mem::take(&mut *links.asked.lock());
        assert!(of_others.len() <= ASKED_OF_OTHERS_MAX, "{} before tick {tick}", of_others.len());
        asked.extend(of_others);
        mesh.tick(NOW + Duration::from_millis(50 * tick));
    }
    assert_eq!(asked.len(), AGENTS);
}
