//! Every small situation, step by step to its end.

use super::*;

/// Seven nodes: one for each of five seeds, and a second one for `a` and for `b`, whose disks were lost.
const NODES: [(u64, &str); 7] =
    [(1, "a"), (2, "b"), (3, "c"), (4, "d"), (5, "e"), (6, "a"), (7, "b")];

const WANTED: [&[&str]; 6] = [
    &["a"],
    &["a", "b", "c"],
    &["c", "b", "a"],
    &["a", "b", "d"],
    &["c", "d", "e"],
    &["a", "b", "c", "d", "e"],
];

fn slots(slots: &[&str]) -> Vec<String> {
    slots.iter().map(|slot| (*slot).to_owned()).collect()
}

fn nodes(nodes: &[u64]) -> BTreeMap<NodeId, String> {
    let slot = |node: u64| NODES[usize::try_from(node - 1).unwrap()].1.to_owned();
    nodes.iter().map(|node| (NodeId(*node), slot(*node))).collect()
}

fn situation(voters: &[u64], alive: &[u64], wanted: &[&str]) -> Situation {
    Situation {
        voters: nodes(voters),
        learners: BTreeMap::new(),
        wanted: slots(wanted),
        candidates: nodes(alive),
        alive: alive.iter().copied().map(NodeId).collect(),
        claimants: BTreeSet::new(),
    }
}

fn caught_up(mut now: Situation) -> Situation {
    let learners = now.candidates.iter().filter(|(node, _)| !now.voters.contains_key(node));
    now.learners =
        learners.map(|(n, slot)| (*n, Learner { slot: slot.clone(), lag: Some(0) })).collect();
    now.learners.retain(|_, learner| now.wanted.contains(&learner.slot));
    now
}

fn changes_to(now: &Situation) -> Vec<u64> {
    match next(now) {
        Step::Change(voters) => voters.into_iter().map(|node| node.0).collect(),
        other => panic!("{other:?} in {now:?}"),
    }
}

#[test]
fn one_voter_becomes_three_and_five_at_once_when_all_have_caught_up() {
    let mut now = situation(&[1], &[1, 2, 3], &["a", "b", "c"]);
    assert_eq!(next(&now), Step::Teach { node: NodeId(2), slot: "b".into() });
    now.learners.insert(NodeId(2), Learner { slot: "b".into(), lag: Some(0) });
    assert_eq!(next(&now), Step::Teach { node: NodeId(3), slot: "c".into() });
    now.learners.insert(NodeId(3), Learner { slot: "c".into(), lag: Some(CAUGHT_UP) });
    assert_eq!(next(&now), Step::Wait("c is being given the names".into()));
    now = caught_up(now);
    assert_eq!(changes_to(&now), [1, 2, 3]);
    let five = ["a", "b", "c", "d", "e"];
    assert_eq!(
        changes_to(&caught_up(situation(&[1, 2, 3], &[1, 2, 4, 5], &five))),
        [1, 2, 3, 4, 5]
    );
    assert_eq!(changes_to(&caught_up(situation(&[1], &[1, 2, 3], &five))), [1, 2, 3]);
}

#[test]
fn a_dead_voter_is_replaced_by_the_new_node_of_its_slot_and_by_nobody_else() {
    let list = ["a", "b", "c"];
    assert_eq!(changes_to(&caught_up(situation(&[1, 2, 3], &[1, 3, 7], &list))), [1, 3, 7]);
    assert_eq!(next(&situation(&[1, 2, 3], &[1, 3], &list)), Step::Rest, "it is merely down");
    assert_eq!(next(&situation(&[1, 2, 3], &[1, 2, 3, 7], &list)), Step::Rest, "it lives");
    // Two that should come, of which one is there: the lost disk's successor does not wait.
    let five = ["a", "b", "c", "d", "e"];
    assert_eq!(changes_to(&caught_up(situation(&[1, 2, 3], &[1, 3, 4, 7], &five))), [1, 3, 7]);
}

