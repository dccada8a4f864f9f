//! Agents that talk in a ring while nodes come and go under them; each goes to another node when it is sent away.
//! Afterwards it is known what each should have got, and what it did.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tests::{PATIENCE, http, measured};
use tokio::{net::TcpStream, sync::watch, task::JoinHandle, time::interval};
use tokio_tungstenite::{WebSocketStream, client_async, tungstenite::Message};

/// Between two messages of one agent.
const PACE: Duration = Duration::from_millis(10);

/// What was sent so shortly before or after one of the two came or went may have met nobody.
const MARGIN: Duration = Duration::from_secs(1);

/// A conversation that goes on until it is ended.
pub(crate) struct Talk {
    over: watch::Sender<bool>,
    agents: Vec<JoinHandle<Record>>,
}

/// What one agent has to say of the talk.
struct Record {
    id: String,
    sessions: Vec<(Instant, Instant)>,
    sent: Vec<Instant>,
    received: Vec<usize>,
}

impl Talk {
    /// Lets these agents, by id and token, send to the next of them, and the last to the first; each connects to
    /// a node of its own first, by its number.
    pub(crate) fn among(agents: &[(String, String)], nodes: &[SocketAddr]) -> Self {
        let (over, is_over) = watch::channel(false);
        let in_talk = Arc::new(AtomicUsize::new(agents.len()));
        let start = |(number, (id, token)): (usize, &(String, String))| {
            let agent = Agent {
                token: token.clone(),
                to: agents[(number + 1) % agents.len()].0.clone(),
                nodes: nodes.to_vec(),
                node: number % nodes.len(),
                over: is_over.clone(),
                heard_all: false,
                in_talk: Arc::clone(&in_talk),
                record: Record {
                    id: id.clone(),
                    sessions: Vec::new(),
                    sent: Vec::new(),
                    received: Vec::new(),
                },
            };
            tokio::spawn(agent.talk())
        };
        Self { over, agents: agents.iter().enumerate().map(start).collect() }
    }

    /// Ends it. Each message between two agents that stayed connected must have come, none twice, all in order.
    pub(crate) async fn end(self) {
        self.over.send(true).expect("the agents look at it");
        let mut records = Vec::new();
        for agent in self.agents {
            let record =
                tokio::time::timeout(PATIENCE, agent).await.expect("an agent gets to the end");
            records.push(record.expect("an agent goes on"));
        }
        let (mut owed, mut moves) = (0, 0);
        for (number, sender) in records.iter().enumerate() {
            let receiver = &records[(number + 1) % records.len()];
            owed += settle(sender, receiver);
            moves += sender.sessions.len() - 1;
        }
        assert!(owed > 100 * records.len(), "they have talked: {owed}");
        measured(&format!("{owed} messages between connected agents, {moves} moves, none lost"));
    }
}

/// Holds what was sent against what was received; how much had to arrive.
fn settle(sender: &Record, receiver: &Record) -> usize {
    let (from, to) = (&sender.id, &receiver.id);
    assert!(receiver.received.is_sorted_by(|a, b| a < b), "{from} to {to}: once and in order");
    let stayed = |record: &Record, at: Instant| {
        record.sessions.iter().any(|(begin, end)| *begin + MARGIN <= at && at + MARGIN <= *end)
    };
    let owed = sender.sent.iter().enumerate();
    let owed = owed.filter(|(_, at)| stayed(sender, **at) && stayed(receiver, **at));
    let mut count = 0;
    for (n, _) in owed {
        assert!(receiver.received.binary_search(&n).is_ok(), "{from} to {to}: {n} is lost");
        count += 1;
    }
    count
}

struct Agent {
    token: String,
    to: String,
    nodes: Vec<SocketAddr>,
    node: usize,
    over: watch::Receiver<bool>,
    /// Whether the one that sends to it has come to its end.
    heard_all: bool,
    /// How many agents have not heard that: until then each goes on saying it, as one may be on its way to
    /// another node.
    in_talk: Arc<AtomicUsize>,
    record: Record,
}

impl Agent {
    async fn talk(mut self) -> Record {
        loop {
            let mut socket = self.connect().await;
            let begin = Instant::now();
            let at_end = self.session(&mut socket).await;
            self.record.sessions.push((begin, Instant::now()));
            if at_end {
                return self.record;
            }
            self.node = (self.node + 1) % self.nodes.len();
        }
    }

    /// A session on the next node that takes it.
    async fn connect(&mut self) -> WebSocketStream<TcpStream> {
        loop {
            if let Some(socket) = dial(self.nodes[self.node], &self.token).await {
                return socket;
            }
            self.node = (self.node + 1) % self.nodes.len();
            tokio::time::sleep(PACE).await;
        }
    }

    /// Talks until the session ends, or all is said and heard, which it tells.
    async fn session(&mut self, socket: &mut WebSocketStream<TcpStream>) -> bool {
        let mut pace = interval(PACE);
        loop {
            tokio::select! {
                frame = socket.next() => match frame {
                    Some(Ok(Message::Text(text))) => self.hear(&text),
                    Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                    _ => return false,
                },
                _ = pace.tick() => {
                    let over = *self.over.borrow();
                    if over && self.in_talk.load(Relaxed) == 0 {
                        return socket.close(None).await.is_ok();
                    }
                    let said: Value = if over { "end".into() } else { self.record.sent.len().into() };
                    if !over {
                        self.record.sent.push(Instant::now());
                    }
                    let message = json!({"to": [self.to], "payload": said}).to_string();
                    if socket.send(Message::text(message)).await.is_err() {
                        return false;
                    }
                }
            }
        }
    }

    fn hear(&mut self, text: &str) {
        let message: Value = serde_json::from_str(text).expect("messages are JSON");
        if message["from"] == "relay" {
            assert_eq!(message["type"], "welcome", "{message}");
        } else if let Some(n) = message["payload"].as_u64() {
            self.record.received.push(usize::try_from(n).expect("a small number"));
        } else if !std::mem::replace(&mut self.heard_all, true) {
            self.in_talk.fetch_sub(1, Relaxed);
        }
    }
}

/// A session there; none if the node does not take it now.
async fn dial(node: SocketAddr, token: &str) -> Option<WebSocketStream<TcpStream>> {
    let stream = TcpStream::connect(node).await.ok()?;
    stream.set_nodelay(true).ok()?;
    let request = http::upgrade(&format!("ws://{node}/arc"))
        .header("host", node.to_string())
        .header("authorization", format!("Bearer {token}"));
    let request = request.body(()).expect("a test's request is well-formed");
    client_async(request, stream).await.ok().map(|(socket, _)| socket)
}
