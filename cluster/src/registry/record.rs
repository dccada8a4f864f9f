//! What the registry stores, byte by byte.
//!
//! Every record opens with its version, numbers are big-endian. A release that changes a record
//! gives it a new version and keeps reading the old ones; the tests freeze the bytes. What has no fixed
//! shape, such as an entry of the log, is `MessagePack` behind a version.

use serde::{Serialize, de::DeserializeOwned};

use super::command::{Audience, Claim};
use crate::{UnixMillis, token::Serial};

/// A registered agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct AgentEntry {
    /// Serial of the token issued last; 0: none was.
    pub(super) serial: Serial,
    pub(super) registered_at: UnixMillis,
    /// Who registered it; forgotten when another token is issued.
    pub(super) claimed: Option<Claimed>,
}

/// The attempt that registered a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Claimed {
    pub(super) claim: Claim,
    /// When the token that it was given expires.
    pub(super) expires: Option<UnixMillis>,
}

/// What is revoked, and when that may be forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RevokedEntry {
    /// The revoked serial, or the last of an agent's revoked serials.
    pub(super) until: Serial,
    /// Every token that this touches has expired then.
    pub(super) forget_at: UnixMillis,
}

/// A key that signs tokens, or did; its secret, sealed, stands behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct KeyEntry {
    pub(super) public: [u8; 32],
    pub(super) created_at: UnixMillis,
    pub(super) retires_at: Option<UnixMillis>,
    /// Its secret is gone then.
    pub(super) retired: bool,
}

/// A value in the vault; the value, sealed, stands behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct VaultRecord {
    pub(super) version: u64,
    pub(super) audience: Audience,
}

/// "None" among moments.
const NEVER: u64 = u64::MAX;

/// What [`AgentEntry`] says of the claim: nothing, or which kind it is.
const UNCLAIMED: u8 = 0;
const ONCE: u8 = 1;
const REPEATABLE: u8 = 2;

impl AgentEntry {
    /// Version 2: 18 bytes, and 24 more with a claim.
    pub(super) fn to_bytes(self) -> Vec<u8> {
        let mut bytes = vec![2];
        bytes.extend(self.serial.0.to_be_bytes());
        bytes.extend(self.registered_at.0.to_be_bytes());
        match self.claimed {
            None => bytes.push(UNCLAIMED),
            Some(Claimed { claim, expires }) => {
                bytes.push(if claim.repeatable { REPEATABLE } else { ONCE });
                bytes.extend(claim.id);
                bytes.extend(moment(expires).to_be_bytes());
            }
        }
        bytes
    }

    /// Reads version 1 too, which had no claims.
    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader(bytes);
        let version = reader.byte()?;
        let (serial, registered_at) = (Serial(reader.number()?), UnixMillis(reader.number()?));
        let claimed = match version {
            1 => None,
            2 => reader.claimed()?,
            _ => return None,
        };
        reader.end()?;
        Some(Self { serial, registered_at, claimed })
    }
}

impl RevokedEntry {
    pub(super) fn to_bytes(self) -> [u8; 17] {
        let mut bytes = [1; 17];
        bytes[1..9].copy_from_slice(&self.until.0.to_be_bytes());
        bytes[9..].copy_from_slice(&self.forget_at.0.to_be_bytes());
        bytes
    }

    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader(bytes);
        reader.version(1)?;
        let entry =
            Self { until: Serial(reader.number()?), forget_at: UnixMillis(reader.number()?) };
        reader.end()?;
        Some(entry)
    }
}

impl KeyEntry {
    pub(super) fn to_bytes(self, secret: &[u8]) -> Vec<u8> {
        let mut bytes = vec![1];
        bytes.extend(self.public);
        bytes.extend(self.created_at.0.to_be_bytes());
        bytes.extend(moment(self.retires_at).to_be_bytes());
        bytes.push(u8::from(self.retired));
        bytes.extend_from_slice(secret);
        bytes
    }

