//! `deploy/upgrade.sh systemd`: three machines, each with an own systemd, file system and network address, on which
//! the installer has set a relay up; `ssh` is a way into them.

use std::{
    fs,
    net::IpAddr,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tests::{eventually, netns::Network, repository, skip_for_want_of};

use crate::{
    files::{said, text_of},
    upgrade::{Releases, Run, takes_agents, talk, upgrade, write_program},
};

const HOSTS: [&str; 3] = ["relay-1", "relay-2", "relay-3"];

/// What stands where `ssh` does: a shell on one of the machines. The line is lost before the step that `lost` names.
const SSH: &str = r#"#!/bin/sh
while [ "$1" = -o ]; do shift 2; done
machine=$(dirname "$0")/../$1
pid=$(cat "$machine/pid") || exit 255
there() {
    env -i PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin nsenter --target $pid --all sh -c "$1"
}
case $2 in
*'sh -s')
    script=$(cat)
    if [ "$(printf '%s' "$script" | tail -n 1)" = "$(cat "$machine/lost" 2>/dev/null)" ]; then
        rm "$machine/lost"
        exit 255
    fi
    printf '%s\n' "$script" | there "$2"
    ;;
*) there "$2" ;;
esac
"#;

/// A relay that says who asks whether its cluster is whole.
const CURIOUS: &str = "#!/bin/sh\nid -un >>/tmp/asked\nexec /walk/old \"$@\"\n";

/// What a machine does: nothing but what it is told.
const WALK: &str = "#!/bin/sh
install -D -m 600 /walk/environment /etc/arc-relay/environment
touch /walk/began
until [ -e /walk/end ]; do sleep 0.2; done
";

/// The machines; they are gone when this is dropped.
struct Machines {
    folder: TempDir,
    booted: Vec<Child>,
}

impl Machines {
    /// Boots them; none, and said so, where that cannot be.
    async fn boot(network: &Network) -> Option<Self> {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let mut machines = Self { folder, booted: Vec::new() };
        fs::create_dir(machines.programs()).expect("a test writes into its folder");
        write_program(&machines.programs().join("ssh"), SSH.as_bytes());
        let secret = tests::cluster::new_secret();
        for (number, host) in HOSTS.iter().enumerate() {
            let here = machines.path(host);
            fs::create_dir(&here).expect("a test writes into its folder");
            write_program(&here.join("walk"), WALK.as_bytes());
            fs::write(here.join("environment"), environment(network, number, &secret))
                .expect("a test writes into its folder");
            let mut boot = Command::new(repository().join("tests/systemd/boot"));
            boot.arg(&here).arg("in-network").stdin(Stdio::null()).stdout(Stdio::null());
            // It ends all that it has begun when it is told to; a test that fails tells it.
            boot.process_group(0);
            let child = network.host(number).run(|| boot.spawn().expect("a script can be run"));
            machines.booted.push(child);
        }
        if !machines.have_begun().await {
            skip_for_want_of("way to boot systemd in namespaces");
            return None;
        }
        Some(machines)
    }

    /// Waits until all do what they are told; whether they do.
    async fn have_begun(&mut self) -> bool {
        for (host, child) in HOSTS.iter().zip(&mut self.booted) {
            let began = self.folder.path().join(host).join("began");
            let mut ended = false;
            eventually("a machine has booted", || {
                ended = child.try_wait().expect("it is a child").is_some();
                let over = ended || began.exists();
                async move { over }
            })
            .await;
            if ended {
                return false;
            }
        }
        true
    }

    fn path(&self, host: &str) -> PathBuf {
        self.folder.path().join(host)
    }

    fn programs(&self) -> PathBuf {
        self.folder.path().join("programs")
    }

    /// What a command prints there, which must go well.
    fn run(&self, host: &str, command: &str) -> String {
        let mut ssh = Command::new(self.programs().join("ssh"));
        said(ssh.args([host, command])).trim().to_owned()
    }

    /// Puts a program in the relay's place there, and restarts nothing.
    fn put(&self, host: &str, program: &str) {
        let install = format!("/bin/install {program} /usr/local/bin/new");
        self.run(host, &format!("{install} && mv /usr/local/bin/new /usr/local/bin/arc-relay"));
    }

    /// The process ids of the three relays.
    fn pids(&self) -> Vec<String> {
        let pid =
            |host: &&str| self.run(host, "systemctl show --property=MainPID --value arc-relay");
        HOSTS.iter().map(pid).collect()
    }

    /// Whether each machine's relay is that release, on the disk and in memory.
    fn all_run(&self, release: &Path) -> bool {
        let sum = said(Command::new("sha256sum").arg(release));
        let sum = sum.split(' ').next().expect("a sum comes first").to_owned();
        HOSTS.iter().zip(self.pids()).all(|(host, pid)| {
            let sums =
                self.run(host, &format!("sha256sum /usr/local/bin/arc-relay /proc/{pid}/exe"));
            sums.lines().all(|line| line.starts_with(&sum))
        })
    }

    /// The next line to that machine is lost when this is to be done there.
    fn lose(&self, host: &str, step: &str) {
        fs::write(self.path(host).join("lost"), step).expect("a test may");
    }

