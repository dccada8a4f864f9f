//! What a cluster of relays knows together: the book of names (registry), and later membership,
//! directory and links.
//!
//! Knows nothing of WebSockets, JSON messages or HTTP; `node` uses it, never the other way round.

mod id;
pub mod registry;
mod time;
pub mod token;

pub use id::{AgentId, InvalidAgentId};
pub use time::UnixMillis;
