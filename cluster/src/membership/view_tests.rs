//! Tests of the view: tables of what happened and the members that follow from it.

use proptest::prelude::*;

use super::*;

const ME: u64 = 5;

fn life(node: u64, generation: u64) -> Incarnation {
    Incarnation { node: NodeId(node), generation: Generation(generation) }
}

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn address(node: u64) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, u8::try_from(node).unwrap()], 7946))
}

fn introduction(node: u64, generation: u64) -> Introduction {
    Introduction {
        incarnation: life(node, generation),
        name: format!("node-{node}"),
        region: "eu".to_owned(),
        version: "0.1.0".to_owned(),
        address: address(node),
    }
}

fn heard(node: u64, generation: u64) -> Heard {
    let Introduction { incarnation, name, region, version, address } =
        introduction(node, generation);
    let (says, load) = (Says::Alive, Load::default());
    Heard { incarnation, name, region, version, address, says, load, live: true }
}

fn dead(node: u64, generation: u64) -> Heard {
    Heard { live: false, ..heard(node, generation) }
}

fn says(node: u64, says: Says) -> Heard {
    Heard { says, ..heard(node, 1) }
}

fn up(node: u64, generation: u64) -> Event {
    Event::LinkUp(introduction(node, generation))
}

fn lost(node: u64) -> Event {
    Event::LinkDown(life(node, 1), Down::Lost)
}

fn silent(node: u64, silent: bool) -> Event {
    Event::LinkSilent(life(node, 1), silent)
}

fn gossip(heard: &[Heard]) -> Event {
    Event::Gossip(heard.to_vec())
}

fn view() -> View {
    View::new(introduction(ME, 1))
}

/// The view after events, each 100 ms after the one before.
fn after(events: impl IntoIterator<Item = Event>) -> View {
    let mut view = view();
    for (event, at) in events.into_iter().zip(1..) {
        view.apply(event, ms(100 * at));
    }
    view
}

/// The members but this node, as "node/generation state".
fn others(view: &View) -> Vec<String> {
    let others = view.members().iter().filter(|member| member.node() != NodeId(ME));
    others
        .map(|m| format!("{}/{} {}", m.node().0, m.incarnation.generation, m.state.as_str()))
        .collect()
}

/// How node 1 is seen after the events.
fn state(events: impl IntoIterator<Item = Event>) -> Option<MemberState> {
    after(events).member(NodeId(1)).map(|member| member.state)
}

fn owners(view: &View) -> Vec<u64> {
    view.members().iter().filter(|member| member.is_owner()).map(|m| m.node().0).collect()
}

#[test]
fn a_node_alone_is_a_member_and_says_how_it_is() {
    let mut view = view();
    assert_eq!(owners(&view), [ME]);
    for (says, state) in [
        (Says::Alive, MemberState::Alive),
        (Says::Leaving, MemberState::Leaving),
        (Says::Left, MemberState::Left),
    ] {
        view.apply(Event::Own(says), ms(1));
        assert_eq!((view.says(), view.own().state), (says, state));
        assert_eq!(view.members(), [view.own().clone()]);
    }
    let load = Load { sessions: 3, messages_per_minute: 4 };
    assert_eq!(view.apply(Event::OwnLoad(load), ms(2)), []);
    assert_eq!(view.members()[0].load, load);
}

#[test]
fn who_is_gone_carries_nothing() {
    let load = Load { sessions: 3, messages_per_minute: 4 };
    let loaded = |says, live| gossip(&[Heard { says, load, live, ..heard(1, 1) }]);
    let carries = |events: Vec<Event>| after(events).member(NodeId(1)).map(|member| member.load);
    assert_eq!(carries(vec![up(1, 1), loaded(Says::Alive, true)]), Some(load));
    assert_eq!(carries(vec![up(1, 1), loaded(Says::Leaving, true)]), Some(load));
    for gone in [loaded(Says::Left, true), loaded(Says::Alive, false)] {
        let events = vec![up(1, 1), loaded(Says::Alive, true), lost(1), gone];
        assert_eq!(carries(events), Some(Load::default()));
    }
}

