#!/bin/bash
# Stands in for journalctl where no systemd runs: prints the log of the unit behind -u.
set -eu
unit=
while [ $# -gt 0 ]; do
    case $1 in
    -u | --unit) unit=${2%.service} && shift ;;
    esac
    shift
done
exec cat "/run/systemctl/$unit.log"
