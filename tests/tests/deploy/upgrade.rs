//! What both ways to upgrade a cluster node by node have in common: the script, the releases that it is given,
//! and agents that talk meanwhile. The two ways are in `upgrade_systemd` and `upgrade_compose`.

use std::{
    fs,
    net::{IpAddr, SocketAddr},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use serde_json::json;
use tests::{cluster::loopback_address, eventually, http, skip, skip_for_want_of};
use tokio::process::Command;

use crate::{files, talk::Talk};

/// How long one run may take at most: three nodes that drain and start on a busy machine.
const RUN_MAX: Duration = Duration::from_mins(4);

/// Three releases, as files: the one that runs, its successor, and one that is installed and never starts.
pub(crate) struct Releases {
    pub(crate) old: PathBuf,
    pub(crate) new: PathBuf,
    pub(crate) bad: PathBuf,
}

impl Releases {
    /// Makes them in that folder. Where they are installed, the old one is found at `old_there`, if not at its place
    /// in the folder: the bad one does all that it does, but serve.
    pub(crate) fn within(folder: &Path, old_there: Option<&Path>) -> Self {
        let [old, new, bad] = ["old", "new", "bad"].map(|name| folder.join(name));
        // Of what is stripped away three machines would keep nine copies in memory.
        files::strip(&old);
        let mut longer = fs::read(&old).expect("it was just written");
        longer.push(b'\n');
        write_program(&new, &longer);
        let old_there = old_there.unwrap_or(&old).display();
        let script = format!("#!/bin/sh\n[ $# -gt 0 ] || exit 1\nexec {old_there} \"$@\"\n");
        write_program(&bad, script.as_bytes());
        Self { old, new, bad }
    }
}

/// Writes an executable file.
pub(crate) fn write_program(path: &Path, content: &[u8]) {
    fs::write(path, content).expect("a test writes into its folder");
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("it is the test's own");
}

/// How a run of the script ended, and all that it said.
pub(crate) struct Run {
    pub(crate) succeeded: bool,
    pub(crate) said: String,
}

impl Run {
    /// It must have gone well, and said so.
    pub(crate) fn expect_success(&self, says: &str) {
        assert!(self.succeeded && self.said.contains(says), "{}", self.said);
    }

    /// It must have failed, and said each of these.
    pub(crate) fn expect_failure(&self, says: &[&str]) {
        assert!(!self.succeeded, "{}", self.said);
        for part in says {
            assert!(self.said.contains(part), "{part}: {}", self.said);
        }
    }
}

#[tokio::test]
async fn a_machine_that_hangs_ends_the_upgrade_with_a_line() {
    if !files::has("ssh") {
        return skip_for_want_of("ssh");
    }
    let address = loopback_address();
    // Connections are taken by the kernel, and nobody ever says a word on them.
    let Ok(_silent) = std::net::TcpListener::bind((address, 22)) else {
        return skip("only root can be where ssh looks for a machine");
    };
    let nothing = tempfile::tempdir().expect("a temporary folder can be made");
    let host = address.to_string();
    let run = upgrade(nothing.path(), &["systemd", "--binary", "/bin/true", &host]).await;
    let why = format!("nothing is changed. {host}: Connection to {host} port 22 timed out");
    run.expect_failure(&[&why, "Mend that first"]);
}

/// Runs `deploy/upgrade.sh` with programs of that folder before all others.
pub(crate) async fn upgrade(programs: &Path, arguments: &[&str]) -> Run {
    let path = std::env::var("PATH").unwrap_or_default();
    let mut script = Command::new(files::path("upgrade.sh"));
    script.args(arguments).env("PATH", format!("{}:{path}", programs.display()));
    script.stdin(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(RUN_MAX, script.output()).await;
    let output = output.expect("it comes to an end").expect("a script can be run");
    let said = files::text_of(&output.stdout) + &files::text_of(&output.stderr);
    Run { succeeded: output.status.success(), said }
}

/// Waits until the node at that address takes agents.
pub(crate) async fn takes_agents(address: IpAddr) {
    let public = SocketAddr::new(address, 8080);
    eventually(&format!("{address} takes agents"), async || {
        tokio::net::TcpStream::connect(public).await.is_ok()
            && http::get(public, "/health").await.status == 200
    })
    .await;
}

/// Two agents for each node, in a talk that goes round.
pub(crate) async fn talk(addresses: &[IpAddr]) -> Talk {
    let nodes: Vec<SocketAddr> = addresses.iter().map(|address| (*address, 8080).into()).collect();
    let mut agents = Vec::new();
    for number in 0..2 * nodes.len() {
        let id = format!("talker-{number}");
        let body = json!({ "agent_id": id }).to_string();
        let answer = http::post(nodes[0], "/register", body).await.expect_status(200).json();
        let token = answer["token"].as_str().expect("a token is text").to_owned();
        agents.push((id, token));
    }
    Talk::among(&agents, &nodes)
}
