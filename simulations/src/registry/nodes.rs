//! The nodes of a run: what outlives them, and their lives.

use std::{sync::Arc, time::Duration};

use cluster::registry::{AtRest, Place, Registry, Role, Settings, SharedRegistry};
use parking_lot::Mutex;
use rand::{Rng, rngs::SmallRng};
use tempfile::TempDir;
use tls::mesh::Secret;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{
    clock::{self, Instant},
    disk::{Disk, Failing},
    network::Network,
};

/// How far clocks are off at most, in milliseconds.
const SKEW_MAX: i64 = 8_000;

/// All nodes; the first ones are the seeds.
pub(super) struct Nodes {
    pub(super) network: Arc<Network>,
    start: Instant,
    seeds: Vec<String>,
    secret: Secret,
    snapshot_every: u64,
    seats: Mutex<Vec<Seat>>,
}

/// What outlives a node, and its life.
struct Seat {
    disk: Arc<Disk>,
    dir: TempDir,
    skew: i64,
    life: Option<Life>,
}

struct Life {
    registry: Arc<SharedRegistry>,
    /// What it does; ends when this is dropped.
    _serving: JoinSet<()>,
    died: CancellationToken,
}

/// A node that runs, and what tells that it died.
#[derive(Clone)]
pub(super) struct Running {
    pub(super) node: usize,
    pub(super) registry: Arc<SharedRegistry>,
    pub(super) died: CancellationToken,
}

impl Nodes {
    pub(super) fn new(
        rng: &mut SmallRng,
        voters: usize,
        observers: usize,
        skewed: bool,
        snapshot_every: u64,
    ) -> std::io::Result<Arc<Self>> {
        let network = Network::new(rng.random());
        let mut seats = Vec::new();
        for node in 0..voters + observers {
            let skew = if skewed { rng.random_range(-SKEW_MAX..=SKEW_MAX) } else { 0 };
            let disk = Disk::new(node, Arc::clone(&network), rng.random());
            seats.push(Seat { disk, dir: TempDir::new()?, skew: SKEW_MAX + skew, life: None });
        }
        Ok(Arc::new(Self {
            network,
            start: clock::now(),
            seeds: (0..voters).map(|node| format!("node-{node}:7946")).collect(),
            secret: Secret::generate(),
            snapshot_every,
            seats: Mutex::new(seats),
        }))
    }

    pub(super) fn count(&self) -> usize {
        self.seats.lock().len()
    }

    pub(super) fn voters(&self) -> usize {
        self.seeds.len()
    }

    /// Since the run began.
    pub(super) fn elapsed(&self) -> Duration {
        clock::now().duration_since(self.start)
    }

    /// A node, if it runs.
    pub(super) fn running(&self, node: usize) -> Option<Running> {
        let seats = self.seats.lock();
        let Life { registry, died, .. } = seats.get(node)?.life.as_ref()?;
        Some(Running { node, registry: Arc::clone(registry), died: died.clone() })
    }

    /// All that run.
    pub(super) fn all_running(&self) -> Vec<Running> {
        (0..self.count()).filter_map(|node| self.running(node)).collect()
    }

    /// The node that leads, as far as one believes it of itself.
    pub(super) fn leader(&self) -> Option<usize> {
        let leads = |it: &Running| it.registry.status().role == Role::Leader;
        let leader =
            self.all_running().into_iter().filter(leads).max_by_key(|it| it.registry.status().term);
        leader.map(|it| it.node)
    }

    /// The wall clock of a node.
    pub(super) fn wall(&self, node: usize) -> cluster::UnixMillis {
        clock::wall(self.start, self.seats.lock()[node].skew)
    }

    /// Starts a node with what its disk holds.
    ///
    /// # Errors
    /// Its disk fails; it can be tried again.
    pub(super) fn start(&self, node: usize) -> Result<(), String> {
        let mut seats = self.seats.lock();
        let seat = &mut seats[node];
        if seat.life.is_some() {
            return Ok(());
        }
        let at_rest = AtRest::open(seat.dir.path(), Some(&self.secret), None);
        let at_rest = at_rest.map_err(|error| error.to_string())?;
        let (start, skew) = (self.start, seat.skew);
        let now = Arc::new(move || clock::wall(start, skew));
        let settings = Settings { token_ttl: None, now, at_rest };
        let disk = Arc::clone(&seat.disk);
        let opened =
            SharedRegistry::open_simulated(disk, seat.dir.path(), settings, self.snapshot_every);
        let registry = opened.map_err(|error| error.to_string())?;
        let place = Place {
            carry: Some(self.network.way(node, registry.identity())),
            seeds: self.seeds.clone(),
            slot: self.seeds.get(node).cloned(),
        };
        self.network.born(node, Arc::clone(&registry));
        let mut serving = JoinSet::new();
        serving.spawn(Arc::clone(&registry).serve(place));
        let died = CancellationToken::new();
        seat.life = Some(Life { registry, _serving: serving, died });
        Ok(())
    }

    /// The power of a node goes; false if it did not run.
    pub(super) fn crash(&self, node: usize) -> bool {
        let mut seats = self.seats.lock();
        let Some(life) = seats[node].life.take() else { return false };
        self.network.died(node);
        seats[node].disk.crash();
        drop(seats);
        life.died.cancel();
        true
    }

    /// The node's disk is replaced by an empty one.
    pub(super) fn wipe(&self, node: usize, seed: u64) -> std::io::Result<()> {
        self.crash(node);
        let mut seats = self.seats.lock();
        seats[node].disk = Disk::new(node, Arc::clone(&self.network), seed);
        seats[node].dir = TempDir::new()?;
        Ok(())
    }

    pub(super) fn fail_disk(&self, node: usize, failing: Option<Failing>) {
        self.seats.lock()[node].disk.fail(failing);
    }

    /// All nodes hear who lives.
    pub(super) fn gossip(&self) {
        let all = self.all_running();
        let ids: Vec<_> = all.iter().map(|it| it.registry.identity().node).collect();
        for one in &all {
            one.registry.living(ids.iter().copied());
        }
    }

    /// Why not all is whole: every node runs, knows the same book and can have names registered.
    pub(super) fn why_not_whole(&self) -> Option<String> {
        let mut first = None;
        for node in 0..self.count() {
            let Some(running) = self.running(node) else {
                return Some(format!("node-{node} does not run"));
            };
            let status = running.registry.status();
            if let Some(failure) = status.failure {
                return Some(format!("node-{node}: {failure}"));
            }
            let votes = status.voters.iter().filter(|voter| voter.votes).count();
            let keeps = node < self.voters();
            let me = running.registry.identity().node;
            let knows_itself = status.voters.iter().any(|voter| voter.node == me && voter.votes);
            if !status.available || keeps && (votes != self.voters() || !knows_itself) {
                let waiting = status.waiting.map(|it| it.reason).unwrap_or_default();
                let role = status.role;
                return Some(format!("node-{node}, {role:?}, sees {votes} voters {waiting}"));
            }
            if *first.get_or_insert(status.applied) != status.applied {
                let all = self.all_running().into_iter().map(|it| it.registry.status());
                let all: Vec<_> = all.map(|it| (it.role, it.applied, it.term)).collect();
                return Some(format!("the nodes are not at the same entry: {all:?}"));
            }
        }
        None
    }
}
