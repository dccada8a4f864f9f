#!/bin/sh
# Upgrades a cluster one node after the other, while its agents go on.
#
#   deploy/upgrade.sh systemd [--binary FILE] HOST...      nodes that install.sh has set up, reached by ssh
#   deploy/upgrade.sh compose [--file FILE] [SERVICE...]   services of a compose file, on this machine
#
# A node is replaced only while the cluster is whole as every node sees it: all there and linked, all that keep the
# names in step, so that one may be missed (`arc-relay health --whole`). It drains, is replaced, and the next one's turn
# comes when the cluster is whole again. What fails is put back as it was, and the script stops and says how things
# are. It may be broken off and run again: what is upgraded already is left as it is, and nothing is begun while a
# node is missed.
#
# Checked by tests/tests/deploy: shellcheck; three machines, each with a systemd of its own, upgraded by the installer
# while agents talk, to a release that is good and to one that does not start; and three nodes behind a stand-in for
# Docker, for there was no daemon where this was written.
set -eu

usage() {
    cat <<'USAGE'
usage: upgrade.sh systemd [--binary FILE] [--dry-run] [--patience SECONDS] HOST...
       upgrade.sh compose [--file FILE] [--pull] [--dry-run] [--patience SECONDS] [SERVICE...]

  HOST                as ssh knows it; its user is root, or may sudo without a password
  SERVICE             of the compose file [default: all]
  --binary FILE       the relay to install [default: target/release/arc-relay]
  --file FILE         the compose file [default: compose.cluster.yaml beside this script]
  --pull              pull the image instead of building it
  --dry-run           say how the cluster is and what would be done; change nothing
  --patience SECONDS  how long the cluster may take to be whole again after a node's restart [default: 120]
USAGE
}

say() {
    printf '%s\n' "$*"
}

fail() {
    printf 'upgrade.sh: %s\n' "$*" >&2
    exit 1
}

here=$(cd "$(dirname "$0")" && pwd)
way='' nodes='' binary='' file=$here/compose.cluster.yaml pull=no dry_run=no patience=120

case ${1:-} in
systemd | compose) way=$1; shift ;;
--help | -h) usage; exit 0 ;;
*) usage >&2; fail 'say which way: systemd or compose' ;;
esac
while [ $# -gt 0 ]; do
    case $1 in
    --binary | --file | --patience) [ $# -ge 2 ] || fail "$1 needs a value" ;;
    esac
    case $1 in
    --binary) binary=$2; shift ;;
    --file) file=$2; shift ;;
    --patience) patience=$2; shift ;;
    --pull) pull=yes ;;
    --dry-run) dry_run=yes ;;
    --help | -h) usage; exit 0 ;;
    -*) usage >&2; fail "unknown option: $1" ;;
    *[!A-Za-z0-9._@:-]*) fail "no name of a node: $1" ;;
    *) nodes="$nodes $1" ;;
    esac
    shift
done
case $patience in
'' | *[!0-9]*) fail "--patience is a number of seconds, not '$patience'" ;;
esac

# ---- by systemd: the installer, run by root's shell on each host

stage=/var/cache/arc-relay-upgrade
as_root="\$([ \"\$(id -u)\" = 0 ] || echo sudo -n)"

# By itself ssh waits for ever, for a host that does not answer and for one that has ceased to: so it ends after 10 s and
# 15 s, and says why.
reach() {
    ssh -o BatchMode=yes -o ConnectTimeout=10 -o ServerAliveInterval=5 -o ServerAliveCountMax=3 "$@"
}

# Has the host do one of the things that stand below; what it says comes back in one piece.
on_host() {
    {
        printf 'stage=%s wanted=%s\n' "$stage" "$wanted"
        cat <<'HOST'
program=/usr/local/bin/arc-relay
unit=/etc/systemd/system/arc-relay.service

find_relay() {
    pid=$(systemctl show --property=MainPID --value arc-relay)
    if [ "${pid:-0}" = 0 ]; then pid=none; fi
}

sum() {
    sha256sum <"$1" 2>/dev/null | cut -d ' ' -f 1
}

is_upgraded() {
    [ "$(sum "/proc/$pid/exe")" = "$wanted" ]
}

# Asked with the settings that it runs by. A relay can change what these and its program seem to be: so root runs
# nothing by them, but has the relay's user run what is installed. All can see a command's arguments: hence the pipe.
is_whole() {
    [ "$pid" != none ] || { echo 'it does not run: systemctl status arc-relay'; return 1; }
    cd "/proc/$pid/cwd" &&
        tr '\0' '\n' <"/proc/$pid/environ" | grep -E '^[A-Z_]+=' |
        setpriv --reuid=arc-relay --regid=arc-relay --clear-groups --no-new-privs env -i /bin/sh -c '
            while IFS= read -r setting; do
                case $setting in LD_* | PATH=*) ;; *) export "${setting?}" ;; esac
            done
            exec "$0" health --whole </dev/null' "$program"
}

