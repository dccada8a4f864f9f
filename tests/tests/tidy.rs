//! What the project holds itself to and a machine can check (see CONTRIBUTING.md).

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;
use tests::repository;

/// Longest function and longest file, in lines.
const FUNCTION_LINES_MAX: usize = 70;
const FILE_LINES_MAX: usize = 700;

/// Modules that decide and do nothing else: they are given the time and bytes, and return what is
/// to be done. A folder stands for all in it.
const PURE: &[&str] = &[
    "cluster/src/id.rs",
    "cluster/src/membership/dialler.rs",
    "cluster/src/membership/joining.rs",
    "cluster/src/membership/view.rs",
    "cluster/src/mesh",
    "cluster/src/session.rs",
    "cluster/src/time.rs",
    "cluster/src/wire",
    "node/src/agent/bench/checker.rs",
    "node/src/agent/bench/limits.rs",
    "node/src/agent/bench/report.rs",
    "node/src/agent/bench/schedule.rs",
    "node/src/agent/bench/stamp.rs",
    "node/src/agent/doctor/judging",
    "node/src/agent/doctor/judging.rs",
    "node/src/agent/paint.rs",
    "node/src/agent/screen.rs",
    "node/src/agent/table.rs",
    "node/src/agent/whole.rs",
    "node/src/certificates/watched.rs",
    "node/src/message",
    "node/src/metrics/page.rs",
    "node/src/session/outbox.rs",
    "node/src/session/permission.rs",
    "node/src/subscriptions",
    "node/src/subscriptions.rs",
    "node/src/traces/encode.rs",
    "node/src/traces/ids.rs",
    "node/src/watch/changes.rs",
    "node/src/watch/event.rs",
    "node/src/watch/history.rs",
    "node/src/watch/losses.rs",
    "node/src/watch/sights.rs",
    "node/src/watch/view.rs",
    "node/src/ws/close.rs",
    "node/src/ws/frame.rs",
    "node/src/ws/handshake.rs",
    "node/src/ws/reader.rs",
];

/// What a pure module never names.
const IMPURE: &[&str] =
    &["tokio::", "Instant::now", "SystemTime::now", "std::thread", "std::fs", "std::net::Tcp"];

/// What each crate of the workspace may use of the others.
const MAY_USE: &[(&str, &[&str])] = &[
    ("tls", &[]),
    ("cluster", &["tls"]),
    ("node", &["cluster", "tls"]),
    ("tests", &["cluster", "node", "tls"]),
    ("simulations", &["cluster", "node", "tls"]),
];

/// What the cluster must not know of: agents' sockets and HTTP are the node's.
const NOT_FOR_CLUSTER: &[&str] = &["axum", "hyper", "tokio-tungstenite", "tungstenite"];

/// Output of a command in the repository, which must end well.
fn output(program: &str, args: &[&str]) -> String {
    let output =
        Command::new(program).args(args).current_dir(repository()).output().expect("it can be run");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {args:?}: {stderr}");
    String::from_utf8(output.stdout).expect("output is text")
}

/// Every Rust file of the project with its text, found as Git finds them: not what is ignored.
fn rust_files() -> Vec<(PathBuf, String)> {
    let arguments = ["ls-files", "--cached", "--others", "--exclude-standard", "--", "*.rs"];
    let paths: Vec<PathBuf> = output("git", &arguments).lines().map(PathBuf::from).collect();
    assert!(paths.len() > 20, "this is not the repository: {paths:?}");
    let read = |path: PathBuf| {
        // A file that is deleted and not yet committed is still listed.
        let text = std::fs::read_to_string(repository().join(&path)).ok()?;
        Some((path, text))
    };
    paths.into_iter().filter_map(read).collect()
}

/// Fails with all that was found, unless that is nothing.
fn assert_none(what: &str, found: &[String]) {
    assert!(found.is_empty(), "{what}:\n  {}", found.join("\n  "));
}

#[test]
fn each_file_opens_with_what_it_is() {
    let silent = |(path, text): (PathBuf, String)| {
        (!text.starts_with("//! ")).then(|| path.display().to_string())
    };
    let found: Vec<String> = rust_files().into_iter().filter_map(silent).collect();
    assert_none("these files do not open with `//!`", &found);
}

#[test]
fn no_file_is_too_long() {
    let long = |(path, text): (PathBuf, String)| {
        let lines = text.lines().count();
        (lines > FILE_LINES_MAX).then(|| format!("{}: {lines} lines", path.display()))
    };
    let found: Vec<String> = rust_files().into_iter().filter_map(long).collect();
    assert_none("split these files by idea", &found);
}

#[test]
fn no_function_is_too_long() {
    let mut found = Vec::new();
    for (path, text) in rust_files() {
        for (line, length) in long_functions(&text) {
            found.push(format!("{}:{line}: {length} lines", path.display()));
        }
    }
    assert_none("these functions have more than one idea", &found);
}

