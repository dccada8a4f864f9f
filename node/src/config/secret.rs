//! A configured secret that cannot be shown by accident.

use std::{fmt, ops::Deref};

/// A secret from the configuration. Its `Debug` hides it, and it has no `Display`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Whether `given` is this secret, in a time that does not depend on where they differ.
    pub fn matches(&self, given: &[u8]) -> bool {
        let own = self.0.as_bytes();
        let difference = own.iter().zip(given).fold(0, |seen, (a, b)| seen | (a ^ b));
        own.len() == given.len() && std::hint::black_box(difference) == 0
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self(text.into())
    }
}

impl Deref for Secret {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(hidden)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_whole_secret_matches() {
        let secret = Secret::from("open-sesame");
        assert!(secret.matches(b"open-sesame"));
        for wrong in ["", "open-sesam", "open-sesame!", "open-sesamE", "Open-sesame"] {
            assert!(!secret.matches(wrong.as_bytes()), "{wrong}");
        }
    }

    #[test]
    fn debug_hides_it() {
        assert!(!format!("{:?}", Some(Secret::from("open-sesame"))).contains("sesame"));
    }
}