#[test]
fn the_state_of_a_peer_follows_from_gossip_and_its_link() {
    use MemberState::{Alive, Dead, Leaving, Left, Suspect};
    let live = || gossip(&[heard(1, 1)]);
    let gone = || gossip(&[dead(1, 1)]);
    let leaving = || gossip(&[says(1, Says::Leaving)]);
    let left = || gossip(&[says(1, Says::Left)]);
    let left_and_gone = || gossip(&[Heard { live: false, ..says(1, Says::Left) }]);
    let told_leaving = || Event::Leaving(life(1, 1));
    let goodbye = || Event::LinkDown(life(1, 1), Down::Left);
    let down = |why| Event::LinkDown(life(1, 1), why);
    let table: Vec<(&str, Vec<Event>, Option<MemberState>)> = vec![
        ("nothing", vec![], None),
        ("only linked", vec![up(1, 1)], None),
        ("only linked, and silent", vec![up(1, 1), silent(1, true)], None),
        ("only live", vec![live()], Some(Alive)),
        ("linked, live", vec![up(1, 1), live()], Some(Alive)),
        ("live, linked", vec![live(), up(1, 1)], Some(Alive)),
        ("silent", vec![up(1, 1), live(), silent(1, true)], Some(Suspect)),
        ("silent before live", vec![up(1, 1), silent(1, true), live()], Some(Suspect)),
        ("heard again", vec![up(1, 1), live(), silent(1, true), silent(1, false)], Some(Alive)),
        ("never silent", vec![up(1, 1), live(), silent(1, false)], Some(Alive)),
        ("silence without a link", vec![live(), silent(1, true)], Some(Alive)),
        ("lost", vec![up(1, 1), live(), lost(1)], Some(Suspect)),
        ("violation", vec![up(1, 1), live(), down(Down::Violation)], Some(Suspect)),
        ("closed", vec![up(1, 1), live(), down(Down::Closed)], Some(Suspect)),
        ("lost before live", vec![up(1, 1), lost(1), live()], Some(Suspect)),
        ("linked again", vec![up(1, 1), live(), lost(1), up(1, 1)], Some(Alive)),
        (
            "linked again, was silent",
            vec![up(1, 1), live(), silent(1, true), up(1, 1)],
            Some(Alive),
        ),
        (
            "silence after the loss",
            vec![up(1, 1), live(), lost(1), silent(1, false)],
            Some(Suspect),
        ),
        ("dead, was live", vec![live(), gone()], Some(Dead)),
        ("dead, still linked", vec![up(1, 1), live(), gone()], Some(Dead)),
        ("dead, link lost", vec![up(1, 1), live(), lost(1), gone()], Some(Dead)),
        ("dead, never live", vec![gone()], None),
        ("dead, never live, linked", vec![up(1, 1), gone()], None),
        ("back from the dead", vec![up(1, 1), live(), gone(), live()], Some(Alive)),
        ("back, link lost", vec![up(1, 1), live(), lost(1), gone(), live()], Some(Suspect)),
        ("leaving by gossip", vec![up(1, 1), leaving()], Some(Leaving)),
        ("leaving by link", vec![up(1, 1), live(), told_leaving()], Some(Leaving)),
        ("leaving by link first", vec![up(1, 1), told_leaving(), live()], Some(Leaving)),
        ("leaving, silent", vec![up(1, 1), leaving(), silent(1, true)], Some(Leaving)),
        ("leaving, lost", vec![up(1, 1), leaving(), lost(1)], Some(Leaving)),
        ("leaving, dead", vec![up(1, 1), leaving(), gone()], Some(Dead)),
        ("left by gossip", vec![up(1, 1), left()], Some(Left)),
        ("left by gossip only", vec![left()], Some(Left)),
        ("left, then gone", vec![live(), left(), left_and_gone()], Some(Left)),
        ("left long ago", vec![left_and_gone()], Some(Left)),
        ("goodbye", vec![up(1, 1), live(), goodbye()], Some(Left)),
        ("goodbye, still live", vec![up(1, 1), live(), goodbye(), live()], Some(Left)),
        ("goodbye, then dead", vec![up(1, 1), live(), goodbye(), gone()], Some(Left)),
        ("goodbye while leaving", vec![up(1, 1), leaving(), goodbye()], Some(Left)),
        ("lost after a goodbye", vec![up(1, 1), live(), goodbye(), lost(1)], Some(Left)),
        ("a link after a goodbye", vec![up(1, 1), live(), goodbye(), up(1, 1)], Some(Alive)),
        ("forgotten by gossip", vec![live(), gone(), gossip(&[])], None),
        ("forgotten, linked", vec![up(1, 1), live(), gossip(&[])], None),
        ("remembered again", vec![up(1, 1), live(), gossip(&[]), live()], Some(Alive)),
    ];
    for (what, events, expected) in table {
        assert_eq!(state(events), expected, "{what}");
    }
}

