#!/bin/sh
# Unpacks programs of a Debian suite into a folder of their own, so that tests and benchmarks run on that release whatever the
# host has. Nothing is installed on the host, and no maintainer script runs: packages are fetched and verified by apt and
# unpacked by dpkg-deb.
#
#   unpack.sh [--refresh] WHAT SUITE     WHAT: ovn (OVN and Open vSwitch), or rivals (HAProxy and nginx, which benchmarks measure
#                                        against). SUITE: bookworm, trixie or sid. Into /var/cache/fiberlb/WHAT/SUITE; does
#                                        nothing if it is there, unless it is to be fetched anew
#
# In the folder, programs/ has a launcher for each program, which runs it by the suite's own loader and libraries (in a list of
# processes it is called ld-linux-…). MIRROR is the archive, http://deb.debian.org/debian if unset.
set -eu
PATH=$PATH:/usr/sbin:/sbin

mirror=${MIRROR:-http://deb.debian.org/debian}
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
# Of this script: a folder that another version of it has made is made again.
recipe=2

say() { echo "unpack: $*"; }
fail() {
    say "$*" >&2
    exit 1
}

is_complete() { # folder
    [ "$(cat "$1/programs/.recipe" 2>/dev/null)" = "$recipe" ]
}

# Writes a launcher for each program below $1, for use once $1 is where it is to be: launchers find it by their own path.
write_launchers() {
    loader=$(cd "$1" && find usr/lib* lib* -name 'ld-linux*.so.*' 2>/dev/null | head -n 1)
    [ -n "$loader" ] || fail "there is no loader in the packages of $suite"
    # Of several folders: older suites have the C library apart from the others.
    libraries=$(cd "$1" && find usr/lib lib -name '*.so.[0-9]*' -path '*-linux-gnu*/lib*' 2>/dev/null |
        sed 's#-linux-gnu/.*#-linux-gnu#' | sort -u | sed "s#^#\$root/#" | paste -sd :)
    mkdir "$1/programs"
    # Words and patterns on purpose.
    # shellcheck disable=SC2086
    for program in $(cd "$1" && ls -d $programs 2>/dev/null); do
        # Not scripts: they would need the suite's interpreters.
        [ "$(head -c 4 "$1/$program" | tail -c 3)" = ELF ] || continue
        name=${program##*/}
        write_launcher "$1" "$name" <<LAUNCHER
exec "\$root/$loader" --argv0 $name --library-path "$libraries" "\$root/$program" "\$@"
LAUNCHER
    done
    # It asks for no more than sh and openssl.
    [ "$what" != ovn ] || write_launcher "$1" ovs-pki <<'LAUNCHER'
exec sh "$root/usr/bin/ovs-pki" "$@"
LAUNCHER
    for program in $needed; do
        [ -x "$1/programs/${program##*/}" ] || fail "the packages of $suite have no $program"
        foreign=$("$1/$loader" --library-path "$(root=$1 && eval "echo \"$libraries\"")" --list "$1/$program" |
            sed -n 's/.* => \([^ ]*\).*/\1/p' | grep -vF "$1/" || true)
        [ -z "$foreign" ] || fail "libraries of $suite are not in its packages, and the host's would be used: $foreign"
    done
    echo "$recipe" >"$1/programs/.recipe"
}

write_launcher() { # root, name; its last line on standard input
    {
        printf '#!/bin/sh\n%s\n' "root=\${0%/programs/*}"
        cat
    } >"$1/programs/$2"
    chmod 755 "$1/programs/$2"
}

refresh=no
[ "${1-}" != --refresh ] || { refresh=yes && shift; }
what=${1-} suite=${2-}
case $what in
ovn)
    packages="ovn-central ovn-host openvswitch-switch"
    # ovs-vswitchd stands apart: in /usr/sbin Debian has a link through /etc/alternatives, which only an installation makes.
    programs="usr/bin/ov[sn]* usr/sbin/ov[sn]* usr/lib/openvswitch-switch/ovs-vswitchd"
    needed="usr/lib/openvswitch-switch/ovs-vswitchd usr/sbin/ovsdb-server usr/bin/ovn-northd usr/bin/ovn-controller"
    hint="; set FIBERLB_OVN=host to use the OVN of this machine"
    ;;
