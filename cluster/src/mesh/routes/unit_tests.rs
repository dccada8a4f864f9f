//! What the routes push and count, seen from outside.

use std::{cell::RefCell, collections::BTreeSet, sync::mpsc, thread};

use super::*;
use crate::{
    SessionId,
    wire::{LANES, Located},
};

/// Writes down what is done to it.
#[derive(Default)]
struct Record {
    done: RefCell<Vec<String>>,
    full: bool,
    local: RefCell<bool>,
    lost: RefCell<BTreeSet<&'static str>>,
    missed: RefCell<BTreeSet<&'static str>>,
}

impl Record {
    /// What was done. Whatever was counted as lost was also told of, for those who trace.
    fn take(&self) -> Vec<String> {
        assert_eq!(self.lost.take(), self.missed.take(), "reasons counted, and told of");
        self.done.take()
    }

    fn note(&self, what: String) {
        self.done.borrow_mut().push(what);
    }
}

impl RouteOut for Record {
    fn data(&self, to: NodeId, lane: u8, frame: &Data<'_>) -> Pushed {
        self.note(match frame {
            Data::Direct(direct) => {
                let targets: Vec<_> = direct.targets.iter().collect();
                let body = String::from_utf8_lossy(direct.body.as_slice()).into_owned();
                format!("{}: {body} for {}", to.0, targets.join(" "))
            }
            Data::Fence { agent, epoch } => format!("{}: fence {agent} {epoch} on {lane}", to.0),
            other => panic!("routes push no {other:?}"),
        });
        if self.full { Pushed::Full } else { Pushed::Queued }
    }

    fn here(&self, agent: &AgentId, _from: &AgentId, _followed: bool, body: &Body<'_>) -> bool {
        let is_here = *self.local.borrow();
        if is_here {
            self.note(format!("here: {} for {agent}", String::from_utf8_lossy(body.as_slice())));
        }
        is_here
    }

    fn unfenced(&self, agent: &AgentId) {
        self.note(format!("unfenced {agent}"));
    }

    fn lost(&self, why: Lost, messages: u64) {
        self.note(format!("lost {messages}: {why:?}"));
        self.lost.borrow_mut().insert(why.label());
    }

    fn missed(&self, why: Lost, _: &Body<'_>) {
        self.missed.borrow_mut().insert(why.label());
    }
}

