//! The owner's side: tables of events and actions, and a naive model.

use proptest::prelude::*;

use super::*;
use crate::membership::{Load, MemberState};

const ME: NodeId = NodeId(1);

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn abc() -> AgentId {
    "abc".parse().expect("a name")
}

fn life(node: u64, generation: u64) -> Incarnation {
    Incarnation { node: NodeId(node), generation: Generation(generation) }
}

fn session(time: u64, node: u64) -> SessionId {
    SessionId { time, node: NodeId(node) }
}

/// Other nodes are of another region, so that this one owns all of its own.
fn member(node: u64, generation: u64, state: MemberState) -> Member {
    Member {
        incarnation: life(node, generation),
        name: node.to_string(),
        region: if NodeId(node) == ME { "here" } else { "there" }.to_owned(),
        version: String::new(),
        address: "127.0.0.1:1".parse().expect("an address"),
        state,
        load: Load::default(),
    }
}

fn see(directory: &mut Directory, members: &[Member], now: Duration) {
    let rings = directory.rings.changed(members, now);
    directory.members(members, rings.unwrap_or_else(|| directory.rings.clone()));
}

/// An owner that is linked to nodes 2 to 5; they have told all if it is settled.
fn owner(is_settled: bool) -> Directory {
    let mut directory = Directory::new(&Home { me: life(1, 1), region: "here".to_owned() });
    let members: Vec<Member> = (1..=5).map(|n| member(n, 1, MemberState::Alive)).collect();
    see(&mut directory, &members, at(0));
    for peer in 2..=5 {
        directory.link_up(life(peer, 1), at(0));
    }
    if is_settled {
        let ring = directory.rings.version_of("here");
        (1..=5).for_each(|peer| drop(directory.synced(NodeId(peer), ring)));
    }
    directory
}

fn told(to: &[u64], was: Option<SessionId>, is: Option<SessionId>) -> Vec<Action> {
    let to: Vec<NodeId> = to.iter().map(|node| NodeId(*node)).collect();
    moved(&abc(), &to, was, is)
}

fn accepted(to: &[u64], was: Option<SessionId>, session: SessionId) -> Vec<Action> {
    let mut actions = told(to, was, Some(session));
    let notified = to.iter().map(|node| NodeId(*node)).collect();
    actions.push(published(&abc(), session, Published::Accepted { notified }));
    actions
}

#[test]
fn what_others_told_of_a_home_is_not_ended_by_what_that_home_told_before() {
    let mut directory = owner(false);
    let (told, published) = (session(1, 2), session(2, 2));
    let def: AgentId = "def".parse().expect("a name");
    directory.moved(&abc(), None, Some(told), at(1));
    directory.publish(NodeId(2), &def, published, true, at(1));
    directory.link_up(life(2, 1), at(2));
    let ring = directory.rings.version_of("here");
    directory.synced(NodeId(2), ring);
    assert_eq!(directory.lookup(NodeId(3), "abc", true), Located::At(told));
    assert_eq!(directory.lookup(NodeId(3), "def", true), Located::Nobody);
}

#[test]
fn an_arrival_is_told_to_the_watchers_and_the_former_home() {
    let mut directory = owner(true);
    let (one, two, three) = (session(1, 2), session(2, 3), session(3, 3));
    let publish = |directory: &mut Directory, session: SessionId| {
        directory.publish(session.node, &abc(), session, true, at(1))
    };
    assert_eq!(publish(&mut directory, one), accepted(&[], None, one), "nobody to tell");
    for asker in [4, 5, 4] {
        assert_eq!(directory.lookup(NodeId(asker), "abc", false), Located::At(one));
    }
    assert_eq!(publish(&mut directory, two), accepted(&[2, 4, 5], Some(one), two));
    let same_home = publish(&mut directory, three);
    assert_eq!(same_home, accepted(&[], Some(two), three), "the same node needs no telling");
    let end = directory.withdraw(&abc(), three);
    assert_eq!(end, told(&[4, 5, 2], Some(three), None), "who was told watches, too");
    assert_eq!(directory.lookup(NodeId(4), "abc", false), Located::Nobody);
    // Who watched may not have heard yet that it has left.
    let back = publish(&mut directory, session(9, 2));
    assert_eq!(back, accepted(&[4, 5], None, session(9, 2)));
    directory.withdraw(&abc(), session(9, 2));
    directory.tick(at(60));
    let later = directory.publish(NodeId(3), &abc(), session(10, 3), true, at(61));
    assert_eq!(later, accepted(&[], None, session(10, 3)), "by now all have");
}

