//! A wide-area network between the hosts of a [`Network`]: packets that take their time, and get lost.
//!
//! Each host has a TUN device besides its place on the bridge. What a host sends there arrives here, and
//! is handed to the host that it is addressed to as the [`Path`] between the two says. It runs on a thread
//! of its own, so that a busy test delays nothing, and ends when dropped.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
    net::Ipv4Addr,
    sync::Arc,
    thread,
    time::Duration,
};

use parking_lot::Mutex;
use rand::{Rng, SeedableRng, rngs::StdRng};
use tokio::{
    runtime::Runtime,
    sync::{mpsc, oneshot},
    task::JoinSet,
    time::{Instant, sleep_until},
};
use tokio_tun::Tun;

use crate::netns::{Namespace, Network};

/// Largest packet.
const MTU: i32 = 1_500;

/// Packets that are on their way at most, 100 MB of them; more are lost.
const FLYING_MAX: usize = 65_536;

/// The device's name on every host.
const DEVICE: &str = "wan";

/// How packets fare from one host to another. By default at once, and all of them.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Path {
    /// How long each is on its way at least.
    pub delay: Duration,
    /// How much longer it is at most, by chance. No packet overtakes another: on real networks it is
    /// queues that make packets late, and those keep order.
    pub jitter: Duration,
    /// The share of them that gets lost, from 0 to 1.
    pub loss: f64,
    /// Whether all of them get lost.
    pub cut: bool,
}

/// What was sent on a path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Carried {
    /// Packets that were not lost.
    pub packets: u64,
    /// Their bytes, with IP and UDP headers.
    pub bytes: u64,
    /// Packets that were lost.
    pub lost: u64,
}

/// A running network.
pub struct Wan {
    paths: Arc<Mutex<Paths>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Wan {
    /// A network between all hosts of `network`, whose chance is seeded with `rng_seed`.
    pub fn between(network: &Network, rng_seed: u64) -> Self {
        let paths = Arc::new(Mutex::new(Paths::new(rng_seed)));
        let (stop, stopped) = oneshot::channel();
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_all().build().expect("a runtime can be made");
        let devices = (0..network.len())
            .map(|host| {
                let host = (network.host(host), Self::address(host));
                host.0.run(|| device(&runtime, host.0, host.1))
            })
            .collect();
        let all = Arc::clone(&paths);
        let thread = thread::spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    () = carry(devices, &all) => {}
                    _ = stopped => {}
                }
            });
        });
        Self { paths, stop: Some(stop), thread: Some(thread) }
    }

    /// A host's address on this network.
    pub fn address(host: usize) -> Ipv4Addr {
        Ipv4Addr::new(10, 99, 0, u8::try_from(host + 1).expect("a network is small"))
    }

    /// From now on packets fare like this from any of `one` to any of `other`, and back.
    pub fn set(&self, one: &[usize], other: &[usize], path: Path) {
        for a in one {
            for b in other {
                self.set_one_way(*a, *b, path);
                self.set_one_way(*b, *a, path);
            }
        }
    }

    /// From now on packets fare like this from one host to another.
    pub fn set_one_way(&self, from: usize, to: usize, path: Path) {
        self.paths.lock().of(from, to).path = path;
    }

    /// What any of `from` has sent to any of `to` so far.
    pub fn carried(&self, from: &[usize], to: &[usize]) -> Carried {
        let mut paths = self.paths.lock();
        let mut sum = Carried::default();
        for a in from {
            for b in to {
                let one = paths.of(*a, *b).carried;
                sum.packets += one.packets;
                sum.bytes += one.bytes;
                sum.lost += one.lost;
            }
        }
        sum
    }
}

impl Drop for Wan {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // If it has panicked, it has said so.
            let _ = thread.join();
        }
    }
}

/// A device of the host on which the calling thread is.
fn device(runtime: &Runtime, host: &Namespace, address: Ipv4Addr) -> Arc<Tun> {
    let _reads_there = runtime.enter();
    let made = Tun::builder().name(DEVICE).mtu(MTU).build().expect("root may make a TUN device");
    host.ip(&format!("addr add {address}/24 dev {DEVICE}"));
    // Nothing gets lost between the kernel and us.
    host.ip(&format!("link set {DEVICE} txqueuelen 10000 up"));
    Arc::new(made.into_iter().next().expect("one was asked for"))
}

/// Carries packets between the devices for ever.
async fn carry(devices: Vec<Arc<Tun>>, paths: &Mutex<Paths>) {
    let (sender, mut sent) = mpsc::channel(1_024);
    let mut readers = JoinSet::new();
    for (host, device) in devices.iter().enumerate() {
        readers.spawn(read(host, Arc::clone(device), sender.clone()));
    }
    let mut flying = Flying::default();
    loop {
        let due = flying.next_due();
        tokio::select! {
            Some((from, packet)) = sent.recv() => {
                let to = destination(&packet).filter(|to| *to < devices.len());
                let Some(to) = to else { continue };
                let due = paths.lock().fate(from, to, packet.len(), Instant::now());
                if let Some(due) = due {
                    flying.add(due, to, packet);
                }
            }
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {}
        }
        while let Some((to, packet)) = flying.arrived(Instant::now()) {
            // A host that is going away takes nothing any more.
            let _ = devices[to].send(&packet).await;
        }
    }
}

/// Reads what a host sends.
async fn read(host: usize, device: Arc<Tun>, sender: mpsc::Sender<(usize, Vec<u8>)>) {
    let mut buffer = [0; MTU as usize];
    while let Ok(length) = device.recv(&mut buffer).await {
        if sender.send((host, buffer[..length].to_vec())).await.is_err() {
            return;
        }
    }
}

