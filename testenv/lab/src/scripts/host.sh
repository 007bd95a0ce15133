# shellcheck shell=bash
# A machine of the cloud's operator, or a chassis, on the management network.
# Arguments: network namespace (made if it is missing), index (unique in the lab), address with prefix.
set -eu
PATH=$PATH:/usr/sbin:/sbin
netns=$1 index=$2 address=$3

[ -e "/run/netns/$netns" ] || ip netns add "$netns"
ip link add "host$index" type veth peer name management netns "$netns"
ip link set "host$index" master management up
ip -n "$netns" link set lo up
ip -n "$netns" link set management up
ip -n "$netns" address add "$address" dev management
