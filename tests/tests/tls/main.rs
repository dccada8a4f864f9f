//! Agents' TLS on one node, seen from outside: real certificates, real clients, and abuse.
//!
//! Each module proves one chapter; each test starts a relay of its own, so that all may run at once.

// The machine's clock is the one that a black box runs on.
#![allow(clippy::disallowed_methods)]

mod abuse;
mod agent;
mod authority;
mod check;
mod clients;
mod http;
mod reload;
mod versions;
