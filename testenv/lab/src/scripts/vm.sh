# shellcheck shell=bash
# One VM: its namespace, plugged by veth into its chassis' br-int.
# Arguments: name, chassis, index (unique in the lab), MAC, default gateways (a list in one word, may be empty),
# addresses with prefix...
set -eu
PATH=$PATH:/usr/sbin:/sbin
name=$1 chassis=$2 index=$3 mac=$4 gateways=$5
shift 5
netns=vm.$name

ip netns add "$netns"
# 1400: what Geneve leaves of an underlay of 1500.
ip -n "chassis.$chassis" link add "v$index" mtu 1400 type veth \
    peer name eth0 mtu 1400 address "$mac" netns "$netns"
ip -n "chassis.$chassis" link set "v$index" up
ip -n "$netns" link set lo up
ip -n "$netns" link set eth0 up
for address; do
    # nodad: the test chose the address, and must not wait a second before it may be used.
    ip -n "$netns" address add "$address" dev eth0 nodad
done
for gateway in $gateways; do
    ip -n "$netns" route add default via "$gateway" dev eth0
done
# Userspace OVS takes packets as they are: a checksum left to an offload never gets computed.
nsenter --net="/run/netns/$netns" ethtool -K eth0 tx off >/dev/null
ovs-vsctl --no-wait --timeout=60 --db="unix:/run/chassis/$chassis/db.sock" \
    add-port br-int "v$index" -- set Interface "v$index" "external_ids:iface-id=$name"
