//! The outgoing text of a message (PROTOCOL section 5), written once, as a finished WebSocket frame.

use cluster::AgentId;

use super::{Scanned, Stamp, quote};
use crate::ws::frame::{HEADER_BYTES_MAX, text_header};

const ID: &[u8] = b"{\"id\":\"";
const FROM: &str = "\",\"from\":\"";
const TO: &str = "\",\"to\":";
const TYPE: &[u8] = b",\"type\":";
const REF: &[u8] = b",\"ref\":";
const PAYLOAD: &[u8] = b",\"payload\":";
const TS: &[u8] = b",\"ts\":";

/// A sender, as its messages name it; made once for each session.
#[derive(Clone, Debug)]
pub struct Author {
    /// All that stands between the id and the recipients.
    from_to: Box<[u8]>,
}

impl Author {
    /// The author of `agent`'s messages.
    pub fn new(agent: &AgentId) -> Self {
        Self::named(agent.as_str())
    }

    /// The author of the relay's own messages.
    pub fn relay() -> Self {
        Self::named("relay")
    }

    /// `name` needs no escaping.
    fn named(name: &str) -> Self {
        Self { from_to: [FROM, name, TO].concat().into_bytes().into() }
    }
}

/// A message that the relay itself sends: `welcome`, an answer or an error.
#[derive(Clone, Copy, Debug)]
pub struct RelayMessage<'a> {
    /// Who gets it.
    pub to: &'a AgentId,
    /// What `type` says, as plain text.
    pub kind: &'a str,
    /// The JSON string of `ref`, as [`Scanned::reference`] has it.
    pub reference: Option<&'a str>,
    /// The JSON of `payload`.
    pub payload: Option<&'a str>,
}

/// Appends the one frame that all recipients of `message` get.
pub fn compose(author: &Author, stamp: &Stamp, message: &Scanned<'_>, out: &mut Vec<u8>) {
    let fields = Fields {
        author,
        stamp,
        to: message.to,
        kind: message.kind,
        reference: message.reference,
        extras: &message.extras,
        payload: message.payload,
    };
    fields.write(out);
}

/// Appends the frame of a message from the relay itself; `author` is [`Author::relay`].
pub fn compose_relay(
    author: &Author,
    stamp: &Stamp,
    message: &RelayMessage<'_>,
    out: &mut Vec<u8>,
) {
    let fields = Fields {
        author,
        stamp,
        to: &format!("[{}]", quote(message.to.as_str())),
        kind: Some(&quote(message.kind)),
        reference: message.reference,
        extras: &[],
        payload: message.payload,
    };
    fields.write(out);
}

/// The fields of an outgoing message, each as the JSON it is written as.
struct Fields<'a> {
    author: &'a Author,
    stamp: &'a Stamp,
    to: &'a str,
    kind: Option<&'a str>,
    reference: Option<&'a str>,
    extras: &'a [&'a str],
    payload: Option<&'a str>,
}

impl Fields<'_> {
    fn write(&self, out: &mut Vec<u8>) {
        let mut digits = itoa::Buffer::new();
        let ts = digits.format(self.stamp.ts.0);
        let mut len = 0;
        self.each_part(ts, |part| len += part.len());
        out.reserve(HEADER_BYTES_MAX + len);
        text_header(len, out);
        self.each_part(ts, |part| out.extend_from_slice(part));
    }

    /// Shows the parts that the text is made of, in order.
    #[inline]
    fn each_part(&self, ts: &str, mut show: impl FnMut(&[u8])) {
        show(ID);
        show(self.stamp.id.as_bytes());
        show(&self.author.from_to);
        show(self.to.as_bytes());
        let mut show_field = |name: &[u8], value: Option<&str>| {
            if let Some(value) = value {
                show(name);
                show(value.as_bytes());
            }
        };
        show_field(TYPE, self.kind);
        show_field(REF, self.reference);
        for run in self.extras {
            show_field(b",", Some(run));
        }
        show_field(PAYLOAD, self.payload);
        show(TS);
        show(ts.as_bytes());
        show(b"}");
    }
}

#[cfg(test)]
mod tests {
    use cluster::UnixMillis;

    use super::*;
    use crate::message::{ProcessTag, SessionTag, Stamper, scan};

    fn stamp() -> Stamp {
        Stamper::new(SessionTag::new(ProcessTag::from_random(0), 1)).next(UnixMillis(1_234))
    }

    fn agent(id: &str) -> AgentId {
        id.parse().expect("a well-formed id")
    }

    #[test]
    fn the_bytes_of_a_frame_stay_as_they_are() {
        let text = br#"{"payload": [1],"x":1, "y":2,"to":["*"],"ref":"r","z":3,"type":"t"}"#;
        let message = scan(text).expect("a valid message");
        let mut out = b"before".to_vec();
        compose(&Author::new(&agent("rawk-042")), &stamp(), &message, &mut out);
        let body = concat!(
            r#"{"id":"msg_000000016j000000000100000000","from":"rawk-042","to":["*"],"type":"t","ref":"r","#,
            r#""x":1, "y":2,"z":3,"payload":[1],"ts":1234}"#,
        );
        let expected = [b"before".as_slice(), &[0x81, 126, 0, 134], body.as_bytes()].concat();
        assert_eq!(String::from_utf8_lossy(&out), String::from_utf8_lossy(&expected));
        assert_eq!(out, expected);
    }

    #[test]
    fn the_relays_own_messages_name_it() {
        let to = agent("rawk-042");
        let message = RelayMessage { to: &to, kind: "a\"b", reference: None, payload: Some("{}") };
        let mut out = Vec::new();
        compose_relay(&Author::relay(), &stamp(), &message, &mut out);
        let body = concat!(
            r#"{"id":"msg_000000016j000000000100000000","from":"relay","to":["rawk-042"],"#,
            r#""type":"a\"b","payload":{},"ts":1234}"#,
        );
        assert_eq!(out, [&[0x81, 111], body.as_bytes()].concat());
    }

    #[test]
    fn the_length_is_that_of_the_text() {
        for payload_len in [1, 20, 30, 40, 126, 65_400, 65_500, 70_000] {
            let text = format!(r#"{{"to":["*"],"payload":"{}"}}"#, "x".repeat(payload_len));
            let message = scan(text.as_bytes()).expect("a valid message");
            let mut out = Vec::new();
            compose(&Author::new(&agent("rawk-042")), &stamp(), &message, &mut out);
            let start = match out[1] {
                126 => 4,
                127 => 10,
                _ => 2,
            };
            let mut header = Vec::new();
            text_header(out.len() - start, &mut header);
            assert_eq!(&out[..start], header);
        }
    }
}
