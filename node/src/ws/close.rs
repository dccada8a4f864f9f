//! Close codes: which the relay sends and why, which it accepts (RFC 6455 section 7.4).

/// Why the relay closes a session (PROTOCOL section 7).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u16)]
pub enum CloseCode {
    /// 1000: the client closed. Reconnecting is its choice.
    Normal = 1000,
    /// 1001: this node is draining or stopping. Reconnect after the `retry_ms` in the reason.
    GoingAway = 1001,
    /// 1002: the client broke the rules of framing. Reconnect once that is fixed.
    ProtocolError = 1002,
    /// 1007: a message or a close reason was not UTF-8. Reconnect once that is fixed.
    InvalidUtf8 = 1007,
    /// 1009: a message was over `MAX_MESSAGE_SIZE`. Reconnect once that is fixed.
    MessageTooLarge = 1009,
    /// 1011: the relay failed. Reconnect with backoff.
    InternalError = 1011,
    /// 4001: the token expired or was revoked while connected. Get a new one first.
    TokenInvalid = 4001,
    /// 4008: slow consumer; the outbox stayed full or a write passed its deadline. Reconnect.
    SlowConsumer = 4008,
    /// 4009: replaced by a newer session of the same agent. Do not reconnect.
    Replaced = 4009,
    /// 4029: kept sending far over the rate limit. Reconnect after a minute.
    RateLimited = 4029,
}

impl CloseCode {
    /// Every code the relay sends, in ascending order.
    pub const ALL: [Self; 10] = [
        Self::Normal,
        Self::GoingAway,
        Self::ProtocolError,
        Self::InvalidUtf8,
        Self::MessageTooLarge,
        Self::InternalError,
        Self::TokenInvalid,
        Self::SlowConsumer,
        Self::Replaced,
        Self::RateLimited,
    ];
}

impl From<CloseCode> for u16 {
    fn from(code: CloseCode) -> Self {
        code as Self
    }
}

/// Whether an endpoint may put `code` into a close frame: what RFC 6455 section 7.4 and the IANA
/// registry define, and the ranges for libraries (3000–3999) and applications (4000–4999).
///
/// 1004–1006 and 1015 are reserved for reporting within an endpoint and never travel.
pub const fn may_travel(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_the_relay_sends_may_travel() {
        assert!(CloseCode::ALL.into_iter().all(|code| may_travel(code.into())));
        assert!(CloseCode::ALL.is_sorted_by_key(|code| u16::from(*code)));
    }

    #[test]
    fn codes_that_never_travel() {
        for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, u16::MAX] {
            assert!(!may_travel(code), "{code}");
        }
    }

    #[test]
    fn the_codes_are_those_of_the_protocol_page() {
        let sent = CloseCode::ALL.map(u16::from);
        assert_eq!(sent, [1000, 1001, 1002, 1007, 1009, 1011, 4001, 4008, 4009, 4029]);
    }
}
