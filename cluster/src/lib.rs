//! What a cluster of relays knows together: the book of names (registry), the agents' subscriptions on
//! disk, and later membership, directory and links.
//!
//! Knows nothing of `WebSocket`s, JSON messages or HTTP; `node` uses it, never the other way round.

pub mod admin;
mod data_dir;
mod database;
mod id;
mod node;
pub mod registry;
pub mod subscription_store;
#[cfg(test)]
mod test_disk;
mod time;
pub mod token;

pub use id::{AgentId, InvalidAgentId};
pub use node::{Generation, NodeId};
pub use time::UnixMillis;
