//! Secrets on their way from the user to a header, and from the relay to a file.
//!
//! Never shows one: `Debug` is redacted, the header is marked sensitive, and memory is cleared.

use std::{
    convert::Infallible,
    fmt,
    fs::{File, OpenOptions},
    io::{Read as _, Write as _},
    path::{Path, PathBuf},
    str::FromStr,
};

use hyper::header::HeaderValue;
use zeroize::Zeroizing;

use super::failure::Failure;

/// More than any token or key has; keeps a wrong file name from being read whole.
const SECRET_BYTES_MAX: u64 = 16 * 1024;

/// A token or key; white space around it is not part of it.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Secret(Zeroizing<String>);

impl FromStr for Secret {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(Self(Zeroizing::new(text.trim().to_owned())))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(redacted)")
    }
}

impl Secret {
    /// The secret that a file holds.
    pub(super) fn read(path: &Path) -> Result<Self, Failure> {
        let failed = |source| Failure::Read { path: path.to_owned(), source };
        let mut text = Zeroizing::new(String::new());
        let file = File::open(path).map_err(failed)?;
        file.take(SECRET_BYTES_MAX).read_to_string(&mut text).map_err(failed)?;
        Ok(Self(Zeroizing::new(text.trim().to_owned())))
    }

    /// Whether there is any text in it.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The value of an `Authorization` header; `what` names the secret should it be unusable.
    pub(super) fn bearer(&self, what: &'static str) -> Result<HeaderValue, Failure> {
        let unusable = || Failure::UnusableSecret(what);
        if self.is_empty() || !self.0.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(unusable());
        }
        let text = Zeroizing::new(format!("Bearer {}", *self.0));
        let mut value = HeaderValue::from_str(&text).map_err(|_| unusable())?;
        value.set_sensitive(true);
        Ok(value)
    }
}

/// A new file, readable by its owner alone, that waits for a secret. Made *before* the relay is
/// asked for one, because a name is registered only once; gone again if nothing was stored.
pub(super) struct SecretFile {
    path: PathBuf,
    file: File,
    stored: bool,
}

impl SecretFile {
    /// Creates the file; fails if there is one, because it may hold the only copy of a token.
    pub(super) fn create(path: &Path) -> Result<Self, Failure> {
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let file =
            options.open(path).map_err(|source| Failure::Save { path: path.to_owned(), source })?;
        Ok(Self { path: path.to_owned(), file, stored: false })
    }

    /// Writes the secret, durably.
    pub(super) fn store(mut self, secret: &str) -> Result<PathBuf, Failure> {
        let written = writeln!(self.file, "{secret}").and_then(|()| self.file.sync_all());
        written.map_err(|source| Failure::Save { path: self.path.clone(), source })?;
        self.stored = true;
        Ok(self.path.clone())
    }
}

impl Drop for SecretFile {
    fn drop(&mut self) {
        if !self.stored {
            // Nothing of value is in it; that it cannot be removed changes nothing for the user.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a test that cannot go on fails
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_never_shown() {
        let secret: Secret = "tok_abc".parse().unwrap();
        assert_eq!(format!("{secret:?}"), "Secret(redacted)");
        assert_eq!(format!("{:?}", secret.bearer("token").unwrap()), "Sensitive");
    }

    #[test]
    fn what_cannot_stand_in_a_header_is_refused_without_being_quoted() {
        for bad in ["", "  ", "tok abc", "tok_\u{7f}", "tok_é", "tok_a\nb"] {
            let text = bad.parse::<Secret>().unwrap().bearer("token").unwrap_err().to_string();
            assert!(text.starts_with("the token is empty or has characters"), "{text}");
        }
    }

    #[test]
    fn a_secret_goes_to_a_private_file_and_comes_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        SecretFile::create(&path).unwrap().store("tok_abc").unwrap();
        assert_eq!(Secret::read(&path).unwrap(), "tok_abc".parse().unwrap());
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        }
        assert!(matches!(SecretFile::create(&path), Err(Failure::Save { .. })));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "tok_abc\n");
    }

    #[test]
    fn a_file_that_got_no_secret_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        drop(SecretFile::create(&path).unwrap());
        assert!(!path.exists());
    }
}
