//! What happens on links: dialling, frames, silence, and the membership that goes over them.

use std::time::Duration;

use bytes::Bytes;
use cluster::{
    membership::MemberState,
    mesh::{Deliver, Home},
    wire::{self, Control, Data, LANES},
};
use rand::{Rng, seq::SliceRandom};

use super::{
    event::{Event, Life, Side},
    gossip::{GOSSIP_EVERY, TOLD_AT_ONCE},
    links::{EndState, Frame, GOSSIP},
    node::{id_of, incarnation, member},
    outbox::CONTROL,
    world::World,
};

/// How often the engine ticks.
const TICK_EVERY: Duration = Duration::from_millis(50);

/// How often links are pinged.
const PING_EVERY: Duration = Duration::from_millis(500);

/// How often missing links are dialled.
const DIAL_EVERY: Duration = Duration::from_millis(500);

/// A link that was silent for so long is suspect.
const SUSPECT_AFTER: Duration = Duration::from_millis(1_500);

impl World {
    pub(super) fn tick(&mut self, life: Life) {
        self.engine(life.node, cluster::mesh::Mesh::tick);
        for (peer, side) in self.links.all_of(life.node) {
            let silent = self.now.saturating_sub(self.links.end(side).heard);
            if silent > self.silence_max {
                self.close(side, false);
            } else if silent > SUSPECT_AFTER && !self.links.end(side).suspect {
                self.suspect(life.node, peer, side, true);
            }
        }
        self.tell_members(life.node);
        self.queue.put(self.now + TICK_EVERY, Event::Tick(life));
    }

    fn suspect(&mut self, node: usize, peer: usize, side: Side, suspect: bool) {
        self.links.end(side).suspect = suspect;
        let now = self.now;
        self.trace.all(now, || {
            let what = if suspect { "suspects" } else { "hears again of" };
            format!("node-{node} {what} node-{peer}")
        });
        self.engine(node, |mesh, now| mesh.link_suspect(id_of(peer), suspect, now));
    }

    pub(super) fn ping(&mut self, life: Life) {
        let now = self.now;
        let wall = self.nodes[life.node].wall(now);
        let Some(running) = self.running(life.node) else { return };
        running.pings += 1;
        let ping = Control::Ping {
            number: running.pings,
            time: running.mesh.time(wall),
            broadcasts: running.mesh.broadcasts(),
        };
        for (peer, _) in self.links.all_of(life.node) {
            self.send_control(life.node, peer, &ping);
        }
        self.queue.put(now + PING_EVERY, Event::Ping(life));
    }

    pub(super) fn gossip(&mut self, life: Life) {
        let now = self.now;
        let Some(running) = self.running(life.node) else { return };
        let leaving = running.draining.is_some();
        running.table.beat(life.node, life.number, leaving, now);
        let mut peers: Vec<usize> = self.links.all_of(life.node).iter().map(|(p, _)| *p).collect();
        peers.shuffle(&mut self.rng);
        for peer in peers.into_iter().take(TOLD_AT_ONCE) {
            self.send_gossip(life.node, peer);
        }
        let jitter = Duration::from_millis(self.rng.random_range(0..100));
        self.queue.put(now + GOSSIP_EVERY + jitter, Event::Gossip(life));
    }

    fn send_gossip(&mut self, from: usize, to: usize) {
        let Some(table) = self.running(from).map(|running| running.table.clone()) else { return };
        self.send(from, to, GOSSIP, Frame::Gossip(table));
    }

    /// Tells an engine of the members, if they changed.
    pub(super) fn tell_members(&mut self, node: usize) {
        let now = self.now;
        let Some(running) = self.nodes[node].running.as_ref() else { return };
        let view = running.table.view(node, now);
        let told = view.into_iter().map(|(place, number, state)| {
            let link = self.links.current(node, place);
            let silent = link.is_none_or(|side| self.links.is_suspect(side));
            let state = match state {
                MemberState::Alive if place != node && silent => MemberState::Suspect,
                state => state,
            };
            member(Life { node: place, number }, &self.nodes[place].region, state)
        });
        let told: Vec<_> = told.collect();
        if told == running.told {
            return;
        }
        self.trace.all(now, || {
            let states = told
                .iter()
                .map(|m| format!("{}/{} {:?}", m.name, m.incarnation.generation, m.state));
            format!("node-{node} sees {}", states.collect::<Vec<_>>().join(", "))
        });
        self.engine(node, |mesh, now| mesh.members(&told, now));
        if let Some(running) = self.running(node) {
            running.told = told;
        }
    }

