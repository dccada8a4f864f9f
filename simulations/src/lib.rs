//! Whole clusters in one process under a seeded clock and network, and models of their scale.
//!
//! [`core`] runs many of the cluster's synchronous engines on one thread, thousands of seeds in a few
//! minutes; [`whole`] runs whole nodes, with QUIC, gossip and WebSocket. [`promises`] holds what was
//! seen against PROTOCOL section 5, one file per promise. Nothing in the relay uses this crate.
//!
//! # What is known to fail
//!
//! Of the seeds 1 to 300 of each kind of fault, with the default options (`--core --faults KIND`):
//!
//! - `block` 1: a link stands still and is not given up. What came back over it, when it goes on, was
//!   pushed before an earlier fence that was given up for its silence, but is taken as if it belonged
//!   to a later fence to the same node, and is sent again behind younger messages: order is broken.
//! - No seed at present, but possible (`block` 123 had it until another change led it elsewhere): a
//!   session opens on a node that has no link to the sender's, which is in another region. A broadcast
//!   reaches it through a gateway before an older direct message comes back from the former home: only
//!   nodes with a link are passed by (`mesh::behind`). Order is broken.
//! - `one-way` 212: an owner is heard again, and its word of an older session, sent long before, is
//!   believed for a moment by a node that has heard of a newer one and keeps no route to it. One
//!   message goes to where the older one was, on a way that is blocked: it is lost.
//! - `hang` 163: one copy of a direct message is lost and not counted; the cause is not known yet.
//!
//! The first three of the engines need nodes that do not reach each other while others reach both. So the
//! seeds of the engines that CI draws anew have no `block`, `one-way`, `partition` and `hang`
//! (`tests/regressions.rs`).
//!
//! Of the seeds 1 to 150 of whole nodes with all faults (`--seeds 1..=150`): none. CI draws some anew,
//! with all kinds of faults (`tests/whole.rs`).

pub mod core;
pub mod entropy;
pub mod promises;
pub mod scale;
pub mod verdict;
pub mod whole;
