//! The container image: its Dockerfile by the rules that hadolint has for what is in it, and what its second
//! stage is made of, made here without Docker.

use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
};

use rustix::process::geteuid;
use tempfile::TempDir;
use tests::{arc_relay, cluster::loopback_address, eventually, http, measured, repository, skip};

use crate::files::{assert_settings, assignments, default, has, output, path, said, text};

/// The image's size, in bytes, is to be below this, with a release of the relay.
const IMAGE_BYTES_MAX: u64 = 60_000_000;

/// A release of the relay is below this.
const RELEASE_BYTES_MAX: u64 = 30_000_000;

/// The Dockerfile's instructions, each on one line, without comments.
fn instructions() -> Vec<String> {
    let lines: Vec<String> = text("Dockerfile").lines().map(str::to_owned).collect();
    let code = lines.iter().filter(|line| !line.starts_with('#') && !line.is_empty());
    let joined = code.fold(String::new(), |all, line| match line.strip_suffix('\\') {
        Some(start) => all + start,
        None => all + line + "\n",
    });
    joined.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}

/// What follows the one instruction of that name in the second stage.
fn last_stage(name: &str) -> String {
    let all = instructions();
    let from = all.iter().rposition(|line| line.starts_with("FROM ")).expect("there are stages");
    let named: Vec<&str> = all[from..].iter().filter_map(|l| l.strip_prefix(name)).collect();
    assert_eq!(named.len(), 1, "one {name} in the image: {named:?}");
    named[0].trim().to_owned()
}

/// What the image sets.
pub(crate) fn environment() -> Vec<(String, String)> {
    assignments(&last_stage("ENV ").replace(' ', "\n"))
}

/// The ports that it says it has, as `8443/tcp`.
pub(crate) fn ports() -> Vec<String> {
    last_stage("EXPOSE ").split(' ').map(str::to_owned).collect()
}

#[test]
fn the_dockerfile_is_a_good_one() {
    let all = instructions();
    let starting = |name: &str| all.iter().filter(|line| line.starts_with(name)).count();
    // hadolint's DL3006, DL3007, DL3048 and their like: versions are named, nothing is fetched by hand.
    let stages: Vec<&String> = all.iter().filter(|line| line.starts_with("FROM ")).collect();
    assert_eq!(stages, ["FROM rust:1.95-bookworm AS build", "FROM scratch"]);
    let rust = env!("CARGO_PKG_RUST_VERSION");
    assert!(stages[0].contains(&format!("rust:{rust}-")), "the Rust that the workspace needs");
    for banned in ["ADD ", "MAINTAINER ", "sudo ", ":latest", "apt-get upgrade", "curl ", "wget "] {
        assert!(!all.iter().any(|line| line.contains(banned)), "{banned}");
    }
    // DL3025 and DL4003 to DL4006: one of each, as lists, for there is no shell.
    for single in ["ENTRYPOINT [", "HEALTHCHECK ", "USER ", "STOPSIGNAL SIGTERM"] {
        assert_eq!(starting(single), 1, "{single}");
    }
    assert!(last_stage("HEALTHCHECK ").ends_with("CMD [\"/usr/bin/arc-relay\", \"health\"]"));
    // DL3002: the last user is not root, and a number, so that Kubernetes can tell.
    let user = last_stage("USER ");
    let (user, group) = user.split_once(':').expect("user and group");
    assert!(user.parse::<u32>().is_ok_and(|user| user > 0) && group == user);
    assert!(text("image_root.sh").contains(&format!("user={user}\n")), "whose the data is");
    let version = concat!("org.opencontainers.image.version=\"", env!("CARGO_PKG_VERSION"), "\"");
    assert!(last_stage("LABEL ").contains(version), "this release: {version}");
    let secret = all.iter().any(|line| line.contains("SECRET") || line.contains("_KEY"));
    assert!(!secret, "no secrets in an image");
}

#[test]
fn its_settings_ports_and_paths_are_the_relays() {
    let set = environment();
    assert_settings("the image", set.iter().map(|(name, _)| name.as_str()));
    let value = |name: &str| {
        let own = set.iter().find(|(known, _)| known == name);
        own.map_or_else(|| default(name).to_owned(), |(_, value)| value.clone())
    };
    let exposed =
        [("TLS_PORT", "tcp"), ("HTTP_PORT", "tcp"), ("STATS_PORT", "tcp"), ("MESH_PORT", "udp")];
    assert_eq!(ports(), exposed.map(|(name, over)| format!("{}/{over}", value(name))));
    for port in ["TLS_PORT", "HTTP_PORT", "PORT"] {
        assert!(value(port).parse::<u16>().is_ok_and(|port| port >= 1_024), "{port} needs no root");
    }
    assert_eq!(last_stage("VOLUME "), format!("[\"{}\"]", value("DATA_DIR")));
    assert_eq!(last_stage("WORKDIR "), value("DATA_DIR"));
}

