//! The receiver's side of broadcasts from another region, one origin's one lane.
//!
//! What comes on the lane from the origin itself comes in order, and says where in it the broadcasts
//! have their place; the broadcasts' bytes come by whichever way. Both are put together here.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use super::kept::Kept;
use crate::wire::{Broadcast, Data};

/// How many bytes of frames one lane holds back; on all lanes from 100 origins 1.6 GiB at the very
/// worst, while they all stand still.
pub(crate) const HELD_BYTES_MAX: usize = 4 << 20;

/// How long a frame is held back at most; then what it waits for is given up. So long a broadcast
/// waits for its place if the lane says none: 32 MiB may be before it in the lane, and what is among
/// them comes too late once the broadcast is delivered. A link that carries nothing is lost long before.
pub(crate) const HELD_FOR_MAX: Duration = Duration::from_secs(30);

/// How long a broadcast whose place has come is waited for, if the origin can be asked for it: it answers
/// behind all that waits in the lane.
const ANSWERED_WITHIN: Duration = Duration::from_secs(8);

/// How long one is waited for without a link, when nobody can be asked.
const UNLINKED_FOR: Duration = Duration::from_secs(2);

/// How long a broadcast may be missing before it is asked for: it may be on its way.
const PATIENCE: Duration = Duration::from_millis(50);

/// How long the answer to a request is waited for; to the next one for the same broadcasts twice as
/// long, so that a lane that is slow is not buried under repetitions.
const ASK_AGAIN: Duration = Duration::from_millis(150);

/// How many broadcasts are asked for at once.
const ASKED_MAX: u64 = 256;

/// News of missing broadcasts within this time counts as one, so that a list of it has an end.
const NEWS_GRAIN: Duration = Duration::from_millis(10);

/// No broadcast has a higher number, whatever a peer says: there is always one to wait for next.
const NUMBER_MAX: u64 = u64::MAX - 1;

/// What is to be done with a frame that came. Whatever it is, what
/// [`released`](Reception::released) then gives is to be delivered next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Deliver it now.
    Deliver,
    /// It is kept, and will be released in its turn.
    Held,
    /// It was delivered or given up before, or is held already: drop it.
    Seen,
}

/// Broadcasts to ask the origin for (`Resend`): their first and last number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Missing {
    /// The first.
    pub(crate) from: u64,
    /// The last.
    pub(crate) to: u64,
}

/// A request, and when it may be repeated.
#[derive(Clone, Copy, Debug)]
struct Asked {
    from: u64,
    /// No broadcast above this one was asked for by any request.
    through: u64,
    again_at: Duration,
    pause: Duration,
}

/// One lane of one origin, in one of its lives, in another region.
#[derive(Debug, Default)]
pub(crate) struct Reception {
    /// The broadcast that is to be delivered next; none until the origin has said where to start.
    next: Option<u64>,
    /// Whether there is a link to the origin, whose lane then decides the order.
    linked: bool,
    /// Broadcasts up to this one have their place before the lane's next frame.
    placed: u64,
    /// Broadcasts up to this one, and places of them, are waited for no more.
    given_up: u64,
    /// Broadcasts up to this one were delivered, though the lane has not reached their places.
    overtaken: u64,
    /// Broadcasts that came too early.
    early: BTreeMap<u64, Kept>,
    /// The lane's other frames, in order, each with the broadcast that it has its place behind.
    behind: VecDeque<(u64, Kept)>,
    /// What waits in `early` and `behind`.
    held_bytes: usize,
    /// Since when it is known that there are broadcasts that are not reached yet.
    news: Since,
    /// Since when the lane has reached their places.
    due: Since,
    /// What the origin's last ping said.
    pinged: u64,
    /// What was asked for last.
    asked: Option<Asked>,
    /// What is to be delivered.
    ready: VecDeque<Kept>,
    missed: u64,
    unplaced: u64,
}

impl Reception {
    /// There is a link to the origin: from now on its lane decides the order. To be said as soon as it
    /// is known, before the first frame.
    pub(crate) fn link_up(&mut self) {
        self.linked = true;
    }

