//! Several nodes that are one relay, seen from outside: real processes on loopback addresses, real
//! agents, real crashes.
//!
//! Each module proves one chapter; each test starts a cluster of its own, so that all may run at once.

// The machine's clock is the one that a black box runs on.
#![allow(clippy::disallowed_methods)]

mod bench;
mod clients;
mod clocks;
mod doctor;
mod drain;
mod faults;
mod joining;
mod load;
mod operations;
mod registry;
mod routing;
mod sessions;
mod terminal;
