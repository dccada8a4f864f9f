//! Scanner and composer as a whole: by example, and against `serde_json` on generated texts.

#![allow(clippy::unwrap_used)] // a test may stop

use cluster::{AgentId, UnixMillis};
use proptest::prelude::*;
use serde::de::IgnoredAny;
use serde_json::{Value, json};

use super::*;

mod examples;
mod generated;

/// Whether `serde_json` accepts the text, reading it in the way that limits neither
/// depth nor numbers.
fn serde_accepts(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_ok_and(|text| serde_json::from_str::<IgnoredAny>(text).is_ok())
}

/// Whether the bytes are JSON to the scanner, whatever it says of the fields.
fn scan_accepts(bytes: &[u8]) -> bool {
    !matches!(scan(bytes), Err(ScanError::NotUtf8 | ScanError::NotJson { .. }))
}

fn agent(id: &str) -> AgentId {
    id.parse().unwrap()
}

fn stamp() -> Stamp {
    Stamper::new(SessionTag::new(ProcessTag::from_random(0), 0)).next(UnixMillis(1_760_000_000_123))
}

/// The text in a frame that holds nothing else.
fn body(frame: &[u8]) -> &str {
    let (header_len, body_len) = match frame[1] {
        126 => (4, usize::from(u16::from_be_bytes([frame[2], frame[3]]))),
        127 => (10, u64::from_be_bytes(frame[2..10].try_into().unwrap()).try_into().unwrap()),
        short => (2, usize::from(short)),
    };
    assert_eq!(frame[0], 0x81);
    assert_eq!(frame.len(), header_len + body_len);
    std::str::from_utf8(&frame[header_len..]).unwrap()
}

/// The composed text of a message from `alice-007`.
fn composed(message: &Scanned<'_>) -> String {
    let mut frame = Vec::new();
    compose(&Author::new(&agent("alice-007")), &stamp(), message, &mut frame);
    body(&frame).to_owned()
}
