//! The rules of one route, one by one.

use bytes::Bytes;

use super::{
    Whom::{All, Former, Owner},
    *,
};

const HERE: fn(NodeId) -> bool = |_| true;

fn session(time: u64, node: u64) -> SessionId {
    SessionId { time, node: NodeId(node) }
}

fn at(time: u64, node: u64) -> Place {
    Place { session: session(time, node), vouched: None }
}

/// One ring, whose owner is node 9.
struct Only;
impl RingView for Only {
    fn number(&self) -> u32 {
        1
    }

    fn owner(&self, _agent: &str) -> Option<NodeId> {
        Some(NodeId(9))
    }

    fn has_owned_since(&self, _number: u32, _owner: NodeId, _agent: &str) -> bool {
        true
    }
}

fn waiting(text: &'static str, lane: u8, after_ask: u64) -> Waiting<()> {
    let message = Message {
        from: "sender".parse().unwrap(),
        followed: false,
        body: Bytes::from_static(text.as_bytes()),
    };
    Waiting { message, lane, pushed: None, after_ask, since: Duration::ZERO, charge: () }
}

/// A message that was pushed in an era and came back.
fn back(text: &'static str, lane: u8, era: u32) -> Waiting<()> {
    Waiting { pushed: Some(era), ..waiting(text, lane, 0) }
}

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// A route that led to session 1 on node 1 since era 3, until session 2 on node 2 was heard of.
fn moved() -> Route<()> {
    let mut route = Route::doubted(session(1, 1), 3, 0);
    route.found(at(2, 2), 7);
    route.push_fences(|_, _, _| Pushed::Queued);
    route
}

fn echo_all(route: &mut Route<()>) {
    (0..4).for_each(|lane| route.fenced(NodeId(1), lane, 7));
}

fn settled(route: Route<()>, home: u64) -> (Vec<Bytes>, usize) {
    let (messages, stale) = route.settle(NodeId(home), 2);
    (messages.map(|waiting| waiting.message.body).collect(), stale.len())
}

#[test]
fn what_came_back_goes_before_what_waited() {
    let mut route = moved();
    route.queue(waiting("third", 2, 0)).unwrap();
    route.bounced(NodeId(1), back("first", 2, 3)).unwrap();
    route.bounced(NodeId(1), back("second", 2, 4)).unwrap();
    assert_eq!(route.next(millis(0), HERE), Next::Stay);
    echo_all(&mut route);
    assert_eq!(route.next(millis(0), HERE), Next::Settle(at(2, 2)));
    assert_eq!(settled(route, 2), (vec!["first".into(), "second".into(), "third".into()], 0));
}

#[test]
fn what_a_node_gave_back_is_not_sent_there_again() {
    let mut route = moved();
    route.queue(waiting("later", 0, 0)).unwrap();
    route.bounced(NodeId(1), back("early", 0, 3)).unwrap();
    route.found(at(3, 1), 8);
    echo_all(&mut route);
    assert_eq!(route.next(millis(0), HERE), Next::Settle(at(3, 1)));
    assert_eq!(settled(route, 1), (vec!["later".into()], 1));
}

#[test]
fn a_fence_is_complete_when_each_lane_echoed_it() {
    let mut route = moved();
    for (node, lane, epoch) in [(1, 0, 7), (1, 1, 7), (1, 2, 7), (1, 3, 6), (2, 3, 7), (1, 9, 7)] {
        route.fenced(NodeId(node), lane, epoch);
        assert_eq!(route.next(millis(0), HERE), Next::Stay);
    }
    route.fenced(NodeId(1), 3, 7);
    assert_eq!(route.next(millis(0), HERE), Next::Settle(at(2, 2)));
}

#[test]
fn a_fence_that_found_no_room_is_pushed_again() {
    let mut route = Route::<()>::doubted(session(1, 1), 3, 0);
    route.found(at(2, 2), 7);
    route.push_fences(|_, lane, _| if lane == 2 { Pushed::Full } else { Pushed::Queued });
    let mut again = Vec::new();
    route.push_fences(|node, lane, epoch| {
        again.push((node, lane, epoch));
        Pushed::Queued
    });
    assert_eq!(again, [(NodeId(1), 2, 7)]);
    route.push_fences(|_, _, _| panic!("all are on their way"));
}

