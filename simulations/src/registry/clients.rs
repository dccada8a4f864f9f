//! Those who use the registry: clients that want the same few names, on any node, or one that nobody
//! else wants; and an administrator.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use cluster::{
    AgentId,
    registry::{AdminError, Administration, Claim, RegisterError, Registry, Revocation},
    token::Grant,
};
use parking_lot::Mutex;
use rand::{Rng, SeedableRng, rngs::SmallRng};
use tokio::time::sleep;

use super::{
    history::{Call, History, Outcome, Probe, What},
    network::POLL,
    nodes::{Nodes, Running},
};

/// How many names are wanted at a time, and how often one is asked for.
const WANTED: usize = 4;
const CALLS_PER_NAME: usize = 10;

/// How often somebody does not wait for the answer: more often where nobody else will take the name, so
/// that it would be seen if it stayed taken.
const GIVEN_UP: f64 = 0.15;
const OWN_GIVEN_UP: f64 = 0.5;

/// What whoever comes again is told in place of the token that an administrator has replaced meanwhile.
const REPLACED: &str = "its token was replaced";

/// Every node is to know of a revocation after so long.
const KNOWN_WITHIN: Duration = Duration::from_secs(1);

/// All that clients share.
pub(super) struct Clients {
    pub(super) nodes: Arc<Nodes>,
    pub(super) history: Arc<Mutex<History>>,
    /// Claims that calls have numbers of.
    claims: Mutex<Vec<Claim>>,
    pool: Mutex<Pool>,
}

/// The names that are wanted, which are others after some calls.
#[derive(Default)]
struct Pool {
    first: usize,
    calls: BTreeMap<usize, usize>,
    /// Names that only one client wants.
    own: usize,
}

impl Pool {
    fn pick(&mut self, rng: &mut SmallRng) -> AgentId {
        let number = self.first + rng.random_range(0..WANTED);
        let calls = self.calls.entry(number).or_default();
        *calls += 1;
        if *calls > CALLS_PER_NAME {
            self.first += 1;
        }
        let number = if *calls > CALLS_PER_NAME { self.first + WANTED - 1 } else { number };
        name("name", number)
    }

    /// A name that nobody else wants.
    fn own(&mut self) -> AgentId {
        self.own += 1;
        name("own", self.own)
    }
}

#[allow(clippy::missing_panics_doc)] // a number always makes a name
fn name(kind: &str, number: usize) -> AgentId {
    format!("{kind}-{number}").parse().expect("it is a name")
}

impl Clients {
    pub(super) fn new(nodes: Arc<Nodes>, history: Arc<Mutex<History>>) -> Arc<Self> {
        let (claims, pool) = (Mutex::default(), Mutex::default());
        Arc::new(Self { nodes, history, claims, pool })
    }

    /// What one client does, for as long as it is polled.
    pub(super) async fn run(self: Arc<Self>, seed: u64) {
        let mut rng = SmallRng::seed_from_u64(seed);
        loop {
            sleep(Duration::from_millis(rng.random_range(5..160))).await;
            let Some(running) = self.any_node(&mut rng) else { continue };
            let does = rng.random_range(0..100);
            if does < 12 {
                let agent = self.pool.lock().own();
                self.register_once(&running, agent, OWN_GIVEN_UP, &mut rng).await;
                continue;
            }
            let agent = self.pool.lock().pick(&mut rng);
            match does {
                ..55 => self.register_once(&running, agent, GIVEN_UP, &mut rng).await,
                55..80 => self.register_again_and_again(agent, &mut rng).await,
                80..92 => drop(self.read(&running, agent).await),
                _ => drop(self.reissue(&running, agent).await),
            }
        }
    }

    /// What the administrator does, for as long as it is polled.
    pub(super) async fn administer(self: Arc<Self>, seed: u64) {
        let mut rng = SmallRng::seed_from_u64(seed);
        loop {
            sleep(Duration::from_millis(rng.random_range(100..700))).await;
            let Some(running) = self.any_node(&mut rng) else { continue };
            let Some((call, agent)) = self.any_token(&mut rng) else { continue };
            match rng.random_range(0..10) {
                0..4 => self.revoke(&running, What::RevokeToken(agent, call)).await,
                4..7 => self.revoke(&running, What::RevokeAgent(agent)).await,
                _ => {
                    self.revoke(&running, What::Ban(agent.clone())).await;
                    sleep(Duration::from_millis(rng.random_range(1..1_500))).await;
                    let Some(running) = self.any_node(&mut rng) else { continue };
                    self.act(&running, What::Unban(agent)).await;
                }
            }
        }
    }

    /// Revokes so, and looks a second later at what nodes know of it.
    pub(super) async fn revoke(self: &Arc<Self>, running: &Running, what: What) {
        let call = self.act(running, what.clone()).await;
        if self.history.lock().calls[call].is_certain() && !matches!(what, What::Ban(_)) {
            sleep(KNOWN_WITHIN).await;
            self.probe(call, false);
        }
    }