#[test]
fn voters_that_are_not_wanted_go_when_all_that_are_have_come() {
    assert_eq!(changes_to(&situation(&[1, 2, 3, 4, 5], &[1, 2, 3], &["a", "b", "c"])), [1, 2, 3]);
    assert_eq!(changes_to(&situation(&[1, 2, 3], &[1, 2], &["a"])), [1]);
    let lost = situation(&[1, 2, 3, 4, 5], &[1, 2, 4], &["a", "b", "c"]);
    assert!(matches!(next(&lost), Step::Wait(why) if why.contains("taken away")));
    let waits = next(&situation(&[1, 2, 3], &[1, 2, 3], &["a", "b", "d"]));
    assert!(matches!(&waits, Step::Wait(why) if why.contains("says that it is d")), "{waits:?}");
}

#[test]
fn who_does_not_know_that_it_was_voted_out_is_told() {
    let mut now = situation(&[1, 2, 4], &[1, 2, 3, 4], &["a", "b", "d"]);
    now.claimants = [1, 2, 3, 4].map(NodeId).into();
    assert_eq!(next(&now), Step::Correct { node: NodeId(3), slot: "c".into() });
    now.candidates.remove(&NodeId(3));
    let by_id = NodeId(3).to_string();
    assert_eq!(next(&now), Step::Correct { node: NodeId(3), slot: by_id.clone() });
    now.learners.insert(NodeId(3), Learner { slot: by_id, lag: None });
    assert_eq!(next(&now), Step::Rest, "it does not know yet");
    now.claimants.remove(&NodeId(3));
    assert_eq!(next(&now), Step::Forget(NodeId(3)));
}

#[test]
fn two_are_worse_than_one() {
    let mut now = caught_up(situation(&[1], &[1, 2], &["a", "b", "c"]));
    let Step::Wait(why) = next(&now) else { panic!("two voters") };
    assert!(why.contains("says that it is c"), "{why}");
    now.learners.insert(NodeId(5), Learner { slot: "e".into(), lag: None });
    assert_eq!(next(&now), Step::Forget(NodeId(5)));
}

#[test]
fn who_was_alone_is_known_by_its_seed_when_it_has_one() {
    let mut now = situation(&[1], &[1, 2, 3], &["a", "b", "c"]);
    now.voters.insert(NodeId(1), String::new());
    assert_eq!(next(&now), Step::Rename { node: NodeId(1), slot: "a".into() });
}

#[test]
fn what_an_operator_wants_is_judged_before() {
    let now = situation(&[1, 2, 3], &[1, 2, 4], &["a", "b", "c"]);
    assert_eq!(objection(&now, &slots(&["a", "b", "d"])), None);
    for (wanted, why) in [
        (&["a", "b"][..], "1, 3 or 5"),
        (&["a", "b", "b"], "1, 3 or 5"),
        (&["a", "b", "x"], "says that it is x"),
        (&["c"], "most of the new voters"),
    ] {
        let objection = objection(&now, &slots(wanted)).unwrap();
        assert!(objection.contains(why), "{wanted:?}: {objection}");
    }
    let lost = situation(&[1, 2, 3], &[1], &["a", "b", "c"]);
    assert!(objection(&lost, &slots(&["a"])).unwrap().contains("most of the present voters"));
}

fn subsets(of: &[u64]) -> Vec<Vec<u64>> {
    let all = 0..1_u32 << of.len();
    let chosen = |bits: u32| {
        let in_it = of.iter().enumerate().filter(|(n, _)| bits & (1 << n) != 0);
        in_it.map(|(_, node)| *node).collect()
    };
    all.map(chosen).collect()
}

fn majority_lives(set: &BTreeSet<NodeId>, now: &Situation) -> bool {
    set.iter().filter(|node| now.alive.contains(node)).count() > set.len() / 2
}

