//! Networks of a test's own: hosts, each a network namespace, on a bridge in one more.
//!
//! The test itself runs in the namespace of the bridge ([`Network::run`]), so that its clients reach every
//! host; a node is started in the namespace of its host ([`Namespace::run`]). What is cut is cut between
//! hosts only, by nftables on the receiving one: the test still sees every node.
//!
//! Needs root, `ip` and `nft`. Touches nothing outside its own namespaces, and removes them when
//! dropped.

use std::{
    fs::File,
    io::Write,
    net::Ipv4Addr,
    os::fd::AsFd,
    panic::resume_unwind,
    process::{Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    thread,
};

use rustix::{
    process::geteuid,
    thread::{LinkNameSpaceType, move_into_link_name_space},
};

use crate::skip;

/// Where `ip netns` keeps the names of namespaces.
const NAMES: &str = "/run/netns";

/// The test's own address on the bridge.
const BRIDGE: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 254);

/// What each host filters: nothing, as long as `cut` names nobody.
const FILTER: &str = "
table ip cuts {
    set cut { type ipv4_addr; }
    chain arriving {
        type filter hook input priority filter; policy accept;
        ip saddr @cut drop
    }
}
";

/// A network namespace with nothing but its loopback; removed when dropped.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    handle: File,
}

/// Hosts on a bridge, numbered from 0.
#[derive(Debug)]
pub struct Network {
    bridge: Namespace,
    hosts: Vec<Namespace>,
}

impl Namespace {
    /// A new one; or why there can be none.
    fn new() -> Result<Self, String> {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let name = format!("arc-{}-{number}", std::process::id());
        run(Command::new("ip").args(["netns", "add", &name]), "")?;
        let opened = File::open(format!("{NAMES}/{name}"));
        let handle = opened.map_err(|error| format!("{NAMES}/{name}: {error}"))?;
        let namespace = Self { name, handle };
        namespace.ip("link set lo up");
        Ok(namespace)
    }

    /// Does `work` on a thread that lives in this namespace: sockets that it opens and processes that it
    /// starts are in there, and stay there.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let inside = scope.spawn(|| {
                self.enter();
                work()
            });
            inside.join().unwrap_or_else(|panic| resume_unwind(panic))
        })
    }

    /// Moves the calling thread into this namespace, for good.
    fn enter(&self) {
        move_into_link_name_space(self.handle.as_fd(), Some(LinkNameSpaceType::Network))
            .expect("root may enter a namespace");
    }

    /// Runs `ip` for this namespace.
    pub(crate) fn ip(&self, arguments: &str) {
        let mut ip = Command::new("ip");
        ip.args(["-n", &self.name]).args(arguments.split(' '));
        run(&mut ip, "").expect("a namespace takes what every kernel has");
    }

    fn nft(&self, script: &str) -> Result<(), String> {
        self.run(|| run(Command::new("nft").args(["-f", "-"]), script))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if let Err(why) = run(Command::new("ip").args(["netns", "delete", &self.name]), "") {
            eprintln!("a namespace is left behind: {why}");
        }
    }
}

impl Network {
    /// This many hosts that all reach each other; none, and said so, where there can be no such thing.
    pub fn with(hosts: usize) -> Option<Self> {
        let made = usable().and_then(|()| Self::build(hosts));
        made.map_err(|why| skip(&format!("no network namespaces: {why}"))).ok()
    }

    fn build(hosts: usize) -> Result<Self, String> {
        let bridge = Namespace::new()?;
        bridge.ip("link add bridge type bridge");
        bridge.ip(&format!("addr add {BRIDGE}/24 dev bridge"));
        bridge.ip("link set bridge up");
        let mut network = Self { bridge, hosts: Vec::new() };
        for number in 0..hosts {
            let host = Namespace::new()?;
            let (bridge, name) = (&network.bridge, &host.name);
            bridge.ip(&format!("link add to{number} type veth peer name lan netns {name}"));
            bridge.ip(&format!("link set to{number} master bridge up"));
            host.ip(&format!("addr add {}/24 dev lan", network.address(number)));
            host.ip("link set lan up");
            host.nft(FILTER)?;
            network.hosts.push(host);
        }
        Ok(network)
    }

    /// How many hosts there are.
    pub fn len(&self) -> usize {
        self.hosts.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.hosts.is_empty()
    }

    /// A host's address on the bridge.
    pub fn address(&self, host: usize) -> Ipv4Addr {
        let number = u8::try_from(host + 1).expect("a network is small");
        assert!(number < BRIDGE.octets()[3], "a network is small");
        Ipv4Addr::new(10, 77, 0, number)
    }

    /// Runs a test on the bridge, from where it reaches every host.
    pub fn run(&self, test: impl AsyncFnOnce() + Send) {
        self.bridge.run(|| {
            let mut runtime = tokio::runtime::Builder::new_current_thread();
            // One thread, for it is threads that are in a namespace.
            let runtime = runtime.enable_all().build().expect("a runtime can be made");
            runtime.block_on(test());
        });
    }

    /// A host.
    pub fn host(&self, host: usize) -> &Namespace {
        &self.hosts[host]
    }

    /// From now on nothing that `from` sends arrives at `to`.
    pub fn cut(&self, from: usize, to: usize) {
        let script = format!("add element ip cuts cut {{ {} }}", self.address(from));
        self.hosts[to].nft(&script).expect("a host can refuse packets");
    }

    /// From now on nothing gets from one side to the other, either way.
    pub fn part(&self, one: &[usize], other: &[usize]) {
        for a in one {
            for b in other {
                self.cut(*a, *b);
                self.cut(*b, *a);
            }
        }
    }

    /// Everything arrives again.
    pub fn heal(&self) {
        for host in &self.hosts {
            host.nft("flush set ip cuts cut").expect("a host can accept packets");
        }
    }
}

/// Whether this machine lets us have networks.
fn usable() -> Result<(), String> {
    if !geteuid().is_root() {
        return Err("only root may make them".into());
    }
    run(Command::new("ip").arg("-V"), "").map_err(|why| format!("{why} (package iproute2)"))?;
    run(Command::new("nft").arg("-v"), "").map_err(|why| format!("{why} (package nftables)"))
}

/// Runs a program to its end, with `input`; or why it did not do what it should.
fn run(command: &mut Command, input: &str) -> Result<(), String> {
    let failed = |why: &dyn std::fmt::Display, command: &Command| format!("{command:?}: {why}");
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| failed(&error, command))?;
    let mut stdin = child.stdin.take().expect("stdin is piped");
    stdin.write_all(input.as_bytes()).map_err(|error| failed(&error, command))?;
    drop(stdin);
    let output = child.wait_with_output().map_err(|error| failed(&error, command))?;
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.success() { Ok(()) } else { Err(failed(&said.trim(), command)) }
}
