# shellcheck shell=bash
# PID 1 of a lab's private world. Lives as long as somebody holds the other end of its standard input.
# Arguments (for those who look at /proc): the lab's name, its owner's pid and start time.
# Prints "ready PID", its own pid as the host sees it.
set -eu
PATH=$PATH:/usr/sbin:/sbin
# Read before the new /proc hides the host's numbers.
read -r pid _ </proc/self/stat
mount -t tmpfs -o mode=0755,size=2g tmpfs /run
mount -t proc proc /proc
mkdir -p /run/netns /run/central /run/chassis /run/log /run/lock /run/lib /run/host
ip link set lo up
ip link add underlay type bridge
ip address add 172.31.0.1/16 dev underlay
ip link set underlay up
# Userspace OVS takes packets as they are: a checksum left to an offload never gets computed.
ethtool -K underlay tx off >/dev/null
# Apart from the underlay: what control planes say to each other never competes with, or goes down with, tunnels.
ip link add management type bridge
ip address add 172.30.0.1/16 dev management
ip link set management up
echo "ready $pid"
# cat as a child, so that this shell goes on reaping the daemons that are left to PID 1.
cat >/dev/null || true
