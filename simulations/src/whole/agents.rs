//! Simulated agents: programs that connect, send, hop from node to node, leave and come back, and
//! write down all that they send and get.
//!
//! They know of the relay what its clients know: addresses, HTTP, frames, close codes. An agent may
//! have two connections at once, while it hops.

use std::{sync::Arc, time::Duration};

use futures_util::{SinkExt, StreamExt};
use rand::{Rng, SeedableRng, rngs::SmallRng, seq::IndexedRandom};
use serde_json::{Value, json};
use tokio::{
    task::{JoinError, JoinSet},
    time::{sleep, timeout},
};
use tokio_tungstenite::tungstenite::{Message, protocol::CloseFrame};

use super::{
    client::{self, Reads, Refusal, Writes},
    nodes::Nodes,
    seen::Seen,
};
use crate::core::{
    history::{Ending, Recipients},
    message::{agent_id, agent_number},
};

/// Between two things that an agent does, on average.
const PAUSE: Duration = Duration::from_millis(500);

/// Agents that one agent writes to most of the time.
const FRIENDS: usize = 4;

/// How long an agent waits for a node's answer.
const ANSWER_MAX: Duration = Duration::from_secs(3);

/// So long before the probe agents fall silent, that it finds nothing under way.
const SILENCE: Duration = Duration::from_secs(1);

/// The times of a run that agents keep to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    /// From then on they stay where they are.
    pub settle: Duration,
    /// When each writes to all others.
    pub probe: Duration,
}

/// An agent.
pub(super) struct Agent {
    number: usize,
    agents: usize,
    times: Times,
    nodes: Arc<Nodes>,
    seen: Arc<Seen>,
    rng: SmallRng,
    token: String,
    current: Option<Session>,
    older: Option<Session>,
    readers: JoinSet<(usize, End)>,
    /// How long it stays away once it has no session.
    away: Duration,
    has_probed: bool,
}

/// A session as its agent writes to it.
struct Session {
    index: usize,
    writes: Writes,
}

/// How a session ended for its agent.
enum End {
    /// Closed by the node: code and reason.
    Closed(u16, String),
    /// The connection ended without a word.
    Lost,
}

impl Agent {
    pub(super) fn new(
        number: usize,
        agents: usize,
        times: Times,
        nodes: Arc<Nodes>,
        seen: Arc<Seen>,
    ) -> Self {
        Self {
            number,
            agents,
            times,
            nodes,
            seen,
            rng: SmallRng::from_rng(&mut rand::rng()),
            token: String::new(),
            current: None,
            older: None,
            readers: JoinSet::new(),
            away: Duration::ZERO,
            has_probed: false,
        }
    }

    /// Lives until the world ends.
    pub(super) async fn live(mut self) {
        sleep(Duration::from_millis(self.rng.random_range(400..1_500))).await;
        while let Err(refusal) = self.register().await {
            self.note_refusal(&refusal);
            sleep(self.away).await;
        }
        loop {
            let wait = self.pause();
            tokio::select! {
                biased;
                Some(ended) = self.readers.join_next(), if !self.readers.is_empty() => {
                    self.session_ended(ended);
                }
                () = sleep(wait) => self.act().await,
            }
        }
    }

    fn pause(&mut self) -> Duration {
        let now = self.seen.now();
        let wait = match &self.current {
            None => self.away,
            Some(_) => PAUSE.mul_f64(-self.rng.random_range(f64::EPSILON..1.0).ln()),
        };
        match self.times.probe.checked_sub(now) {
            Some(left) if !left.is_zero() => wait.min(left),
            _ => wait.max(PAUSE),
        }
    }

    async fn register(&mut self) -> Result<(), Refusal> {
        let node = self.rng.random_range(0..self.nodes.len());
        let name = agent_id(self.number);
        self.token = timeout(ANSWER_MAX, client::register(node, name.as_str()))
            .await
            .unwrap_or(Err(Refusal::Gone))?;
        Ok(())
    }

