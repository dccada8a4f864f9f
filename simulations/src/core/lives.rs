//! How nodes live and die in the simulated world: starts, crashes, standstills, drains, and the plan
//! of faults that brings them about.

use std::time::Duration;

use cluster::wire::Control;
use rand::{Rng, seq::SliceRandom};

use super::{
    event::{Event, Life},
    faults::What,
    history::Ending,
    node::Draining,
    world::World,
};

/// How often a draining node takes a step.
const DRAIN_STEP: Duration = Duration::from_millis(100);

/// How long a drained node serves what is still on its way, once it has no session left.
const FLUSH: Duration = Duration::from_secs(1);

/// When it stops although something is under way still.
const FLUSH_MAX: Duration = Duration::from_secs(5);

/// Sessions that are told to go in one wave.
const WAVE: usize = 3;

impl World {
    pub(super) fn start(&mut self, place: usize) {
        if self.nodes[place].running.is_some() {
            return;
        }
        let count = self.nodes.len();
        self.nodes[place].start(count, self.now);
        let life = self.nodes[place].life();
        self.history.restarts += u64::from(life.number > 1);
        let now = self.now;
        self.trace.all(now, || format!("node-{place} starts, life {}", life.number));
        self.tell_members(place);
        for (event, within) in [
            (Event::Tick(life), 50),
            (Event::Gossip(life), 400),
            (Event::Ping(life), 500),
            (Event::Dial(life), 60),
        ] {
            let after = Duration::from_millis(self.rng.random_range(1..within));
            self.queue.put(now + after, event);
        }
        // Who still thinks to be linked to its last life is told, as a stateless reset does.
        for peer in 0..count {
            let side = self.links.current(peer, place);
            if let Some(side) = side.filter(|side| self.links.life(side.other()) != life) {
                let way = self.links.latency(place, peer) * 2;
                self.queue.put(now + way, Event::Ended(side));
            }
        }
    }

    fn crash(&mut self, place: usize) {
        let life = self.nodes[place].life();
        let Some(running) = self.nodes[place].running.take() else { return };
        self.history.crashes += 1;
        let now = self.now;
        self.history.deaths.push((life, now));
        self.trace.all(now, || format!("node-{place} crashes"));
        for (_, side) in self.links.all_of(place) {
            self.links.down(side, &mut self.rng);
        }
        for (agent, session) in running.sessions.all() {
            let left = running.sessions.leave(agent, session);
            let unwritten = left.map_or(0, |left| left.unwritten);
            self.session_ends(agent, session, Ending::Crashed, unwritten);
        }
        self.note_pairs(false);
    }

    fn hang(&mut self, place: usize) {
        let now = self.now;
        let Some(running) = self.running(place) else { return };
        if running.hanging.is_none() {
            running.hanging = Some(Vec::new());
            self.trace.all(now, || format!("node-{place} stands still"));
            self.note_pairs(false);
        }
    }

    /// A node that stood still does all that it has missed, the timers or the network first.
    pub(super) fn resume(&mut self, life: Life) {
        let Some(running) = self.running(life.node) else { return };
        let Some(mut missed) = running.hanging.take() else { return };
        let now = self.now;
        self.trace.all(now, || format!("node-{} goes on", life.node));
        let network_is_first: bool = self.rng.random();
        missed.sort_by_key(|event| matches!(event, Event::Arrive { .. }) != network_is_first);
        for event in missed {
            self.happen(event);
        }
        self.note_pairs(false);
    }

    /// A node is told to stop.
    fn begin_drain(&mut self, place: usize) {
        let now = self.now;
        let life = self.nodes[place].life();
        let Some(running) = self.running(place) else { return };
        if running.draining.is_some() {
            return;
        }
        running.draining = Some(Draining::Sessions);
        running.table.beat(place, life.number, true, now);
        self.trace.all(now, || format!("node-{place} drains"));
        self.tell_members(place);
        for (peer, _) in self.links.all_of(place) {
            self.send_control(place, peer, &Control::Leaving);
        }
        self.queue.put(now + DRAIN_STEP, Event::Drain(life));
    }

