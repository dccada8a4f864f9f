//! The outgoing text of a message (PROTOCOL section 5), written once, as a finished WebSocket frame.

use cluster::AgentId;

use super::{Scanned, Stamp, quote};

/// FIN and the opcode of text (RFC 6455 section 5.2); a server's frames are not masked.
const FINAL_TEXT: u8 = 0x81;
/// The largest length that the second byte holds itself.
const LEN_7_MAX: usize = 125;
/// Says that the length follows in two bytes.
const LEN_16: u8 = 126;
/// Says that the length follows in eight bytes.
const LEN_64: u8 = 127;

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
        out.reserve(10 + len);
        write_header(len, out);
        self.each_part(ts, |part| out.extend_from_slice(part));
    }

    /// Shows the parts that the text is made of, in order.
    #[inline(always)] // once to add up lengths, once to copy
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

/// The header of an unmasked text frame with the shortest encoding of its length.
fn write_header(len: usize, out: &mut Vec<u8>) {
    out.push(FINAL_TEXT);
    match (u8::try_from(len), u16::try_from(len)) {
        (Ok(short), _) if len <= LEN_7_MAX => out.push(short),
        (_, Ok(medium)) => {
            out.push(LEN_16);
            out.extend_from_slice(&medium.to_be_bytes());
        }
        _ => {
            out.push(LEN_64);
            out.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
}