    async fn act(&mut self) {
        let now = self.seen.now();
        if now >= self.times.probe {
            if !std::mem::replace(&mut self.has_probed, true) {
                self.probe().await;
            }
            return;
        }
        if self.current.is_none() {
            return self.connect().await;
        }
        if now + SILENCE >= self.times.probe {
            return;
        }
        let may_move = now < self.times.settle;
        match self.rng.random_range(0..100) {
            0..55 => self.send_to_one(1).await,
            55..61 => self.send_to_one(6).await,
            61..68 => self.send_to_several().await,
            68..82 => self.say(Recipients::All).await,
            82..88 if may_move => {
                self.older = self.current.take();
                self.connect().await;
            }
            88..91 if may_move => {
                self.hang_up().await;
                self.away = Duration::from_millis(self.rng.random_range(0..800));
            }
            91..93 if may_move => {
                self.hang_up().await;
                self.away = Duration::from_millis(self.rng.random_range(1_000..5_000));
            }
            _ => {}
        }
    }

    async fn send_to_one(&mut self, times: usize) {
        let to = if self.rng.random_ratio(3, 4) {
            (self.number + 1 + self.rng.random_range(0..FRIENDS)) % self.agents
        } else {
            self.rng.random_range(0..self.agents)
        };
        for _ in 0..times {
            self.say(Recipients::Agents(vec![to])).await;
        }
    }

    async fn send_to_several(&mut self) {
        let all: Vec<usize> = (0..self.agents).collect();
        let count = self.rng.random_range(2..=5);
        let to = all.choose_multiple(&mut self.rng, count).copied().collect();
        self.say(Recipients::Agents(to)).await;
    }

    async fn probe(&mut self) {
        self.seen.probe_begins();
        if self.current.is_none() {
            let what = format!("agent-{} has no session after healing", self.number);
            self.seen.nonsense(what, Some(self.number), None);
        }
        let me = self.number;
        for to in (0..self.agents).filter(|to| *to != me) {
            self.say(Recipients::Agents(vec![to])).await;
        }
        self.say(Recipients::All).await;
    }

    /// Sends a message; now and then on a connection that it is about to give up.
    async fn say(&mut self, to: Recipients) {
        let on_older = self.older.is_some() && self.rng.random_ratio(1, 3);
        let place = if on_older { &mut self.older } else { &mut self.current };
        let Some(session) = place else { return };
        let number = self.seen.sends(session.index, &to);
        let names: Vec<String> = match &to {
            Recipients::All => vec!["*".into()],
            Recipients::Agents(agents) => {
                agents.iter().map(|agent| agent_id(*agent).as_str().to_owned()).collect()
            }
        };
        let text = json!({ "to": names, "payload": { "n": number } }).to_string();
        if session.writes.send(Message::text(text)).await.is_err() {
            // The reader learns why, and says so.
            *place = None;
        }
    }

    /// Connects to any node, and lets an older session be taken over.
    async fn connect(&mut self) {
        let node = self.rng.random_range(0..self.nodes.len());
        let answer = timeout(ANSWER_MAX, client::connect(node, &self.token)).await;
        match answer {
            Ok(Ok((writes, reads))) => {
                let index = self.seen.opened(self.number, self.nodes.life(node));
                let reader = Reader {
                    index,
                    agent: self.number,
                    node,
                    nodes: Arc::clone(&self.nodes),
                    seen: Arc::clone(&self.seen),
                };
                self.readers.spawn(reader.run(reads));
                self.current = Some(Session { index, writes });
                self.away = Duration::ZERO;
            }
            Ok(Err(refusal)) => self.note_refusal(&refusal),
            Err(_) => {
                self.seen.gives_up(self.number, node);
                self.away = Duration::from_millis(self.rng.random_range(0..100));
            }
        }
    }

    fn note_refusal(&mut self, refusal: &Refusal) {
        self.away = match refusal {
            Refusal::Later(after) => *after,
            Refusal::Gone => Duration::from_millis(self.rng.random_range(100..400)),
            Refusal::Wrong(what) => {
                self.seen.nonsense(what.clone(), Some(self.number), None);
                Duration::from_secs(1)
            }
        };
    }