#[test]
fn an_older_session_is_outdone_and_a_late_goodbye_changes_nothing() {
    let mut directory = owner(true);
    let (old, new) = (session(1, 2), session(2, 3));
    directory.publish(new.node, &abc(), new, true, at(1));
    for arrival in [true, false] {
        let answer = directory.publish(old.node, &abc(), old, arrival, at(1));
        assert_eq!(answer, [published(&abc(), old, Published::Outdone(new))]);
    }
    assert_eq!(directory.withdraw(&abc(), old), []);
    assert_eq!(directory.lookup(ME, "abc", true), Located::At(new));
    let next = directory.publish(NodeId(4), &abc(), session(3, 4), true, at(1));
    let told = accepted(&[2, 3], Some(new), session(3, 4));
    assert_eq!(next, told, "who was answered with a session hears of the next");
}

#[test]
fn nodes_publish_only_their_own_and_only_over_a_link() {
    let mut directory = owner(true);
    assert_eq!(directory.publish(NodeId(3), &abc(), session(1, 2), true, at(1)), []);
    directory.link_down(life(2, 1));
    assert_eq!(directory.publish(NodeId(2), &abc(), session(1, 2), true, at(1)), []);
    assert_eq!(directory.counts().records, 0);
}

#[test]
fn who_only_wants_what_is_sure_watches_nothing_and_is_never_put_off() {
    let mut directory = owner(false);
    assert_eq!(directory.lookup(NodeId(4), "abc", false), Located::Unsettled);
    assert_eq!(directory.lookup(NodeId(4), "abc", true), Located::Nobody);
    directory.publish(NodeId(2), &abc(), session(1, 2), false, at(1));
    assert_eq!(directory.lookup(NodeId(4), "abc", true), Located::At(session(1, 2)));
    let answer = directory.publish(NodeId(3), &abc(), session(2, 3), false, at(1));
    assert_eq!(answer, accepted(&[2], Some(session(1, 2)), session(2, 3)));
}

#[test]
fn it_is_settled_when_every_member_has_told_all_under_this_very_ring() {
    let mut directory = owner(false);
    let ring = directory.rings.version_of("here");
    for peer in 1..=5 {
        assert!(!directory.is_settled("abc"), "{peer} has not told all");
        directory.synced(NodeId(peer), ring);
    }
    assert!(directory.is_settled("abc"));
    directory.synced(NodeId(2), ring ^ 1);
    assert!(!directory.is_settled("abc"), "another ring");
    directory.synced(NodeId(2), ring);
    directory.link_down(life(3, 1));
    assert!(!directory.is_settled("abc"), "what a member without a link opens is not told");
    let mut members: Vec<Member> = (1..=5).map(|n| member(n, 1, MemberState::Alive)).collect();
    members[2].state = MemberState::Dead;
    members[3].state = MemberState::Leaving;
    see(&mut directory, &members, at(1));
    assert!(directory.is_settled("abc"), "the dead have no sessions");
    directory.link_down(life(4, 1));
    assert!(!directory.is_settled("abc"), "who leaves has sessions still");
}