/// What must hold of any change.
fn check(now: &Situation, goal: &BTreeSet<NodeId>) {
    let present: BTreeSet<_> = now.voters.keys().copied().collect();
    assert!(!goal.len().is_multiple_of(2), "{goal:?} in {now:?}");
    assert!(majority_lives(&present, now) && majority_lives(goal, now), "{goal:?} in {now:?}");
    for new in goal.difference(&present) {
        assert!(now.alive.contains(new), "{new} is not there: {now:?}");
        assert!(now.learners[new].lag < Some(CAUGHT_UP), "{new} has not caught up: {now:?}");
    }
    let held = |slot: &str| {
        let mut holders = now.candidates.iter().chain(&now.voters);
        holders.any(|(node, its)| its == slot && goal.contains(node))
    };
    for gone in present.difference(goal) {
        let slot = &now.voters[gone];
        let succeeded = !now.alive.contains(gone) && now.wanted.contains(slot) && held(slot);
        let complete = now.wanted.iter().all(|slot| held(slot));
        let unwanted = !now.wanted.contains(slot) && complete;
        assert!(succeeded || unwanted, "{gone} goes: {goal:?} in {now:?}");
    }
}

/// Does what the steps say until there is nothing to do.
fn settle(mut now: Situation) -> Situation {
    for _ in 0..20 {
        match next(&now) {
            Step::Teach { node, slot } => {
                assert!(now.alive.contains(&node) && !now.voters.contains_key(&node), "{now:?}");
                now.learners.insert(node, Learner { slot, lag: Some(0) });
            }
            Step::Correct { node, slot } => {
                assert!(now.claimants.remove(&node) && !now.voters.contains_key(&node), "{now:?}");
                now.learners.insert(node, Learner { slot, lag: Some(0) });
            }
            Step::Rename { node, slot } => *now.voters.get_mut(&node).unwrap() = slot,
            Step::Forget(node) => assert!(now.learners.remove(&node).is_some()),
            Step::Change(goal) => {
                check(&now, &goal);
                let known: BTreeMap<_, _> = now.voters.iter().chain(&now.candidates).collect();
                let voters = goal.iter().map(|node| (*node, known[node].clone())).collect();
                now.learners.retain(|node, _| !goal.contains(node));
                now.claimants = now.voters.keys().copied().chain(goal).collect();
                now.claimants.retain(|node| now.alive.contains(node));
                now.voters = voters;
            }
            Step::Rest | Step::Wait(_) => return now,
        }
    }
    panic!("it never ends: {now:?}");
}

#[test]
fn from_every_small_situation_the_wanted_voters_are_reached_as_far_as_nodes_are_there() {
    let all: Vec<u64> = NODES.iter().map(|(node, _)| *node).collect();
    let odd = |set: &&Vec<u64>| set.len() % 2 == 1 && set.len() <= 5;
    let one_each = |set: &&Vec<u64>| {
        let slots: BTreeSet<_> = nodes(set).into_values().collect();
        slots.len() == set.len()
    };
    let sets = subsets(&all);
    let mut reached = 0;
    for voters in sets.iter().filter(odd).filter(one_each) {
        for alive in &sets {
            for wanted in WANTED {
                let now = situation(voters, alive, wanted);
                let leads = majority_lives(&now.voters.keys().copied().collect(), &now);
                let end = settle(now.clone());
                assert!(leads || end.voters == now.voters, "without a majority nothing changes");
                assert!(end.claimants.iter().all(|node| end.voters.contains_key(node)), "{end:?}");
                let living: BTreeSet<_> = now.candidates.values().collect();
                if leads && now.wanted.iter().all(|slot| living.contains(slot)) {
                    let slots: BTreeSet<_> = end.voters.values().collect();
                    assert_eq!(slots, now.wanted.iter().collect(), "{now:?} ends as {end:?}");
                    reached += 1;
                }
            }
        }
    }
    assert!(reached > 1_000, "{reached}");
}

#[test]
fn a_node_is_wanted_by_its_id_only_where_it_is_no_seed() {
    let id = NodeId(9).to_string();
    let ordered = [id.clone(), "a".into()];
    assert_eq!(slot(NodeId(9), None, &ordered), Some(id.clone()));
    assert_eq!(slot(NodeId(9), None, &[]), None, "nobody wants it");
    assert_eq!(slot(NodeId(1), Some("a"), &ordered), Some("a".into()));
    let now = situation(&[1], &[1, 2], &["a"]);
    assert_eq!(by_seed(NodeId(2).to_string(), &now), "b");
    assert_eq!(by_seed(id.clone(), &now), id);
    assert_eq!(by_seed("c".into(), &now), "c");
}
