//! JSON strings: where one ends, what it says, and how to write one.
//!
//! Long strings are most of what agents send, so the search for their end is written in fixed-size
//! blocks that the compiler turns into vector instructions.

use std::borrow::Cow;

/// Bytes looked at together in long strings.
const LONG: usize = 64;
/// Bytes looked at together in what a long block leaves over.
const MEDIUM: usize = 16;
/// Bytes looked at together in short strings, and to find the place within a block.
const WORD: usize = size_of::<u64>();
/// How many words are tried before blocks: keys and most agent ids end within them.
const SHORT_WORDS: usize = 3;

/// The first position from `at` on of a quote, a backslash or a control character, or the length
/// of `bytes`.
#[inline]
pub(super) fn find_special(bytes: &[u8], at: usize) -> usize {
    find_in_word(bytes, at).unwrap_or_else(|| find_further(bytes, at + WORD))
}

/// [`find_special`], for what goes on after the first word.
#[inline(never)]
fn find_further(bytes: &[u8], mut at: usize) -> usize {
    for _ in 1..SHORT_WORDS {
        match find_in_word(bytes, at) {
            Some(found) => return found,
            None => at += WORD,
        }
    }
    at += plain_blocks_len::<LONG>(bytes, at);
    at += plain_blocks_len::<MEDIUM>(bytes, at);
    loop {
        match find_in_word(bytes, at) {
            Some(found) => return found,
            None => at += WORD,
        }
    }
}

/// How many bytes from `at` are blocks without a special byte.
#[inline]
fn plain_blocks_len<const LEN: usize>(bytes: &[u8], at: usize) -> usize {
    let (blocks, _) = bytes.get(at..).unwrap_or_default().as_chunks::<LEN>();
    blocks.iter().position(has_special).unwrap_or(blocks.len()) * LEN
}

#[inline]
fn has_special<const LEN: usize>(block: &[u8; LEN]) -> bool {
    block.iter().fold(0, |found, &byte| found | u8::from(is_special(byte))) != 0
}

/// Whether a string cannot simply go on over this byte. Flipping bit 1 puts the quote (0x22) right
/// above the control characters, so that one comparison finds both.
#[inline]
#[allow(clippy::needless_bitwise_bool)] // a branch here would keep blocks from being vectors
fn is_special(byte: u8) -> bool {
    (byte ^ 0x02 < 0x21) | (byte == b'\\')
}

/// [`find_special`] in the eight bytes from `at`; the end of `bytes` counts as found.
#[inline]
fn find_in_word(bytes: &[u8], at: usize) -> Option<usize> {
    let special = special_bits(word_at(bytes, at));
    // Bytes past the end read as zeros, which are control characters.
    (special != 0).then(|| at + special.trailing_zeros() as usize / 8)
}

#[inline]
fn word_at(bytes: &[u8], at: usize) -> u64 {
    match bytes.get(at..).and_then(|rest| rest.first_chunk::<WORD>()) {
        Some(word) => u64::from_le_bytes(*word),
        None => last_word(bytes, at),
    }
}

/// [`word_at`], where the bytes end within the word.
#[cold]
#[inline(never)]
fn last_word(bytes: &[u8], at: usize) -> u64 {
    let rest = bytes.get(at..).unwrap_or_default();
    rest.iter().rev().fold(0, |word, &byte| word << 8 | u64::from(byte))
}

/// [`is_special`] for eight bytes at once: the lowest set bit is the highest bit of the first special
/// byte. Higher bits may be set by a borrow from it.
#[inline]
fn special_bits(word: u64) -> u64 {
    const ONES: u64 = u64::from_ne_bytes([1; WORD]);
    const HIGH: u64 = ONES << 7;
    const BACKSLASHES: u64 = u64::from_ne_bytes([b'\\'; WORD]);
    let below = (word ^ (ONES * 0x02)).wrapping_sub(ONES * 0x21) & !word;
    let backslash = word ^ BACKSLASHES;
    (below | (backslash.wrapping_sub(ONES) & !backslash)) & HIGH
}

/// What a valid JSON string says; `raw` is as [`scan`](super::scan()) gives it, quotes included.
///
/// Half of a surrogate pair without its other half, which JSON allows and Unicode does not, becomes
/// U+FFFD, so that such a string never equals an agent id or a name of the protocol.
pub fn unescape(raw: &str) -> Cow<'_, str> {
    let inner = raw.strip_prefix('"').unwrap_or(raw);
    unescape_inner(inner.strip_suffix('"').unwrap_or(inner))
}

