//! Clients in other languages: Python and Node, with their libraries under the target folder.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use crate::{repository, skip, target_dir};

/// A command that runs Python with `websockets` and `biscuit-python` at hand; none, and said so,
/// where they cannot be had.
pub fn python() -> Option<Command> {
    let folder = installed("python")?;
    Some(Command::new(folder.join("python/bin/python3")))
}

/// A command that runs Node with `ws` at hand; none, and said so, where it cannot be had.
pub fn node() -> Option<Command> {
    let folder = installed("node")?;
    let mut command = Command::new("node");
    command.env("NODE_PATH", folder.join("node/node_modules"));
    Some(command)
}

/// A script of this repository.
pub fn script(path: &str) -> PathBuf {
    repository().join(path)
}

/// The folder with that language's libraries, installed on the first demand of any test.
fn installed(language: &'static str) -> Option<&'static Path> {
    static PYTHON: OnceLock<Option<PathBuf>> = OnceLock::new();
    static NODE: OnceLock<Option<PathBuf>> = OnceLock::new();
    let once = if language == "python" { &PYTHON } else { &NODE };
    once.get_or_init(|| install(language)).as_deref()
}

fn install(language: &str) -> Option<PathBuf> {
    let folder = target_dir().join("clients");
    std::fs::create_dir_all(&folder).expect("the target folder can be written");
    // Test processes may run side by side, and only one may install.
    let lock = File::create(folder.join("lock")).expect("the target folder can be written");
    lock.lock().expect("a file can be locked");
    let output = Command::new(script("tests/clients/install"))
        .arg(language)
        .arg(&folder)
        .output()
        .expect("a script of this repository can be run");
    if output.status.success() {
        return Some(folder);
    }
    let reason = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    skip(&format!("no {language} client: {reason}"));
    None
}
