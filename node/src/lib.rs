//! The relay process: agents' sockets, HTTP, configuration and the command line.

pub mod cli;
pub mod clock;
pub mod config;
pub mod files;
pub mod logging;
