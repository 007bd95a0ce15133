# shellcheck shell=bash
# What the testbed's scripts share. To be sourced in testenv/compose.

say() { echo "testbed: $*"; }
fail() {
    echo "testbed: $*" >&2
    exit 1
}

# A setting: of the environment, else of .env.
setting() { # name
    printf '%s\n' "${!1-$(sed -n "s/^$1=//p" .env)}"
}
project=$(setting COMPOSE_PROJECT_NAME)
# What everything of this testbed is marked with, by compose.
# shellcheck disable=SC2034 # by those who source this
ours=label=com.docker.compose.project=$project
# Where images are named: no registry can serve these.
# shellcheck disable=SC2034 # by those who source this
images=localhost/fiberlb

# Docker's compose plugin where it is, else docker-compose.
compose_program=(docker-compose)
! docker compose version >/dev/null 2>&1 || compose_program=(docker compose)

# How the images that are here were built, a setting a line. Compose takes a service that would be built otherwise for another
# one, and replaces its container: so whoever calls compose says the same as the last build.
built_as=.built
compose() {
    local settings=()
    [ ! -e "$built_as" ] || mapfile -t settings <"$built_as"
    env "${settings[@]}" "${compose_program[@]}" "$@"
}

# The container of a service that runs; nothing if none does.
container() { # service
    docker ps --quiet --filter "$ours" --filter "label=com.docker.compose.service=$1"
}

# Aborts of ovs-vswitchd since the chassis were started, a line each: the chassis, and what its log says of it. It is started
# again, as on a machine, but what it carried is lost, and nothing makes up for that.
aborts() {
    local chassis id
    for chassis in chassis-1 chassis-2 chassis-3; do
        id=$(docker ps --all --quiet --filter "$ours" --filter "label=com.docker.compose.service=$chassis")
        # 134: SIGABRT, 139: SIGSEGV.
        [ -z "$id" ] || docker logs "$id" 2>&1 |
            sed -nE "s/^($chassis: )?(.*(\\|EMER\\||ovs-vswitchd ended with status 13[49]).*)/$chassis: \\2/p"
    done
}

# Removes containers in the namespaces of another one that does not run any more: no engine can start them again.
remove_stranded() {
    local id mode
    docker ps --all --quiet --filter "$ours" | while read -r id; do
        for mode in $(docker inspect --format '{{.HostConfig.PidMode}} {{.HostConfig.NetworkMode}}' "$id"); do
            case $mode in container:*) ;; *) continue ;; esac
            [ "$(docker inspect --format '{{.State.Running}}' "${mode#container:}" 2>/dev/null)" = true ] ||
                docker rm --force "$id" >/dev/null 2>&1 || true
        done
    done
}

# Containers that are not as they should be, a line each: name and status. Two make something and end.
troubles() {
    local name service status
    while IFS=$'\t' read -r name service status; do
        case $service:$status in
        cloud:"Exited (0)"* | pki:"Exited (0)"* | ready:Up*) ;;
        *:*"(healthy)") ;;
        *) printf '%s\t%s\n' "$name" "$status" ;;
        esac
    done < <(docker ps --all --filter "$ours" \
        --format '{{.Names}}\t{{.Label "com.docker.compose.service"}}\t{{.Status}}')
}
