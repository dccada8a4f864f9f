//! The real binary: what it prints, where, and with which exit code, before it runs a relay.
#![allow(clippy::unwrap_used, missing_docs)] // a test's panic is its verdict; nobody uses this crate

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

fn arc_relay(folder: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_arc-relay"))
        .args(arguments)
        .current_dir(folder)
        .env_clear()
        .envs(environment.iter().copied())
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[test]
fn a_good_configuration_is_shown_from_all_layers() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("arc-relay.toml"), "port = 1\nstats_port = 2\n").unwrap();
    fs::write(folder.path().join(".env"), "PORT=3\nREGION=eu\n").unwrap();
    let output = arc_relay(
        folder.path(),
        &["--check-config", "--log-level", "debug"],
        &[
            ("REGISTRATION_KEY", "swordfish-7"),
            ("MAX_CONNECTIONS", "5"),
            ("RATE_LIMIT_PER_MIN", ""),
        ],
    );
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert_eq!(
        text(&output.stdout),
        "configuration ok
  PORT = 3 (.env:1)
  STATS_PORT = 2 (arc-relay.toml)
  REGION = eu (.env:2)
  REGISTRATION_KEY = (hidden) (environment)
  MAX_CONNECTIONS = 5 (environment)
  LOG_LEVEL = debug (flag --log-level)
"
    );
}

#[test]
fn problems_go_to_stderr_with_exit_code_2_at_start_and_in_the_check() {
    let folder = tempfile::tempdir().unwrap();
    let environment = [("PORT", "http"), ("REGISTRATION_KEY", "sword fish")];
    for arguments in [&["--ping-interval=2h"][..], &["--ping-interval=2h", "--check-config"]] {
        let output = arc_relay(folder.path(), arguments, &environment);
        assert_eq!(output.status.code(), Some(2));
        assert_eq!(text(&output.stdout), "");
        let said = text(&output.stderr);
        assert!(said.starts_with("arc-relay: the configuration has 3 problems:\n"), "{said}");
        assert!(!said.contains("fish"), "{said}");
    }
}

#[test]
fn an_unknown_key_is_refused_by_the_check() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("mine.toml"), "prot = 1\n").unwrap();
    let output = arc_relay(folder.path(), &["--config", "mine.toml", "--check-config"], &[]);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        text(&output.stderr).contains("prot (mine.toml): is not a setting; did you mean port?")
    );
}

#[test]
fn a_settings_file_that_is_named_must_exist() {
    let folder = tempfile::tempdir().unwrap();
    let output = arc_relay(folder.path(), &["--config", "nowhere.toml"], &[]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("nowhere.toml: cannot be read"));
}

#[test]
fn a_fresh_secret_is_all_that_is_printed_and_is_taken() {
    let folder = tempfile::tempdir().unwrap();
    let made = || arc_relay(folder.path(), &["secret"], &[("SEEDS", "not looked at")]);
    let (one, other) = (made(), made());
    assert_eq!((one.status.code(), text(&one.stderr)), (Some(0), ""));
    assert_ne!(one.stdout, other.stdout);
    let secret = text(&one.stdout).strip_suffix('\n').unwrap();
    assert_eq!(secret.len(), "arcs_".len() + 48);
    let environment = [("CLUSTER_SECRET", secret), ("SEEDS", "node-1")];
    let checked = arc_relay(folder.path(), &["--check-config"], &environment);
    assert_eq!(
        text(&checked.stdout),
        "configuration ok
  SEEDS = node-1:7946 (environment)
  CLUSTER_SECRET = (hidden) (environment)
"
    );
}

#[test]
fn an_unknown_flag_is_exit_code_2_and_help_and_version_are_0() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(arc_relay(folder.path(), &["--prot", "1"], &[]).status.code(), Some(2));
    let help = arc_relay(folder.path(), &["--help"], &[]);
    assert_eq!(help.status.code(), Some(0));
    assert!(text(&help.stdout).contains("Examples:"));
    let version = arc_relay(folder.path(), &["--version"], &[]);
    assert_eq!(text(&version.stdout), concat!("arc-relay ", env!("CARGO_PKG_VERSION"), "\n"));
}
