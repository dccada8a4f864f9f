//! How what is secret lies on the disk: sealed with a key of this node.
//!
//! AES-256-GCM with a random nonce of 96 bits, whose place in the file is authenticated too: what is
//! moved elsewhere does not open. The key is made from the cluster's secret, or kept in a file beside
//! the registry where there is none.
//!
//! This is about disks. Whoever reads the process's memory reads its secrets: what holds one for long
//! wipes it when it is dropped, but copies that pass through buffers on their way to a peer or the disk
//! are not wiped.

use std::{fmt, fs, io, path::Path};

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use rand::Rng;
use zeroize::Zeroizing;

use super::tables::StoreError;
use crate::data_dir;

/// The file with the key of a node without a cluster's secret.
const FILE: &str = "registry.key";

/// Names this use of the cluster's secret.
const LABEL: &str = "registry at rest";

const KEY_BYTES: usize = 32;

/// The keys that may open what lies on the disk; the first seals.
pub struct AtRest(Vec<Zeroizing<[u8; KEY_BYTES]>>);

/// Seals with one key. Never shown.
pub(super) struct Sealing(RandomizedNonceKey);

/// Where something sealed lies: a table, and its key there.
#[derive(Clone, Copy)]
pub(super) struct Place<'a>(pub(super) &'a str, pub(super) &'a [u8]);

impl AtRest {
    /// The keys of a node with these secrets, if any, and that data directory: made from `secret`,
    /// else from the file `registry.key`, which is made durably if nothing else can seal. Files and
    /// directory are for their owner alone.
    ///
    /// # Errors
    /// Those of the file system, and `InvalidData` if the file holds no key.
    pub fn open(
        data_dir: &Path,
        secret: Option<&tls::mesh::Secret>,
        previous: Option<&tls::mesh::Secret>,
    ) -> io::Result<Self> {
        let of_secrets = secret.into_iter().chain(previous).map(|secret| secret.derive(LABEL));
        let mut keys: Vec<_> = of_secrets.collect();
        let of_file = read(&data_dir.join(FILE))?;
        match (of_file, secret) {
            (Some(key), Some(_)) => keys.push(key),
            (Some(key), None) => keys.insert(0, key),
            (None, Some(_)) => {}
            (None, None) => keys.insert(0, make(data_dir)?),
        }
        Ok(Self(keys))
    }

    /// A key that is kept nowhere: for registries in memory.
    pub fn generate() -> Self {
        Self(vec![Zeroizing::new(rand::rng().random())])
    }

    /// The same keys, which seal in place of `former`.
    #[cfg(test)]
    pub(super) fn in_place_of(&self, former: &Self) -> Self {
        Self([&self.0[..], &former.0[..]].concat())
    }

    /// What seals with each of the keys, the present one first.
    pub(super) fn sealings(&self) -> impl Iterator<Item = Sealing> + '_ {
        self.0.iter().filter_map(|key| Sealing::new(key))
    }
}

