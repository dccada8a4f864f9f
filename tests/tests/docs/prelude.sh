# What the marks in the documents may use, and what stands behind their commands. Read by bash before a page.
# shellcheck shell=bash
set -eEuo pipefail

at=start
listeners=()
nodes=()
beside=none
data=arc-data
trap 'echo "FAILED at $at: $BASH_COMMAND"; tail -n 25 ./*.log 2>/dev/null || true' ERR

# Tries a command ten times a second for half a minute.
until_works() {
    local n
    for ((n = 0; n < 300; n++)); do
        if "$@" >/dev/null 2>&1; then
            return
        fi
        sleep 0.1
    done
    echo "waited half a minute in vain for: $*"
    return 1
}

# The page's reader has built it; the test has, too.
cargo() {
    case "$1 ${2:-}" in
    'run --release') exec arc-relay "${@:3}" ;;
    'build --release') ;;
    *) echo "cargo $*: not known here"; return 1 ;;
    esac
}

# The reader says yes to what it asks.
arc-relay() {
    local said=$HOME/said.$BASHPID
    case "$BASHPID ${1:-}" in
    "$$ agents" | "$$ cluster" | "$$ drain" | "$$ restore" | "$$ backup") ;;
    # What it finds wrong is this machine's business.
    "$$ doctor") command arc-relay "$@" || [ $? = 1 ]; return ;;
    "$$ "*) command arc-relay "$@"; return ;;
    *) exec arc-relay "$@" ;; # in a process of its own, which may be ended
    esac
    if command arc-relay "$@" 2>"$said"; then
        return
    elif grep -q -e '--yes' "$said"; then
        command arc-relay "$@" --yes
    else
        cat "$said" >&2
        return 1
    fi
}

sudo() {
    "$@"
}

curl() {
    command curl --no-progress-meter --fail-with-body "$@"
}

