//! The whole of `bench` against a relay of a few lines that passes messages on, and misbehaves on
//! purpose: what it does wrong must be found.

#![allow(clippy::unwrap_used)] // test code: what cannot go on fails

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use clap::Parser as _;
use futures_util::{SinkExt as _, StreamExt as _};
use parking_lot::Mutex;
use serde_json::Value;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::mpsc::{Receiver, Sender, channel},
    task::JoinSet,
};
use tokio_tungstenite::{
    accept_hdr_async,
    tungstenite::{
        Message,
        handshake::server::{ErrorResponse, Request, Response},
    },
};

use super::{BenchArgs, Flaw, run};
use crate::{
    agent::{failure::Failure, output::tests::captured},
    clock::Clock,
};

/// The message, of each sender, that meets the fault.
const UNLUCKY: u64 = 3;

/// What the relay does with it.
#[derive(Clone, Copy)]
enum Fault {
    /// Nothing else than with all others.
    None,
    /// It is lost.
    Lose,
    /// It is delivered twice.
    Double,
    /// The next comes before it.
    Swap,
    /// It is said to be from somebody else.
    Forge,
    /// A byte of it is changed.
    Spoil,
    /// It is refused, as over the rate limit.
    Limit,
    /// All goes well but registering: every third is too many.
    Hold,
}

/// A relay that knows no limits, and whom its agents' names suffice as tokens.
struct FaultyRelay {
    address: SocketAddr,
    house: Arc<House>,
    _tasks: JoinSet<()>,
}

struct House {
    fault: Fault,
    names: Mutex<BTreeSet<String>>,
    outboxes: Mutex<BTreeMap<String, Sender<String>>>,
    asked: AtomicU32,
    refused: AtomicU32,
}

impl FaultyRelay {
    async fn start(fault: Fault) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let house = Arc::new(House {
            fault,
            names: Mutex::default(),
            outboxes: Mutex::default(),
            asked: AtomicU32::new(0),
            refused: AtomicU32::new(0),
        });
        let mut tasks = JoinSet::new();
        let open = Arc::clone(&house);
        tasks.spawn(async move {
            let mut guests = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                guests.spawn(Arc::clone(&open).serve(stream));
            }
        });
        Self { address, house, _tasks: tasks }
    }
}

impl House {
    async fn serve(self: Arc<Self>, mut stream: TcpStream) {
        let mut first = [0; 8];
        stream.peek(&mut first).await.unwrap();
        match &first {
            b"POST /re" => self.register(&mut stream).await,
            b"GET /met" => self.metrics(&mut stream).await,
            _ => self.session(stream).await,
        }
    }

