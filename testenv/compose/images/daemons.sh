# shellcheck shell=bash
# For entry points that run several daemons: each is a child in the foreground whose output is the container's, and the
# container ends, with a word why, when one of them does.

say() { echo "$(hostname): $*"; }
fail() {
    say "$*" >&2
    exit 1
}

# run NAME COMMAND...: starts a daemon.
run() {
    local name=$1
    shift
    "$@" &
    names[$!]=$name
}

# keep NAME COMMAND...: starts a daemon, and again each time that it ends in disorder.
keep() {
    local name=$1
    shift
    run "$name" respawn "$name" "$@"
}
respawn() {
    local name=$1 daemon
    shift
    while :; do
        "$@" &
        daemon=$!
        # shellcheck disable=SC2064 # this daemon's pid
        trap "kill $daemon 2>/dev/null; wait $daemon; exit 0" TERM
        wait "$daemon" && return
        say "$name ended with status $?, and is started again"
        sleep 0.5
    done
}

# until_true SECONDS WHAT COMMAND...: waits until the command succeeds.
until_true() {
    local limit=$((SECONDS + $1)) what=$2
    shift 2
    until "$@" >/dev/null 2>&1; do
        ((SECONDS < limit)) || fail "$what did not come to pass: $*"
        sleep 0.1
    done
}

# Waits until one daemon has ended, or somebody asks the container to stop.
declare -A names=()
run_until_one_ends() {
    trap 'say "stopping"; trap "" TERM; kill -- "${!names[@]}" 2>/dev/null; wait; exit 0' TERM INT
    local ended status=0
    wait -n -p ended "${!names[@]}" || status=$?
    fail "${names[$ended]} ended with status $status; all of this container ends with it"
}