#[test]
fn only_the_highest_generation_of_a_node_is_a_member() {
    let table: Vec<(&str, Vec<Event>, &[&str])> = vec![
        ("by gossip", vec![gossip(&[heard(1, 1), heard(1, 2)])], &["1/2 alive"]),
        ("in any order", vec![gossip(&[heard(1, 2), heard(1, 1)])], &["1/2 alive"]),
        ("the old one dead", vec![gossip(&[dead(1, 1), heard(1, 2)])], &["1/2 alive"]),
        ("the new one not live yet", vec![gossip(&[heard(1, 1), dead(1, 2)])], &[]),
        ("the old one left", vec![gossip(&[says(1, Says::Left), heard(1, 2)])], &["1/2 alive"]),
        ("a link is enough", vec![up(1, 1), gossip(&[heard(1, 1)]), up(1, 2)], &[]),
        (
            "a link, then gossip",
            vec![up(1, 1), gossip(&[heard(1, 1)]), up(1, 2), gossip(&[heard(1, 1), heard(1, 2)])],
            &["1/2 alive"],
        ),
        (
            "the old link's end is not the new one's",
            vec![up(1, 1), up(1, 2), gossip(&[heard(1, 2)]), lost(1)],
            &["1/2 alive"],
        ),
        (
            "nor is its goodbye",
            vec![
                up(1, 1),
                up(1, 2),
                gossip(&[heard(1, 2)]),
                Event::LinkDown(life(1, 1), Down::Left),
            ],
            &["1/2 alive"],
        ),
        (
            "nor its leaving",
            vec![up(1, 2), gossip(&[heard(1, 2)]), Event::Leaving(life(1, 1))],
            &["1/2 alive"],
        ),
        (
            "nor its silence",
            vec![up(1, 2), gossip(&[heard(1, 2)]), silent(1, true)],
            &["1/2 alive"],
        ),
        ("nor its link", vec![up(1, 2), gossip(&[heard(1, 2)]), up(1, 1)], &["1/2 alive"]),
    ];
    for (what, events, expected) in table {
        assert_eq!(others(&after(events)), expected, "{what}");
    }
}

#[test]
fn a_restart_forgets_how_the_former_life_ended() {
    let goodbye = Event::LinkDown(life(1, 1), Down::Left);
    let events = [up(1, 1), gossip(&[says(1, Says::Leaving)]), goodbye, up(1, 2)];
    let both = [Heard { live: false, ..says(1, Says::Left) }, heard(1, 2)];
    let view = after(events.into_iter().chain([gossip(&both)]));
    assert_eq!(others(&view), ["1/2 alive"]);
}

