//! Why a client's text is no message, in words that tell the agent's author what to change.

/// Why a client's text is not delivered to anybody (PROTOCOL sections 4 and 7).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScanError {
    /// The bytes are no UTF-8. A text frame of them also breaks RFC 6455 section 8.1 (close 1007).
    #[error("the message is not UTF-8: encode JSON as UTF-8")]
    NotUtf8,
    /// The text breaks the grammar of RFC 8259.
    #[error("the message is not JSON: {expected} expected at byte {at}")]
    NotJson {
        /// How many bytes of the text were good.
        at: usize,
        /// What the grammar allows there.
        expected: &'static str,
    },
    /// The text is JSON, but an array, a string, a number or a literal.
    #[error("the message must be one JSON object, e.g. {{\"to\":[\"*\"],\"payload\":\"hello\"}}")]
    NotAnObject,
    /// `to` is absent, no array, empty, or holds something else than strings.
    #[error("\"to\" must be an array of 1 to 256 strings, e.g. [\"*\"]")]
    InvalidTo,
    /// `to` has more than 256 entries, repeated ones included.
    #[error("\"to\" names more than 256 recipients: send the message in parts, or to [\"*\"]")]
    TooManyRecipients,
    /// `relay` stands beside other recipients.
    #[error("\"relay\" must be alone in \"to\": send commands and messages separately")]
    RelayBesideOthers,
    /// `type` is no string.
    #[error("\"type\" must be a string, or be left out")]
    InvalidType,
    /// `ref` is no string.
    #[error("\"ref\" must be a string, or be left out")]
    InvalidRef,
    /// There is no `payload`, and the message is no command.
    #[error("\"payload\" is missing: it may be any JSON value, null included")]
    MissingPayload,
}

impl ScanError {
    /// The `code` of the error message that the agent gets (PROTOCOL section 7).
    pub fn code(&self) -> &'static str {
        match self {
            Self::TooManyRecipients => "too_many_recipients",
            _ => "invalid_message",
        }
    }
}
