//! Carries out one plan: connects all agents, has them send, waits for the last message, and gathers
//! what was seen.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use hyper::header::HeaderValue;
use tokio::{
    sync::Semaphore,
    task::{JoinSet, spawn_blocking},
};
use tokio_util::sync::CancellationToken;

use super::{
    args::{Pace, Place, Plan, Scenario},
    board::{Board, Flow, Round, nanos},
    checker::Faults,
    cost::{self, OwnCost, RelayCost},
    flaw::Flaw,
    member::{Role, Seen, take_part},
    progress,
    schedule::{Pacing, Schedule},
    statistics::Times,
};
use crate::{
    agent::{
        connect::Connector,
        failure::Failure,
        output::Output,
        session::{Dialer, SILENCE_MAX},
    },
    clock::Clock,
};

/// From the start's being set to the first message: time for all to hear of it.
const LEAD: Duration = Duration::from_millis(20);
/// How often it is looked at how far all are.
const TICK: Duration = Duration::from_millis(50);
/// Without any delivery for so long, what is missing is lost.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long to wait for second copies after the last message.
const AFTERMATH: Duration = Duration::from_millis(300);

/// All that is the same for each plan.
pub(super) struct Bench<'a> {
    /// Where agents connect.
    pub(super) places: &'a [Place],
    /// Where nodes tell what they cost.
    pub(super) ops: &'a [Connector],
    /// Names of the agents, and what they show to the relay.
    pub(super) agents: Vec<(String, HeaderValue)>,
    /// How long the relay may take to answer.
    pub(super) limit: Duration,
    /// The clock that all times are read from.
    pub(super) clock: &'a Clock,
}

/// What was measured.
pub(super) struct Measured {
    /// The final state.
    pub(super) board: Arc<Board>,
    /// From the first connection's beginning to the last one's welcome.
    pub(super) connecting: Duration,
    /// What was wrong with the delivery.
    pub(super) faults: Faults,
    /// Messages heard that were none of this run.
    pub(super) foreign: u64,
    /// Before anybody was connected.
    pub(super) before: Sample,
    /// When all were, and it began to count.
    pub(super) begin: Sample,
    /// When it no longer counted.
    pub(super) end: Sample,
}

/// Costs at one moment.
#[derive(Clone, Copy)]
pub(super) struct Sample {
    /// When.
    pub(super) at: Duration,
    /// Deliveries up to then.
    pub(super) delivered: u64,
    /// Of the relay, if it can be seen.
    pub(super) relay: Option<RelayCost>,
    /// Of this program.
    pub(super) client: Option<OwnCost>,
}

/// A plan under way.
struct Drive<'a> {
    bench: &'a Bench<'a>,
    plan: &'a Plan,
    board: Arc<Board>,
    members: JoinSet<Result<Seen, Failure>>,
    progress: progress::Progress<'a>,
}

impl Bench<'_> {
    /// Carries out the plan.
    pub(super) async fn carry_out(
        &self,
        plan: &Plan,
        output: &mut Output,
    ) -> Result<Measured, Failure> {
        let board = Arc::new(self.board(plan));
        // However this ends, what was started for it ends, too.
        let _end = board.stop.clone().drop_guard();
        let progress = progress::Progress::new(plan, output);
        let mut drive = Drive { bench: self, plan, board, members: JoinSet::new(), progress };
        let before = drive.sample().await?;
        drive.connect().await?;
        let connecting = self.clock.elapsed().saturating_sub(before.at);
        let (begin, end) = match plan.scenario {
            Scenario::Connect => drive.hold().await?,
            _ => drive.load().await?,
        };
        let Seen { faults, foreign } = drive.gather().await?;
        Ok(Measured { board: drive.board, connecting, faults, foreign, before, begin, end })
    }

    fn board(&self, plan: &Plan) -> Board {
        let recipients = if plan.scenario.is_paired() { 1 } else { plan.agents - 1 };
        let flow = |sender: usize| {
            let name = self.agents.get(sending_agent(plan, sender)).map(|(name, _)| name.clone());
            Flow::new(name.unwrap_or_default(), recipients)
        };
        Board {
            clock: self.clock.clone(),
            run: rand::random(),
            size: plan.size,
            flows: (0..plan.senders).map(flow).collect(),
            doors: Semaphore::new(plan.concurrency),
            connected: AtomicUsize::new(0),
            handshakes: Times::new(),
            latencies: Times::new(),
            lags: Times::new(),
            delivered: AtomicU64::new(0),
            delivered_measured: AtomicU64::new(0),
            round: OnceLock::new(),
            stop: CancellationToken::new(),
        }
    }

    fn dialer(&self, place: usize, authorization: &HeaderValue) -> Option<Dialer> {
        let Place { relay, connector } = self.places.get(place % self.places.len().max(1))?;
        Some(Dialer {
            relay: relay.clone(),
            connector: connector.clone(),
            authorization: authorization.clone(),
            limit: self.limit,
            silence: SILENCE_MAX,
        })
    }
}