#[test]
fn a_lost_link_completes_its_fence() {
    let mut route = moved();
    route.link_lost(NodeId(1));
    assert_eq!(route.next(millis(0), HERE), Next::Settle(at(2, 2)));
}

#[test]
fn late_ones_are_stale() {
    let mut route = moved();
    let stale = |result: Result<(), (Lost, Waiting<()>)>| result.unwrap_err().0 == Lost::Stale;
    assert!(stale(route.bounced(NodeId(3), back("from elsewhere", 0, 3))));
    route.fenced(NodeId(1), 0, 7);
    assert!(stale(route.bounced(NodeId(1), back("behind the echo", 0, 3))));
    assert!(route.bounced(NodeId(1), back("on another lane", 1, 3)).is_ok());
}

#[test]
fn what_was_pushed_along_an_earlier_route_is_no_news_of_this_one() {
    let mut route = Route::doubted(session(1, 1), 3, 0);
    route.refused(NodeId(1), 2, 7);
    let (why, _) = route.bounced(NodeId(1), back("long ago", 0, 2)).unwrap_err();
    assert_eq!((why, route.is_fenced()), (Lost::Stale, false));
    route.refused(NodeId(1), 3, 7);
    assert!(route.is_fenced() && route.bounced(NodeId(1), back("of late", 0, 3)).is_ok());
    assert_eq!(route.bounced(NodeId(1), back("long ago", 1, 2)).unwrap_err().0, Lost::Stale);
}

#[test]
fn what_was_pushed_before_the_new_home_was_heard_is_not_sent_there() {
    let mut route = Route::doubted(session(1, 1), 1, 0);
    route.found(at(2, 2), 7);
    route.bounced(NodeId(1), back("before", 0, 1)).unwrap();
    route.bounced(NodeId(1), back("since", 0, 2)).unwrap();
    route.queue(waiting("never pushed", 0, 0)).unwrap();
    echo_all(&mut route);
    assert_eq!(settled(route, 2), (vec!["since".into(), "never pushed".into()], 1));
}

#[test]
fn a_fence_is_given_up_for_silence_and_for_want_of_patience() {
    for give_up in [Route::silent as fn(&mut Route<()>, NodeId), |route, _| {
        route.lose_patience(millis(0));
        assert!(!route.has_given_up());
        route.lose_patience(FENCE_PATIENCE);
    }] {
        let mut route = moved();
        route.fenced(NodeId(1), 0, 7);
        give_up(&mut route, NodeId(1));
        assert!(route.has_given_up());
        assert_eq!(route.next(millis(0), HERE), Next::Settle(at(2, 2)));
    }
    let mut route = moved();
    echo_all(&mut route);
    route.silent(NodeId(1));
    assert!(!route.has_given_up(), "nothing comes back any more");
}

#[test]
fn unasked_a_route_that_leads_nowhere_is_told_no_place() {
    let mut route = Route::unknown(0);
    route.queue(waiting("a", 0, 0)).unwrap();
    route.told(at(5, 5), 1);
    assert_eq!(route.next(millis(0), HERE), Next::Ask);
    route.ask(1, millis(0));
    assert!(route.nobody(1).is_empty(), "somebody was told of");
    route.ask(2, millis(0));
    route.answered(2, at(4, 4), 0, millis(0));
    assert_eq!(route.next(millis(500), HERE), Next::Ask, "an older one is no answer");
    route.ask(3, millis(500));
    route.answered(3, at(5, 5), 0, millis(500));
    assert_eq!(route.next(millis(500), HERE), Next::Settle(at(5, 5)));
}

