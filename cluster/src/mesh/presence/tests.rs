//! The home's side: tables of events and actions, and admissions in any order.

use proptest::prelude::*;

use super::*;
use crate::{
    Generation, Incarnation,
    membership::{Load, Member, MemberState},
};

const ME: NodeId = NodeId(1);
const START: Duration = Duration::from_secs(100);

fn after(millis: u64) -> Duration {
    START + Duration::from_millis(millis)
}

fn abc() -> AgentId {
    "abc".parse().expect("a name")
}

fn session(time: u64) -> SessionId {
    SessionId { time, node: ME }
}

fn home(node: u64) -> Home {
    let me = Incarnation { node: NodeId(node), generation: Generation(1) };
    Home { me, region: region(node) }
}

/// Each node's own: so that it owns every agent there.
fn region(node: u64) -> String {
    format!("region-{node}")
}

fn rings(before: &Rings, nodes: &[u64]) -> Rings {
    let member = |node: &u64| Member {
        incarnation: home(*node).me,
        name: node.to_string(),
        region: region(*node),
        version: String::new(),
        address: "127.0.0.1:1".parse().expect("an address"),
        state: MemberState::Alive,
        load: Load::default(),
    };
    let members: Vec<Member> = nodes.iter().map(member).collect();
    before.changed(&members, START).expect("they differ")
}

/// A home that is linked to these nodes, of which some own everything.
fn presence(linked: &[u64], owners: &[u64]) -> Presence {
    let mut presence = Presence::new(&home(ME.0));
    for node in linked {
        presence.link_up(&home(*node));
    }
    presence.ring_changed(rings(&Rings::default(), owners));
    presence.tick(START);
    presence
}

fn admit() -> Action {
    Action::Admit { agent: abc(), session: session(1) }
}

/// Admitted though a node has not said that it knows of the session: it is told once more, and its
/// broadcasts pass the session by.
fn admit_behind(node: u64) -> Vec<Action> {
    let passed = NodeId(node);
    let pass_by = Action::PassBy { agent: abc(), session: session(1), node: passed, heard: 0 };
    [tell(&[node]), vec![pass_by, admit()]].concat()
}

fn arrival(owner: u64) -> Action {
    publish(NodeId(owner), &abc(), session(1), true)
}

fn synced(presence: &Presence, node: u64) -> Action {
    let ring = presence.rings.version_of(&region(node));
    Action::Send { to: NodeId(node), frame: Control::Synced { ring } }
}

fn tell(nodes: &[u64]) -> Vec<Action> {
    let frame = Control::Moved { agent: abc(), was: None, now: Some(session(1)) };
    let send = |to: &u64| Action::Send { to: NodeId(*to), frame: frame.clone() };
    nodes.iter().map(send).collect()
}

fn accept(presence: &mut Presence, owner: u64, notified: &[u64], ms: u64) -> Vec<Action> {
    let notified = notified.iter().map(|node| NodeId(*node)).collect();
    let outcome = Published::Accepted { notified };
    presence.published(NodeId(owner), &abc(), session(1), outcome, after(ms))
}

/// The actions that a barrier on every lane brings.
fn barriers(presence: &mut Presence, from: u64, ms: u64) -> Vec<Action> {
    let lanes = (0u8..).take(LANES);
    let of = |lane| presence.barrier(NodeId(from), lane, "abc", session(1), after(ms));
    lanes.flat_map(of).collect()
}

#[test]
fn alone_a_session_is_admitted_at_once() {
    let mut nobody = Presence::new(&home(ME.0));
    assert_eq!(nobody.opened(&abc(), session(1), START), [admit()]);
    let mut own = presence(&[], &[1]);
    assert_eq!(own.opened(&abc(), session(1), START), [arrival(1)]);
    assert_eq!(accept(&mut own, 1, &[], 0), [admit()]);
}

#[test]
fn it_waits_for_every_owner_and_every_lane_of_who_was_told() {
    let mut presence = presence(&[2, 3, 4, 5], &[2, 3]);
    assert_eq!(presence.opened(&abc(), session(1), START), [arrival(2), arrival(3)]);
    assert_eq!(barriers(&mut presence, 4, 1), [], "before the owner's word");
    assert_eq!(accept(&mut presence, 2, &[4, 5], 2), []);
    assert_eq!(accept(&mut presence, 3, &[4], 3), []);
    for lane in [0, 1, 2, 2, 9] {
        let still = presence.barrier(NodeId(5), lane, "abc", session(1), after(4));
        assert_eq!(still, [], "not on every lane");
    }
    assert_eq!(presence.barrier(NodeId(5), 3, "abc", session(2), after(5)), []);
    assert_eq!(presence.barrier(NodeId(5), 3, "abc", session(1), after(6)), [admit()]);
    assert_eq!(barriers(&mut presence, 5, 7), [], "once");
    assert_eq!(presence.tick(after(2000)).iter().filter(|a| **a == admit()).count(), 0);
}