/// [`unescape`] for what stands between the quotes.
pub(super) fn unescape_inner(mut rest: &str) -> Cow<'_, str> {
    if !rest.contains('\\') {
        return Cow::Borrowed(rest);
    }
    let mut text = String::with_capacity(rest.len());
    while let Some((plain, escape)) = rest.split_once('\\') {
        text.push_str(plain);
        let (character, after) = unescape_one(escape);
        text.push(character);
        rest = after;
    }
    text.push_str(rest);
    Cow::Owned(text)
}

/// The character that `escape`, what follows a backslash, begins with; and what follows it.
fn unescape_one(escape: &str) -> (char, &str) {
    let mut chars = escape.chars();
    let character = match chars.next() {
        Some('b') => '\u{8}',
        Some('f') => '\u{c}',
        Some('n') => '\n',
        Some('r') => '\r',
        Some('t') => '\t',
        Some('u') => return unescape_unicode(chars.as_str()),
        Some(itself) => itself,
        None => char::REPLACEMENT_CHARACTER,
    };
    (character, chars.as_str())
}

/// [`unescape_one`] for what follows `\u`.
fn unescape_unicode(digits: &str) -> (char, &str) {
    let (first, after_first) = hex4(digits);
    if let 0xd800..0xdc00 = first
        && let Some((second @ 0xdc00..0xe000, after_both)) =
            after_first.strip_prefix("\\u").map(hex4)
    {
        let scalar = 0x1_0000 + ((first - 0xd800) << 10) + (second - 0xdc00);
        return (char::from_u32(scalar).unwrap_or(char::REPLACEMENT_CHARACTER), after_both);
    }
    (char::from_u32(first).unwrap_or(char::REPLACEMENT_CHARACTER), after_first)
}

/// The number that four hexadecimal digits write; a lone surrogate's if there are none.
fn hex4(digits: &str) -> (u32, &str) {
    digits
        .split_at_checked(4)
        .and_then(|(digits, rest)| Some((u32::from_str_radix(digits, 16).ok()?, rest)))
        .unwrap_or((0xd800, ""))
}

/// `text` as a JSON string with its quotes.
pub fn quote(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn is_plain(byte: u8) -> bool {
        byte >= 0x20 && byte != b'"' && byte != b'\\'
    }

    #[test]
    fn every_byte_is_judged_alike_by_byte_word_and_block() {
        for byte in 0..=u8::MAX {
            assert_eq!(is_special(byte), !is_plain(byte), "{byte:#x}");
            let mut block = [b'a'; LONG];
            block[37] = byte;
            assert_eq!(has_special(&block), !is_plain(byte), "{byte:#x}");
            let word = [b'a', b'a', byte, b'a', b'a', b'a', b'a', b'a'];
            let expected = (!is_plain(byte)).then_some(2);
            assert_eq!(find_in_word(&word, 0), expected, "{byte:#x}");
        }
    }

    #[test]
    fn surrogates_join_only_in_pairs() {
        for (raw, text) in [
            (r#""\ud83d\ude00""#, "\u{1f600}"),
            (r#""\ud83dx""#, "\u{fffd}x"),
            (r#""\ude00\ud83d""#, "\u{fffd}\u{fffd}"),
            (r#""\ud83d\ud83d\ude00""#, "\u{fffd}\u{1f600}"),
            (r#""\ud83d\u0041""#, "\u{fffd}A"),
            (r#""\ud83d\n""#, "\u{fffd}\n"),
        ] {
            assert_eq!(unescape(raw), text, "{raw}");
        }
    }

    proptest! {
        #[test]
        fn finds_what_a_plain_search_finds(
            bytes in prop::collection::vec(prop_oneof![9 => 0x23..=0x5b_u8, 4 => 0x80..=0xff_u8, 1 => any::<u8>()], 0..300),
            at in 0..300_usize,
        ) {
            let at = at.min(bytes.len());
            let expected = bytes[at..].iter().position(|b| !is_plain(*b)).map_or(bytes.len(), |n| at + n);
            prop_assert_eq!(find_special(&bytes, at), expected);
        }

        #[test]
        fn quoting_and_unescaping_are_inverse(text in any::<String>()) {
            let quoted = quote(&text);
            prop_assert_eq!(unescape(&quoted), text);
        }

        #[test]
        fn unescapes_as_serde_json_does(raw in r#""([ -!#-\[\]-~é]|\\["\\/bfnrt]|\\u[0-9a-cA-C]{4}|\\ud8[0-9a-f]{2}\\udd[0-9A-F]{2})*""#) {
            let expected: String = serde_json::from_str(&raw).expect("only whole pairs");
            prop_assert_eq!(unescape(&raw), expected);
        }

        #[test]
        fn unescaping_never_panics(raw in r#"["\\uda-f0-9é]*"#) {
            let _ = unescape(&raw);
        }
    }
}
