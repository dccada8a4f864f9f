//! What the rest of the mesh tells the routes.

use std::{sync::atomic::Ordering, time::Duration};

use super::{Cx, Kept, Needs, Route, RouteOut, Routes, SHARDS, shard::Shard};
use crate::{
    AgentId, NodeId, SessionId,
    mesh::{
        Lost, Outgoing,
        route::{Known, Place, RingView, Vouched, Waiting, coarse_seconds},
    },
    wire::{Body, Direct, Located},
};

/// A route that nobody uses for so long is forgotten.
const IDLE: Duration = Duration::from_mins(10);

impl Routes {
    /// `from` gives a message back, for agents that are not there.
    pub(in crate::mesh) fn bounced(
        &self,
        from: NodeId,
        lane: u8,
        direct: &Direct<'_>,
        out: &impl RouteOut,
        now: Duration,
    ) -> Needs {
        let cx = Cx { out, now };
        let Ok(sender) = direct.from.parse::<AgentId>() else {
            out.lost(Lost::Stale, direct.targets.iter().count() as u64);
            out.missed(Lost::Stale, &direct.body);
            return Needs::new();
        };
        // Kept as it came, it would keep alive all that was read along with it, which nobody counts.
        let body = Body::Borrowed(direct.body.as_slice());
        let message = Outgoing { from: &sender, lane, followed: direct.followed, body };
        let mut kept = Kept { message: &message, shared: None };
        let mut needs = Needs::new();
        for target in direct.targets.iter() {
            let mut shard = self.lock(target);
            let Some(agent) = shard.agent(target) else {
                out.lost(Lost::Stale, 1);
                out.missed(Lost::Stale, &direct.body);
                continue;
            };
            let known = shard.known.get(target);
            let leads_there = |known: &&Known| known.home() == from && known.since() <= direct.era;
            if let Some(known) = known.filter(leads_there) {
                let route = known.doubted(self.last_ask());
                self.open(&mut shard, &agent, route);
            }
            if let Err(why) = self.take_back(&mut shard, &agent, from, direct, &mut kept, now) {
                out.lost(why, 1);
                out.missed(why, &direct.body);
            }
            needs.extend(self.advance(&mut shard, &agent, &cx));
        }
        needs
    }

    /// Keeps a message that came back, unless it did so before: sent a third time, it might reach the
    /// node it first came back from, behind younger messages that met a newer session there.
    fn take_back(
        &self,
        shard: &mut Shard,
        agent: &AgentId,
        from: NodeId,
        direct: &Direct<'_>,
        kept: &mut Kept<'_>,
        now: Duration,
    ) -> Result<(), Lost> {
        let route = shard.open.get_mut(agent).ok_or(Lost::Stale)?;
        route.refused(from, direct.era, self.next_epoch());
        if direct.resent {
            return Err(Lost::Stale);
        }
        let waiting = self.waiting(kept, now).ok_or(Lost::RouteFull)?;
        let waiting = Waiting { pushed: Some(direct.era), ..waiting };
        route.bounced(from, waiting).map_err(|(why, _)| why)
    }

    /// `from` echoes a fence, behind all that it gave back on this lane.
    pub(in crate::mesh) fn fenced(
        &self,
        from: NodeId,
        lane: u8,
        agent: &str,
        epoch: u64,
        out: &impl RouteOut,
        now: Duration,
    ) -> Needs {
        self.on_open(agent, &Cx { out, now }, |route| route.fenced(from, lane, epoch))
    }

    /// `from` tells that the agent's session is another now, or none. When this returns, barriers for
    /// the new session may be pushed: no broadcast comes behind them that should have waited for what
    /// was sent along the route before.
    #[expect(clippy::too_many_arguments, reason = "the frame's three, and what every event has")]
    pub(in crate::mesh) fn moved(
        &self,
        from: NodeId,
        agent: &AgentId,
        was: Option<SessionId>,
        is: Option<SessionId>,
        ring: &impl RingView,
        out: &impl RouteOut,
        now: Duration,
    ) -> Needs {
        let cx = Cx { out, now };
        match (was, is) {
            // What is here, this node knows best.
            (_, Some(session)) if session.node == self.me => Needs::new(),
            (_, Some(session)) => {
                // A home's word is not an owner's, though it may be both: it tells whom nobody watches.
                let vouched = self.vouched(from, agent, session, ring);
                let vouched = vouched.filter(|_| from != session.node);
                self.found_at(agent, Place { session, vouched }, Route::told, &cx).1
            }
            (Some(was), None) => self.ended(agent, was, &cx),
            (None, None) => {
                if let Some(known) = self.lock(agent.as_str()).known.get(agent) {
                    known.doubt();
                }
                Needs::new()
            }
        }
    }

    /// A session of the agent was entered on this node. `true` if messages from here must go through
    /// [`direct`](Self::direct) until [`RouteOut::unfenced`], which may be called before this returns:
    /// let the session be fenced from the beginning, and unfence it if this is `false`.
    pub(in crate::mesh) fn arrived_here(
        &self,
        agent: &AgentId,
        session: SessionId,
        out: &impl RouteOut,
        now: Duration,
    ) -> (bool, Needs) {
        let place = Place { session, vouched: None };
        self.found_at(agent, place, Route::found, &Cx { out, now })
    }

