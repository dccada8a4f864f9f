//! One node, seen from outside: everything that PROTOCOL.md says of a relay that stands alone, and
//! what an operator relies on besides.
//!
//! Each module proves one chapter; each test starts a relay of its own, so that all may run at once.

// The machine's clock is the one that a black box runs on.
#![allow(clippy::disallowed_methods)]

mod abuse;
mod bench;
mod cli;
mod clients;
mod commands;
mod config;
mod doctor;
mod drain;
mod durability;
mod handshake;
mod json;
mod limits;
mod narrowing;
mod ops;
mod proxy;
mod registration;
mod routing;
mod sessions;
mod slow_consumer;
mod terminal;
