# Both OVN databases and northd, in the lab's own namespace. Arguments: which of nb, sb and northd to start.
set -eu
PATH=$PATH:/usr/sbin:/sbin
# Daemons run in /, which is the host's: one that aborts must leave no core file there.
ulimit -c 0
cd /run/central

database() { # name, schema, remotes...
    db=$1 schema=$2
    shift 2
    [ -e "$db.db" ] || ovsdb-tool create "$db.db" "$schema"
    ovsdb-server -vconsole:off "$db.db" "$@" --unixctl="/run/central/$db.ctl" --pidfile="/run/central/$db.pid" \
        --log-file="/run/log/$db.log" --no-chdir --detach
}

for daemon; do
    case $daemon in
    nb) database nb /usr/share/ovn/ovn-nb.ovsschema --remote=punix:/run/central/nb.sock ;;
    sb) database sb /usr/share/ovn/ovn-sb.ovsschema --remote=punix:/run/central/sb.sock \
        --remote=ptcp:6642:172.31.0.1 ;;
    northd)
        ovn-northd -vconsole:off --ovnnb-db=unix:/run/central/nb.sock --ovnsb-db=unix:/run/central/sb.sock \
            --unixctl=/run/central/northd.ctl --pidfile=/run/central/northd.pid \
            --log-file=/run/log/northd.log --detach
        ;;
    esac
done
