#!/bin/bash
# Stands in for systemctl where no systemd runs: starts what units in /etc/systemd/system say, as the user and with the
# capabilities that they give, and waits until it shows metrics. Knows no more than FiberLB's units need.
set -u
state=/run/systemctl
mkdir -p "$state"

fail() {
    echo "$*" >&2
    exit 1
}
unit_file() {
    local file=/etc/systemd/system/${1%.service}.service
    [ -e "$file" ] || fail "Unit ${1%.service}.service could not be found."
    echo "$file"
}
setting() { # file, key: all values, a line each; what a drop-in adds comes behind
    cat "$1" "$1".d/*.conf 2>/dev/null | sed -n "s/^$2=//p"
}
last() {
    setting "$1" "$2" | tail -n 1
}
is_active() {
    local pid
    pid=$(cat "$state/$1.pid" 2>/dev/null) && kill -0 "$pid" 2>/dev/null
}

# Folders that systemd makes for a unit, with their owner.
folders() { # file, user
    local pair folder
    for pair in RuntimeDirectory:/run StateDirectory:/var/lib ConfigurationDirectory:/etc; do
        for folder in $(last "$1" "${pair%%:*}"); do
            mkdir -p "${pair#*:}/$folder"
            [ "${pair%%:*}" = ConfigurationDirectory ] || chown -R "$2:" "${pair#*:}/$folder"
        done
    done
}
# The arguments of setpriv: user, and no more capabilities than the unit lets it have.
privileges() { # file, user
    local capabilities=-all capability
    for capability in $(last "$1" CapabilityBoundingSet); do
        capability=${capability#CAP_}
        capabilities=$capabilities,+${capability,,}
    done
    echo "--reuid=$2 --regid=$(id -g "$2") --init-groups --bounding-set=$capabilities --inh-caps=$capabilities"
    [ -z "$(last "$1" AmbientCapabilities)" ] || echo "--ambient-caps=$capabilities"
    [ "$(last "$1" NoNewPrivileges)" != yes ] || echo --no-new-privs
}
start() {
    local name=$1 file user command configuration environment
    is_active "$name" && return 0
    file=$(unit_file "$name") || exit 1
    user=$(last "$file" User)
    user=${user:-root}
    id "$user" >/dev/null || exit 1
    folders "$file" "$user"
    command=$(last "$file" ExecStart)
    environment=$(last "$file" EnvironmentFile)
    (
        set -a
        configuration=$(last "$file" ConfigurationDirectory)
        [ -z "$configuration" ] || export CONFIGURATION_DIRECTORY="/etc/$configuration"
        # shellcheck source=/dev/null
        [ -z "$environment" ] || [ ! -e "${environment#-}" ] || . "${environment#-}"
        PATH=/usr/local/bin:$PATH
        set +a
        # Words on purpose.
        # shellcheck disable=SC2046,SC2086
        exec setpriv $(privileges "$file" "$user") -- $command
    ) >>"$state/$name.log" 2>&1 </dev/null &
    echo $! >"$state/$name.pid"
    await_metrics "$name"
}
await_metrics() {
    local metric address=127.0.0.1:9631
    metric=fiberlb_northbound_connected
    [ "$1" != fiberlb-proxy ] || address=127.0.0.1:9632 metric=fiberlb_proxy_plugin_connected
    for _ in $(seq 300); do
        is_active "$1" || fail "Job for $1.service failed: $(tail -n 5 "$state/$1.log")"
        curl -s --max-time 1 "http://$address/metrics" | grep -q "^$metric 1" && return 0
        sleep 0.1
    done
    fail "$1.service is not ready"
}
stop() {
    local pid
    is_active "$1" || return 0
    pid=$(cat "$state/$1.pid")
    kill -TERM "$pid"
    for _ in $(seq 300); do
        # A child of the shell that is gone is a zombie until its parent has looked.
        grep -qs '^State:[[:space:]]*[^ZX[:space:]]' "/proc/$pid/status" || break
        sleep 0.1
    done
    rm -f "$state/$1.pid"
}
status() {
    unit_file "$1" >/dev/null || exit 4
    echo "$1.service"
    is_active "$1" || {
        echo "     Active: inactive (dead)"
        exit 3
    }
    echo "     Active: active (running)"
}

verb=$1
shift
now=no units=()
for argument; do
    case $argument in
    --now) now=yes ;;
    -*) ;;
    *) units+=("${argument%.service}") ;;
    esac
done
[ "$verb" != daemon-reload ] || exit 0
for unit in "${units[@]}"; do
    case $verb in
    start) start "$unit" ;;
    stop) stop "$unit" ;;
    restart) stop "$unit" && start "$unit" ;;
    enable) unit_file "$unit" >/dev/null || exit 1; [ $now = no ] || start "$unit" ;;
    disable) unit_file "$unit" >/dev/null || exit 1; [ $now = no ] || stop "$unit" ;;
    is-active) if is_active "$unit"; then echo active; else echo inactive; exit 3; fi ;;
    status) status "$unit" ;;
    *) fail "this stand-in does not know $verb" ;;
    esac
done
