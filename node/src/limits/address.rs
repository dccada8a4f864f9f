//! How much one client address may do (PROTOCOL section 8): registrations per minute, live
//! connections, handshakes in flight.
//!
//! Owns the counts per address and the permits that give them back. An address is an IPv4 address,
//! or the /64 of an IPv6 address: that is what one customer of a network gets, and so what one
//! client can change its address within. Which address a client has, behind a proxy, is decided
//! elsewhere. Nothing here waits.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr},
    num::NonZeroU32,
    sync::Arc,
    time::Duration,
};

use governor::Quota;
use parking_lot::Mutex;

use super::bucket::Bucket;
use crate::{clock::Clock, config::Limits};

/// Addresses that are remembered for one purpose at a time; connections may have as many as
/// `MAX_CONNECTIONS`, if that is more.
///
/// An address is forgotten once it holds nothing, and for registrations once its quota has refilled:
/// only a flood from that many networks at a time comes near. Then **newcomers are refused**, while
/// addresses that are already known are judged as ever. A registration's entry is the largest, some
/// 160 bytes: 65,536 of them are 10 MiB.
pub const ADDRESSES_MAX: usize = 65_536;

/// What is told to whoever is refused a connection or a handshake: nobody knows when one will end.
const RETRY_CONNECTION: Duration = Duration::from_secs(5);
const RETRY_HANDSHAKE: Duration = Duration::from_secs(1);
/// The next sweep makes room.
const RETRY_ADDRESSES: Duration = Duration::from_secs(1);

/// The limits of all addresses on this node. Clones share them.
#[derive(Clone, Debug)]
pub struct AddressLimits {
    registrations: Option<Arc<Registrations>>,
    connections: Option<Arc<Holdings>>,
    handshakes: Option<Arc<Holdings>>,
}

/// A live connection of an address; dropping it gives it back.
#[derive(Debug)]
#[must_use = "dropping the permit gives it back"]
pub struct ConnectionPermit {
    _held: Option<Held>,
}

/// A handshake in flight of an address; dropping it gives it back.
#[derive(Debug)]
#[must_use = "dropping the permit gives it back"]
pub struct HandshakePermit {
    _held: Option<Held>,
}

/// Which limit an address has reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TooMany {
    /// `REGISTRATION_LIMIT_PER_MIN` is used up.
    #[error("too many registrations from this address: try again later")]
    Registrations {
        /// How long until one will be accepted.
        retry: Duration,
    },
    /// `CONNECTIONS_PER_ADDRESS` are open.
    #[error("too many connections from this address: close some first")]
    Connections,
    /// `HANDSHAKES_PER_ADDRESS` are in flight.
    #[error("too many handshakes from this address: try again shortly")]
    Handshakes,
    /// More than [`ADDRESSES_MAX`] addresses are active, and this one is new.
    #[error("too many addresses are active: try again shortly")]
    Addresses,
}

impl TooMany {
    /// For `Retry-After`, rounded up to seconds.
    pub const fn retry(self) -> Duration {
        match self {
            Self::Registrations { retry } => retry,
            Self::Connections => RETRY_CONNECTION,
            Self::Handshakes => RETRY_HANDSHAKE,
            Self::Addresses => RETRY_ADDRESSES,
        }
    }
}

impl AddressLimits {
    /// Nobody holds anything yet. A limit of 0 is off.
    pub fn new(limits: &Limits, clock: &Clock) -> Self {
        let registrations = NonZeroU32::new(limits.registrations_per_min)
            .map(|per_min| Arc::new(Registrations::new(Quota::per_minute(per_min), clock)));
        let holdings = |max, addresses_max| {
            NonZeroU32::new(max).map(|max| Arc::new(Holdings::new(max, addresses_max)))
        };
        Self {
            registrations,
            connections: holdings(
                limits.connections_per_address,
                limits.max_connections.max(ADDRESSES_MAX),
            ),
            handshakes: holdings(limits.handshakes_per_address, ADDRESSES_MAX),
        }
    }

