//! Certificates from a real authority, Pebble, for one node and for several under one name.

// The machine's clock is the one that a black box runs on.
#![allow(clippy::disallowed_methods)]

mod agent;
mod check;
mod nodes;
mod orders;
