//! What is written into each message of a measurement, and read from it again.
//!
//! Pure text. The payload is one JSON string of fixed fields: which run, which sender, which of its
//! messages, and when that was due; then filling up to the size asked for. Fields of fixed width let
//! the sender reuse one text, and the recipient read it without a parser.

/// What a payload of a measurement begins with.
const MARK: &str = "\"arc-bench:";
/// Widths of the fields, in hexadecimal digits: run, sender, number, due time in nanoseconds.
const WIDTHS: [usize; 4] = [8, 6, 12, 16];
/// Bytes of mark, fields and the colon after each.
const STAMP_BYTES: usize =
    MARK.len() + WIDTHS[0] + WIDTHS[1] + WIDTHS[2] + WIDTHS[3] + WIDTHS.len();
/// What a payload is filled up with.
const FILLING: u8 = b'x';

/// Bytes of the smallest payload: the stamp and the closing quote.
pub(super) const SIZE_MIN: usize = STAMP_BYTES + 1;

/// What a message says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    /// The run that it belongs to; others may be under way on the same relay.
    pub(super) run: u32,
    /// Number of the sender.
    pub(super) sender: usize,
    /// How many messages this sender had sent before.
    pub(super) number: u64,
    /// When it was to be sent, in nanoseconds of the run's clock.
    pub(super) due_ns: u64,
}

/// A message that can be stamped again and again.
pub(super) struct Letter {
    text: Vec<u8>,
    /// Where the message's number begins.
    number_at: usize,
}

impl Letter {
    /// A message to `to`, an agent id or `*`, whose payload has `size` bytes, at least [`SIZE_MIN`].
    pub(super) fn new(to: &str, run: u32, sender: usize, size: usize) -> Self {
        let mut text = format!(
            "{{\"to\":[\"{to}\"],\"payload\":{MARK}{run:0run_width$x}:{sender:0sender_width$x}:",
            run_width = WIDTHS[0],
            sender_width = WIDTHS[1],
        )
        .into_bytes();
        let number_at = text.len();
        text.extend([b'0'; WIDTHS[2]]);
        text.push(b':');
        text.extend([b'0'; WIDTHS[3]]);
        text.push(b':');
        text.resize(text.len() + size.saturating_sub(SIZE_MIN), FILLING);
        text.extend(b"\"}");
        Self { text, number_at }
    }

    /// Bytes of the whole message.
    pub(super) fn bytes(&self) -> usize {
        self.text.len()
    }

    /// The message with this number, due at this time.
    pub(super) fn stamped(&mut self, number: u64, due_ns: u64) -> &[u8] {
        let (number_end, due_at) = (self.number_at + WIDTHS[2], self.number_at + WIDTHS[2] + 1);
        if let Some(field) = self.text.get_mut(self.number_at..number_end) {
            put_hex(field, number);
        }
        if let Some(field) = self.text.get_mut(due_at..due_at + WIDTHS[3]) {
            put_hex(field, due_ns);
        }
        &self.text
    }
}

/// What a message is to a measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reading<'a> {
    /// None of ours.
    Foreign,
    /// Ours, and not as it was sent.
    Spoilt,
    /// As it was sent, by the agent named.
    Sound(Stamp, &'a str),
}

/// Reads a message as a relay delivers it, whose payload was sent with `size` bytes.
pub(super) fn read(text: &str, size: usize) -> Reading<'_> {
    let Some(at) = text.find(MARK) else { return Reading::Foreign };
    let (envelope, payload) = text.split_at(at);
    match (read_payload(payload, size), sender(envelope)) {
        (Some(stamp), Some(from)) => Reading::Sound(stamp, from),
        _ => Reading::Spoilt,
    }
}

fn read_payload(payload: &str, size: usize) -> Option<Stamp> {
    let mut rest = payload.get(MARK.len()..)?;
    let mut fields = [0; WIDTHS.len()];
    for (field, width) in fields.iter_mut().zip(WIDTHS) {
        let (digits, after) = rest.split_at_checked(width)?;
        *field = u64::from_str_radix(digits, 16).ok()?;
        rest = after.strip_prefix(':')?;
    }
    let filling = rest.get(..size.checked_sub(SIZE_MIN)?)?;
    let whole = rest.get(filling.len()..)?.starts_with('"');
    if !whole || filling.bytes().any(|byte| byte != FILLING) {
        return None;
    }
    let [run, sender, number, due_ns] = fields;
    let (run, sender) = (u32::try_from(run).ok()?, usize::try_from(sender).ok()?);
    Some(Stamp { run, sender, number, due_ns })
}

/// Who sent it, as the relay says before the payload.
fn sender(envelope: &str) -> Option<&str> {
    let (_, from) = envelope.split_once("\"from\":\"")?;
    from.split_once('"').map(|(id, _)| id)
}

fn put_hex(field: &mut [u8], mut value: u64) {
    for digit in field.iter_mut().rev() {
        let nibble = u8::try_from(value & 15).unwrap_or_default();
        *digit = if nibble < 10 { b'0' + nibble } else { b'a' + nibble - 10 };
        value >>= 4;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const STAMP: Stamp = Stamp { run: 0xdead_beef, sender: 7, number: 41, due_ns: 123_456_789 };

    fn sent(size: usize) -> String {
        let mut letter = Letter::new("bob-1", STAMP.run, STAMP.sender, size);
        letter.stamped(1, 2);
        String::from_utf8_lossy(letter.stamped(STAMP.number, STAMP.due_ns)).into_owned()
    }

    /// The message as a relay passes it on.
    fn delivered(size: usize) -> String {
        sent(size).replacen('{', r#"{"id":"msg_1","from":"ann-1","#, 1)
    }

    #[test]
    fn what_was_stamped_is_read_again() {
        for size in [SIZE_MIN, 128, 4_096] {
            assert_eq!(read(&delivered(size), size), Reading::Sound(STAMP, "ann-1"));
        }
    }

    #[test]
    fn the_payload_has_the_size_asked_for() {
        for size in [SIZE_MIN, 128] {
            let message: serde_json::Value = serde_json::from_str(&sent(size)).expect("JSON");
            assert_eq!(message["payload"].to_string().len(), size);
            assert_eq!(message["to"][0], "bob-1");
        }
    }

    #[test]
    fn what_changed_on_the_way_is_noticed() {
        let good = delivered(128);
        assert_eq!(read(&good.replacen('x', "y", 1), 128), Reading::Spoilt);
        assert_eq!(read(&good.replacen('x', "", 1), 128), Reading::Spoilt);
        assert_eq!(read(&good, 129), Reading::Spoilt);
        assert_eq!(read(&good.replace("from", "form"), 128), Reading::Spoilt);
        assert_eq!(read(&good.replace("arc-", "arx-"), 128), Reading::Foreign);
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_a_fall(text: String, size: usize) {
            let _ = read(&text, size);
            let _ = read(&format!("{MARK}{text}"), size);
        }

        #[test]
        fn any_number_is_read_again(number in 0..1_u64 << 48, due_ns: u64) {
            let mut letter = Letter::new("*", 1, 2, 80);
            let text = letter.stamped(number, due_ns).to_vec();
            let text = format!("\"from\":\"a\"{}", String::from_utf8_lossy(&text));
            let stamp = Stamp { run: 1, sender: 2, number, due_ns };
            prop_assert_eq!(read(&text, 80), Reading::Sound(stamp, "a"));
        }
    }
}