fn read(path: &Path) -> io::Result<Option<Zeroizing<[u8; KEY_BYTES]>>> {
    match fs::read(path).map(Zeroizing::new) {
        Ok(bytes) => match bytes.as_slice().try_into() {
            Ok(key) => Ok(Some(Zeroizing::new(key))),
            Err(_) => Err(not_a_key(path)),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn make(data_dir: &Path) -> io::Result<Zeroizing<[u8; KEY_BYTES]>> {
    let key: Zeroizing<[u8; KEY_BYTES]> = Zeroizing::new(rand::rng().random());
    data_dir::create(data_dir)?;
    data_dir::write_whole(&data_dir.join(FILE), &*key)?;
    Ok(key)
}

fn not_a_key(path: &Path) -> io::Error {
    let reason = format!(
        "{} must hold {KEY_BYTES} bytes: bring it back from where the data directory was copied to",
        path.display()
    );
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

impl Sealing {
    fn new(key: &[u8; KEY_BYTES]) -> Option<Self> {
        RandomizedNonceKey::new(&AES_256_GCM, key).ok().map(Self)
    }

    /// `plain` as it may lie at `place`: the nonce, what is encrypted, and a tag; 28 bytes more.
    ///
    /// Refused are only texts of 64 GiB and more, and a system without randomness.
    pub(super) fn seal(&self, place: Place<'_>, plain: &[u8]) -> Result<Vec<u8>, StoreError> {
        let mut sealed = Vec::with_capacity(NONCE_LEN + plain.len() + AES_256_GCM.tag_len());
        sealed.extend_from_slice(plain);
        let nonce = self.0.seal_in_place_append_tag(place.associated_data(), &mut sealed);
        let nonce = nonce.map_err(|_| StoreError::Unsealed)?;
        sealed.splice(0..0, nonce.as_ref().iter().copied());
        Ok(sealed)
    }

    /// What was sealed for `place`; none if it was not, or with another key, or was altered.
    pub(super) fn open(&self, place: Place<'_>, sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let (nonce, sealed) = sealed.split_first_chunk::<NONCE_LEN>()?;
        let mut plain = Zeroizing::new(sealed.to_vec());
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let length = self.0.open_in_place(nonce, place.associated_data(), &mut plain).ok()?.len();
        plain.truncate(length);
        Some(plain)
    }
}

impl Place<'_> {
    fn associated_data(&self) -> Aad<Vec<u8>> {
        Aad::from([self.0.as_bytes(), b"\0", self.1].concat())
    }
}

impl fmt::Debug for AtRest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AtRest({} keys)", self.0.len())
    }
}

impl fmt::Debug for Sealing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sealing(hidden)")
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a failed unwrap is a failed test
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const HERE: Place<'_> = Place("vault", b"account");

    fn seals(keys: &AtRest) -> Sealing {
        keys.sealings().next().unwrap()
    }

    #[test]
    fn opens_with_the_key_and_at_the_place_alone() {
        let (keys, others) = (AtRest::generate(), AtRest::generate());
        let sealed = seals(&keys).seal(HERE, b"secret").unwrap();
        assert_eq!(sealed.len(), 6 + 28);
        assert_ne!(sealed, seals(&keys).seal(HERE, b"secret").unwrap(), "the same nonce twice");
        assert_eq!(seals(&keys).open(HERE, &sealed).unwrap().as_slice(), b"secret");
        assert!(seals(&others).open(HERE, &sealed).is_none());
        for elsewhere in [Place("vault", b"accoun"), Place("log", b"account"), Place("", b"")] {
            assert!(seals(&keys).open(elsewhere, &sealed).is_none());
        }
        for at in 0..sealed.len() {
            let mut altered = sealed.clone();
            altered[at] ^= 1;
            assert!(seals(&keys).open(HERE, &altered).is_none());
            assert!(seals(&keys).open(HERE, &sealed[..at]).is_none());
        }
        assert!(!format!("{:?}{keys:?}", seals(&keys)).contains("secret"));
    }

    #[test]
    fn a_node_without_a_secret_keeps_a_key_for_its_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        let data_dir = dir.path().join("data");
        let made = AtRest::open(&data_dir, None, None).unwrap();
        assert_eq!(AtRest::open(&data_dir, None, None).unwrap().0, made.0);
        let path = data_dir.join(FILE);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        fs::write(&path, [1; 31]).unwrap();
        let error = AtRest::open(&data_dir, None, None).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn the_present_secret_seals_and_the_others_open() {
        let dir = tempfile::tempdir().unwrap();
        let (present, previous) = (tls::mesh::Secret::generate(), tls::mesh::Secret::generate());
        let alone = AtRest::open(dir.path(), Some(&present), Some(&previous)).unwrap();
        assert_eq!(alone.0, [present.derive(LABEL), previous.derive(LABEL)]);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "a key that nobody needs");
        let of_file = AtRest::open(dir.path(), None, None).unwrap().0;
        let all = AtRest::open(dir.path(), Some(&present), Some(&previous)).unwrap();
        assert_eq!(all.0, [&alone.0[..], &of_file[..]].concat());
    }
}
