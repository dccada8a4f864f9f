//! The relay's side of the WebSocket protocol (RFC 6455): bytes to events, events to bytes.
//!
//! Owns the rules of framing, of closing and of the upgrade. Everything here is a function of the
//! bytes it is given: no socket is read or written, nothing waits, no clock is asked. It never looks
//! into a message: what an agent's text means, and whether it is UTF-8, the message scanner decides.

pub mod close;
pub mod frame;
pub mod handshake;
pub mod reader;

pub use close::CloseCode;
pub use reader::{Event, Reader, Step, Violation};
