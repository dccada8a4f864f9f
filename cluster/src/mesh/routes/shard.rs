//! One part of the routes, and what happens to a route while its part is locked.

use std::{collections::HashMap, hash::BuildHasher, sync::atomic::Ordering, time::Duration};

use siphasher::sip::SipHasher13;

use super::{
    Cx, Kept, Need, Needs, Route, RouteOut, Routes, SHARDS, heard::Heard, is_there, room::Charge,
};
use crate::{
    AgentId, NodeId, SessionId,
    mesh::{
        Lost, Message, Outgoing, Pushed,
        route::{Known, Next, Place, RingView, Waiting, Whom},
    },
    wire::{Body, Data},
};

/// How many routes are kept, in whole shards: some 150 MB of them at the most.
const ROUTES_MAX: usize = 1_000_000;

/// How many sessions are remembered that this node was told of without a route to their agents: some
/// 8 MB of them.
const TOLD_MAX: usize = 65_536;

/// How long they are: whoever does not know of such a session does by then, or has lost its links.
const TOLD_FOR: Duration = Duration::from_secs(10);

/// The routes of some agents: each is known or open, or there is none.
pub(super) struct Shard {
    pub(super) known: HashMap<AgentId, Known, Keyed>,
    pub(super) open: HashMap<AgentId, Route, Keyed>,
    /// Sessions of agents without a route that were told of lately, and when.
    told: HashMap<AgentId, (SessionId, Duration), Keyed>,
}

impl Routes {
    /// The agent has this session; returns whether its route is open. What was pushed along the route
    /// that there was may come back, so no broadcast may be under way when this returns that does not
    /// know of it. Without a route nothing comes back, and no broadcast is waited for: who arrives anew
    /// keeps nobody.
    pub(super) fn found_at(
        &self,
        agent: &AgentId,
        place: Place,
        take: fn(&mut Route, Place, u64),
        cx: &Cx<'_, impl RouteOut>,
    ) -> (bool, Needs) {
        let mut shard = self.lock(agent.as_str());
        let had_route = shard.agent(agent.as_str()).is_some();
        self.found(&mut shard, agent, place, take);
        let need = self.advance(&mut shard, agent, cx);
        let open = shard.open.contains_key(agent);
        if !open && place.session.node != self.me {
            shard.note(agent, place.session, cx.now);
        }
        drop(shard);
        if had_route {
            drop(self.gate.write());
        }
        (open, need.into_iter().collect())
    }

    pub(super) fn found(
        &self,
        shard: &mut Shard,
        agent: &AgentId,
        place: Place,
        take: fn(&mut Route, Place, u64),
    ) {
        match shard.known.get_mut(agent) {
            Some(known) if known.session() == place.session => {
                place.vouched.into_iter().for_each(|vouched| known.confirm(vouched, self.era()));
            }
            Some(known) if known.session() < place.session => {
                let route = known.doubted(self.last_ask());
                self.open(shard, agent, route);
            }
            _ => {}
        }
        if let Some(route) = shard.open.get_mut(agent) {
            take(route, place, self.next_epoch());
        }
    }

    pub(super) fn ended(
        &self,
        agent: &AgentId,
        was: SessionId,
        cx: &Cx<'_, impl RouteOut>,
    ) -> Needs {
        let mut shard = self.lock(agent.as_str());
        if shard.told.get(agent).is_some_and(|(session, _)| *session <= was) {
            shard.told.remove(agent);
        }
        if let Some(known) = shard.known.get(agent).filter(|known| known.session() <= was) {
            let route = known.doubted(self.last_ask());
            self.open(&mut shard, agent, route);
        }
        if let Some(route) = shard.open.get_mut(agent) {
            route.ended(was, self.last_ask(), self.next_epoch());
        }
        self.advance(&mut shard, agent, cx).into_iter().collect()
    }

    pub(super) fn on_open(
        &self,
        agent: &str,
        cx: &Cx<'_, impl RouteOut>,
        event: impl FnOnce(&mut Route),
    ) -> Needs {
        let mut shard = self.lock(agent);
        let Some((agent, _)) = shard.open.get_key_value(agent) else { return Needs::new() };
        let agent = agent.clone();
        if let Some(route) = shard.open.get_mut(&agent) {
            event(route);
        }
        self.advance(&mut shard, &agent, cx).into_iter().collect()
    }

