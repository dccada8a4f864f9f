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

/// How long one is waited for that was sent before the link came up: the lane is still empty, and while
/// no node of this region was linked, the origin kept none.
const BEFORE_LINK_WITHIN: Duration = Duration::from_secs(2);

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
    /// Whether the link is new, and its first `Start` has not come.
    link_begins: bool,
    /// Broadcasts up to this one were sent before the link came up.
    before_link: u64,
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
        self.link_begins = true;
    }

    /// A `Start` came on the lane: the broadcasts up to `seq` have their place before it. The first
    /// one says that those above it are for this node: of those up to it that came already, by another
    /// way, nobody knows the place, so they are lost.
    pub(crate) fn start(&mut self, seq: u64, now: Duration) {
        let seq = seq.min(NUMBER_MAX);
        if !self.linked {
            self.link_up();
        }
        if std::mem::take(&mut self.link_begins) {
            self.before_link = seq;
        }
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
        let is_number = (1..=NUMBER_MAX).contains(&seq);
        if self.is_reached(seq) || self.early.contains_key(&seq) || !is_number {
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
    fn overdue(&self, now: Duration) -> Option<u64> {
        let (before, placed, unplaced) = if self.linked {
            (BEFORE_LINK_WITHIN, ANSWERED_WITHIN, HELD_FOR_MAX)
        } else {
            (UNLINKED_FOR, UNLINKED_FOR, UNLINKED_FOR)
        };
        let early = || {
            let waits = self.next.is_some_and(|next| next <= self.before_link);
            let due = self.due.first_above(0, before, now).filter(|_| waits)?;
            Some(due.min(self.before_link))
        };
        let due = early().or_else(|| self.due.first_above(0, placed, now));
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
mod tests;