    /// The entry, and the secret behind it as it was given.
    pub(super) fn from_bytes(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let mut reader = Reader(bytes);
        reader.version(1)?;
        let entry = Self {
            public: *reader.array()?,
            created_at: UnixMillis(reader.number()?),
            retires_at: reader.moment()?,
            retired: match reader.byte()? {
                0 => false,
                1 => true,
                _ => return None,
            },
        };
        Some((entry, reader.0))
    }
}

impl VaultRecord {
    pub(super) fn to_bytes(self, value: &[u8]) -> Vec<u8> {
        let mut bytes = vec![1];
        bytes.extend(self.version.to_be_bytes());
        bytes.push(match self.audience {
            Audience::Voters => 0,
            Audience::All => 1,
        });
        bytes.extend_from_slice(value);
        bytes
    }

    /// The record, and the value behind it as it was given.
    pub(super) fn from_bytes(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let mut reader = Reader(bytes);
        reader.version(1)?;
        let version = reader.number()?;
        let audience = match reader.byte()? {
            0 => Audience::Voters,
            1 => Audience::All,
            _ => return None,
        };
        Some((Self { version, audience }, reader.0))
    }
}

/// `value` as `MessagePack` behind a version.
pub(super) fn to_bytes(value: &impl Serialize) -> Vec<u8> {
    let mut bytes = vec![1];
    match rmp_serde::encode::write(&mut bytes, value) {
        Ok(()) => bytes,
        Err(_) => Vec::new(), // writing these plain values to memory cannot fail
    }
}

/// What [`to_bytes`] has written; none if this release does not know it.
pub(super) fn from_bytes<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    let mut reader = Reader(bytes);
    reader.version(1)?;
    let mut rest = reader.0;
    let value = {
        let mut deserializer = rmp_serde::Deserializer::new(&mut rest);
        // Nothing here is nested deeper; what is damaged must not exhaust the stack.
        deserializer.set_max_depth(DEPTH_MAX);
        T::deserialize(&mut deserializer).ok()?
    };
    rest.is_empty().then_some(value)
}

/// How deep the values are nested at most.
const DEPTH_MAX: usize = 32;

fn moment(moment: Option<UnixMillis>) -> u64 {
    moment.map_or(NEVER, |moment| moment.0)
}