/// First line and length of each function that is too long. Relies on rustfmt: a function ends at
/// the first closing brace that is indented as its beginning is.
fn long_functions(text: &str) -> Vec<(usize, usize)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for (start, line) in lines.iter().enumerate() {
        let code = line.trim_start();
        let is_function = ["fn ", "pub fn ", "async fn ", "pub async fn ", "const fn "]
            .iter()
            .any(|begin| code.starts_with(begin))
            || (code.starts_with("pub") && code.contains(" fn "));
        if !is_function || line.ends_with(['}', ';']) {
            continue;
        }
        let end = format!("{}}}", &line[..line.len() - code.len()]);
        let length = lines[start..].iter().position(|line| *line == end).map_or(0, |n| n + 1);
        if length > FUNCTION_LINES_MAX {
            found.push((start + 1, length));
        }
    }
    found
}

#[test]
fn what_decides_neither_waits_nor_asks_the_clock() {
    // Their tests may do what they like.
    let is_test = |path: &Path| path.ends_with("tests.rs");
    let is_pure = |path: &Path| PURE.iter().any(|pure| path.starts_with(pure)) && !is_test(path);
    let pure: Vec<_> = rust_files().into_iter().filter(|(path, _)| is_pure(path)).collect();
    let known: BTreeSet<&str> = PURE.iter().copied().filter(|pure| exists(pure)).collect();
    assert_eq!(known.len(), PURE.len(), "the list names what does not exist");
    let mut found = Vec::new();
    for (path, text) in pure {
        for (n, line) in text.lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            if let Some(name) = IMPURE.iter().find(|name| code.contains(*name)) {
                found.push(format!("{}:{}: {name}", path.display(), n + 1));
            }
        }
    }
    assert_none("pure modules do no I/O and read no clock", &found);
}

fn exists(path: &str) -> bool {
    repository().join(path).exists()
}

/// What Cargo says of the workspace's own packages.
fn metadata() -> Value {
    let args = ["metadata", "--format-version", "1", "--locked", "--no-deps"];
    serde_json::from_str(&output(env!("CARGO"), &args)).expect("cargo writes JSON")
}

/// Names of the packages that `package` depends on directly, but for its tests.
fn dependencies(package: &Value) -> BTreeSet<&str> {
    let list = package["dependencies"].as_array().expect("a list");
    let for_use = list.iter().filter(|dependency| dependency["kind"] != "dev");
    for_use.filter_map(|dependency| dependency["name"].as_str()).collect()
}

#[test]
fn dependencies_run_one_way() {
    let metadata = metadata();
    let packages = metadata["packages"].as_array().expect("a list");
    let ours: BTreeSet<&str> = packages.iter().filter_map(|p| p["name"].as_str()).collect();
    let known: BTreeSet<&str> = MAY_USE.iter().map(|(name, _)| *name).collect();
    assert_eq!(ours, known, "each crate of the workspace has its place");
    for package in packages {
        let name = package["name"].as_str().expect("a name");
        let (_, allowed) = MAY_USE.iter().find(|(known, _)| *known == name).expect("checked above");
        let used = dependencies(package);
        let wrong: Vec<String> = used
            .intersection(&ours)
            .filter(|used| !allowed.contains(*used))
            .map(|used| format!("{name} uses {used}"))
            .collect();
        assert_none("dependencies run node → cluster → tls", &wrong);
        if name == "cluster" {
            let wrong: Vec<String> = NOT_FOR_CLUSTER
                .iter()
                .filter(|foreign| used.contains(**foreign))
                .map(|foreign| (*foreign).to_owned())
                .collect();
            assert_none("the cluster knows nothing of WebSockets and HTTP", &wrong);
        }
    }
}

#[test]
fn there_is_one_crypto_provider() {
    let users_of = |package| {
        let args = ["tree", "--workspace", "--locked", "--invert", package];
        let output = Command::new(env!("CARGO")).args(args).current_dir(repository()).output();
        String::from_utf8(output.expect("cargo can be run").stdout).expect("output is text")
    };
    assert!(users_of("aws-lc-rs").contains("rustls"), "the provider is aws-lc-rs");
    assert_eq!(users_of("ring"), "", "a second provider becomes a panic at run time");
}

#[test]
fn every_mutation_fits_the_source() {
    let list = output("git", &["ls-files", "--", "simulations/mutations/*.patch"]);
    assert!(list.lines().count() > 10, "these are not the mutations: {list}");
    for patch in list.lines() {
        output("git", &["apply", "--check", patch]);
    }
}

#[test]
fn the_checks_can_fail() {
    let short = "fn short() {\n    1;\n}\n";
    let long = format!("    pub async fn long() {{\n{}    }}\n", "        1;\n".repeat(80));
    assert_eq!(long_functions(&format!("{short}{long}")), [(4, 82)]);
}
