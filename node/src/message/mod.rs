//! One message: how it is read from an agent and how it is written to its recipients.
//!
//! [`scan()`] validates a client's text in one pass and borrows from it what routing needs; payload
//! and extra fields stay the bytes that the agent wrote. [`compose()`] writes the outgoing frame
//! once, behind what the relay assigns: id, author, time. Neither builds a tree, and neither knows
//! sessions, sockets or who is connected.

mod compose;
mod error;
mod id;
mod json;
mod recipients;
mod scan;
mod strings;

#[cfg(test)]
mod tests;

use std::borrow::Cow;

use smallvec::SmallVec;

pub use compose::{Author, RelayMessage, compose, compose_relay};
pub use error::ScanError;
pub use id::{MessageId, ProcessTag, SessionTag, Stamp, Stamper};
pub use recipients::{RECIPIENTS_MAX, Targets};
pub use scan::scan;
pub use strings::{quote, unescape};

/// A valid client message (PROTOCOL section 4), borrowed from the text it came in.
///
/// `id`, `from` and `ts` are gone already. Of a field that the text repeats, the last one counts, as
/// in every JSON parser; extra fields are kept as often as they were written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scanned<'a> {
    /// Who is to get it.
    pub targets: Targets<'a>,
    /// The `to` array as written.
    pub to: &'a str,
    /// The JSON string of `type` as written, with its quotes; compare [`kind_text`](Self::kind_text).
    pub kind: Option<&'a str>,
    /// The JSON string of `ref` as written, with its quotes.
    pub reference: Option<&'a str>,
    /// The JSON of `payload` as written; only a message to the relay itself may lack it.
    pub payload: Option<&'a str>,
    /// All other fields as written, in order. Each run is one `"key":value`, or several neighbouring
    /// ones with the commas and the whitespace between them.
    pub extras: SmallVec<[&'a str; 2]>,
}

impl Scanned<'_> {
    /// What `type` says, escapes resolved.
    pub fn kind_text(&self) -> Option<Cow<'_, str>> {
        self.kind.map(unescape)
    }
}
