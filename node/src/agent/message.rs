//! Messages as a client reads and writes them (PROTOCOL sections 4 and 5).
//!
//! What is not understood is still passed on as it came: a client that listens never dies of a
//! message.

use std::time::{Duration, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio_tungstenite::tungstenite::Utf8Bytes;

use super::text::escaped;

/// The name under which the relay itself speaks.
pub(super) const RELAY: &str = "relay";
/// The last moment that RFC 3339 can write, in Unix milliseconds.
const LAST_WRITABLE_MS: u64 = 253_402_300_799_999;

/// A message for the relay to carry out or to pass on.
#[derive(Serialize)]
pub(super) struct Outgoing<'a> {
    /// Agent ids, `*`, or `relay`.
    pub(super) to: &'a [String],
    /// What kind of message.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub(super) kind: Option<&'a str>,
    /// Which message it answers.
    #[serde(rename = "ref", skip_serializing_if = "Option::is_none")]
    pub(super) reference: Option<&'a str>,
    /// JSON, passed on byte for byte.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) payload: Option<&'a RawValue>,
}

/// A message that came in: its text, and what of it could be read.
pub(super) struct Received {
    /// The text as it came.
    pub(super) text: Utf8Bytes,
    head: Option<Head>,
}

#[derive(Deserialize)]
struct Head {
    #[serde(default)]
    id: String,
    #[serde(default)]
    from: String,
    #[serde(default)]
    to: Vec<String>,
    #[serde(rename = "type")]
    kind: Option<String>,
    #[serde(rename = "ref")]
    reference: Option<String>,
    payload: Option<Box<RawValue>>,
    ts: Option<u64>,
}

impl Outgoing<'_> {
    /// The message as text.
    pub(super) fn to_text(&self) -> String {
        // Strings and raw JSON cannot fail to be written; an empty text would be refused and told.
        serde_json::to_string(self).unwrap_or_default()
    }
}

impl From<Utf8Bytes> for Received {
    fn from(text: Utf8Bytes) -> Self {
        let head = serde_json::from_str(&text).ok();
        Self { text, head }
    }
}

impl Received {
    /// Who sent it; empty if that cannot be told.
    pub(super) fn sender(&self) -> &str {
        self.head.as_ref().map_or("", |head| &head.from)
    }

    /// Its type, if it has one.
    pub(super) fn kind(&self) -> Option<&str> {
        self.head.as_ref()?.kind.as_deref()
    }

    /// Whether it is the relay's own word of this type.
    pub(super) fn is_relays(&self, kind: &str) -> bool {
        self.sender() == RELAY && self.kind() == Some(kind)
    }

    /// The first recipient.
    pub(super) fn addressee(&self) -> Option<&str> {
        self.head.as_ref()?.to.first().map(String::as_str)
    }

    /// The payload read as `T`; none if it is absent or something else.
    pub(super) fn payload<'a, T: Deserialize<'a>>(&'a self) -> Option<T> {
        serde_json::from_str(self.head.as_ref()?.payload.as_ref()?.get()).ok()
    }

    /// The message for a person, on one line: time, sender, type and payload; with `verbose`,
    /// recipients, reference and id as well.
    pub(super) fn line(&self, verbose: bool) -> String {
        let Some(head) = &self.head else {
            return escaped(&self.text);
        };
        let kind = head.kind.as_deref().unwrap_or("-");
        let mut line = format!("{} {} {}", moment(head.ts), escaped(&head.from), escaped(kind));
        if verbose {
            line.push_str(" to=");
            line.push_str(&escaped(&head.to.join(",")));
            if let Some(reference) = &head.reference {
                line.push_str(" ref=");
                line.push_str(&escaped(reference));
            }
            line.push_str(" id=");
            line.push_str(&escaped(&head.id));
        }
        line.push(' ');
        line.push_str(&self.shown_payload());
        line
    }