# Agents that are connected to the nodes of this page.
connections() {
    local port sum=0 said
    for port in $(ss -ltnH | sed -E 's/^[^ ]+ +[0-9]+ +[0-9]+ +[^ ]*:([0-9]+) .*/\1/'); do
        said=$(command curl --silent --max-time 2 "http://localhost:$port/stats" |
            grep -o '"node":{[^}]*' | grep -o '"active_connections":[0-9]*' || true)
        said=${said##*:}
        sum=$((sum + ${said:-0}))
    done
    echo "$sum"
}

more_connections() {
    [ "$(connections)" -gt "$connected" ]
}

# Runs what goes on until Ctrl-C, and ends it so.
for_a_moment() {
    local status=0
    timeout --signal=INT 3 bash -c "$1" || status=$?
    [ "$status" = 124 ]
}

before_listener() {
    connected=$(connections)
}

begun() {
    nodes+=("$1")
}

after_listener() {
    listeners+=("$1")
    until_works more_connections
}

# Runs `beside`, which the page has just said, until the end; goes on when that command succeeds.
begin_beside() {
    set -m # a group of processes of its own
    beside >>beside.log 2>&1 &
    beside=$!
    set +m
    # shellcheck disable=SC2086 # a command and its words
    until_works bash -c "$1"
}

end_beside() {
    if [ "$beside" != none ]; then
        kill -- "-$beside" 2>/dev/null || true
        until_works beside_is_over
        beside=none
    fi
}

beside_is_over() {
    ! kill -0 -- "-$beside"
}

# An empty folder, no node, and nothing set.
fresh() {
    conclude
    unset CLUSTER_SECRET SEEDS MESH_HOST NODE_ENV
    cd "$(mktemp -d "$HOME/XXXXXX")"
    data=arc-data
    provide
}

# What stands in a checkout.
provide() {
    mkdir -p target/release
    ln -sf "$(type -P arc-relay)" target/release/arc-relay
    ln -sfn "$REPOSITORY/docs" docs
    ln -sfn "$REPOSITORY/deploy" deploy
}

# A relay that is alone, on the ports that the documents name, and agents of these names with a token each.
relay() {
    local name
    export CLUSTER_SECRET
    CLUSTER_SECRET=$(arc-relay secret)
    arc-relay --data-dir "$data" >>relay.log 2>&1 &
    nodes+=("$!")
    until_works arc-relay health
    for name in "$@"; do
        arc-relay agent register "$name" --save "$name.token"
    done
}

# Three nodes that are one relay, the first on the usual ports and with its data in $1.
cluster() {
    conclude
    data=${1:-$data}
    rm -rf "$data" node-2 node-3
    export SEEDS=127.0.0.1:7946,127.0.0.1:7947,127.0.0.1:7948 MESH_HOST=127.0.0.1 CLUSTER_SECRET
    CLUSTER_SECRET=$(arc-relay secret)
    node 1
    node 2
    node 3
    until_works arc-relay health --whole
}

# As many nodes as there are names, which lead to addresses of their own; the first three keep the names.
named() {
    local n=0 name home
    export CLUSTER_SECRET SEEDS="$1:7946,$2:7946,$3:7946"
    CLUSTER_SECRET=$(arc-relay secret)
    for name in "$@"; do
        ip address add "10.0.0.1$n" dev lo
        echo "10.0.0.1$n $name" >>/etc/hosts
        n=$((n + 1))
    done
    for ((n = 0; n < $#; n++)); do
        home=$data
        if [ "$n" != 0 ]; then
            home=node-$n
        fi
        arc-relay --node-name "${*:n + 1:1}" --advertise "${*:n + 1:1}:7946" --mesh-host "10.0.0.1$n" \
            --port $((8080 + 100 * n)) --stats-port $((8081 + 100 * n)) --data-dir "$home" \
            >>"${*:n + 1:1}.log" 2>&1 &
        nodes+=("$!")
    done
    until_works arc-relay health --whole
}

# Starts the first, second or third of them.
node() {
    local n=$1 home=node-$1
    if [ "$n" = 1 ]; then
        home=$data
    fi
    arc-relay --node-name "relay-$n" --mesh-port $((7945 + n)) --port $((7980 + 100 * n)) \
        --stats-port $((7981 + 100 * n)) --data-dir "$home" >>"relay-$n.log" 2>&1 &
    nodes[n]=$!
    if [ "$n" = 1 ] && [ "${#nodes[@]}" = 1 ]; then
        until_works curl http://localhost:8081/stats
    fi
}

stop_node() {
    kill "${nodes[$1]}"
    wait "${nodes[$1]}"
    unset "nodes[$1]"
}

kill_nodes() {
    local n
    for n in "$@"; do
        kill -KILL "${nodes[n]}"
        wait "${nodes[n]}" || true
        unset "nodes[$n]"
    done
}

# All machines are gone, with their disks.
lose_cluster() {
    kill_nodes 1 2 3
    rm -rf "$data" node-2 node-3
}

# The library that narrows tokens, where pip would have put it; without it the page ends here.
with_biscuit() {
    if [ -z "${PYTHON:-}" ]; then
        echo 'SKIPPED: no Python with biscuit-python'
        conclude
        exit 0
    fi
    mkdir -p venv/bin
    printf '#!/bin/sh\nexec %s "$@"\n' "$PYTHON" >venv/bin/python
    chmod +x venv/bin/python
}

waits_for_others() {
    arc-relay status | grep '^waiting: most of the nodes'
}

# From here on the page shows how that program fails.
may_fail() {
    eval "$1() { command $1 \"\$@\" || true; }"
}

# What was begun in the background must come to a good end.
conclude() {
    local process
    for process in "${listeners[@]}"; do
        wait "$process"
    done
    listeners=()
    end_beside
    for process in "${nodes[@]}"; do
        # One that was drained has ended.
        kill "$process" 2>/dev/null || true
    done
    for process in "${nodes[@]}"; do
        wait "$process"
    done
    nodes=()
}

provide
