//! What the README says of the program, compared with the program.
#![allow(clippy::unwrap_used, missing_docs)] // a test's panic is its verdict; nobody uses this crate

use std::process::Command;

const README: &str = include_str!("../../README.md");

/// The README's text between the two comments that are named `name`.
fn marked(name: &str) -> &'static str {
    let after = README.split_once(&format!("<!-- {name} -->\n")).expect("the mark begins").1;
    after.split_once(&format!("<!-- /{name} -->")).expect("the mark ends").0
}

#[test]
fn the_configuration_table_is_the_programs_own() {
    let output =
        Command::new(env!("CARGO_BIN_EXE_arc-relay")).arg("--config-table").output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let table = String::from_utf8(output.stdout).unwrap();
    assert!(marked("configuration") == table, "put this between the marks in README.md:\n{table}");
}
