//! Whole clusters in one process under a seeded clock and network, and models of their scale.
//!
//! [`core`] runs many of the cluster's synchronous engines on one thread, thousands of seeds in a few
//! minutes. [`promises`] holds what was seen against PROTOCOL section 5, one file per promise.
//! Nothing in the relay uses this crate.

pub mod core;
pub mod entropy;
pub mod promises;
pub mod scale;
pub mod verdict;
pub mod whole;
