//! The `arc-relay` binary.
fn main() {}