rivals)
    packages="haproxy nginx libnginx-mod-stream"
    programs="usr/sbin/haproxy usr/sbin/nginx"
    needed=$programs
    hint=
    ;;
*) fail "no such programs to unpack: '$what' (ovn or rivals)" ;;
esac
case $suite in
bookworm | trixie | sid) ;;
*) fail "no suite to take $what from: '$suite' (FIBERLB_OVN is host, bookworm, trixie, sid, or an absolute path)" ;;
esac
cache=/var/cache/fiberlb/$what
root=$cache/$suite
! { [ $refresh = no ] && is_complete "$root"; } || exit 0
[ "$(id -u)" = 0 ] || fail "must be root to unpack $what of Debian $suite into $root"
for tool in apt-get dpkg-deb flock; do
    command -v $tool >/dev/null || fail "$tool is missing$hint"
done
[ -e "$keyring" ] || fail "$keyring is missing, by which packages are verified: apt-get install debian-archive-keyring"

mkdir -p "$cache"
for folder in "${cache%/*}" "$cache"; do
    # What lies there is run as root.
    case $(stat --format '%u %A' "$folder") in
    "0 d"????-??-?) ;;
    *) fail "$folder must be root's, and nobody else may write there" ;;
    esac
done
exec 9>"$cache/.lock"
flock --timeout 600 9 || fail "another run has been unpacking for ten minutes: see $cache"
! { [ $refresh = no ] && is_complete "$root"; } || exit 0 # that run has done it
new=$cache/.$suite.new
rm -rf "$new"
mkdir -p "$new/apt/lists/partial" "$new/apt/archives/partial" "$new/apt/none" "$new/root"
trap 'rm -rf "$new"' EXIT
trap 'exit 1' HUP INT TERM

# Apt as if on a machine of that suite on which nothing is installed. Of the host's configuration it keeps only how the
# archive is reached.
: >"$new/apt/status"
echo "deb [signed-by=$keyring] $mirror $suite main" >"$new/apt/sources.list"
{
    apt-config dump | grep '^Acquire::' || true
    echo "Dir::Etc::main \"$new/apt/none/none\"; Dir::Etc::parts \"$new/apt/none\";"
    echo "Dir::Etc::sourcelist \"$new/apt/sources.list\"; Dir::Etc::sourceparts \"$new/apt/none\";"
    echo "Dir::Etc::preferences \"$new/apt/none/none\"; Dir::Etc::preferencesparts \"$new/apt/none\";"
    echo "Dir::State \"$new/apt\"; Dir::State::status \"$new/apt/status\"; Dir::State::lists \"$new/apt/lists\";"
    echo "Dir::Cache \"$new/apt\"; Dir::Cache::archives \"$new/apt/archives\";"
    echo "APT::Install-Recommends \"false\"; APT::Sandbox::User \"root\"; Acquire::Languages \"none\";"
    echo "APT::Architectures { \"$(dpkg --print-architecture)\"; };"
} >"$new/apt/apt.conf"
apt() { APT_CONFIG="$new/apt/apt.conf" apt-get -qq "$@" 9>&-; }
say "$what of Debian $suite goes into $root (about half a minute)"
say "1 of 3: package lists of $suite"
apt -o APT::Update::Error-Mode=any update ||
    fail "cannot reach $mirror (offline?): MIRROR chooses another archive$hint"
# Words on purpose.
# shellcheck disable=SC2086
apt --print-uris install $packages >"$new/uris" || fail "$suite has no $packages"
say "2 of 3: fetching $(wc -l <"$new/uris") packages"
# shellcheck disable=SC2086
apt --download-only --yes install $packages || fail "apt-get could not fetch $packages of $suite"
say "3 of 3: unpacking"
for package in "$new"/apt/archives/*.deb; do
    dpkg-deb --extract "$package" "$new/root"
done
write_launchers "$new/root"
rm -rf "$root"
mv "$new/root" "$root"
say "done: $(find "$root/programs" -type f | wc -l) programs, $(du -sm "$root" | cut -f 1) MB"