/// Reads from the front.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn array<const N: usize>(&mut self) -> Option<&'a [u8; N]> {
        let (array, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(array)
    }

    fn byte(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| *byte)
    }

    fn version(&mut self, known: u8) -> Option<()> {
        (self.byte()? == known).then_some(())
    }

    fn number(&mut self) -> Option<u64> {
        self.array().map(|bytes| u64::from_be_bytes(*bytes))
    }

    /// The outer option: whether it could be read.
    #[allow(clippy::option_option)] // "never" is a moment too
    fn moment(&mut self) -> Option<Option<UnixMillis>> {
        self.number().map(|moment| (moment != NEVER).then_some(UnixMillis(moment)))
    }

    /// The outer option: whether it could be read.
    #[allow(clippy::option_option)] // a record may well say that there is no claim
    fn claimed(&mut self) -> Option<Option<Claimed>> {
        let repeatable = match self.byte()? {
            UNCLAIMED => return Some(None),
            ONCE => false,
            REPEATABLE => true,
            _ => return None,
        };
        let claim = Claim { id: *self.array()?, repeatable };
        Some(Some(Claimed { claim, expires: self.moment()? }))
    }

    fn end(&self) -> Option<()> {
        self.0.is_empty().then_some(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a failed unwrap is a failed test
mod tests {
    use data_encoding::HEXLOWER;
    use proptest::prelude::*;

    use super::*;

    const NOW: UnixMillis = UnixMillis(0x019a_bcde_f012);

    fn hex(bytes: impl AsRef<[u8]>) -> String {
        HEXLOWER.encode(bytes.as_ref())
    }

    fn claimed(repeatable: bool, expires: Option<UnixMillis>) -> AgentEntry {
        let claim = Claim { id: *b"claim-of-an-agen", repeatable };
        let claimed = Some(Claimed { claim, expires });
        AgentEntry { serial: Serial(0x1234), registered_at: NOW, claimed }
    }

    #[test]
    fn the_bytes_of_agents_are_frozen() {
        let plain = AgentEntry { claimed: None, ..claimed(false, None) };
        for (entry, bytes) in [
            (plain, "0200000000000012340000019abcdef01200"),
            (
                claimed(false, None),
                "0200000000000012340000019abcdef01201636c61696d2d6f662d616e2d6167656effffffffffffffff",
            ),
            (
                claimed(true, Some(UnixMillis(7))),
                "0200000000000012340000019abcdef01202636c61696d2d6f662d616e2d6167656e0000000000000007",
            ),
        ] {
            assert_eq!(hex(entry.to_bytes()), bytes);
            assert_eq!(AgentEntry::from_bytes(&entry.to_bytes()), Some(entry));
        }
        // As release 0.1.0 wrote it.
        let first = HEXLOWER.decode(b"0100000000000012340000019abcdef012").unwrap();
        assert_eq!(AgentEntry::from_bytes(&first), Some(plain));
    }

    #[test]
    fn the_bytes_of_revocations_keys_and_values_are_frozen() {
        let revoked = RevokedEntry { until: Serial(0x1234), forget_at: NOW };
        assert_eq!(hex(revoked.to_bytes()), "0100000000000012340000019abcdef012");
        assert_eq!(RevokedEntry::from_bytes(&revoked.to_bytes()), Some(revoked));

        let key = KeyEntry { public: [7; 32], created_at: NOW, retires_at: None, retired: false };
        let bytes = key.to_bytes(b"sealed");
        let public = "07".repeat(32);
        assert_eq!(
            hex(&bytes),
            format!("01{public}0000019abcdef012ffffffffffffffff007365616c6564")
        );
        assert_eq!(KeyEntry::from_bytes(&bytes), Some((key, &b"sealed"[..])));

        let record = VaultRecord { version: 3, audience: Audience::All };
        let bytes = record.to_bytes(b"sealed");
        assert_eq!(hex(&bytes), "010000000000000003017365616c6564");
        assert_eq!(VaultRecord::from_bytes(&bytes), Some((record, &b"sealed"[..])));
    }

    #[test]
    fn other_versions_and_lengths_are_not_read() {
        let whole = claimed(true, None).to_bytes();
        for length in 0..whole.len() {
            assert_eq!(AgentEntry::from_bytes(&whole[..length]), None, "{length}");
        }
        assert_eq!(AgentEntry::from_bytes(&[&whole[..], &[0]].concat()), None);
        for version in [0, 3, 255] {
            let mut other = whole.clone();
            other[0] = version;
            assert_eq!(AgentEntry::from_bytes(&other), None);
        }
        assert_eq!(from_bytes::<u64>(&[2, 7]), None);
        assert_eq!(from_bytes::<u64>(&[1, 7, 7]), None, "more than the value");
        assert_eq!(from_bytes::<u64>(&to_bytes(&7_u64)), Some(7));
    }

    proptest! {
        #[test]
        fn agents_are_read_as_they_were_written(
            serial: u64,
            registered_at: u64,
            claim in proptest::option::of((any::<[u8; 16]>(), any::<bool>(), 0..u64::MAX)),
        ) {
            let claimed = claim.map(|(id, repeatable, expires)| Claimed {
                claim: Claim { id, repeatable },
                expires: Some(UnixMillis(expires)),
            });
            let (serial, registered_at) = (Serial(serial), UnixMillis(registered_at));
            let entry = AgentEntry { serial, registered_at, claimed };
            prop_assert_eq!(AgentEntry::from_bytes(&entry.to_bytes()), Some(entry));
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = AgentEntry::from_bytes(&bytes);
            let _ = RevokedEntry::from_bytes(&bytes);
            let _ = KeyEntry::from_bytes(&bytes);
            let _ = VaultRecord::from_bytes(&bytes);
            let _ = from_bytes::<super::super::raft::Entry>(&bytes);
        }
    }
}
