//! What operators see of a cluster: metrics, status, readiness, and a log that says what to do.

use rustix::process::Signal;
use serde_json::{Value, json};
use tests::{
    Client, Cluster, Metrics, Relay, arc_relay,
    cluster::{in_state, loopback_address, view},
    eventually, http, process,
};

/// The lines of a log that ask for somebody's attention.
fn alarms(log: &str) -> Vec<Value> {
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.filter(|line| line["level"] == "WARN" || line["level"] == "ERROR").collect()
}

fn members(metrics: &Metrics, state: &str) -> u64 {
    metrics.count("arc_members", &[("state", state)])
}

#[tokio::test]
async fn metrics_tell_of_members_and_links() {
    let mut cluster = Cluster::start(3).await;
    let mut sender = cluster.nodes[0].agent("sender").await;
    let mut receiver = cluster.nodes[1].agent("receiver").await;
    let sent = |metrics: &Metrics| metrics.count("arc_link_frames_sent_total", &[("lane", "data")]);
    let before = sent(&cluster.nodes[0].metrics().await);
    for n in 0..100 {
        sender.send(json!({"to": ["receiver"], "payload": n})).await;
        assert_eq!(receiver.next().await["payload"], n);
    }
    eventually("what was sent is counted", || async {
        sent(&cluster.nodes[0].metrics().await) >= before + 100
    })
    .await;
    let metrics = cluster.nodes[0].metrics().await;
    assert!(metrics.count("arc_link_received_bytes_total", &[("lane", "gossip")]) > 0);
    assert_eq!((members(&metrics, "alive"), members(&metrics, "dead")), (3, 0));
    assert_eq!(metrics.count("arc_links", &[]), 2);
    assert!(metrics.count("arc_links_opened_total", &[]) >= 2);
    assert_eq!(metrics.count("arc_sessions_pending", &[]), 0);
    let mut records = 0;
    for node in &cluster.nodes {
        records += node.metrics().await.count("arc_presence_records", &[]);
    }
    assert_eq!(records, 2, "each agent's place is kept by one node");

    cluster.nodes[2].kill9();
    eventually("the crash is counted", || async {
        let metrics = cluster.nodes[0].metrics().await;
        let changed = |to| metrics.count("arc_member_changes_total", &[("to", to)]);
        members(&metrics, "dead") == 1 && members(&metrics, "alive") == 2 && changed("dead") == 1
    })
    .await;
}

#[tokio::test]
async fn prometheus_takes_the_metrics_as_they_are() {
    let cluster = Cluster::start(2).await;
    let text = http::get(cluster.nodes[0].ops, "/metrics").await.expect_status(200).text();
    for family in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let (name, kind) = family.split_once(' ').expect("a family has a name and a type");
        assert_eq!(name.ends_with("_total"), kind == "counter", "{family}");
        assert!(text.contains(&format!("# HELP {name} ")), "{name} is not described");
    }
}

#[tokio::test]
async fn the_status_shows_a_dead_node_and_does_not_count_it() {
    let mut cluster = Cluster::start(3).await;
    let _agent = cluster.nodes[0].agent("only-one").await;
    cluster.nodes[2].kill9();
    eventually("the node is known to be dead", || async {
        in_state(&view(&cluster.nodes[0]).await, "dead") == ["node-2"]
    })
    .await;
    let mut command = std::process::Command::new(arc_relay());
    command.args(["status", "--ops", &format!("http://{}", cluster.nodes[0].ops)]);
    let status = process::run(command).await.expect_code(0).stdout;
    assert!(status.starts_with("2 nodes, 1 agent,"), "{status}");
    let dead = status.lines().find(|line| line.starts_with("node-2")).expect("it is listed");
    assert!(dead.contains("dead"), "{status}");
}

#[tokio::test]
async fn every_node_says_where_an_agent_is() {
    let mut cluster = Cluster::start(3).await;
    let agent = cluster.nodes[1].agent("sought-1").await;
    let shown = async |cluster: &Cluster, node: usize| {
        let answer = cluster.nodes[node].admin("GET", "/agents/sought-1").await;
        let answer = answer.expect_status(200).json();
        (answer["connected"].clone(), answer["node"].clone())
    };
    for node in 0..3 {
        assert_eq!(shown(&cluster, node).await, (json!(true), json!("node-1")));
    }
    // Whoever keeps its record may be gone.
    cluster.nodes[2].kill9();
    assert_eq!(shown(&cluster, 0).await, (json!(true), json!("node-1")));
    agent.leave().await;
    eventually("it is nowhere", || async {
        shown(&cluster, 0).await == (json!(false), json!(null))
    })
    .await;
}

#[tokio::test]
async fn a_node_without_the_first_seed_says_for_whom_it_waits() {
    let (first, own) = (loopback_address(), loopback_address());
    let mut cluster = Cluster::unstarted(&[first, own], &[]);
    cluster.add_at(own, &[]);
    let waiting = &cluster.nodes[0];
    eventually("it says for whom it waits", || async {
        let log = waiting.log.text();
        log.contains("start the first of SEEDS") && log.contains(&format!("{first}:7946"))
    })
    .await;
    let health = http::get(waiting.public, "/health").await.expect_status(503).json();
    assert_eq!(health["status"], "joining");
    let ready = http::get(waiting.ops, "/ready").await.expect_status(503).json();
    assert_eq!(ready["status"], "joining");
    let request = http::upgrade("/arc").header("authorization", "Bearer tok_none");
    http::send(waiting.public, request, "").await.expect_error(503, "joining").expect_retry_after();
    let body = json!({"agent_id": "early-1"}).to_string();
    let early = http::post(waiting.public, "/register", body).await;
    early.expect_error(503, "joining").expect_retry_after();

    cluster.add_at(first, &[("NODE_NAME", "first")]);
    cluster.is_whole().await;
    cluster.nodes[0].agent("later-1").await.leave().await;
}

