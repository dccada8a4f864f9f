//! The route to one agent: what is known of its place, and what waits until that is known.
//!
//! Owns the rules of the sender's side: when messages may be pushed, which place is believed, when a
//! former home must give back what it could not deliver, whom to ask. Pure: events and the time go
//! in, [`Route::next`] says what is due. Never pushes, locks, counts globally or draws a number.
//!
//! A route is a way to one *session*. Messages are pushed only while it is [`Known`]; when the session
//! changes, a [`Route`] takes its place until every message that was pushed to the former home has
//! either arrived there or come back. So there is never more than one node that may still hold
//! messages of a route, and the order holds.

mod fence;
mod known;
#[cfg(test)]
mod tests;

use std::{collections::VecDeque, time::Duration};

use super::{Lost, Message, Pushed};
use crate::{NodeId, SessionId, wire::LANES};

use fence::{Fence, FenceLane};
pub(super) use known::{Known, RingView, Vouched, coarse_seconds};

/// How long a message may wait for its recipient's place.
pub(super) const RESOLVE_DEADLINE: Duration = Duration::from_secs(3);

/// How long the owner may take to answer the first question.
pub(super) const OWNER_PATIENCE: Duration = Duration::from_millis(250);

/// How long any later question may take before the next is asked.
pub(super) const RETRY: Duration = Duration::from_millis(100);

/// How long a former home is waited for to give back what it could not deliver: as long as for one
/// that is not heard. What it gives back later is too late.
pub(super) const FENCE_PATIENCE: Duration = Duration::from_millis(1_500);

/// How many messages wait for one agent: what a node gives at 20,000 a second until all others have
/// been asked, because the owner has just crashed. A small one is charged 0.6 KB, so that 5 MB wait
/// for one agent at the most; the bytes of all routes together are bounded beside it.
pub(super) const WAITING_MAX: usize = 8_192;

/// When so many questions were answered with a session although its home gave messages for it back, it
/// is believed: whoever names it has had time to learn of its end, and others to name the next one.
const BELIEVED_AFTER: u32 = 5;

/// A message that waits in a route. `C` is given back when it leaves.
#[derive(Debug)]
pub(super) struct Waiting<C> {
    /// The message.
    pub(super) message: Message,
    /// Its sender's data lane.
    pub(super) lane: u8,
    /// The era in which it was pushed, if it was and came back.
    pub(super) pushed: Option<u32>,
    /// The number of the last question that was asked, on any route, before it came.
    pub(super) after_ask: u64,
    /// When it came.
    pub(super) since: Duration,
    /// What it holds of the room that all routes share.
    #[allow(dead_code, reason = "held, and given back when dropped")]
    pub(super) charge: C,
}

/// Whom to ask for an agent's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Whom {
    /// The owner of its record.
    Owner,
    /// Who owned it before the ring changed, for what it knows for sure; if there is none, all.
    Former,
    /// All linked nodes, for what they know for sure.
    All,
}

/// What a route needs next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Nothing but time or events.
    Stay,
    /// A question; [`Route::ask`] makes it.
    Ask,
    /// All that waits may go to this session, in order; then the route is known.
    Settle(Place),
    /// Nothing waits, and nothing is known that is worth keeping.
    Forget,
}

/// A session that is believed to be the agent's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// The session; its node is the home.
    pub(super) session: SessionId,
    /// Who tells this node when that changes.
    pub(super) vouched: Option<Vouched>,
}

/// What is thought of the newest session that was heard of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// It may be the place.
    Live,
    /// Its home gave messages for it back: whoever still names it has probably not heard yet. So
    /// many questions were answered with it since.
    Refused(u32),
    /// It has ended.
    Ended,
    /// The link to its home is lost: it may have ended with it.
    Gone,
}

