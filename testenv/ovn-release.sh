#!/bin/sh
# Unpacks the OVN and Open vSwitch of a Debian suite into a folder of their own, so that tests run on that release whatever
# the host has. Nothing is installed on the host, and no maintainer script runs: packages are fetched and verified by apt
# and unpacked by dpkg-deb.
#
#   ovn-release.sh SUITE     bookworm, trixie or sid, into /var/cache/fiberlb/ovn/SUITE; does nothing if it is there
#
# In the folder, programs/ has a launcher for each program of OVN and Open vSwitch, which runs it by the suite's own
# loader and libraries. MIRROR is the archive, http://deb.debian.org/debian if unset.
set -eu
PATH=$PATH:/usr/sbin:/sbin

suite=${1-}
mirror=${MIRROR:-http://deb.debian.org/debian}
cache=/var/cache/fiberlb/ovn
root=$cache/$suite
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
packages="ovn-central ovn-host openvswitch-switch"

say() { echo "ovn-release: $*"; }
fail() {
    say "$*" >&2
    exit 1
}

# Writes a launcher for each program below $1, for use once $1 is where it is to be: launchers find it by their own path.
write_launchers() {
    loader=$(cd "$1" && find usr/lib* lib* -name 'ld-linux*.so.*' 2>/dev/null | head -n 1)
    [ -n "$loader" ] || fail "there is no loader in the packages of $suite"
    libraries=$(cd "$1" && dirname "$(find usr/lib lib -name 'libc.so.6' 2>/dev/null | head -n 1)")
    mkdir "$1/programs"
    # ovs-vswitchd stands apart: in /usr/sbin Debian has a link through /etc/alternatives, which only an installation makes.
    for program in "$1"/usr/bin/ov[sn]* "$1"/usr/sbin/ov[sn]* "$1"/usr/lib/openvswitch-switch/ovs-vswitchd; do
        # Not scripts: they would need the suite's interpreters.
        [ "$(head -c 4 "$program" 2>/dev/null | tail -c 3)" = ELF ] || continue
        name=${program##*/}
        cat >"$1/programs/$name" <<LAUNCHER
#!/bin/sh
root=\${0%/programs/*}
exec "\$root/$loader" --argv0 $name --library-path "\$root/$libraries" "\$root/${program#"$1"/}" "\$@"
LAUNCHER
        chmod 755 "$1/programs/$name"
    done
    for name in ovs-vswitchd ovsdb-server ovn-northd ovn-controller; do
        [ -x "$1/programs/$name" ] || fail "the packages of $suite have no $name where it is looked for"
    done
}

case $suite in
bookworm | trixie | sid) ;;
*) fail "no suite to take OVN from: '$suite' (FIBERLB_OVN is host, bookworm, trixie, sid, or a path with a slash)" ;;
esac
[ ! -d "$root/programs" ] || exit 0
[ "$(id -u)" = 0 ] || fail "must be root to unpack OVN of Debian $suite into $root"
for tool in apt-get dpkg-deb flock; do
    command -v $tool >/dev/null || fail "$tool is missing; set FIBERLB_OVN=host to use the OVN of this machine"
done
[ -e "$keyring" ] || fail "$keyring is missing, by which packages are verified: apt-get install debian-archive-keyring"

mkdir -p "$cache"
exec 9>"$cache/.lock"
flock --timeout 600 9 || fail "another run has been unpacking for ten minutes: see $cache"
[ ! -d "$root/programs" ] || exit 0 # that run has done it
new=$cache/.$suite.new
rm -rf "$new" "$root"
mkdir -p "$new/apt/lists/partial" "$new/apt/archives/partial" "$new/apt/none" "$new/root"
trap 'rm -rf "$new"' EXIT
trap 'exit 1' HUP INT TERM

# Apt as if on a machine of that suite on which nothing is installed.
: >"$new/apt/status"
echo "deb [signed-by=$keyring] $mirror $suite main" >"$new/apt/sources.list"
apt() {
    apt-get -qq -o "Dir::State=$new/apt" -o "Dir::State::status=$new/apt/status" -o "Dir::State::lists=$new/apt/lists" \
        -o "Dir::Cache=$new/apt" -o "Dir::Cache::archives=$new/apt/archives" -o "Dir::Etc::sourcelist=$new/apt/sources.list" \
        -o "Dir::Etc::sourceparts=$new/apt/none" -o "Dir::Etc::preferences=$new/apt/none/none" \
        -o "Dir::Etc::preferencesparts=$new/apt/none" -o APT::Install-Recommends=false -o Acquire::Languages=none \
        -o APT::Sandbox::User=root "$@" 9>&-
}
say "OVN of Debian $suite goes into $root (about half a minute)"
say "1 of 3: package lists of $suite"
apt update || fail "cannot reach $mirror (offline?): MIRROR chooses another archive, FIBERLB_OVN another OVN"
# Words on purpose.
# shellcheck disable=SC2086
say "2 of 3: fetching $(apt --print-uris install $packages | wc -l) packages"
# shellcheck disable=SC2086
apt --download-only --yes install $packages || fail "apt-get could not fetch $packages of $suite"
say "3 of 3: unpacking"
for package in "$new"/apt/archives/*.deb; do
    dpkg-deb --extract "$package" "$new/root"
done
write_launchers "$new/root"
mv "$new/root" "$root"
say "done: $("$root/programs/ovn-nbctl" --version | head -n 1 | sed 's/ovn-nbctl/OVN/'), $(du -sm "$root" | cut -f 1) MB"
