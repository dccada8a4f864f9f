//! Tokens: signed, verified without a look-up, narrowed offline by those who hold them.
//!
//! A token is a biscuit. Its first block, the *authority* block, is signed by the registry and says
//! whom the token speaks for; whoever holds the token may append blocks that take something away.
//! `docs/tokens.md` tells holders how. This module issues ([`TokenSigner`]), verifies
//! ([`TokenVerifier`]) and answers what a verified token allows ([`Grant`]); which tokens were
//! revoked, it does not know. It never reads a clock and never shows a token's text.

mod grant;
mod narrowing;
#[cfg(test)]
mod property_tests;
mod signer;
#[cfg(test)]
mod tests;
mod verifier;
mod vocabulary;

pub use grant::Grant;
pub use signer::{SigningError, TokenSigner};
pub use verifier::TokenVerifier;

use crate::UnixMillis;

/// What every token's text starts with (PROTOCOL section 2).
pub const TOKEN_PREFIX: &str = "tok_";

/// The longest text, in bytes, that is looked at as a token: room for a dozen narrowings.
pub const TOKEN_BYTES_MAX: usize = 4096;

/// The most blocks of a token, the authority block included. Each costs one signature check.
pub const TOKEN_BLOCKS_MAX: usize = 16;

/// Names one issued token for revocation; tokens narrowed from it share it.
///
/// Serials grow in the order in which a registry issues tokens.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    serde::Serialize,
    serde::Deserialize,
)]
pub struct Serial(pub u64);

/// Numbers the keys that sign tokens; the first is 0, which tokens do not name.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    serde::Serialize,
    serde::Deserialize,
)]
pub struct KeyId(pub u32);

impl KeyId {
    /// The last that is given: a [`Grant`] has 24 bits for it. A new key every hour gets there in 1,900
    /// years.
    pub const MAX: Self = Self((1 << 24) - 1);
}

/// Why a token is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// No token, or none that this relay's key signed.
    #[error("the token is not one of this relay's: register to get one")]
    Invalid,
    /// Its time, or that of a narrowing, has passed.
    #[error("the token has expired: get a new one")]
    Expired,
    /// It, or its agent, was revoked.
    #[error("the token was revoked")]
    Revoked,
    /// It was narrowed by something other than the checks that the relay enforces.
    #[error("the token was narrowed in a way that this relay does not enforce: {0}")]
    Unsupported(String),
}

/// A moment in whole seconds, the resolution of dates in a token, not before `moment`.
pub(crate) fn seconds_rounded_up(moment: UnixMillis) -> u64 {
    moment.0.div_ceil(1000)
}

/// The moment at which second `seconds` begins.
pub(crate) fn start_of_second(seconds: u64) -> UnixMillis {
    UnixMillis(seconds.saturating_mul(1000))
}