#[test]
fn an_owner_that_does_not_answer_is_stood_in_for() {
    let mut presence = presence(&[2, 3], &[2]);
    presence.opened(&abc(), session(1), START);
    assert_eq!(presence.tick(after(299)), []);
    assert_eq!(presence.tick(after(300)), tell(&[2, 3]));
    assert_eq!(presence.tick(after(350)), [], "once");
    assert_eq!(barriers(&mut presence, 3, 400), []);
    assert_eq!(accept(&mut presence, 2, &[], 401), [], "too late to count");
    assert_eq!(barriers(&mut presence, 2, 402), [admit()]);
}

#[test]
fn whom_the_owner_did_not_reach_the_home_tells() {
    let mut presence = presence(&[2, 3], &[2]);
    presence.opened(&abc(), session(1), START);
    assert_eq!(accept(&mut presence, 2, &[3], 1), []);
    assert_eq!(presence.tick(after(299)), []);
    assert_eq!(presence.tick(after(300)), tell(&[3]));
    assert_eq!(presence.tick(after(350)), [], "once");
    presence.link_up(&home(4));
    assert_eq!(barriers(&mut presence, 3, 360), [admit()]);
}

#[test]
fn a_silent_node_is_told_and_passed_by_whatever_the_owner_says() {
    let mut presence = presence(&[2, 3], &[2]);
    presence.link_suspect(NodeId(3), true, START);
    presence.opened(&abc(), session(1), START);
    assert_eq!(accept(&mut presence, 2, &[], 1), admit_behind(3));
}

#[test]
fn a_session_in_the_place_of_one_that_nobody_may_know_of_is_told_to_all() {
    let mut presence = presence(&[2, 3], &[2]);
    presence.opened(&abc(), session(0), START);
    let expected = [vec![arrival(2)], tell(&[2, 3])].concat();
    assert_eq!(presence.opened(&abc(), session(1), after(1)), expected);
}

#[test]
fn on_a_new_link_a_node_is_told_again() {
    let mut presence = presence(&[2, 3], &[2]);
    presence.opened(&abc(), session(1), START);
    accept(&mut presence, 2, &[3, 4], 1);
    presence.link_up(&home(4));
    assert_eq!(presence.tick(after(300)), tell(&[3, 4]));
    presence.link_down(NodeId(4), after(310));
    presence.link_up(&home(4));
    assert_eq!(presence.tick(after(320)), tell(&[4]));
}

#[test]
fn an_owner_that_cannot_answer_is_not_waited_for() {
    let mut no_link = presence(&[3], &[2]);
    assert_eq!(no_link.opened(&abc(), session(1), START), tell(&[3]));
    assert_eq!(barriers(&mut no_link, 3, 1), [admit()]);

    let mut own_word = presence(&[], &[1, 2]);
    assert_eq!(own_word.opened(&abc(), session(1), START), [arrival(1)], "its own is awaited");
    assert_eq!(accept(&mut own_word, 1, &[], 1), [admit()]);

    let mut no_owner = presence(&[3], &[1]);
    no_owner.rings = Rings::default();
    assert_eq!(no_owner.opened(&abc(), session(1), START), tell(&[3]));

    let mut suspect = presence(&[2, 3], &[2]);
    suspect.link_suspect(NodeId(2), true, START);
    let expected = [vec![arrival(2)], tell(&[2, 3])].concat();
    assert_eq!(suspect.opened(&abc(), session(1), START), expected);
    let passed_by: Vec<Action> = admit_behind(2).split_off(1);
    assert_eq!(barriers(&mut suspect, 3, 1), passed_by, "told already");

    let mut lost = presence(&[2, 3], &[2]);
    lost.opened(&abc(), session(1), START);
    assert_eq!(lost.link_down(NodeId(2), after(1)), tell(&[3]));
    assert_eq!(lost.link_down(NodeId(3), after(2)), [admit()]);
}

#[test]
fn who_was_told_and_is_lost_or_suspect_is_not_waited_for() {
    let mut presence = presence(&[2, 3, 4], &[2]);
    presence.opened(&abc(), session(1), START);
    assert_eq!(accept(&mut presence, 2, &[3, 4], 1), []);
    assert_eq!(presence.link_suspect(NodeId(3), true, after(2)), []);
    assert_eq!(presence.link_down(NodeId(4), after(3)), admit_behind(3));
}