    pub(super) fn dial(&mut self, life: Life) {
        for peer in 0..self.nodes.len() {
            let other = self.nodes[peer].life();
            let unreachable = self.links.is_blocked(life.node, peer)
                || self.links.is_blocked(peer, life.node)
                || self.nodes[peer].running.is_none();
            if peer == life.node
                || unreachable
                || self.links.current(life.node, peer).is_some()
                || self.links.is_dialling(life, other)
            {
                continue;
            }
            let side = self.links.dialled(life, other, self.now);
            let handshake = self.links.latency(life.node, peer) * 3;
            self.queue.put(self.now + handshake, Event::Established(side));
        }
        let jitter = Duration::from_millis(self.rng.random_range(0..200));
        self.queue.put(self.now + DIAL_EVERY + jitter, Event::Dial(life));
    }

    /// The handshake is done on one side; the one that was dialled is first.
    pub(super) fn established(&mut self, side: Side) {
        let (life, peer) = (self.links.life(side), self.links.life(side.other()));
        let is_first = side.end == 1;
        let way_is_blocked = self.links.is_blocked(life.node, peer.node)
            || self.links.is_blocked(peer.node, life.node);
        let gone = is_first && !self.nodes[peer.node].is_in(peer);
        if gone || (is_first && way_is_blocked) || self.links.state(side.other()) == EndState::Down
        {
            for end in [side, side.other()] {
                let vanished = self.links.down(end, &mut self.rng);
                self.history.vanished += vanished.iter().map(copies).sum::<u64>();
            }
            return;
        }
        if let Some(old) = self.links.current(life.node, peer.node) {
            self.close(old, false);
        }
        self.links.up(side, self.now);
        self.history.links += u64::from(is_first);
        self.greet(life, peer);
        if is_first {
            let latency = self.links.latency(life.node, peer.node);
            self.queue.put(self.now + latency, Event::Established(side.other()));
        }
        for (to, lane, at) in self.links.movable(side, self.now) {
            self.queue.put(at, Event::Arrive { to, lane });
        }
        self.note_pairs(false);
    }

    /// A node has a link to a peer: what the driver does then.
    fn greet(&mut self, life: Life, peer: Life) {
        let now = self.now;
        self.trace.all(now, || format!("node-{} is linked to node-{}", life.node, peer.node));
        let peers_wall = self.nodes[peer.node].wall(now);
        let running = self.nodes[peer.node].running.as_ref();
        let time = running.map(|running| running.mesh.time(peers_wall));
        let wall = self.nodes[life.node].wall(now);
        if let Some(running) = self.running(life.node) {
            running.was_linked = true;
            running.outbox.link(id_of(peer.node), true);
            if let Some(time) = time {
                running.mesh.learn_time(wall, time);
            }
        }
        let home = Home { me: incarnation(peer), region: self.nodes[peer.node].region.clone() };
        self.engine(life.node, |mesh, now| mesh.link_up(&home, now));
        self.send_gossip(life.node, peer.node);
    }

    /// A side gives its link up, or says goodbye; the other is told if the way is free.
    pub(super) fn close(&mut self, side: Side, graceful: bool) {
        let latency =
            self.links.latency(self.links.life(side).node, self.links.life(side.other()).node);
        self.side_down(side, graceful);
        if self.links.state(side.other()) != EndState::Down {
            self.queue.put(self.now + latency, Event::Ended(side.other()));
        }
    }

