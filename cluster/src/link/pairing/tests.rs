//! Rules one by one, and both ends against each other in any order of events.

use std::collections::BTreeMap;

use futures_util::FutureExt;
use proptest::prelude::*;

use super::*;
use crate::{Generation, Incarnation};

fn peer(node: u64, generation: u64) -> Introduction {
    Introduction {
        incarnation: Incarnation { node: NodeId(node), generation: Generation(generation) },
        name: String::new(),
        region: String::new(),
        version: String::new(),
        address: ([127, 0, 0, 1], 1).into(),
    }
}

fn reason(claim: Result<Claim, Refusal>) -> Option<Reason> {
    claim.err().map(|refusal| refusal.reason)
}

fn offer(pairing: &Arc<Pairing>, to: u64) -> Offer {
    match pairing.wish(NodeId(to)) {
        Wish::Offer(offer) => offer,
        Wish::Linked(_) | Wish::Open => panic!("no offer is to be made"),
    }
}

#[test]
fn only_one_lives() {
    let pairing = Pairing::new(NodeId(1));
    let claim = pairing.accept(&peer(2, 1)).ok();
    assert_eq!(reason(pairing.accept(&peer(2, 1))), Some(Reason::Duplicate));
    assert!(matches!(pairing.wish(NodeId(2)), Wish::Linked(_)));
    assert_eq!(reason(pairing.accept(&peer(3, 1))), None, "another peer is another pair");
    drop(claim);
    assert_eq!(reason(pairing.accept(&peer(2, 1))), None);
}

#[test]
fn an_open_offer_stands_against_higher_nodes_only() {
    let pairing = Pairing::new(NodeId(2));
    let offers = [offer(&pairing, 1), offer(&pairing, 3)];
    assert!(matches!(pairing.wish(NodeId(3)), Wish::Open));
    assert_eq!(reason(pairing.accept(&peer(3, 1))), Some(Reason::Duplicate));
    assert_eq!(reason(pairing.accept(&peer(1, 1))), None);
    drop(offers);
    assert_eq!(reason(pairing.accept(&peer(3, 1))), None);
}

#[test]
fn a_withdrawn_offer_takes_no_later_one_with_it() {
    let pairing = Pairing::new(NodeId(1));
    let first = offer(&pairing, 2);
    let claim = pairing.accepted(first, &peer(2, 1)).ok();
    drop(claim);
    let second = offer(&pairing, 2);
    assert!(matches!(pairing.wish(NodeId(2)), Wish::Open));
    drop(second);
    drop(offer(&pairing, 2));
}

#[test]
fn no_more_are_remembered_than_there_is_room_and_the_latest_of_them() {
    let pairing = Pairing::new(NodeId(1));
    let kept = pairing.accept(&peer(2, 1)).ok().unwrap();
    let offered = offer(&pairing, 3);
    for n in 0..PAIRS_MAX as u64 {
        drop(pairing.accept(&peer(10 + n, 5 + n)).ok().unwrap());
    }
    assert_eq!(pairing.pairs.lock().len(), PAIRS_MAX);
    assert!(matches!(pairing.wish(NodeId(2)), Wish::Linked(_)), "what lives stays");
    assert!(matches!(pairing.wish(NodeId(3)), Wish::Open), "and what is offered");
    let last = 9 + PAIRS_MAX as u64;
    assert_eq!(reason(pairing.accept(&peer(last, 4))), Some(Reason::Generation));
    assert_eq!(reason(pairing.accept(&peer(10, 4))), None, "the first is forgotten");
    drop((kept, offered));
}

#[test]
fn a_later_life_waits_for_the_end_of_the_former() {
    let pairing = Pairing::new(NodeId(1));
    let first = pairing.accept(&peer(2, 1)).ok().unwrap();
    let second = pairing.accept(&peer(2, 2)).ok().unwrap();
    assert!(second.former_ended().now_or_never().is_none());
    assert!(first.replaced().is_cancelled());
    // A third does not overtake the first, though the second gives up early.
    let third = pairing.accept(&peer(2, 3)).ok().unwrap();
    drop(second);
    assert!(third.former_ended().now_or_never().is_none());
    drop(first);
    assert!(third.former_ended().now_or_never().is_some());
    assert!(!third.replaced().is_cancelled());
}

#[test]
fn an_earlier_life_never_comes_back() {
    let pairing = Pairing::new(NodeId(1));
    drop(pairing.accept(&peer(2, 5)));
    assert_eq!(reason(pairing.accept(&peer(2, 4))), Some(Reason::Generation));
    let offer = offer(&pairing, 2);
    assert_eq!(reason(pairing.accepted(offer, &peer(2, 4))), Some(Reason::Generation));
    assert_eq!(reason(pairing.accept(&peer(2, 5))), None, "and leaves no offer behind");
}

