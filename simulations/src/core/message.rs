//! How simulated agents are called, and what their messages say: their number, and a check of it.

use cluster::AgentId;

const PREFIX: &str = "agent-";

/// The id of the agent of that number.
///
/// # Panics
/// Never: the id is well formed.
pub(crate) fn agent_id(number: usize) -> AgentId {
    format!("{PREFIX}{number}").parse().expect("the id is well formed")
}

/// The number of the agent of that id.
pub(crate) fn agent_number(id: &str) -> Option<usize> {
    id.strip_prefix(PREFIX)?.parse().ok()
}

/// The bytes of the message of that number.
pub(super) fn body(number: usize) -> [u8; 16] {
    let number = number as u64;
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&number.to_le_bytes());
    bytes[8..].copy_from_slice(&check(number).to_le_bytes());
    bytes
}

/// The number of the message of these bytes; none if nobody sent them.
pub(super) fn number(bytes: &[u8]) -> Option<usize> {
    let (number, sum) = bytes.split_first_chunk::<8>()?;
    let number = u64::from_le_bytes(*number);
    (sum == check(number).to_le_bytes()).then_some(usize::try_from(number).ok()?)
}

fn check(number: u64) -> u64 {
    (number ^ 0xA5A5_5A5A_C3C3_3C3C).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_say_their_number_or_nothing() {
        let mut bytes = body(77);
        assert_eq!(number(&bytes), Some(77));
        bytes[9] ^= 1;
        assert_eq!(number(&bytes), None);
        assert_eq!(number(b""), None);
        assert_eq!(agent_number(agent_id(12).as_str()), Some(12));
        assert_eq!(agent_number("relay"), None);
    }
}