    pub(super) fn on_all_open(
        &self,
        cx: &Cx<'_, impl RouteOut>,
        event: impl Fn(&mut Route),
    ) -> Needs {
        let mut needs = Needs::new();
        let first = self.first.load(Ordering::Relaxed);
        for shard in (0..SHARDS).map(|n| &self.shards[first.wrapping_add(n) % SHARDS]) {
            if shard.read().open.is_empty() {
                continue;
            }
            let mut shard = shard.write();
            let agents: Vec<_> = shard.open.keys().cloned().collect();
            for agent in agents {
                if let Some(route) = shard.open.get_mut(&agent) {
                    event(route);
                }
                needs.extend(self.advance(&mut shard, &agent, cx));
            }
        }
        needs
    }

    /// A route to an agent to which there was none. A session that was told of lately counts as if it
    /// was told of now: who is asked may not know of it.
    pub(super) fn unknown(&self, shard: &mut Shard, agent: &AgentId, now: Duration) -> Route {
        let mut route = Route::unknown(self.last_ask());
        if let Some((session, at)) = shard.told.remove(agent)
            && now.saturating_sub(at) < TOLD_FOR
            && self.is_heard(session.node)
        {
            route.told(Place { session, vouched: None }, self.next_epoch());
        }
        route
    }

    /// Puts an open route in the place of what was there.
    pub(super) fn open(&self, shard: &mut Shard, agent: &AgentId, route: Route) {
        shard.known.remove(agent);
        if shard.open.insert(agent.clone(), route).is_none() {
            self.open.fetch_add(1, Ordering::Release);
        }
    }

    pub(super) fn close(&self, shard: &mut Shard, agent: &AgentId) -> Option<Route> {
        let route = shard.open.remove(agent)?;
        self.open.fetch_sub(1, Ordering::Release);
        if route.has_given_up() {
            self.next_era();
        }
        Some(route)
    }

    /// Does what is due on an open route.
    pub(super) fn advance(
        &self,
        shard: &mut Shard,
        agent: &AgentId,
        cx: &Cx<'_, impl RouteOut>,
    ) -> Option<Need> {
        // Looked at before who is heard: what is lost meanwhile is lost in this era or a later one.
        let era = self.era();
        let route = shard.open.get_mut(agent)?;
        let is_heard = |node| self.is_heard(node);
        route.push_fences(|node, lane, epoch| {
            if !is_heard(node) {
                return Pushed::NoLink;
            }
            cx.out.data(node, lane, &Data::Fence { agent: agent.as_str(), epoch })
        });
        match route.next(cx.now, is_heard) {
            Next::Stay => None,
            Next::Forget => {
                self.close(shard, agent);
                // An older session may have outlived the one that made it wait.
                cx.out.unfenced(agent);
                None
            }
            Next::Settle(place) => {
                let route = self.close(shard, agent)?;
                self.settle(shard, agent, route, place, era, cx);
                None
            }
            // It is asked at one of the next ticks.
            Next::Ask if route.next_whom() != Whom::Owner && !self.may_ask_others() => None,
            Next::Ask => {
                let ask = self.asks.fetch_add(1, Ordering::Relaxed) + 1;
                Some(Need { ask, agent: agent.clone(), whom: route.ask(ask, cx.now) })
            }
        }
    }

    /// The route leads to a place that was found good in this era.
    pub(super) fn settle(
        &self,
        shard: &mut Shard,
        agent: &AgentId,
        route: Route,
        place: Place,
        era: u32,
        cx: &Cx<'_, impl RouteOut>,
    ) {
        let home = place.session.node;
        let is_empty = route.is_empty();
        let since = route.led_since(place.session).unwrap_or_else(|| self.era());
        let (messages, stale) = route.settle(home, self.heard_since(home));
        cx.lose(Lost::Stale, &stale);
        for Waiting { message, lane, pushed, .. } in messages {
            let Message { from, followed, body } = message;
            let body = Body::Shared(body);
            if home == self.me {
                if !cx.out.here(agent, &from, followed, &body) && !followed {
                    cx.out.lost(Lost::Offline, 1);
                    cx.out.missed(Lost::Offline, &body);
                }
            } else {
                let message = Outgoing { from: &from, lane, followed, body };
                let resent = pushed.is_some();
                if !is_there(self.push(home, &message, &[agent.as_str()], resent, cx)) {
                    cx.out.lost(Lost::LinkLost, 1);
                    cx.out.missed(Lost::LinkLost, &message.body);
                }
            }
        }
        if home == self.me {
            cx.out.unfenced(agent);
        } else if let Some(vouched) = place.vouched {
            shard.make_room();
            let known = Known::new(place.session, vouched, since, era, cx.now);
            shard.known.insert(agent.clone(), known);
        } else if !is_empty {
            let epoch = self.next_epoch();
            let route = Route::unvouched(place.session, since, self.last_ask(), epoch);
            self.open(shard, agent, route);
            self.advance(shard, agent, cx);
        }
    }

