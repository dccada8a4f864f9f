//! The Debian package's recipe, in the relay's own manifest.

use std::process::Command;

use serde_json::Value;
use tests::repository;

use crate::files::{path, said, text};

fn recipe() -> Value {
    let args = ["metadata", "--format-version", "1", "--locked", "--no-deps"];
    let metadata = said(Command::new(env!("CARGO")).args(args).current_dir(repository()));
    let metadata: Value = serde_json::from_str(&metadata).expect("cargo writes JSON");
    let packages = metadata["packages"].as_array().expect("a list");
    let node = packages.iter().find(|package| package["name"] == "node").expect("the relay's");
    node["metadata"]["deb"].clone()
}

#[test]
fn each_file_of_the_package_is_there_and_goes_where_it_belongs() {
    let recipe = recipe();
    let assets = recipe["assets"].as_array().expect("a list");
    let mut targets = Vec::new();
    for asset in assets {
        let [source, folder, mode] = [0, 1, 2].map(|n| asset[n].as_str().expect("it is text"));
        let found = source == "target/release/arc-relay" || {
            let source = repository().join("node").join(source.trim_end_matches("/*.md"));
            source.exists()
        };
        assert!(found, "{source}");
        let name = source.rsplit('/').next().expect("a path has an end");
        targets.push(format!("{folder}{name} {mode}"));
    }
    for needed in [
        "usr/bin/arc-relay 755",
        "lib/systemd/system/arc-relay.service 644",
        "etc/arc-relay/environment 600",
        "usr/lib/sysctl.d/90-arc-relay.conf 644",
    ] {
        assert!(targets.iter().any(|target| target == needed), "{needed}: {targets:?}");
    }
    let settings = recipe["conf-files"].as_array().expect("a list");
    assert_eq!(settings.len(), 1, "what the operator edits survives upgrades");
    assert_eq!(settings[0], "/etc/arc-relay/environment");
}

#[test]
fn its_scripts_are_for_the_same_user_and_folders_as_the_unit() {
    assert_eq!(recipe()["maintainer-scripts"], "../deploy/debian/");
    let unit = text("arc-relay.service");
    assert!(unit.contains("User=arc-relay\n") && unit.contains("StateDirectory=arc-relay\n"));
    for script in ["debian/postinst", "debian/prerm", "debian/postrm"] {
        let text = text(script);
        assert!(text.contains("set -e\n"), "{script}");
        let mode = std::fs::metadata(path(script)).expect("it is there").permissions();
        assert_eq!(std::os::unix::fs::PermissionsExt::mode(&mode) & 0o111, 0o111, "{script}");
    }
    assert!(text("debian/postinst").contains("-m 700 /var/lib/arc-relay"));
    assert!(text("debian/postrm").contains("rm -rf /var/lib/arc-relay /etc/arc-relay"));
}
