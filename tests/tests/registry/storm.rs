//! The leader killed again and again while agents register: no name is given twice, none that was
//! acknowledged is lost, and soon after each loss names are registered again.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use serde_json::{Value, json};
use tests::{Client, Cluster, cluster::registry, eventually, measured};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
    time::timeout,
};

/// How often the leader is killed; `STORM_ROUNDS` says otherwise.
const ROUNDS: usize = 4;

/// Agents that register at a time. Each two want the same names.
const WRITERS: u64 = 16;

/// No answer within this is none.
const ANSWER_DEADLINE: Duration = Duration::from_secs(5);

/// What the storm has brought.
#[derive(Default)]
struct Storm {
    over: AtomicBool,
    registered: AtomicU64,
    /// The token of each name that was acknowledged, of every one who got it.
    tokens: Mutex<HashMap<String, Vec<String>>>,
    /// Where the nodes are; one that is started again has another port.
    nodes: Mutex<Vec<SocketAddr>>,
}

impl Storm {
    fn node(&self, number: usize) -> SocketAddr {
        let nodes = self.nodes.lock();
        nodes[number % nodes.len()]
    }

    fn find(&self, cluster: &Cluster) {
        *self.nodes.lock() = cluster.nodes.iter().map(|node| node.public).collect();
    }
}

/// Registers; none if the node is gone, or says that it cannot now.
async fn register(to: SocketAddr, name: &str) -> Option<(u16, Value)> {
    let exchange = async {
        let mut stream = TcpStream::connect(to).await.ok()?;
        let body = json!({ "agent_id": name }).to_string();
        let request = format!(
            "POST /register HTTP/1.1\r\nhost: relay\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.ok()?;
        let status = answer.split(' ').nth(1)?.parse().ok()?;
        let (_, body) = answer.split_once("\r\n\r\n")?;
        Some((status, serde_json::from_str(body).ok()?))
    };
    timeout(ANSWER_DEADLINE, exchange).await.ok().flatten()
}

/// Registers one name after the other, each at the next node, until the storm is over.
async fn write(storm: Arc<Storm>, writer: u64) {
    for number in 0.. {
        if storm.over.load(Relaxed) {
            return;
        }
        let name = format!("storm-{}-{number}", writer / 2);
        let to = storm.node(usize::try_from(number + writer).expect("few"));
        match register(to, &name).await {
            Some((200, answer)) => {
                let token = answer["token"].as_str().expect("there is a token").to_owned();
                storm.tokens.lock().entry(name).or_default().push(token);
                storm.registered.fetch_add(1, Relaxed);
            }
            Some((409 | 503, _)) | None => tokio::task::yield_now().await,
            Some((status, answer)) => panic!("{name}: {status} {answer}"),
        }
    }
}

/// The node that leads the registry.
async fn leader(cluster: &Cluster) -> usize {
    let found = Mutex::new(None);
    eventually("there is a leader", || async {
        for (n, node) in cluster.nodes.iter().enumerate() {
            if registry(node).await["role"] == "leader" {
                *found.lock() = Some(n);
            }
        }
        found.lock().is_some()
    })
    .await;
    found.into_inner().expect("it was found")
}

#[tokio::test]
async fn the_leader_killed_in_a_storm_of_registrations_loses_and_doubles_nothing() {
    let rounds = std::env::var("STORM_ROUNDS").ok().and_then(|rounds| rounds.parse().ok());
    let limits = [("REGISTRATION_LIMIT_PER_MIN", "0"), ("HANDSHAKES_PER_ADDRESS", "0")];
    let mut cluster = Cluster::with(3, &limits).await;
    cluster.is_kept_by(3).await;
    let storm = Arc::new(Storm::default());
    let mut writers = JoinSet::new();
    storm.find(&cluster);
    for writer in 0..WRITERS {
        writers.spawn(write(Arc::clone(&storm), writer));
    }
    let mut outages = Vec::new();
    for _ in 0..rounds.unwrap_or(ROUNDS) {
        let before = storm.registered.load(Relaxed);
        eventually("there is a storm", || async { storm.registered.load(Relaxed) > before + 20 })
            .await;
        let leads = leader(&cluster).await;
        cluster.nodes[leads].kill9();
        let (killed, before) = (Instant::now(), storm.registered.load(Relaxed));
        eventually("names are registered again", || async {
            storm.registered.load(Relaxed) > before + WRITERS
        })
        .await;
        outages.push(killed.elapsed());
        cluster.nodes[leads].start_again();
        storm.find(&cluster);
        cluster.is_whole().await;
        cluster.is_kept_by(3).await;
    }
    storm.over.store(true, Relaxed);
    while let Some(ended) = writers.join_next().await {
        ended.expect("a writer panicked");
    }
    outages.sort();
    measured(&format!(
        "leader killed {} times: registered again after {:?} (median), {:?} (longest); {} names",
        outages.len(),
        outages[outages.len() / 2],
        outages[outages.len() - 1],
        storm.registered.load(Relaxed),
    ));
    let tokens = std::mem::take(&mut *storm.tokens.lock());
    for (n, (name, tokens)) in tokens.iter().enumerate() {
        assert_eq!(tokens.len(), 1, "{name} was given twice");
        let node = &cluster.nodes[n % 3];
        let known = node.admin("GET", &format!("/agents/{name}")).await.expect_status(200).json();
        assert_eq!((&known["revoked"], known["serial"].is_u64()), (&json!(false), true), "{known}");
        if n % 20 == 0 {
            Client::connect(node, &tokens[0]).await.leave().await;
        }
    }
}
