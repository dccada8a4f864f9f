//! A relay's process, from its start to its end, and over its restarts.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{Client, Log, Metrics, PATIENCE, arc_relay, eventually, http};

/// What every relay under test is told, unless its test says otherwise: ports of the system's
/// choosing, and no rate or address limit, for all tests come from one address and in haste.
const SETTINGS: [(&str, &str); 11] = [
    ("HOST", "127.0.0.1"),
    ("PORT", "0"),
    ("STATS_PORT", "0"),
    ("LOG_FORMAT", "json"),
    ("LOG_LEVEL", "debug"),
    ("RATE_LIMIT_PER_MIN", "0"),
    ("RATE_LIMIT_PER_HOUR", "0"),
    ("REGISTRATION_LIMIT_PER_MIN", "0"),
    ("CONNECTIONS_PER_ADDRESS", "0"),
    ("HANDSHAKES_PER_ADDRESS", "0"),
    ("DATA_DIR", "data"),
];

/// A running relay with an empty data folder of its own; both end with this value.
pub struct Relay {
    /// Where agents connect.
    pub public: SocketAddr,
    /// Where operators look.
    pub ops: SocketAddr,
    /// What it wrote so far.
    pub log: Log,
    child: Child,
    settings: Vec<(String, String)>,
    folder: TempDir,
}

impl Relay {
    /// Starts a relay and waits until it listens.
    pub fn start() -> Self {
        Self::with(&[])
    }

    /// Starts a relay with these environment variables on top of the harness's own.
    pub fn with(settings: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let settings: Vec<(String, String)> =
            settings.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let log = Log::default();
        let (child, public, ops) = launch(folder.path(), &settings, &log);
        Self { public, ops, log, child, settings, folder }
    }

    /// A command that runs the binary in `folder` with nothing but the harness's settings in its
    /// environment: for those who want more of it than a relay that starts.
    pub fn command(folder: &Path) -> Command {
        let mut command = Command::new(arc_relay());
        command.current_dir(folder).env_clear().envs(SETTINGS);
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command
    }

    /// `arc-relay WORDS…` as its operator types them in its folder.
    pub fn operator(&self, words: &[&str]) -> Command {
        let mut command = Command::new(arc_relay());
        command.args(words).current_dir(self.folder()).env_clear();
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.env("ARC_OPS", format!("http://{}", self.ops)).env("DATA_DIR", "data");
        command
    }

    /// The folder it runs in.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The folder that it keeps its data in.
    pub fn data_dir(&self) -> PathBuf {
        self.folder().join("data")
    }

    /// The address agents are given: `http://127.0.0.1:…`.
    pub fn http_url(&self) -> String {
        format!("http://{}", self.public)
    }

    /// Where it sends clients of plain HTTP to the encrypted port.
    pub fn plain(&self) -> SocketAddr {
        let entry = self.log.last("listening, to send clients to https");
        let entry = entry.expect("it says that it listens");
        let address = entry["http"].as_str().expect("it says where");
        address.parse().expect("that is an address")
    }

