//! Any bytes from a client after the upgrade: never a panic, the bounds of the buffer hold, and the
//! events do not depend on how the network cuts the bytes into pieces.

#![no_main]

use libfuzzer_sys::fuzz_target;
use node::ws::{Event, Reader, Step, reader::CLIENT_HEADER_BYTES_MAX};

const MESSAGE_BYTES_MAX: usize = 300;

fuzz_target!(|bytes: &[u8]| {
    let Some((piece_bytes, bytes)) = bytes.split_first() else { return };
    let at_once = events(bytes, bytes.len().max(1));
    assert_eq!(events(bytes, usize::from(*piece_bytes).max(1)), at_once);
    assert_eq!(events(bytes, 1), at_once);
});

/// All that a reader makes of `bytes` if they come in pieces of `piece_bytes`.
fn events(bytes: &[u8], piece_bytes: usize) -> Vec<String> {
    let mut reader = Reader::new(MESSAGE_BYTES_MAX);
    let mut buffer = Vec::new();
    let mut seen = Vec::new();
    for piece in bytes.chunks(piece_bytes) {
        buffer.extend_from_slice(piece);
        loop {
            let buffered = buffer.len();
            let consumed = match reader.next(&mut buffer) {
                Ok(Step::Event { event, consumed }) => {
                    seen.push(format!("{event:?}"));
                    if let Event::Close { .. } = event {
                        return seen;
                    }
                    consumed
                }
                Ok(Step::Fragment { consumed }) => consumed,
                Ok(Step::Incomplete { total }) => {
                    assert!(total > buffered, "waits for what is there");
                    assert!(total <= MESSAGE_BYTES_MAX + CLIENT_HEADER_BYTES_MAX);
                    break;
                }
                Err(violation) => {
                    seen.push(violation.to_string());
                    return seen;
                }
            };
            assert!((1..=buffered).contains(&consumed));
            buffer.drain(..consumed);
        }
    }
    seen
}
