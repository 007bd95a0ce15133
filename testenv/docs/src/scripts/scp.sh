#!/bin/bash
# Stands in for scp from one machine of a lab to another: scp [-r] FILE... MACHINE:PATH. A path is below /etc,
# /var/lib or /usr/local/bin; the machine has a session already.
set -eu
[ "$1" != -r ] || shift
files=("${@:1:$#-1}")
machine=${*: -1}
path=${machine#*:} machine=${machine%%:*}
case $path in
/etc/* | /var/lib/* | /usr/local/bin/*) ;;
*)
    echo "this stand-in does not copy to $path" >&2
    exit 1
    ;;
esac
path=${path/#\/var\/lib/\/var-lib}
path=${path/#\/usr\/local\/bin/\/bin}
target=/run/peers/$machine$path
case $path in
*/) [ -d "$target" ] || {
    echo "scp: dest open \"$path\": No such file or directory" >&2
    exit 1
} ;;
esac
exec cp -r --preserve=mode "${files[@]}" "$target"
