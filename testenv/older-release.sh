#!/bin/sh
# Builds the binaries of another commit, for `make test-upgrade`, and prints the folder that they are in.
#
#   older-release.sh COMMIT   builds them in target/upgrade/, unless they are there from before
#   older-release.sh FOLDER   only checks that they are in that folder
set -eu
programs="fiberlb-plugin fiberlb-proxy fiberlb"
root=$(cd "$(dirname "$0")/.." && pwd)
work=$root/target/upgrade

fail() {
    echo "older-release: $*" >&2
    exit 1
}

# True if all programs are in a folder.
whole() {
    for program in $programs; do
        [ -x "$1/$program" ] || return 1
    done
}

[ "$#" = 1 ] || fail "which release? Give a commit, or a folder with $programs"
if [ -d "$1" ]; then
    whole "$1" || fail "$1 does not have all of $programs"
    cd "$1"
    pwd
    exit
fi
commit=$(git -C "$root" rev-parse --verify --quiet "$1^{commit}") ||
    fail "$1 is neither a folder nor a commit of this repository; in a shallow clone: git fetch --unshallow"
binaries=$work/$commit
if ! whole "$binaries"; then
    source=$work/source
    # Of a run that was ended.
    git -C "$root" worktree remove --force "$source" 2>/dev/null || rm -rf "$source"
    git -C "$root" worktree prune
    git -C "$root" worktree add --quiet --detach "$source" "$commit" >&2
    (
        cd "$source"
        CARGO_TARGET_DIR=$work/target "${CARGO:-cargo}" build --locked --bins -p fiberlb-plugin -p fiberlb-proxy -p fiberlb
    ) >&2
    mkdir -p "$binaries"
    for program in $programs; do
        install -m 755 "$work/target/debug/$program" "$binaries/$program.new"
        mv "$binaries/$program.new" "$binaries/$program"
    done
    git -C "$root" worktree remove --force "$source"
fi
echo "$binaries"
