//! `deploy/upgrade.sh compose`: three relays behind `upgrade_docker`, which stands in for Docker and has processes for
//! containers, files for images, and a folder for each service.

use std::{
    fs,
    net::IpAddr,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Stdio,
};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tests::{cluster::loopback_address, scripts::script, within};
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::{
    files,
    upgrade::{Releases, Run, takes_agents, talk, upgrade},
};

const SERVICES: [&str; 3] = ["relay-1", "relay-2", "relay-3"];

/// The services' folders, and what Docker would have; all processes end with it.
struct Docker {
    folder: TempDir,
    addresses: Vec<IpAddr>,
}

impl Docker {
    /// With a service's settings in each folder, and the image of the old release.
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let addresses: Vec<IpAddr> = SERVICES.iter().map(|_| loopback_address().into()).collect();
        let seeds: Vec<String> =
            addresses.iter().map(|address| format!("{address}:7946")).collect();
        let secret = tests::cluster::new_secret();
        for (service, address) in SERVICES.iter().zip(&addresses) {
            let settings = format!(
                "HOST={address}\nSTATS_HOST={address}\nMESH_HOST={address}\nNODE_NAME={service}\nSEEDS={}\n\
                 CLUSTER_SECRET={secret}\nDATA_DIR=data\nRATE_LIMIT_PER_MIN=0\nRATE_LIMIT_PER_HOUR=0\n",
                seeds.join(",")
            );
            let here = folder.path().join(service);
            fs::create_dir(&here).expect("a test writes into its folder");
            fs::write(here.join("settings"), settings).expect("a test writes into its folder");
        }
        for name in ["bin", "images"] {
            fs::create_dir(folder.path().join(name)).expect("a test writes into its folder");
        }
        fs::write(folder.path().join("compose.yaml"), "").expect("a test writes into its folder");
        symlink(script("tests/tests/deploy/upgrade_docker"), folder.path().join("bin/docker"))
            .expect("a test writes into its folder");
        Self { folder, addresses }
    }

    /// What a build makes from now on.
    fn source(&self, release: &Path) {
        fs::copy(release, self.path("source")).expect("a test writes into its folder");
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn read(&self, name: &str) -> String {
        let text =
            fs::read_to_string(self.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
        text.trim().to_owned()
    }

    /// Of all services: what that file of theirs says.
    fn each(&self, file: &str) -> Vec<String> {
        SERVICES.iter().map(|service| self.read(&format!("{service}/{file}"))).collect()
    }

    async fn docker(&self, arguments: &[&str]) {
        let output =
            tokio::process::Command::new(self.path("bin/docker")).args(arguments).output().await;
        assert!(output.expect("a script can be run").status.success(), "{arguments:?}");
    }

    /// Ends a run of the script as soon as it says this; what it says then.
    async fn broken_off_at(&self, says: &str) -> String {
        let path = std::env::var("PATH").unwrap_or_default();
        let mut script = tokio::process::Command::new(files::path("upgrade.sh"));
        script.arg("compose").arg("--file").arg(self.path("compose.yaml"));
        script.env("PATH", format!("{}:{path}", self.path("bin").display()));
        script.stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut script = script.spawn().expect("a script can be run");
        let mut lines = BufReader::new(script.stdout.take().expect("it is piped")).lines();
        while within("what the script does", lines.next_line()).await.expect("text").as_deref()
            != Some(says)
        {}
        let pid = script.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        kill_process(pid.expect("it runs"), Signal::TERM).expect("it runs");
        let ended = within("the script's end", script.wait_with_output()).await.expect("it ends");
        assert!(!ended.status.success(), "it was broken off");
        files::text_of(&ended.stderr)
    }

    async fn upgrade(&self, arguments: &[&str]) -> Run {
        let file = self.path("compose.yaml");
        let file = ["compose", "--file", file.to_str().expect("a path is text")];
        let all: Vec<&str> = file.iter().chain(arguments).copied().collect();
        upgrade(&self.path("bin"), &all).await
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        for service in SERVICES {
            let pid = fs::read_to_string(self.path(&format!("{service}/pid"))).unwrap_or_default();
            if let Some(pid) = pid.trim().parse().ok().and_then(Pid::from_raw) {
                // It may have ended.
                let _ = kill_process(pid, Signal::KILL);
            }
            if std::thread::panicking() {
                let log =
                    fs::read_to_string(self.path(&format!("{service}/log"))).unwrap_or_default();
                let from = log.lines().count().saturating_sub(20);
                let tail: Vec<&str> = log.lines().skip(from).collect();
                eprintln!("the log of {service} ends with:\n{}", tail.join("\n"));
            }
        }
    }
}

#[tokio::test]
async fn services_are_upgraded_one_after_the_other_and_nobody_misses_a_message() {
    let docker = Docker::new();
    let releases = Releases::within(docker.folder.path(), None);
    docker.source(&releases.old);
    docker.docker(&["compose", "--file", "compose.yaml", "build"]).await;
    for service in SERVICES {
        docker.docker(&["compose", "--file", "compose.yaml", "up", "--detach", service]).await;
    }
    for address in &docker.addresses {
        takes_agents(*address).await;
    }
    let talk = talk(&docker.addresses).await;

    let before = docker.each("pid");
    docker.source(&releases.new);
    docker.upgrade(&["--dry-run"]).await.expect_success("relay-3: would be drained and replaced");
    assert_eq!(docker.each("pid"), before, "nothing is changed");

    let told = docker.broken_off_at("== relay-2").await;
    assert!(
        told.contains("broken off at relay-2") && told.contains("Upgraded: relay-1."),
        "{told}"
    );
    docker.upgrade(&[]).await.expect_success("all are upgraded");
    let new = docker.read("tags/latest");
    assert_eq!(docker.each("image"), [new.as_str(); 3]);

    let before = docker.each("pid");
    docker.upgrade(&["relay-1", "relay-2", "relay-3"]).await.expect_success("all are upgraded");
    assert_eq!(docker.each("pid"), before, "run again, it does nothing");

    docker.source(&releases.bad);
    let run = docker.upgrade(&[]).await;
    run.expect_failure(&["relay-1 was not upgraded", "is back there, and the cluster is whole"]);
    assert_eq!(docker.each("image"), [new.as_str(); 3]);

    talk.end().await;
    docker.docker(&["compose", "--file", "compose.yaml", "stop", "relay-2"]).await;
    let run = docker.upgrade(&["relay-1", "relay-3"]).await;
    run.expect_failure(&[
        "nothing is changed. relay-1: the cluster is not whole: relay-2 keeps the names",
    ]);
}

#[tokio::test]
async fn what_it_is_told_wrongly_it_says_in_a_line() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    for (arguments, why) in [
        (&[][..], "say which way: systemd or compose"),
        (&["kubernetes"], "say which way: systemd or compose"),
        (&["systemd"], "name each node by its host"),
        (&["systemd", "--binary", "/nowhere", "relay-1"], "no such file: /nowhere"),
        (&["systemd", "relay-1; reboot"], "no name of a node: relay-1; reboot"),
        (&["systemd", "--pull", "relay-1"], "--pull goes with compose"),
        (&["compose", "--file", "/nowhere"], "no such file: /nowhere"),
        (&["compose", "--binary", "/bin/true"], "--binary goes with systemd"),
        (&["compose", "--patience", "long"], "--patience is a number of seconds, not 'long'"),
        (&["compose", "--frob"], "unknown option: --frob"),
    ] {
        upgrade(folder.path(), arguments).await.expect_failure(&[&format!("upgrade.sh: {why}")]);
    }
}
