//! The relay process: agents' sockets, HTTP, configuration and the command line.

pub mod agent;
pub mod cli;
pub mod clock;
pub mod commands;
pub mod config;
pub mod deliver;
pub mod files;
pub mod http;
pub mod limits;
pub mod logging;
pub mod message;
pub mod metrics;
pub mod net;
pub mod peers;
pub mod relay;
pub mod router;
pub mod run;
pub mod saving;
pub mod serve;
pub mod session;
pub mod sessions;
pub mod subscriptions;
pub mod tasks;
pub mod traffic;
pub mod ws;
