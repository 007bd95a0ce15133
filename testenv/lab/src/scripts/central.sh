# shellcheck shell=bash
# Both OVN databases and northd, in the lab's own namespace; members of a clustered northbound database each in one of
# their own. Arguments: which of nb, nb1, nb2, nb3, sb and northd to start.
set -eu
PATH=$PATH:/usr/sbin:/sbin
# Daemons run in /, which is the host's: one that aborts must leave no core file there.
ulimit -c 0
cd /run/central

# $enter: the command that leads to where the server runs; empty for here.
enter=
server() { # name, more arguments...
    db=$1
    shift
    $enter ovsdb-server -vconsole:off "$db.db" --remote="punix:/run/central/$db.sock" "$@" --unixctl="/run/central/$db.ctl" \
        --pidfile="/run/central/$db.pid" --log-file="/run/log/$db.log" --no-chdir --detach
}

database() { # name, schema, more remotes...
    db=$1 schema=$2
    shift 2
    [ -e "$db.db" ] || ovsdb-tool create "$db.db" "$schema"
    server "$db" "$@"
}

# Members speak to each other over links of the underlay, so that each can be cut off; clients come by unix sockets.
raft() { # name
    echo "tcp:172.31.255.${1#nb}:6644"
}
member() { # name
    if [ ! -e "/run/netns/$1" ]; then
        ip netns add "$1"
        ip link add "$1" type veth peer name eth0 netns "$1"
        ip link set "$1" master underlay up
        ip -n "$1" link set lo up
        ip -n "$1" address add "172.31.255.${1#nb}/16" dev eth0
        ip -n "$1" link set eth0 up
        nsenter --net="/run/netns/$1" ethtool -K eth0 tx off >/dev/null
    fi
    if [ ! -e "$1.db" ]; then
        if [ "$1" = nb1 ]; then
            ovsdb-tool -vconsole:err create-cluster nb1.db "$FIBERLB_OVN_SHARE"/ovn/ovn-nb.ovsschema "$(raft nb1)"
        else
            ovsdb-tool join-cluster "$1.db" OVN_Northbound "$(raft "$1")" "$(raft nb1)"
        fi
    fi
    enter="nsenter --net=/run/netns/$1"
    # With TLS, the database itself says with which files.
    ssl=db:OVN_Northbound,SSL
    server "$1" --private-key="$ssl,private_key" --certificate="$ssl,certificate" --ca-cert="$ssl,ca_cert"
    enter=
}

northbound() {
    if [ -e nb1.db ]; then
        echo unix:/run/central/nb1.sock,unix:/run/central/nb2.sock,unix:/run/central/nb3.sock
    else
        echo unix:/run/central/nb.sock
    fi
}

for daemon; do
    case $daemon in
    nb) database nb "$FIBERLB_OVN_SHARE"/ovn/ovn-nb.ovsschema ;;
    nb[123]) member "$daemon" ;;
    sb) database sb "$FIBERLB_OVN_SHARE"/ovn/ovn-sb.ovsschema --remote=ptcp:6642:172.31.0.1 ;;
    northd)
        ovn-northd -vconsole:off --ovnnb-db="$(northbound)" --ovnsb-db=unix:/run/central/sb.sock \
            --unixctl=/run/central/northd.ctl --pidfile=/run/central/northd.pid \
            --log-file=/run/log/northd.log --detach
        ;;
    esac
done