#[test]
fn who_owns_does_not_depend_on_this_nodes_links() {
    let all = [heard(1, 1), says(2, Says::Leaving), dead(3, 1), says(4, Says::Left), heard(6, 1)];
    let was = [heard(1, 1), heard(2, 1), heard(3, 1), heard(4, 1), heard(6, 1)];
    let links: [Vec<Event>; 4] = [
        vec![],
        vec![up(1, 1), up(6, 1)],
        vec![up(1, 1), silent(1, true)],
        vec![up(1, 1), lost(1), up(3, 1)],
    ];
    for events in links {
        let events = [gossip(&was)].into_iter().chain(events).chain([gossip(&all)]);
        assert_eq!(owners(&after(events)), [1, ME, 6]);
    }
}

#[test]
fn a_goodbye_takes_a_peer_from_the_owners_at_once() {
    let mut view = after([up(1, 1), gossip(&[heard(1, 1)])]);
    assert_eq!(owners(&view), [1, ME]);
    view.apply(Event::LinkDown(life(1, 1), Down::Left), ms(201));
    assert_eq!(owners(&view), [ME]);
}

#[test]
fn a_newcomer_that_never_lives_is_dead_after_two_seconds() {
    let mut view = view();
    for at in (0..2_000).step_by(100) {
        view.apply(gossip(&[dead(1, 1)]), ms(at));
        assert_eq!(others(&view), [""; 0]);
        assert!(view.awaits_news());
    }
    view.apply(Event::Tick, ms(2_000));
    assert_eq!(others(&view), ["1/1 dead"]);
    assert!(!view.awaits_news());
}

#[test]
fn a_member_that_cannot_be_linked_is_suspect_after_two_seconds() {
    let mut view = after([gossip(&[heard(1, 1)])]);
    view.apply(Event::Tick, ms(2_099));
    assert_eq!(others(&view), ["1/1 alive"]);
    view.apply(Event::Tick, ms(2_100));
    assert_eq!(others(&view), ["1/1 suspect"]);
    view.apply(up(1, 1), ms(2_200));
    assert_eq!(others(&view), ["1/1 alive"]);
}

#[test]
fn a_node_that_stood_still_believes_in_no_deaths_before_it_has_listened() {
    let mut view = view();
    view.apply(gossip(&[heard(1, 1), heard(2, 1), dead(3, 1)]), ms(0));
    view.apply(gossip(&[dead(1, 1), dead(2, 1), dead(3, 1)]), ms(4_000));
    assert_eq!(owners(&view), [1, 2, ME]);
    for at in (4_100..5_500).step_by(100) {
        view.apply(gossip(&[heard(1, 1), dead(2, 1), dead(3, 1)]), ms(at));
        assert_eq!(owners(&view), [1, 2, ME], "at {at}");
    }
    view.apply(gossip(&[heard(1, 1), dead(2, 1), dead(3, 1)]), ms(5_500));
    assert_eq!(owners(&view), [1, ME]);
    view.apply(gossip(&[dead(1, 1), dead(2, 1), dead(3, 1)]), ms(5_600));
    assert_eq!(owners(&view), [ME], "a death that is no stall's is believed at once");
}

