//! The Debian package: its recipe in the relay's own manifest, and what `deploy/package.sh` makes by it.

use std::{
    collections::BTreeMap, fs, os::unix::fs::PermissionsExt as _, path::Path, process::Command,
};

use rustix::process::geteuid;
use serde_json::Value;
use tempfile::TempDir;
use tests::{arc_relay, repository, skip, target_dir};

use crate::{
    files::{self, has, output, path, said, text, text_of},
    systemd,
};

fn recipe() -> Value {
    let args = ["metadata", "--format-version", "1", "--locked", "--no-deps"];
    let metadata = said(Command::new(env!("CARGO")).args(args).current_dir(repository()));
    let metadata: Value = serde_json::from_str(&metadata).expect("cargo writes JSON");
    let packages = metadata["packages"].as_array().expect("a list");
    let node = packages.iter().find(|package| package["name"] == "node").expect("the relay's");
    node["metadata"]["deb"].clone()
}

#[test]
fn what_the_operator_edits_survives_upgrades() {
    let recipe = recipe();
    let settings = recipe["conf-files"].as_array().expect("a list");
    assert_eq!(settings.len(), 1);
    assert_eq!(settings[0], "/etc/arc-relay/environment");
    assert_eq!(recipe["maintainer-scripts"], "../deploy/debian/");
}

#[test]
fn its_licences_are_the_projects() {
    let copyright = text("debian/copyright");
    let mit = fs::read_to_string(repository().join("LICENSE-MIT")).expect("it is there");
    let words =
        |text: &str| text.split_whitespace().filter(|word| *word != ".").collect::<String>();
    let (notice, terms) = mit.split_once("\n\nPermission").expect("a notice, then terms");
    assert!(words(&copyright).contains(&words(&format!("Permission{terms}"))), "{copyright}");
    let owner = notice.rsplit("(c) ").next().expect("whose it is").trim();
    assert!(copyright.contains(&format!("Copyright: {owner}\n")), "{owner}");
    assert!(copyright.contains("License: Expat or Apache-2.0\n"));
}

#[test]
fn its_scripts_are_for_the_same_user_and_folders_as_the_unit() {
    let unit = text("arc-relay.service");
    assert!(unit.contains("User=arc-relay\n") && unit.contains("StateDirectory=arc-relay\n"));
    for script in ["debian/postinst", "debian/prerm", "debian/postrm"] {
        let text = text(script);
        assert!(text.contains("set -e\n"), "{script}");
        let mode = fs::metadata(path(script)).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o111, 0o111, "{script}");
    }
    assert!(text("debian/postinst").contains("-m 700 /var/lib/arc-relay"));
    assert!(text("debian/postrm").contains("rm -rf /var/lib/arc-relay /etc/arc-relay"));
}

/// `deploy/package.sh` for that binary; none, and said so, without the tools that it needs.
fn packaging(binary: &Path) -> Option<Command> {
    // Where `.ci/run` puts it.
    let own = target_dir().join("tools/bin");
    if !(has("cargo-deb") || own.join("cargo-deb").exists()) || !has("dpkg-deb") {
        skip("no cargo-deb (cargo install cargo-deb --locked), or no dpkg");
        return None;
    }
    let path_before = std::env::var("PATH").unwrap_or_default();
    let mut script = Command::new(path("package.sh"));
    script.env("PATH", format!("{}:{path_before}", own.display()));
    script.arg("--binary").arg(binary);
    Some(script)
}

/// The package of the relay under test, as `arc-relay.deb` in a folder; none, and said so, where it cannot be made.
fn package(options: &[&str]) -> Option<TempDir> {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let deb = folder.path().join("arc-relay.deb");
    let relay = folder.path().join("arc-relay");
    files::strip(&relay);
    said(packaging(&relay)?.arg("--output").arg(deb).arg("--fast").args(options));
    Some(folder)
}

/// The files in a package, each with its mode.
fn contents(deb: &Path) -> BTreeMap<String, String> {
    let listed = said(Command::new("dpkg-deb").arg("--contents").arg(deb));
    let file = |line: &str| {
        let (mode, name) = (line.split(' ').next()?.strip_prefix('-')?, line.rsplit(' ').next()?);
        Some((name.strip_prefix('.')?.to_owned(), mode.to_owned()))
    };
    listed.lines().filter_map(file).collect()
}

