//! Seeds: the addresses that a node starts from, as written, and what DNS makes of them.
//!
//! [`Seeds`] is pure: it says which names to resolve now, and takes the answers. A name may stand for
//! several nodes, so all its addresses count. It dials nothing.

use std::{
    fmt,
    future::Future,
    io,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use crate::link::Refusal;

/// A name none of whose addresses is linked is resolved again after so long...
const RESOLVE_AGAIN: Duration = Duration::from_secs(2);

/// ...doubled at each failure, up to this.
const RESOLVE_AGAIN_MAX: Duration = Duration::from_secs(16);

/// A seed that stays unreachable is logged so often.
const TELL_AGAIN: Duration = Duration::from_mins(1);

/// A seed as its operator writes it: `host:port`, or `host`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SeedAddress {
    /// A DNS name or an IP address, without brackets.
    pub host: String,
    /// The UDP port of its mesh.
    pub port: u16,
}

/// Asks DNS, or whatever takes its place in a test.
pub trait Resolve: Send + Sync + 'static {
    /// All addresses of the seed.
    fn resolve(
        &self,
        seed: &SeedAddress,
    ) -> impl Future<Output = io::Result<Vec<SocketAddr>>> + Send;
}

/// The system's resolver.
#[derive(Clone, Copy, Debug, Default)]
pub struct Dns;

impl Resolve for Dns {
    async fn resolve(&self, seed: &SeedAddress) -> io::Result<Vec<SocketAddr>> {
        Ok(tokio::net::lookup_host((seed.host.as_str(), seed.port)).await?.collect())
    }
}

#[cfg(test)]
impl SeedAddress {
    /// Of a name or an IP address, or the latter with a port.
    pub(super) fn of(text: &str) -> Self {
        let address = text.parse::<SocketAddr>();
        let (host, port) =
            address.map_or((text.into(), 7946), |at| (at.ip().to_string(), at.port()));
        Self { host, port }
    }
}

impl fmt::Display for SeedAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// A seed that this node will not be linked with before an operator mends something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeedRefusal {
    /// The seed.
    pub seed: SeedAddress,
    /// What it said last, or this node of it.
    pub refusal: Refusal,
}

impl fmt::Display for SeedRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Refusal { reason, text } = &self.refusal;
        write!(f, "{} refuses this node ({}): {text}", self.seed, reason.label())
    }
}

/// The seeds of a node.
#[derive(Debug)]
pub(super) struct Seeds(Vec<Seed>);

/// One seed, and what is known of it.
#[derive(Debug)]
pub(super) struct Seed {
    address: SeedAddress,
    found: Vec<SocketAddr>,
    asking: Asking,
    failures: u32,
    told: Option<Duration>,
}

/// When a name is resolved.
#[derive(Debug, PartialEq, Eq)]
enum Asking {
    /// Never: it is an IP address.
    Never,
    Now,
    At(Duration),
}

impl Seeds {
    pub(super) fn new(addresses: Vec<SeedAddress>) -> Self {
        Self(addresses.into_iter().map(Seed::new).collect())
    }

    /// The names to resolve now. Each is named once until its answer has come.
    pub(super) fn due(
        &mut self,
        is_linked: impl Fn(SocketAddr) -> bool,
        now: Duration,
    ) -> Vec<SeedAddress> {
        let mut due = Vec::new();
        for seed in &mut self.0 {
            let is_due = matches!(seed.asking, Asking::At(then) if then <= now);
            if is_due && !seed.found.iter().any(|address| is_linked(*address)) {
                seed.asking = Asking::Now;
                due.push(seed.address.clone());
            }
        }
        due
    }

    /// Takes the answer for a name. What was found before is kept if nothing is found now. `true` if
    /// a failure should be logged.
    pub(super) fn resolved(
        &mut self,
        name: &SeedAddress,
        found: Option<Vec<SocketAddr>>,
        now: Duration,
    ) -> bool {
        let Some(seed) = self.0.iter_mut().find(|seed| seed.address == *name) else { return false };
        let found = found.filter(|found| !found.is_empty());
        let failed = found.is_none();
        seed.failures = if failed { seed.failures.saturating_add(1) } else { 0 };
        let doubled = RESOLVE_AGAIN * 2u32.saturating_pow(seed.failures.min(8));
        let pause = if failed { doubled.min(RESOLVE_AGAIN_MAX) } else { RESOLVE_AGAIN };
        seed.asking = Asking::At(now + pause);
        if let Some(mut found) = found {
            found.sort_unstable();
            found.dedup();
            seed.found = found;
        }
        failed && seed.found.is_empty() && seed.tell(now)
    }

