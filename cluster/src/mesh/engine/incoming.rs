//! What comes from peers, and what comes with time: each frame to the part that it is for.

use super::{
    Arc, Batch, Broadcast, Control, Data, Direct, Duration, Frames, Incarnation, LANES, Lost, Mesh,
    Mutex, Names, NodeId, Pushed, Reception, Receptions, Relayed, Verdict,
};

/// What comes from peers, and time.
impl Mesh {
    /// A frame came on the control lane of a peer. `Ping`, `Pong`, `Ask`, `Answer`, `Tell` and
    /// `Leaving` are the caller's own.
    pub fn control(&self, from: NodeId, frame: Control, now: Duration) {
        if let Control::Resend { lane, from: first, to } = frame {
            return self.resend(from, lane, first, to);
        }
        let mut core = self.core.lock();
        let (actions, needs) = self.handle(&mut core, from, frame, now);
        self.perform(&mut core, actions, now);
        drop(core);
        self.ask(needs, now);
    }

    /// The peer's last broadcasts per lane, as its ping says.
    pub fn heard(&self, from: NodeId, broadcasts: &[u64; LANES], now: Duration) {
        let Some(origin) = self.far_origin(from) else { return };
        for (reception, last) in self.receptions_of(origin).iter().zip(broadcasts) {
            reception.lock().pinged(*last, now);
        }
    }

    /// This node's last broadcasts per lane, for its pings.
    pub fn broadcasts(&self) -> [u64; LANES] {
        std::array::from_fn(|lane| self.lanes[lane].lock().sent.last())
    }

    /// Frames came together on a data lane of a peer.
    pub fn chunk(&self, from: NodeId, lane: u8, frames: &mut Frames<'_>, now: Duration) {
        let mut batch = self.deliver.batch();
        // What is no frame ends the link, which sees to that itself.
        let _ = frames.for_each(|frame| self.data(from, lane, &frame, &mut *batch, now));
    }

    /// A frame came on a data lane of a peer; `batch` is what [`Deliver::batch`](crate::mesh::Deliver::batch) gave.
    pub fn data(
        &self,
        from: NodeId,
        lane: u8,
        frame: &Data<'_>,
        batch: &mut dyn Batch,
        now: Duration,
    ) {
        if let Data::Relayed(relayed) = frame {
            return self.relayed(from, relayed, batch, now);
        }
        let Some(origin) = self.far_origin(from) else {
            return self.take(from, lane, frame, batch, now);
        };
        let receptions = self.receptions_of(origin);
        let Some(reception) = receptions.get(usize::from(lane)) else { return };
        let mut reception = reception.lock();
        let verdict = match frame {
            Data::Start { seq } => {
                reception.start(*seq, now);
                Verdict::Seen
            }
            Data::Broadcast(broadcast) => {
                if reception.passes_on(broadcast.seq) {
                    self.pass_on(origin, lane, broadcast);
                }
                reception.broadcast(broadcast, now)
            }
            other => reception.follow(other),
        };
        if verdict == Verdict::Deliver {
            self.take(from, lane, frame, batch, now);
        }
        self.release(from, lane, &mut reception, batch, now);
    }

    /// Time passes; called every 50 ms or so.
    pub fn tick(&self, now: Duration) {
        let mut core = self.core.lock();
        let mut actions = core.directory.tick(now);
        actions.extend(core.presence.tick(now));
        actions.extend(core.parking.tick(now));
        self.perform(&mut core, actions, now);
        drop(core);
        let needs = self.routes.tick(&self.out(), now);
        self.ask(needs, now);
        for lane in &self.lanes {
            lane.lock().sent.expire(now);
        }
        let all: Vec<_> = {
            let receptions = self.receptions.read();
            receptions.iter().map(|(origin, all)| (origin.node, Arc::clone(all))).collect()
        };
        for (origin, receptions) in all {
            self.poll(origin, &receptions, now);
        }
    }

    /// Asks an origin for what is missing, and goes on without what does not come.
    pub(super) fn poll(&self, origin: NodeId, receptions: &Receptions, now: Duration) {
        // Its end writes: not while a reception is locked.
        let mut batch = self.deliver.batch();
        for (lane, reception) in (0..).zip(receptions) {
            let mut reception = reception.lock();
            if let Some(missing) = reception.poll(now) {
                let frame = Control::Resend { lane, from: missing.from, to: missing.to };
                self.outlet.control(origin, &frame);
            }
            let missed = reception.take_missed() + reception.take_unplaced();
            if missed > 0 {
                self.deliver.lost(Lost::LinkLost, missed);
            }
            self.release(origin, lane, &mut reception, &mut *batch, now);
        }
    }

