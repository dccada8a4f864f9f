//! What the administrator does, seen from outside: over HTTP, by command, and to files.
//!
//! Each module proves one chapter; each test starts a relay of its own, so that all may run at once.

// The machine's clock is the one that a black box runs on.
#![allow(clippy::disallowed_methods)]

mod api;
mod audit;
mod backups;
mod commands;
mod document;
mod registering;
