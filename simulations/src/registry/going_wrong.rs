//! The part of a run in which things go wrong: each fault of the plan is brought about in its time, and
//! ended.

use std::{collections::BTreeMap, future::pending, time::Duration};

use rand::Rng;
use tokio::{sync::oneshot, time::sleep};

use super::{
    faults::{Fault, What},
    history::{Call, Disturbance, What as Asked},
    network::Answered,
    world::World,
};

/// A node whose disk fails as it starts is started again after so long.
const START_EVERY: Duration = Duration::from_millis(250);

/// Attempts that ended so long before their node died have been given back, or could not be.
const GIVEN_BACK_WITHIN: Duration = Duration::from_secs(5);

/// What is to be done when, in this order.
#[derive(Default)]
struct Agenda {
    due: BTreeMap<(Duration, usize), Turn>,
    added: usize,
}

enum Turn {
    Begin(Fault),
    End(What),
}

impl Agenda {
    fn add(&mut self, at: Duration, turn: Turn) {
        self.added += 1;
        self.due.insert((at, self.added), turn);
    }

    fn next_at(&self) -> Option<Duration> {
        self.due.keys().next().map(|(at, _)| *at)
    }
}

impl World {
    /// Everything that the plan has, and what follows from it.
    pub(super) async fn go_wrong(&mut self) {
        let start = self.nodes.elapsed();
        let end = start + self.faulty_for;
        let mut agenda = Agenda::default();
        for Fault { at, until, what } in std::mem::take(&mut self.plan) {
            let (at, until) = (start + at, start + until);
            agenda.add(at, Turn::Begin(Fault { at, until, what }));
        }
        let mut trap = None;
        loop {
            let at = agenda.next_at().unwrap_or(end);
            let follows = tokio::select! {
                biased;
                answered = sprung(&mut trap) => self.after_the_vote(answered),
                () = sleep(at.saturating_sub(self.nodes.elapsed())) => {
                    match agenda.due.pop_first() {
                        None => return,
                        Some((_, Turn::End(what))) => {
                            self.end(&what);
                            Vec::new()
                        }
                        Some((_, Turn::Begin(fault))) => {
                            let follows = self.begin(&fault, &mut trap);
                            agenda.add(fault.until, Turn::End(fault.what));
                            follows
                        }
                    }
                }
            };
            for fault in follows {
                agenda.add(fault.at, Turn::Begin(fault));
            }
        }
    }

    /// Begins a fault; returns those that follow from it.
    fn begin(
        &mut self,
        Fault { at, until, what }: &Fault,
        trap: &mut Option<oneshot::Receiver<Answered>>,
    ) -> Vec<Fault> {
        self.say(&format!("begins: {what:?}"));
        let (nodes, ways) = what.touches(self.nodes.count());
        let (from, until, stopped) = (*at, *until, what.stops());
        self.history.lock().disturbances.push(Disturbance { from, until, nodes, stopped, ways });
        let network = &self.nodes.network;
        match what {
            What::Loss(one_in) => network.set_loss(Some(*one_in)),
            What::Late(one_in) => network.set_late(Some(*one_in)),
            What::Cut(a, b) => network.cut(*a, *b),
            What::Block(ways) => network.set_blocked(ways, true),
            What::Crash(crashed) => {
                for node in crashed {
                    self.crash(*node);
                }
            }
            What::Vote => return self.before_the_vote(trap),
            What::Hang(node) => network.set_still(*node, true),
            What::Stall(node) => network.set_stalled(*node, true),
            What::Slow(node) => network.set_slow(*node, true),
            What::Disk(node, failing) => self.nodes.fail_disk(*node, Some(*failing)),
            What::Wipe(node) => {
                self.crash(*node);
                let seed = self.rng.random();
                self.history.lock().wipes += 1;
                if let Err(error) = self.nodes.wipe(*node, seed) {
                    self.say(&format!("there is no room for a new disk: {error}"));
                }
            }
        }
        Vec::new()
    }

