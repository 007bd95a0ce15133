# shellcheck shell=bash
# Takes a VM away. Arguments: name, chassis, index.
set -eu
PATH=$PATH:/usr/sbin:/sbin
ovs-vsctl --no-wait --timeout=60 --db="unix:/run/chassis/$2/db.sock" --if-exists del-port br-int "v$3"
ip -n "chassis.$2" link del "v$3"
ip netns del "vm.$1"
