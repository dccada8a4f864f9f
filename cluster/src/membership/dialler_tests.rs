//! Tests of the dialler: what there is, and whom it dials when.

use super::*;
use crate::{
    Generation,
    link::{Down, Introduction},
    membership::{Event, Heard, Load, Says, SeedAddress},
};

const ME: u64 = 5;

fn life(node: u64, generation: u64) -> Incarnation {
    Incarnation { node: NodeId(node), generation: Generation(generation) }
}

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn at(last: u64) -> SocketAddr {
    SocketAddr::from(([10, 0, u8::try_from(last / 250).unwrap(), (last % 250) as u8], 7946))
}

fn introduction(node: u64, generation: u64) -> Introduction {
    Introduction {
        incarnation: life(node, generation),
        name: format!("node-{node}"),
        region: "eu".to_owned(),
        version: "0.1.0".to_owned(),
        address: at(node),
    }
}

fn heard(node: u64, generation: u64, live: bool) -> Heard {
    let Introduction { incarnation, name, region, version, address } =
        introduction(node, generation);
    let (says, load) = (Says::Alive, Load::default());
    Heard { incarnation, name, region, version, address, says, load, live }
}

fn view(heard: &[Heard], linked: &[u64]) -> View {
    let mut view = View::new(introduction(ME, 1));
    for node in linked {
        view.apply(Event::LinkUp(introduction(*node, 1)), ms(0));
    }
    let live = heard.iter().map(|heard| Heard { live: true, ..heard.clone() }).collect();
    view.apply(Event::Gossip(live), ms(0)); // all have lived once
    view.apply(Event::Gossip(heard.to_vec()), ms(0));
    view
}

fn live(nodes: impl IntoIterator<Item = u64>) -> Vec<Heard> {
    nodes.into_iter().map(|node| heard(node, 1, true)).collect()
}

fn seeds(of: &[u64]) -> Seeds {
    let seed = |node: &u64| SeedAddress::of(&at(*node).to_string());
    Seeds::new(of.iter().map(seed).collect())
}

/// One name that stands for these addresses.
fn name(of: &[u64]) -> Seeds {
    let name = SeedAddress::of("mesh");
    let mut seeds = Seeds::new(vec![name.clone()]);
    seeds.due(|_| false, ms(0));
    seeds.resolved(&name, Some(of.iter().map(|node| at(*node)).collect()), ms(0));
    seeds
}

fn dialler() -> Dialler {
    Dialler::new(NodeId(ME), at(ME))
}

fn unreachable() -> Result<Dialled, DialError> {
    Err(DialError::Unreachable("silence".to_owned()))
}

fn reached(node: u64) -> Dialled {
    Dialled::Peer(life(node, 1))
}

/// The moments in ms at which `address` is dialled until `end` if each dial fails at once.
fn moments(
    dialler: &mut Dialler,
    view: &View,
    seeds: &Seeds,
    address: SocketAddr,
    end: u64,
) -> Vec<u64> {
    let mut moments = Vec::new();
    for now in (0..end).step_by(50) {
        for due in dialler.due(view, seeds, ms(now)) {
            dialler.done(due, &unreachable(), ms(now), 1.0);
            if due == address {
                moments.push(now);
            }
        }
    }
    moments
}

#[test]
fn every_seed_is_dialled_at_once_but_oneself() {
    let due = dialler().due(&view(&[], &[]), &seeds(&[1, ME, 9]), ms(0));
    assert_eq!(due, [at(1), at(9)]);
}

#[test]
fn all_addresses_of_a_name_are_dialled() {
    let due = dialler().due(&view(&[], &[]), &name(&[1, 2, ME]), ms(0));
    assert_eq!(due, [at(1), at(2)]);
}

#[test]
fn an_address_is_dialled_once_at_a_time() {
    let (mut dialler, view, seeds) = (dialler(), view(&[], &[]), seeds(&[1]));
    assert_eq!(dialler.due(&view, &seeds, ms(0)), [at(1)]);
    assert_eq!(dialler.due(&view, &seeds, ms(60_000)), []);
    dialler.done(at(1), &unreachable(), ms(60_000), 1.0);
    assert_eq!(dialler.due(&view, &seeds, ms(60_099)), []);
    assert_eq!(dialler.due(&view, &seeds, ms(60_100)), [at(1)]);
}

#[test]
fn pauses_double_up_to_two_seconds() {
    let moments = moments(&mut dialler(), &view(&[], &[]), &seeds(&[1]), at(1), 12_000);
    assert_eq!(moments, [0, 100, 300, 700, 1_500, 3_100, 5_100, 7_100, 9_100, 11_100]);
}