    async fn hang_up(&mut self) {
        for mut session in [self.current.take(), self.older.take()].into_iter().flatten() {
            self.seen.ended(session.index, Ending::Closed);
            // An error means that it has ended already.
            let _ = session.writes.close().await;
        }
    }

    /// A session's reader is at its end: the agent comes back, as the relay told it to.
    fn session_ended(&mut self, ended: Result<(usize, End), JoinError>) {
        let Ok((index, end)) = ended else {
            return self.seen.nonsense("an agent's reader died".into(), Some(self.number), None);
        };
        let why = match &end {
            End::Closed(1000, _) => Ending::Closed,
            End::Closed(1001, _) => Ending::Drained,
            End::Closed(4009, _) => Ending::Replaced,
            End::Closed(code, reason) => {
                let what = format!("agent-{} is closed with {code}: {reason}", self.number);
                self.seen.nonsense(what, Some(self.number), None);
                Ending::Closed
            }
            End::Lost => Ending::Crashed,
        };
        self.seen.ended(index, why);
        let is_it = |session: &mut Session| session.index == index;
        self.older.take_if(is_it);
        if self.current.take_if(is_it).is_some() {
            self.away = match &end {
                End::Closed(1001, reason) => retry_after(reason),
                End::Closed(4009, _) => Duration::from_millis(self.rng.random_range(200..1_000)),
                _ => Duration::from_millis(self.rng.random_range(20..300)),
            };
        }
    }
}

/// The time that a close frame's reason names (PROTOCOL section 7).
fn retry_after(reason: &str) -> Duration {
    let named = reason.split("retry_ms=").nth(1).and_then(|text| text.parse().ok());
    Duration::from_millis(named.unwrap_or(1_000))
}

/// Reads a session to its end.
struct Reader {
    index: usize,
    agent: usize,
    node: usize,
    nodes: Arc<Nodes>,
    seen: Arc<Seen>,
}

impl Reader {
    async fn run(self, mut reads: Reads) -> (usize, End) {
        let end = loop {
            match reads.next().await {
                Some(Ok(Message::Text(text))) => self.take(text.as_str()),
                Some(Ok(Message::Close(frame))) => {
                    let CloseFrame { code, reason } =
                        frame.unwrap_or(CloseFrame { code: 1000.into(), reason: "".into() });
                    break End::Closed(code.into(), reason.to_string());
                }
                Some(Ok(_)) => {}
                Some(Err(_)) | None => break End::Lost,
            }
        };
        (self.index, end)
    }

    fn take(&self, text: &str) {
        if let Err(what) = self.read(text) {
            let what = format!("agent-{} got {text}: {what}", self.agent);
            self.seen.nonsense(what, Some(self.agent), None);
        }
    }

    fn read(&self, text: &str) -> Result<(), &'static str> {
        let message: Value = serde_json::from_str(text).map_err(|_| "no JSON")?;
        let from = message["from"].as_str().ok_or("no sender")?;
        if from == "relay" {
            if message["type"] != "welcome" {
                return Err("not what an agent in good standing hears");
            }
            let id = self.nodes.session(self.node, self.agent);
            self.seen.welcomed(self.index, id);
            return Ok(());
        }
        let number = message["payload"]["n"].as_u64().and_then(|n| usize::try_from(n).ok());
        let number = number.ok_or("no number")?;
        if message["payload"] != json!({ "n": number }) {
            return Err("another payload than was sent");
        }
        if agent_number(from).is_none() || agent_number(from) != self.seen.sender_of(number) {
            return Err("not from its sender");
        }
        self.seen.received(self.index, number, text);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_to_come_back_is_in_the_reason() {
        let reason = "the relay is stopping: reconnect; retry_ms=345";
        assert_eq!(retry_after(reason), Duration::from_millis(345));
        assert_eq!(retry_after("gone"), Duration::from_secs(1));
    }
}
