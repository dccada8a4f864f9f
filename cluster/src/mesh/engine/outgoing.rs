//! What the deciding parts ask for, done: frames to peers and to this node itself, words to sessions,
//! questions about agents.

use super::{
    Action, AgentId, Body, Control, Core, Data, Duration, LANES, Located, Lost, Mesh, Need, Needs,
    NodeId, Out, Published, Pushed, RouteOut, SessionId, Spent, VecDeque, Whom,
};

/// What the deciding parts ask for.
impl Mesh {
    pub(super) fn out(&self) -> Out<'_> {
        Out { mesh: self }
    }

    /// Does what is asked, and what comes of it here, in order.
    pub(super) fn perform(&self, core: &mut Core, actions: Vec<Action>, now: Duration) {
        let mut actions = VecDeque::from(actions);
        let mut needs = Needs::new();
        while let Some(action) = actions.pop_front() {
            match action {
                Action::Send { to, frame } if to == self.home.me.node => {
                    let (more, asked) = self.handle(core, to, frame, now);
                    actions.extend(more);
                    needs.extend(asked);
                }
                Action::Send { to, frame } => {
                    self.outlet.control(to, &frame);
                }
                of_session => self.tell_session(&of_session),
            }
            if actions.is_empty() {
                for need in std::mem::take(&mut needs) {
                    let (more, asked) = self.ask_one(core, need, now);
                    actions.extend(more);
                    needs.extend(asked);
                }
            }
        }
    }

    pub(super) fn tell_session(&self, action: &Action) {
        match action {
            Action::PassBy { agent, session, node, heard } => {
                self.behind.add(agent, *session, *node, *heard);
            }
            Action::Admit { agent, session } => self.deliver.admitted(agent, *session),
            Action::Outdone { agent, session, by } => {
                self.behind.ended(agent, *session);
                self.deliver.replaced(agent, *by);
            }
            Action::Send { .. } => {}
        }
    }

    /// A frame that says something of sessions and routes, a peer's or this node's own.
    pub(super) fn handle(
        &self,
        core: &mut Core,
        from: NodeId,
        frame: Control,
        now: Duration,
    ) -> (Vec<Action>, Needs) {
        let actions = match frame {
            Control::Publish { agent, session, arrival } => {
                core.directory.publish(from, &agent, session, arrival, now)
            }
            // Wherever that session is, the agent has moved there.
            Control::Published { agent, session, outcome: Published::Outdone(by) } => {
                return self.moved(core, from, &agent, Some(session), Some(by), now);
            }
            Control::Published { agent, session, outcome } => {
                core.presence.published(from, &agent, session, outcome, now)
            }
            Control::Withdraw { agent, session } if session.node == from => {
                core.directory.withdraw(&agent, session)
            }
            Control::Synced { ring } => core.directory.synced(from, ring),
            Control::Lookup { ask, agent, home_only } => {
                let place = core.locate(from, &agent, home_only);
                let frame = Control::Located { ask, agent, place };
                vec![Action::Send { to: from, frame }]
            }
            Control::Located { ask, agent, place } => {
                let (near, out) = (self.near.load(), self.out());
                let place = self.unless_ended(core, &agent, place);
                let needs = self.routes.located(from, ask, &agent, place, &**near, &out, now);
                return (Vec::new(), needs);
            }
            Control::Moved { agent, was, now: is } => {
                return self.moved(core, from, &agent, was, is, now);
            }
            Control::Park { agent, session, spent } => {
                core.parking.park(&agent, session, spent, now)
            }
            Control::Unpark { agent, session } => core.parking.unpark(&agent, session, now),
            Control::Spent { agent, session, spent } => {
                self.spent(core, agent, session, spent).into_iter().collect()
            }
            _ => Vec::new(),
        };
        (actions, Needs::new())
    }

    /// Who names a session of this very node that is not here has not heard of its end, and cannot say
    /// where the agent is now: its next home may not reach its owner.
    fn unless_ended(&self, core: &Core, agent: &AgentId, place: Located) -> Located {
        match place {
            Located::At(session) if session.node == self.home.me.node => {
                core.presence.session_of(agent.as_str()).map_or(Located::Unsettled, Located::At)
            }
            elsewhere => elsewhere,
        }
    }

    /// The agent is elsewhere. Its new home waits for the barriers.
    pub(super) fn moved(
        &self,
        core: &mut Core,
        from: NodeId,
        agent: &AgentId,
        was: Option<SessionId>,
        is: Option<SessionId>,
        now: Duration,
    ) -> (Vec<Action>, Needs) {
        let correction = core.correct(from, agent, was, is);
        if is.is_none() && correction.is_some() {
            return (correction.into_iter().collect(), Needs::new());
        }
        let mut learned = core.directory.moved(agent, was, is, now);
        learned.extend(correction);
        if let Some(session) = is {
            for action in core.presence.outdone(agent, session) {
                self.tell_session(&action);
            }
            learned.extend(self.stand_in(core, from, agent, was, session));
        }
        let (near, out) = (self.near.load(), self.out());
        let needs = self.routes.moved(from, agent, was, is, &**near, &out, now);
        if let Some(session) = is.filter(|session| session.node != self.home.me.node) {
            let barrier = Data::Barrier { agent: agent.as_str(), session };
            for number in 0..u8::try_from(LANES).unwrap_or(u8::MAX) {
                // Without a link nobody waits for it.
                self.outlet.data(session.node, number, &barrier);
            }
        }
        (learned, needs)
    }

    /// A home that tells others itself does not reach the agent's owner: whoever does passes it on, and
    /// asks that owner about the agent only behind it.
    pub(super) fn stand_in(
        &self,
        core: &Core,
        from: NodeId,
        agent: &AgentId,
        was: Option<SessionId>,
        session: SessionId,
    ) -> Option<Action> {
        let owner = core.rings.owner(&self.home.region, agent.as_str())?;
        if from != session.node || [from, self.home.me.node].contains(&owner) {
            return None;
        }
        let frame = Control::Moved { agent: agent.clone(), was, now: Some(session) };
        Some(Action::Send { to: owner, frame })
    }

    /// What the agent has spent goes on with its session here. If that has ended meanwhile, it is
    /// given back: the next session takes it.
    pub(super) fn spent(
        &self,
        core: &Core,
        agent: AgentId,
        session: SessionId,
        spent: Spent,
    ) -> Option<Action> {
        if core.presence.session_of(agent.as_str()).is_some() {
            self.deliver.spent(&agent, spent);
            return None;
        }
        let to = core.rings.global_owner(agent.as_str())?;
        Some(Action::Send { to, frame: Control::Park { agent, session, spent } })
    }

    pub(super) fn resend(&self, to: NodeId, number: u8, first: u64, last: u64) {
        let Some(lane) = self.lanes.get(usize::from(number)) else { return };
        for broadcast in lane.lock().sent.resend(first, last) {
            self.out().counted(to, number, &Data::Broadcast(broadcast));
        }
    }

    /// Asks what routes need to know. Called without any lock.
    pub(super) fn ask(&self, needs: Needs, now: Duration) {
        if needs.is_empty() {
            return;
        }
        let mut core = self.core.lock();
        let mut needs = needs;
        while !needs.is_empty() {
            for need in std::mem::take(&mut needs) {
                let (actions, more) = self.ask_one(&mut core, need, now);
                needs.extend(more);
                self.perform(&mut core, actions, now);
            }
        }
    }

    /// Sends a question, or answers it if this node is the one to ask.
    pub(super) fn ask_one(
        &self,
        core: &mut Core,
        need: Need,
        now: Duration,
    ) -> (Vec<Action>, Needs) {
        let Need { ask, agent, whom } = need;
        let me = self.home.me.node;
        let owner = core.rings.owner(&self.home.region, agent.as_str());
        let former = core.rings.former_owner(&self.home.region, agent.as_str());
        let former = former.filter(|former| Some(*former) != owner);
        let lookup = |home_only| Control::Lookup { ask, agent: agent.clone(), home_only };
        let reached = match (whom, owner, former) {
            (Whom::Owner, Some(owner), _) if owner == me => {
                let place = core.locate(me, &agent, false);
                let frame = Control::Located { ask, agent, place };
                return self.handle(core, me, frame, now);
            }
            (Whom::Owner, Some(owner), _) => self.outlet.control(owner, &lookup(false)),
            (Whom::Owner, None, _) => false,
            (Whom::Former, _, Some(former)) if former != me => {
                self.outlet.control(former, &lookup(true))
            }
            (Whom::Former | Whom::All, _, _) => {
                let peers = self.peers.load();
                let asked = peers.keys().filter(|peer| self.outlet.control(**peer, &lookup(true)));
                asked.count() > 0
            }
        };
        if reached {
            return (Vec::new(), Needs::new());
        }
        let frame = Control::Located { ask, agent, place: Located::Unsettled };
        self.handle(core, me, frame, now)
    }
}

