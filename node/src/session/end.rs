//! Why sessions end.

use crate::ws::CloseCode;

/// Why a session ended; the first reason counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum End {
    /// The agent said goodbye.
    Client = 1,
    /// The connection broke, or ended without a goodbye.
    Lost,
    /// Nothing was heard of the agent for too long.
    Silent,
    /// The relay closed it, with this reason's code.
    SlowConsumer,
    /// Closed with 4009.
    Replaced,
    /// Closed with 4001.
    Token,
    /// Closed with 4029.
    RateLimit,
    /// Closed with 1002, 1007 or 1009.
    Violation,
    /// Closed with 1001.
    Draining,
}

impl End {
    /// Every reason.
    pub(super) const ALL: [Self; 9] = [
        Self::Client,
        Self::Lost,
        Self::Silent,
        Self::SlowConsumer,
        Self::Replaced,
        Self::Token,
        Self::RateLimit,
        Self::Violation,
        Self::Draining,
    ];

    /// The reason that a close code of the relay stands for.
    pub(super) fn of(code: CloseCode) -> Self {
        match code {
            CloseCode::Normal => Self::Client,
            CloseCode::GoingAway => Self::Draining,
            CloseCode::ProtocolError | CloseCode::InvalidUtf8 | CloseCode::MessageTooLarge => {
                Self::Violation
            }
            CloseCode::InternalError => Self::Lost,
            CloseCode::TokenInvalid => Self::Token,
            CloseCode::SlowConsumer => Self::SlowConsumer,
            CloseCode::Replaced => Self::Replaced,
            CloseCode::RateLimited => Self::RateLimit,
        }
    }
}