    /// A string without its quotes, anything else as the JSON it is.
    fn shown_payload(&self) -> String {
        let raw = self.head.as_ref().and_then(|head| head.payload.as_ref());
        match (self.payload::<String>(), raw) {
            (Some(text), _) => escaped(&text),
            (None, Some(raw)) => escaped(raw.get()),
            (None, None) => "null".to_owned(),
        }
    }
}

/// UTC to the millisecond, or a dash where there is no such moment.
pub(super) fn moment(ts: Option<u64>) -> String {
    match ts {
        Some(ms) if ms <= LAST_WRITABLE_MS => {
            humantime::format_rfc3339_millis(UNIX_EPOCH + Duration::from_millis(ms)).to_string()
        }
        _ => "-".to_owned(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // a test that cannot go on fails
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn line(text: &str, verbose: bool) -> String {
        Received::from(Utf8Bytes::from(text.to_owned())).line(verbose)
    }

    #[test]
    fn a_message_is_one_line() {
        let text = r#"{"id":"msg_1","from":"rawk-042","to":["*"],"type":"thought","ref":"msg_0",
            "payload":"two\nlines","ts":1763806380123}"#;
        assert_eq!(line(text, false), "2025-11-22T10:13:00.123Z rawk-042 thought two\\nlines");
        assert_eq!(
            line(text, true),
            "2025-11-22T10:13:00.123Z rawk-042 thought to=* ref=msg_0 id=msg_1 two\\nlines"
        );
    }

    #[test]
    fn a_payload_that_is_no_string_stays_the_json_it_is() {
        let text = r#"{"from":"rawk-042","payload":{"n":12345678901234567890123, "n":1}}"#;
        assert_eq!(line(text, false), r#"- rawk-042 - {"n":12345678901234567890123, "n":1}"#);
        assert_eq!(line(r#"{"from":"rawk-042"}"#, false), "- rawk-042 - null");
    }

    #[test]
    fn what_cannot_be_read_is_shown_as_it_is() {
        assert_eq!(line("no json\u{1b}[2J", false), "no json\\u{1b}[2J");
        assert_eq!(line(r#"{"from":1}"#, false), r#"{"from":1}"#);
        assert_eq!(
            line(r#"{"from":"rawk-042","payload":"\ud800"}"#, false),
            r#"- rawk-042 - "\ud800""#
        );
    }

    #[test]
    fn deep_nesting_is_no_obstacle() {
        let payload = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
        let text = format!(r#"{{"from":"rawk-042","extra":{payload},"payload":{payload}}}"#);
        assert_eq!(line(&text, false), format!("- rawk-042 - {payload}"));
    }

    #[test]
    fn moments_beyond_the_calendar_are_no_obstacle() {
        assert_eq!(moment(Some(LAST_WRITABLE_MS)), "9999-12-31T23:59:59.999Z");
        assert_eq!(moment(Some(LAST_WRITABLE_MS + 1)), "-");
        assert_eq!(moment(Some(u64::MAX)), "-");
    }

    #[test]
    fn outgoing_fields_that_were_not_given_are_absent() {
        let to = ["rawk-042".to_owned()];
        let payload: &RawValue = serde_json::from_str("1e400").unwrap();
        let message = Outgoing { to: &to, kind: None, reference: None, payload: Some(payload) };
        assert_eq!(message.to_text(), r#"{"to":["rawk-042"],"payload":1e400}"#);
    }

    proptest! {
        #[test]
        fn any_text_is_one_line(text in any::<String>(), verbose: bool) {
            prop_assert_eq!(line(&text, verbose).lines().count().max(1), 1);
        }

        #[test]
        fn any_content_is_one_line(from: String, kind: String, payload: String, ts: u64) {
            let text = serde_json::json!({"from": from, "type": kind, "payload": payload, "ts": ts});
            prop_assert_eq!(line(&text.to_string(), true).lines().count(), 1);
        }
    }
}