#[test]
fn no_admission_passes_its_deadline() {
    let mut presence = presence(&[2, 3], &[2]);
    presence.opened(&abc(), session(1), START);
    assert_eq!(accept(&mut presence, 2, &[3], 1), []);
    assert!(!presence.tick(after(999)).contains(&admit()));
    assert!(presence.tick(after(1000)).contains(&admit()));
    assert_eq!(presence.counts(), Counts { sessions: 1, pending: 0 });
}

#[test]
fn the_older_of_two_sessions_is_outdone_whoever_says_so() {
    let by = SessionId { time: 9, node: NodeId(2) };
    let outdone = Action::Outdone { agent: abc(), session: session(1), by };
    let mut told = presence(&[2], &[2]);
    told.opened(&abc(), session(1), START);
    assert_eq!(told.outdone(&abc(), by), std::slice::from_ref(&outdone));
    assert_eq!(told.closed(&abc(), session(1)), [], "its record is the newer one's");
    assert_eq!(accept(&mut told, 2, &[], 1), [], "never admitted then");

    let mut answered = presence(&[2], &[2]);
    answered.opened(&abc(), session(1), START);
    let outcome = Published::Outdone(by);
    let answer = answered.published(NodeId(2), &abc(), session(1), outcome, after(1));
    assert_eq!(answer, [outdone]);

    let mut newer = presence(&[2], &[2]);
    newer.opened(&abc(), session(3), START);
    let older = SessionId { time: 2, node: NodeId(2) };
    assert_eq!(newer.outdone(&abc(), older), []);
    let by = session(3);
    let late = Action::Outdone { agent: abc(), session: session(1), by };
    assert_eq!(newer.opened(&abc(), session(1), START), [late]);
    assert_eq!(newer.session_of("abc"), Some(session(3)));
}

#[test]
fn a_goodbye_is_told_to_the_owners_and_an_old_one_to_nobody() {
    let mut presence = presence(&[2, 3], &[2, 3, 4]);
    presence.opened(&abc(), session(1), START);
    presence.opened(&abc(), session(2), START);
    assert_eq!(presence.closed(&abc(), session(1)), []);
    let withdraw = |to| {
        let frame = Control::Withdraw { agent: abc(), session: session(2) };
        Action::Send { to: NodeId(to), frame }
    };
    assert_eq!(presence.closed(&abc(), session(2)), [withdraw(2), withdraw(3)]);
    assert_eq!(presence.closed(&abc(), session(2)), []);
}

#[test]
fn a_new_owner_is_told_of_its_sessions_and_all_that_they_were_told() {
    let mut presence = presence(&[2, 3], &[2]);
    presence.opened(&abc(), session(1), START);
    accept(&mut presence, 2, &[], 1);
    let actions = presence.ring_changed(rings(&presence.rings.clone(), &[2, 3]));
    let renewed = publish(NodeId(3), &abc(), session(1), false);
    let told = [1, 2, 3].map(|node| synced(&presence, node));
    assert_eq!(actions, [vec![renewed], told.to_vec()].concat());
}

#[test]
fn a_session_that_waits_waits_for_its_new_owner_too() {
    let mut presence = presence(&[2, 3], &[2]);
    presence.opened(&abc(), session(1), START);
    let actions = presence.ring_changed(rings(&presence.rings.clone(), &[2, 3]));
    assert_eq!(actions.first(), Some(&arrival(3)));
    assert_eq!(accept(&mut presence, 2, &[], 1), []);
    assert_eq!(accept(&mut presence, 3, &[], 2), [admit()]);
}

#[test]
fn a_new_link_brings_all_that_the_node_owns() {
    let mut presence = presence(&[3], &[2, 3]);
    presence.opened(&abc(), session(1), START);
    let renewed = publish(NodeId(2), &abc(), session(1), false);
    assert_eq!(presence.link_up(&home(2)), [renewed, synced(&presence, 2)]);
}

/// What is told to whom: a session's publication by its agent, or that this was all.
fn told(actions: &[Action]) -> Vec<(u64, String)> {
    let told = |action: &Action| match action {
        Action::Send { to, frame: Control::Publish { agent, .. } } => (to.0, agent.to_string()),
        Action::Send { to, frame: Control::Synced { .. } } => (to.0, "all".to_owned()),
        other => panic!("{other:?}"),
    };
    actions.iter().map(told).collect()
}

/// A home of five sessions, which are told two at a time; nobody is linked yet.
fn slow(owners: &[u64]) -> Presence {
    let mut presence = presence(&[], owners);
    for (number, agent) in ["a-1", "b-2", "c-3", "d-4", "e-5"].iter().enumerate() {
        presence.opened(&agent.parse().expect("a name"), session(number as u64), START);
    }
    presence.tick(after(1_000));
    presence.keep_pace(Pace { looks: 2, frames: 100 });
    presence
}