#[test]
fn jitter_takes_up_to_half_of_a_pause() {
    for (jitter, next) in [(0.0, 50), (0.5, 75), (1.0, 100)] {
        let (mut dialler, view, seeds) = (dialler(), view(&[], &[]), seeds(&[1]));
        dialler.due(&view, &seeds, ms(0));
        dialler.done(at(1), &unreachable(), ms(0), jitter);
        assert_eq!(dialler.due(&view, &seeds, ms(next - 1)), [], "{jitter}");
        assert_eq!(dialler.due(&view, &seeds, ms(next)), [at(1)], "{jitter}");
    }
}

#[test]
fn of_two_nodes_the_one_with_the_smaller_id_dials_first() {
    let view = view(&live([1, 9]), &[]);
    let none = seeds(&[]);
    assert_eq!(moments(&mut dialler(), &view, &none, at(9), 800), [0, 100, 300, 700]);
    assert_eq!(moments(&mut dialler(), &view, &none, at(1), 2_100), [500, 1_100, 1_800]);
}

#[test]
fn at_most_sixteen_dials_are_under_way_and_the_longest_due_go_first() {
    let (mut dialler, none) = (dialler(), seeds(&[]));
    let view = view(&live(10..40), &[]);
    let first = dialler.due(&view, &none, ms(0));
    assert_eq!(first.len(), 16);
    assert_eq!(dialler.due(&view, &none, ms(1)), []);
    for address in &first[..3] {
        dialler.done(*address, &unreachable(), ms(1), 1.0);
    }
    let second = dialler.due(&view, &none, ms(5_000));
    assert_eq!(second.len(), 3);
    assert!(second.iter().all(|address| !first.contains(address)));
}

#[test]
fn whoever_is_linked_is_not_dialled() {
    let view = view(&live([1, 2, 9]), &[1, 9]);
    let due = dialler().due(&view, &seeds(&[1, 9]), ms(500));
    assert_eq!(due, [], "2 has the smaller id, and is given time");
    let mut dialler = dialler();
    dialler.due(&view, &seeds(&[1, 9]), ms(0));
    assert_eq!(dialler.due(&view, &seeds(&[1, 9]), ms(500)), [at(2)]);
}

#[test]
fn a_seed_by_another_address_is_dialled_until_it_is_known_who_is_behind_it() {
    let (mut dialler, alias) = (dialler(), seeds(&[200]));
    let linked = view(&live([9]), &[9]);
    assert_eq!(dialler.due(&linked, &alias, ms(0)), [at(200)]);
    dialler.done(at(200), &Ok(reached(9)), ms(1), 1.0);
    assert!(dialler.is_linked(at(200), &linked));
    assert_eq!(moments(&mut dialler, &linked, &alias, at(200), 60_000), [] as [u64; 0]);

    let mut unlinked = view(&live([9]), &[9]);
    unlinked.apply(Event::LinkDown(life(9, 1), Down::Lost), ms(0));
    assert_eq!(dialler.due(&unlinked, &alias, ms(90_000)), [at(9)], "its own address will do");
    let dead = view(&[heard(9, 1, false)], &[]);
    dialler.done(at(9), &unreachable(), ms(90_000), 1.0);
    assert!(
        dialler.due(&dead, &alias, ms(99_000)).contains(&at(200)),
        "somebody else may be there"
    );
}

#[test]
fn oneself_is_remembered_until_another_answers() {
    let (mut dialler, view, alias) = (dialler(), view(&[], &[]), seeds(&[200, ME]));
    assert_eq!(dialler.due(&view, &alias, ms(0)), [at(200)]);
    dialler.done(at(200), &Ok(Dialled::Oneself), ms(1), 1.0);
    assert!(dialler.is_own(at(200)) && dialler.is_own(at(ME)));
    assert_eq!(dialler.due(&view, &alias, ms(10_000)), []);
    assert_eq!(dialler.due(&view, &alias, ms(10_001)), [at(200)], "another may answer now");
    assert!(dialler.is_own(at(200)), "until it does");
    dialler.done(at(200), &Ok(Dialled::Oneself), ms(10_002), 1.0);
    assert_eq!(dialler.due(&view, &alias, ms(20_001)), []);
    assert_eq!(dialler.due(&view, &alias, ms(20_002)), [at(200)]);
    dialler.done(at(200), &Ok(reached(9)), ms(20_003), 1.0);
    assert!(!dialler.is_own(at(200)) && dialler.is_own(at(ME)));
}

