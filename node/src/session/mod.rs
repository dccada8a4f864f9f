//! One live WebSocket of one agent.
pub mod outbox;
