//! The simulated world: hosts, the network between them, and what goes wrong in it.

use std::{sync::Arc, time::Duration};

use cluster::membership::SUSPECT_AFTER;
use rand::{Rng, SeedableRng, rngs::SmallRng};
use tokio::task::JoinSet;
use turmoil::{Builder, Sim};

use super::{
    agents::{Agent, Times},
    client::host_name,
    nodes::Nodes,
    seen::{Record, Seen},
};
use crate::core::{
    Options,
    faults::{self, Fault, What},
    history::Ending,
};

/// Until then the nodes find each other, undisturbed.
const CALM_UNTIL: Duration = Duration::from_secs(2);

/// From their healing until the agents' probe.
const HEALING: Duration = Duration::from_secs(10);

/// From then on, after the healing began, agents stay where they are.
const SETTLE: Duration = Duration::from_secs(2);

/// What the probe may take.
const PROBING: Duration = Duration::from_secs(4);

/// The resolution of simulated time: what is sent arrives in the next of these at the earliest.
const TICK: Duration = Duration::from_millis(1);

/// How often it is looked at who has links to whom, in ticks.
const TICKS_PER_LOOK: u32 = 10;

/// Segments that wait in a TCP connection, and datagrams at a socket.
const BUFFERED_MAX: usize = 1 << 14;

/// The host of all agents.
const AGENTS: &str = "agents";

/// Everything there is.
pub(super) struct World<'a> {
    sim: Sim<'a>,
    nodes: Arc<Nodes>,
    seen: Arc<Seen>,
    rng: SmallRng,
    agenda: Vec<(Duration, Event)>,
    faults: Vec<Fault>,
    ways: Ways,
    /// The longest way between two nodes when nothing is slow.
    latency_ms: Vec<Vec<u64>>,
    /// `linked[node][to]`, when it was looked at last.
    linked: Vec<Vec<bool>>,
    end: Duration,
}

/// What the world does to its nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    Start(usize),
    Begin(usize),
    End(usize),
    Heal,
}

/// What keeps nodes from each other, in numbers of faults.
#[derive(Debug)]
struct Ways {
    /// `blocked[from][to]`.
    blocked: Vec<Vec<u32>>,
    hangs: Vec<u32>,
    states: Vec<Vec<Way>>,
}

/// What becomes of packets between two hosts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Way {
    #[default]
    Free,
    /// They are kept, and delivered later.
    Held,
    /// They are lost: those from the lower to the higher, and those back.
    Cut(bool, bool),
}