#[test]
fn each_file_of_the_package_is_where_it_belongs() {
    let Some(folder) = package(&[]) else { return };
    let deb = folder.path().join("arc-relay.deb");
    let files = contents(&deb);
    for (file, mode) in [
        ("/usr/bin/arc-relay", "rwxr-xr-x"),
        ("/usr/lib/systemd/system/arc-relay.service", "rw-r--r--"),
        ("/etc/arc-relay/environment", "rw-------"),
        ("/usr/lib/sysctl.d/90-arc-relay.conf", "rw-r--r--"),
        ("/usr/share/man/man1/arc-relay.1.gz", "rw-r--r--"),
        ("/usr/share/bash-completion/completions/arc-relay", "rw-r--r--"),
        ("/usr/share/zsh/vendor-completions/_arc-relay", "rw-r--r--"),
        ("/usr/share/fish/vendor_completions.d/arc-relay.fish", "rw-r--r--"),
        ("/usr/share/doc/arc-relay/copyright", "rw-r--r--"),
        ("/usr/share/doc/arc-relay/README.md", "rw-r--r--"),
        ("/usr/share/doc/arc-relay/docs/operations.md", "rw-r--r--"),
        ("/usr/share/doc/arc-relay/deploy/README.md", "rw-r--r--"),
        ("/usr/share/doc/arc-relay/deploy/prometheus/alerts.yml", "rw-r--r--"),
        ("/usr/share/doc/arc-relay/deploy/grafana/arc-relay.json", "rw-r--r--"),
    ] {
        assert_eq!(files.get(file).map(String::as_str), Some(mode), "{file}: {files:#?}");
    }
    let pages = folder.path().join("man1");
    said(Command::new(arc_relay()).arg("man").arg(&pages));
    for page in fs::read_dir(&pages).expect("they were just written").flatten() {
        let page = page.file_name();
        let page = format!("/usr/share/man/man1/{}.gz", page.to_string_lossy());
        assert!(files.contains_key(&page), "a page for each command: {page}");
    }
}

#[test]
fn what_the_package_says_of_itself_is_true() {
    let Some(folder) = package(&["--maintainer", "Jo Doe <jo@example.com>"]) else { return };
    let deb = folder.path().join("arc-relay.deb");
    let field = |name: &str| {
        let said = said(Command::new("dpkg-deb").arg("--field").arg(&deb).arg(name));
        said.trim().to_owned()
    };
    assert_eq!(field("Package"), "arc-relay");
    assert!(field("Version").starts_with(env!("CARGO_PKG_VERSION")), "{}", field("Version"));
    assert!(field("Depends").contains("libc6 (>= "), "{}", field("Depends"));
    assert!(field("Description").starts_with("Relay for AI agents"), "{}", field("Description"));
    assert_eq!(field("Maintainer"), "Jo Doe <jo@example.com>");
    let unpacked = folder.path().join("unpacked");
    said(Command::new("dpkg-deb").arg("--extract").arg(&deb).arg(&unpacked));
    let copyright = fs::read_to_string(unpacked.join("usr/share/doc/arc-relay/copyright"));
    assert_eq!(copyright.expect("it is there"), text("debian/copyright"));
}

#[test]
fn what_cannot_be_packaged_is_said_in_a_line() {
    for (binary, why) in [
        (
            "/nowhere",
            "package.sh: no such file: /nowhere; cargo build --release --locked makes one",
        ),
        (
            "/usr/bin/false",
            "package.sh: /usr/bin/false does not run on this machine, or is no arc-relay",
        ),
    ] {
        let Some(mut script) = packaging(Path::new(binary)) else { return };
        let output = output(&mut script);
        let said = text_of(&output.stderr);
        assert!(!output.status.success() && said.trim() == why, "{binary}: {said}");
    }
}

#[test]
fn an_operator_installs_upgrades_and_removes_the_package_under_a_real_systemd() {
    if !geteuid().is_root() {
        return skip("only root can boot a machine");
    }
    let Some(folder) = package(&[]) else { return };
    systemd::walk("walk_package", folder.path());
}