    pub(super) fn queue(
        &self,
        shard: &mut Shard,
        agent: &AgentId,
        kept: &mut Kept<'_>,
        cx: &Cx<'_, impl RouteOut>,
    ) {
        let Some(route) = shard.open.get_mut(agent) else { return };
        let waiting = self.waiting(kept, cx.now);
        if waiting.is_none_or(|waiting| route.queue(waiting).is_err()) {
            cx.out.lost(Lost::RouteFull, 1);
            cx.out.missed(Lost::RouteFull, &kept.message.body);
        }
    }

    /// The message as it waits; none if there is no room.
    pub(super) fn waiting(&self, kept: &mut Kept<'_>, now: Duration) -> Option<Waiting<Charge>> {
        let (message, charge) = kept.keep(&self.room)?;
        Some(Waiting {
            charge,
            message,
            lane: kept.message.lane,
            pushed: None,
            after_ask: self.last_ask(),
            since: now,
        })
    }
}

impl Shard {
    /// No routes.
    pub(super) fn new(hasher: Keyed) -> Self {
        Self {
            known: HashMap::with_hasher(hasher),
            open: HashMap::with_hasher(hasher),
            told: HashMap::with_hasher(hasher),
        }
    }

    /// The home to which messages for the agent may be pushed now.
    pub(super) fn usable(
        &self,
        agent: &str,
        heard: &Heard,
        ring: &impl RingView,
        now: Duration,
    ) -> Option<NodeId> {
        let is_good = |known: &&Known| heard.bears_out(known) && known.is_good(agent, ring);
        let known = self.known.get(agent).filter(is_good)?;
        known.touch(now);
        Some(known.home())
    }

    /// The agent's id, if there is a route to it.
    pub(super) fn agent(&self, agent: &str) -> Option<AgentId> {
        let known = self.known.get_key_value(agent).map(|(agent, _)| agent);
        known.or_else(|| Some(self.open.get_key_value(agent)?.0)).cloned()
    }

    /// The agents who get the broadcast along their routes, behind what waits there.
    pub(super) fn who_hold_back(&self, broadcast: &Outgoing<'_>) -> impl Iterator<Item = &AgentId> {
        let (from, lane) = (broadcast.from, broadcast.lane);
        let holds = move |route: &Route| route.holds_back(from.as_str(), lane);
        let others = self.open.iter().filter(move |(agent, _)| *agent != from);
        others.filter(move |(_, route)| holds(route)).map(|(agent, _)| agent)
    }

    /// Remembers for a while that the agent, to which there may be no route, has this session.
    fn note(&mut self, agent: &AgentId, session: SessionId, now: Duration) {
        let is_newest = self.told.get(agent).is_none_or(|(told, _)| *told <= session);
        if is_newest && !self.known.contains_key(agent) && self.told.len() < TOLD_MAX / SHARDS {
            self.told.insert(agent.clone(), (session, now));
        }
    }

    /// Forgets what was told of long ago.
    pub(super) fn forget_told(&mut self, now: Duration) {
        self.told.retain(|_, (_, at)| now.saturating_sub(*at) < TOLD_FOR);
    }

    /// Forgets the routes that have ended with a link, and doubts those whose owner's link was lost.
    pub(super) fn forget_ended(&mut self, heard: &Heard) {
        if !heard.remembers_losses() {
            return;
        }
        self.known.retain(|_, known| {
            if heard.has_lost_word_of(known) {
                known.doubt();
            }
            !heard.has_ended(known)
        });
    }

    /// Forgets one of the routes if there are too many: the one of a few that was idle longest.
    pub(super) fn make_room(&mut self) {
        if self.known.len() >= ROUTES_MAX / SHARDS {
            let few = self.known.iter().take(8);
            let idle = few.min_by_key(|(_, known)| known.used_s()).map(|(agent, _)| agent.clone());
            idle.and_then(|agent| self.known.remove(&agent));
        }
    }
}

/// Hashes by a secret that is the node's own: agents cannot choose ids that collide, and one node's
/// maps are in the same order in every run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Keyed(pub(super) u64);

impl BuildHasher for Keyed {
    type Hasher = SipHasher13;

    fn build_hasher(&self) -> SipHasher13 {
        SipHasher13::new_with_keys(self.0, 0)
    }
}