#[test]
fn changes_are_told_once_each() {
    use MemberState::{Alive, Dead, Left, Suspect};
    let mut view = view();
    let mut tell = |event, at| view.apply(event, ms(at));
    let changed = |was, now| {
        let (member, name) = (life(1, 1), "node-1".to_owned());
        [Change::State { member, name, was, now }]
    };
    assert_eq!(tell(up(1, 1), 0), []);
    assert_eq!(tell(gossip(&[heard(1, 1)]), 100), changed(None, Alive));
    assert_eq!(tell(gossip(&[heard(1, 1)]), 200), []);
    assert_eq!(tell(silent(1, true), 300), changed(Some(Alive), Suspect));
    assert_eq!(tell(silent(1, true), 300), []);
    assert_eq!(tell(silent(1, false), 400), changed(Some(Suspect), Alive));
    assert_eq!(tell(lost(1), 500), changed(Some(Alive), Suspect));
    assert_eq!(tell(gossip(&[dead(1, 1)]), 600), changed(Some(Suspect), Dead));
    assert_eq!(tell(gossip(&[says(1, Says::Left)]), 700), changed(Some(Dead), Left));
    let (member, name) = (life(1, 1), "node-1".to_owned());
    assert_eq!(
        tell(gossip(&[heard(1, 2)]), 800),
        [
            Change::Restarted { member, name: name.clone() },
            Change::State { member: life(1, 2), name: name.clone(), was: None, now: Alive },
        ]
    );
    assert_eq!(tell(gossip(&[]), 900), [Change::Forgotten { member: life(1, 2), name }]);
    assert_eq!(tell(Event::Tick, 1_000), []);
    assert_eq!(tell(Event::Own(Says::Leaving), 1_100).len(), 1);
}

#[test]
fn a_flapping_node_ends_as_it_ends() {
    let mut events = vec![up(1, 1)];
    for _ in 0..100 {
        events.extend([gossip(&[heard(1, 1)]), silent(1, true), gossip(&[dead(1, 1)])]);
        events.extend([lost(1), up(1, 1)]);
    }
    assert_eq!(others(&after(events.clone())), ["1/1 dead"]);
    events.push(gossip(&[heard(1, 1)]));
    assert_eq!(others(&after(events)), ["1/1 alive"]);
}

#[test]
fn a_newcomer_is_admitted_unless_something_speaks_against_it() {
    let named = |node, name: &str| Introduction { name: name.to_owned(), ..introduction(node, 1) };
    let view = after([
        up(1, 2),
        up(2, 1),
        gossip(&[heard(1, 2), heard(2, 1), heard(3, 1), heard(4, 1), says(6, Says::Left)]),
        gossip(&[heard(1, 2), heard(2, 1), heard(3, 1), dead(4, 1), says(6, Says::Left)]),
        Event::LinkUp(named(7, "early")),
    ]);
    let admitted = |peer: &Introduction| {
        view.admit(peer).map_err(|Refusal { reason, text: why }| {
            assert!(why.is_ascii() && !why.ends_with('.'), "{why}");
            (reason, why)
        })
    };
    for (what, peer) in [
        ("a stranger", introduction(9, 1)),
        ("linked already", introduction(1, 2)),
        ("a newer life", introduction(1, 3)),
        ("a dead one's name", named(9, "node-4")),
        ("a name of one that left", named(9, "node-6")),
        ("another name for a known node", named(1, "node-1b").with_generation(2)),
    ] {
        assert_eq!(admitted(&peer), Ok(()), "{what}");
    }
    for (what, peer, why) in [
        ("an older life", introduction(1, 1), (Reason::Generation, "started again")),
        ("this node's name", named(9, "node-5"), (Reason::Name, "NODE_NAME")),
        ("a linked one's name", named(9, "node-1"), (Reason::Name, "NODE_NAME")),
        ("a live one's name", named(9, "node-3"), (Reason::Name, "NODE_NAME")),
        ("one's that gossip does not know yet", named(9, "early"), (Reason::Name, "NODE_NAME")),
    ] {
        let (reason, refused) = admitted(&peer).expect_err(what);
        assert!(reason == why.0 && refused.contains(why.1), "{what}: {reason:?}, {refused}");
    }
}

impl Introduction {
    fn with_generation(mut self, generation: u64) -> Self {
        self.incarnation.generation = Generation(generation);
        self
    }
}

