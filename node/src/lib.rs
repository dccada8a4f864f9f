//! The relay process: agents' sockets, HTTP, configuration and the command line.

pub mod clock;
pub mod config;
pub mod limits;
pub mod ws;