    /// Counts an attempt to register.
    pub fn register(&self, address: IpAddr) -> Result<(), TooMany> {
        match &self.registrations {
            Some(registrations) => registrations.take(Network::of(address)),
            None => Ok(()),
        }
    }

    /// Takes a permit for a live connection.
    pub fn connect(&self, address: IpAddr) -> Result<ConnectionPermit, TooMany> {
        hold(self.connections.as_ref(), address, TooMany::Connections)
            .map(|held| ConnectionPermit { _held: held })
    }

    /// Whether the two addresses count as one.
    pub fn are_one(some: IpAddr, other: IpAddr) -> bool {
        Network::of(some) == Network::of(other)
    }

    /// Takes a permit for a handshake.
    pub fn handshake(&self, address: IpAddr) -> Result<HandshakePermit, TooMany> {
        hold(self.handshakes.as_ref(), address, TooMany::Handshakes)
            .map(|held| HandshakePermit { _held: held })
    }

    /// Forgets the addresses whose registration quota has refilled. To be called about once a second.
    pub fn sweep(&self) {
        if let Some(registrations) = &self.registrations {
            registrations.sweep();
        }
    }

    /// How many entries are remembered, over all limits.
    #[cfg(test)]
    fn entries(&self) -> usize {
        let registrations = self.registrations.as_ref().map_or(0, |it| it.buckets.lock().len());
        let holdings = self.connections.iter().chain(&self.handshakes);
        registrations + holdings.map(|it| it.counts.lock().len()).sum::<usize>()
    }
}

/// Takes one of `holdings`; none is held where the limit is off.
fn hold(
    holdings: Option<&Arc<Holdings>>,
    address: IpAddr,
    at_max: TooMany,
) -> Result<Option<Held>, TooMany> {
    holdings.map(|holdings| holdings.take(Network::of(address), at_max)).transpose()
}

/// What the limits take for one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Network {
    V4(Ipv4Addr),
    V6Prefix([u16; 4]),
}

impl Network {
    /// An IPv4 address that is written as an IPv6 one, as dual-stack sockets do, is the IPv4 one.
    fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self::V4(address),
            IpAddr::V6(address) => {
                let [a, b, c, d, ..] = address.segments();
                Self::V6Prefix([a, b, c, d])
            }
        }
    }
}

/// Who holds how many of something; only networks that hold any are in the map.
#[derive(Debug)]
struct Holdings {
    max: NonZeroU32,
    addresses_max: usize,
    counts: Mutex<HashMap<Network, NonZeroU32>>,
}

impl Holdings {
    fn new(max: NonZeroU32, addresses_max: usize) -> Self {
        Self { max, addresses_max, counts: Mutex::default() }
    }

    fn take(self: &Arc<Self>, network: Network, at_max: TooMany) -> Result<Held, TooMany> {
        let mut counts = self.counts.lock();
        let is_full = counts.len() >= self.addresses_max;
        match counts.get_mut(&network) {
            Some(count) if *count >= self.max => return Err(at_max),
            Some(count) => *count = count.saturating_add(1),
            None if is_full => return Err(TooMany::Addresses),
            None => drop(counts.insert(network, NonZeroU32::MIN)),
        }
        Ok(Held { holdings: Arc::clone(self), network })
    }

    fn give_back(&self, network: Network) {
        let mut counts = self.counts.lock();
        let Some(count) = counts.get_mut(&network) else { return };
        match NonZeroU32::new(count.get() - 1) {
            Some(rest) => *count = rest,
            None => drop(counts.remove(&network)),
        }
    }
}

/// One of a network's holdings.
#[derive(Debug)]
struct Held {
    holdings: Arc<Holdings>,
    network: Network,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.holdings.give_back(self.network);
    }
}

/// The registration quotas that are not full.
#[derive(Debug)]
struct Registrations {
    quota: Quota,
    clock: Clock,
    buckets: Mutex<HashMap<Network, Bucket>>,
}

impl Registrations {
    fn new(quota: Quota, clock: &Clock) -> Self {
        Self { quota, clock: clock.clone(), buckets: Mutex::default() }
    }