#[test]
fn an_owner_that_cannot_know_tells_all_of_an_arrival_and_of_its_end() {
    let mut directory = owner(false);
    let one = session(1, 2);
    let answer = directory.publish(one.node, &abc(), one, true, at(1));
    assert_eq!(answer, accepted(&[1, 3, 4, 5], None, one));
    assert_eq!(directory.withdraw(&abc(), one), told(&[1, 2, 3, 4, 5], Some(one), None));
}

#[test]
fn what_others_say_is_believed_if_it_is_newer_and_known_nodes() {
    let mut directory = owner(true);
    let (one, two) = (session(1, 2), session(2, 3));
    assert_eq!(directory.moved(&abc(), None, Some(session(9, 99)), at(1)), []);
    assert_eq!(directory.moved(&abc(), None, Some(one), at(1)), []);
    directory.lookup(NodeId(4), "abc", false);
    let learned = directory.moved(&abc(), None, Some(two), at(1));
    assert_eq!(learned, told(&[2, 4], Some(one), Some(two)));
    assert_eq!(directory.moved(&abc(), None, Some(one), at(1)), []);
    assert_eq!(directory.moved(&abc(), Some(one), None, at(1)), []);
    assert_eq!(directory.lookup(ME, "abc", true), Located::At(two));
    assert_eq!(directory.moved(&abc(), Some(two), None, at(1)), told(&[4, 2], Some(two), None));
}

#[test]
fn a_home_waits_for_those_who_were_told_on_the_word_of_others() {
    let mut directory = owner(true);
    let (one, two) = (session(1, 2), session(2, 3));
    directory.publish(one.node, &abc(), one, true, at(1));
    directory.lookup(NodeId(4), "abc", false);
    directory.moved(&abc(), None, Some(two), at(1));
    let answer = directory.publish(two.node, &abc(), two, true, at(2));
    assert_eq!(answer, accepted(&[2, 4], Some(two), two));
    let renewed = directory.publish(two.node, &abc(), two, true, at(3));
    assert_eq!(renewed, accepted(&[], Some(two), two), "it has told of it itself");
}

#[test]
fn a_home_waits_for_who_watched_a_session_that_ended_before_others_told_of_the_next() {
    let mut directory = owner(true);
    let (one, two) = (session(1, 2), session(2, 3));
    directory.publish(one.node, &abc(), one, true, at(1));
    directory.lookup(NodeId(4), "abc", false);
    directory.withdraw(&abc(), one);
    directory.moved(&abc(), None, Some(two), at(1));
    let answer = directory.publish(two.node, &abc(), two, true, at(2));
    assert_eq!(answer, accepted(&[4], Some(two), two));
}

#[test]
fn records_end_with_their_home_or_its_life() {
    for restarts in [false, true] {
        let mut directory = owner(true);
        directory.publish(NodeId(2), &abc(), session(1, 2), true, at(1));
        directory.link_down(life(2, 1));
        assert_eq!(directory.counts().records, 1, "a lost link proves no death");
        if restarts {
            directory.link_up(life(2, 2), at(2));
            directory.link_down(life(2, 1));
            assert!(directory.is_linked(NodeId(2)), "late word of the former life's link");
        } else {
            let members = [1, 3, 4, 5].map(|n| member(n, 1, MemberState::Alive));
            see(&mut directory, &members, at(2));
        }
        assert_eq!(directory.lookup(ME, "abc", true), Located::Nobody);
        assert_eq!(directory.tick(at(12)), []);
        assert_eq!(directory.counts().records, 0);
    }
}

#[test]
fn a_linked_node_that_gossip_takes_for_dead_keeps_its_records() {
    let mut directory = owner(true);
    directory.publish(NodeId(2), &abc(), session(1, 2), true, at(1));
    let members = [1, 3, 4, 5].map(|n| member(n, 1, MemberState::Alive));
    see(&mut directory, &members, at(2));
    assert_eq!(directory.lookup(ME, "abc", false), Located::At(session(1, 2)));
    directory.link_down(life(2, 1));
    assert_eq!(directory.lookup(ME, "abc", true), Located::Nobody);
}