    /// A draining node sends some agents away, or, when all are gone and nothing is under way, stops.
    pub(super) fn drain(&mut self, life: Life) {
        let now = self.now;
        let Some(running) = self.running(life.node) else { return };
        let sessions = running.sessions.clone();
        let mut wave = sessions.all();
        let draining = running.draining;
        match draining {
            Some(Draining::Sessions) if wave.is_empty() => {
                running.draining = Some(Draining::Empty { since: now });
            }
            Some(Draining::Empty { since })
                if now >= since + FLUSH_MAX
                    || (now >= since + FLUSH && self.links.is_flushed(life.node)) =>
            {
                return self.stop(life);
            }
            _ => {}
        }
        wave.shuffle(&mut self.rng);
        for (agent, session) in wave.into_iter().take(WAVE) {
            self.leave(life, agent, session, Ending::Drained);
        }
        self.queue.put(now + DRAIN_STEP, Event::Drain(life));
    }

    fn stop(&mut self, life: Life) {
        let now = self.now;
        self.trace.all(now, || format!("node-{} says goodbye", life.node));
        for (_, side) in self.links.all_of(life.node) {
            self.close(side, true);
        }
        self.nodes[life.node].running = None;
        self.history.stops += 1;
        self.note_pairs(true);
        let after = Duration::from_millis(self.rng.random_range(100..3_000));
        self.start_later(life.node, after);
    }

    fn start_later(&mut self, place: usize, after: Duration) {
        self.nodes[place].starts = true;
        self.queue.put(self.now + after, Event::Start(place));
    }

    pub(super) fn begin(&mut self, fault: usize) {
        let what = self.faults[fault].what.clone();
        let now = self.now;
        self.trace.all(now, || format!("fault: {what:?}"));
        match what {
            What::Loss { one_in } => self.links.loss_one_in = one_in,
            What::Cut(a, b) => {
                if let Some(side) = self.links.current(a, b) {
                    self.close(side, false);
                }
            }
            What::Block(ways) => ways.iter().for_each(|(a, b)| self.links.block(*a, *b)),
            What::Crash(place) => self.crash(place),
            What::Hang(place) => self.hang(place),
            What::Slow(place, by) => self.links.slowness[place] = by,
            What::Drain(place) => self.begin_drain(place),
        }
        self.note_pairs(false);
    }

    pub(super) fn end(&mut self, fault: usize) {
        let what = self.faults[fault].what.clone();
        let now = self.now;
        self.trace.all(now, || format!("over: {what:?}"));
        match what {
            What::Loss { .. } => self.links.loss_one_in = 0,
            What::Block(ways) => {
                for (a, b) in ways {
                    for (to, lane, at) in self.links.unblock(a, b, now) {
                        self.queue.put(at, Event::Arrive { to, lane });
                    }
                }
            }
            What::Crash(place) => {
                if self.nodes[place].running.is_none() {
                    self.start_later(place, Duration::ZERO);
                }
            }
            What::Hang(place) => {
                let life = self.nodes[place].life();
                self.happen(Event::Resume(life));
            }
            What::Slow(place, _) => self.links.slowness[place] = Duration::ZERO,
            What::Cut(..) | What::Drain(_) => {}
        }
        self.note_pairs(false);
    }

    /// Whatever is still down comes up again.
    pub(super) fn heal(&mut self) {
        let now = self.now;
        self.trace.all(now, || "all faults are over".to_owned());
        for place in 0..self.nodes.len() {
            let node = &self.nodes[place];
            if node.running.is_none() && !node.starts {
                self.start_later(place, Duration::ZERO);
            }
        }
        debug_assert!(self.links.nothing_is_blocked());
    }
}
