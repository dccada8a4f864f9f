//! The shell scripts: held against shellcheck, and the installer run below a folder of the test's own.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use tests::{arc_relay, repository, skip};

use crate::{
    files::{has, output, path, said, text_of},
    upgrade::write_program,
};

fn install(root: &Path, arguments: &[&str]) -> Output {
    output(Command::new(path("install.sh")).arg("--root").arg(root).args(arguments))
}

fn installed(root: &Path) -> Vec<String> {
    let mut find = Command::new("find");
    let listed = said(find.arg(root).args(["-type", "f", "-printf", "%P %m\\n"]));
    let mut files: Vec<String> = listed.lines().map(str::to_owned).collect();
    files.sort();
    files
}

#[test]
fn shellcheck_finds_nothing() {
    if !has("shellcheck") {
        return skip("no shellcheck (package shellcheck)");
    }
    let mut listed = Command::new("git");
    listed.args(["grep", "-lE", "^#!/bin/(ba)?sh|^# shellcheck shell=", "--", ":!*.md"]);
    listed.current_dir(repository());
    let scripts: Vec<PathBuf> =
        said(&mut listed).lines().map(|line| repository().join(line)).collect();
    assert!(scripts.contains(&path("install.sh")), "{scripts:?}");
    said(Command::new("shellcheck").args(scripts));
}

#[test]
fn the_installer_can_be_run_twice_upgrades_and_leaves_no_trace() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let (root, binary) =
        (folder.path().join("root"), arc_relay().to_str().expect("a path is text"));
    let run = |arguments: &[&str]| {
        let output = install(&root, arguments);
        assert!(output.status.success(), "{}", text_of(&output.stderr));
        text_of(&output.stdout)
    };
    let first = run(&["--binary", binary]);
    assert!(first.contains("systemctl enable --now arc-relay"), "nothing is started: {first}");
    let is_page = |file: &String| {
        file.starts_with("usr/local/share/man/man1/arc-relay") && file.ends_with(".1 644")
    };
    let (pages, others): (Vec<_>, Vec<_>) = installed(&root).into_iter().partition(is_page);
    assert!(pages.len() > 20, "a page for each command: {pages:?}");
    assert_eq!(
        others,
        [
            "etc/arc-relay/environment 600",
            "etc/sysctl.d/90-arc-relay.conf 644",
            "etc/systemd/system/arc-relay.service 644",
            "usr/local/bin/arc-relay 755",
            "usr/local/share/bash-completion/completions/arc-relay 644",
            "usr/local/share/doc/arc-relay/README.md 644",
            "usr/local/share/fish/vendor_completions.d/arc-relay.fish 644",
            "usr/local/share/zsh/site-functions/_arc-relay 644",
        ]
    );
    let data = root.join("var/lib/arc-relay");
    assert_eq!(fs::metadata(&data).expect("it is there").permissions().mode() & 0o777, 0o700);

    let settings = root.join("etc/arc-relay/environment");
    fs::write(&settings, "TOKEN_TTL=\"90d\"\n").expect("the operator may");
    fs::write(data.join("names"), "alice").expect("the relay may");
    assert!(!run(&["--binary", binary]).contains("installed "), "the second time nothing is done");
    let unit = root.join("etc/systemd/system/arc-relay.service");
    fs::write(&unit, "of an older release").expect("a test may");
    assert!(run(&["--binary", binary]).contains("installed "), "an upgrade");
    assert_eq!(fs::read_to_string(&settings).expect("it is there"), "TOKEN_TTL=\"90d\"\n");

    run(&["--uninstall", "--yes"]);
    assert_eq!(installed(&root), ["etc/arc-relay/environment 600", "var/lib/arc-relay/names 644"]);
    run(&["--uninstall", "--purge", "--yes"]);
    assert_eq!(installed(&root), [""; 0]);
}

#[test]
fn the_installer_shows_no_secret_among_a_commands_arguments() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let (root, seen) = (folder.path().join("root"), folder.path().join("seen"));
    let settings = root.join("etc/arc-relay");
    fs::create_dir_all(&settings).expect("a test may");
    let secret = tests::cluster::new_secret();
    let text = format!("# mine\nCLUSTER_SECRET='{secret}'\n  NODE_NAME=relay-1\nnonsense\nA-B=\n");
    fs::write(settings.join("environment"), text).expect("a test may");
    // What the installer runs to give a program other variables, and the relay, both say what they are given.
    let watched = format!("#!/bin/sh\necho \"$@\" >>'{}'\n", seen.display());
    let programs = folder.path().join("programs");
    fs::create_dir(&programs).expect("a test writes into its folder");
    write_program(&programs.join("env"), (watched.clone() + "exec /usr/bin/env \"$@\"").as_bytes());
    let relay = folder.path().join("arc-relay");
    let says = "[ $1 != --check-config ] || echo \"asked about $CLUSTER_SECRET and $NODE_NAME\" >&2\nexec ";
    write_program(&relay, format!("{watched}{says}{} \"$@\"\n", arc_relay().display()).as_bytes());
    let before = std::env::var("PATH").unwrap_or_default();
    let mut installer = Command::new(path("install.sh"));
    installer.env("PATH", format!("{}:{before}", programs.display()));
    let output = output(installer.arg("--root").arg(&root).arg("--binary").arg(&relay));
    let said = text_of(&output.stderr);
    assert!(
        output.status.success() && said.contains(&format!("asked about {secret} and relay-1")),
        "{said}"
    );
    let seen = fs::read_to_string(&seen).expect("it was watched");
    assert!(seen.contains("--check-config") && !seen.contains("arcs_"), "{seen}");
}

#[test]
fn what_the_installer_will_not_do_it_says_in_a_line() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let root = folder.path();
    let binary = arc_relay().to_str().expect("a path is text");
    fs::create_dir_all(root.join("etc/arc-relay")).expect("a test may");
    fs::write(root.join("etc/arc-relay/environment"), "# mine\nPORT='http'\n").expect("a test may");
    for (arguments, why) in [
        (&["--binary", binary][..], "environment and run this again: nothing is installed"),
        (&["--binary", "/bin/true"], "/bin/true is no arc-relay: "),
        (&["--binary", "/nowhere"], "no such file: /nowhere"),
        (&["--uninstall"], ": say --yes"),
        (&["--purge"], "--purge goes with --uninstall"),
        (&["--frob"], "unknown option: --frob"),
    ] {
        let output = install(root, arguments);
        let said = text_of(&output.stderr);
        assert!(!output.status.success() && said.contains(why), "{arguments:?}: {said}");
        assert_eq!(installed(root), ["etc/arc-relay/environment 644"], "{arguments:?}");
    }
}