    /// A `Start` came on the lane: the broadcasts up to `seq` have their place before it. The first
    /// one says that those above it are for this node: of those up to it that came already, by another
    /// way, nobody knows the place, so they are lost.
    pub(crate) fn start(&mut self, seq: u64, now: Duration) {
        let seq = seq.min(NUMBER_MAX);
        self.linked = true;
        if self.next.is_none() {
            self.next = Some(seq.saturating_add(1));
            let above = self.early.split_off(&seq.saturating_add(1));
            let below = std::mem::replace(&mut self.early, above);
            self.held_bytes -= below.values().map(Kept::bytes).sum::<usize>();
            self.unplaced += below.len() as u64;
            // A peer that sent before it started has said places that were given up and forgotten.
            self.expect_placed(now);
        }
        self.place(seq, now);
    }

    /// A broadcast came on the lane from its origin itself.
    pub(crate) fn broadcast(&mut self, broadcast: &Broadcast<'_>, now: Duration) -> Verdict {
        self.place(broadcast.seq, now);
        self.take(broadcast, now)
    }

    /// A broadcast of the origin came from a gateway of this node's region.
    pub(crate) fn relayed(&mut self, broadcast: &Broadcast<'_>, now: Duration) -> Verdict {
        self.take(broadcast, now)
    }

    /// Any other frame came on the lane.
    pub(crate) fn follow(&mut self, frame: &Data<'_>) -> Verdict {
        if let Data::Direct(direct) = frame
            && self.placed < self.overtaken
        {
            // Too late: delivered now, it would come behind what was sent after it.
            self.missed += direct.targets.iter().count() as u64;
            return Verdict::Seen;
        }
        let reached = self.next.is_none_or(|next| self.placed < next);
        if reached && self.behind.is_empty() && self.ready.is_empty() {
            return Verdict::Deliver;
        }
        let kept = Kept::new(frame);
        self.held_bytes += kept.bytes();
        self.behind.push_back((self.placed, kept));
        self.advance();
        self.keep_bound();
        Verdict::Held
    }

    /// Whether a gateway passes a broadcast on that it got from the origin itself: unless it asked for
    /// it. To be asked before [`broadcast`](Self::broadcast) is called.
    pub(crate) fn passes_on(&self, seq: u64) -> bool {
        self.asked.is_none_or(|asked| seq > asked.through)
    }

    /// The origin's ping says which was its last broadcast on this lane. Pings overtake the lane, so
    /// this counts only when the next ping comes.
    pub(crate) fn pinged(&mut self, last: u64, now: Duration) {
        let due = std::mem::replace(&mut self.pinged, last.min(NUMBER_MAX));
        self.learn(due, now);
    }

    /// The link to the origin is lost: no lane decides the order any more, what waits for it is
    /// delivered in the order of the broadcasts.
    pub(crate) fn link_lost(&mut self) {
        self.linked = false;
        self.advance();
    }

    /// Time has passed: gives up what was waited for too long, and says what to ask the origin for.
    pub(crate) fn poll(&mut self, now: Duration) -> Option<Missing> {
        while let Some(seq) = self.overdue(now) {
            self.give_up(seq);
        }
        let (since, _) = *self.news.0.front()?;
        if !self.linked || now.saturating_sub(since) < PATIENCE {
            return None;
        }
        self.ask(now)
    }

    /// The next frame that was held and is now to be delivered.
    pub(crate) fn released(&mut self) -> Option<Kept> {
        self.ready.pop_front()
    }

    /// How many broadcasts were given up, and directs came too late, since this was last asked.
    pub(crate) fn take_missed(&mut self) -> u64 {
        std::mem::take(&mut self.missed)
    }

    /// How many broadcasts were dropped since this was last asked because the origin had not said where
    /// to start, or started behind them: this node was not linked with it when it sent them. Those
    /// that turn out to be for this node may come again.
    pub(crate) fn take_unplaced(&mut self) -> u64 {
        std::mem::take(&mut self.unplaced)
    }

    /// How many bytes are held back.
    #[cfg(test)]
    pub(crate) fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    /// The lane says that the broadcasts up to `seq` come before what follows.
    fn place(&mut self, seq: u64, now: Duration) {
        let seq = seq.min(NUMBER_MAX);
        if seq > self.placed {
            self.placed = seq;
            self.expect_placed(now);
            self.advance();
        }
    }

    /// From now on the broadcasts that have their place are waited for.
    fn expect_placed(&mut self, now: Duration) {
        self.learn(self.placed, now);
        if !self.is_reached(self.placed) {
            self.due.note(self.placed, now);
        }
    }

