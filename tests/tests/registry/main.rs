//! One book of names kept by several nodes: how it begins, who keeps it, and what is refused.

// The machine's clock is the one that a black box runs on.
#![allow(clippy::disallowed_methods)]

mod beginning;
mod keeping;
mod refusals;
mod storm;