    fn end(&mut self, what: &What) {
        self.say(&format!("ends: {what:?}"));
        let network = &self.nodes.network;
        match what {
            What::Loss(_) => network.set_loss(None),
            What::Late(_) => network.set_late(None),
            What::Cut(..) | What::Vote => {}
            What::Block(ways) => network.set_blocked(ways, false),
            What::Crash(crashed) => {
                for node in crashed {
                    self.start(*node);
                }
            }
            What::Hang(node) => network.set_still(*node, false),
            What::Stall(node) => network.set_stalled(*node, false),
            What::Slow(node) => network.set_slow(*node, false),
            What::Disk(node, _) => {
                self.nodes.fail_disk(*node, None);
                // The store looks again every five seconds.
                let from = self.nodes.elapsed();
                let until = from + Duration::from_secs(6);
                let nodes = vec![*node];
                let after = Disturbance { from, until, nodes, stopped: true, ways: Vec::new() };
                self.history.lock().disturbances.push(after);
            }
            What::Wipe(node) => self.start(*node),
        }
    }

    /// The leader dies, and whoever votes for another is waited for.
    fn before_the_vote(&mut self, trap: &mut Option<oneshot::Receiver<Answered>>) -> Vec<Fault> {
        let Some(leader) = self.nodes.leader() else { return Vec::new() };
        let others = (0..self.nodes.voters()).filter(|node| *node != leader);
        *trap = Some(self.nodes.network.trap(others.collect()));
        vec![self.fault_from_now(What::Crash(vec![leader]), 200..1_200)]
    }

    /// Whoever has voted dies; who was voted for may hear that it was, and is not heard.
    fn after_the_vote(&mut self, Answered { asker, answerer }: Answered) -> Vec<Fault> {
        let others = (0..self.nodes.count()).filter(|node| *node != asker);
        let unheard = others.map(|other| (asker, other)).collect();
        vec![
            self.fault_from_now(What::Crash(vec![answerer]), 50..400),
            self.fault_from_now(What::Block(unheard), 1_500..4_000),
        ]
    }

    fn fault_from_now(&mut self, what: What, millis: std::ops::Range<u64>) -> Fault {
        let at = self.nodes.elapsed();
        let until = at + Duration::from_millis(self.rng.random_range(millis));
        Fault { at, until, what }
    }

    fn crash(&self, node: usize) {
        if !self.nodes.crash(node) {
            return;
        }
        let now = self.nodes.elapsed();
        let history = &mut *self.history.lock();
        history.crashes += 1;
        let since = now.saturating_sub(GIVEN_BACK_WITHIN);
        let orphaned = |call: &Call| {
            call.node == node
                && !call.is_certain()
                && call.done.is_none_or(|done| done >= since)
                && matches!(call.what, Asked::Register { repeatable: false, .. })
        };
        let calls = history.calls.iter().enumerate();
        history.orphaned.extend(calls.filter(|(_, call)| orphaned(call)).map(|(number, _)| number));
    }

    /// Starts a node, if its disk lets it; it is tried again when all heals.
    pub(super) fn start(&self, node: usize) {
        if let Err(error) = self.nodes.start(node) {
            self.say(&format!("node-{node} cannot start: {error}"));
        }
    }

    /// Nothing is wrong any more, and every node runs.
    pub(super) async fn heal(&self) {
        self.say("nothing goes wrong any more");
        self.nodes.network.heal();
        for node in 0..self.nodes.count() {
            self.nodes.fail_disk(node, None);
            while self.nodes.start(node).is_err() && self.nodes.elapsed() < Duration::from_mins(2) {
                sleep(START_EVERY).await;
            }
        }
    }
}

/// Who has answered whom, once the trap is sprung.
async fn sprung(trap: &mut Option<oneshot::Receiver<Answered>>) -> Answered {
    let answered = match trap {
        Some(waits) => waits.await,
        None => pending().await,
    };
    *trap = None;
    match answered {
        Ok(answered) => answered,
        Err(_) => pending().await, // there is another trap, or all has healed
    }
}