/// A route that may not be used yet, and the messages that wait for it.
#[derive(Debug)]
pub(super) struct Route<C> {
    /// Answers to questions up to this one are out of date.
    heard_after: u64,
    /// The session that it led to before, while its home is not fenced.
    was: Option<SessionId>,
    /// Since this era messages were pushed to that session's home; what was pushed there before is of
    /// a route whose fence was given up.
    since: u32,
    fence: Option<Fence>,
    place: Option<Place>,
    newest: Option<(SessionId, Standing)>,
    /// By lane: what the former home gave back. It was sent before all that waits.
    bounced: [VecDeque<Waiting<C>>; LANES],
    waiting: VecDeque<Waiting<C>>,
    /// How many wait of each lane.
    waiting_of: [usize; LANES],
    /// The last question, until its answer has come.
    asked: Option<(u64, Whom)>,
    /// How many questions were asked since there was reason to hope for a quick answer.
    asks: u32,
    /// Not before this time is the next one asked.
    ask_at: Duration,
}

impl<C> Route<C> {
    /// A route of which nothing is known. `last_ask` is the last question asked on any route.
    pub(super) fn unknown(last_ask: u64) -> Self {
        Self {
            heard_after: last_ask,
            was: None,
            since: 0,
            fence: None,
            place: None,
            newest: None,
            bounced: [const { VecDeque::new() }; LANES],
            waiting: VecDeque::new(),
            waiting_of: [0; LANES],
            asked: None,
            asks: 0,
            ask_at: Duration::ZERO,
        }
    }

    /// A route that led to `was` since an era, and is verified. If it still does, nothing needs to be
    /// fenced.
    pub(super) fn doubted(was: SessionId, since: u32, last_ask: u64) -> Self {
        let newest = Some((was, Standing::Live));
        Self { was: Some(was), since, newest, ..Self::unknown(last_ask) }
    }

    /// A route whose messages were just pushed to `session` without the word of an owner, who would
    /// tell if that had ended: until it is certain that they arrived, nothing may follow.
    pub(super) fn unvouched(session: SessionId, since: u32, last_ask: u64, epoch: u64) -> Self {
        Self {
            since,
            fence: Some(Fence::new(session, epoch)),
            newest: Some((session, Standing::Live)),
            ..Self::unknown(last_ask)
        }
    }

    /// A message came for the agent. Given back if there is no room.
    pub(super) fn queue(&mut self, message: Waiting<C>) -> Result<(), Waiting<C>> {
        if self.len() >= WAITING_MAX {
            return Err(message);
        }
        count(&mut self.waiting_of, &message);
        self.waiting.push_back(message);
        Ok(())
    }

    /// `from` gives back what was pushed in the era `pushed`: if the route has led there since before
    /// that, its session is there no more.
    pub(super) fn refused(&mut self, from: NodeId, pushed: u32, epoch: u64) {
        if pushed < self.since {
            return;
        }
        if self.was.is_some_and(|was| was.node == from) {
            self.fence_former(epoch);
        }
        let Some(fence) = self.fence.as_ref().filter(|fence| fence.node() == from) else { return };
        if self.newest == Some((fence.session, Standing::Live)) {
            self.newest = Some((fence.session, Standing::Refused(0)));
            self.place = None;
        }
    }

    /// A message that `from` gives back. Returned if there is no room for it, or if it came too late.
    pub(super) fn bounced(
        &mut self,
        from: NodeId,
        message: Waiting<C>,
    ) -> Result<(), (Lost, Waiting<C>)> {
        let lane = usize::from(message.lane);
        let full = self.len() >= WAITING_MAX;
        let expected = self.fence.as_ref().is_some_and(|fence| {
            fence.node() == from
                && message.pushed >= Some(self.since)
                && fence.lanes.get(lane).is_some_and(|lane| lane.is_open())
        });
        match self.bounced.get_mut(lane).filter(|_| expected) {
            None => Err((Lost::Stale, message)),
            Some(_) if full => Err((Lost::RouteFull, message)),
            Some(queue) => {
                queue.push_back(message);
                Ok(())
            }
        }
    }