#[test]
fn two_live_nodes_of_one_name_are_told_of_once() {
    let twin = |live| Heard { name: "node-1".to_owned(), live, ..heard(2, 1) };
    let mut view = after([gossip(&[heard(1, 1)])]);
    let conflict =
        Change::NameConflict { name: "node-1".to_owned(), one: NodeId(1), other: NodeId(2) };
    assert!(view.apply(gossip(&[heard(1, 1), twin(true)]), ms(200)).contains(&conflict));
    assert_eq!(view.apply(gossip(&[heard(1, 1), twin(true)]), ms(300)), []);
    view.apply(gossip(&[heard(1, 1), twin(false)]), ms(400));
    assert!(view.apply(gossip(&[heard(1, 1), twin(true)]), ms(500)).contains(&conflict));
    let mine = Heard { name: "node-5".to_owned(), ..heard(9, 1) };
    let changes = view.apply(gossip(&[mine]), ms(600));
    assert!(changes.iter().any(|c| matches!(c, Change::NameConflict { one: NodeId(ME), .. })));
}

#[test]
fn a_node_that_advertises_this_nodes_address_is_told_of_once() {
    let mut view = view();
    let other = Heard { address: view.own().address, ..heard(6, 1) };
    let told = |changes: &[Change]| {
        changes.iter().filter(|c| matches!(c, Change::OwnAddressTaken { .. })).count()
    };
    assert_eq!(told(&view.apply(gossip(&[heard(4, 1)]), ms(0))), 0, "it has its own");
    assert_eq!(told(&view.apply(gossip(&[heard(4, 1), other.clone()]), ms(300))), 1);
    assert_eq!(told(&view.apply(gossip(&[heard(4, 1), other]), ms(600))), 0);
}

#[test]
fn a_second_process_with_this_nodes_id_is_told_of_once() {
    let mut view = view();
    let own = |generation| gossip(&[heard(ME, generation)]);
    assert_eq!(view.apply(own(1), ms(0)), [], "this is this node");
    assert_eq!(view.apply(own(0), ms(0)), [], "and this a former life of it");
    let taken = |generation| [Change::OwnIdTaken { generation: Generation(generation) }];
    assert_eq!(view.apply(own(2), ms(1)), taken(2));
    assert_eq!(view.apply(own(2), ms(2)), []);
    assert_eq!(view.apply(own(7), ms(3)), taken(7));
    let met = |generation| Event::Outlived(Generation(generation));
    assert_eq!(view.apply(met(7), ms(4)), []);
    assert_eq!(view.apply(met(8), ms(5)), taken(8));
    assert_eq!(view.apply(own(8), ms(6)), []);
    assert_eq!(view.members().len(), 1);
    assert_eq!(view.own().incarnation, life(ME, 1));
}

/// An order of events in which each link's own keep theirs.
fn interleaved(lists: Vec<Vec<Event>>) -> impl Strategy<Value = Vec<Event>> {
    let picks: Vec<usize> =
        lists.iter().enumerate().flat_map(|(i, list)| vec![i; list.len()]).collect();
    Just(picks).prop_shuffle().prop_map(move |picks| {
        let mut lists: Vec<_> = lists.iter().map(|list| list.iter().cloned()).collect();
        picks.into_iter().filter_map(|i| lists[i].next()).collect()
    })
}

