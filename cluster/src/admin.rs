//! The admin token: the secret that opens the admin API of one node.
//!
//! It is a file in the data directory, so whoever may read that directory is the administrator. It
//! is no agent's token: the registry neither issues nor verifies it.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use data_encoding::BASE64URL_NOPAD;
use rand::Rng;
use subtle::ConstantTimeEq;

use crate::data_dir;

/// The file's name in the data directory.
const FILE: &str = "admin.token";

/// Shorter secrets could be guessed; one that an administrator chose is held to this.
const CHARS_MIN: usize = 16;

/// The node's admin token, and the file that holds it: read, or made if there is none yet.
///
/// A fresh one is 256 random bits. The directory and the file are created for the owner alone.
///
/// # Errors
/// Those of the file system, and `InvalidData` if the file holds no token.
pub fn admin_token(data_dir: &Path) -> io::Result<(PathBuf, String)> {
    data_dir::create(data_dir)?;
    let path = data_dir.join(FILE);
    match fs::read_to_string(&path) {
        Ok(text) => Ok((path, checked(&text)?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let token =
                format!("adm_{}", BASE64URL_NOPAD.encode(&rand::rng().random::<[u8; 32]>()));
            data_dir::write_whole(&path, format!("{token}\n").as_bytes())?;
            Ok((path, token))
        }
        Err(error) => Err(error),
    }
}

/// Whether two secrets are equal, in a time that does not tell where they differ.
pub fn same_secret(given: &str, expected: &str) -> bool {
    given.as_bytes().ct_eq(expected.as_bytes()).into()
}

fn checked(text: &str) -> io::Result<String> {
    let token = text.trim();
    if token.len() >= CHARS_MIN && token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Ok(token.to_owned());
    }
    let reason = format!(
        "{FILE} must hold one line of at least {CHARS_MIN} visible ASCII characters: \
         remove the file to get a new token"
    );
    Err(io::Error::new(io::ErrorKind::InvalidData, reason))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn is_made_once_and_for_the_owner_alone() -> io::Result<()> {
        let dir = tempfile::tempdir()?;
        let data_dir = dir.path().join("data");
        let (path, token) = admin_token(&data_dir)?;
        assert_eq!(admin_token(&data_dir)?, (path.clone(), token.clone()));
        assert!(token.len() > 40);
        assert_eq!(fs::metadata(&path)?.permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(&data_dir)?.permissions().mode() & 0o777, 0o700);
        assert_ne!(admin_token(&dir.path().join("other"))?.1, token);
        Ok(())
    }

    #[test]
    fn an_administrators_own_choice_is_kept_if_it_is_good() -> io::Result<()> {
        let dir = tempfile::tempdir()?;
        fs::write(dir.path().join(FILE), "  sixteen-or-more-chars \n")?;
        assert_eq!(admin_token(dir.path())?.1, "sixteen-or-more-chars");
        for bad in ["", "\n", "short", "two words of good length", "umlauts-äöü-and-so-on"] {
            fs::write(dir.path().join(FILE), bad)?;
            let error = admin_token(dir.path()).expect_err(bad);
            assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        }
        Ok(())
    }

    #[test]
    fn compares_whole_secrets() {
        assert!(same_secret("abc", "abc"));
        for other in ["", "ab", "abcd", "abd", "Abc"] {
            assert!(!same_secret(other, "abc"), "{other}");
        }
    }
}
