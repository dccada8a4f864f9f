//! Tests that cannot run where they are.

use std::io::Write;

/// Says that a test does not run, and why; fails it instead where `CI` is `true`.
pub fn skip(why: &str) {
    assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "{why}");
    say(&format!("SKIPPED: {why}"));
}

/// The same where the tool that it needs is none that CI can install.
pub fn skip_for_want_of(tool: &str) {
    say(&format!("SKIPPED: there is no {tool} here"));
}

/// Says what a test does not try, and why.
pub fn left_out(what: &str) {
    say(&format!("LEFT OUT: {what}"));
}

/// Says what a test has measured.
pub fn measured(what: &str) {
    say(&format!("MEASURED: {what}"));
}

/// Past libtest's capture, which would hide it: a test that did not run must not look like one that
/// passed.
fn say(line: &str) {
    // Nobody reads it: nothing is lost.
    let _ = writeln!(std::io::stderr(), "{line}");
}