#[test]
fn unasked_only_an_owner_is_followed_to_another_place() {
    let by_owner = Place { vouched: Vouched::by(NodeId(9), "agent", &Only), ..at(3, 3) };
    let mut route = Route::doubted(session(1, 1), 0, 0);
    route.told(at(2, 2), 7);
    assert!(route.is_fenced(), "what was sent to the former home comes back first");
    route.ended(session(2, 2), 0, 8);
    route.told(at(3, 3), 8);
    route.queue(waiting("a", 0, 0)).unwrap();
    assert_eq!(route.next(millis(0), HERE), Next::Ask, "a home's word, while the fence is open");
    echo_all(&mut route);
    assert_eq!(route.next(millis(0), HERE), Next::Ask, "and behind it");
    route.told(by_owner, 8);
    route.told(at(3, 3), 8);
    assert_eq!(route.next(millis(0), HERE), Next::Settle(by_owner), "the owner's word stays");
    route.told(at(4, 4), 8);
    assert_eq!(route.next(millis(0), HERE), Next::Ask, "it is out of date");
}

#[test]
fn an_owner_whose_link_is_lost_vouches_no_more() {
    let vouched = Vouched::by(NodeId(9), "agent", &Only);
    let mut route = Route::<()>::doubted(session(1, 1), 0, 0);
    route.found(Place { session: session(2, 2), vouched }, 7);
    echo_all(&mut route);
    route.link_lost(NodeId(8));
    assert_eq!(route.next(millis(0), HERE), Next::Settle(Place { vouched, ..at(2, 2) }));
    route.link_lost(NodeId(9));
    assert_eq!(route.next(millis(0), HERE), Next::Settle(at(2, 2)));
}

#[test]
fn an_older_session_never_replaces_a_newer() {
    let mut route = Route::<()>::unknown(0);
    route.found(at(5, 5), 1);
    route.found(at(4, 4), 2);
    route.ended(session(4, 4), 0, 3);
    assert_eq!(route.next(millis(0), HERE), Next::Settle(at(5, 5)));
}

#[test]
fn an_ended_session_is_not_found_again() {
    let mut route = Route::doubted(session(1, 1), 3, 0);
    route.queue(waiting("a", 0, 0)).unwrap();
    route.ended(session(1, 1), 0, 7);
    route.found(at(1, 1), 8);
    route.link_lost(NodeId(1));
    assert_eq!(route.next(millis(0), HERE), Next::Ask);
}

#[test]
fn the_same_session_found_again_needs_no_fence() {
    let mut route = Route::<()>::doubted(session(1, 1), 3, 0);
    route.found(at(1, 1), 7);
    assert_eq!(route.next(millis(0), HERE), Next::Settle(at(1, 1)));
    let mut route = Route::<()>::doubted(session(1, 1), 3, 0);
    route.found(at(2, 1), 7);
    assert_eq!(route.next(millis(0), HERE), Next::Stay, "another session on the same node");
}

#[test]
fn nobody_is_true_of_what_waited_before_the_question() {
    let mut route = Route::unknown(0);
    route.queue(waiting("before", 0, 0)).unwrap();
    assert_eq!(route.ask(1, millis(0)), Whom::Owner);
    route.queue(waiting("after", 0, 1)).unwrap();
    let dropped: Vec<_> = route.nobody(1).into_iter().map(|m| m.message.body).collect();
    assert_eq!(dropped, ["before"]);
    assert_eq!(route.next(millis(1), HERE), Next::Ask);
    assert_eq!(route.ask(2, millis(1)), Whom::Owner);
    assert!(route.nobody(1).is_empty(), "an answer counts once");
    assert_eq!(route.nobody(2).len(), 1);
    assert_eq!(route.next(millis(2), HERE), Next::Forget);
}

#[test]
fn only_the_owner_can_say_nobody() {
    let mut route = Route::unknown(0);
    route.queue(waiting("a", 0, 0)).unwrap();
    route.ask(1, millis(0));
    route.not_known(1);
    assert_eq!(route.ask(2, millis(0)), Whom::Former);
    assert!(route.nobody(2).is_empty());
}