impl Drive<'_> {
    async fn connect(&mut self) -> Result<(), Failure> {
        let Bench { agents, .. } = self.bench;
        for (index, (_, authorization)) in agents.iter().enumerate().take(self.plan.agents) {
            let role = role(self.plan, index, |agent| {
                agents.get(agent).map(|(name, _)| name.clone()).unwrap_or_default()
            });
            let place = place(self.plan, index);
            let Some(dialer) = self.bench.dialer(place, authorization) else { continue };
            self.members.spawn(take_part(Arc::clone(&self.board), index, dialer, role));
        }
        // All that are refused are found at once, so that others can take their places.
        let mut refused: Option<(BTreeSet<usize>, Box<Failure>)> = None;
        let count =
            |refused: &Option<(BTreeSet<usize>, _)>| refused.as_ref().map_or(0, |it| it.0.len());
        while self.board.connected.load(Ordering::Acquire) + count(&refused) < self.plan.agents {
            match self.tick().await {
                Err(Failure::Bench(Flaw::Refused { agents, why })) => {
                    refused.get_or_insert((BTreeSet::new(), why)).0.extend(agents);
                }
                ended => ended?,
            }
        }
        refused.map_or(Ok(()), |(agents, why)| Err(Flaw::Refused { agents, why }.into()))
    }

    /// Lets the connections stand.
    async fn hold(&mut self) -> Result<(Sample, Sample), Failure> {
        let begin = self.sample().await?;
        self.wait_until(begin.at + self.plan.measured).await?;
        Ok((begin, self.sample().await?))
    }

    /// Has all senders send, and waits for what they sent.
    async fn load(&mut self) -> Result<(Sample, Sample), Failure> {
        let start = self.bench.clock.elapsed() + LEAD;
        let from = start + self.plan.warm_up;
        let to = from + self.plan.measured;
        let pacing = match self.plan.pace {
            Pace::Window(window) => Pacing::Window(window),
            Pace::Rate(rate) => Pacing::Fixed(Schedule::new(nanos(start), self.plan.senders, rate)),
        };
        let round = Round { pacing, measured_ns: nanos(from)..nanos(to) };
        let pacer = match pacing {
            Pacing::Fixed(schedule) => {
                let board = Arc::clone(&self.board);
                let end_ns = nanos(to);
                Some(spawn_blocking(move || pace(&board, &schedule, end_ns)))
            }
            Pacing::Window(_) => None,
        };
        // Nobody else sets it.
        let _ = self.board.round.set(round);
        self.board.wake_all();
        self.wait_until(from).await?;
        let begin = self.sample().await?;
        self.wait_until(to).await?;
        let end = self.sample().await?;
        if let Some(pacer) = pacer {
            pacer.await.map_err(Flaw::from)?;
        }
        self.settle().await?;
        Ok((begin, end))
    }

    /// Waits until all is delivered, or nothing comes any more.
    async fn settle(&mut self) -> Result<(), Failure> {
        let (mut delivered, mut since) = (0, self.bench.clock.elapsed());
        loop {
            let now = self.bench.clock.elapsed();
            let (_, expected) = self.board.sent();
            let so_far = self.board.delivered.load(Ordering::Acquire);
            if so_far >= expected {
                break;
            }
            if so_far > delivered {
                (delivered, since) = (so_far, now);
            } else if now.saturating_sub(since) > PATIENCE {
                break;
            }
            self.tick().await?;
        }
        self.wait_until(self.bench.clock.elapsed() + AFTERMATH).await
    }

    /// Ends all sessions and adds up what they saw.
    async fn gather(&mut self) -> Result<Seen, Failure> {
        self.board.stop.cancel();
        let mut all = Seen::default();
        while let Some(ended) = self.members.join_next().await {
            let seen = ended.map_err(Flaw::from)??;
            all.faults.add(&seen.faults);
            all.foreign += seen.foreign;
        }
        Ok(all)
    }

    async fn sample(&mut self) -> Result<Sample, Failure> {
        let relay = cost::of_relay(self.bench.ops, self.bench.limit).await?;
        Ok(Sample {
            at: self.bench.clock.elapsed(),
            delivered: self.board.delivered.load(Ordering::Acquire),
            relay,
            client: cost::of_client(),
        })
    }

    async fn wait_until(&mut self, moment: Duration) -> Result<(), Failure> {
        while self.bench.clock.elapsed() < moment {
            self.tick().await?;
        }
        Ok(())
    }

    /// A moment in which an agent may fail, and the user sees how it goes.
    async fn tick(&mut self) -> Result<(), Failure> {
        self.progress.show(&self.board, self.bench.clock.elapsed()).await;
        match tokio::time::timeout(TICK, self.members.join_next()).await {
            // None ends well before it is told to stop.
            Ok(Some(ended)) => ended.map_err(Flaw::from)?.map(|_| ()),
            Ok(None) | Err(_) => Ok(()),
        }
    }
}

