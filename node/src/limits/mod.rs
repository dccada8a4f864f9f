//! How much one agent and one address may do (PROTOCOL section 8).
//!
//! Owns the quotas, counts and permits of both, in memory and on this node. It answers at once and
//! never waits; what is said to whoever is over a limit is the caller's.

pub mod address;
mod bucket;
pub mod rate;

pub use address::{AddressLimits, ConnectionPermit, HandshakePermit, TooMany};
pub use rate::{AgentLimiter, Verdict};
