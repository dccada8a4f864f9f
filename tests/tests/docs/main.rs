//! What the documents say, tried: every command in them is run or says why not, and every link leads somewhere.

// The machine's clock is the one that a black box runs on.
#![allow(clippy::disallowed_methods)]

mod commands;
mod links;
mod pages;