/// Rings with one owner each, the last of them in force.
struct Only(&'static [NodeId]);

impl RingView for Only {
    fn number(&self) -> u32 {
        u32::try_from(self.0.len()).unwrap()
    }

    fn owner(&self, _agent: &str) -> Option<NodeId> {
        self.0.last().copied()
    }

    fn has_owned_since(&self, number: u32, owner: NodeId, _agent: &str) -> bool {
        self.0[usize::try_from(number).unwrap()..].iter().all(|by| *by == owner)
    }
}

const OWNER: NodeId = NodeId(9);
const RING: Only = Only(&[OWNER]);
const NOW: Duration = Duration::from_secs(1000);

fn agent(name: &str) -> AgentId {
    name.parse().unwrap()
}

fn session(time: u64, node: u64) -> SessionId {
    SessionId { time, node: NodeId(node) }
}

fn say(routes: &Routes, out: &Record, body: &[u8], targets: &[&str]) -> Needs {
    let from = agent("sender");
    let body = Body::Borrowed(body);
    let message = Outgoing { from: &from, lane: 0, followed: false, body };
    routes.direct(&message, targets, &RING, out, NOW)
}

fn answer(routes: &Routes, out: &Record, need: &Need, place: Located) -> Needs {
    routes.located(OWNER, need.ask, &need.agent, place, &RING, out, NOW)
}

/// Routes of node 1 to these agents, which are at these nodes.
fn known(agents: &[(&str, u64)]) -> (Routes, Record) {
    let (routes, out) = (Routes::new(NodeId(1)), Record::default());
    for (name, node) in agents {
        routes.heard(NodeId(*node), &out, NOW);
        for need in say(&routes, &out, b"first", &[name]) {
            answer(&routes, &out, &need, Located::At(session(1, *node)));
        }
    }
    out.take();
    (routes, out)
}

#[test]
fn one_frame_goes_to_each_home() {
    let (routes, out) = known(&[("agent-a", 2), ("agent-b", 3), ("agent-c", 2)]);
    let needs = say(&routes, &out, b"hi", &["agent-a", "agent-b", "agent-c", "agent-d"]);
    assert_eq!(out.take(), ["2: hi for agent-a agent-c", "3: hi for agent-b"]);
    let [need] = needs.as_slice() else { panic!("{needs:?}") };
    assert_eq!((need.agent.as_str(), need.whom), ("agent-d", Whom::Owner));
}

#[test]
fn nobody_else_says_what_is_here() {
    let (routes, out) = known(&[]);
    let needs = say(&routes, &out, b"a", &["agent-a"]);
    answer(&routes, &out, &needs[0], Located::At(session(1, 1)));
    routes.moved(OWNER, &agent("agent-a"), None, Some(session(1, 1)), &RING, &out, NOW);
    assert_eq!(out.take(), [""; 0], "it waits for another answer");
}

#[test]
fn an_owner_that_has_not_heard_of_a_session_is_not_believed() {
    for (ended, seconds, left) in [(false, 9, 1), (true, 9, 0), (false, 10, 0)] {
        let (routes, out) = known(&[]);
        routes.heard(NodeId(2), &out, NOW);
        let agent_a = agent("agent-a");
        let before = NOW.saturating_sub(Duration::from_secs(seconds));
        routes.moved(NodeId(2), &agent_a, None, Some(session(1, 2)), &RING, &out, before);
        if ended {
            routes.moved(OWNER, &agent_a, Some(session(1, 2)), None, &RING, &out, before);
        }
        out.take();
        let needs = say(&routes, &out, b"a", &["agent-a"]);
        answer(&routes, &out, &needs[0], Located::Nobody);
        assert_eq!(routes.open.load(Ordering::Relaxed), left, "{ended} {seconds}");
    }
}

#[test]
fn what_comes_back_with_names_that_nobody_has_is_lost() {
    let (routes, out) = known(&[("agent-a", 2)]);
    for (from, target) in [("no name", "agent-a"), ("sender", "no name")] {
        let (targets, body) = (&[target], Body::Borrowed(b"hi"));
        let (targets, era) = (Names::List(targets), routes.era());
        let direct = Direct { followed: false, resent: false, era, from, targets, body };
        routes.bounced(NodeId(2), 0, &direct, &out, NOW);
        assert_eq!(out.take(), ["lost 1: Stale"], "{from} {target}");
    }
}

#[test]
fn a_bounce_of_an_earlier_era_changes_nothing() {
    let (routes, out) = known(&[("agent-a", 2)]);
    let direct = Direct {
        followed: false,
        resent: false,
        era: routes.era() - 1,
        from: "sender",
        targets: Names::List(&["agent-a"]),
        body: Body::Borrowed(b"hi"),
    };
    routes.bounced(NodeId(2), 0, &direct, &out, NOW);
    assert_eq!(out.take(), ["lost 1: Stale"]);
    assert!(say(&routes, &out, b"still known", &["agent-a"]).is_empty());
    assert_eq!(out.take(), ["2: still known for agent-a"]);
}

#[test]
fn what_came_back_does_not_keep_what_came_with_it() {
    let (routes, out) = known(&[("agent-a", 2)]);
    let received = Bytes::from(vec![b'x'; 1 << 16]);
    let direct = Direct {
        followed: false,
        resent: false,
        era: routes.era(),
        from: "sender",
        targets: Names::List(&["agent-a"]),
        body: Body::Shared(received.slice(..10)),
    };
    routes.bounced(NodeId(2), 0, &direct, &out, NOW);
    drop(direct);
    assert!(routes.room.used() > 0, "it waits");
    assert!(received.is_unique(), "what came is free again");
}

#[test]
fn a_question_is_asked_once() {
    let (routes, out) = known(&[]);
    routes.heard(NodeId(2), &out, NOW);
    let needs = say(&routes, &out, b"a", &["agent-a"]);
    assert!(say(&routes, &out, b"b", &["agent-a"]).is_empty());
    answer(&routes, &out, &needs[0], Located::At(session(1, 2)));
    assert_eq!(out.take(), ["2: a for agent-a", "2: b for agent-a"]);
}

#[test]
fn a_full_lane_is_not_counted_here() {
    let (routes, mut out) = known(&[("agent-a", 2)]);
    out.full = true;
    assert!(say(&routes, &out, b"hi", &["agent-a"]).is_empty());
    assert_eq!(out.take(), ["2: hi for agent-a"]);
}

#[test]
fn a_session_here_is_unfenced_behind_what_waited() {
    let (routes, out) = known(&[("agent-a", 2)]);
    let (fenced, _) = routes.arrived_here(&agent("agent-a"), session(2, 1), &out, NOW);
    assert!(fenced);
    out.local.replace(true);
    say(&routes, &out, b"hi", &["agent-a"]);
    let pushed = out.take();
    assert_eq!(pushed.len(), LANES, "{pushed:?}");
    let epoch: u64 = pushed[0].split(' ').nth(3).unwrap().parse().unwrap();
    for lane in 0..4 {
        assert_eq!(out.take(), [""; 0]);
        routes.fenced(NodeId(2), lane, "agent-a", epoch, &out, NOW);
    }
    assert_eq!(out.take(), ["here: hi for agent-a", "unfenced agent-a"]);
    say(&routes, &out, b"late", &["agent-a"]);
    assert_eq!(out.take(), ["here: late for agent-a"], "who had seen the fence is not overtaken");
}

#[test]
fn without_a_route_a_session_here_is_not_fenced() {
    let (routes, out) = known(&[]);
    assert_eq!(
        routes.arrived_here(&agent("agent-a"), session(2, 1), &out, NOW),
        (false, Needs::new())
    );
}

#[test]
fn a_new_owner_is_asked_before_the_route_is_used() {
    let (routes, out) = known(&[("agent-a", 2)]);
    let from = agent("sender");
    let message =
        Outgoing { from: &from, lane: 0, followed: false, body: Body::Borrowed(b"verified") };
    let other = Only(&[OWNER, NodeId(8)]);
    let needs = routes.direct(&message, &["agent-a"], &other, &out, NOW);
    assert_eq!(out.take(), [""; 0]);
    let at = Located::At(session(1, 2));
    routes.located(NodeId(8), needs[0].ask, &needs[0].agent, at, &other, &out, NOW);
    assert_eq!(out.take(), ["2: verified for agent-a"]);
    assert!(routes.direct(&message, &["agent-a"], &other, &out, NOW).is_empty());
}

#[test]
fn a_ring_that_came_and_went_leaves_its_doubts() {
    let (routes, out) = known(&[("agent-a", 2)]);
    let say = |ring: &Only| {
        let from = agent("sender");
        let body = Body::Borrowed(b"hi");
        let message = Outgoing { from: &from, lane: 0, followed: false, body };
        routes.direct(&message, &["agent-a"], ring, &out, NOW)
    };
    assert!(say(&Only(&[OWNER, OWNER])).is_empty(), "the same owner");
    assert!(say(&RING).is_empty(), "seen by a sender that is late");
    assert_eq!(say(&Only(&[OWNER, OWNER, NodeId(8), OWNER])).len(), 1, "it asks");
}

#[test]
fn a_silent_home_is_verified_and_waited_for() {
    let (routes, out) = known(&[("agent-a", 2)]);
    routes.silent(NodeId(2), &out, NOW);
    let needs = say(&routes, &out, b"hi", &["agent-a"]);
    answer(&routes, &out, &needs[0], Located::At(session(1, 2)));
    assert_eq!(out.take(), [""; 0]);
    routes.heard(NodeId(2), &out, NOW);
    let done = out.take();
    assert_eq!(done[0], "2: hi for agent-a");
    // The owner's word was given while the home was not heard: it may have lost sight of it as well.
    assert!(done[1..].iter().all(|done| done.starts_with("2: fence agent-a")), "{done:?}");
    assert_eq!(done.len(), 5, "verified before it is used again");
}

/// Looks through every shard, and once more.
fn sweep(routes: &Routes, out: &Record) {
    (0..=SHARDS).for_each(|_| assert!(routes.tick(out, NOW).is_empty()));
}

fn count_known(routes: &Routes) -> usize {
    routes.shards.iter().map(|shard| shard.read().known.len()).sum()
}

#[test]
fn a_route_ends_with_the_link_to_its_home() {
    for is_swept in [false, true] {
        let (routes, out) = known(&[("agent-a", 2), ("agent-b", 3)]);
        routes.link_lost(NodeId(2), &out, NOW);
        if is_swept {
            sweep(&routes, &out);
            assert_eq!(count_known(&routes), 1);
            assert!(!routes.heard.load().remembers_losses());
        }
        routes.heard(NodeId(2), &out, NOW);
        // What was on its way is lost with the link: nobody is asked to give it back.
        routes.moved(OWNER, &agent("agent-a"), None, Some(session(2, 3)), &RING, &out, NOW);
        assert_eq!((out.take().len(), routes.open.load(Ordering::Relaxed)), (0, 0), "{is_swept}");
        let needs = say(&routes, &out, b"hi", &["agent-a"]);
        answer(&routes, &out, &needs[0], Located::At(session(2, 3)));
        assert!(say(&routes, &out, b"hi", &["agent-b"]).is_empty(), "the other stands");
        assert_eq!(out.take(), ["3: hi for agent-a", "3: hi for agent-b"]);
    }
}

#[test]
fn a_silence_leaves_its_doubts_and_what_came_before_comes_back() {
    let (routes, out) = known(&[("agent-a", 2)]);
    routes.silent(NodeId(2), &out, NOW);
    sweep(&routes, &out);
    routes.heard(NodeId(2), &out, NOW);
    assert_eq!(count_known(&routes), 1);
    let needs = say(&routes, &out, b"hi", &["agent-a"]);
    assert_eq!((needs.len(), out.take().len()), (1, 0), "verified first");
    routes.heard(NodeId(3), &out, NOW);
    answer(&routes, &out, &needs[0], Located::At(session(2, 3)));
    let done = out.take();
    assert!(done.iter().all(|done| done.starts_with("2: fence agent-a")), "{done:?}");
    assert_eq!(done.len(), LANES);
}

#[test]
fn an_owner_whose_link_was_lost_is_asked_again() {
    for is_swept in [false, true] {
        let (routes, out) = known(&[("agent-a", 2)]);
        routes.heard(OWNER, &out, NOW);
        routes.link_lost(OWNER, &out, NOW);
        if is_swept {
            sweep(&routes, &out);
        }
        routes.heard(OWNER, &out, NOW);
        let needs = say(&routes, &out, b"hi", &["agent-a"]);
        assert_eq!((needs.len(), out.take().len()), (1, 0), "{is_swept}");
        answer(&routes, &out, &needs[0], Located::At(session(1, 2)));
        assert!(say(&routes, &out, b"hi", &["agent-a"]).is_empty(), "its word is good again");
        assert_eq!(out.take().len(), 2);
    }
}

#[test]
fn what_waits_for_many_takes_room_once() {
    let (routes, out) = (Routes::new(NodeId(1)), Record::default());
    let names: Vec<String> = (0..256).map(|n| format!("agent-{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    for _ in 0..4 {
        say(&routes, &out, &vec![0; 64 << 10], &names);
    }
    assert_eq!(out.take(), Vec::<String>::new(), "none is lost");
    assert_eq!(routes.room.used(), 4 * (64 << 10) + 4 * 256 * 512);
    routes.tick(&out, NOW + Duration::from_secs(4));
    assert_eq!(routes.room.used(), 0);
}

#[test]
fn all_routes_share_their_room() {
    let (routes, out) = known(&[]);
    let count = |done: &[String], what| done.iter().filter(|done| *done == what).count();
    let body = vec![b'x'; 1 << 20];
    for number in 0..40 {
        say(&routes, &out, &body, &[&format!("agent-{number}")]);
    }
    assert_eq!(count(&out.take(), "lost 1: RouteFull"), 9);
    routes.tick(&out, NOW + route::RESOLVE_DEADLINE);
    assert_eq!(count(&out.take(), "lost 1: Unresolved"), 31);
    assert_eq!((routes.room.used(), routes.open.load(Ordering::Relaxed)), (0, 0));
}

#[test]
fn idle_routes_are_forgotten() {
    let (routes, out) = known(&[("agent-a", 2)]);
    let count = || count_known(&routes);
    let tick_all = |now| (0..SHARDS).for_each(|_| assert!(routes.tick(&out, now).is_empty()));
    tick_all(NOW + Duration::from_mins(10));
    assert_eq!(count(), 1);
    tick_all(NOW + Duration::from_mins(10) + Duration::from_secs(1));
    assert_eq!(count(), 0);
}

#[test]
fn a_broadcast_goes_along_open_routes_only_where_it_must() {
    let (routes, out) = known(&[("agent-a", 2), ("agent-b", 2)]);
    say(&routes, &out, b"waits", &["agent-c"]);
    routes.moved(OWNER, &agent("agent-a"), None, Some(session(2, 3)), &RING, &out, NOW);
    let except_of = |sender: &str| {
        let from = agent(sender);
        let body = Body::Borrowed(b"all");
        let message = Outgoing { from: &from, lane: 0, followed: false, body };
        let mut pushed = Vec::new();
        let (mut except, _) =
            routes.broadcast(&message, &out, NOW, |except| pushed = except.to_vec());
        assert_eq!(pushed, except);
        except.sort();
        except
    };
    assert_eq!(except_of("sender"), [agent("agent-a"), agent("agent-c")]);
    assert_eq!(except_of("another"), [agent("agent-a")]);
    assert_eq!(except_of("agent-a"), [], "nobody gets his own");
}

#[test]
fn only_an_agent_with_a_route_waits_for_broadcasts_that_are_under_way() {
    let (routes, _) = known(&[("agent-a", 2)]);
    let routes = Arc::new(routes);
    let under_way = routes.gate.read();
    let (tell, told) = mpsc::sync_channel(2);
    let moving = ["agent-z", "agent-a"].map(|name| {
        let (routes, tell) = (Arc::clone(&routes), tell.clone());
        thread::spawn(move || {
            let out = Record::default();
            routes.moved(OWNER, &agent(name), None, Some(session(2, 3)), &RING, &out, NOW);
            tell.send(name).unwrap();
        })
    });
    assert_eq!(told.recv_timeout(Duration::from_secs(10)), Ok("agent-z"));
    drop(under_way);
    assert_eq!(told.recv_timeout(Duration::from_secs(10)), Ok("agent-a"));
    for thread in moving {
        thread.join().unwrap();
    }
}

#[test]
fn strange_bounces_and_echoes_change_nothing() {
    let (routes, out) = known(&[("agent-a", 2)]);
    let direct = Direct {
        followed: false,
        resent: false,
        era: routes.era(),
        from: "sender",
        targets: Names::List(&["agent-a", "agent-z"]),
        body: Body::Borrowed(b"hi"),
    };
    routes.bounced(NodeId(3), 0, &direct, &out, NOW);
    assert_eq!(out.take(), ["lost 1: Stale", "lost 1: Stale"]);
    routes.bounced(NodeId(2), 200, &direct, &out, NOW);
    assert_eq!(out.take().iter().filter(|done| done.contains("Stale")).count(), 2);
    routes.fenced(NodeId(2), 200, "agent-a", 0, &out, NOW);
    routes.fenced(NodeId(2), 0, "Not An Id", 0, &out, NOW);
}