    /// The other side closed the link.
    pub(super) fn told_of_end(&mut self, side: Side) {
        let (node, peer) = (self.links.life(side).node, self.links.life(side.other()));
        if self.links.state(side) == EndState::Down || self.links.is_blocked(peer.node, node) {
            return;
        }
        let left = self.links.said_goodbye(side.other());
        if left && let Some(running) = self.running(node) {
            running.table.farewell(peer.node, peer.number);
        }
        self.side_down(side, left);
        self.tell_members(node);
    }

    fn side_down(&mut self, side: Side, graceful: bool) {
        if self.links.state(side) == EndState::Down {
            return;
        }
        let was_up = self.links.state(side) == EndState::Up;
        let (node, peer) = (self.links.life(side).node, self.links.life(side.other()));
        if graceful {
            self.links.end(side).graceful = true;
        }
        let vanished = self.links.down(side, &mut self.rng);
        self.history.vanished += vanished.iter().map(copies).sum::<u64>();
        if was_up {
            let now = self.now;
            self.trace.all(now, || format!("node-{node} has lost its link to node-{}", peer.node));
            if let Some(running) = self.running(node) {
                running.outbox.link(id_of(peer.node), false);
            }
            self.engine(node, |mesh, now| mesh.link_down(incarnation(peer), now));
        }
        self.note_pairs(graceful);
    }

    pub(super) fn send_control(&mut self, from: usize, to: usize, frame: &Control) {
        let mut bytes = Vec::new();
        frame.encode(&mut bytes);
        self.send_wire(from, to, CONTROL, bytes.into());
    }

    pub(super) fn send_wire(&mut self, from: usize, to: usize, lane: usize, bytes: Bytes) {
        self.send(from, to, lane, Frame::Wire(bytes));
    }

    fn send(&mut self, from: usize, to: usize, lane: usize, frame: Frame) {
        let Some(side) = self.links.current(from, to) else { return };
        if let Some(due) = self.links.send(side, lane, frame, self.now, &mut self.rng) {
            self.queue.put(due, Event::Arrive { to: side.other(), lane });
        }
    }

    /// Frames have reached a side.
    pub(super) fn arrive(&mut self, to: Side, lane: usize) {
        let (frames, next) = self.links.arrived(to, lane, self.now);
        if let Some(next) = next {
            self.queue.put(next, Event::Arrive { to, lane });
        }
        let (node, peer) = (self.links.life(to).node, self.links.life(to.other()));
        if frames.is_empty() {
            return;
        }
        self.history.frames += frames.len() as u64;
        self.trace.digest(&(self.now, node, peer.node, lane, frames.len()));
        self.links.end(to).heard = self.now;
        if self.links.end(to).suspect {
            self.suspect(node, peer.node, to, false);
        }
        for frame in frames {
            match frame {
                Frame::Gossip(table) => self.hear(node, &table),
                Frame::Wire(bytes) if lane == CONTROL => self.control(node, peer, &bytes),
                Frame::Wire(bytes) => self.data(node, peer.node, lane, &bytes),
            }
        }
    }

    fn hear(&mut self, node: usize, table: &super::gossip::Table) {
        let now = self.now;
        if let Some(running) = self.running(node) {
            running.table.hear(node, table, now);
        }
        self.tell_members(node);
    }

    fn control(&mut self, node: usize, peer: Life, bytes: &Bytes) {
        let Ok(Some((kind, body, _))) = wire::split(bytes) else { return self.unreadable(bytes) };
        let Ok(frame) = Control::decode(kind, &body) else { return self.unreadable(bytes) };
        self.trace_frame(node, peer.node, &|| format!("{frame:?}"));
        let (wall, from) = (self.nodes[node].wall(self.now), id_of(peer.node));
        let Some(running) = self.running(node) else { return };
        match frame {
            Control::Ping { number, time, broadcasts } => {
                running.mesh.learn_time(wall, time);
                let pong = Control::Pong { number, time: running.mesh.time(wall) };
                self.engine(node, |mesh, now| mesh.heard(from, &broadcasts, now));
                self.send_control(node, peer.node, &pong);
            }
            Control::Pong { time, .. } => running.mesh.learn_time(wall, time),
            Control::Leaving => {
                running.table.leaves(peer.node, peer.number);
                self.tell_members(node);
            }
            frame => {
                self.engine(node, |mesh, now| mesh.control(from, frame, now));
            }
        }
    }