#[test]
fn what_is_sent_to_docker_is_enough_to_build_from() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let ignored = fs::read_to_string(repository().join(".dockerignore")).expect("it is there");
    let mut kept = ignored.lines().filter_map(|line| line.strip_prefix('!')).collect::<Vec<_>>();
    kept.retain(|line| !line.contains('*'));
    let mut copy = Command::new("sh");
    let script = r#"git ls-files -z --cached --others --exclude-standard -- "$@" | tar -cf - --null -T - | tar -xf - -C "$0""#;
    copy.current_dir(repository()).args(["-c", script]).arg(folder.path()).args(&kept);
    said(&mut copy);
    // What the manifests name is there, and the lock file is whole.
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["metadata", "--format-version=1", "--locked", "--offline", "--no-deps"]);
    said(cargo.current_dir(folder.path()));
    let sources = folder.path().join("node/src/main.rs");
    assert!(sources.exists() && folder.path().join("deploy/image_root.sh").exists());
    assert!(folder.path().join("docs/protocol.md").exists(), "the landing page links to it");
    assert!(!folder.path().join("README.md").exists(), "what does not belong there stays away");
}

/// The image's file system, made here; none, and said so, where it cannot be.
fn image() -> Option<TempDir> {
    if !geteuid().is_root() {
        skip("only root can make the image's file system");
        return None;
    }
    if ["dpkg", "ldd", "unshare", "chroot"].into_iter().any(|tool| !has(tool)) {
        skip("no dpkg, ldd, unshare or chroot: this is no Debian");
        return None;
    }
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    said(Command::new(path("image_root.sh")).arg(arc_relay()).arg(folder.path()));
    Some(folder)
}

/// A command in the image, as its user, without rights, the file system read-only but for the volume.
fn inside(image: &Path, environment: &[(String, String)], program: &str) -> Command {
    let mut command = Command::new("unshare");
    let script = "mount --bind \"$0\" \"$0\" && \
                  mount --bind \"$0/var/lib/arc-relay\" \"$0/var/lib/arc-relay\" && \
                  mount -o remount,ro,bind \"$0\" && \
                  exec setpriv --no-new-privs --bounding-set -all,+sys_chroot,+setuid,+setgid \
                  chroot --userspec=65532:65532 \"$0\" \"$@\"";
    command.args(["--mount", "sh", "-c", script]).arg(image).args(program.split(' '));
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command.envs(environment.iter().cloned());
    command
}

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn the_relay_runs_with_nothing_but_what_is_in_the_image() {
    let Some(folder) = image() else { return };
    let image = folder.path();
    let address = loopback_address();
    let mut set = environment();
    set.retain(|(name, _)| name != "STATS_HOST");
    for (name, value) in [("HOST", address.to_string()), ("STATS_HOST", address.to_string())] {
        set.push((name.to_owned(), value));
    }
    let refused = output(&mut inside(image, &environment(), "/usr/bin/arc-relay --check-config"));
    assert_eq!(refused.status.code(), Some(2), "without TLS it is not for the public");
    set.push(("TLS_SELF_SIGNED".to_owned(), "true".to_owned()));
    let mut command = inside(image, &set, "/usr/bin/arc-relay");
    let running = command.stdout(Stdio::null()).spawn().expect("it can be run");
    let _running = Killed(running);
    eventually("it is healthy, as Docker asks", async || {
        let mut health = inside(image, &set, "/usr/bin/arc-relay health");
        health.stderr(Stdio::null());
        health.status().expect("it can be run").success()
    })
    .await;
    http::get((address, 8081).into(), "/ready").await.expect_status(200);
}

#[test]
fn the_image_is_small() {
    let Some(folder) = image() else { return };
    let mut listed = Command::new("find");
    listed.arg(folder.path()).args(["-type", "f", "!", "-name", "arc-relay", "-printf", "%s\\n"]);
    let others: u64 = said(&mut listed).lines().filter_map(|line| line.parse::<u64>().ok()).sum();
    measured(&format!("the image without the relay: {others} bytes"));
    assert!(others + RELEASE_BYTES_MAX < IMAGE_BYTES_MAX);
    let profile = arc_relay().parent().expect("it lies in a folder");
    if profile.ends_with("release") {
        let release = fs::metadata(arc_relay()).expect("it is there").len();
        assert!(release < RELEASE_BYTES_MAX, "the relay has {release} bytes");
    }
}
