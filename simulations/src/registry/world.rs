//! A run: a cluster is founded, used while things go wrong, left to heal, and looked at.

use std::{future::pending, sync::Arc, time::Duration};

use aws_lc_rs::digest::{Context, SHA256};
use cluster::{
    registry::{Administration, Registry},
    token::TokenError,
};
use futures_util::StreamExt;
use parking_lot::Mutex;
use rand::{Rng, SeedableRng, rngs::SmallRng, seq::SliceRandom};
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};

use super::{
    Options,
    clients::Clients,
    faults::{Fault, FaultKind},
    history::{Disturbance, History, Outcome, TokenSeen, What},
    network::POLL,
    nodes::{Nodes, Running},
};

/// How long a cluster may take to be founded, and to be whole again.
const FOUNDED_WITHIN: Duration = Duration::from_secs(20);
const HEALED_WITHIN: Duration = Duration::from_secs(20);

/// Who has stood for election before all was whole is noticed by the leader so soon.
const CALM: Duration = Duration::from_secs(1);

/// How long names may take to be given back when all is whole.
const SETTLED_WITHIN: Duration = Duration::from_millis(2_500);

/// A leader that most voters are out of reach of is replaced so soon: it decides nothing after one and a half
/// seconds and is quiet after two and a half, another is wanted a second later, and is elected at the second
/// try at the latest.
const REPLACED_WITHIN: Duration = Duration::from_millis(6_500);

/// Links that may be made are made so soon.
const LINKED_WITHIN: Duration = Duration::from_millis(310);

/// Between two registrations that show whether those who come back disturb anybody.
const PAUSE: Duration = Duration::from_millis(50);

/// Clients at a time.
const CLIENTS: usize = 6;

/// A run under way.
pub(super) struct World {
    pub(super) nodes: Arc<Nodes>,
    clients: Arc<Clients>,
    pub(super) history: Arc<Mutex<History>>,
    /// What goes wrong, counted from when the registry is founded.
    pub(super) plan: Vec<Fault>,
    pub(super) faulty_for: Duration,
    pub(super) rng: SmallRng,
}

impl World {
    /// # Errors
    /// The system has no room for the nodes' files.
    pub(super) fn new(seed: u64, options: &Options) -> std::io::Result<Self> {
        let mut rng = SmallRng::seed_from_u64(seed);
        let Options { voters, observers, faults, faulty_for, snapshot_every } = options;
        let skewed = faults.0.contains(&FaultKind::Skew);
        let nodes = Nodes::new(&mut rng, *voters, *observers, skewed, *snapshot_every)?;
        let plan = faults.plan(&mut rng, voters + observers, *voters, *faulty_for);
        let history = Arc::new(Mutex::new(History { voters: *voters, ..History::default() }));
        let clients = Clients::new(Arc::clone(&nodes), Arc::clone(&history));
        Ok(Self { nodes, clients, history, plan, faulty_for: *faulty_for, rng })
    }

    /// All of it; what was seen, and how many messages went over the network.
    pub(super) async fn run(mut self) -> (History, u64) {
        let nodes = Arc::clone(&self.nodes);
        let background = async {
            tokio::join!(nodes.network.tend(nodes.count()), gossip(&nodes));
        };
        tokio::select! {
            () = self.play() => {}
            () = background => {}
        }
        for node in 0..self.nodes.count() {
            self.nodes.crash(node);
        }
        let carried = self.nodes.network.carried();
        let mut history = std::mem::take(&mut *self.history.lock());
        history.ended = self.nodes.elapsed();
        (history, carried)
    }

    async fn play(&mut self) {
        for node in 0..self.nodes.count() {
            sleep(Duration::from_millis(self.rng.random_range(0..200))).await;
            self.start(node);
        }
        if let Some(why) = self.is_whole_within(FOUNDED_WITHIN).await {
            self.history.lock().unhealed = format!("no registry was founded: {why}");
            return;
        }
        self.say("the registry is founded");
        let mut users = JoinSet::new();
        for _ in 0..CLIENTS {
            users.spawn(Arc::clone(&self.clients).run(self.rng.random()));
        }
        users.spawn(Arc::clone(&self.clients).administer(self.rng.random()));
        self.go_wrong().await;
        self.heal().await;
        let mut unhealed = self.is_whole_within(HEALED_WITHIN).await;
        if unhealed.is_none() {
            sleep(CALM).await;
            unhealed = self.is_whole_within(HEALED_WITHIN).await;
        }
        if let Some(why) = unhealed {
            self.history.lock().unhealed = why;
            self.finish_calls();
            return;
        }
        self.say("all is whole again");
        self.part_once(&mut users).await;
        if self.nodes.voters() == 5 {
            self.strand_leader().await;
        }
        self.settle().await;
        self.look().await;
    }

