//! The names of agents.

use std::{borrow::Borrow, fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Serialize};

/// The shortest and longest agent id, in characters.
const LEN: std::ops::RangeInclusive<usize> = 3..=64;

/// A well-formed agent id: `^[a-z0-9][a-z0-9-]{1,62}[a-z0-9]$` (PROTOCOL section 2).
///
/// Well-formed is all that it says: whether the id is registered, the registry knows. Clones share
/// the text.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct AgentId(Arc<str>);

/// The text is no well-formed agent id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "an agent id has 3 to 64 characters a-z, 0-9 and '-', and neither starts nor ends with '-'"
)]
pub struct InvalidAgentId;

impl AgentId {
    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether `text` follows the rule for agent ids.
    pub fn is_well_formed(text: &str) -> bool {
        let bytes = text.as_bytes();
        let edge = |b: Option<&u8>| b.is_some_and(|b| *b != b'-');
        LEN.contains(&bytes.len())
            && edge(bytes.first())
            && edge(bytes.last())
            && bytes.iter().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'))
    }

    /// Whether the relay keeps this id for itself: messages from it are the relay's own.
    pub fn is_reserved(&self) -> bool {
        &*self.0 == "relay"
    }
}

impl FromStr for AgentId {
    type Err = InvalidAgentId;

    fn from_str(text: &str) -> Result<Self, InvalidAgentId> {
        if Self::is_well_formed(text) { Ok(Self(text.into())) } else { Err(InvalidAgentId) }
    }
}

impl TryFrom<String> for AgentId {
    type Error = InvalidAgentId;

    fn try_from(text: String) -> Result<Self, InvalidAgentId> {
        text.parse()
    }
}

impl From<AgentId> for String {
    fn from(id: AgentId) -> Self {
        id.as_str().to_owned()
    }
}

impl Borrow<str> for AgentId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for AgentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for AgentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn edges_of_the_rule() {
        for good in ["abc", "rawk-042", "0-0", "a--b", &"a".repeat(64)] {
            assert!(good.parse::<AgentId>().is_ok(), "{good}");
        }
        for bad in ["", "ab", "-ab", "ab-", "Abc", "a_b", "a b", "äbc", "abc\n", &"a".repeat(65)] {
            assert_eq!(bad.parse::<AgentId>(), Err(InvalidAgentId), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn every_text_of_the_pattern_is_well_formed(text in "[a-z0-9][a-z0-9-]{1,62}[a-z0-9]") {
            prop_assert!(AgentId::is_well_formed(&text));
        }

        #[test]
        fn agrees_with_the_pattern_on_near_misses(text in "[-a-zA-Z0-9_é]{0,66}") {
            let inner = text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
            let expected = inner && (3..=64).contains(&text.len())
                && !text.starts_with('-') && !text.ends_with('-');
            prop_assert_eq!(AgentId::is_well_formed(&text), expected);
        }
    }
}
