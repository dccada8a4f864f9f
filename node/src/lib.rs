//! The relay process: agents' sockets, HTTP, configuration and the command line.

pub mod cli;
pub mod agent;
pub mod clock;
pub mod config;
pub mod limits;
pub mod message;
pub mod metrics;
pub mod session;
pub mod sessions;
pub mod subscriptions;
pub mod ws;
pub mod files;
pub mod logging;
