//! The systemd unit and the environment file beside it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use tempfile::TempDir;
use tests::{arc_relay, repository, skip, skip_for_want_of};

use crate::files::{assert_settings, assignments, default, has, output, refusal, text, text_of};

/// What `systemd-analyze security` may say at most, in tenths; 0 is a service that may do nothing, 100 one that
/// may do all.
const EXPOSURE_MAX: u32 = 16;

/// The unit's values of that key, in order.
fn values(key: &str) -> Vec<String> {
    let unit = text("arc-relay.service");
    let values = unit.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    values.map(str::to_owned).collect()
}

/// The unit in a folder of its own, with the binary under test; none, and said so, without systemd's tools.
fn unit() -> Option<(TempDir, PathBuf)> {
    if !has("systemd-analyze") {
        skip("no systemd-analyze (package systemd)");
        return None;
    }
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let path = folder.path().join("arc-relay.service");
    let with_binary = format!("ExecStart={}\n", arc_relay().display());
    let unit = text("arc-relay.service").replace("ExecStart=arc-relay\n", &with_binary);
    assert!(unit.contains(&with_binary), "the unit starts what PATH has");
    std::fs::write(&path, unit).expect("a test writes into its folder");
    Some((folder, path))
}

#[test]
fn systemd_finds_nothing_to_complain_of() {
    let Some((_folder, path)) = unit() else { return };
    let output = output(Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(path));
    let said = text_of(&output.stdout) + &text_of(&output.stderr);
    // Of other units it may say what it likes.
    let ours: Vec<&str> = said.lines().filter(|line| line.contains("arc-relay")).collect();
    assert!(ours.is_empty() && output.status.success(), "{said}");
}

#[test]
fn the_service_may_do_little() {
    let Some((_folder, path)) = unit() else { return };
    let mut analyze = Command::new("systemd-analyze");
    analyze
        .args(["security", "--no-pager", "--offline=true"])
        .arg(format!("--threshold={EXPOSURE_MAX}"));
    let output = output(analyze.arg(path));
    assert!(output.status.success(), "{}", text_of(&output.stdout));
}

#[test]
fn its_limits_fit_the_relays() {
    let seconds = |key| values(key)[0].parse().map(Duration::from_secs).expect("a number");
    let drain = default("DRAIN_DEADLINE").strip_suffix('s').and_then(|text| text.parse().ok());
    let drain = Duration::from_secs(drain.expect("a number of seconds"));
    assert!(seconds("TimeoutStopSec") >= drain + Duration::from_secs(5), "a drain has its time");
    assert!(seconds("WatchdogSec") >= Duration::from_secs(10), "a busy machine is no hang");
    let connections: u64 = default("MAX_CONNECTIONS").parse().expect("a number");
    let files: u64 = values("LimitNOFILE")[0].parse().expect("a number");
    assert!(files >= connections + 1_152, "{connections} connections have their files");
    assert_eq!(values("Type"), ["notify"]);
    let environment = values("Environment").join("\n");
    let names = assignments(&environment);
    assert_settings("the unit", names.iter().map(|(name, _)| name.as_str()));
}

/// What the environment file says when the commented lines are taken in of its paragraphs whose first line has
/// `heading`, with `CLUSTER_SECRET` made up; and what the unit says before.
fn environment(heading: &str) -> Vec<(String, String)> {
    let file = text("environment");
    let chosen = |paragraph: &&str| paragraph.lines().next().is_some_and(|l| l.contains(heading));
    let mut lines = String::new();
    for paragraph in file.split("\n\n").filter(chosen) {
        for line in paragraph.lines() {
            lines.push_str(line.strip_prefix('#').unwrap_or(line));
            lines.push('\n');
        }
    }
    let mut all = assignments(&values("Environment").join("\n"));
    for (name, value) in assignments(&lines) {
        let value = if name == "CLUSTER_SECRET" { tests::cluster::new_secret() } else { value };
        all.retain(|(known, _)| *known != name);
        all.push((name, value));
    }
    all
}

#[test]
fn the_relay_takes_each_way_in_the_environment_file() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    for (heading, sets) in [
        ("as it is", "DATA_DIR"),
        ("# 1. ", "ACME_DOMAINS"),
        ("# 2. ", "TLS_KEY"),
        ("# 3. ", "BEHIND_PROXY"),
        ("One of several nodes", "SEEDS"),
        ("Who may come in", "TOKEN_TTL"),
    ] {
        let environment = environment(heading);
        let names: Vec<&str> = environment.iter().map(|(name, _)| name.as_str()).collect();
        assert!(names.contains(&sets), "{heading}: {names:?}");
        assert_settings("the environment file", names.iter().copied());
        assert_eq!(refusal(&environment, folder.path()), None, "{heading}");
    }
}

#[test]
fn an_operator_installs_upgrades_and_removes_it_under_a_real_systemd() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    fs::copy(arc_relay(), folder.path().join("arc-relay")).expect("a test writes into its folder");
    walk("walk", folder.path());
}

/// Boots a machine that does that walk of `tests/systemd` with what is in the folder; skipped, and said so, where that
/// cannot be.
pub(crate) fn walk(name: &str, here: &Path) {
    let scripts = repository().join("tests/systemd");
    fs::copy(scripts.join(name), here.join("walk")).expect("a test writes into its folder");
    let mut boot = Command::new("timeout");
    let booted = output(boot.arg("180").arg(scripts.join("boot")).arg(here));
    // A machine may forbid namespaces, mounts or cgroups to its own root, and CI can change nothing about it.
    let Ok(log) = fs::read_to_string(here.join("log")) else {
        let why = text_of(&booted.stderr);
        return skip_for_want_of(&format!("way to boot systemd in namespaces: {}", why.trim()));
    };
    assert!(booted.status.success() && log.ends_with("== done\n"), "{log}");
}