fn what_happens_to_links() -> Vec<Vec<Event>> {
    let down = |node, generation, why| Event::LinkDown(life(node, generation), why);
    vec![
        vec![up(1, 1), silent(1, true), down(1, 1, Down::Lost)],
        vec![up(1, 2), Event::LinkSilent(life(1, 2), true), Event::LinkSilent(life(1, 2), false)],
        vec![up(2, 1), Event::Leaving(life(2, 1)), down(2, 1, Down::Left)],
        vec![up(3, 1), down(3, 1, Down::Lost), up(3, 1)],
        vec![up(4, 3), down(4, 3, Down::Violation)],
        vec![up(4, 2), down(4, 2, Down::Left)],
        vec![Event::Leaving(life(6, 1))],
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn what_is_told_in_any_order_ends_in_one_view(
        events in interleaved(what_happens_to_links()),
        order in Just(vec![
            heard(1, 1), heard(1, 2), heard(2, 1), heard(3, 1), heard(4, 2), heard(4, 3),
            heard(6, 1), says(7, Says::Left), heard(8, 1),
        ]).prop_shuffle(),
        at in 0usize..17,
    ) {
        let mut events = events;
        events.insert(at.min(events.len()), gossip(&order));
        let mut view = after(events);
        view.apply(gossip(&order), ms(2_000));
        view.apply(Event::Tick, ms(4_000));
        prop_assert_eq!(others(&view), [
            "1/2 alive", "2/1 left", "3/1 alive", "4/3 suspect", "6/1 leaving", "7/1 left", "8/1 suspect",
        ]);
    }

    #[test]
    fn whatever_happens_members_are_sorted_unique_and_of_the_highest_generation(
        events in proptest::collection::vec(any_event(), 0..60),
    ) {
        let mut view = view();
        let mut highest = BTreeMap::new();
        let mut told = BTreeMap::new();
        for (event, at) in events.into_iter().zip(1u64..) {
            let forgets = matches!(event, Event::Gossip(_));
            for incarnation in named_in(&event) {
                let known = highest.entry(incarnation.node).or_insert(incarnation.generation);
                *known = (*known).max(incarnation.generation);
            }
            for change in view.apply(event, ms(100 * at)) {
                match change {
                    Change::State { member, was, now, .. } => {
                        prop_assert_eq!(told.insert(member, now), was);
                    }
                    Change::Restarted { member, .. } | Change::Forgotten { member, .. } => {
                        prop_assert!(told.remove(&member).is_some());
                    }
                    Change::NameConflict { .. }
                    | Change::OwnIdTaken { .. }
                    | Change::OwnAddressTaken { .. } => {}
                }
            }
            let members = view.members();
            prop_assert!(members.windows(2).all(|two| two[0].node() < two[1].node()));
            prop_assert!(members.iter().any(|member| member.node() == NodeId(ME)));
            for member in members.iter().filter(|member| member.node() != NodeId(ME)) {
                prop_assert_eq!(Some(&member.state), told.get(&member.incarnation));
                prop_assert_eq!(member.incarnation.generation, highest[&member.node()]);
            }
            if forgets {
                highest.retain(|node, _| view.peers.contains_key(node));
            }
        }
    }
}

fn named_in(event: &Event) -> Vec<Incarnation> {
    match event {
        Event::Gossip(all) => all.iter().map(|heard| heard.incarnation).collect(),
        Event::LinkUp(peer) => vec![peer.incarnation],
        Event::LinkDown(peer, _) | Event::LinkSilent(peer, _) | Event::Leaving(peer) => vec![*peer],
        Event::Outlived(_) | Event::Own(_) | Event::OwnLoad(_) | Event::Tick => vec![],
    }
}

fn any_event() -> impl Strategy<Value = Event> {
    let node = || prop_oneof![1u64..4, Just(6)];
    let says = prop_oneof![Just(Says::Alive), Just(Says::Leaving), Just(Says::Left)];
    let one = (node(), 1u64..4, says, any::<bool>())
        .prop_map(|(node, generation, says, live)| Heard { says, live, ..heard(node, generation) });
    let why = prop_oneof![Just(Down::Left), Just(Down::Lost), Just(Down::Closed)];
    prop_oneof![
        proptest::collection::vec(one, 0..6).prop_map(Event::Gossip),
        (node(), 1u64..4).prop_map(|(node, generation)| up(node, generation)),
        (node(), 1u64..4, why).prop_map(|(n, g, why)| Event::LinkDown(life(n, g), why)),
        (node(), 1u64..4, any::<bool>()).prop_map(|(n, g, s)| Event::LinkSilent(life(n, g), s)),
        (node(), 1u64..4).prop_map(|(n, g)| Event::Leaving(life(n, g))),
        (0u64..4).prop_map(|generation| Event::Outlived(Generation(generation))),
        Just(Event::Tick),
    ]
}
