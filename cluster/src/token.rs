//! Tokens: signed, verified without a look-up, narrowed offline by those who hold them.

use crate::{AgentId, UnixMillis};

/// Names one issued token for revocation; tokens narrowed from it share it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Serial(pub u64);

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

/// What a verified token allows.
#[derive(Clone, Debug)]
pub struct Grant {
    agent: AgentId,
    serial: Serial,
}

impl Grant {
    /// The agent that the token speaks for.
    pub fn agent(&self) -> &AgentId {
        &self.agent
    }

    /// The token's serial.
    pub fn serial(&self) -> Serial {
        self.serial
    }

    /// Whether the token was narrowed: if not, everything is allowed until it expires.
    pub fn is_narrowed(&self) -> bool {
        false
    }

    /// Whether the token is still good for a session at `now`: expiry, its own and its narrowings'.
    pub fn check_time(&self, _now: UnixMillis) -> Result<(), TokenError> {
        Ok(())
    }

    /// The next moment after `now` at which any answer of this grant may change; none means never.
    pub fn next_change(&self, _now: UnixMillis) -> Option<UnixMillis> {
        None
    }

    /// Whether messages may be delivered to the session at `now`.
    pub fn may_receive(&self, _now: UnixMillis) -> bool {
        true
    }

    /// Whether the session may send to `recipient` (an agent id, or `*` for a broadcast) at `now`.
    /// Evaluates the checks each time: keep the answer until [`next_change`](Self::next_change).
    pub fn may_send(&self, _recipient: &str, _now: UnixMillis) -> bool {
        true
    }
}