    /// All seeds.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Seed> {
        self.0.iter()
    }

    /// The seed that an address belongs to.
    pub(super) fn at(&self, address: SocketAddr) -> Option<&Seed> {
        self.0.iter().find(|seed| seed.found.contains(&address))
    }

    /// None of the addresses of this address's seed was reached: which seed to log, if it is time.
    pub(super) fn unreachable(&mut self, at: SocketAddr, now: Duration) -> Option<SeedAddress> {
        let seed = self.0.iter_mut().find(|seed| seed.found.contains(&at))?;
        seed.tell(now).then(|| seed.address.clone())
    }

    /// The seed at this address was reached: its next failure is logged at once.
    pub(super) fn reached(&mut self, at: SocketAddr) -> Option<SeedAddress> {
        let seed = self.0.iter_mut().find(|seed| seed.found.contains(&at))?;
        seed.told = None;
        Some(seed.address.clone())
    }
}

impl Seed {
    fn new(address: SeedAddress) -> Self {
        let ip = address.host.parse::<IpAddr>().ok();
        Self {
            found: ip.map(|ip| SocketAddr::new(ip, address.port)).into_iter().collect(),
            asking: if ip.is_some() { Asking::Never } else { Asking::At(Duration::ZERO) },
            address,
            failures: 0,
            told: None,
        }
    }

    /// As its operator wrote it.
    pub(super) fn address(&self) -> &SeedAddress {
        &self.address
    }

    /// The addresses found for it.
    pub(super) fn found(&self) -> &[SocketAddr] {
        &self.found
    }

    /// Whether it is worth a line in the log; then not again for a minute.
    fn tell(&mut self, now: Duration) -> bool {
        let tell = self.told.is_none_or(|before| now >= before + TELL_AGAIN);
        if tell {
            self.told = Some(now);
        }
        tell
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    fn address(last: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, last], 7946))
    }

    fn secs(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    fn nobody(_: SocketAddr) -> bool {
        false
    }

    fn parsed(text: &str) -> SeedAddress {
        SeedAddress::of(text)
    }

    #[test]
    fn an_address_is_never_asked_for() {
        let mut seeds = Seeds::new(vec![parsed("10.0.0.1"), parsed("[::1]:5")]);
        assert_eq!(seeds.due(nobody, secs(99)), []);
        let found: Vec<_> = seeds.iter().flat_map(Seed::found).copied().collect();
        assert_eq!(found, [address(1), "[::1]:5".parse().unwrap()]);
    }

    #[test]
    fn a_name_is_asked_for_again_while_none_of_its_addresses_is_linked() {
        let mut seeds = Seeds::new(vec![parsed("mesh")]);
        assert_eq!(seeds.due(nobody, secs(0)), [parsed("mesh")]);
        assert_eq!(seeds.due(nobody, secs(9)), [], "it is being asked for");
        seeds.resolved(&parsed("mesh"), Some(vec![address(2), address(1), address(2)]), secs(10));
        assert_eq!(seeds.at(address(2)).unwrap().found(), [address(1), address(2)]);
        assert_eq!(seeds.due(nobody, secs(11)), []);
        assert_eq!(seeds.due(|a| a == address(2), secs(20)), []);
        assert_eq!(seeds.due(|a| a == address(3), secs(20)), [parsed("mesh")]);
    }

    #[test]
    fn failures_slow_down_are_told_once_a_minute_and_forget_nothing() {
        let mut seeds = Seeds::new(vec![parsed("mesh")]);
        let mut now = Duration::ZERO;
        let mut told = Vec::new();
        while now < secs(150) {
            if seeds.due(nobody, now) == [parsed("mesh")]
                && seeds.resolved(&parsed("mesh"), None, now)
            {
                told.push(now.as_secs());
            }
            now += secs(1);
        }
        assert_eq!(told, [0, 60, 124], "at 0, 4, 12, 28, 44, 60, ... each 16 s");
        seeds.resolved(&parsed("mesh"), Some(vec![address(1)]), now);
        assert!(!seeds.resolved(&parsed("mesh"), Some(vec![]), now + secs(100)));
        assert_eq!(seeds.at(address(1)).unwrap().found(), [address(1)]);
    }

    #[test]
    fn a_seed_is_told_of_anew_after_it_was_reached() {
        let mut seeds = Seeds::new(vec![parsed("10.0.0.1")]);
        assert_eq!(seeds.unreachable(address(1), secs(0)), Some(parsed("10.0.0.1")));
        assert_eq!(seeds.unreachable(address(1), secs(59)), None);
        assert_eq!(seeds.unreachable(address(1), secs(60)), Some(parsed("10.0.0.1")));
        assert_eq!(seeds.reached(address(1)), Some(parsed("10.0.0.1")));
        assert_eq!(seeds.unreachable(address(1), secs(61)), Some(parsed("10.0.0.1")));
        assert_eq!(seeds.unreachable(address(9), secs(61)), None);
    }
}
