#!/bin/sh
# Puts FiberLB's binaries and their bills of materials into a folder, for the images: built here, or taken as they were
# built outside.
# Arguments: build or outside, folder. Runs in the sources' root.
set -eu
how=$1 to=$2
outside=testenv/compose/binaries
programs="fiberlb-plugin fiberlb-proxy fiberlb"

mkdir -p "$to"
case $how in
build)
    command -v python3 >/dev/null || {
        apt-get update -qq
        apt-get install -y -qq --no-install-recommends python3
    } >/dev/null
    cargo build --release --locked -p fiberlb-plugin -p fiberlb-proxy -p fiberlb
    for program in $programs; do
        strip -o "$to/$program" "target/release/$program"
        packaging/sbom "$program" >"$to/$program.cdx.json"
    done
    rm -rf target
    ;;
outside)
    for program in $programs; do
        if [ ! -x "$outside/$program" ] || [ ! -e "$outside/$program.cdx.json" ]; then
            echo "there is no $outside/$program with its $program.cdx.json: run testenv/compose/testbed binaries, or build with BINARIES=build" >&2
            exit 1
        fi
        cp "$outside/$program" "$outside/$program.cdx.json" "$to/"
        # Built for another machine, or against a newer libc, it would say so only when it is started.
        "$to/$program" --version
    done
    ;;
*)
    echo "BINARIES is build or outside, not '$how'" >&2
    exit 1
    ;;
esac