    /// Half a second of CPU more each time that it is asked.
    async fn metrics(&self, stream: &mut TcpStream) {
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            assert_ne!(stream.read_buf(&mut request).await.unwrap(), 0, "half a request");
        }
        let asked = self.asked.fetch_add(1, Ordering::SeqCst);
        let cpu = f64::from(asked) / 2.0;
        let body =
            format!("process_cpu_seconds_total {cpu}\nprocess_resident_memory_bytes {asked}000\n");
        let length = body.len();
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{body}");
        stream.write_all(answer.as_bytes()).await.unwrap();
    }

    async fn register(&self, stream: &mut TcpStream) {
        let mut request = Vec::new();
        while !request.ends_with(b"}") {
            assert_ne!(stream.read_buf(&mut request).await.unwrap(), 0, "half a request");
        }
        if matches!(self.fault, Fault::Hold) && self.asked.fetch_add(1, Ordering::SeqCst) % 3 == 2 {
            let answer = "HTTP/1.1 429 Too Many\r\nretry-after: 0\r\ncontent-length: 0\r\n\r\n";
            return stream.write_all(answer.as_bytes()).await.unwrap();
        }
        let text = String::from_utf8(request).unwrap();
        let (_, body) = text.split_once("\r\n\r\n").unwrap();
        let body: Value = serde_json::from_str(body).unwrap();
        let name = body["agent_id"].as_str().unwrap();
        assert!(self.names.lock().insert(name.to_owned()), "{name} is registered twice");
        let answer = format!(r#"{{"agent_id":"{name}","token":"{name}"}}"#);
        let length = answer.len();
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{answer}");
        stream.write_all(answer.as_bytes()).await.unwrap();
    }

    async fn session(&self, stream: TcpStream) {
        let mut name = String::new();
        #[allow(clippy::result_large_err)] // the signature is tungstenite's
        let check = |request: &Request, response: Response| -> Result<Response, ErrorResponse> {
            let bearer = request.headers().get("authorization").unwrap().to_str().unwrap();
            bearer.trim_start_matches("Bearer ").clone_into(&mut name);
            if self.names.lock().contains(&name) {
                return Ok(response);
            }
            self.refused.fetch_add(1, Ordering::SeqCst);
            Err(Response::builder().status(401).body(None).unwrap())
        };
        let Ok(mut socket) = accept_hdr_async(stream, check).await else { return };
        let welcome = format!(
            r#"{{"from":"relay","to":["{name}"],"type":"welcome","payload":{{"version":"0"}}}}"#
        );
        socket.send(Message::text(welcome)).await.unwrap();
        let (outbox, mut waiting): (Sender<String>, Receiver<String>) = channel(10_000);
        self.outboxes.lock().insert(name.clone(), outbox);
        let mut passing = Passing { count: 0, kept: None };
        loop {
            tokio::select! {
                heard = socket.next() => match heard {
                    Some(Ok(Message::Text(text))) => self.pass(&name, &text, &mut passing).await,
                    Some(Ok(_)) => {}
                    _ => return,
                },
                Some(text) = waiting.recv() => socket.send(Message::text(text)).await.unwrap(),
            }
        }
    }

    async fn pass(&self, from: &str, text: &str, passing: &mut Passing) {
        let number = passing.count;
        passing.count += 1;
        let message: Value = serde_json::from_str(text).unwrap();
        let to = message["to"][0].as_str().unwrap();
        let delivered =
            |from: &str| text.replacen('{', &format!(r#"{{"id":"msg_1","from":"{from}","#), 1);
        let good = delivered(from);
        let texts = match self.fault {
            _ if number != UNLUCKY => [Some(good), passing.kept.take()],
            Fault::None | Fault::Hold => [Some(good), None],
            Fault::Lose => [None, None],
            Fault::Double => [Some(good.clone()), Some(good)],
            Fault::Swap => {
                passing.kept = Some(good);
                [None, None]
            }
            Fault::Forge => [Some(delivered("eve-1")), None],
            Fault::Spoil => [Some(good.replacen("xx", "xy", 1)), None],
            Fault::Limit => {
                let told = r#"{"from":"relay","type":"error","payload":{"code":"rate_limit"}}"#;
                let own = self.outboxes.lock().get(from).cloned().unwrap();
                return own.send(told.to_owned()).await.unwrap();
            }
        };
        let recipients: Vec<_> = {
            let outboxes = self.outboxes.lock();
            let is_meant = |name: &str| if to == "*" { name != from } else { name == to };
            outboxes.iter().filter(|(name, _)| is_meant(name)).map(|(_, o)| o.clone()).collect()
        };
        for outbox in &recipients {
            for text in texts.iter().flatten() {
                // Who has left hears nothing.
                let _ = outbox.send(text.clone()).await;
            }
        }
    }
}

/// What one sender's messages have met so far.
struct Passing {
    count: u64,
    kept: Option<String>,
}

#[derive(clap::Parser)]
struct Line {
    #[command(flatten)]
    args: BenchArgs,
}

/// How a run ended, what it noted, and its JSON, if there is one.
struct Ran {
    outcome: Result<(), Failure>,
    notes: String,
    json: Value,
}

async fn bench(relay: &FaultyRelay, folder: &TempDir, words: &[&str]) -> Ran {
    let url = format!("ws://{}/arc", relay.address);
    let file = folder.path().join("agents.json");
    let all = ["bench", "--url", &url, "--agents-file", file.to_str().unwrap(), "--json", "-"];
    let line = Line::parse_from([&all, words].concat());
    let (mut output, results, notes) = captured();
    let never = std::future::pending();
    let outcome = run(&line.args, &mut output, &Clock::system(), never).await;
    let json = serde_json::from_str(&results.text()).unwrap_or_default();
    Ran { outcome, notes: notes.text(), json }
}

/// The faults that are found in 20 messages of each of two senders: lost, twice, out of order, spoilt.
async fn found(fault: Fault, scenario: &str) -> [u64; 4] {
    let relay = FaultyRelay::start(fault).await;
    let folder = tempfile::tempdir().unwrap();
    let words =
        [scenario, "--agents", "4", "--senders", "2", "--rate", "200", "--duration", "200ms"];
    let ran = bench(&relay, &folder, &words).await;
    let messages = &ran.json["scenarios"][0]["messages"];
    assert!(messages["sent"].as_u64() > Some(2 * UNLUCKY), "{}", ran.json);
    let found =
        ["lost", "twice", "out_of_order", "spoilt"].map(|fault| messages[fault].as_u64().unwrap());
    let is_bad = matches!(ran.outcome, Err(Failure::Bench(Flaw::Faulty(_))));
    assert_eq!(is_bad, found != [0; 4], "{:?}", ran.outcome);
    found
}

#[tokio::test]
async fn a_relay_that_keeps_its_promise_has_no_faults() {
    for scenario in ["direct", "latency", "broadcast"] {
        assert_eq!(found(Fault::None, scenario).await, [0; 4], "{scenario}");
    }
}

#[tokio::test]
async fn what_is_lost_is_found() {
    assert_eq!(found(Fault::Lose, "direct").await, [2, 0, 0, 0], "one of each sender");
}

#[tokio::test]
async fn what_is_lost_of_a_broadcast_is_found_at_each_recipient() {
    assert_eq!(found(Fault::Lose, "broadcast").await, [6, 0, 0, 0], "three others each");
}

#[tokio::test]
async fn what_comes_twice_is_found() {
    assert_eq!(found(Fault::Double, "latency").await, [0, 2, 0, 0]);
}

#[tokio::test]
async fn what_is_out_of_order_is_found_and_not_taken_for_lost() {
    assert_eq!(found(Fault::Swap, "direct").await, [0, 0, 2, 0]);
}

#[tokio::test]
async fn what_is_forged_or_changed_is_found() {
    assert_eq!(found(Fault::Forge, "direct").await, [2, 0, 0, 2]);
    assert_eq!(found(Fault::Spoil, "direct").await, [2, 0, 0, 2]);
}

#[tokio::test]
async fn a_rate_limit_on_the_way_ends_the_measurement_without_a_result() {
    let relay = FaultyRelay::start(Fault::Limit).await;
    let folder = tempfile::tempdir().unwrap();
    let ran = bench(&relay, &folder, &["direct", "--agents", "2", "--duration", "60s"]).await;
    let failure = ran.outcome.unwrap_err();
    assert!(matches!(failure, Failure::Bench(Flaw::Limited { .. })), "{failure}");
    assert!(failure.to_string().contains("RATE_LIMIT_PER_MIN"), "{failure}");
    assert_eq!((failure.exit_code(), ran.json), (3, Value::Null));
}

#[tokio::test]
async fn names_are_taken_again_and_new_ones_where_they_are_unknown() {
    let relay = FaultyRelay::start(Fault::None).await;
    let folder = tempfile::tempdir().unwrap();
    let words = ["connect", "--agents", "3", "--duration", "10ms"];
    let first = bench(&relay, &folder, &words).await;
    assert!(first.outcome.is_ok() && first.notes.contains("for good"), "{}", first.notes);
    let names = relay.house.names.lock().clone();
    assert_eq!(names.len(), 3);

    let second = bench(&relay, &folder, &words).await;
    assert!(second.outcome.is_ok() && second.notes.is_empty(), "{}", second.notes);
    assert_eq!(*relay.house.names.lock(), names, "none is new");

    relay.house.names.lock().clear();
    let third = bench(&relay, &folder, &words).await;
    assert!(third.outcome.is_ok() && third.notes.contains("does not know"), "{}", third.notes);
    assert!(relay.house.names.lock().is_disjoint(&names), "all are new");
}

#[tokio::test]
async fn an_agent_that_is_revoked_does_not_cost_the_others() {
    let relay = FaultyRelay::start(Fault::None).await;
    let folder = tempfile::tempdir().unwrap();
    let words = ["connect", "--agents", "8", "--duration", "10ms"];
    assert!(bench(&relay, &folder, &words).await.outcome.is_ok());
    let names = relay.house.names.lock().clone();
    for revoked in names.iter().take(4) {
        relay.house.names.lock().remove(revoked);
    }
    let ran = bench(&relay, &folder, &words).await;
    assert!(ran.outcome.is_ok() && ran.notes.contains("refuses 4 of"), "{}", ran.notes);
    assert!(ran.notes.contains("registered 4 more"), "{}", ran.notes);
    assert_eq!(relay.house.names.lock().intersection(&names).count(), 4);
    let again = bench(&relay, &folder, &words).await;
    assert!(again.outcome.is_ok() && again.notes.is_empty(), "{}", again.notes);
}

#[tokio::test]
async fn agents_that_are_revoked_are_replaced_wherever_they_stand() {
    let relay = FaultyRelay::start(Fault::None).await;
    let folder = tempfile::tempdir().unwrap();
    let words = ["direct", "--agents", "8", "--rate", "200", "--duration", "50ms"];
    assert!(bench(&relay, &folder, &words).await.outcome.is_ok());
    let names = relay.house.names.lock().clone();
    for revoked in names.iter().skip(3).step_by(2) {
        relay.house.names.lock().remove(revoked);
    }
    let ran = bench(&relay, &folder, &words).await;
    assert!(ran.outcome.is_ok() && ran.notes.contains("refuses 3 of"), "{}", ran.notes);
    assert!(ran.notes.contains("registered 3 more"), "{}", ran.notes);
    assert_eq!(ran.json["scenarios"].as_array().map(Vec::len), Some(1), "{}", ran.json);
    assert_eq!(relay.house.names.lock().intersection(&names).count(), 5);
    let again = bench(&relay, &folder, &words).await;
    assert!(again.outcome.is_ok() && again.notes.is_empty(), "{}", again.notes);
}

#[tokio::test]
async fn a_relay_that_is_founded_anew_is_not_asked_for_every_name() {
    let relay = FaultyRelay::start(Fault::None).await;
    let folder = tempfile::tempdir().unwrap();
    let words = ["connect", "--agents", "20", "--duration", "10ms"];
    assert!(bench(&relay, &folder, &words).await.outcome.is_ok());
    let names = std::mem::take(&mut *relay.house.names.lock());
    let ran = bench(&relay, &folder, &words).await;
    assert!(ran.outcome.is_ok() && ran.notes.contains("does not know"), "{}", ran.notes);
    assert_eq!(relay.house.refused.load(Ordering::SeqCst), 5);
    let file = std::fs::read_to_string(folder.path().join("agents.json")).unwrap();
    assert!(names.iter().all(|name| file.contains(name)), "their tokens are kept");
}

#[tokio::test]
async fn a_relay_that_holds_registering_back_is_waited_for_and_the_setting_named() {
    let relay = FaultyRelay::start(Fault::Hold).await;
    let folder = tempfile::tempdir().unwrap();
    let words = ["connect", "--agents", "20", "--duration", "10ms"];
    let ran = bench(&relay, &folder, &words).await;
    assert!(ran.outcome.is_ok(), "{:?}", ran.outcome);
    assert!(ran.notes.contains("REGISTRATION_LIMIT_PER_MIN"), "{}", ran.notes);
    assert_eq!(relay.house.names.lock().len(), 20);
}

#[tokio::test]
async fn the_relays_own_cost_is_shown_where_its_ops_port_is_given() {
    let relay = FaultyRelay::start(Fault::None).await;
    let folder = tempfile::tempdir().unwrap();
    let ops = format!("http://{}", relay.address);
    let words = ["connect", "--agents", "2", "--duration", "10ms", "--ops", &ops];
    let ran = bench(&relay, &folder, &words).await;
    let cost = &ran.json["scenarios"][0]["relay"];
    assert_eq!(cost["cpu_us_per_connect"], 250_000.0, "{:?} {cost}", ran.outcome);
    assert_eq!(cost["bytes_per_connection"], 1_000.0, "{cost}");

    let words = ["latency", "--agents", "2", "--duration", "200ms", "--ops", &ops];
    let ran = bench(&relay, &folder, &words).await;
    let cost = &ran.json["scenarios"][0]["relay"];
    assert!(cost["cpu_us_per_delivery"].as_f64() > Some(1_000.0), "{cost}");
    assert!(cost["bytes_per_connection"].is_null(), "more than connections cost memory: {cost}");
}

#[tokio::test]
async fn an_interrupted_run_has_no_result() {
    let relay = FaultyRelay::start(Fault::None).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("agents.json");
    let url = format!("ws://{}/arc", relay.address);
    let words = ["bench", "--url", &url, "--agents-file", file.to_str().unwrap()];
    let (mut output, results, _) = captured();
    let stop = tokio::time::sleep(Duration::from_millis(50));
    let args = Line::parse_from(words).args;
    let outcome = run(&args, &mut output, &Clock::system(), stop).await;
    assert!(matches!(outcome, Err(Failure::Bench(Flaw::Interrupted))), "{outcome:?}");
    assert_eq!(results.text(), "");
}