    fn take(&self, network: Network) -> Result<(), TooMany> {
        let mut buckets = self.buckets.lock();
        // A full map waits for the sweep: sweeping here would let a flood buy much work with little.
        if buckets.len() >= ADDRESSES_MAX && !buckets.contains_key(&network) {
            return Err(TooMany::Addresses);
        }
        buckets
            .entry(network)
            .or_insert_with(|| Bucket::new(self.quota, &self.clock))
            .take()
            .map_err(|retry| TooMany::Registrations { retry })
    }

    fn sweep(&self) {
        let mut buckets = self.buckets.lock();
        buckets.retain(|_, bucket| !bucket.is_full());
        // What a flood made the map grow to is given back once it is over.
        if buckets.len() < buckets.capacity() / 4 {
            let room = buckets.len() * 2;
            buckets.shrink_to(room);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use cluster::UnixMillis;
    use proptest::{collection::vec, prelude::*, sample::Index};

    use super::*;

    const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
    const THERE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

    fn limits(registrations: u32, connections: u32, handshakes: u32) -> (AddressLimits, Clock) {
        let limits = Limits {
            registrations_per_min: registrations,
            connections_per_address: connections,
            handshakes_per_address: handshakes,
            ..Limits::default()
        };
        let clock = Clock::manual(UnixMillis(0));
        (AddressLimits::new(&limits, &clock), clock)
    }

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    fn numbered(number: usize) -> IpAddr {
        Ipv6Addr::from_bits((number as u128) << 64).into()
    }

    #[test]
    fn permits_run_out_per_address_and_come_back() {
        let (limits, _clock) = limits(0, 2, 1);
        let one = limits.connect(HERE);
        let two = limits.connect(HERE);
        assert!(one.is_ok() && two.is_ok());
        assert_eq!(limits.connect(HERE).err(), Some(TooMany::Connections));
        assert!(limits.connect(THERE).is_ok(), "another address has its own");
        let handshake = limits.handshake(HERE);
        assert_eq!(limits.handshake(HERE).err(), Some(TooMany::Handshakes));
        drop((one, handshake));
        assert!(limits.connect(HERE).is_ok());
        assert!(limits.handshake(HERE).is_ok());
    }

    #[test]
    fn a_refusal_holds_nothing() {
        let (limits, _clock) = limits(0, 1, 0);
        let permit = limits.connect(HERE);
        for _ in 0..5 {
            assert!(limits.connect(HERE).is_err());
        }
        drop(permit);
        assert_eq!(limits.entries(), 0);
    }

    #[test]
    fn zero_switches_a_limit_off() {
        let (limits, _clock) = limits(0, 0, 0);
        let permits: Vec<_> =
            (0..2_000).map(|_| (limits.connect(HERE), limits.handshake(HERE))).collect();
        assert!(
            permits.iter().all(|(connection, handshake)| connection.is_ok() && handshake.is_ok())
        );
        assert!((0..2_000).all(|_| limits.register(HERE).is_ok()));
        assert_eq!(limits.entries(), 0, "nothing is remembered for it");
    }

    #[test]
    fn permits_outlive_the_limits_they_came_from() {
        let (limits, _clock) = limits(0, 1, 0);
        let permit = limits.connect(HERE);
        let clone = limits.clone();
        drop(limits);
        assert!(clone.connect(HERE).is_err(), "clones share what is held");
        drop(permit);
        assert!(clone.connect(HERE).is_ok());
    }

    #[test]
    fn an_ipv6_client_is_its_64() {
        let same = ["2001:db8:1:2::1", "2001:db8:1:2:ffff:ffff:ffff:ffff"].map(address);
        assert_eq!(Network::of(same[0]), Network::of(same[1]));
        assert_ne!(Network::of(same[0]), Network::of(address("2001:db8:1:3::1")));
    }

    #[test]
    fn an_ipv4_client_is_its_whole_address_however_written() {
        assert_eq!(Network::of(address("::ffff:192.0.2.1")), Network::of(THERE));
        assert_ne!(Network::of(address("192.0.2.2")), Network::of(THERE));
        assert_ne!(Network::of(address("::ffff:192.0.2.1")), Network::of(address("::1")));
    }

    #[test]
    fn registrations_are_refused_with_the_time_until_the_next() {
        let (limits, clock) = limits(30, 0, 0);
        assert!((0..30).all(|_| limits.register(HERE).is_ok()));
        let refusal = TooMany::Registrations { retry: Duration::from_secs(2) };
        assert_eq!(limits.register(HERE), Err(refusal));
        assert_eq!(limits.register(THERE), Ok(()));
        clock.advance(refusal.retry());
        assert_eq!(limits.register(HERE), Ok(()));
        assert_eq!(limits.register(HERE), Err(refusal));
    }

    #[test]
    fn a_sweep_forgets_who_has_refilled_and_nobody_else() {
        let (limits, clock) = limits(30, 0, 0);
        assert_eq!(limits.register(THERE), Ok(()));
        assert!((0..30).all(|_| limits.register(HERE).is_ok()));
        clock.advance(Duration::from_secs(2));
        limits.sweep();
        assert_eq!(limits.entries(), 1);
        assert_eq!((limits.register(HERE), limits.register(HERE).is_err()), (Ok(()), true));
        clock.advance(Duration::from_mins(1));
        limits.sweep();
        assert_eq!(limits.entries(), 0);
    }

    #[test]
    fn a_flood_of_addresses_shuts_out_newcomers_until_the_sweep() {
        let (limits, clock) = limits(30, 0, 0);
        assert!((0..ADDRESSES_MAX).all(|number| limits.register(numbered(number)).is_ok()));
        assert_eq!(limits.register(HERE), Err(TooMany::Addresses));
        assert_eq!(limits.register(numbered(0)), Ok(()), "who is known is judged as ever");
        clock.advance(Duration::from_secs(2));
        limits.sweep();
        assert_eq!((limits.entries(), limits.register(HERE)), (1, Ok(())));
        let room = limits.registrations.as_ref().map(|it| it.buckets.lock().capacity());
        assert!(room < Some(100), "the room is given back: {room:?}");
    }

    #[test]
    fn a_flood_of_holders_shuts_out_newcomers_until_one_leaves() {
        let (limits, _clock) = limits(0, 0, 2);
        let mut permits: Vec<_> =
            (0..ADDRESSES_MAX).map(|number| limits.handshake(numbered(number))).collect();
        assert_eq!(limits.handshake(HERE).err(), Some(TooMany::Addresses));
        assert!(limits.handshake(numbered(0)).is_ok(), "who is known is judged as ever");
        permits.pop();
        assert!(limits.handshake(HERE).is_ok());
    }

    #[test]
    fn permits_taken_and_dropped_by_many_threads_all_come_back() {
        let (limits, _clock) = limits(0, 3, 3);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..1_000 {
                        let _permits = (limits.connect(HERE), limits.handshake(HERE));
                    }
                });
            }
        });
        assert_eq!(limits.entries(), 0);
    }

    proptest! {
        #[test]
        fn counts_are_right_after_any_takes_and_drops(
            steps in vec((any::<bool>(), 0..4_usize, any::<Index>()), 0..200),
        ) {
            let (limits, _clock) = limits(0, 3, 0);
            let mut held: Vec<(usize, ConnectionPermit)> = Vec::new();
            for (takes, from, which) in steps {
                if takes {
                    let there = held.iter().filter(|(holder, _)| *holder == from).count();
                    match limits.connect(numbered(from)) {
                        Ok(permit) => held.push((from, permit)),
                        Err(error) => prop_assert_eq!((error, there), (TooMany::Connections, 3)),
                    }
                    prop_assert!(there <= 3);
                } else if !held.is_empty() {
                    drop(held.swap_remove(which.index(held.len())));
                }
                let mut holders: Vec<_> = held.iter().map(|(holder, _)| holder).collect();
                holders.sort_unstable();
                holders.dedup();
                prop_assert_eq!(limits.entries(), holders.len());
            }
            drop(held);
            prop_assert_eq!(limits.entries(), 0);
        }
    }
}
