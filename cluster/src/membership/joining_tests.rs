//! Tests of joining: what a node sees, and what it waits for.

use std::net::SocketAddr;

use super::*;
use crate::{
    Generation, Incarnation, NodeId,
    link::{Introduction, Reason, Refusal},
    membership::{DialError, Dialled, Event, Heard, Load, Says, SeedAddress},
};

fn at(node: u64) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, u8::try_from(node).unwrap()], 7946))
}

fn introduction(node: u64) -> Introduction {
    Introduction {
        incarnation: Incarnation { node: NodeId(node), generation: Generation(1) },
        name: format!("node-{node}"),
        region: "eu".to_owned(),
        version: "0.1.0".to_owned(),
        address: at(node),
    }
}

fn heard(node: u64, says: Says, live: bool) -> Heard {
    let Introduction { incarnation, name, region, version, address } = introduction(node);
    Heard { incarnation, name, region, version, address, says, load: Load::default(), live }
}

fn live(node: u64) -> Heard {
    heard(node, Says::Alive, true)
}

/// The view of node 5, one second after it heard of all who live and was linked.
fn view(linked: &[u64], heard: &[Heard]) -> View {
    let mut view = View::new(introduction(5));
    for node in linked {
        view.apply(Event::LinkUp(introduction(*node)), Duration::ZERO);
    }
    view.apply(Event::Gossip(heard.to_vec()), Duration::ZERO);
    view.apply(Event::Tick, Duration::from_secs(1));
    view
}

fn seeds(of: &[u64]) -> Seeds {
    let seed = |node: &u64| SeedAddress::of(&at(*node).to_string());
    Seeds::new(of.iter().map(seed).collect())
}

/// A dialler whose dials of all seeds came to this.
fn dialler(view: &View, seeds: &Seeds, outcome: Option<&DialError>) -> Dialler {
    let mut dialler = Dialler::new(NodeId(5), at(5));
    for address in dialler.due(view, seeds, Duration::ZERO) {
        let outcome = outcome.cloned().map_or(Ok(Dialled::Oneself), Err);
        dialler.done(address, &outcome, Duration::ZERO, 1.0);
    }
    dialler
}

fn joined(linked: &[u64], heard: &[Heard], seed: &[u64], millis: u64) -> Result<(), Waiting> {
    let (view, seeds) = (view(linked, heard), seeds(seed));
    let silent = DialError::Unreachable("silence".to_owned());
    let dialler = dialler(&view, &seeds, Some(&silent));
    has_joined(&view, &seeds, &dialler, Duration::from_millis(millis))
}

#[test]
fn a_node_without_other_seeds_has_joined_at_once() {
    assert_eq!(joined(&[], &[], &[], 0), Ok(()));
    assert_eq!(joined(&[], &[], &[5], 0), Ok(()));
    let (view, alias) = (view(&[], &[]), seeds(&[5, 77]));
    let dialler = dialler(&view, &alias, None);
    assert_eq!(has_joined(&view, &alias, &dialler, Duration::ZERO), Ok(()), "77 is itself");
}

#[test]
fn a_node_whose_seeds_are_silent_serves_alone_after_two_seconds() {
    assert_eq!(joined(&[], &[], &[1, 5], 1_999), Err(Waiting::Answer));
    assert_eq!(joined(&[], &[], &[1, 5], 2_000), Ok(()));
    assert_eq!(joined(&[], &[], &[1, 2], 2_000), Ok(()), "whether it is a seed or not");
}

#[test]
fn a_name_that_is_not_resolved_is_a_silent_seed() {
    let name = Seeds::new(vec![SeedAddress::of("mesh")]);
    let view = view(&[], &[]);
    let dialler = Dialler::new(NodeId(5), at(5));
    let joined = |millis| has_joined(&view, &name, &dialler, Duration::from_millis(millis));
    assert_eq!(joined(1_999), Err(Waiting::Answer));
    assert_eq!(joined(2_000), Ok(()));
}

#[test]
fn a_node_that_a_seed_refuses_serves_nobody() {
    let (view, seeds) = (view(&[], &[]), seeds(&[1, 2]));
    let refused = Refusal::new(Reason::Secret, "the secrets differ");
    let refused = DialError::Refused(refused);
    let dialler = dialler(&view, &seeds, Some(&refused));
    let joined = has_joined(&view, &seeds, &dialler, Duration::from_mins(10));
    let waiting = joined.unwrap_err();
    let text = "10.0.0.1:7946 refuses this node (secret): the secrets differ; \
                10.0.0.2:7946 refuses this node (secret): the secrets differ";
    assert_eq!(waiting.to_string(), text);
}

#[test]
fn a_node_that_knows_others_is_linked_with_all_of_them_first() {
    let long = 60_000;
    let links =
        |names: &[&str]| Err(Waiting::Links(names.iter().map(|name| (*name).to_owned()).collect()));
    let missing = ["node-2 at 10.0.0.2:7946"];
    let dead = heard(2, Says::Alive, false);
    let table: [(&str, &[u64], Vec<Heard>, _); 11] = [
        ("one, linked", &[1], vec![live(1)], Ok(())),
        ("all, linked", &[1, 2], vec![live(1), live(2)], Ok(())),
        ("linked, not heard of", &[1], vec![], Err(Waiting::News)),
        ("one of them not heard of", &[1, 2], vec![live(1)], Err(Waiting::News)),
        ("one not linked", &[1], vec![live(1), live(2)], links(&missing)),
        ("none linked", &[], vec![live(2)], links(&missing)),
        ("one may live yet", &[1], vec![live(1), dead.clone()], Err(Waiting::News)),
        ("a leaving one", &[1], vec![live(1), heard(2, Says::Leaving, true)], Ok(())),
        ("one that left", &[1], vec![live(1), heard(2, Says::Left, true)], Ok(())),
        ("the last one leaves", &[], vec![heard(2, Says::Leaving, true)], Err(Waiting::News)),
        ("all the others left", &[], vec![heard(2, Says::Left, false)], Ok(())),
    ];
    for (what, linked, heard, expected) in table {
        assert_eq!(joined(linked, &heard, &[1, 5], long), expected, "{what}");
    }
}

#[test]
fn the_dead_are_not_waited_for() {
    let mut view = view(&[1], &[live(1), heard(2, Says::Alive, false)]);
    view.apply(Event::Tick, Duration::from_secs(2));
    let seeds = seeds(&[1]);
    let dialler = Dialler::new(NodeId(5), at(5));
    assert_eq!(has_joined(&view, &seeds, &dialler, Duration::from_secs(2)), Ok(()));
}

#[test]
fn what_is_waited_for_is_said_so_that_an_operator_can_act() {
    let links = Waiting::Links(vec!["a at 10.0.0.1:7946".to_owned(), "b at [::1]:1".to_owned()]);
    assert_eq!(links.to_string(), "there is no link to a at 10.0.0.1:7946, b at [::1]:1");
}