    pub(super) fn relayed(
        &self,
        from: NodeId,
        relayed: &Relayed<'_>,
        batch: &mut dyn Batch,
        now: Duration,
    ) {
        let origin = relayed.origin;
        if !self.may_relay(from, origin.node) {
            self.deliver.lost(Lost::Stray, 1);
            return self.deliver.missed(Lost::Stray, &relayed.broadcast.body);
        }
        let receptions = self.receptions_of(origin);
        let Some(reception) = receptions.get(usize::from(relayed.lane)) else { return };
        let mut reception = reception.lock();
        if reception.relayed(&relayed.broadcast, now) == Verdict::Deliver {
            self.take_broadcast(origin.node, relayed.lane, &relayed.broadcast, batch);
        }
        self.release(origin.node, relayed.lane, &mut reception, batch, now);
    }

    /// Whether the broadcasts of `origin` may come by way of `from`: within this region, from another.
    /// Those of this region come on their own links, and what came beside these could come twice.
    fn may_relay(&self, from: NodeId, origin: NodeId) -> bool {
        let peers = self.peers.load();
        let is_near = |node| peers.get(&node).map(|peer| peer.home.region == self.home.region);
        let origin_is_near = origin == self.home.me.node
            || is_near(origin).unwrap_or_else(|| self.near.load().has(origin));
        is_near(from) == Some(true) && !origin_is_near
    }

    /// A gateway's task: the others of its region get what it got.
    pub(super) fn pass_on(&self, origin: Incarnation, number: u8, broadcast: &Broadcast<'_>) {
        let Some(lane) = self.lanes.get(usize::from(number)) else { return };
        let broadcast = broadcast.clone();
        let frame = Data::Relayed(Relayed { origin, lane: number, broadcast });
        for peer in &lane.lock().near {
            self.out().counted(peer.node(), number, &frame);
        }
    }

    pub(super) fn release(
        &self,
        from: NodeId,
        lane: u8,
        reception: &mut Reception,
        batch: &mut dyn Batch,
        now: Duration,
    ) {
        while let Some(kept) = reception.released() {
            self.take(from, lane, &kept.frame(), batch, now);
        }
    }

    /// A frame of a data lane, in its place.
    pub(super) fn take(
        &self,
        from: NodeId,
        lane: u8,
        frame: &Data<'_>,
        batch: &mut dyn Batch,
        now: Duration,
    ) {
        let out = self.out();
        match frame {
            Data::Direct(direct) => self.take_direct(from, lane, direct, batch),
            Data::Broadcast(broadcast) => self.take_broadcast(from, lane, broadcast, batch),
            Data::Bounced(direct) => {
                let needs = self.routes.bounced(from, lane, direct, &out, now);
                self.ask(needs, now);
            }
            Data::Fence { agent, epoch } => {
                out.counted(from, lane, &Data::Fenced { agent, epoch: *epoch });
            }
            Data::Fenced { agent, epoch } => {
                let needs = self.routes.fenced(from, lane, agent, *epoch, &out, now);
                self.ask(needs, now);
            }
            Data::Barrier { agent, session } => {
                let mut core = self.core.lock();
                self.behind.barrier(from, lane, agent, *session);
                let actions = core.presence.barrier(from, lane, agent, *session, now);
                self.perform(&mut core, actions, now);
            }
            Data::Start { .. } | Data::Relayed(_) => {}
        }
    }

    pub(super) fn take_broadcast(
        &self,
        origin: NodeId,
        lane: u8,
        broadcast: &Broadcast<'_>,
        batch: &mut dyn Batch,
    ) {
        self.behind.except(origin, lane, broadcast.except, |except| {
            batch.broadcast(broadcast.from, except, &broadcast.body);
        });
    }

    pub(super) fn take_direct(
        &self,
        from: NodeId,
        lane: u8,
        direct: &Direct<'_>,
        batch: &mut dyn Batch,
    ) {
        let missing = batch.directs(&direct.targets, &direct.body, direct.followed);
        if !missing.is_empty() {
            let back = Direct { targets: Names::List(&missing), ..direct.clone() };
            let lost = match self.outlet.data(from, lane, &Data::Bounced(back)) {
                Pushed::Queued => return,
                Pushed::Full => Lost::LinkFull,
                Pushed::NoLink => Lost::LinkLost,
            };
            self.deliver.lost(lost, missing.len() as u64);
            self.deliver.missed(lost, &direct.body);
        }
    }

    /// The peer's present life, if it is of another region, so that its lanes need a reception.
    pub(super) fn far_origin(&self, node: NodeId) -> Option<Incarnation> {
        let peers = self.peers.load();
        let peer = peers.get(&node)?;
        (peer.home.region != self.home.region).then_some(peer.home.me)
    }

    pub(super) fn receptions_of(&self, origin: Incarnation) -> Arc<Receptions> {
        if let Some(known) = self.receptions.read().get(&origin) {
            return Arc::clone(known);
        }
        let fresh = || Arc::new(std::array::from_fn(|_| Mutex::default()));
        Arc::clone(self.receptions.write().entry(origin).or_insert_with(fresh))
    }
}
