# shellcheck shell=bash
# One chassis: its namespace, its underlay link, its own OVS and ovn-controller.
# Arguments: name, index (unique in the lab, 2 to 65000).
set -eu
PATH=$PATH:/usr/sbin:/sbin
# Daemons run in /, which is the host's: one that aborts must leave no core file there.
ulimit -c 0
name=$1 index=$2
netns=chassis.$name
dir=/run/chassis/$name
address=172.31.$((index / 256)).$((index % 256))
hwaddr=$(printf '02:1b:00:00:%02x:%02x' $((index / 256)) $((index % 256)))
mkdir -p "$dir"
export OVS_RUNDIR="$dir" OVN_RUNDIR="$dir" OVS_DBDIR="$dir" OVS_LOGDIR=/run/log OVN_LOGDIR=/run/log

ip netns add "$netns"
ip link add "underlay$index" mtu 1500 type veth peer name eth0 mtu 1500 netns "$netns"
ip link set "underlay$index" master underlay up
ip -n "$netns" link set lo up
ip -n "$netns" link set eth0 up

inside() { nsenter --net="/run/netns/$netns" "$@"; }

# Userspace Geneve finds its tunnels only through an address on an OVS bridge. vswitchd makes the bridge's
# interface anew when it restarts, so the address is put back whenever the interface appears.
phy() {
    ip -n "$netns" address replace "$address/16" dev br-phy &&
        ip -n "$netns" link set br-phy up &&
        inside ethtool -K br-phy tx off >/dev/null
}
watch_phy() {
    # Only links that come or change wake this; what phy does to a link that is right already is no change.
    ip -n "$netns" monitor link | while read -r line; do
        case $line in
        Deleted*) ;;
        *br-phy*) phy || true ;;
        esac
    done
}

ovsdb-tool create "$dir/conf.db" "$FIBERLB_OVN_SHARE"/openvswitch/vswitch.ovsschema
inside ovsdb-server -vconsole:off "$dir/conf.db" --remote="punix:$dir/db.sock" --unixctl="$dir/ovsdb.ctl" \
    --pidfile="$dir/ovsdb.pid" --log-file="/run/log/$name.ovsdb.log" --detach
ovs-vsctl --no-wait --db="unix:$dir/db.sock" -- init \
    -- set Open_vSwitch . "external_ids:system-id=$name" "external_ids:hostname=$name" \
    external_ids:ovn-remote=tcp:172.31.0.1:6642 external_ids:ovn-encap-type=geneve \
    "external_ids:ovn-encap-ip=$address" external_ids:ovn-bridge-datapath-type=netdev \
    external_ids:ovn-remote-probe-interval=60000 external_ids:ovn-openflow-probe-interval=60 \
    -- add-br br-int -- set Bridge br-int datapath_type=netdev fail-mode=secure \
    -- add-br br-phy -- set Bridge br-phy datapath_type=netdev fail-mode=standalone \
    "other_config:hwaddr=$hwaddr" \
    -- add-port br-phy eth0
# --monitor, as on a real machine: one that aborts is started again, and tests abort it (Lab::abort_vswitchd).
inside ovs-vswitchd -vconsole:off "unix:$dir/db.sock" --monitor --unixctl="$dir/vswitchd.ctl" --pidfile="$dir/vswitchd.pid" \
    --log-file="/run/log/$name.vswitchd.log" --detach
ovs-vsctl --timeout=60 --db="unix:$dir/db.sock" wait-until Interface br-phy 'ofport>0'
phy
# exec, since a redirected function keeps the caller's pipes open, and the caller waits for their end.
(
    exec </dev/null >/dev/null 2>&1
    watch_phy
) &
inside ovn-controller -vconsole:off "unix:$dir/db.sock" --pidfile="$dir/controller.pid" \
    --log-file="/run/log/$name.controller.log" --detach
