//! What a verified token allows.

use std::{fmt, sync::Arc};

use super::{
    KeyId, Serial, TokenError,
    narrowing::{Narrowing, Operation},
    start_of_second,
};
use crate::{AgentId, UnixMillis};

/// How many bits of a [`Term`] count seconds: enough for 34,000 years.
const SECONDS_BITS: u32 = 40;

/// The expiry of a token that does not expire, in seconds.
const NEVER: u64 = (1 << SECONDS_BITS) - 1;

/// What a verified token allows.
///
/// Kept by every open session, so it is 40 bytes; what a narrowed token needs beyond them is shared
/// by its clones. Whether the token was revoked since, the registry knows.
#[derive(Clone, Debug)]
pub struct Grant {
    agent: AgentId,
    serial: Serial,
    term: Term,
    narrowing: Option<Arc<Narrowing>>,
}

/// Which key signed, and until when, in one word: the key's number, then seconds.
#[derive(Clone, Copy)]
struct Term(u64);

impl Grant {
    pub(super) fn new(
        key: KeyId,
        agent: AgentId,
        serial: Serial,
        expires: Option<UnixMillis>,
        narrowing: Option<Narrowing>,
    ) -> Self {
        let term = Term::new(key, expires);
        Self { agent, serial, term, narrowing: narrowing.map(Arc::new) }
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
        self.term.key()
    }

    /// When the token as it was issued ends; its narrowings may end it earlier.
    pub fn expires(&self) -> Option<UnixMillis> {
        self.term.expires()
    }

    /// Whether the token was narrowed: if not, everything is allowed until it expires.
    pub fn is_narrowed(&self) -> bool {
        self.narrowing.is_some()
    }

    /// Whether the token is still good for a session at `now`: expiry, its own and its narrowings'.
    pub fn check_time(&self, now: UnixMillis) -> Result<(), TokenError> {
        let narrowing_ended = || self.narrowing.as_ref().is_some_and(|n| !n.allows_time(now));
        if self.has_ended(now) || narrowing_ended() { Err(TokenError::Expired) } else { Ok(()) }
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

    fn has_ended(&self, now: UnixMillis) -> bool {
        self.expires().is_some_and(|expires| now >= expires)
    }

    fn allows(&self, operation: Operation<'_>, now: UnixMillis) -> bool {
        !self.has_ended(now)
            && self.narrowing.as_ref().is_none_or(|n| n.allows(&self.agent, operation, now))
    }
}

impl Term {
    /// `expires` is the beginning of a second.
    fn new(key: KeyId, expires: Option<UnixMillis>) -> Self {
        let seconds = expires.map_or(NEVER, |expires| (expires.0 / 1000).min(NEVER));
        Self(u64::from(key.0) << SECONDS_BITS | seconds)
    }

    fn key(self) -> KeyId {
        KeyId(u32::try_from(self.0 >> SECONDS_BITS).unwrap_or_default()) // 24 bits fit
    }

    fn expires(self) -> Option<UnixMillis> {
        let seconds = self.0 & NEVER;
        (seconds != NEVER).then(|| start_of_second(seconds))
    }
}

impl fmt::Debug for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} until {:?}", self.key(), self.expires())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_small_and_crosses_threads() {
        fn crosses_threads<T: Send + Sync>() {}
        crosses_threads::<Grant>();
        assert_eq!(size_of::<Grant>(), 40);
    }

    #[test]
    fn a_word_holds_the_key_and_the_end() {
        for key in [KeyId(0), KeyId(1), KeyId::MAX] {
            for expires in [None, Some(UnixMillis(0)), Some(UnixMillis(1_795_341_601_000))] {
                let term = Term::new(key, expires);
                assert_eq!((term.key(), term.expires()), (key, expires));
            }
            assert_eq!(Term::new(key, Some(UnixMillis(u64::MAX))).expires(), None);
        }
    }

    #[test]
    fn shows_no_more_than_names() {
        let agent = "rawk-042".parse().expect("well-formed");
        let grant = Grant::new(KeyId(0), agent, Serial(7), None, None);
        let shown = format!("{grant:?}");
        assert!(shown.contains("rawk-042") && !shown.contains("tok_"), "{shown}");
    }
}