    /// What was pushed to the session that the route led to must arrive or come back first.
    fn fence_former(&mut self, epoch: u64) {
        if let Some(was) = self.was.take() {
            self.fence = Some(Fence::new(was, epoch));
        }
    }

    /// The echo of a fence came on a lane.
    pub(super) fn fenced(&mut self, from: NodeId, lane: u8, epoch: u64) {
        if let Some(fence) = &mut self.fence
            && (fence.node(), fence.epoch) == (from, epoch)
            && let Some(lane) = fence.lanes.get_mut(usize::from(lane))
        {
            *lane = FenceLane::Done;
        }
    }

    /// Pushes the fence's frames that are due: node, lane, epoch.
    pub(super) fn push_fences(&mut self, mut push: impl FnMut(NodeId, u8, u64) -> Pushed) {
        let Some(Fence { session, epoch, lanes, .. }) = &mut self.fence else { return };
        for (lane, state) in (0..).zip(lanes) {
            if *state == FenceLane::Due {
                *state = match push(session.node, lane, *epoch) {
                    Pushed::Queued => FenceLane::Sent,
                    Pushed::Full => FenceLane::Due,
                    Pushed::NoLink => FenceLane::GivenUp,
                };
            }
        }
    }

    /// The agent's session is this one, somebody says unasked. A route that leads nowhere yet does not
    /// follow: the word may have been long on its way, and this node may have heard of a newer session
    /// since, and forgotten it. Nor does any follow a word that is not the owner's: when that session is
    /// outdone in turn, this node may not be told, and messages that were sent after it may be lost
    /// with its home. It asks, and takes no older one for an answer.
    pub(super) fn told(&mut self, place: Place, epoch: u64) {
        let leads_somewhere = self.was.is_some() || self.fence.is_some() || self.place.is_some();
        let is_known = self.place.is_some_and(|known| known.session == place.session);
        if is_known || (leads_somewhere && place.vouched.is_some()) {
            self.found(place, epoch);
        } else if self.believes(place) {
            self.newest = Some((place.session, Standing::Live));
            self.place = None;
            if self.was.is_some_and(|was| was != place.session) {
                self.fence_former(epoch);
            }
        }
    }

    /// The agent's session is this one, somebody says. Older ones than those heard of do not count.
    /// A home other than the former is fenced under `epoch`.
    pub(super) fn found(&mut self, place: Place, epoch: u64) {
        let session = place.session;
        if !self.believes(place) {
            return;
        }
        let vouched = match self.place {
            Some(known) if known.session == session => place.vouched.or(known.vouched),
            _ => place.vouched,
        };
        self.newest = Some((session, Standing::Live));
        self.place = Some(Place { session, vouched });
        if self.was.is_some_and(|was| was != session) {
            self.fence_former(epoch);
        }
    }

    fn believes(&self, Place { session, vouched }: Place) -> bool {
        match self.newest {
            None => true,
            Some((newest, standing)) if newest == session => match standing {
                Standing::Live | Standing::Gone => true,
                Standing::Refused(named) => named >= BELIEVED_AFTER,
                Standing::Ended => false,
            },
            // An older session may outlive a newer one whose owner it had not reached in time.
            Some((newest, Standing::Ended | Standing::Gone)) => {
                session > newest || vouched.is_some()
            }
            Some((newest, _)) => session > newest,
        }
    }

    /// The session has ended, and its agent has no other that is known of.
    pub(super) fn ended(&mut self, session: SessionId, last_ask: u64, epoch: u64) {
        if self.newest.is_none_or(|(newest, _)| newest <= session) {
            self.newest = Some((session, Standing::Ended));
            self.place = None;
            self.heard_after = last_ask;
            self.hope();
            self.fence_former(epoch);
        }
    }

