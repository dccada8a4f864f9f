//! The secret that makes nodes a cluster, and keys derived from secrets.

use std::{fmt, str::FromStr};

use aws_lc_rs::{digest, hmac};
use data_encoding::BASE64URL_NOPAD;
use rand::Rng;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// Bytes of a key.
const KEY_BYTES: usize = 32;

/// Bytes that tell a mistyped secret from a good one.
const CHECKSUM_BYTES: usize = 4;

/// What a secret's text begins with, so that it is known for what it is where it should not be.
const PREFIX: &str = "arcs_";

/// Separates this use of HKDF from all others, as RFC 5869, section 3.1 advises.
const SALT: &[u8] = b"arc-relay/1";

/// The secret of a cluster (`CLUSTER_SECRET`): whoever has it can be a node of it.
///
/// As text: `arcs_` and 48 characters, base64url of 32 random bytes and a checksum. Never shown but
/// by [`reveal`](Self::reveal), and erased from memory when it is dropped.
#[derive(Clone)]
pub struct Secret(Zeroizing<[u8; KEY_BYTES]>);

/// The text is no cluster's secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    /// It does not look like one.
    #[error(
        "a cluster's secret is arcs_ and 48 letters, digits, - or _: make one with \
         `arc-relay secret`"
    )]
    Form,
    /// It looks like one, but was not copied right.
    #[error("a character of the secret is wrong: its checksum does not match")]
    Checksum,
}

impl Secret {
    /// A new one.
    pub fn generate() -> Self {
        let mut key = Zeroizing::new([0; KEY_BYTES]);
        rand::rng().fill(&mut *key);
        Self(key)
    }

    /// Its text, for the operator's eyes.
    pub fn reveal(&self) -> Zeroizing<String> {
        let bytes = Zeroizing::new([&self.0[..], &checksum(&self.0)].concat());
        let digits = Zeroizing::new(BASE64URL_NOPAD.encode(&bytes));
        Zeroizing::new([PREFIX, &digits].concat())
    }

    /// The key for one use, the same on every node; `label` names the use.
    pub fn derive(&self, label: &str) -> Zeroizing<[u8; KEY_BYTES]> {
        derive(&self.0, label)
    }
}

impl FromStr for Secret {
    type Err = SecretError;

    fn from_str(text: &str) -> Result<Self, SecretError> {
        let digits = text.strip_prefix(PREFIX).ok_or(SecretError::Form)?.as_bytes();
        let decoded = BASE64URL_NOPAD.decode(digits).map_err(|_| SecretError::Form)?;
        let bytes = Zeroizing::new(decoded);
        let (key, check) = bytes.split_first_chunk::<KEY_BYTES>().ok_or(SecretError::Form)?;
        match check.len() {
            CHECKSUM_BYTES if checksum(key) == check => Ok(Self(Zeroizing::new(*key))),
            CHECKSUM_BYTES => Err(SecretError::Checksum),
            _ => Err(SecretError::Form),
        }
    }
}

impl PartialEq for Secret {
    /// In a time that does not tell where they differ.
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&*other.0).into()
    }
}

impl Eq for Secret {}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(hidden)")
    }
}

/// The key for one use of `key`; `label` names the use. Nobody can tell one from the other, or `key`
/// from any. HKDF-SHA256 (RFC 5869) with `label` as its info; 32 bytes are its first block.
pub fn derive(key: &[u8; KEY_BYTES], label: &str) -> Zeroizing<[u8; KEY_BYTES]> {
    let sign = |key: &[u8], message: &[u8]| {
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), message);
        let mut block = Zeroizing::new([0; KEY_BYTES]);
        block.copy_from_slice(tag.as_ref());
        block
    };
    let extracted = sign(SALT, key);
    sign(&*extracted, &[label.as_bytes(), &[1]].concat())
}

fn checksum(key: &[u8; KEY_BYTES]) -> [u8; CHECKSUM_BYTES] {
    let hash = digest::digest(&digest::SHA256, &[b"cluster secret", &key[..]].concat());
    hash.as_ref().first_chunk().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::hkdf;

    use super::*;

    const TEXT: &str = "arcs_BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcUbF2o";

    fn secret() -> Secret {
        Secret(Zeroizing::new([7; KEY_BYTES]))
    }

    #[test]
    fn its_text_is_frozen_and_comes_back() {
        assert_eq!(*secret().reveal(), TEXT);
        assert_eq!(TEXT.parse(), Ok(secret()));
        let fresh = Secret::generate();
        assert_eq!(fresh.reveal().parse(), Ok(fresh.clone()));
        assert_ne!(fresh, Secret::generate());
        assert_ne!(fresh, secret());
    }

    #[test]
    fn a_typo_is_told_wherever_it_is() {
        for place in PREFIX.len()..TEXT.len() {
            let mut text = TEXT.to_owned();
            let other = if &text[place..=place] == "x" { "y" } else { "x" };
            text.replace_range(place..=place, other);
            assert_eq!(text.parse::<Secret>(), Err(SecretError::Checksum), "{text}");
        }
    }

    #[test]
    fn what_is_no_secret_is_refused() {
        let short = &TEXT[..TEXT.len() - 1];
        let long = format!("{TEXT}AAAA");
        for text in ["", "arcs_", "arcs", "swordfish", &TEXT[5..], short, &long, "arcs_ä"] {
            assert_eq!(text.parse::<Secret>(), Err(SecretError::Form), "{text}");
        }
    }

    #[test]
    fn debugging_does_not_show_it() {
        assert_eq!(format!("{:?}", secret()), "Secret(hidden)");
    }

    #[test]
    fn keys_are_those_of_hkdf() {
        let extracted = hkdf::Salt::new(hkdf::HKDF_SHA256, SALT).extract(&[7; KEY_BYTES]);
        for label in ["", "mesh ca", "a longer label of more than one block of the hash function!!"]
        {
            let mut expected = [0; KEY_BYTES];
            let info = [label.as_bytes()];
            let block = extracted.expand(&info, hkdf::HKDF_SHA256).expect("one block");
            block.fill(&mut expected).expect("one block");
            assert_eq!(*secret().derive(label), expected, "{label}");
        }
        assert_ne!(*secret().derive("a"), *secret().derive("b"));
    }
}
