//! The mesh on networks that fail and are far: real processes in network namespaces, cut off from each
//! other by nftables, or with an ocean between them.
//!
//! Needs root; skipped visibly without it. Each test has networks of its own, so that all may run at
//! once.

// The machine's clock is the one that a black box runs on.
#![allow(clippy::disallowed_methods)]

mod nodes;
mod one_way;
mod partition;
mod regions;
mod rounds;
mod talk;