    /// The answer to a question is that the place is `place`. Only who was asked as the owner tells
    /// when that changes.
    pub(super) fn answered(&mut self, ask: u64, mut place: Place, epoch: u64, now: Duration) {
        if ask <= self.heard_after {
            return;
        }
        let asked = self.close_question(ask);
        if asked != Some(Whom::Owner) {
            place.vouched = None;
        }
        if let Some((newest, Standing::Refused(named))) = &mut self.newest
            && *newest == place.session
        {
            // Others are asked too, as always in turn: the next home may not reach the owner.
            *named += u32::from(asked.is_some());
            self.ask_at = now.saturating_add(RETRY);
        }
        self.found(place, epoch);
    }

    /// The answer to a question is that the agent is nowhere: true of the messages that came before
    /// the question was asked, if it was the owner's answer, and of no session that was heard of the
    /// end has not been heard of. Returns those messages. An owner that stood still may not know what
    /// it has missed.
    pub(super) fn nobody(&mut self, ask: u64) -> Vec<Waiting<C>> {
        let lives = matches!(self.newest, Some((_, Standing::Live)));
        if self.close_question(ask) != Some(Whom::Owner) || lives {
            return Vec::new();
        }
        self.hope();
        self.take_where(|message| message.after_ask < ask)
    }

    /// Who was asked cannot say.
    pub(super) fn not_known(&mut self, ask: u64) {
        if self.close_question(ask).is_some() && self.asks == 1 {
            self.ask_at = Duration::ZERO;
        }
    }

    fn close_question(&mut self, ask: u64) -> Option<Whom> {
        self.asked.take_if(|(last, _)| *last == ask).map(|(_, whom)| whom)
    }

    /// The next question may be asked at once, and of the owner.
    fn hope(&mut self) {
        (self.asks, self.ask_at, self.asked) = (0, Duration::ZERO, None);
    }

    /// A node is silent: what it still gives back comes too late. A dead one is silent for longer than
    /// messages may wait before its link is given up.
    pub(super) fn silent(&mut self, node: NodeId) {
        if let Some(fence) = self.fence.as_mut().filter(|fence| fence.node() == node) {
            fence.give_up();
        }
    }

    /// The link to a node is gone: nothing comes back from there, nobody is there, and it tells
    /// nothing any more.
    pub(super) fn link_lost(&mut self, node: NodeId) {
        self.was = self.was.filter(|was| was.node != node);
        self.silent(node);
        if let Some(place) = &mut self.place {
            place.vouched = place.vouched.filter(|vouched| !vouched.is_by(node));
        }
        if let Some((_, standing)) = self.newest.as_mut().filter(|(newest, _)| newest.node == node)
        {
            *standing = match *standing {
                Standing::Ended => Standing::Ended,
                _ => Standing::Gone,
            };
        }
        if self.place.is_some_and(|place| place.session.node == node) {
            self.place = None;
            self.hope();
        }
    }

    /// Waits no longer for a fence that a node does not echo although it is heard.
    pub(super) fn lose_patience(&mut self, now: Duration) {
        if let Some(fence) = &mut self.fence
            && now.saturating_sub(*fence.since.get_or_insert(now)) >= FENCE_PATIENCE
        {
            fence.give_up();
        }
    }

    /// Takes the messages that have waited too long.
    pub(super) fn expire(&mut self, now: Duration) -> Vec<Waiting<C>> {
        self.take_where(|message| now.saturating_sub(message.since) >= RESOLVE_DEADLINE)
    }

    fn take_where(&mut self, which: impl Fn(&Waiting<C>) -> bool) -> Vec<Waiting<C>> {
        let mut taken = Vec::new();
        for queue in self.bounced.iter_mut().chain([&mut self.waiting]) {
            if queue.iter().any(&which) {
                let (out, left) = queue.drain(..).partition::<VecDeque<_>, _>(&which);
                taken.extend(out);
                *queue = left;
            }
        }
        if !taken.is_empty() {
            self.waiting_of = [0; LANES];
            self.waiting.iter().for_each(|message| count(&mut self.waiting_of, message));
        }
        taken
    }

