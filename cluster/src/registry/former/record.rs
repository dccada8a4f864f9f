//! What the registry stores, byte by byte.
//!
//! Every record opens with its version, numbers are big-endian. A release that changes a record
//! gives it a new version and keeps reading the old ones; the tests freeze the bytes.

use crate::{UnixMillis, token::Serial};

/// The version of the records and tables as a whole, stored beside them.
pub(in super::super) const SCHEMA: u32 = 1;

const VERSION: u8 = 1;

/// A registered agent; 17 bytes beside its id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct AgentEntry {
    /// Serial of the token issued last.
    pub(in super::super) serial: Serial,
    pub(in super::super) registered_at: UnixMillis,
}

/// What is revoked, and when that may be forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct RevokedEntry {
    /// The revoked serial, or the last of an agent's revoked serials.
    pub(in super::super) until: Serial,
    /// Every token that this touches has expired then.
    pub(in super::super) forget_at: UnixMillis,
}

impl AgentEntry {
    pub(in super::super) fn to_bytes(self) -> [u8; 17] {
        to_bytes(self.serial.0, self.registered_at.0)
    }

    pub(in super::super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (serial, registered_at) = from_bytes(bytes)?;
        Some(Self { serial: Serial(serial), registered_at: UnixMillis(registered_at) })
    }
}

impl RevokedEntry {
    pub(in super::super) fn to_bytes(self) -> [u8; 17] {
        to_bytes(self.until.0, self.forget_at.0)
    }

    pub(in super::super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (until, forget_at) = from_bytes(bytes)?;
        Some(Self { until: Serial(until), forget_at: UnixMillis(forget_at) })
    }
}

fn to_bytes(first: u64, second: u64) -> [u8; 17] {
    let mut bytes = [VERSION; 17];
    bytes[1..9].copy_from_slice(&first.to_be_bytes());
    bytes[9..].copy_from_slice(&second.to_be_bytes());
    bytes
}

fn from_bytes(bytes: &[u8]) -> Option<(u64, u64)> {
    let (&[VERSION], numbers) = bytes.split_first_chunk()? else { return None };
    let (first, second) = numbers.split_first_chunk()?;
    let second = second.try_into().ok()?;
    Some((u64::from_be_bytes(*first), u64::from_be_bytes(second)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FROZEN: [u8; 17] =
        [1, 0, 0, 0, 0, 0, 0, 0x12, 0x34, 0, 0, 0x01, 0x9a, 0xbc, 0xde, 0xf0, 0x12];

    #[test]
    fn bytes_are_frozen() {
        let registered_at = UnixMillis(0x019a_bcde_f012);
        let agent = AgentEntry { serial: Serial(0x1234), registered_at };
        assert_eq!(agent.to_bytes(), FROZEN);
        assert_eq!(AgentEntry::from_bytes(&FROZEN), Some(agent));
        let revoked = RevokedEntry { until: Serial(0x1234), forget_at: registered_at };
        assert_eq!(revoked.to_bytes(), FROZEN);
        assert_eq!(RevokedEntry::from_bytes(&FROZEN), Some(revoked));
    }

    #[test]
    fn other_versions_and_lengths_are_not_read() {
        let mut newer = FROZEN;
        newer[0] = 2;
        assert_eq!(AgentEntry::from_bytes(&newer), None);
        for length in 0..FROZEN.len() {
            assert_eq!(AgentEntry::from_bytes(&FROZEN[..length]), None);
        }
        assert_eq!(AgentEntry::from_bytes(&[FROZEN.as_slice(), &[0]].concat()), None);
    }
}