    /// There is a broadcast of this number.
    fn learn(&mut self, seq: u64, now: Duration) {
        if !self.is_reached(seq) {
            self.news.note(seq, now);
        }
    }

    /// Whether the broadcast was delivered or given up.
    fn is_reached(&self, seq: u64) -> bool {
        self.next.is_some_and(|next| seq < next)
    }

    fn take(&mut self, broadcast: &Broadcast<'_>, now: Duration) -> Verdict {
        let seq = broadcast.seq;
        if self.is_reached(seq) || self.early.contains_key(&seq) || seq > NUMBER_MAX {
            return Verdict::Seen;
        }
        if self.next == Some(seq) && self.has_its_place(seq) && self.ready.is_empty() {
            self.note_delivered(seq);
            self.next = Some(seq.saturating_add(1));
            self.advance();
            return Verdict::Deliver;
        }
        self.learn(seq, now);
        let kept = Kept::new(&Data::Broadcast(broadcast.clone()));
        self.held_bytes += kept.bytes();
        self.early.insert(seq, kept);
        self.advance();
        self.keep_bound();
        Verdict::Held
    }

    fn has_its_place(&self, seq: u64) -> bool {
        !self.linked || seq <= self.placed.max(self.given_up)
    }

    fn note_delivered(&mut self, seq: u64) {
        if seq > self.placed {
            self.overtaken = seq;
        }
    }

    /// Moves to `ready` what has waited for nothing but its turn.
    fn advance(&mut self) {
        let Some(mut next) = self.next else { return };
        loop {
            let first = self.early.first_key_value().map(|(seq, _)| *seq);
            if self.behind.front().is_some_and(|(after, _)| *after < next) {
                let behind = self.behind.pop_front();
                self.make_ready(behind.map(|(_, kept)| kept));
            } else if first == Some(next) && self.has_its_place(next) {
                let early = self.early.pop_first();
                self.make_ready(early.map(|(_, kept)| kept));
                self.note_delivered(next);
                next = next.saturating_add(1);
            } else if first != Some(next) && next <= self.given_up {
                let after_gap = self.given_up.saturating_add(1);
                let reached = first.map_or(after_gap, |first| first.min(after_gap));
                self.missed += reached - next;
                next = reached;
            } else {
                break;
            }
        }
        self.next = Some(next);
        self.forget_below(next);
    }

    fn forget_below(&mut self, next: u64) {
        self.news.forget_below(next);
        self.due.forget_below(next);
    }

    fn make_ready(&mut self, kept: Option<Kept>) {
        if let Some(kept) = kept {
            self.held_bytes -= kept.bytes();
            self.ready.push_back(kept);
        }
    }

    /// What is missing up to `seq` is waited for no more. What came before there was a start is no
    /// more held for one: if it is for this node, it can be asked for.
    fn give_up(&mut self, seq: u64) {
        if self.next.is_some() {
            self.given_up = self.given_up.max(seq);
            return self.advance();
        }
        while let Some(first) = self.early.first_entry().filter(|first| *first.key() <= seq) {
            self.held_bytes -= first.remove().bytes();
            self.unplaced += 1;
        }
        self.forget_below(seq.saturating_add(1));
    }

    /// What was waited for too long: the broadcasts up to this one.
    fn overdue(&mut self, now: Duration) -> Option<u64> {
        let (placed, unplaced) = if self.linked {
            (ANSWERED_WITHIN, HELD_FOR_MAX)
        } else {
            (UNLINKED_FOR, UNLINKED_FOR)
        };
        let due = self.due.first_above(0, placed, now);
        due.or_else(|| self.news.first_above(self.placed, unplaced, now))
    }

    /// Makes room until what is held is within its bound: what has no place yet is forgotten, the last
    /// first, since it can be asked for when it has; then what is waited for is given up.
    fn keep_bound(&mut self) {
        while self.held_bytes > HELD_BYTES_MAX {
            let last = self.early.last_entry().filter(|last| {
                self.linked && self.next.is_some() && *last.key() > self.placed.max(self.given_up)
            });
            if let Some(last) = last {
                self.held_bytes -= last.remove().bytes();
                continue;
            }
            let early = self.early.first_key_value().map(|(seq, _)| *seq);
            let behind = self.behind.front().map(|(after, _)| *after);
            let Some(first) = early.into_iter().chain(behind).min() else { break };
            self.give_up(first);
        }
    }

