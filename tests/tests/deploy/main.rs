//! The ways to install the relay that `deploy/` has: each file held against the tool or the schema that is made
//! for it, as far as they run here, against the relay's own settings, and against what the relay does when it
//! is started as the file says.
//!
//! What needs root, or a tool that is not there, is skipped and says so.

// The machine's clock is the one that a black box runs on.
#![allow(clippy::disallowed_methods)]

mod clusters;
mod compose;
mod debian;
mod files;
mod firewall;
mod health;
mod hosts;
mod image;
mod kubernetes;
mod readme;
mod scripts;
mod supervisor;
mod systemd;
mod talk;
mod upgrade;
mod upgrade_compose;
mod upgrade_systemd;
