//! One book of names kept by several nodes: how it begins, who keeps it, and what is refused.

mod beginning;
mod keeping;
mod refusals;
