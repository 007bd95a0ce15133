#!/bin/bash
# Makes the image that all others are built on from Debian's packages, for machines that reach Debian's archive but no
# image registry. It stands for debian:SUITE-slim, and is as slim.
#
#   base-image.sh [IMAGE]     default: localhost/fiberlb/base:SUITE; as root
#
# SUITE is the release of Debian, trixie if unset. MIRROR is the archive, http://deb.debian.org/debian if unset;
# SECURITY_MIRROR that of security updates, if it is not beside it.
set -euo pipefail
PATH=$PATH:/usr/sbin:/sbin

suite=${SUITE:-trixie}
image=${1:-localhost/fiberlb/base:$suite}
mirror=${MIRROR:-http://deb.debian.org/debian}
security=${SECURITY_MIRROR:-${mirror%/}-security}

fail() {
    echo "base-image: $*" >&2
    exit 1
}
[ "$(id -u)" = 0 ] || fail "debootstrap must be root: sudo $0 $image"
if ! command -v debootstrap >/dev/null; then
    echo "base-image: installing debootstrap"
    { apt-get update -qq && apt-get install -y -qq --no-install-recommends debootstrap; } >/dev/null ||
        fail "debootstrap is missing, and apt-get could not install it: install it by hand"
fi
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
[ -e "$keyring" ] || fail "$keyring is missing, by which packages are verified: apt-get install debian-archive-keyring"
scripts=${DEBOOTSTRAP_DIR:-/usr/share/debootstrap}/scripts
[ -e "$scripts/$suite" ] ||
    fail "this debootstrap does not know $suite, it has no script $scripts/$suite: install that of Debian 12 or later"

# Not below /tmp, where devices may be forbidden.
folder=$(mktemp -d -p /var/tmp)
root=$folder/root
finish() {
    umount "$root/proc" "$root/sys" 2>/dev/null || true
    rm -rf --one-file-system "$folder"
}
trap finish EXIT
trap 'exit 1' HUP INT TERM

echo "base-image: Debian $suite from $mirror (about a minute)"
debootstrap --variant=minbase --force-check-gpg --keyring="$keyring" "$suite" "$root" "$mirror" >"$folder/log" 2>&1 ||
    fail "debootstrap could not make it: $(tail -n 3 "$folder/log")"

# As in Debian's own slim images: no manuals and translations, now and of packages that come later; no package lists,
# no packages kept.
cat >"$root/etc/apt/apt.conf.d/docker-clean" <<'APT'
DPkg::Post-Invoke { "rm -f /var/cache/apt/archives/*.deb /var/cache/apt/*.bin || true"; };
Dir::Cache::pkgcache "";
Dir::Cache::srcpkgcache "";
APT
cat >"$root/etc/dpkg/dpkg.cfg.d/slim" <<'DPKG'
path-exclude /usr/share/doc/*
path-include /usr/share/doc/*/copyright
path-exclude /usr/share/info/*
path-exclude /usr/share/locale/*
path-exclude /usr/share/man/*
DPKG
find "$root/usr/share/doc" -mindepth 2 ! -name copyright -delete 2>/dev/null || true
rm -rf "$root"/usr/share/{info,locale,man}/* "$root"/var/lib/apt/lists/* "$root"/var/cache/apt/*.bin \
    "$root"/var/cache/apt/archives/*.deb "$root"/var/log/*.log "$root"/var/log/apt/*
{
    echo "deb $mirror $suite main"
    echo "deb $mirror $suite-updates main"
    echo "deb $security $suite-security main"
} >"$root/etc/apt/sources.list"
printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d" # no package starts a service in an image
chmod 755 "$root/usr/sbin/policy-rc.d"

tar --create --numeric-owner --directory "$root" . |
    docker import --change 'CMD ["bash"]' --change 'LABEL com.fiberlb.image=base' - "$image" >/dev/null
echo "base-image: $image, $(docker image inspect --format '{{.Size}}' "$image" | numfmt --to=iec)"
