//! What names a session in the whole cluster.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{NodeId, UnixMillis};

/// Bits of [`SessionId::time`] that count the sessions of one millisecond.
const COUNTER_BITS: u32 = 20;

/// Names a session, never reused. Of two sessions of one agent the one with the higher id is the
/// newer: it was opened later by mesh time, or, at the same time, on the higher node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SessionId {
    /// Mesh time in milliseconds, shifted left by 20 bits, plus a counter.
    pub time: u64,
    /// The session's home node.
    pub node: NodeId,
}

impl SessionId {
    /// The lowest `time` of a session opened at `now`.
    pub fn floor(now: UnixMillis) -> u64 {
        now.0 << COUNTER_BITS
    }
}

impl fmt::Display for SessionId {
    /// Sixteen hexadecimal digits of time, `@`, and the node.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}@{}", self.time, self.node)
    }
}