    /// Notes which nodes refuse what a call has revoked.
    pub(super) fn probe(&self, revoked_by: usize, scripted: bool) {
        let at = self.nodes.elapsed();
        let history = &mut *self.history.lock();
        let revoked = &history.calls[revoked_by];
        let grants: Vec<Grant> = history
            .calls
            .iter()
            .filter(|call| revokes(revoked, call, &history.calls))
            .filter_map(|call| call.grant().cloned())
            .collect();
        for running in self.nodes.all_running() {
            let refused = grants.iter().all(|grant| running.registry.is_revoked(grant));
            let node = running.node;
            history.probes.push(Probe { revoked_by, node, at, scripted, refused });
        }
    }

    /// Those who come again for what became of their attempts do so, until they know.
    pub(super) async fn come_again(&self, seed: u64) {
        let mut rng = SmallRng::seed_from_u64(seed);
        let mut open: BTreeMap<usize, AgentId> = BTreeMap::new();
        for call in &self.history.lock().calls {
            if let What::Register { agent, claim, repeatable: true } = &call.what {
                open.insert(*claim, agent.clone());
            }
        }
        for call in &self.history.lock().calls {
            if let What::Register { claim, .. } = &call.what
                && call.is_certain()
            {
                open.remove(claim);
            }
        }
        for (claim, agent) in open {
            let mut tries = 0..5;
            while tries.next().is_some() {
                let Some(running) = self.any_node(&mut rng) else { break };
                let call = self.register(&running, agent.clone(), claim).await;
                if self.history.lock().calls[call].is_certain() {
                    break;
                }
            }
        }
    }

    /// Some node that runs.
    pub(super) fn any_node(&self, rng: &mut SmallRng) -> Option<Running> {
        let running = self.nodes.all_running();
        if running.is_empty() {
            return None;
        }
        Some(running[rng.random_range(0..running.len())].clone())
    }

    /// Some token that could be read: the call that it came of, and its agent.
    pub(super) fn any_token(&self, rng: &mut SmallRng) -> Option<(usize, AgentId)> {
        let history = self.history.lock();
        let tokens = history.calls.iter().enumerate().filter(|(_, call)| call.grant().is_some());
        let tokens: Vec<_> = tokens.map(|(n, call)| (n, call.what.agent().clone())).collect();
        if tokens.is_empty() {
            return None;
        }
        Some(tokens[rng.random_range(0..tokens.len())].clone())
    }

    /// Registers, and goes away before it is answered so often.
    async fn register_once(
        &self,
        running: &Running,
        agent: AgentId,
        given_up: f64,
        rng: &mut SmallRng,
    ) {
        let claim = self.claim(Claim::random());
        if !rng.random_bool(given_up) {
            self.register(running, agent, claim).await;
            return;
        }
        let patience = Duration::from_millis(rng.random_range(1..400));
        let call = {
            let what = What::Register { agent: agent.clone(), claim, repeatable: false };
            self.begin(running, what)
        };
        let key = self.claims.lock()[claim];
        tokio::select! {
            biased;
            outcome = self.answer(running, running.registry.register(Some(agent), key)) => {
                let outcome = self.registered(running, outcome);
                self.end(call, outcome);
            }
            () = sleep(patience) => self.end(call, Outcome::GaveUp),
        }
    }

    async fn register_again_and_again(&self, agent: AgentId, rng: &mut SmallRng) {
        let claim =
            self.claim(Claim::repeatable(&format!("{:032x}", rng.random::<u128>()), Some(&agent)));
        for _ in 0..3 {
            let Some(running) = self.any_node(rng) else { return };
            let call = self.register(&running, agent.clone(), claim).await;
            if self.history.lock().calls[call].is_certain() && rng.random_bool(0.9) {
                return;
            }
            sleep(Duration::from_millis(rng.random_range(10..500))).await;
        }
    }

    fn claim(&self, claim: Claim) -> usize {
        let mut claims = self.claims.lock();
        claims.push(claim);
        claims.len() - 1
    }

    /// Registers a name that nobody else wants.
    pub(super) async fn register_own(&self, running: &Running) -> usize {
        let agent = self.pool.lock().own();
        self.register(running, agent, self.claim(Claim::random())).await
    }

    /// Registers by a claim that has a number.
    async fn register(&self, running: &Running, agent: AgentId, claim: usize) -> usize {
        let key = self.claims.lock()[claim];
        let what = What::Register { agent: agent.clone(), claim, repeatable: key.is_repeatable() };
        let call = self.begin(running, what);
        let outcome = self.answer(running, running.registry.register(Some(agent), key)).await;
        let outcome = self.registered(running, outcome);
        self.end(call, outcome);
        call
    }