    /// The process id of its present run.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether the process runs.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("the relay is this test's child").is_none()
    }

    /// Sends SIGTERM, as an orderly stop begins.
    pub fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// Sends any signal.
    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        kill_process(pid.expect("a process has an id"), signal)
            .expect("the relay can be signalled");
    }

    /// Kills the process as a crash would: SIGKILL, no word to anybody.
    pub fn kill9(&mut self) {
        self.child.kill().expect("the relay can be killed");
        self.child.wait().expect("the relay is this test's child");
    }

    /// Waits until the process has ended by itself.
    pub fn wait_exit(&mut self) -> ExitStatus {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("the relay is this test's child") {
                return status;
            }
            assert!(start.elapsed() < PATIENCE, "the relay still runs after {PATIENCE:?}");
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Changes what its next run is told.
    pub fn set(&mut self, variable: &str, value: &str) {
        self.settings.retain(|(known, _)| known != variable);
        self.settings.push((variable.to_owned(), value.to_owned()));
    }

    /// Loses its disk: it must have ended, and has an empty data folder in its next run.
    pub fn wipe(&mut self) {
        assert!(!self.is_running(), "the last run must have ended");
        std::fs::remove_dir_all(self.data_dir()).expect("the data folder can be removed");
    }

    /// Starts it again on the data of its last run, which must have ended; the ports change.
    pub fn start_again(&mut self) {
        assert!(!self.is_running(), "the last run must have ended");
        (self.child, self.public, self.ops) = launch(self.folder.path(), &self.settings, &self.log);
    }

    /// Resident memory in bytes (`VmRSS`).
    pub fn resident_bytes(&self) -> u64 {
        let path = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(path).expect("the relay runs");
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("VmRSS is listed");
        let kib = line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok());
        kib.expect("VmRSS is a number of kB") * 1024
    }

    /// The present metrics.
    pub async fn metrics(&self) -> Metrics {
        Metrics::parse(&http::get(self.ops, "/metrics").await.expect_status(200).text())
    }

    /// The present `/stats`.
    pub async fn stats(&self) -> Value {
        http::get(self.ops, "/stats").await.expect_status(200).json()
    }

    /// Registers `agent`, which must be free, and returns its token.
    pub async fn register(&self, agent: &str) -> String {
        let body = json!({ "agent_id": agent }).to_string();
        let answer = http::post(self.public, "/register", body).await.expect_status(200).json();
        answer["token"].as_str().expect("a registration's token is a string").to_owned()
    }

    /// Registers `agent`, which must be free, and connects it.
    pub async fn agent(&self, agent: &str) -> Client {
        let token = self.register(agent).await;
        Client::connect(self, &token).await
    }

    /// Makes an administrator's request to the ops listener.
    pub async fn admin(&self, method: &str, path: &str) -> http::Response {
        self.admin_with(method, path, "").await
    }

    /// The same, with a body.
    pub async fn admin_with(
        &self,
        method: &str,
        path: &str,
        body: impl Into<Bytes>,
    ) -> http::Response {
        let secret = std::fs::read_to_string(self.data_dir().join("admin.token"))
            .expect("the relay writes the administrator's token into its data folder");
        let bearer = format!("Bearer {}", secret.trim());
        let request = http::request(method, path).header("authorization", bearer);
        http::send(self.ops, request, body).await
    }

    /// Waits until it takes agents.
    pub async fn is_ready(&self) {
        eventually("the node takes agents", || async {
            http::get(self.ops, "/ready").await.status == 200
        })
        .await;
    }

    /// Waits until this many sessions are open.
    pub async fn wait_for_connections(&self, count: u64) {
        eventually(&format!("{count} sessions are open"), || async {
            self.stats().await["active_connections"] == count
        })
        .await;
    }

    /// Fails unless the process runs, answers, carries a message, and nothing in it has panicked.
    pub async fn assert_healthy(&mut self) {
        assert!(self.is_running(), "the relay has ended");
        http::get(self.public, "/health").await.expect_status(200);
        let name = format!("checker-{}", self.log.len());
        let mut checker = self.agent(&name).await;
        checker.send(json!({"to": [name], "payload": "to myself"})).await;
        assert_eq!(checker.next().await["payload"], "to myself");
        assert!(!self.log.text().contains("panicked"), "something in the relay has panicked");
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        // Both fail only if the process has ended and was waited for already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("the relay's log ends with:\n{}", self.log.tail());
        }
    }
}

fn launch(
    folder: &Path,
    settings: &[(String, String)],
    log: &Log,
) -> (Child, SocketAddr, SocketAddr) {
    let before = log.len();
    let mut command = Relay::command(folder);
    command.envs(settings.iter().cloned());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the relay's binary can be run");
    log.drain(child.stdout.take().expect("stdout is piped"));
    log.drain(child.stderr.take().expect("stderr is piped"));

    let running = || matches!(child.try_wait(), Ok(None));
    let Some(entry) = log.wait_for("listening", before, Instant::now() + PATIENCE, running) else {
        let _ = child.kill();
        let _ = child.wait();
        panic!("the relay did not say `listening`; its log:\n{}", log.tail());
    };
    let address = |key: &str| {
        let text = entry[key].as_str().unwrap_or_else(|| panic!("no `{key}` in {entry}"));
        text.parse().unwrap_or_else(|_| panic!("`{key}` is no socket address in {entry}"))
    };
    let (public, ops) = (address("public"), address("ops"));
    (child, public, ops)
}
