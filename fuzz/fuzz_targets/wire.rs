//! Any bytes from a peer: never a panic, what is read as a data frame is written as the same bytes,
//! and a control frame comes back from its own bytes.
//!
//! The first byte is the kind of a frame of the rest; then all of them are read as a lane's stream.

#![no_main]

use bytes::Bytes;
use cluster::{
    link::Frames,
    wire::{Control, Data, split},
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Some((kind, body)) = bytes.split_first() {
        let body = Bytes::copy_from_slice(body);
        if let Ok(frame) = Data::decode(*kind, &body) {
            assert_eq!(whole(|out| frame.encode(out)), (*kind, body.clone()));
        }
        if let Ok(frame) = Control::decode(*kind, &body) {
            let (kind, body) = whole(|out| frame.encode(out));
            assert_eq!(Control::decode(kind, &body), Ok(frame));
        }
    }
    let mut stream = Bytes::copy_from_slice(bytes);
    if Frames::new(&mut stream).for_each(|_| {}).is_ok() {
        assert_eq!(split(&stream), Ok(None), "a whole frame is left");
    }
});

fn whole(encode: impl FnOnce(&mut Vec<u8>)) -> (u8, Bytes) {
    let mut out = Vec::new();
    encode(&mut out);
    let (kind, body, consumed) = split(&out.clone().into()).expect("a frame").expect("whole");
    assert_eq!(consumed, out.len());
    (kind, body)
}