/// Wakes each sender when it is its turn. A thread of its own, for the runtime's timers are only
/// good to a millisecond, which is longer than many a message takes.
#[allow(clippy::disallowed_methods)] // this thread carries nothing else that a sleep could stop
fn pace(board: &Board, schedule: &Schedule, end_ns: u64) {
    let mut turn = 0;
    while !board.stop.is_cancelled() {
        let due = schedule.turn_ns(turn);
        if due >= end_ns {
            return;
        }
        let now = board.now_ns();
        if due > now {
            std::thread::sleep(Duration::from_nanos(due - now).min(TICK));
            continue;
        }
        if let Some(flow) = board.flows.get(schedule.turn_of(turn)) {
            flow.turn.notify_one();
        }
        turn += 1;
    }
}

/// Which agent sends a flow.
fn sending_agent(plan: &Plan, sender: usize) -> usize {
    if plan.scenario.is_paired() { sender * 2 } else { sender }
}

/// Which place an agent connects to: the two of a pair to neighbouring ones.
fn place(plan: &Plan, agent: usize) -> usize {
    if plan.scenario.is_paired() { agent / 2 + agent % 2 } else { agent }
}

fn role(plan: &Plan, agent: usize, name: impl Fn(usize) -> String) -> Role {
    let pair = agent / 2;
    match plan.scenario {
        Scenario::Connect => Role { sends: None, hears: 0..0 },
        Scenario::Direct | Scenario::Latency if agent.is_multiple_of(2) => {
            Role { sends: Some((pair, name(agent + 1))), hears: 0..0 }
        }
        Scenario::Direct | Scenario::Latency => Role { sends: None, hears: pair..pair + 1 },
        Scenario::Broadcast => {
            let sends = (agent < plan.senders).then(|| (agent, "*".to_owned()));
            Role { sends, hears: 0..plan.senders }
        }
    }
}