    async fn is_whole_within(&self, patience: Duration) -> Option<String> {
        let whole = async {
            while self.nodes.why_not_whole().is_some() {
                sleep(POLL).await;
            }
        };
        let why = || self.nodes.why_not_whole().unwrap_or_else(|| "it took too long".into());
        timeout(patience, whole).await.is_err().then(why)
    }

    /// An observer and less than half of the voters are cut off while tokens are revoked; a second
    /// after their links are whole again they know it, and nobody was disturbed.
    async fn part_once(&mut self, users: &mut JoinSet<()>) {
        let (voters, count) = (self.nodes.voters(), self.nodes.count());
        let first = self.rng.random_range(0..voters);
        let mut lone: Vec<usize> = (0..voters / 2).map(|n| (first + n) % voters).collect();
        lone.push(count - 1);
        let ways = |a: usize| (0..count).flat_map(move |b| [(a, b), (b, a)]);
        let apart: Vec<_> = lone
            .iter()
            .flat_map(|a| ways(*a))
            .filter(|(a, b)| lone.contains(a) != lone.contains(b))
            .collect();
        self.say(&format!("cut off: {lone:?}"));
        let from = self.nodes.elapsed();
        self.nodes.network.set_blocked(&apart, true);
        let lasts = Duration::from_millis(self.rng.random_range(2_500..9_000));
        let mut revoked = Vec::new();
        while self.nodes.elapsed() < from + lasts {
            sleep(Duration::from_millis(self.rng.random_range(200..900))).await;
            let others: Vec<_> = (0..count).filter(|it| !lone.contains(it)).collect();
            let asked = others[self.rng.random_range(0..others.len())];
            let token = self.clients.any_token(&mut self.rng);
            if let (Some(running), Some((_, agent))) = (self.nodes.running(asked), token) {
                let call = self.clients.act(&running, What::RevokeAgent(agent)).await;
                revoked.push(call);
            }
        }
        users.shutdown().await;
        self.finish_calls();
        let stayed =
            (0..voters).find(|it| !lone.contains(it)).and_then(|it| self.nodes.running(it));
        if let Some(stayed) = &stayed {
            let call = self.clients.register_own(stayed).await;
            self.history.lock().around_return.push(call);
        }
        self.nodes.network.set_blocked(&apart, false);
        let until = self.nodes.elapsed();
        self.history.lock().disturbances.push(Disturbance {
            from,
            until,
            nodes: Vec::new(),
            stopped: false,
            ways: apart,
        });
        self.say("all links are whole again");
        tokio::select! {
            () = self.register_often(stayed) => {}
            () = sleep(LINKED_WITHIN + Duration::from_secs(1)) => {}
        }
        self.finish_calls();
        for call in revoked {
            if self.history.lock().calls[call].is_certain() {
                self.clients.probe(call, true);
            }
        }
    }

    /// One of five voters is cut off, and the leader from all voters but one: the three that are in reach of
    /// each other are a majority, with the vote of the one that hears the leader.
    async fn strand_leader(&mut self) {
        if self.is_whole_within(HEALED_WITHIN).await.is_some() {
            return; // as is said in the end
        }
        let Some(leader) = self.nodes.leader() else { return };
        let mut others: Vec<usize> = (0..self.nodes.voters()).filter(|it| *it != leader).collect();
        others.shuffle(&mut self.rng);
        let [lone, hears, asked, ..] = others[..] else { return };
        let count = self.nodes.count();
        let from_leader =
            (0..count).filter(|it| ![leader, hears].contains(it)).map(|it| (leader, it));
        let from_lone = (0..count).filter(|it| *it != lone).map(|it| (lone, it));
        let both_ways = |(a, b)| [(a, b), (b, a)];
        let ways: Vec<_> = from_leader.chain(from_lone).flat_map(both_ways).collect();
        self.say(&format!(
            "stranded: node-{leader}, which leads node-{hears}; node-{lone} is alone"
        ));
        let from = self.nodes.elapsed();
        self.nodes.network.set_blocked(&ways, true);
        sleep(REPLACED_WITHIN).await;
        if let Some(running) = self.nodes.running(asked) {
            let call = self.clients.register_own(&running).await;
            self.history.lock().after_stranding = Some(call);
        }
        self.nodes.network.set_blocked(&ways, false);
        let (until, nodes, stopped) = (self.nodes.elapsed(), Vec::new(), false);
        self.history.lock().disturbances.push(Disturbance { from, until, nodes, stopped, ways });
        self.say("the leader is in reach again");
    }

