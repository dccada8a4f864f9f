//! Any bytes as the token of a handshake: never a panic, and never a grant that was not signed.
//!
//! The first byte chooses how far the rest gets: as the text itself, as the biscuit inside the text,
//! or as changes to a good token.

#![no_main]

use std::sync::LazyLock;

use cluster::{
    UnixMillis,
    token::{Serial, TOKEN_PREFIX, TokenSigner, TokenVerifier},
};
use data_encoding::BASE64URL_NOPAD;
use libfuzzer_sys::fuzz_target;

const NOW: UnixMillis = UnixMillis(1_760_000_000_000);

struct Good {
    verifier: TokenVerifier,
    biscuit: Vec<u8>,
}

static GOOD: LazyLock<Good> = LazyLock::new(|| {
    let signer = TokenSigner::from_secret(&[7; 32]).expect("32 bytes are a key");
    let agent = "rawk-042".parse().expect("a well-formed id");
    let token = signer.issue(&agent, Serial(1), NOW, None).expect("a token");
    let verifier = signer.verifier();
    assert!(verifier.verify(&token, NOW).is_ok());
    let text = token.strip_prefix(TOKEN_PREFIX).expect("the prefix");
    let biscuit = BASE64URL_NOPAD.decode(text.as_bytes()).expect("base64");
    Good { verifier, biscuit }
});

fuzz_target!(|bytes: &[u8]| {
    let Some((way, bytes)) = bytes.split_first() else { return };
    match way % 3 {
        0 => {
            let text = String::from_utf8_lossy(bytes);
            assert!(GOOD.verifier.verify(&text, NOW).is_err(), "a token out of nothing");
        }
        1 => assert!(GOOD.verifier.verify(&text_of(bytes), NOW).is_err(), "a forged token"),
        _ => {
            if let Ok(grant) = GOOD.verifier.verify(&text_of(&changed(bytes)), NOW) {
                assert_eq!(grant.agent().as_str(), "rawk-042");
                assert_eq!(grant.serial(), Serial(1));
            }
        }
    }
});

fn text_of(biscuit: &[u8]) -> String {
    format!("{TOKEN_PREFIX}{}", BASE64URL_NOPAD.encode(biscuit))
}

/// The good token with bytes flipped, cut off or appended, as `changes` say.
fn changed(changes: &[u8]) -> Vec<u8> {
    let mut biscuit = GOOD.biscuit.clone();
    for change in changes.chunks_exact(3) {
        let place = usize::from(u16::from_le_bytes([change[0], change[1]])) % (biscuit.len() + 1);
        match (biscuit.get_mut(place), change[2]) {
            (Some(_), 0) => biscuit.truncate(place),
            (Some(byte), flip) => *byte ^= flip,
            (None, byte) => biscuit.push(byte),
        }
    }
    biscuit
}