/// What a node's process was told by its operator to do is no alarm, there or anywhere.
#[tokio::test]
async fn starts_and_stops_in_good_order_are_no_alarm() {
    let mut cluster = Cluster::start(3).await;
    let guest = cluster.nodes[1].agent("guest").await;
    cluster.nodes[1].terminate();
    cluster.nodes[1].wait_exit();
    drop(guest);
    for by in [0, 2] {
        eventually("the node is known to have left", || async {
            in_state(&view(&cluster.nodes[by]).await, "left") == ["node-1"]
        })
        .await;
    }
    cluster.nodes[1].start_again();
    cluster.is_whole().await;
    for node in &mut cluster.nodes {
        node.terminate();
        node.wait_exit();
        let alarms = alarms(&node.log.text());
        assert!(alarms.is_empty(), "{alarms:#?}");
    }
}

#[tokio::test]
async fn a_crash_is_told_of_in_few_words() {
    let mut cluster = Cluster::start(3).await;
    cluster.nodes[1].kill9();
    eventually("the node is known to be dead", || async {
        in_state(&view(&cluster.nodes[0]).await, "dead") == ["node-1"]
    })
    .await;
    cluster.nodes[1].start_again();
    cluster.is_whole().await;
    let alarms = alarms(&cluster.nodes[0].log.text());
    let of_it = |alarm: &Value| alarm["name"] == "node-1" || alarm["seed"].is_string();
    assert!(alarms.iter().all(of_it), "{alarms:#?}");
    assert!((1..=3).contains(&alarms.len()), "suspect, dead, a seed: {alarms:#?}");
}

#[tokio::test]
async fn a_node_that_stood_still_takes_nobody_for_dead() {
    let cluster = Cluster::start(3).await;
    cluster.nodes[1].signal(Signal::STOP);
    eventually("it is known to hang", || async {
        in_state(&view(&cluster.nodes[0]).await, "dead") == ["node-1"]
    })
    .await;
    cluster.nodes[1].signal(Signal::CONT);
    cluster.is_whole().await;
    let log = cluster.nodes[1].log.text();
    let deaths = alarms(&log).into_iter().filter(|alarm| alarm["now"] == "dead");
    assert_eq!(deaths.count(), 0, "{log}");
}

#[tokio::test]
async fn certificates_of_an_operator_serve_instead_of_a_secret() {
    let addresses = [loopback_address(), loopback_address()];
    let operator = Operator::new();
    let seeds = addresses.map(|address| format!("{address}:7946")).join(",");
    let mut nodes = Vec::new();
    for (n, address) in addresses.iter().enumerate() {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let (name, address) = (format!("node-{n}"), address.to_string());
        let path = |file: &str| folder.path().join(file).display().to_string();
        let (ca, cert, key, data) =
            (path("ca.pem"), path("node.pem"), path("node.key"), path("data"));
        let settings = [
            ("SEEDS", seeds.as_str()),
            ("MESH_HOST", &address),
            ("NODE_NAME", &name),
            ("MESH_CA", &ca),
            ("MESH_CERT", &cert),
            ("MESH_KEY", &key),
            ("DATA_DIR", &data),
        ];
        // A certificate for any node; the refusal says what this one needs.
        operator.hand_out(folder.path(), &["mesh.arc-relay.internal".into()]);
        let mut command = Relay::command(folder.path());
        command.envs(settings);
        let refused = process::run(command).await.expect_code(1).stderr;
        let names = refused.split("DNS:").skip(1);
        let names = names.map(|name| name.split([',', '`']).next().unwrap_or_default());
        let names: Vec<String> = names.map(str::to_owned).collect();
        assert_eq!(names.len(), 2, "{refused}");
        operator.hand_out(folder.path(), &names);
        nodes.push((Relay::with(&settings), folder));
    }
    tests::cluster::are_one(&[&nodes[0].0, &nodes[1].0]).await;
    let token = nodes[0].0.register("trusted").await;
    Client::connect(&nodes[1].0, &token).await.leave().await;
}

/// Who keeps the key of a cluster's authority.
struct Operator(rcgen::CertifiedIssuer<'static, rcgen::KeyPair>);

impl Operator {
    fn new() -> Self {
        let mut params = rcgen::CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = rcgen::KeyPair::generate().expect("a key can be made");
        Self(rcgen::CertifiedIssuer::self_signed(params, key).expect("a key can sign"))
    }

    /// Writes `ca.pem`, `node.pem` and `node.key` for a node with these names.
    fn hand_out(&self, folder: &std::path::Path, names: &[String]) {
        let key = rcgen::KeyPair::generate().expect("a key can be made");
        let params = rcgen::CertificateParams::new(names).expect("these are names");
        let certificate = params.signed_by(&key, &self.0).expect("a key can sign");
        for (file, text) in [
            ("ca.pem", self.0.pem()),
            ("node.pem", certificate.pem()),
            ("node.key", key.serialize_pem()),
        ] {
            std::fs::write(folder.join(file), text).expect("the folder can be written to");
        }
    }
}
