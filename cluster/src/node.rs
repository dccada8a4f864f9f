//! What names a node, and one life of it.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// Names a node for ever: random, made with its data directory, never reused.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub struct NodeId(pub u64);

/// Grows at each start of a node: tells a restart from a delay. The Unix ms of the start, if clocks only go on.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub struct Generation(pub u64);

/// One life of a node, from a start to its end.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub struct Incarnation {
    /// The node.
    pub node: NodeId,
    /// Which of its lives.
    pub generation: Generation,
}

/// What is no node's id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a node's id is sixteen hexadecimal digits")]
pub struct InvalidNodeId;

impl FromStr for NodeId {
    type Err = InvalidNodeId;

    /// Reads what is displayed: sixteen hexadecimal digits.
    fn from_str(text: &str) -> Result<Self, InvalidNodeId> {
        let is_whole = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let id = u64::from_str_radix(text, 16).ok().filter(|_| is_whole);
        id.map(Self).ok_or(InvalidNodeId)
    }
}

impl fmt::Display for NodeId {
    /// Sixteen hexadecimal digits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Incarnation {
    /// The node, `/`, and the generation.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.node, self.generation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_read_as_it_is_written() {
        for id in [0, 7, u64::MAX] {
            assert_eq!(NodeId(id).to_string().parse(), Ok(NodeId(id)));
        }
        for text in ["", "7", "+000000000000007", "000000000000000g", "00000000000000007"] {
            assert_eq!(text.parse::<NodeId>(), Err(InvalidNodeId), "{text}");
        }
    }
}