impl World<'_> {
    /// The beginning of the run that a seed stands for. The thread's randomness is the seed's.
    pub(super) fn new(seed: u64, options: &Options) -> Self {
        let mut rng = SmallRng::seed_from_u64(seed);
        let count = options.nodes.max(1);
        let regions: Vec<usize> = (0..count).map(|node| node % options.regions.max(1)).collect();
        let skews = faults::skews(&options.faults, count, &mut rng);
        let record = Arc::new(Seen::default());
        let nodes = Arc::new(Nodes::new(&regions, &skews, Arc::clone(&record)));
        let heal = CALM_UNTIL + options.faulty_for;
        let late = faults::late(&options.faults, count, &mut rng);
        let faults = faults::plan(&options.faults, count, CALM_UNTIL, heal, &mut rng);
        let mut world = World {
            sim: network(&mut rng, heal + HEALING + PROBING),
            nodes,
            seen: record,
            rng,
            agenda: Vec::new(),
            faults,
            ways: Ways::new(count),
            latency_ms: Vec::new(),
            linked: vec![vec![false; count]; count],
            end: heal + HEALING + PROBING,
        };
        world.populate(options, heal);
        world.measure_ways(&regions);
        world.plan(heal, late);
        world
    }

    /// Puts the hosts into the world.
    fn populate(&mut self, options: &Options, heal: Duration) {
        for node in 0..self.nodes.len() {
            let nodes = Arc::clone(&self.nodes);
            self.sim.host(host_name(node), move || Arc::clone(&nodes).run(node));
        }
        let times = Times { settle: heal + SETTLE, probe: heal + HEALING };
        let (nodes, seen, count) =
            (Arc::clone(&self.nodes), Arc::clone(&self.seen), options.agents);
        self.sim.client(AGENTS, async move {
            let mut agents = JoinSet::new();
            for number in 0..count {
                let agent = Agent::new(number, count, times, Arc::clone(&nodes), Arc::clone(&seen));
                agents.spawn(agent.live());
            }
            match agents.join_next().await {
                Some(Err(error)) => Err(error.into()),
                _ => Ok(()),
            }
        });
        self.seen.with(|history, _| {
            history.healed = heal;
            history.probed = (heal + HEALING, usize::MAX);
            history.ended = heal + HEALING + PROBING;
        });
    }

    fn measure_ways(&mut self, regions: &[usize]) {
        let count = regions.len();
        self.latency_ms = vec![vec![0; count]; count];
        for a in 0..count {
            for b in 0..a {
                let near = regions[a] == regions[b];
                let most = self.rng.random_range(if near { 2..12 } else { 30..100 });
                (self.latency_ms[a][b], self.latency_ms[b][a]) = (most, most);
                self.slow(a, b, 0);
            }
        }
    }

    /// Ways take so much longer.
    fn slow(&self, a: usize, b: usize, more_ms: u64) {
        let most = Duration::from_millis(self.latency_ms[a][b] + more_ms);
        self.sim.set_link_max_message_latency(host_name(a), host_name(b), most);
    }

    fn plan(&mut self, heal: Duration, late: Option<usize>) {
        for node in 0..self.nodes.len() {
            let at = if late == Some(node) {
                CALM_UNTIL + heal.saturating_sub(CALM_UNTIL).mul_f64(self.rng.random())
            } else {
                Duration::from_millis(self.rng.random_range(0..200))
            };
            self.agenda.push((at, Event::Start(node)));
        }
        for (index, fault) in self.faults.iter().enumerate() {
            self.agenda.push((fault.at, Event::Begin(index)));
            self.agenda.push((fault.until, Event::End(index)));
        }
        self.agenda.push((heal, Event::Heal));
    }

    /// Runs to the end, and returns what was seen.
    pub(super) fn run(mut self) -> Record {
        let mut now = Duration::ZERO;
        for tick in 0.. {
            if now >= self.end {
                break;
            }
            while let Some(event) = self.due(now) {
                self.happen(event, now);
            }
            if let Err(error) = self.sim.step() {
                self.seen.nonsense(format!("a host ended: {error}"), None, None);
                break;
            }
            now += TICK;
            self.seen.set_now(now);
            if u32::is_multiple_of(tick, TICKS_PER_LOOK) {
                self.look();
            }
        }
        let counted = self.nodes.counted();
        self.end();
        self.seen.close(counted)
    }

    /// Hosts can end only within the world.
    fn end(&mut self) {
        for node in 0..self.nodes.len() {
            self.nodes.forget(node);
            self.sim.crash(host_name(node));
        }
    }

    /// The next event of those that are due, in the order in which they were planned.
    fn due(&mut self, now: Duration) -> Option<Event> {
        let due = self.agenda.iter().position(|(at, _)| *at <= now)?;
        Some(self.agenda.remove(due).1)
    }

    fn happen(&mut self, event: Event, now: Duration) {
        match event {
            Event::Start(node) => self.start(node),
            Event::Begin(fault) => self.begin(self.faults[fault].what.clone()),
            Event::End(fault) => self.end_of(self.faults[fault].what.clone()),
            Event::Heal => self.heal(now),
        }
    }

    fn start(&mut self, node: usize) {
        if self.nodes.is_running(node) {
            return;
        }
        if self.nodes.life(node).number > 0 {
            // What the former life left behind ends.
            self.sim.bounce(host_name(node));
            self.seen.with(|history, _| history.restarts += 1);
        }
        self.nodes.start(node);
    }

    fn begin(&mut self, what: What) {
        self.seen.note(format!("fault: {what:?}"));
        match what {
            What::Loss { one_in } => self.seen.set_loss(one_in),
            What::Cut(a, b) => self.block(&[(a, b), (b, a)], true),
            What::Block(ways) => self.block(&ways, true),
            What::Crash(node) => self.crash(node),
            What::Hang(node) => self.hang(node, true),
            What::Slow(node, by) => self.slow_down(node, by),
            What::Drain(node) => self.nodes.drain(node),
        }
    }

    fn end_of(&mut self, what: What) {
        self.seen.note(format!("over: {what:?}"));
        match what {
            What::Loss { .. } => self.seen.set_loss(0),
            What::Cut(a, b) => self.block(&[(a, b), (b, a)], false),
            What::Block(ways) => self.block(&ways, false),
            What::Crash(node) | What::Drain(node) => self.start(node),
            What::Hang(node) => self.hang(node, false),
            What::Slow(node, _) => self.slow_down(node, Duration::ZERO),
        }
    }

    /// Whatever is still down comes up again.
    fn heal(&mut self, now: Duration) {
        self.seen.note("all faults are over".to_owned());
        for node in 0..self.nodes.len() {
            let drains = self.nodes.drains(node);
            if drains {
                // Its time is over soon; it comes back then.
                self.agenda.push((now + Duration::from_secs(1), Event::Start(node)));
            } else {
                self.start(node);
            }
        }
    }

    /// A node dies without a word: its host is there, and refuses connections.
    fn crash(&mut self, node: usize) {
        let Some(life) = self.nodes.forget(node) else { return };
        self.sim.bounce(host_name(node));
        self.seen.life_ended(life, Ending::Crashed);
        self.seen.with(|history, now| {
            history.crashes += 1;
            history.deaths.push((life, now));
        });
    }

    /// Nothing gets to a node or from it any more, until all of it does at once. Its own time goes
    /// on: turmoil cannot stop one clock.
    fn hang(&mut self, node: usize, begins: bool) {
        let hangs = &mut self.ways.hangs[node];
        *hangs = if begins { *hangs + 1 } else { hangs.saturating_sub(1) };
        let hangs = *hangs > 0;
        self.seen.holds(node, hangs);
        self.apply_ways();
    }

    fn block(&mut self, ways: &[(usize, usize)], begins: bool) {
        for (from, to) in ways {
            let blocked = &mut self.ways.blocked[*from][*to];
            *blocked = if begins { *blocked + 1 } else { blocked.saturating_sub(1) };
        }
        self.apply_ways();
    }

    fn slow_down(&mut self, node: usize, by: Duration) {
        let by_ms = u64::try_from(by.as_millis()).unwrap_or_default() * 4;
        for other in (0..self.nodes.len()).filter(|other| *other != node) {
            self.slow(node, other, by_ms);
        }
    }

    /// Brings the network to the state that the faults ask for.
    fn apply_ways(&mut self) {
        let count = self.nodes.len();
        for a in 0..=count {
            for b in 0..a {
                let (way, was) = (self.ways.between(b, a), self.ways.states[b][a]);
                if way == was {
                    continue;
                }
                self.ways.states[b][a] = way;
                let name = |host| if host == count { AGENTS.to_owned() } else { host_name(host) };
                let (low, high) = (name(b), name(a));
                self.sim.release(low.as_str(), high.as_str());
                match way {
                    Way::Free => {}
                    Way::Held => self.sim.hold(low.as_str(), high.as_str()),
                    Way::Cut(there, back) => {
                        if there {
                            self.sim.partition_oneway(low.as_str(), high.as_str());
                        }
                        if back {
                            self.sim.partition_oneway(high.as_str(), low.as_str());
                        }
                    }
                }
            }
        }
        self.look();
    }

    /// Writes down which nodes can speak to each other undisturbed.
    fn look(&mut self) {
        let count = self.nodes.len();
        for a in 0..count {
            for b in 0..a {
                let free = self.ways.states[b][a] == Way::Free;
                let heard = [self.hears(a, b), self.hears(b, a)];
                let good = free && heard == [true, true];
                let graceful = self.nodes.drains(a) || self.nodes.drains(b);
                self.seen.with(|history, now| history.note_pair(a, b, good, graceful, now));
            }
        }
    }
}