impl Core {
    /// What is here, this node knows best. The home of an older session than the one here is told of
    /// that, and so is who says that the one here has ended.
    fn correct(
        &self,
        from: NodeId,
        agent: &AgentId,
        was: Option<SessionId>,
        is: Option<SessionId>,
    ) -> Option<Action> {
        let own = self.presence.session_of(agent.as_str())?;
        let to = match is {
            Some(session) => (session < own).then_some(session.node)?,
            None => (was == Some(own)).then_some(from)?,
        };
        let frame = Control::Moved { agent: agent.clone(), was: None, now: Some(own) };
        Some(Action::Send { to, frame })
    }

    pub(super) fn locate(&mut self, asker: NodeId, agent: &AgentId, home_only: bool) -> Located {
        let recorded = self.directory.lookup(asker, agent.as_str(), home_only);
        match (self.presence.session_of(agent.as_str()), recorded) {
            (Some(own), Located::At(recorded)) => Located::At(own.max(recorded)),
            (Some(own), _) if home_only => Located::At(own),
            (_, recorded) => recorded,
        }
    }
}

impl Out<'_> {
    /// Pushes a frame for which nobody looks whether it found room.
    pub(super) fn counted(self, to: NodeId, lane: u8, frame: &Data<'_>) {
        let carried = match frame {
            Data::Broadcast(broadcast) => Some(&broadcast.body),
            Data::Relayed(relayed) => Some(&relayed.broadcast.body),
            _ => None,
        };
        let pushed = self.mesh.outlet.data(to, lane, frame);
        let Some(body) = carried else { return };
        match pushed {
            Pushed::Queued => {}
            Pushed::Full => self.mesh.deliver.lost(Lost::LinkFull, 1),
            // It is down, or not begun by its `Start`, and whoever pushes does not know yet.
            Pushed::NoLink => self.mesh.deliver.lost(Lost::LinkLost, 1),
        }
        self.mesh.deliver.passed(to, body, pushed);
    }
}

impl RouteOut for Out<'_> {
    fn data(&self, to: NodeId, lane: u8, frame: &Data<'_>) -> Pushed {
        let pushed = self.mesh.outlet.data(to, lane, frame);
        if let Data::Direct(direct) = frame {
            if pushed == Pushed::Full {
                self.mesh.deliver.lost(Lost::LinkFull, direct.targets.iter().count() as u64);
            }
            self.mesh.deliver.passed(to, &direct.body, pushed);
        }
        pushed
    }

    fn here(&self, agent: &AgentId, _: &AgentId, followed: bool, body: &Body<'_>) -> bool {
        self.mesh.deliver.direct(agent, body, followed)
    }

    fn unfenced(&self, agent: &AgentId) {
        self.mesh.deliver.unfenced(agent);
    }

    fn lost(&self, why: Lost, messages: u64) {
        self.mesh.deliver.lost(why, messages);
    }

    fn missed(&self, why: Lost, body: &Body<'_>) {
        self.mesh.deliver.missed(why, body);
    }
}
