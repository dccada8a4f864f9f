//! Whole clusters in one process under a seeded clock and network, and models of their scale.
//!
//! [`core`] runs many of the cluster's synchronous engines on one thread, thousands of seeds in a few
//! minutes; [`whole`] runs whole nodes, with QUIC, gossip and WebSocket. [`promises`] holds what was
//! seen against PROTOCOL section 5, one file per promise. Nothing in the relay uses this crate.
//!
//! # What is known to fail
//!
//! Of the engines' seeds 1 to 1000 of each kind of fault, with the default options (`--core --faults
//! KIND`), none. Of the seeds 1 to 150 of whole nodes with all faults (`--seeds 1..=150`), none. CI draws some of
//! both anew, with all kinds of faults.

pub mod core;
pub mod entropy;
pub mod promises;
pub mod scale;
pub mod verdict;
pub mod whole;
