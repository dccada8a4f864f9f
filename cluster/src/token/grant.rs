//! What a verified token allows.

use std::sync::Arc;

use super::{
    KeyId, Serial, TokenError,
    narrowing::{Narrowing, Operation},
};
use crate::{AgentId, UnixMillis};

/// The expiry of a token that does not expire.
const NEVER: UnixMillis = UnixMillis(u64::MAX);

/// What a verified token allows.
///
/// Kept by every open session, so it is 48 bytes; what a narrowed token needs beyond them is shared
/// by its clones. Whether the token was revoked since, the registry knows.
#[derive(Clone, Debug)]
pub struct Grant {
    agent: AgentId,
    serial: Serial,
    key: KeyId,
    expires: UnixMillis,
    narrowing: Option<Arc<Narrowing>>,
}

impl Grant {
    pub(super) fn new(
        agent: AgentId,
        serial: Serial,
        key: KeyId,
        expires: Option<UnixMillis>,
        narrowing: Option<Narrowing>,
    ) -> Self {
        let expires = expires.unwrap_or(NEVER);
        Self { agent, serial, key, expires, narrowing: narrowing.map(Arc::new) }
    }

    /// The agent that the token speaks for.
    pub fn agent(&self) -> &AgentId {
        &self.agent
    }

    /// The token's serial.
    pub fn serial(&self) -> Serial {
        self.serial
    }

    /// The key that signed the token.
    pub fn key(&self) -> KeyId {
        self.key
    }

    /// When the token as it was issued ends; its narrowings may end it earlier.
    pub fn expires(&self) -> Option<UnixMillis> {
        (self.expires != NEVER).then_some(self.expires)
    }

    /// Whether the token was narrowed: if not, everything is allowed until it expires.
    pub fn is_narrowed(&self) -> bool {
        self.narrowing.is_some()
    }

    /// Whether the token is still good for a session at `now`: expiry, its own and its narrowings'.
    pub fn check_time(&self, now: UnixMillis) -> Result<(), TokenError> {
        let narrowing_ended = || self.narrowing.as_ref().is_some_and(|n| !n.allows_time(now));
        if now >= self.expires || narrowing_ended() { Err(TokenError::Expired) } else { Ok(()) }
    }

    /// The next moment after `now` at which any answer of this grant may change; none means never.
    pub fn next_change(&self, now: UnixMillis) -> Option<UnixMillis> {
        let expiry = self.expires().filter(|expires| *expires > now);
        let narrowing = self.narrowing.as_ref().and_then(|n| n.next_change(now));
        expiry.into_iter().chain(narrowing).min()
    }

    /// Whether messages may be delivered to the session at `now`.
    pub fn may_receive(&self, now: UnixMillis) -> bool {
        self.allows(Operation::Receive, now)
    }

    /// Whether the session may send to `recipient` (an agent id, or `*` for a broadcast) at `now`.
    /// Evaluates the checks each time: keep the answer until [`next_change`](Self::next_change).
    pub fn may_send(&self, recipient: &str, now: UnixMillis) -> bool {
        self.allows(Operation::Send { recipient }, now)
    }

    fn allows(&self, operation: Operation<'_>, now: UnixMillis) -> bool {
        now < self.expires
            && self.narrowing.as_ref().is_none_or(|n| n.allows(&self.agent, operation, now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_small_and_crosses_threads() {
        fn crosses_threads<T: Send + Sync>() {}
        crosses_threads::<Grant>();
        assert_eq!(size_of::<Grant>(), 48);
    }

    #[test]
    fn shows_no_more_than_names() {
        let agent = "rawk-042".parse().expect("well-formed");
        let grant = Grant::new(agent, Serial(7), KeyId(0), None, None);
        let shown = format!("{grant:?}");
        assert!(shown.contains("rawk-042") && !shown.contains("tok_"), "{shown}");
    }
}