    /// Registers one name after the other on a node, without end.
    async fn register_often(&self, running: Option<Running>) {
        let Some(running) = running else { return pending().await };
        loop {
            let next = self.history.lock().calls.len(); // for nobody else asks for anything now
            self.history.lock().around_return.push(next);
            self.clients.register_own(&running).await;
            sleep(PAUSE).await;
        }
    }

    /// Whoever waited does so no longer.
    fn finish_calls(&self) {
        let now = self.nodes.elapsed();
        for call in &mut self.history.lock().calls {
            if matches!(call.outcome, Outcome::Waiting) {
                (call.done, call.outcome) = (Some(now), Outcome::GaveUp);
            }
        }
    }

    /// Until every name is somebody's, or nobody's, and all voters know.
    async fn settle(&mut self) {
        self.clients.come_again(self.rng.random()).await;
        sleep(SETTLED_WITHIN).await;
        let mut why = self.is_whole_within(HEALED_WITHIN).await;
        if why.is_none()
            && let Some(running) = self.clients.any_node(&mut self.rng)
        {
            let call = self.clients.register_own(&running).await;
            let granted = self.history.lock().calls[call].is_granted();
            why = (!granted).then(|| format!("all seems whole, and call #{call} got no name"));
        }
        match why {
            None => self.history.lock().healed = Some(self.nodes.elapsed()),
            Some(why) => self.history.lock().unhealed = why,
        }
    }

    /// Looks at everything, from everywhere.
    async fn look(&mut self) {
        let agents = self.history.lock().agents();
        for agent in agents {
            let Some(running) = self.clients.any_node(&mut self.rng) else { continue };
            self.clients.read(&running, agent).await;
        }
        let mut after = None;
        while let Some(running) = self.nodes.running(0) {
            let Ok(page) = running.registry.agents(after.take(), 1_000).await else { break };
            after = page.agents.last().map(|(agent, _)| agent.clone()).filter(|_| page.more);
            self.history.lock().names.extend(page.agents);
            if after.is_none() {
                break;
            }
        }
        for node in 0..self.nodes.voters() {
            if let Some(book) = self.book(node).await {
                self.history.lock().books.push((node, book));
            }
        }
        self.look_at_tokens();
    }

    /// Every token is read by one node, which is slow, and looked up by all others.
    fn look_at_tokens(&self) {
        let history = &mut *self.history.lock();
        let nodes = self.nodes.all_running();
        for (call, asked) in history.calls.iter().enumerate() {
            let Outcome::Granted(token, grant) = &asked.outcome else { continue };
            for running in &nodes {
                let reads = grant.is_none() || call % nodes.len() == running.node;
                let good = match grant {
                    Some(grant) if !reads => {
                        let refused = running.registry.is_revoked(grant);
                        if refused { Err(TokenError::Revoked) } else { Ok(()) }
                    }
                    _ => running.registry.verify(token, self.nodes.wall(running.node)).map(drop),
                };
                let good = good.map_err(|error| error.to_string());
                history.tokens.push(TokenSeen { call, node: running.node, good });
            }
        }
    }

    /// A digest of all that a voter has.
    async fn book(&self, node: usize) -> Option<String> {
        let running = self.nodes.running(node)?;
        let mut chunks = running.registry.export().await.ok()?;
        let (mut hash, mut bytes) = (Context::new(&SHA256), 0);
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk.ok()?;
            bytes += chunk.len();
            hash.update(&chunk);
        }
        let hash = hash.finish();
        let first = hash.as_ref().first_chunk().copied().map_or(0, u32::from_be_bytes);
        Some(format!("{bytes} bytes {first:08x}"))
    }

    pub(super) fn say(&self, text: &str) {
        self.history.lock().lines.push((self.nodes.elapsed(), None, text.to_owned()));
    }
}

/// Nodes hear twice a second who lives.
async fn gossip(nodes: &Nodes) {
    loop {
        nodes.gossip();
        sleep(Duration::from_millis(500)).await;
    }
}
