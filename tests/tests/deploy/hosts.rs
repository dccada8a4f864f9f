//! Processes with the environments of containers, each on a host of its own that has names for all of them.
//!
//! A container's network is a network namespace, its volume a folder, and what its resolver knows a file.

use std::{
    fs::{self, File},
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread,
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;
use tests::{arc_relay, cluster::in_state, eventually, http, netns::Network};

use crate::compose::Environment;

/// Where the ops listener of an image is.
const OPS: u16 = 8081;

/// Runs the relay with a resolver and a volume of its own.
const CONTAINER: &str = "mount --bind \"$0\" /etc/hosts && mount -t tmpfs tmpfs /var/lib && \
                         mkdir /var/lib/arc-relay && mount --bind \"$1\" /var/lib/arc-relay && \
                         shift && exec \"$@\"";

/// Containers, as far as the relay can tell.
pub(crate) struct Containers<'a> {
    network: &'a Network,
    folder: TempDir,
    secret: String,
}

/// One of them; killed when dropped.
pub(crate) struct Container {
    pub(crate) name: String,
    pub(crate) address: Ipv4Addr,
    child: Child,
    log: PathBuf,
}

impl<'a> Containers<'a> {
    pub(crate) fn on(network: &'a Network) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        Self { network, folder, secret: tests::cluster::new_secret() }
    }

    /// From now on these names lead to these hosts, for all.
    pub(crate) fn name(&self, names: &[(&str, usize)]) {
        let line =
            |(name, host): &(&str, usize)| format!("{} {name}\n", self.network.address(*host));
        let text: String = names.iter().map(line).collect();
        // Written in place: it is mounted already.
        fs::write(self.folder.path().join("hosts"), format!("127.0.0.1 localhost\n{text}"))
            .expect("a test writes into its folder");
    }

    /// Starts the container of that name, with what is on its volume, on that host.
    pub(crate) fn start(&self, name: &str, environment: &Environment, host: usize) -> Container {
        let volume = self.folder.path().join(name);
        fs::create_dir_all(&volume).expect("a test writes into its folder");
        let log = self.folder.path().join(format!("{name}.log"));
        let open = || File::options().create(true).append(true).open(&log);
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", CONTAINER]).arg(self.folder.path().join("hosts"));
        command.arg(volume).arg(arc_relay()).current_dir("/").env_clear();
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.envs(environment).env("CLUSTER_SECRET", &self.secret).stdin(Stdio::null());
        command.stdout(open().expect("a log can be written"));
        command.stderr(open().expect("a log can be written"));
        let child = self.network.host(host).run(|| command.spawn().expect("unshare can be run"));
        Container { name: name.to_owned(), address: self.network.address(host), child, log }
    }
}

impl Container {
    pub(crate) fn ops(&self) -> SocketAddr {
        (self.address, OPS).into()
    }

    /// Registers; the status of the answer.
    pub(crate) async fn register(&self, agent: &str) -> u16 {
        let body = json!({ "agent_id": agent }).to_string();
        http::post(self.ops(), "/register", body).await.status
    }

    /// A crash.
    pub(crate) fn kill(&mut self) {
        // It may have ended, which a test sees elsewhere.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// An orderly stop, which must end well.
    pub(crate) fn stop(&mut self) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        kill_process(pid.expect("a process has an id"), Signal::TERM).expect("it runs");
        let status = self.child.wait().expect("it is this test's child");
        assert!(status.success(), "{} ends well: {status}", self.name);
    }

    async fn view(&self) -> Value {
        http::get(self.ops(), "/cluster").await.expect_status(200).json()
    }

    /// Whether it takes agents; not if nobody answers.
    async fn is_ready(&self) -> bool {
        tokio::net::TcpStream::connect(self.ops()).await.is_ok()
            && http::get(self.ops(), "/ready").await.status == 200
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        self.kill();
        if thread::panicking() {
            let log = fs::read_to_string(&self.log).unwrap_or_default();
            let from = log.lines().count().saturating_sub(30);
            let tail: Vec<&str> = log.lines().skip(from).collect();
            eprintln!("the log of {} ends with:\n{}", self.name, tail.join("\n"));
        }
    }
}

/// Waits until all take agents, and each sees exactly these alive.
pub(crate) async fn are_one(containers: &[&Container]) {
    let mut names: Vec<&str> = containers.iter().map(|one| one.name.as_str()).collect();
    names.sort_unstable();
    for one in containers {
        eventually(&format!("{} takes agents", one.name), || one.is_ready()).await;
    }
    for one in containers {
        eventually(&format!("{} sees {names:?}", one.name), async || {
            let mut alive = in_state(&one.view().await, "alive");
            alive.sort_unstable();
            alive == names
        })
        .await;
    }
}

/// The region that a container says of that node.
pub(crate) async fn region(says: &Container, node: &str) -> Value {
    let view = says.view().await;
    let nodes = view["nodes"].as_array().expect("a list of nodes");
    nodes.iter().find(|one| one["name"] == node).map_or(Value::Null, |one| one["region"].clone())
}