#[test]
fn a_success_is_given_time_to_become_a_link() {
    let (mut dialler, view, seeds) = (dialler(), view(&[], &[]), seeds(&[1]));
    dialler.due(&view, &seeds, ms(0));
    dialler.done(at(1), &Ok(reached(1)), ms(10), 0.0);
    assert_eq!(dialler.due(&view, &seeds, ms(2_009)), []);
    assert_eq!(dialler.due(&view, &seeds, ms(2_010)), [at(1)], "there is no link after all");
}

#[test]
fn the_dead_are_dialled_seldom_and_those_who_left_never() {
    let gone = Heard { says: Says::Left, ..heard(8, 1, false) };
    let view = view(&[heard(9, 1, false), gone], &[]);
    let none = seeds(&[]);
    let dead = moments(&mut dialler(), &view, &none, at(9), 43_000);
    assert_eq!(dead, [0, 100, 300, 700, 1_500, 3_100, 6_300, 12_700, 22_700, 32_700, 42_700]);
    assert_eq!(moments(&mut dialler(), &view, &none, at(8), 60_000), [] as [u64; 0]);
}

#[test]
fn a_dead_seed_is_dialled_as_if_it_came_back_soon() {
    let view = view(&[heard(9, 1, false)], &[]);
    let moments = moments(&mut dialler(), &view, &seeds(&[9]), at(9), 60_000);
    assert_eq!(moments.len(), 34);
}

#[test]
fn a_restart_or_a_return_starts_the_pauses_over() {
    let none = seeds(&[]);
    for (was, is) in [
        (heard(9, 1, true), heard(9, 2, true)),
        (heard(9, 1, false), heard(9, 1, true)),
        (heard(9, 1, false), heard(9, 2, true)),
    ] {
        let mut dialler = dialler();
        let before = moments(&mut dialler, &view(&[was], &[]), &none, at(9), 23_000);
        assert!(before.len() > 8);
        let now = ms(23_000);
        let back = view(&[is], &[]);
        assert_eq!(dialler.due(&back, &none, now), [at(9)]);
        dialler.done(at(9), &unreachable(), now, 1.0);
        assert_eq!(dialler.due(&back, &none, now + ms(100)), [at(9)]);
    }
}

#[test]
fn other_addresses_of_a_reached_name_are_dialled_seldom() {
    let (mut dialler, name) = (dialler(), name(&[9, 200]));
    let view = view(&live([9]), &[9]);
    let moments = moments(&mut dialler, &view, &name, at(200), 43_000);
    assert_eq!(moments.len(), 11);
}

#[test]
fn failures_and_refusals_are_known_until_the_next_success() {
    let (mut dialler, view, seeds) = (dialler(), view(&[], &[]), seeds(&[1]));
    let refused = Err(DialError::Refused(Refusal::new(Reason::Secret, "the secrets differ")));
    let mut known = |outcome: &Result<Dialled, DialError>, now| {
        dialler.due(&view, &seeds, ms(now));
        dialler.done(at(1), outcome, ms(now), 1.0);
        (dialler.has_failed(at(1)), dialler.refusal(at(1)).is_some())
    };
    assert_eq!(known(&unreachable(), 0), (true, false));
    assert_eq!(known(&refused, 10_000), (true, true));
    assert_eq!(known(&unreachable(), 20_000), (true, false));
    assert_eq!(known(&Ok(reached(1)), 30_000), (false, false));
}

#[test]
fn what_is_no_target_any_more_is_forgotten() {
    let (mut dialler, none) = (dialler(), seeds(&[]));
    for round in 0..100 {
        let view = view(&live([100 + round]), &[]);
        dialler.due(&view, &none, ms(round));
        dialler.done(at(100 + round), &unreachable(), ms(round), 1.0);
    }
    assert_eq!(dialler.attempts.len(), 1);
    assert!(dialler.behind.is_empty());
}

#[test]
fn a_dead_node_is_not_looked_for_where_another_has_taken_its_place() {
    let former = Heard { address: at(1), ..heard(7, 1, false) };
    let mut now = view(&[heard(1, 1, true), former.clone()], &[1]);
    let never: [u64; 0] = [];
    assert_eq!(moments(&mut dialler(), &now, &seeds(&[1]), at(1), 30_000), never);
    now.apply(Event::LinkDown(life(1, 1), Down::Lost), ms(0));
    assert_eq!(dialler().due(&now, &seeds(&[1]), ms(0)), [at(1)]);
    let back = view(&[heard(1, 1, true), Heard { live: true, ..former }], &[1]);
    assert_eq!(dialler().due(&back, &seeds(&[1]), ms(0)), [at(1)], "both say that they are there");
}