# What a lost line has left going comes to its end first.
alone() {
    exec 9>"$stage/lock"
    flock --timeout 60 9 || { echo "another upgrade goes on there: $stage/lock"; return 1; }
    find_relay
}

# Keeps what is to be put back: whole and of this very upgrade, or not at all.
remember() {
    alone || return
    exec 3<"/proc/$pid/exe"
    source=$program
    # After a run that was broken off, what runs is no longer what is installed. It is kept only if root has installed it.
    case $(readlink /proc/self/fd/3) in
    "$program" | "$program (deleted)")
        if [ "$(stat --dereference --format %u /proc/self/fd/3)" = 0 ]; then source=/proc/self/fd/3; fi
        ;;
    esac
    rm -rf "$stage/former" "$stage/former.new" &&
        mkdir "$stage/former.new" &&
        cp "$source" "$stage/former.new/arc-relay" &&
        cp "$unit" "$stage/former.new/arc-relay.service" &&
        mv "$stage/former.new" "$stage/former"
}

replace() {
    alone || return
    # The installer restarts nothing that it finds in place, as it is after a run that was broken off.
    in_place=$(sum "$program")
    sh "$stage/install.sh" --binary "$stage/arc-relay" </dev/null >/dev/null &&
        if [ "$in_place" = "$wanted" ]; then systemctl restart --no-block arc-relay; fi
}

# Puts a file in its place, unless it is there: whole or not at all.
restore() {
    cmp -s "$2" "$3" || { install -m "$1" "$2" "$3.new" && mv -f "$3.new" "$3"; }
}

is_queued() {
    [ -n "$(systemctl list-jobs --no-legend arc-relay.service)" ]
}

put_back() {
    alone || return
    [ -d "$stage/former" ] || return 0 # nothing was begun
    restore 755 "$stage/former/arc-relay" "$program" &&
        restore 644 "$stage/former/arc-relay.service" "$unit" &&
        systemctl daemon-reload || return
    # If it was refused before anything was installed, it runs on.
    if is_queued || [ "$(sum "/proc/$pid/exe")" != "$(sum "$program")" ]; then
        systemctl restart --no-block arc-relay
    fi
}

find_relay
HOST
        printf '%s\n' "$2"
    } | reach "$1" "$as_root sh -s" 2>&1
}

# The same, of what may be done twice: as often as ssh itself fails (255), while patience lasts.
insist_on_host() {
    give_up_at=$(($(date +%s) + patience))
    while :; do
        status=0
        said=$(on_host "$1" "$2") || status=$?
        if [ "$status" != 255 ] || [ "$(date +%s)" -ge "$give_up_at" ]; then
            [ -z "$said" ] || say "$said"
            return "$status"
        fi
        sleep 1
    done
}

systemd_check() {
    [ "$pull" = no ] || fail '--pull goes with compose'
    [ -n "$nodes" ] || fail 'name each node by its host'
    : "${binary:=$here/../target/release/arc-relay}"
    [ -f "$binary" ] || fail "no such file: $binary"
    wanted=$(sha256sum <"$binary" | cut -d ' ' -f 1)
}

systemd_is_whole() {
    on_host "$1" is_whole
}

systemd_is_upgraded() {
    insist_on_host "$1" is_upgraded >/dev/null
}

# Copies the installer and what it installs to each host, for root alone.
systemd_prepare() {
    bundle=$(mktemp -d)
    cp "$binary" "$bundle/arc-relay"
    for part in install.sh arc-relay.service environment 90-arc-relay.conf README.md; do
        cp "$here/$part" "$bundle"
    done
    for host in $nodes; do
        tar --create --directory "$bundle" . |
            reach "$host" "$as_root sh -c 'mkdir -p -m 700 $stage && \
                tar --extract --no-same-owner --directory $stage && chmod 700 $stage'" ||
            { rm -r "$bundle"; fail "$host: nothing can be copied there; nothing is changed"; }
    done
    rm -r "$bundle"
}

systemd_remember() {
    on_host "$1" remember
}

systemd_replace() {
    on_host "$1" replace
}

systemd_confirm() {
    systemd_is_upgraded "$1"
}

systemd_start() {
    say "ssh $1 sudo systemctl restart arc-relay"
}