#[test]
fn who_does_not_answer_is_followed_by_others() {
    let mut route = Route::unknown(0);
    route.queue(waiting("a", 0, 0)).unwrap();
    let mut asked = Vec::new();
    for now in (0..700).step_by(50).map(millis) {
        if route.next(now, HERE) == Next::Ask {
            asked.push((now.as_millis(), route.ask(asked.len() as u64 + 1, now)));
        }
    }
    let expected = [(0, Owner), (250, Former), (350, All), (450, Owner), (550, All), (650, Owner)];
    assert_eq!(asked, expected);
}

#[test]
fn answers_to_questions_of_an_earlier_route_do_not_count() {
    let mut route = Route::unknown(5);
    route.queue(waiting("a", 0, 5)).unwrap();
    route.answered(5, at(1, 1), 0, millis(0));
    assert_eq!(route.next(millis(0), HERE), Next::Ask);
    route.answered(6, at(1, 1), 0, millis(0));
    assert_eq!(route.next(millis(0), HERE), Next::Settle(at(1, 1)));
}

#[test]
fn a_session_that_gave_messages_back_is_doubted_for_a_while() {
    let mut route = Route::doubted(session(1, 1), 3, 0);
    route.refused(NodeId(1), 3, 7);
    route.bounced(NodeId(1), back("a", 0, 3)).unwrap();
    route.queue(waiting("b", 0, 0)).unwrap();
    for lane in 0..u8::try_from(LANES).unwrap() {
        route.fenced(NodeId(1), lane, 7);
    }
    let in_turn = [Owner, Former, All, Owner];
    for ((ask, now), whom) in (1..).zip([0, 100, 200, 300]).zip(in_turn) {
        assert_eq!(route.next(millis(now), HERE), Next::Ask);
        assert_eq!(route.ask(ask, millis(now)), whom);
        route.answered(ask, at(1, 1), 0, millis(now));
        route.answered(ask, at(1, 1), 0, millis(now));
        assert_eq!(route.next(millis(now), HERE), Next::Stay);
    }
    assert_eq!(route.ask(5, millis(400)), All);
    route.answered(5, at(1, 1), 0, millis(400));
    assert_eq!(route.next(millis(400), HERE), Next::Settle(at(1, 1)));
}

#[test]
fn messages_wait_for_a_silent_home() {
    let mut route = Route::unknown(0);
    route.queue(waiting("a", 0, 0)).unwrap();
    route.ask(1, millis(0));
    route.answered(1, at(1, 1), 0, millis(10));
    assert_eq!(route.next(millis(10), |_| false), Next::Stay);
    assert_eq!(route.next(millis(10), HERE), Next::Settle(at(1, 1)));
}

#[test]
fn no_message_waits_for_ever() {
    let mut route = moved();
    route.queue(waiting("a", 0, 0)).unwrap();
    route.bounced(NodeId(1), back("b", 3, 3)).unwrap();
    assert!(route.expire(RESOLVE_DEADLINE.saturating_sub(millis(1))).is_empty());
    assert_eq!(route.expire(RESOLVE_DEADLINE).len(), 2);
}

#[test]
fn no_more_wait_than_have_room() {
    let mut route = moved();
    for _ in 0..WAITING_MAX - 1 {
        route.queue(waiting("a", 0, 0)).unwrap();
    }
    route.bounced(NodeId(1), back("b", 3, 3)).unwrap();
    assert!(route.queue(waiting("c", 0, 0)).is_err());
    let (why, _) = route.bounced(NodeId(1), back("d", 3, 3)).unwrap_err();
    assert_eq!(why, Lost::RouteFull);
}

#[test]
fn broadcasts_wait_behind_a_fence_and_behind_their_senders_messages() {
    let mut route = Route::unknown(0);
    assert!(!route.holds_back("sender", 0));
    route.queue(waiting("a", 0, 0)).unwrap();
    assert!(route.holds_back("sender", 0));
    assert!(!route.holds_back("another", 0));
    route.queue(waiting("b", 3, 1)).unwrap();
    assert!(route.holds_back("sender", 3));
    route.ask(1, millis(0));
    assert_eq!(route.nobody(1).len(), 1);
    assert!(!route.holds_back("sender", 0));
    assert!(route.holds_back("sender", 3), "what is left of the other lane is still counted");
    assert!(moved().holds_back("another", 0));
}