impl World<'_> {
    /// Whether a node has a link to another and hears of it. When a way is free again, it takes QUIC a
    /// moment to try it. Writes down when links come and go.
    fn hears(&mut self, node: usize, to: usize) -> bool {
        let link = self.nodes.link(node, to);
        let is = link.is_some();
        if std::mem::replace(&mut self.linked[node][to], is) != is {
            let verb = if is { "is linked to" } else { "has no link any more to" };
            self.seen.note(format!("node-{node} {verb} node-{to}"));
        }
        link.is_some_and(|silent_for| silent_for < SUSPECT_AFTER)
    }
}

impl Ways {
    /// All are free; the agents' host is the last.
    fn new(nodes: usize) -> Self {
        Self {
            blocked: vec![vec![0; nodes]; nodes],
            hangs: vec![0; nodes],
            states: vec![vec![Way::Free; nodes + 1]; nodes + 1],
        }
    }

    /// What the faults make of the way between two hosts.
    fn between(&self, low: usize, high: usize) -> Way {
        let hangs = |host: usize| self.hangs.get(host).is_some_and(|faults| *faults > 0);
        let blocked = |from: usize, to: usize| {
            self.blocked.get(from).and_then(|to_all| to_all.get(to)).is_some_and(|n| *n > 0)
        };
        match (blocked(low, high), blocked(high, low)) {
            _ if hangs(low) || hangs(high) => Way::Held,
            (false, false) => Way::Free,
            (there, back) => Way::Cut(there, back),
        }
    }
}

fn network(rng: &mut SmallRng, lasts: Duration) -> Sim<'static> {
    Builder::new()
        .rng_seed(rng.random())
        .epoch(std::time::UNIX_EPOCH)
        .simulation_duration(lasts * 2)
        .tick_duration(TICK)
        .min_message_latency(TICK)
        .max_message_latency(Duration::from_millis(5))
        .tcp_capacity(BUFFERED_MAX)
        .udp_capacity(BUFFERED_MAX)
        .build()
}