fn expected(told: &[(u64, &str)]) -> Vec<(u64, String)> {
    told.iter().map(|(node, what)| (*node, (*what).to_owned())).collect()
}

#[test]
fn much_is_told_a_little_at_a_time_and_that_it_was_all_only_then() {
    let mut home = slow(&[2]);
    assert_eq!(told(&home.link_up(&super::tests::home(2))), expected(&[(2, "a-1"), (2, "b-2")]));
    // It was told of what comes meanwhile, and is not told of what has gone.
    assert_eq!(home.closed(&"c-3".parse().expect("a name"), session(2)).len(), 1);
    assert_eq!(told(&home.tick(after(1_050))), expected(&[(2, "d-4"), (2, "e-5"), (2, "all")]));
    assert_eq!(home.tick(after(1_100)), []);
}

#[test]
fn frames_are_bounded_like_looks() {
    let mut home = slow(&[2]);
    home.keep_pace(Pace { looks: 100, frames: 4 });
    assert_eq!(told(&home.link_up(&super::tests::home(2))).len(), 4);
    assert_eq!(told(&home.tick(after(1_050))), expected(&[(2, "e-5"), (2, "all")]));
}

#[test]
fn rings_that_change_meanwhile_start_it_over() {
    let mut home = slow(&[2]);
    home.link_up(&super::tests::home(2));
    let rings = rings(&home.rings.clone(), &[2, 3]);
    assert_eq!(told(&home.ring_changed(rings)), expected(&[]), "enough was said since the tick");
    let mut all = Vec::new();
    for ms in (1_050..=1_300).step_by(50) {
        all.extend(told(&home.tick(after(ms))));
    }
    let names = ["a-1", "b-2", "c-3", "d-4", "e-5", "all"].map(|name| (2, name));
    assert_eq!(all, expected(&[&names[..], &[(1, "all")]].concat()));
}

#[test]
fn who_are_told_everything_are_told_in_one_go_and_who_is_lost_no_more() {
    let mut home = slow(&[2, 3, 4]);
    home.link_up(&super::tests::home(2));
    home.link_up(&super::tests::home(3));
    home.link_up(&super::tests::home(4));
    home.link_down(NodeId(2), after(1_010));
    let first = told(&home.tick(after(1_050)));
    assert_eq!(first, expected(&[(3, "a-1"), (4, "a-1"), (3, "b-2"), (4, "b-2")]));
}

#[test]
fn each_owner_is_told_anew_once_in_thirty_seconds_and_not_all_at_once() {
    for step in [50, 1000, 6000, 60_000] {
        let mut presence = presence(&[2, 3], &[1, 2, 3]);
        presence.opened(&abc(), session(1), START);
        presence.tick(after(0));
        let mut times: BTreeMap<NodeId, u64> = BTreeMap::new();
        for ms in (step..=60_000).step_by(usize::try_from(step).expect("small")) {
            for action in presence.tick(after(ms)) {
                if let Action::Send { to, frame: Control::Publish { arrival: false, .. } } = action
                {
                    *times.entry(to).or_default() += 1;
                }
            }
        }
        let expected = if step == 60_000 { 1 } else { 2 };
        assert_eq!(times, [1, 2, 3].map(|node| (NodeId(node), expected)).into(), "{step} ms");
    }
}

proptest! {
    /// Whatever comes in whatever order, a session is admitted or outdone or closed, by its deadline.
    #[test]
    fn every_admission_ends_once(
        events in prop::collection::vec((0u8..6, 2u64..6, 0u64..200), 0..60),
    ) {
        let mut presence = presence(&[2, 3, 4], &[2, 3]);
        let mut actions = presence.opened(&abc(), session(1), START);
        let mut now = 0;
        for (what, node, ms) in events {
            now += ms;
            actions.extend(match what {
                0 => accept(&mut presence, node, &[2, 3, 4, 5], now),
                1 => barriers(&mut presence, node, now),
                2 => presence.link_down(NodeId(node), after(now)),
                3 => presence.link_up(&home(node)),
                4 => presence.link_suspect(NodeId(node), ms % 2 == 0, after(now)),
                _ => presence.tick(after(now)),
            });
            let admitted = actions.iter().filter(|action| **action == admit()).count();
            prop_assert!(admitted <= 1);
        }
        actions.extend(presence.tick(after(now.max(1000))));
        prop_assert_eq!(actions.iter().filter(|action| **action == admit()).count(), 1);
    }
}
