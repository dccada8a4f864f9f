//! The part of a run in which things go wrong: each fault of the plan is brought about in its time, and
//! ended.

use std::{collections::BTreeMap, future::pending, time::Duration};

use rand::Rng;
use tokio::{sync::oneshot, time::sleep};

use super::{
    faults::{Fault, What},
    history::Disturbance,
    network::Elected,
    world::World,
};

/// A node whose disk fails as it starts is started again after so long.
const START_EVERY: Duration = Duration::from_millis(250);

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

/// A leader that is cut off, until another is elected.
struct Election {
    elected: oneshot::Receiver<Elected>,
    /// The ways from and to the leader.
    ways: Vec<(usize, usize)>,
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
        let mut election = None;
        loop {
            let at = agenda.next_at().unwrap_or(end);
            let follows = tokio::select! {
                biased;
                elected = elected(&mut election) => self.after_the_vote(elected, election.take()),
                () = sleep(at.saturating_sub(self.nodes.elapsed())) => {
                    match agenda.due.pop_first() {
                        None => return,
                        Some((_, Turn::End(What::Vote))) => {
                            self.no_vote(election.take());
                            Vec::new()
                        }
                        Some((_, Turn::End(what))) => {
                            self.end(&what);
                            Vec::new()
                        }
                        Some((_, Turn::Begin(fault))) => {
                            self.begin(&fault);
                            if fault.what == What::Vote {
                                self.no_vote(election.take());
                                election = self.before_the_vote(&fault);
                            }
                            agenda.add(fault.until, Turn::End(fault.what));
                            Vec::new()
                        }
                    }
                }
            };
            for fault in follows {
                agenda.add(fault.at, Turn::Begin(fault));
            }
        }
    }

    /// Begins a fault.
    fn begin(&mut self, Fault { at, until, what }: &Fault) {
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
            What::Vote => {} // which is more than this
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

    /// The leader is cut off, and it is waited for another to be elected.
    fn before_the_vote(&mut self, Fault { at, until, .. }: &Fault) -> Option<Election> {
        let leader = self.nodes.leader()?;
        let voters = self.nodes.voters();
        let others = (0..self.nodes.count()).filter(|node| *node != leader);
        let ways: Vec<_> = others.flat_map(|other| [(leader, other), (other, leader)]).collect();
        self.say(&format!("cut off: node-{leader}, which leads"));
        let (from, until, nodes, stopped) = (*at, *until, Vec::new(), true);
        let disturbance = Disturbance { from, until, nodes, stopped, ways: ways.clone() };
        self.history.lock().disturbances.push(disturbance);
        self.nodes.network.set_blocked(&ways, true);
        let others = (0..voters).filter(|node| *node != leader).collect();
        // Its own vote makes it a majority.
        Some(Election { elected: self.nodes.network.trap(others, voters / 2), ways })
    }

    /// Those who voted die; who was elected hears of it, and is not heard; the former leader is in reach.
    fn after_the_vote(&mut self, elected: Elected, election: Option<Election>) -> Vec<Fault> {
        let Elected { node, voters } = elected;
        self.say(&format!("elected: node-{node}, by {voters:?}"));
        let others = (0..self.nodes.count()).filter(|it| *it != node);
        let unheard: Vec<_> = others.map(|other| (node, other)).collect();
        let ways = election.map_or_else(Vec::new, |election| election.ways);
        let again: Vec<_> = ways.into_iter().filter(|way| !unheard.contains(way)).collect();
        let network = &self.nodes.network;
        network.set_blocked(&unheard, true);
        network.set_blocked(&again, false);
        vec![
            self.fault_from_now(What::Crash(voters.into_iter().collect()), 50..250),
            self.fault_from_now(What::Block(unheard), 1_500..4_000),
        ]
    }

    /// Nobody was elected while the leader was cut off.
    fn no_vote(&self, election: Option<Election>) {
        if let Some(Election { ways, .. }) = election {
            self.say("nobody was elected");
            self.nodes.network.set_blocked(&ways, false);
        }
    }

    fn fault_from_now(&mut self, what: What, millis: std::ops::Range<u64>) -> Fault {
        let at = self.nodes.elapsed();
        let until = at + Duration::from_millis(self.rng.random_range(millis));
        Fault { at, until, what }
    }

    /// The power of a node goes, and what it would have given back is forgotten.
    fn crash(&self, node: usize) {
        let Some(running) = self.nodes.running(node) else { return };
        let forgotten = running.registry.names_to_give_back();
        self.nodes.crash(node);
        let history = &mut *self.history.lock();
        history.crashes += 1;
        history.forgotten.extend(forgotten);
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

/// Who was elected while the leader is cut off.
async fn elected(election: &mut Option<Election>) -> Elected {
    let Some(Election { elected, .. }) = election else { return pending().await };
    match elected.await {
        Ok(elected) => elected,
        Err(_) => pending().await, // all has healed
    }
}
