//! Whole clusters in one process under a seeded clock and network, and models of their scale.
//!
//! [`core`] runs many of the cluster's synchronous engines on one thread, thousands of seeds in a few
//! minutes; [`whole`] runs whole nodes, with QUIC, gossip and WebSocket. [`promises`] holds what was
//! seen against PROTOCOL section 5, one file per promise. [`registry`] runs the registry on many nodes,
//! with promises of its own. Nothing in the relay uses this crate.
//!
//! No seed is known to fail. Of the engines, 1 to 1000 of each kind of fault (`--core --faults KIND`) were
//! run with the present rules; CI draws some anew, of whole nodes too, with all kinds of faults.

pub mod core;
pub mod entropy;
pub mod promises;
pub mod registry;
pub mod scale;
pub mod verdict;
pub mod whole;
