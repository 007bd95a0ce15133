# shellcheck shell=bash
# A machine as an operator finds it, for commands that the documentation shows: becomes a shell on it. Runs in a mount and
# UTS namespace of its own. Arguments: name, folder of OVN's databases (may be empty), folder of FiberLB's binaries,
# FiberLB's repository.
set -eu
PATH=$PATH:/usr/sbin:/sbin
name=$1 central=$2 binaries=$3 repository=$4
hostname "$name"

# Its own /run, with what daemons of the lab have in theirs at the usual places. Other machines reach it for scp alone.
run=/run/machines/$name
mkdir -p "$run"
(
    cd "$run"
    mkdir -p netns openvswitch ovn lock log session shims binaries repository usual peers etc work/target
)
place() { # what, where below /run
    [ ! -d "$1" ] || mount --bind "$1" "$run/$2"
}
place "/run/chassis/$name" openvswitch
[ -z "$central" ] || place "$central" ovn
place "$binaries" binaries
place "$repository" repository
place /usr/local/bin usual
place /run/machines peers
for vm in /run/netns/vm.*; do
    [ -e "$vm" ] || continue
    touch "$run/netns/${vm#/run/netns/vm.}"
    mount --bind "$vm" "$run/netns/${vm#/run/netns/vm.}"
done
for shim in systemctl journalctl scp; do
    install -m 755 "/run/lib/$shim.sh" "$run/shims/$shim"
done
# `client COMMAND...` runs on that VM.
printf '#!/bin/sh\nexec ip netns exec client "$@"\n' >"$run/shims/client"
chmod 755 "$run/shims/client"

# A copy of /etc, and empty what else pages write to. scp may have been here before.
cp -a /etc/. "$run/etc/"
[ ! -d /run/lib/etc ] || cp -a /run/lib/etc/. "$run/etc/"
cat /run/lib/hosts >>"$run/etc/hosts"
mkdir -p "$run/var-lib" "$run/bin"
mount --rbind "$run" /run
for program in /run/usual/*; do
    [ ! -e "$program" ] || ln -s "$program" /run/bin/
done
mount --bind /run/etc /etc
mount --bind /run/var-lib /var/lib
mount --bind /run/bin /usr/local/bin

# The checkout that commands are typed in, built.
for entry in /run/repository/*; do
    [ "${entry##*/}" = target ] || ln -s "$entry" /run/work/
done
ln -s /run/binaries /run/work/target/release
# By install-packages.sh --python, where somebody has run that.
[ ! -d /run/repository/target/python ] || ln -s /run/repository/target/python /run/work/target/
cd /run/work
exec env -i HOME=/run/work PATH="/run/shims:/run/binaries:$PATH" LANG=C.UTF-8 USER=root bash --noprofile --norc