    /// What is due at `now`, if the nodes for which `is_heard` holds can be reached.
    pub(super) fn next(&self, now: Duration, is_heard: impl Fn(NodeId) -> bool) -> Next {
        let place = self.place.filter(|place| is_heard(place.session.node));
        match place {
            Some(place) if !self.is_fenced() => Next::Settle(place),
            Some(_) => Next::Stay,
            None if self.is_empty() => {
                if self.is_fenced() {
                    Next::Stay
                } else {
                    Next::Forget
                }
            }
            None => {
                if now >= self.ask_at {
                    Next::Ask
                } else {
                    Next::Stay
                }
            }
        }
    }

    /// Asks the question numbered `ask`: the owner first, then whoever else might know.
    pub(super) fn ask(&mut self, ask: u64, now: Duration) -> Whom {
        let whom = self.next_whom();
        let patience = if self.asks == 0 { OWNER_PATIENCE } else { RETRY };
        self.asks = self.asks.saturating_add(1);
        self.ask_at = now.saturating_add(patience);
        self.asked = Some((ask, whom));
        whom
    }

    /// Whom the next question is for.
    pub(super) fn next_whom(&self) -> Whom {
        match self.asks {
            0 => Whom::Owner,
            1 => Whom::Former,
            n if n.is_multiple_of(2) => Whom::All,
            _ => Whom::Owner,
        }
    }

    /// Since which era messages were pushed to the session, if the route led there before and nothing
    /// was fenced.
    pub(super) fn led_since(&self, session: SessionId) -> Option<u32> {
        self.was.filter(|was| *was == session).map(|_| self.since)
    }

    /// The route has settled on `home`, which this node has heard since an era: what is to go there, in
    /// order, and what must not, since it might arrive behind what was sent later.
    ///
    /// What `home` itself gave back came there before the session did, and later messages may have met
    /// the session. What was pushed before `home` was heard may have been overtaken by broadcasts: the
    /// session was welcomed there without this node's word that it knows of it.
    pub(super) fn settle(
        self,
        home: NodeId,
        heard_since: u32,
    ) -> (impl Iterator<Item = Waiting<C>>, Vec<Waiting<C>>) {
        let again = self.fence.is_some_and(|fence| fence.node() == home);
        let in_order = move |message: &Waiting<C>| !again && message.pushed >= Some(heard_since);
        let bounced = self.bounced.into_iter().flatten();
        let (bounced, stale): (Vec<_>, Vec<_>) = bounced.partition(in_order);
        (bounced.into_iter().chain(self.waiting), stale)
    }

    /// Whether a broadcast of this sender must wait here too, not to overtake its direct messages. Each
    /// broadcast asks all open routes: of one in which nothing of the lane waits, nothing is gone
    /// through.
    pub(super) fn holds_back(&self, from: &str, lane: u8) -> bool {
        let lane = usize::from(lane);
        let waiting = self.waiting_of.get(lane).is_some_and(|count| *count > 0);
        let mut of_lane =
            self.bounced.get(lane).into_iter().chain(waiting.then_some(&self.waiting)).flatten();
        self.is_fenced() || of_lane.any(|waiting| waiting.message.from.as_str() == from)
    }

    fn is_fenced(&self) -> bool {
        self.fence.as_ref().is_some_and(|fence| fence.lanes.iter().any(|lane| lane.is_open()))
    }

    /// Whether messages of the route may still come back although nobody waits for them.
    pub(super) fn has_given_up(&self) -> bool {
        self.fence.as_ref().is_some_and(|fence| fence.lanes.contains(&FenceLane::GivenUp))
    }

    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn len(&self) -> usize {
        self.bounced.iter().map(VecDeque::len).sum::<usize>() + self.waiting.len()
    }
}

fn count<C>(lanes: &mut [usize; LANES], message: &Waiting<C>) {
    if let Some(count) = lanes.get_mut(usize::from(message.lane)) {
        *count += 1;
    }
}