    fn ask(&mut self, now: Duration) -> Option<Missing> {
        let from = self.next?;
        let known = self.news.0.back().map(|(_, seq)| *seq)?;
        let first = self.early.first_key_value().map(|(seq, _)| *seq);
        let to = first.map_or(known, |first| first.saturating_sub(1).min(known));
        let last = self.asked.filter(|asked| from <= asked.through);
        if to < from || last.is_some_and(|asked| now < asked.again_at) {
            return None;
        }
        let to = to.min(from.saturating_add(ASKED_MAX - 1));
        let pause = match last {
            Some(Asked { from: same, pause, .. }) if same == from => pause.saturating_mul(2),
            _ => ASK_AGAIN,
        };
        let through = to.max(self.asked.map_or(0, |asked| asked.through));
        self.asked = Some(Asked { from, through, again_at: now.saturating_add(pause), pause });
        Some(Missing { from, to })
    }
}

/// Times, each with the last broadcast that something is true of since then; both grow.
#[derive(Debug, Default)]
struct Since(VecDeque<(Duration, u64)>);

impl Since {
    /// It is true of the broadcasts up to `seq` from now on, unless it was before.
    fn note(&mut self, seq: u64, now: Duration) {
        match self.0.back_mut() {
            Some((_, last)) if *last >= seq => {}
            Some((since, last)) if now.saturating_sub(*since) < NEWS_GRAIN => *last = seq,
            _ => self.0.push_back((now, seq)),
        }
    }

    /// The first broadcast above `seq` that is listed, if it has been for `patience`.
    fn first_above(&self, seq: u64, patience: Duration, now: Duration) -> Option<u64> {
        let (since, last) = self.0.get(self.0.partition_point(|(_, last)| *last <= seq))?;
        (now.saturating_sub(*since) >= patience).then_some(*last)
    }

    /// Only broadcasts from `next` on count.
    fn forget_below(&mut self, next: u64) {
        while self.0.pop_front_if(|(_, seq)| *seq < next).is_some() {}
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a failed unwrap is a failed test
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::{Body, Direct, Names};

    const MS: Duration = Duration::from_millis(1);

    fn message(seq: u64, body: &[u8]) -> Broadcast<'_> {
        Broadcast { seq, from: "ann", except: Names::NONE, body: Body::Borrowed(body) }
    }

