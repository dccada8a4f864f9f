#!/bin/sh
# Installs arc-relay on a Linux machine with systemd; to upgrade, run it again with the new binary.
#
#   sudo deploy/install.sh                        what target/release has, or --binary FILE
#   sudo deploy/install.sh --uninstall            takes it away, and leaves data and settings
#   sudo deploy/install.sh --uninstall --purge    takes them away, too
#
# Run twice it does nothing the second time: settings that are there stay as they are, and a relay that runs
# is started again only if its binary or its unit has changed. Where there were no settings it starts nothing:
# a relay that has run alone once keeps names of its own, and is no use as one of several any more. It stops at
# the first thing that goes wrong; settings that the new binary would refuse are told before the old one is stopped.
#
# Checked by tests/tests/deploy: shellcheck; installed twice, upgraded and taken away below a folder of the
# test's own (--root); and all of it, by tests/systemd/walk, under a systemd 252 (Debian 12) that is started for it.
set -eu
umask 022

usage() {
    cat <<'USAGE'
usage: install.sh [--binary FILE] [--root DIR]
       install.sh --uninstall [--purge] [--yes] [--root DIR]

  --binary FILE  the relay to install [default: target/release/arc-relay, or ./arc-relay]
  --uninstall    stop it and take it away; data and settings stay
  --purge        with --uninstall: data and settings too, and the user
  --yes          do not ask
  --root DIR     below DIR instead of /: files only, no user, no service
USAGE
}

fail() {
    echo "install.sh: $*" >&2
    exit 1
}

say() {
    echo "$*"
}

binary='' root='' uninstall=no purge=no yes=no
while [ $# -gt 0 ]; do
    case $1 in
    --binary) [ $# -ge 2 ] || fail '--binary needs a file'; binary=$2; shift ;;
    --root) [ $# -ge 2 ] || fail '--root needs a folder'; root=${2%/}; shift ;;
    --uninstall) uninstall=yes ;;
    --purge) purge=yes ;;
    --yes | -y) yes=yes ;;
    --help | -h) usage; exit 0 ;;
    *) usage >&2; fail "unknown option: $1" ;;
    esac
    shift
done
[ "$purge" = no ] || [ "$uninstall" = yes ] || fail '--purge goes with --uninstall'

here=$(cd "$(dirname "$0")" && pwd)
program=$root/usr/local/bin/arc-relay
unit=$root/etc/systemd/system/arc-relay.service
sysctl=$root/etc/sysctl.d/90-arc-relay.conf
settings=$root/etc/arc-relay
data=$root/var/lib/arc-relay
share=$root/usr/local/share
documents=$share/doc/arc-relay

# With --root nothing but files is touched.
whole_system() {
    [ -z "$root" ]
}

if whole_system; then
    [ "$(id -u)" -eq 0 ] || fail 'must be run as root: sudo deploy/install.sh'
    [ -d /run/systemd/system ] || fail 'systemd does not run here; --root DIR installs files only'
    if [ -e /usr/lib/systemd/system/arc-relay.service ]; then
        fail 'the Debian package is installed: use apt, or remove that first (apt remove arc-relay)'
    fi
fi

# Asks before what cannot be undone; without a terminal only --yes is a yes.
confirm() {
    [ "$yes" = yes ] && return
    [ -t 0 ] || fail "$1: say --yes"
    printf '%s? [y/N] ' "$1"
    read -r answer
    case $answer in y | Y | yes) ;; *) fail 'nothing was done' ;; esac
}

remove_all() {
    if [ "$purge" = yes ]; then
        confirm "Remove arc-relay, all names and tokens in $data, and the settings in $settings"
    else
        confirm "Remove arc-relay; $data and $settings stay"
    fi
    if whole_system && [ -e "$unit" ]; then
        systemctl disable --quiet --now arc-relay
    fi
    rm -f "$program" "$unit" "$sysctl"
    rm -f "$share/bash-completion/completions/arc-relay" "$share/zsh/site-functions/_arc-relay" \
        "$share/fish/vendor_completions.d/arc-relay.fish" "$share"/man/man1/arc-relay*.1
    rm -rf "$documents" "$root/var/cache/arc-relay-upgrade"
    if whole_system; then
        systemctl daemon-reload
    fi
    if [ "$purge" = yes ]; then
        rm -rf "$data" "$settings" "$unit.d"
        if whole_system && getent passwd arc-relay >/dev/null; then
            userdel arc-relay
        fi
        say 'arc-relay is removed, with all that it kept.'
    else
        say "arc-relay is removed. What it kept is still there: $data, $settings."
    fi
}

# The relay to install, which must run here.
find_binary() {
    if [ -z "$binary" ]; then
        for candidate in "$here/../target/release/arc-relay" "$here/arc-relay" ./arc-relay; do
            if [ -f "$candidate" ]; then
                binary=$candidate
                break
            fi
        done
    fi
    [ -n "$binary" ] || fail 'no binary: cargo build --release --locked, or name one by --binary FILE'
    [ -f "$binary" ] || fail "no such file: $binary"
    version=$("$binary" --version 2>&1) ||
        fail "$binary does not run on this machine: $(echo "$version" | head -n 1)"
    version=$(echo "$version" | head -n 1)
    case $version in
    'arc-relay '*) ;;
    *) fail "$binary is no arc-relay: it says it is $version" ;;
    esac
}