    fn data(&mut self, node: usize, peer: usize, lane: usize, bytes: &Bytes) {
        let Ok(Some((kind, body, _))) = wire::split(bytes) else { return self.unreadable(bytes) };
        let Ok(frame) = Data::decode(kind, &body) else { return self.unreadable(bytes) };
        self.trace_frame(node, peer, &|| shown(&frame));
        let Some(running) = self.running(node) else { return };
        let sessions = running.sessions.clone();
        let lane = u8::try_from(lane - 1).unwrap_or_default();
        self.engine(node, |mesh, now| {
            mesh.data(id_of(peer), lane, &frame, &mut *sessions.batch(), now);
        });
    }

    fn unreadable(&mut self, bytes: &Bytes) {
        let what = format!("a frame that cannot be read: {bytes:?}");
        self.history.nonsense.push(super::history::Nonsense { what, agent: None, message: None });
    }

    /// Writes a frame down if a run is repeated and it concerns what is looked at.
    fn trace_frame(&mut self, node: usize, peer: usize, text: &dyn Fn() -> String) {
        if !self.trace.is_on() {
            return;
        }
        let now = self.now;
        let text = self.with_names(text());
        self.trace.frame(now, &format!("node-{peer} → node-{node}: {text}"));
    }

    /// A text with the nodes' ids replaced by the names that a trace gives them.
    fn with_names(&self, mut text: String) -> String {
        for place in 0..self.nodes.len() {
            let id = id_of(place);
            text = text.replace(&format!("NodeId({})", id.0), &format!("node-{place}"));
        }
        text
    }

    /// Writes down which nodes can speak to each other undisturbed.
    pub(super) fn note_pairs(&mut self, graceful: bool) {
        for a in 0..self.nodes.len() {
            for b in 0..a {
                let good = self.is_undisturbed(a, b);
                self.history.note_pair(a, b, good, graceful, self.now);
            }
        }
    }

    fn is_undisturbed(&self, a: usize, b: usize) -> bool {
        let up = |a, b| {
            let side = self.links.current(a, b);
            side.is_some_and(|side| self.links.state(side.other()) == EndState::Up)
        };
        let free = !self.links.is_blocked(a, b) && !self.links.is_blocked(b, a);
        free && !self.nodes[a].hangs() && !self.nodes[b].hangs() && up(a, b) && up(b, a)
    }
}

/// For how many agents each the directs of a frame are.
fn copies(frame: &Frame) -> u64 {
    let Frame::Wire(bytes) = frame else { return 0 };
    let Ok(Some((kind, body, _))) = wire::split(bytes) else { return 0 };
    match Data::decode(kind, &body) {
        Ok(Data::Direct(direct) | Data::Bounced(direct)) => direct.targets.iter().count() as u64,
        _ => 0,
    }
}

/// A data frame as a trace shows it.
fn shown(frame: &Data<'_>) -> String {
    let number =
        |body: &wire::Body<'_>| super::message::number(body.as_slice()).unwrap_or_default();
    let names = |names: &wire::Names<'_>| names.iter().collect::<Vec<_>>().join(" ");
    match frame {
        Data::Direct(d) => format!("Direct message {} for {}", number(&d.body), names(&d.targets)),
        Data::Bounced(d) => {
            format!("Bounced message {} for {}", number(&d.body), names(&d.targets))
        }
        Data::Broadcast(b) => {
            format!(
                "Broadcast {} message {} of {} except {}",
                b.seq,
                number(&b.body),
                b.from,
                names(&b.except)
            )
        }
        Data::Relayed(r) => {
            let b = &r.broadcast;
            format!(
                "Relayed {} message {} of {} except {}",
                b.seq,
                number(&b.body),
                b.from,
                names(&b.except)
            )
        }
        other => format!("{other:?}"),
    }
}

const _: () = assert!(GOSSIP == LANES + 1);