#[test]
fn what_is_released_makes_room_before_it_ends() {
    let pairing = Pairing::new(NodeId(1));
    let first = pairing.accept(&peer(2, 1)).ok().unwrap();
    first.release();
    let second = pairing.accept(&peer(2, 1)).ok().unwrap();
    assert!(second.former_ended().now_or_never().is_none());
    drop(first);
    assert!(second.former_ended().now_or_never().is_some());
    assert!(matches!(pairing.wish(NodeId(2)), Wish::Linked(_)), "the end of the former ended it");
}

/// Both ends of a pair, and what is on its way between them.
struct Model {
    ends: [Arc<Pairing>; 2],
    offers: [BTreeMap<usize, Offer>; 2],
    claims: [BTreeMap<usize, Claim>; 2],
    messages: Vec<(usize, Message)>,
    connections: usize,
    given_up: bool,
}

/// To one end, of a connection.
enum Message {
    Opening(usize),
    Accepted(usize),
    Refused(usize),
    Closed(usize),
}

impl Model {
    fn new() -> Self {
        Self {
            ends: [1, 2].map(|node| Pairing::new(NodeId(node))),
            offers: Default::default(),
            claims: Default::default(),
            messages: Vec::new(),
            connections: 0,
            given_up: false,
        }
    }

    fn other(end: usize) -> Introduction {
        peer(2 - end as u64, 1)
    }

    fn dial(&mut self, end: usize) {
        if let Wish::Offer(offer) = self.ends[end].wish(Self::other(end).incarnation.node) {
            self.connections += 1;
            self.offers[end].insert(self.connections, offer);
            self.messages.push((1 - end, Message::Opening(self.connections)));
        }
    }

    /// The deadline of an offer passes.
    fn give_up(&mut self, end: usize) {
        if let Some((connection, _)) = self.offers[end].pop_first() {
            self.given_up = true;
            self.messages.push((1 - end, Message::Closed(connection)));
        }
    }

    fn deliver(&mut self, index: usize) {
        // Different connections do not keep to each other's order; one does.
        let (end, message) = self.messages.remove(index % self.messages.len());
        let answer = match message {
            Message::Opening(it) => match self.ends[end].accept(&Self::other(end)) {
                Ok(claim) => {
                    self.claim(end, it, claim);
                    Some(Message::Accepted(it))
                }
                Err(_) => Some(Message::Refused(it)),
            },
            Message::Accepted(it) => {
                if let Some(offer) = self.offers[end].remove(&it) {
                    let claim = self.ends[end].accepted(offer, &Self::other(end)).ok().unwrap();
                    self.claim(end, it, claim);
                }
                None
            }
            Message::Refused(it) => {
                self.offers[end].remove(&it);
                None
            }
            Message::Closed(it) => {
                // What was still to be read of the connection is moot.
                self.messages.retain(
                    |(_, message)| !matches!(message, Message::Opening(other) if *other == it),
                );
                self.claims[end].remove(&it);
                self.offers[end].remove(&it);
                None
            }
        };
        self.messages.extend(answer.map(|answer| (1 - end, answer)));
    }

    fn claim(&mut self, end: usize, connection: usize, claim: Claim) {
        for (replaced, former) in std::mem::take(&mut self.claims[end]) {
            assert!(claim.former_ended().now_or_never().is_none());
            assert!(former.replaced().is_cancelled());
            self.messages.push((1 - end, Message::Closed(replaced)));
        }
        assert!(claim.former_ended().now_or_never().is_some());
        self.claims[end].insert(connection, claim);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3_000))]
    #[test]
    fn both_ends_agree_on_one(
        steps in proptest::collection::vec((0..8_u8, any::<usize>()), 1..40),
        patient in any::<bool>(),
    ) {
        let mut model = Model::new();
        for (step, index) in steps {
            match step {
                0 | 1 => model.dial(usize::from(step)),
                2 | 3 if !patient => model.give_up(usize::from(step) - 2),
                _ if !model.messages.is_empty() => model.deliver(index),
                _ => {}
            }
        }
        while !model.messages.is_empty() {
            model.deliver(0);
        }
        let [a, b] = model.claims.each_ref().map(|claims| claims.keys().copied().collect::<Vec<_>>());
        prop_assert_eq!(&a, &b);
        prop_assert!(a.len() <= 1);
        let dialled = model.connections > 0;
        prop_assert!(model.given_up || !dialled || a.len() == 1, "nobody is linked");
        prop_assert!(model.offers.iter().all(BTreeMap::is_empty));
    }
}
