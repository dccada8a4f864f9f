//! What a cluster of relays knows together, and how its nodes speak: the book of names (registry), who
//! is there (membership), where the agents are (mesh), and what carries it all (link, wire).
//!
//! Knows nothing of `WebSocket`s, JSON messages or HTTP; `node` uses it, never the other way round.

pub mod admin;
mod data_dir;
mod database;
mod id;
pub mod link;
pub mod membership;
pub mod mesh;
mod node;
pub mod peering;
pub mod port;
pub mod registry;
mod session;
pub mod subscription_store;
#[cfg(test)]
mod test_disk;
mod time;
pub mod token;
pub mod wire;

pub use id::{AgentId, InvalidAgentId};
pub use node::{Generation, Incarnation, InvalidNodeId, NodeId};
pub use session::SessionId;
pub use time::UnixMillis;