/// The host that an IPv4 packet is addressed to (RFC 791 section 3.1).
fn destination(packet: &[u8]) -> Option<usize> {
    let (version, address) = (packet.first()? >> 4, packet.get(16..20)?);
    match *address {
        [10, 99, 0, number] if version == 4 => usize::from(number).checked_sub(1),
        _ => None,
    }
}

/// All paths, and the chance that rules on them.
struct Paths {
    each: HashMap<(usize, usize), State>,
    chance: StdRng,
}

/// A path, what it has carried, and when the last of it arrives.
#[derive(Default)]
struct State {
    path: Path,
    carried: Carried,
    last_due: Option<Instant>,
}

impl Paths {
    fn new(rng_seed: u64) -> Self {
        Self { each: HashMap::new(), chance: StdRng::seed_from_u64(rng_seed) }
    }

    fn of(&mut self, from: usize, to: usize) -> &mut State {
        self.each.entry((from, to)).or_default()
    }

    /// When a packet of `bytes` bytes that is sent now arrives; none if it gets lost.
    fn fate(&mut self, from: usize, to: usize, bytes: usize, now: Instant) -> Option<Instant> {
        let (luck, lateness) = (self.chance.random::<f64>(), self.chance.random::<f64>());
        let State { path, carried, last_due } = self.of(from, to);
        if path.cut || luck < path.loss {
            carried.lost += 1;
            return None;
        }
        carried.packets += 1;
        carried.bytes += bytes as u64;
        let due = now + path.delay + path.jitter.mul_f64(lateness);
        *last_due = (*last_due).max(Some(due));
        *last_due
    }
}

/// Packets on their way; of those that are due at one time the first sent arrives first.
#[derive(Default)]
struct Flying {
    packets: BinaryHeap<Reverse<Packet>>,
    count: u64,
}

/// When it is due, its number, the host that it goes to, and the packet itself.
type Packet = (Instant, u64, usize, Vec<u8>);

impl Flying {
    fn add(&mut self, due: Instant, to: usize, packet: Vec<u8>) {
        if self.packets.len() < FLYING_MAX {
            self.count += 1;
            self.packets.push(Reverse((due, self.count, to, packet)));
        }
    }

    fn next_due(&self) -> Option<Instant> {
        self.packets.peek().map(|Reverse((due, ..))| *due)
    }

    fn arrived(&mut self, now: Instant) -> Option<(usize, Vec<u8>)> {
        let next = self.packets.peek_mut()?;
        if next.0.0 > now {
            return None;
        }
        let Reverse((_, _, to, packet)) = std::collections::binary_heap::PeekMut::pop(next);
        Some((to, packet))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_lost_and_late_as_the_path_says() {
        let mut paths = Paths::new(1);
        let (delay, jitter) = (Duration::from_millis(40), Duration::from_millis(10));
        paths.of(0, 1).path = Path { delay, jitter, loss: 0.1, cut: false };
        let start = Instant::now();
        let sent = (0..10_000).map(|n| start + Duration::from_millis(n));
        let fates: Vec<_> = sent.map(|now| (now, paths.fate(0, 1, 100, now))).collect();
        let arrived: Vec<_> = fates.iter().filter_map(|(now, due)| Some((*now, (*due)?))).collect();
        assert!((8_800..9_200).contains(&arrived.len()), "{}", arrived.len());
        let takes: Vec<Duration> = arrived.iter().map(|(now, due)| *due - *now).collect();
        assert!(takes.iter().all(|takes| (delay..delay + jitter).contains(takes)));
        assert!(takes.iter().any(|takes| *takes > delay + jitter / 2));
        assert!(arrived.is_sorted_by_key(|(_, due)| *due), "none overtakes another");
        let carried = paths.of(0, 1).carried;
        assert_eq!(carried.bytes, carried.packets * 100);
        assert_eq!(carried.packets + carried.lost, 10_000);
        assert_eq!(paths.fate(1, 0, 100, start), Some(start), "the way back is another path");
        paths.of(1, 0).path.cut = true;
        assert_eq!(paths.fate(1, 0, 100, start), None);
    }

    #[test]
    fn packets_arrive_when_they_are_due_and_in_order() {
        let mut flying = Flying::default();
        let (now, later) = (Instant::now(), Instant::now() + Duration::from_secs(1));
        flying.add(later, 1, vec![1]);
        flying.add(now, 2, vec![2]);
        flying.add(now, 3, vec![3]);
        assert_eq!(flying.next_due(), Some(now));
        assert_eq!(flying.arrived(now), Some((2, vec![2])));
        assert_eq!(flying.arrived(now), Some((3, vec![3])));
        assert_eq!(flying.arrived(now), None);
        assert_eq!(flying.arrived(later), Some((1, vec![1])));
    }

    #[test]
    fn only_packets_of_this_network_have_a_destination() {
        let mut packet = vec![0; 20];
        packet[0] = 0x45;
        packet[16..20].copy_from_slice(&Wan::address(6).octets());
        assert_eq!(destination(&packet), Some(6));
        packet[17] = 98;
        assert_eq!(destination(&packet), None);
        packet[17] = 99;
        packet[0] = 0x60;
        assert_eq!(destination(&packet), None, "not version 4");
        assert_eq!(destination(&packet[..19]), None);
        assert_eq!(destination(&[]), None);
    }
}
