# shellcheck shell=bash
# The link of a machine to the management network. Arguments: index of the machine, and cut, mend, slow or fast.
set -eu
PATH=$PATH:/usr/sbin:/sbin
link=host$1

# What goes to the machine waits. Not every kernel has netem; a narrow link with a long queue makes packets wait too.
slow() {
    tc qdisc replace dev "$link" root netem delay 150ms 50ms 2>/dev/null ||
        tc qdisc replace dev "$link" root tbf rate 96kbit burst 1600 latency 2s
}

case $2 in
cut) ip link set "$link" down ;;
mend) ip link set "$link" up ;;
slow) slow ;;
fast) tc qdisc del dev "$link" root ;;
esac