    async fn upgrade(&self, arguments: &[&str]) -> Run {
        let all: Vec<&str> = ["systemd"].iter().chain(arguments).chain(&HOSTS).copied().collect();
        upgrade(&self.programs(), &all).await
    }
}

impl Drop for Machines {
    fn drop(&mut self) {
        for (host, child) in HOSTS.iter().zip(&mut self.booted) {
            // The machine comes to its end by itself then; if not, it is told.
            let _ = fs::write(self.folder.path().join(host).join("end"), "");
            let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
            if let Some(pid) = pid {
                let _ = kill_process(pid, Signal::TERM);
            }
            let _ = child.wait();
        }
    }
}

/// A machine's settings, as its operator would write them, but for TLS and limits.
fn environment(network: &Network, number: usize, secret: &str) -> String {
    let seeds: Vec<String> =
        (0..HOSTS.len()).map(|n| format!("{}:7946", network.address(n))).collect();
    let (seeds, own, name) = (seeds.join(","), &seeds[number], HOSTS[number]);
    format!(
        "HOST=0.0.0.0\nNODE_ENV=development\nSEEDS={seeds}\nADVERTISE={own}\nNODE_NAME={name}\n\
         CLUSTER_SECRET={secret}\nSTATS_PORT=9081\nDRAIN_DEADLINE=5s\nRATE_LIMIT_PER_MIN=0\nRATE_LIMIT_PER_HOUR=0\n"
    )
}

#[test]
fn machines_are_upgraded_one_after_the_other_and_nobody_misses_a_message() {
    let Some(network) = Network::with(HOSTS.len()) else { return };
    network.run(async || {
        let Some(machines) = Machines::boot(&network).await else { return };
        let releases = Releases::within(machines.folder.path(), Some(Path::new("/walk/old")));
        for host in HOSTS {
            fs::copy(&releases.old, machines.path(host).join("old")).expect("a test may");
            machines.run(host, "/repository/deploy/install.sh --binary /walk/old");
        }
        let addresses: Vec<IpAddr> = (0..3).map(|host| network.address(host).into()).collect();
        for address in &addresses {
            takes_agents(*address).await;
        }
        let talk = talk(&addresses).await;
        let [new, bad] = [&releases.new, &releases.bad].map(|path| path.to_str().expect("text"));

        let before = machines.pids();
        let run = machines.upgrade(&["--binary", new, "--dry-run"]).await;
        run.expect_success("relay-3: would be drained and replaced");
        assert_eq!(machines.pids(), before, "nothing is changed");

        nothing_is_run_as_root_for_the_relay(&machines, new).await;

        // As it is after a run that was broken off before the restart.
        fs::copy(&releases.new, machines.path("relay-2").join("new")).expect("a test may");
        machines.put("relay-2", "/walk/new");
        machines.lose("relay-1", "is_upgraded");
        machines.upgrade(&["--binary", new]).await.expect_success("all are upgraded");
        assert!(machines.all_run(&releases.new));
        for host in HOSTS {
            machines.run(host, "cmp /walk/old /var/cache/arc-relay-upgrade/former/arc-relay");
        }

        let before = machines.pids();
        machines.upgrade(&["--binary", new]).await.expect_success("runs this release already");
        assert_eq!(machines.pids(), before, "run again, it does nothing");

        what_an_earlier_upgrade_has_kept_is_not_put_back(&machines, bad).await;
        assert!(machines.all_run(&releases.new));
        assert_eq!(machines.pids(), before, "nothing was installed, so nothing is restarted");

        let run = machines.upgrade(&["--binary", bad]).await;
        run.expect_failure(&[
            "relay-1 was not upgraded",
            "is back there, and the cluster is whole",
            "Upgraded: none",
        ]);
        assert!(machines.all_run(&releases.new));

        talk.end().await;
        machines.run("relay-3", "systemctl stop arc-relay");
        let run = machines.upgrade(&["--binary", bad]).await;
        run.expect_failure(&["nothing is changed. relay-1: the cluster is not whole: relay-3"]);
        for host in HOSTS {
            let journal = Command::new(machines.programs().join("ssh"))
                .args([host, "journalctl --no-pager --unit arc-relay"])
                .output();
            let journal = text_of(&journal.expect("a script can be run").stdout);
            assert!(!journal.contains("panicked"), "{journal}");
        }
    });
}

async fn nothing_is_run_as_root_for_the_relay(machines: &Machines, new: &str) {
    write_program(&machines.path("relay-3").join("curious"), CURIOUS.as_bytes());
    machines.put("relay-3", "/walk/curious");
    machines.upgrade(&["--binary", new, "--dry-run"]).await.expect_success("relay-3: would be");
    assert_eq!(machines.run("relay-3", "sort -u /tmp/asked"), "arc-relay");
    machines.put("relay-3", "/walk/old");
}

/// It is still there, when the line is lost before anything of this upgrade is kept, or is installed.
async fn what_an_earlier_upgrade_has_kept_is_not_put_back(machines: &Machines, bad: &str) {
    machines.lose("relay-1", "remember");
    let run = machines.upgrade(&["--binary", bad]).await;
    run.expect_failure(&["relay-1: what runs there cannot be kept, so it is left as it is"]);
    machines.lose("relay-1", "replace");
    let run = machines.upgrade(&["--binary", bad]).await;
    run.expect_failure(&["relay-1 was not upgraded", "is back there"]);
}