    /// A session of the agent on this node is no more.
    pub(in crate::mesh) fn departed_here(
        &self,
        agent: &AgentId,
        session: SessionId,
        out: &impl RouteOut,
        now: Duration,
    ) -> Needs {
        self.ended(agent, session, &Cx { out, now })
    }

    /// `from` answers the question `ask`.
    #[expect(clippy::too_many_arguments, reason = "the frame's three, and what every event has")]
    pub(in crate::mesh) fn located(
        &self,
        from: NodeId,
        ask: u64,
        agent: &AgentId,
        place: Located,
        ring: &impl RingView,
        out: &impl RouteOut,
        now: Duration,
    ) -> Needs {
        let cx = Cx { out, now };
        let mut shard = self.lock(agent.as_str());
        let place = match place {
            // What is here, this node knows best.
            Located::At(session) if session.node == self.me => Located::Unsettled,
            place => place,
        };
        match (shard.open.get_mut(agent), place) {
            (Some(route), Located::At(session)) => {
                let vouched = self.vouched(from, agent, session, ring);
                route.answered(ask, Place { session, vouched }, self.next_epoch(), now);
            }
            (Some(route), Located::Nobody) => cx.lose(Lost::Offline, &route.nobody(ask)),
            (Some(route), Located::Unsettled) => route.not_known(ask),
            (None, Located::At(session)) => {
                // The question is settled and forgotten: who was asked, and as what, is not known.
                self.found(&mut shard, agent, Place { session, vouched: None }, Route::told);
            }
            (None, _) => {}
        }
        self.advance(&mut shard, agent, &cx).into_iter().collect()
    }

    /// Whether `from` will tell when the session is no more. Not of one whose home this node does not
    /// hear: the owner may lose sight of it as well, and then forgets whom it has told.
    fn vouched(
        &self,
        from: NodeId,
        agent: &AgentId,
        session: SessionId,
        ring: &impl RingView,
    ) -> Option<Vouched> {
        Vouched::by(from, agent.as_str(), ring).filter(|_| self.is_heard(session.node))
    }

    /// There is a link to the node, or it is heard of again.
    pub(in crate::mesh) fn heard(&self, node: NodeId, out: &impl RouteOut, now: Duration) -> Needs {
        if self.heard.load().since(node).is_none() {
            let era = self.next_era();
            self.change_heard(|heard| heard.begin(node, era));
        }
        self.on_all_open(&Cx { out, now }, |_| ())
    }

    /// The node is silent: routes to it are verified before they are used, and if it still is the
    /// agent's home, messages wait. Nobody waits for what it has to give back: it may be dead.
    pub(in crate::mesh) fn silent(
        &self,
        node: NodeId,
        out: &impl RouteOut,
        now: Duration,
    ) -> Needs {
        self.change_heard(|heard| heard.end(node));
        self.on_all_open(&Cx { out, now }, |route| route.silent(node))
    }

    /// The link to the node is gone, with all that was in it.
    pub(in crate::mesh) fn link_lost(
        &self,
        node: NodeId,
        out: &impl RouteOut,
        now: Duration,
    ) -> Needs {
        // What is confirmed from here on is not of this link: only then the era is looked at.
        self.change_heard(|heard| heard.end(node));
        let (era, sweeps) = (self.era(), self.sweep.load(Ordering::Relaxed));
        self.change_heard(|heard| heard.lose(node, era, sweeps));
        // Whoever still pushes along such a route has done so before there may be another link.
        self.shards.iter().for_each(|shard| drop(shard.write()));
        self.on_all_open(&Cx { out, now }, |route| route.link_lost(node))
    }

    /// Time passes: what waited too long is dropped, what was not answered is asked again.
    pub(in crate::mesh) fn tick(&self, out: &impl RouteOut, now: Duration) -> Needs {
        let cx = Cx { out, now };
        self.may_ask_again();
        self.look_through_one(now);
        // A node that stood still has perhaps nothing to wait for any more: first what may go goes.
        let mut needs = self.on_all_open(&cx, |route| route.lose_patience(now));
        needs.extend(self.on_all_open(&cx, |route| cx.lose(Lost::Unresolved, &route.expire(now))));
        needs
    }

    /// Forgets the routes of one shard that are idle or have ended, and then the links that were lost so
    /// long ago that no route is left to be judged by it.
    fn look_through_one(&self, now: Duration) {
        let sweeps = self.sweep.fetch_add(1, Ordering::Relaxed);
        let mut shard = self.shards[sweeps % SHARDS].write();
        shard.forget_told(now);
        shard.forget_ended(&self.heard.load());
        if let Some(oldest) = now.checked_sub(IDLE).map(coarse_seconds) {
            shard.known.retain(|_, known| known.used_s() >= oldest);
        }
        drop(shard);
        if self.heard.load().has_past_losses(sweeps) {
            self.change_heard(|heard| heard.forget_past_losses(sweeps));
        }
    }
}
