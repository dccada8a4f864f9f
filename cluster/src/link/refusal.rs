//! Why two nodes are not linked, in words that say what to do.

use std::{net::SocketAddr, time::Duration};

use parking_lot::Mutex;

/// Between two lines of the log about one address and one reason.
const QUIET: Duration = Duration::from_mins(1);

/// Addresses and reasons that are remembered as logged: 64 KiB or so. More are not logged until old
/// ones are forgotten; all are counted.
const LOGGED_MAX: usize = 1_024;

/// Why a handshake failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Reason {
    /// The releases have no version of the wire in common.
    Version = 0,
    /// The clusters are different ones.
    Cluster = 1,
    /// The certificate names another node than the introduction.
    Certificate = 2,
    /// A node has dialled itself.
    Myself = 3,
    /// Another node has this name.
    Name = 4,
    /// The clocks are too far apart.
    Clock = 5,
    /// A later life of the node is known.
    Generation = 6,
    /// The two nodes are linked already, or are being linked from the other side.
    Duplicate = 7,
    /// The rest of the node does not want it.
    Unwanted = 8,
    /// The node stops.
    Leaving = 9,
    /// One end does not share the other's secret.
    Secret = 10,
    /// It took too long.
    Deadline = 11,
    /// Too many handshakes at once.
    Busy = 12,
    /// What was said is no handshake.
    Malformed = 13,
    /// The connection broke, or there was none.
    Broken = 14,
    /// The two nodes know different registries.
    Registry = 15,
}

impl Reason {
    /// All of them, each at the place of its number.
    pub const ALL: [Self; 16] = [
        Self::Version,
        Self::Cluster,
        Self::Certificate,
        Self::Myself,
        Self::Name,
        Self::Clock,
        Self::Generation,
        Self::Duplicate,
        Self::Unwanted,
        Self::Leaving,
        Self::Secret,
        Self::Deadline,
        Self::Busy,
        Self::Malformed,
        Self::Broken,
        Self::Registry,
    ];

    /// Its name in metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::Version => "version",
            Self::Cluster => "cluster",
            Self::Certificate => "certificate",
            Self::Myself => "myself",
            Self::Name => "name",
            Self::Clock => "clock",
            Self::Generation => "generation",
            Self::Duplicate => "duplicate",
            Self::Unwanted => "unwanted",
            Self::Leaving => "leaving",
            Self::Secret => "secret",
            Self::Deadline => "deadline",
            Self::Busy => "busy",
            Self::Malformed => "malformed",
            Self::Broken => "broken",
            Self::Registry => "registry",
        }
    }

    /// Whether it belongs to the ordinary coming and going of nodes, and needs nobody's attention: of
    /// seeds that do not answer and members that are gone, the membership tells.
    pub(super) fn is_ordinary(self) -> bool {
        matches!(
            self,
            Self::Myself | Self::Duplicate | Self::Leaving | Self::Broken | Self::Deadline
        )
    }
}

/// A reason, and its text for people.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct Refusal {
    /// Why.
    pub reason: Reason,
    /// Why, and what to do.
    pub text: String,
}

impl Refusal {
    pub(crate) fn new(reason: Reason, text: impl Into<String>) -> Self {
        Self { reason, text: text.into() }
    }
}

/// Remembers what was logged, so that what fails again and again fills no log.
#[derive(Default)]
pub(super) struct Logged {
    lines: Mutex<Vec<(Option<SocketAddr>, Reason, Duration)>>,
}

impl Logged {
    /// Whether to log it now. What comes from no certain address is one line a minute, whatever it names:
    /// forged ones must not take the place of those that somebody has to look at.
    pub(super) fn is_due(
        &self,
        address: Option<SocketAddr>,
        reason: Reason,
        now: Duration,
    ) -> bool {
        let mut lines = self.lines.lock();
        lines.retain(|(_, _, at)| now.saturating_sub(*at) < QUIET);
        let known = lines.iter().any(|(other, why, _)| *other == address && *why == reason);
        if known || lines.len() >= LOGGED_MAX {
            return false;
        }
        lines.push((address, reason, now));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_is_at_the_place_of_its_number() {
        for (number, reason) in Reason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, number);
        }
    }

    #[test]
    fn one_address_and_reason_is_logged_once_a_minute() {
        let logged = Logged::default();
        let [a, b] = [1, 2].map(|port| Some(SocketAddr::from(([127, 0, 0, 1], port))));
        let at = Duration::from_secs;
        assert!(logged.is_due(a, Reason::Secret, at(1)));
        assert!(!logged.is_due(a, Reason::Secret, at(60)));
        assert!(logged.is_due(a, Reason::Clock, at(60)));
        assert!(logged.is_due(b, Reason::Secret, at(60)));
        assert!(logged.is_due(a, Reason::Secret, at(61)));
        assert!(logged.is_due(None, Reason::Secret, at(61)));
        assert!(!logged.is_due(None, Reason::Secret, at(62)));
    }

    #[test]
    fn many_addresses_take_no_more_room() {
        let logged = Logged::default();
        let dues = (0..5_000u16).filter(|port| {
            let address = SocketAddr::from(([127, 0, 0, 1], *port));
            logged.is_due(Some(address), Reason::Secret, Duration::ZERO)
        });
        assert_eq!(dues.count(), LOGGED_MAX);
    }
}