    fn direct() -> Data<'static> {
        let (targets, body) = (Names::List(&["bob"]), Body::Borrowed(b"{}"));
        Data::Direct(Direct { followed: false, resent: false, era: 0, from: "ann", targets, body })
    }

    const FENCE: Data<'static> = Data::Fence { agent: "bob", epoch: 1 };

    /// What is released: numbers of broadcasts, and 0 for all else.
    fn released(reception: &mut Reception) -> Vec<u64> {
        std::iter::from_fn(|| reception.released())
            .map(|kept| match kept.frame() {
                Data::Broadcast(broadcast) => broadcast.seq,
                _ => 0,
            })
            .collect()
    }

    fn started(seq: u64) -> Reception {
        let mut reception = Reception::default();
        reception.start(seq, Duration::ZERO);
        reception
    }

    #[test]
    fn a_direct_message_that_a_broadcast_overtook_is_dropped_and_counted() {
        let mut reception = started(0);
        assert_eq!(reception.relayed(&message(1, b"{}"), Duration::ZERO), Verdict::Held);
        reception.poll(HELD_FOR_MAX);
        assert_eq!(released(&mut reception), [1], "its place was given up");
        reception.take_missed();
        assert_eq!(reception.follow(&direct()), Verdict::Seen);
        assert_eq!(reception.take_missed(), 1);
        assert_eq!(reception.follow(&FENCE), Verdict::Deliver, "only messages can be late");
        reception.start(1, HELD_FOR_MAX);
        assert_eq!(reception.follow(&direct()), Verdict::Deliver, "sent after it");
    }

    #[test]
    fn no_broadcast_overtakes_a_lane_that_is_slow() {
        let (mut reception, late) = (started(0), MS * 29_999);
        assert_eq!(reception.relayed(&message(1, b""), Duration::ZERO), Verdict::Held);
        reception.poll(late);
        assert!(released(&mut reception).is_empty(), "what was sent before it is in the lane");
        assert_eq!(reception.follow(&direct()), Verdict::Deliver);
        reception.start(1, late);
        assert_eq!(released(&mut reception), [1]);
        assert_eq!(reception.take_missed(), 0);
    }

    #[test]
    fn what_a_slow_lane_places_late_can_be_asked_for_then() {
        let (mut reception, late) = (started(0), MS * 29_999);
        reception.relayed(&message(2, b""), Duration::ZERO);
        reception.poll(MS * 50);
        reception.start(2, late);
        assert_eq!(reception.poll(late), Some(Missing { from: 1, to: 1 }));
        let answered = late + MS * 7_999;
        reception.poll(answered);
        assert_eq!(reception.broadcast(&message(1, b""), answered), Verdict::Deliver);
        assert_eq!((released(&mut reception), reception.take_missed()), (vec![2], 0));
    }

    #[test]
    fn what_has_no_place_yet_makes_room_and_is_asked_for_again() {
        let (mut reception, now) = (started(0), Duration::ZERO);
        let large = vec![0; HELD_BYTES_MAX / 3];
        for seq in [1, 2, 3, 4] {
            reception.relayed(&message(seq, &large), now);
        }
        assert!(released(&mut reception).is_empty() && reception.held_bytes() <= HELD_BYTES_MAX);
        assert_eq!(reception.follow(&direct()), Verdict::Deliver, "it is in its place still");
        reception.start(4, MS);
        assert_eq!(released(&mut reception), [1, 2]);
        assert_eq!(reception.poll(MS * 60), Some(Missing { from: 3, to: 4 }));
        for seq in [3, 4] {
            assert_eq!(reception.broadcast(&message(seq, &large), MS * 70), Verdict::Deliver);
        }
        assert_eq!((reception.held_bytes(), reception.take_missed()), (0, 0));
    }

    #[test]
    fn a_request_is_repeated_less_and_less_often_until_something_comes() {
        let mut reception = started(0);
        reception.start(3, Duration::ZERO);
        let asked = |reception: &mut Reception, from: u32, to: u32| -> Vec<u32> {
            (from..to).step_by(50).filter(|ms| reception.poll(MS * *ms).is_some()).collect()
        };
        assert_eq!(asked(&mut reception, 50, 4_000), [50, 200, 500, 1_100, 2_300]);
        reception.broadcast(&message(1, b""), MS * 4_000);
        assert_eq!(asked(&mut reception, 4_750, 5_000), [4_750, 4_900], "two are missing still");
    }

    #[test]
    fn what_comes_in_order_is_never_kept() {
        let (mut reception, now) = (started(0), Duration::ZERO);
        for seq in 1..100 {
            assert_eq!(reception.broadcast(&message(seq, b""), now), Verdict::Deliver);
            assert_eq!(reception.follow(&direct()), Verdict::Deliver);
            assert_eq!(reception.follow(&FENCE), Verdict::Deliver);
        }
        assert_eq!(reception.early.len() + reception.behind.capacity(), 0);
        assert_eq!(reception.ready.capacity() + reception.held_bytes(), 0);
    }

    #[test]
    fn the_lane_decides_where_a_broadcast_has_its_place() {
        let (mut reception, now) = (started(4), Duration::ZERO);
        assert_eq!(reception.relayed(&message(5, b""), now), Verdict::Held);
        assert_eq!(reception.follow(&direct()), Verdict::Deliver, "it was sent before");
        assert!(released(&mut reception).is_empty());
        reception.start(5, now);
        assert_eq!(released(&mut reception), [5]);
        assert_eq!(reception.relayed(&message(5, b""), now), Verdict::Seen);
    }

    #[test]
    fn what_follows_a_missing_broadcast_waits_in_its_order() {
        let (mut reception, now) = (started(4), Duration::ZERO);
        reception.start(5, now);
        assert_eq!(reception.follow(&FENCE), Verdict::Held);
        assert_eq!(reception.broadcast(&message(6, b""), now), Verdict::Held);
        assert_eq!(reception.relayed(&message(6, b""), now), Verdict::Seen);
        reception.start(6, now);
        assert_eq!(reception.follow(&direct()), Verdict::Held);
        assert!(released(&mut reception).is_empty());
        assert_eq!(reception.relayed(&message(5, b""), now), Verdict::Deliver);
        assert_eq!(reception.follow(&direct()), Verdict::Held, "others are before it");
        assert_eq!(released(&mut reception), [0, 6, 0, 0]);
        assert_eq!(reception.follow(&FENCE), Verdict::Deliver);
        assert_eq!(reception.held_bytes(), 0);
    }

    #[test]
    fn before_the_start_all_is_held_and_then_only_what_is_above_it_delivered() {
        let (mut reception, now) = (Reception::default(), Duration::ZERO);
        for seq in [6, 4, 5] {
            assert_eq!(reception.relayed(&message(seq, b""), now), Verdict::Held);
        }
        reception.start(4, now);
        reception.start(6, now);
        assert_eq!(released(&mut reception), [5, 6]);
        assert_eq!((reception.held_bytes(), reception.poll(MS * 60)), (0, None));
        assert_eq!(reception.take_unplaced(), 1, "what was before the start");
    }

    #[test]
    fn what_waits_for_a_start_that_does_not_come_is_counted() {
        let (mut reception, now) = (Reception::default(), Duration::ZERO);
        let large = vec![0; HELD_BYTES_MAX / 2];
        for seq in [1, 2, 3] {
            reception.relayed(&message(seq, &large), now);
        }
        assert_eq!(reception.take_unplaced(), 2, "there is no room for more than one");
        reception.poll(HELD_FOR_MAX);
        assert_eq!((reception.take_unplaced(), reception.held_bytes()), (1, 0));
    }

    #[test]
    fn what_was_placed_before_the_start_is_not_waited_for_without_end() {
        let mut reception = Reception::default();
        assert_eq!(reception.broadcast(&message(51, b""), Duration::ZERO), Verdict::Held);
        reception.poll(HELD_FOR_MAX);
        reception.start(0, HELD_FOR_MAX);
        assert_eq!(
            reception.follow(&direct()),
            Verdict::Held,
            "the lane says that it is behind 51"
        );
        reception.poll(HELD_FOR_MAX * 2);
        assert_eq!((released(&mut reception), reception.held_bytes()), (vec![0], 0));
    }

    #[test]
    fn a_gap_is_asked_for_when_it_is_old_enough_and_not_too_often() {
        let mut reception = started(0);
        reception.start(2, MS * 10);
        assert_eq!(reception.poll(MS * 59), None);
        assert_eq!(reception.poll(MS * 60), Some(Missing { from: 1, to: 2 }));
        reception.start(9, MS * 100);
        assert_eq!(reception.poll(MS * 209), None);
        assert_eq!(reception.relayed(&message(7, b""), MS * 209), Verdict::Held);
        assert_eq!(reception.poll(MS * 210), Some(Missing { from: 1, to: 6 }));
        for seq in 1..=6 {
            assert!(!reception.passes_on(seq) && reception.passes_on(7));
            reception.broadcast(&message(seq, b""), MS * 220);
        }
        assert_eq!(released(&mut reception), [7]);
        assert_eq!(reception.poll(MS * 220), Some(Missing { from: 8, to: 9 }), "another gap");
        reception.link_lost();
        assert_eq!(reception.poll(MS * 900), None, "nobody can be asked");
    }

    #[test]
    fn a_ping_counts_when_the_next_one_comes() {
        let mut reception = started(0);
        reception.pinged(3, MS);
        assert_eq!(reception.poll(MS * 900), None);
        reception.pinged(3, MS * 1_000);
        assert_eq!(reception.poll(MS * 1_050), Some(Missing { from: 1, to: 3 }));
    }

    #[test]
    fn what_does_not_come_is_given_up_and_counted() {
        let mut reception = started(0);
        reception.start(3, Duration::ZERO);
        assert_eq!(reception.follow(&FENCE), Verdict::Held);
        reception.relayed(&message(2, b""), MS * 5);
        reception.relayed(&message(5, b""), MS * 100);
        reception.poll(MS * 7_999);
        assert!(released(&mut reception).is_empty());
        reception.poll(ANSWERED_WITHIN);
        assert_eq!(released(&mut reception), [2, 0]);
        assert_eq!(reception.take_missed(), 2);
        assert_eq!(reception.relayed(&message(1, b""), ANSWERED_WITHIN), Verdict::Seen);
        reception.poll(HELD_FOR_MAX + MS * 99);
        assert!(released(&mut reception).is_empty());
        reception.poll(HELD_FOR_MAX + MS * 100);
        assert_eq!(released(&mut reception), [5], "its place is given up too");
        assert_eq!((reception.take_missed(), reception.held_bytes()), (1, 0));
    }

    #[test]
    fn without_a_link_nobody_can_be_asked_and_less_is_waited() {
        let mut reception = started(0);
        reception.start(3, Duration::ZERO);
        reception.relayed(&message(2, b""), Duration::ZERO);
        reception.poll(UNLINKED_FOR);
        assert!(released(&mut reception).is_empty());
        reception.link_lost();
        reception.poll(UNLINKED_FOR);
        assert_eq!((released(&mut reception), reception.take_missed()), (vec![2], 2));
    }

    #[test]
    fn without_a_link_numbers_alone_decide() {
        let mut reception = started(0);
        reception.relayed(&message(1, b""), Duration::ZERO);
        reception.relayed(&message(3, b""), Duration::ZERO);
        reception.link_lost();
        assert_eq!(released(&mut reception), [1]);
        assert_eq!(reception.relayed(&message(2, b""), Duration::ZERO), Verdict::Deliver);
        assert_eq!(released(&mut reception), [3]);
        reception.link_up();
        assert_eq!(reception.relayed(&message(4, b""), Duration::ZERO), Verdict::Held);
        reception.start(4, Duration::ZERO);
        assert_eq!(released(&mut reception), [4]);
    }

    #[test]
    fn numbers_that_no_origin_reaches_end_nothing() {
        for seq in [u64::MAX - 1, u64::MAX] {
            for wait in [Duration::ZERO, HELD_FOR_MAX] {
                let mut reception = started(0);
                reception.pinged(seq, Duration::ZERO);
                reception.pinged(seq, Duration::ZERO);
                reception.relayed(&message(seq, b""), Duration::ZERO);
                reception.start(seq, Duration::ZERO);
                reception.follow(&FENCE);
                reception.poll(wait);
                reception.broadcast(&message(seq, b""), wait);
                reception.poll(wait + HELD_FOR_MAX);
                assert_eq!(released(&mut reception).last(), Some(&0), "the fence");
                assert_eq!(reception.held_bytes(), 0);
                assert_eq!(reception.broadcast(&message(seq, b""), wait), Verdict::Seen);
            }
            let mut reception = Reception::default();
            reception.start(seq, Duration::ZERO);
            reception.poll(HELD_FOR_MAX);
            assert_eq!(reception.follow(&FENCE), Verdict::Deliver);
        }
    }

    proptest! {
        /// Whatever comes, however large: nothing twice, all in order, and within the bounds.
        #[test]
        fn any_frames_are_kept_within_bounds(
            steps in proptest::collection::vec((0_u8..8, 0_u64..60, 0_usize..1_500_000), 0..200)
        ) {
            let (mut reception, mut now, body) = (Reception::default(), Duration::ZERO, vec![0; 1_500_000]);
            let (mut last, mut count) = (0, 0);
            for (kind, seq, n) in steps {
                let broadcast = message(seq, &body[..n]);
                let verdict = match kind {
                    0 => { reception.start(seq, now); Verdict::Held }
                    1 => reception.broadcast(&broadcast, now),
                    2 | 3 => reception.relayed(&broadcast, now),
                    4 => { reception.start(seq, now); reception.follow(&direct()); Verdict::Held }
                    5 => { reception.link_lost(); Verdict::Held }
                    6 => { reception.pinged(seq, now); Verdict::Held }
                    _ => {
                        now += MS * u32::try_from(n / 2_000).unwrap();
                        reception.poll(now);
                        Verdict::Held
                    }
                };
                let mut delivered = released(&mut reception);
                if verdict == Verdict::Deliver {
                    delivered.insert(0, seq);
                }
                for seq in delivered.into_iter().filter(|seq| *seq > 0) {
                    prop_assert!(seq > last, "{} after {}", seq, last);
                    (last, count) = (seq, count + 1);
                }
                let held = reception.early.values().chain(reception.behind.iter().map(|(_, kept)| kept));
                prop_assert_eq!(held.map(Kept::bytes).sum::<usize>(), reception.held_bytes());
                prop_assert!(reception.held_bytes() <= HELD_BYTES_MAX);
                prop_assert!(reception.news.0.len() <= 201 && reception.due.0.len() <= 201);
            }
            reception.poll(now + HELD_FOR_MAX);
            released(&mut reception);
            prop_assert_eq!(reception.held_bytes(), 0, "nothing waits for longer");
        }
    }
}