#[test]
fn what_a_new_link_does_not_confirm_is_over() {
    let mut directory = owner(true);
    let ring = directory.rings.version_of("here");
    directory.publish(NodeId(2), &abc(), session(1, 2), true, at(1));
    directory.lookup(NodeId(4), "abc", false);
    directory.link_up(life(2, 1), at(2));
    let over = directory.synced(NodeId(2), ring);
    assert_eq!(over, told(&[4], Some(session(1, 2)), None));
    directory.publish(NodeId(2), &abc(), session(2, 2), true, at(3));
    assert_eq!(directory.synced(NodeId(2), ring), [], "only the first time on a link");
}

#[test]
fn of_many_records_so_many_are_swept_at_a_time() {
    let mut directory = owner(true);
    let ring = directory.rings.version_of("here");
    let count = 2 * u64::try_from(super::sweep::SWEPT_AT_ONCE).expect("a small number") + 1;
    for number in 0..count {
        let agent: AgentId = format!("agent-{number}").parse().expect("a name");
        directory.publish(NodeId(2), &agent, session(1, 2), false, at(1));
    }
    directory.link_up(life(2, 1), at(2));
    directory.publish(NodeId(2), &abc(), session(2, 2), true, at(2));
    let mut left = || {
        directory.synced(NodeId(2), ring);
        directory.counts().records
    };
    assert_eq!((left(), left()), (32_771, 3), "the first that it looks at stays");
    assert_eq!(left(), 1, "what it has told of stays");
}

#[test]
fn a_sweep_that_the_ring_or_a_new_link_interrupts_begins_again() {
    for by_link in [false, true] {
        let mut directory = owner(true);
        let ring = directory.rings.version_of("here");
        let count = super::sweep::SWEPT_AT_ONCE + 1;
        for number in 0..count {
            let agent: AgentId = format!("agent-{number}").parse().expect("a name");
            directory.publish(NodeId(2), &agent, session(1, 2), false, at(1));
        }
        directory.link_up(life(2, 1), at(2));
        directory.synced(NodeId(2), ring);
        assert_eq!(directory.counts().records, 1);
        let before = directory.rings.clone();
        if by_link {
            directory.link_up(life(2, 1), at(3));
        } else {
            let here = |n| Member { region: "here".to_owned(), ..member(n, 1, MemberState::Alive) };
            see(&mut directory, &[1, 2].map(here), at(3));
        }
        assert_eq!(directory.tick(at(4)), []);
        assert_eq!(
            directory.counts().records,
            1,
            "it has not told all on this link, under this ring"
        );
        directory.change_rings(before);
        directory.synced(NodeId(2), ring);
        assert_eq!(directory.counts().records, 0);
    }
}

#[test]
fn leases_end_unless_renewed() {
    let mut directory = owner(true);
    directory.publish(NodeId(2), &abc(), session(1, 2), true, at(0));
    directory.publish(NodeId(2), &abc(), session(1, 2), false, at(30));
    directory.lookup(NodeId(4), "abc", false);
    let mut ends = (1..=200).filter_map(|seconds| {
        let actions = directory.tick(at(seconds));
        (!actions.is_empty()).then_some((seconds, actions))
    });
    let (when, actions) = ends.next().expect("it ends");
    assert!((120..=130).contains(&when), "{when}");
    assert_eq!(actions, told(&[4], Some(session(1, 2)), None));
}

