//! The engine's own: what it refuses of what it is told, seen from outside.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use parking_lot::Mutex;

use super::{Batch, Deliver, Home, Lost, Mesh, Outgoing, Outlet, Pushed};
use crate::{
    AgentId, Generation, Incarnation, NodeId, SessionId, UnixMillis,
    membership::{Load, Member, MemberState},
    wire::{Body, Control, Data, Located, Names, Spent},
};

const ME: NodeId = NodeId(1);
const PEER: NodeId = NodeId(2);
const NOW: Duration = Duration::from_secs(100);

/// The links that there are.
#[derive(Default)]
struct Links(Mutex<BTreeSet<NodeId>>);

impl Outlet for Links {
    fn control(&self, to: NodeId, _: &Control) -> bool {
        self.0.lock().contains(&to)
    }

    fn data(&self, to: NodeId, _: u8, _: &Data<'_>) -> Pushed {
        if self.0.lock().contains(&to) { Pushed::Queued } else { Pushed::NoLink }
    }
}

/// Sessions that get nothing; notes what was lost, and spent.
#[derive(Default)]
pub(crate) struct Sessions {
    lost: Mutex<Vec<Lost>>,
    spent: Mutex<Vec<Spent>>,
}

impl Deliver for Sessions {
    fn batch(&self) -> Box<dyn Batch + '_> {
        Box::new(Nobody)
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
}

struct Nobody;

impl Batch for Nobody {
    fn direct(&mut self, _: &str, _: &Body<'_>, _: bool) -> bool {
        false
    }

    fn broadcast(&mut self, _: &str, _: Names<'_>, _: &Body<'_>) {}
}

fn incarnation(node: NodeId) -> Incarnation {
    Incarnation { node, generation: Generation(1) }
}

fn home(node: NodeId) -> Home {
    Home { me: incarnation(node), region: "r".to_owned() }
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
    links.0.lock().insert(PEER);
    mesh.link_up(&home(PEER), NOW);
    mesh.link_suspect(PEER, true, NOW);
    let session = SessionId { time: 5, node: PEER };
    mesh.control(PEER, Control::Publish { agent: bob.clone(), session, arrival: true }, NOW);
    links.0.lock().remove(&PEER);
    mesh.link_down(incarnation(PEER), NOW);
    mesh.link_suspect(PEER, false, NOW);
    send(&mesh, &bob);
    mesh.tick(NOW);
    assert_eq!(*sessions.lost.lock(), [], "it waits for the link, or for news");
}

#[test]
fn an_owner_that_names_a_session_which_has_ended_here_is_not_believed() {
    let next = NodeId(3);
    let (mesh, links, sessions) = node(&[ME, PEER, next]);
    let bob = owned_by(PEER, &mesh);
    links.0.lock().extend([PEER, next]);
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
