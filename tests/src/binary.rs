//! Finding the binary under test, and building it once per test process.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

/// The `arc-relay` executable, freshly built in the profile that the tests themselves run in.
pub fn arc_relay() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(build)
}

/// The root of the repository.
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in the workspace")
}

/// Cargo's target folder, where the tests may leave what is worth keeping between runs.
pub fn target_dir() -> PathBuf {
    profile_dir().parent().expect("a profile's folder lies in the target folder").to_owned()
}

/// `target/debug` or `target/release`: test executables lie in `deps` within.
fn profile_dir() -> PathBuf {
    let test = std::env::current_exe().expect("a test has an executable");
    let deps = test.parent().expect("an executable lies in a folder");
    deps.parent().expect("cargo puts tests into a profile's folder").to_owned()
}

fn build() -> PathBuf {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(repository()).args(["build", "--quiet", "--locked"]);
    cargo.args(["-p", "node", "--bin", "arc-relay"]).arg("--target-dir").arg(target_dir());
    if profile_dir().ends_with("release") {
        cargo.arg("--release");
    }
    let status = cargo.status().expect("cargo runs");
    assert!(status.success(), "the relay does not build");
    profile_dir().join("arc-relay")
}