#[test]
fn a_former_owner_keeps_its_records_until_all_has_settled() {
    let mut directory = owner(true);
    directory.publish(NodeId(2), &abc(), session(1, 2), true, at(100));
    // A crowd joins the region: some of it owns the agent now.
    let mut members: Vec<Member> = (1..=40).map(|n| member(n, 1, MemberState::Alive)).collect();
    members.iter_mut().skip(5).for_each(|member| "here".clone_into(&mut member.region));
    see(&mut directory, &members, at(100));
    assert_ne!(directory.rings.owner("here", "abc"), Some(ME));
    let ring = directory.rings.version_of("here");
    directory.synced(NodeId(2), ring);
    directory.tick(at(109));
    assert_eq!(directory.counts().records, 1, "the window is open");
    directory.synced(NodeId(2), ring ^ 1);
    directory.tick(at(120));
    assert_eq!(directory.counts().records, 1, "its home has not told the new owner");
    directory.synced(NodeId(2), ring);
    assert_eq!(directory.tick(at(131)), []);
    assert_eq!(directory.counts().records, 0);
}

#[derive(Clone, Debug)]
enum Op {
    Publish(u64, u64, bool),
    Withdraw(u64, u64),
    Lookup(u64),
}

fn ops() -> impl Strategy<Value = Op> {
    let (time, node) = (1u64..9, 2u64..=5);
    prop_oneof![
        (time.clone(), node.clone(), any::<bool>())
            .prop_map(|(time, node, arrival)| Op::Publish(time, node, arrival)),
        (time, node.clone()).prop_map(|(time, node)| Op::Withdraw(time, node)),
        node.prop_map(Op::Lookup),
    ]
}

proptest! {
    /// Against what the rules say of one agent, without thought of memory or order.
    #[test]
    fn it_agrees_with_a_naive_model(ops in prop::collection::vec(ops(), 1..60)) {
        let mut directory = owner(true);
        let mut model: Option<(SessionId, BTreeSet<u64>)> = None;
        // The former home of an agent that has left, and who may not have heard of it.
        let mut departed: Option<(u64, BTreeSet<u64>)> = None;
        for op in ops {
            let (got, expected) = match op {
                Op::Publish(time, node, arrival) => {
                    let session = session(time, node);
                    let got = directory.publish(session.node, &abc(), session, arrival, at(1));
                    let (was, mut watchers) = match model.take() {
                        Some((known, watchers)) => (Some(known), watchers),
                        None => (None, BTreeSet::new()),
                    };
                    if let Some(newer) = was.filter(|was| *was > session) {
                        watchers.insert(node);
                        model = Some((newer, watchers));
                        (got, vec![published(&abc(), session, Published::Outdone(newer))])
                    } else {
                        let mut to = watchers.clone();
                        to.extend(was.map(|was| was.node.0));
                        to.remove(&node);
                        if was.is_some_and(|was| was.node.0 == node) {
                            to.clear();
                        }
                        let left = departed.take().filter(|(home, _)| was.is_none() && arrival && *home != node);
                        to.extend(left.into_iter().flat_map(|(_, watchers)| watchers));
                        to.remove(&node);
                        let watchers = watchers.union(&to).copied().collect();
                        model = Some((session, watchers));
                        (got, accepted(&to.into_iter().collect::<Vec<_>>(), was, session))
                    }
                }
                Op::Withdraw(time, node) => {
                    let session = session(time, node);
                    let mut got = directory.withdraw(&abc(), session);
                    got.sort_by_key(|action| format!("{action:?}"));
                    match model.take_if(|(known, _)| *known == session) {
                        Some((_, watchers)) => {
                            let to: Vec<u64> = watchers.iter().copied().collect();
                            if !watchers.is_empty() {
                                departed = Some((node, watchers));
                            }
                            (got, told(&to, Some(session), None))
                        }
                        None => (got, Vec::new()),
                    }
                }
                Op::Lookup(asker) => {
                    let place = directory.lookup(NodeId(asker), "abc", false);
                    let expected = model.as_mut().map_or(Located::Nobody, |(known, watchers)| {
                        watchers.insert(asker);
                        Located::At(*known)
                    });
                    prop_assert_eq!(place, expected);
                    continue;
                }
            };
            prop_assert_eq!(got, expected);
        }
    }
}
