#!/bin/sh
# Makes the Debian package of a relay that is built: target/debian/arc-relay_VERSION_ARCHITECTURE.deb.
#
#   deploy/package.sh [--binary FILE] [--output PATH] [OPTION...]
#
# The binary is target/release/arc-relay if none is named. Further options are those of `cargo deb`, such as
# --maintainer 'Jo Doe <jo@example.com>' and --deb-revision 2. What goes where is in node/Cargo.toml, under
# package.metadata.deb; manual pages and completions are what the binary itself says of its commands, so it must run on
# this machine.
#
# Checked by tests/tests/deploy: shellcheck; with cargo-deb 3.8.0 it makes a package of the relay under test, whose files
# are where they belong, and which dpkg installs, upgrades and removes under a systemd 252 (Debian 12).
set -eu
umask 022

fail() {
    echo "package.sh: $*" >&2
    exit 1
}

repository=$(cd "$(dirname "$0")/.." && pwd)
binary=$repository/target/release/arc-relay
output=$repository/target/debian/
left=$#
while [ "$left" -gt 0 ]; do
    case $1 in
    --binary | --output) [ "$left" -ge 2 ] || fail "$1 needs a path"; left=$((left - 1)) ;;
    esac
    case $1 in
    --binary) binary=$(realpath "$2"); shift ;;
    --output) output=$(realpath "$2"); shift ;;
    # Not this script's: to the end, so that in the end these are left.
    *) set -- "$@" "$1" ;;
    esac
    shift
    left=$((left - 1))
done
[ -f "$binary" ] || fail "no such file: $binary; cargo build --release --locked makes one"
cargo deb --version >/dev/null 2>&1 || fail 'no cargo-deb: cargo install cargo-deb --locked'

# As cargo would leave it, were it to build these files: `target/release` in the manifest is this.
built=$(mktemp -d)
trap 'rm -rf "$built"' EXIT
mkdir -p "$built/release/completions"
cp "$binary" "$built/release/arc-relay"
"$binary" man "$built/release/man1" >/dev/null || fail "$binary does not run on this machine, or is no arc-relay"
gzip -9n "$built"/release/man1/*
for shell in bash zsh fish; do
    "$binary" completions "$shell" >"$built/release/completions/$shell"
done

cd "$repository"
CARGO_TARGET_DIR=$built cargo deb --package node --no-build --locked --output "$output" "$@"
