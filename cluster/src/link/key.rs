//! The node's own key, from which it makes what its peers must find unchanged after a restart.
//!
//! It is a file in the data directory. It proves nothing to anybody: a node without its former key is
//! as good as before, but its peers notice its restart only when they have waited long enough.

use std::{fmt, fs, io, path::Path};

use rand::Rng;
use zeroize::Zeroizing;

use crate::data_dir;

/// The file's name in the data directory.
const FILE: &str = "mesh.key";

/// Bytes of the key, and of the file.
const BYTES: usize = 32;

/// 256 random bits that belong to a node's data directory. Never shown.
pub struct NodeKey(Zeroizing<[u8; BYTES]>);

impl NodeKey {
    /// The key in `data_dir`: read, or made durably if there is none yet. The directory and the file
    /// are created for their owner alone.
    ///
    /// # Errors
    /// Those of the file system, and `InvalidData` if the file holds no key.
    pub fn open(data_dir: &Path) -> io::Result<Self> {
        data_dir::create(data_dir)?;
        let path = data_dir.join(FILE);
        match fs::read(&path).map(Zeroizing::new) {
            Ok(bytes) => bytes
                .as_slice()
                .try_into()
                .map(|key| Self(Zeroizing::new(key)))
                .map_err(|_| not_a_key(&path)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let key = Self::generate();
                data_dir::write_whole(&path, &*key.0)?;
                Ok(key)
            }
            Err(error) => Err(error),
        }
    }

    /// A key that is kept nowhere: for nodes in memory.
    pub fn generate() -> Self {
        Self(Zeroizing::new(rand::rng().random()))
    }

    /// The key for one use; `label` names the use.
    pub fn derive(&self, label: &str) -> Zeroizing<[u8; BYTES]> {
        tls::mesh::derive(&self.0, label)
    }
}

impl fmt::Debug for NodeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NodeKey(hidden)")
    }
}

fn not_a_key(path: &Path) -> io::Error {
    let reason = format!("{} must hold {BYTES} bytes: remove it to get a new key", path.display());
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn is_made_once_and_for_the_owner_alone() -> io::Result<()> {
        let dir = tempfile::tempdir()?;
        let data_dir = dir.path().join("data");
        let made = NodeKey::open(&data_dir)?;
        assert_eq!(NodeKey::open(&data_dir)?.0, made.0);
        assert_ne!(NodeKey::open(&dir.path().join("other"))?.0, made.0);
        let path = data_dir.join(FILE);
        assert_eq!(fs::metadata(&path)?.permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(&data_dir)?.count(), 1, "something unfinished is left");
        Ok(())
    }

    #[test]
    fn a_file_that_holds_no_key_is_refused_and_kept() -> io::Result<()> {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join(FILE);
        for bad in [&[][..], &[1; 31], &[1; 33]] {
            fs::write(&path, bad)?;
            let error = NodeKey::open(dir.path()).expect_err("no key");
            assert_eq!(error.kind(), io::ErrorKind::InvalidData);
            assert!(error.to_string().contains("remove it"), "{error}");
            assert_eq!(fs::read(&path)?, bad);
        }
        Ok(())
    }

    #[test]
    fn each_use_has_its_own_key() {
        let key = NodeKey::generate();
        assert_eq!(key.derive("a"), key.derive("a"));
        assert_ne!(key.derive("a"), key.derive("b"));
        assert_ne!(key.derive("a"), NodeKey::generate().derive("a"));
        assert_eq!(format!("{key:?}"), "NodeKey(hidden)");
    }
}