    fn registered(
        &self,
        running: &Running,
        answer: Option<Result<cluster::registry::Registration, RegisterError>>,
    ) -> Outcome {
        match answer {
            Some(Ok(registration)) => self.granted(running, registration.token),
            Some(Err(RegisterError::Taken)) => Outcome::Taken,
            Some(Err(RegisterError::Unavailable(why))) if why.contains(REPLACED) => {
                Outcome::Replaced
            }
            Some(Err(error)) => Outcome::Unavailable(error.to_string()),
            None => Outcome::Died,
        }
    }

    fn granted(&self, running: &Running, token: String) -> Outcome {
        let read = |it: &Running| it.registry.verify(&token, self.nodes.wall(it.node)).ok();
        let grant = read(running).or_else(|| self.nodes.all_running().iter().find_map(read));
        Outcome::Granted(token, grant)
    }

    /// Asks what is known of an agent.
    pub(super) async fn read(&self, running: &Running, agent: AgentId) -> usize {
        let call = self.begin(running, What::Read(agent.clone()));
        let outcome = match self.answer(running, running.registry.agent(&agent)).await {
            Some(Ok(record)) => Outcome::Read(record),
            Some(Err(error)) => Outcome::Unavailable(error.to_string()),
            None => Outcome::Died,
        };
        self.end(call, outcome);
        call
    }

    async fn reissue(&self, running: &Running, agent: AgentId) -> usize {
        let call = self.begin(running, What::Reissue(agent.clone()));
        let outcome = match self.answer(running, running.registry.reissue(&agent)).await {
            Some(Ok(registration)) => self.granted(running, registration.token),
            Some(Err(error)) => refused(&error),
            None => Outcome::Died,
        };
        self.end(call, outcome);
        call
    }

    /// Does something that an administrator does.
    pub(super) async fn act(&self, running: &Running, what: What) -> usize {
        let revocation = match &what {
            What::RevokeAgent(agent) => Some(Revocation::Agent(agent.clone())),
            What::RevokeToken(_, call) => self.history.lock().calls[*call]
                .grant()
                .map(|grant| Revocation::Token(grant.serial())),
            _ => None,
        };
        let call = self.begin(running, what.clone());
        let registry = &running.registry;
        let act = async {
            match (what, revocation) {
                (_, Some(revocation)) => registry.revoke(revocation).await,
                (What::Ban(agent), None) => registry.ban(&agent).await,
                (What::Unban(agent), None) => registry.unban(&agent).await,
                (other, None) => Err(AdminError::Refused(format!("{other:?} is no such act"))),
            }
        };
        let outcome = match self.answer(running, act).await {
            Some(Ok(())) => Outcome::Done,
            Some(Err(error)) => refused(&error),
            None => Outcome::Died,
        };
        self.end(call, outcome);
        call
    }

    /// What a node answers; none if it dies before. A node that hangs neither hears nor answers.
    async fn answer<T>(&self, running: &Running, answer: impl Future<Output = T>) -> Option<T> {
        let hangs = async || {
            while self.nodes.network.hangs(running.node) {
                sleep(POLL).await;
            }
        };
        let answered = async {
            hangs().await;
            let answer = answer.await;
            hangs().await;
            answer
        };
        tokio::select! {
            biased;
            () = running.died.cancelled() => None,
            answer = answered => Some(answer),
        }
    }

    fn begin(&self, running: &Running, what: What) -> usize {
        let at = self.nodes.elapsed();
        let history = &mut *self.history.lock();
        let number = history.calls.len();
        let line = format!("#{number} to node-{}: {what:?}", running.node);
        history.lines.push((at, Some(what.agent().clone()), line));
        let node = running.node;
        history.calls.push(Call { node, at, what, done: None, outcome: Outcome::Waiting });
        number
    }

    fn end(&self, number: usize, outcome: Outcome) {
        let at = self.nodes.elapsed();
        let history = &mut *self.history.lock();
        let said = match &outcome {
            Outcome::Granted(_, grant) => {
                format!("granted, serial {:?}", grant.as_ref().map(|grant| grant.serial().0))
            }
            other => format!("{other:?}"),
        };
        let call = &mut history.calls[number];
        (call.done, call.outcome) = (Some(at), outcome);
        let line = format!("#{number} from node-{}: {said}", call.node);
        history.lines.push((at, Some(call.what.agent().clone()), line));
    }
}

/// Whether a call that revokes something has revoked for certain what came of another.
pub(super) fn revokes(revoked: &Call, granted: &Call, all: &[Call]) -> bool {
    let before = granted.done.is_some_and(|done| done < revoked.at);
    match &revoked.what {
        What::RevokeAgent(agent) => granted.what.agent() == agent && before,
        What::RevokeToken(_, of) => {
            let serial = |call: &Call| call.grant().map(Grant::serial);
            serial(granted).is_some() && all.get(*of).and_then(serial) == serial(granted)
        }
        _ => false,
    }
}

fn refused(error: &AdminError) -> Outcome {
    match error {
        AdminError::UnknownAgent => Outcome::UnknownAgent,
        AdminError::Banned => Outcome::Banned,
        other => Outcome::Unavailable(other.to_string()),
    }
}
