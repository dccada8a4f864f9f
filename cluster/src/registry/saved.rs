//! What a node that keeps no book saves of it, so that it serves its agents after a restart out of reach
//! of all voters.

use std::{fs, io, path::Path};

use serde::{Deserialize, Serialize};

use super::{
    facts::Facts,
    message,
    sealing::{Place, Sealing},
};
use crate::data_dir;

/// The file's name in the data directory.
pub(super) const FILE: &str = "registry.view";

/// Where it lies, for whoever seals it.
const PLACE: Place<'static> = Place("view", b"");

/// All that was known at an index.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Saved {
    pub(super) index: u64,
    pub(super) facts: Facts,
}

impl Saved {
    /// What was saved last; none if nothing was, or it is not what this release and node can read:
    /// then the voters tell it anew.
    pub(super) fn read(data_dir: &Path, sealing: &Sealing) -> io::Result<Option<Self>> {
        let sealed = match fs::read(data_dir.join(FILE)) {
            Ok(sealed) => sealed,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        Ok(sealing.open(PLACE, &sealed).and_then(|plain| message::from_bytes(&plain)))
    }

    /// Removes what was saved, if anything was.
    pub(super) fn remove(data_dir: &Path) -> io::Result<()> {
        match fs::remove_file(data_dir.join(FILE)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Saves it whole, or not at all. Blocks on the disk.
    pub(super) fn write(&self, data_dir: &Path, sealing: &Sealing) -> io::Result<()> {
        let plain = zeroize::Zeroizing::new(message::to_bytes(self));
        let sealed = sealing.seal(PLACE, &plain).map_err(io::Error::other)?;
        data_dir::write_whole(&data_dir.join(FILE), &sealed)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a failed unwrap is a failed test
mod tests {
    use data_encoding::HEXLOWER;

    use super::*;
    use crate::registry::AtRest;

    fn sealing() -> Sealing {
        AtRest::generate().sealings().next().unwrap()
    }

    #[test]
    fn it_comes_back_only_to_the_node_that_saved_it() {
        let dir = tempfile::tempdir().unwrap();
        let (sealing, other) = (sealing(), sealing());
        assert_eq!(Saved::read(dir.path(), &sealing).unwrap(), None);
        let saved = Saved { index: 7, facts: Facts { registered: 3, ..Facts::default() } };
        saved.write(dir.path(), &sealing).unwrap();
        assert_eq!(Saved::read(dir.path(), &sealing).unwrap(), Some(saved));
        assert_eq!(Saved::read(dir.path(), &other).unwrap(), None);
        let file = dir.path().join(FILE);
        let mut bytes = fs::read(&file).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(&file, bytes).unwrap();
        assert_eq!(Saved::read(dir.path(), &sealing).unwrap(), None);
    }

    #[test]
    fn what_is_not_there_is_removed_too() {
        let dir = tempfile::tempdir().unwrap();
        let saved = Saved { index: 7, facts: Facts::default() };
        saved.write(dir.path(), &sealing()).unwrap();
        for _ in 0..2 {
            Saved::remove(dir.path()).unwrap();
            assert!(!dir.path().join(FILE).exists());
        }
    }

    #[test]
    fn the_bytes_are_frozen() {
        let saved = Saved { index: 300, facts: Facts { registered: 3, ..Facts::default() } };
        assert_eq!(HEXLOWER.encode(&message::to_bytes(&saved)), "92cd012c98c003808080c080c0");
    }
}