systemd_put_back() {
    insist_on_host "$1" put_back
}

# ---- by Docker Compose

composed() {
    docker compose --file "$file" "$@"
}

compose_check() {
    [ -z "$binary" ] || fail '--binary goes with systemd'
    [ -f "$file" ] || fail "no such file: $file"
    [ -n "$nodes" ] || nodes=$(composed config --services) || fail "$file: see above"
}

compose_is_whole() {
    composed exec -T "$1" arc-relay health --whole 2>&1
}

# Compose itself leaves alone what has neither a new image nor new settings.
compose_is_upgraded() {
    false
}

compose_prepare() {
    # shellcheck disable=SC2086 # names of services
    if [ "$pull" = yes ]; then
        composed pull $nodes
    else
        composed build $nodes
    fi || fail 'there is no new image: see above; nothing is changed'
}

# Of which image the container is, and by which name it asked for that.
compose_remember() {
    container=$(composed ps --quiet "$1") &&
        former=$(docker inspect --format '{{.Image}}' "$container") &&
        image=$(docker inspect --format '{{.Config.Image}}' "$container")
}

compose_replace() {
    composed up --detach --no-deps --no-build --wait --wait-timeout "$patience" "$1" 2>&1
}

# That it did, it has said.
compose_confirm() {
    :
}

compose_start() {
    say "docker compose --file $file up --detach --no-deps --no-build $1"
}

compose_put_back() {
    docker image tag "$former" "$image" 2>&1 &&
        composed up --detach --no-deps --no-build --wait --wait-timeout "$patience" "$1" 2>&1
}

# ---- either way

# Whether every node says that the cluster is whole; `answer` is what one that denies it says, or the last.
look() {
    for seen in $nodes; do
        if ! answer=$("${way}_is_whole" "$seen"); then
            answer="$seen: $(printf '%s' "$answer" | tail -n 1 | sed 's/^error: //')"
            return 1
        fi
    done
}

# Waits so many seconds until three looks one after the other are good.
is_whole_within() {
    until=$(($(date +%s) + $1)) good=0
    while :; do
        if look; then
            good=$((good + 1))
            [ "$good" -lt 3 ] || return 0
        else
            good=0
            [ "$(date +%s)" -lt "$until" ] || return 1
        fi
        sleep 1
    done
}

# Stops, with the node as it was before.
give_up() {
    say "   $2"
    say "   putting the former release back on $1"
    if answer=$("${way}_put_back" "$1") && is_whole_within "$patience"; then
        how='The former release is back there, and the cluster is whole.'
    else
        how="The former release could not be put back, or does not help ($answer): look there first; the others go on."
    fi
    fail "$1 was not upgraded: $2. $how Upgraded:${upgraded:- none}. Releases next to each other work together: \
mend what is wrong and run this again"
}

upgrade() {
    say "== $1"
    if "${way}_is_upgraded" "$1"; then
        say '   runs this release already'
        return
    fi
    is_whole_within 10 || fail "the cluster is not whole, so $1 is left as it is. $answer. Upgraded:${upgraded:- none}"
    "${way}_remember" "$1" || fail "$1: what runs there cannot be kept, so it is left as it is"
    said=$("${way}_replace" "$1") ||
        give_up "$1" "$(printf '%s' "${said:-it cannot be replaced}" | tail -n 1)"
    is_whole_within "$patience" || give_up "$1" "the cluster is not whole after $patience s ($answer)"
    "${way}_confirm" "$1" || give_up "$1" 'it is not seen to run the new release'
    say "   $answer"
    upgraded="${upgraded:-} $1"
}

break_off() {
    [ -n "$node" ] || fail 'broken off; nothing is changed'
    fail "broken off at $node, which may go on by itself. If it does not run in a while: $("${way}_start" "$node"). \
Upgraded:${upgraded:- none}. Run this again when the cluster is whole"
}

"${way}_check"
is_whole_within 10 || fail "the cluster is not whole, and nothing is changed. $answer. Mend that first"
say "$answer"
case $answer in
*'1 keeps the names') say 'only one node keeps the names: while it restarts, none can be registered' ;;
esac
if [ "$dry_run" = yes ]; then
    for node in $nodes; do
        if "${way}_is_upgraded" "$node"; then
            say "$node: runs this release already"
        else
            say "$node: would be drained and replaced"
        fi
    done
    exit 0
fi
upgraded='' node=''
trap break_off HUP INT TERM
"${way}_prepare"
for node in $nodes; do
    upgrade "$node"
done
say 'all are upgraded'
