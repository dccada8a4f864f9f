//! The relay process: agents' sockets, HTTP, configuration and the command line.

pub mod agent;
pub mod clock;
pub mod config;