# Installs a file unless it is there as it should be; `changed` tells.
changed=no
put() {
    mode=$1 source=$2 target=$3
    if ! cmp -s "$source" "$target"; then
        mkdir -p "$(dirname "$target")"
        # Whole or not at all, also while the old binary runs.
        install -m "$mode" "$source" "$target.new"
        mv -f "$target.new" "$target"
        changed=yes
        say "installed $target"
    fi
}

# What the binary knows of its commands: for man, and for shells.
put_manual() {
    scratch=$(mktemp -d)
    trap 'rm -rf "$scratch"' EXIT
    for shell in bash zsh fish; do
        "$binary" completions "$shell" >"$scratch/$shell"
    done
    put 644 "$scratch/bash" "$share/bash-completion/completions/arc-relay"
    put 644 "$scratch/zsh" "$share/zsh/site-functions/_arc-relay"
    put 644 "$scratch/fish" "$share/fish/vendor_completions.d/arc-relay.fish"
    "$binary" man "$scratch/man1" >"$scratch/said"
    mkdir -p "$share/man/man1"
    # Those of commands that are no more go.
    rm -f "$share"/man/man1/arc-relay*.1
    install -m 644 "$scratch"/man1/*.1 "$share/man/man1"
}

make_user() {
    if whole_system && ! getent passwd arc-relay >/dev/null; then
        useradd --system --user-group --home-dir /var/lib/arc-relay --no-create-home \
            --shell /usr/sbin/nologin arc-relay
        say 'made the user arc-relay'
    fi
}

make_folders() {
    mkdir -p "$settings" "$data"
    chmod 755 "$settings"
    chmod 700 "$data"
    if whole_system; then
        chown arc-relay:arc-relay "$data"
    fi
    if [ ! -e "$settings/environment" ]; then
        install -m 600 "$here/environment" "$settings/environment"
        say "installed $settings/environment"
    fi
}

make_room_for_packets() {
    before=$changed
    put 644 "$here/90-arc-relay.conf" "$sysctl"
    changed=$before # for the next start of the mesh's socket, not worth a restart
    if whole_system && ! sysctl --quiet --load "$sysctl" 2>/dev/null; then
        say 'the socket buffers cannot be set here: in a container they are set on its host'
    fi
}

# Asks the binary that is to run about the settings that it will have, read as systemd reads them. Among them are
# secrets, and everybody sees a command's arguments: so a shell reads them, and hands them on in its environment.
check_settings() {
    candidate=$(realpath "$binary")
    (
        cd "$settings" && env -i HOST=127.0.0.1 NODE_ENV=production DATA_DIR=/var/lib/arc-relay \
            /bin/sh -s "$candidate" 3<environment >/dev/null <<'READ'
while read -r line || [ -n "$line" ]; do
    case $line in
    *=\"*\" | *=\'*\') line=${line%?}; line=${line%%=*}=${line#*=?} ;;
    esac
    case ${line%%=*} in
    "$line" | '' | [0-9]* | *[!A-Za-z0-9_]*) ;; # no setting, which systemd passes by
    *) export "$line" ;;
    esac
done <&3
exec "$1" --check-config 3<&- </dev/null
READ
    ) || fail "mend $settings/environment and run this again: nothing is installed or restarted yet"
}

# Starts what was put in place of something that ran, or is new and has settings.
start_relay() {
    systemctl daemon-reload
    if [ "$is_new" = yes ]; then
        systemctl enable --quiet arc-relay
    elif ! systemctl is-active --quiet arc-relay; then
        say 'it does not run, and is left so: systemctl enable --now arc-relay'
        return
    elif [ "$changed" = no ]; then
        say "nothing has changed: $version runs"
        return
    fi
    # A first start waits until all seeds are there, and this script must not.
    systemctl restart --no-block arc-relay
    for _ in 1 2 3 4 5 6 7 8 9 10; do
        sleep 1
        state=$(systemctl show --property=SubState --value arc-relay)
        case $state in
        running) break ;;
        auto-restart | failed | dead)
            journalctl --unit arc-relay --lines 5 --output cat >&2 || true
            fail 'the relay does not start: see above, and journalctl -u arc-relay'
            ;;
        esac
    done
    say "$version, $state: $(systemctl show --property=StatusText --value arc-relay)"
}

say_what_next() {
    cat <<NEXT

Next:
  settings      $settings/environment: how agents reach it, and the other nodes if there are any
NEXT
    if [ "$has_settings" = no ]; then
        echo '  start         systemctl enable --now arc-relay'
    fi
    cat <<'NEXT'
  after changes systemctl restart arc-relay
  how it is     systemctl status arc-relay; arc-relay status
  log           journalctl -u arc-relay -f
  firewall      443 and 80/tcp for agents, 7946/udp between nodes: deploy/README.md
  more          man arc-relay; arc-relay doctor --help: what is wrong with the machine or the settings
NEXT
}

if [ "$uninstall" = yes ]; then
    remove_all
    exit 0
fi
find_binary
is_new=yes has_settings=no
if [ -e "$unit" ]; then
    is_new=no
fi
if [ -e "$settings/environment" ]; then
    has_settings=yes
    check_settings
fi
make_user
make_folders
make_room_for_packets
put 644 "$here/README.md" "$documents/README.md"
put_manual
changed=no # so far nothing that the relay runs by
put 755 "$binary" "$program"
put 644 "$here/arc-relay.service" "$unit"
if whole_system && [ "$has_settings" = yes ]; then
    start_relay
elif whole_system; then
    systemctl daemon-reload
fi
say_what_next
