#!/bin/sh
# Brings a program by the package of Debian or Ubuntu that has it, where it is missing, as root:
#   scripts/install_program.sh PROGRAM PACKAGE
# What cannot be had is said in one line, with status 1.
set -u

program=$1 package=$2
command -v "$program" >/dev/null 2>&1 && exit 0
if [ "$(id -u 2>/dev/null)" != 0 ] || ! command -v apt-get >/dev/null 2>&1; then
    echo "$program is missing. On Debian or Ubuntu:  sudo apt-get install $package" >&2
    exit 1
fi
log=$(mktemp) && trap 'rm -f "$log"' EXIT
if ! { apt-get update -qq && DEBIAN_FRONTEND=noninteractive \
    apt-get install -y -qq --no-install-recommends "$package"; } >"$log" 2>&1; then
    echo "could not install $package: $(tail -n 1 "$log")" >&2
    exit 1
fi
echo "installed $package"
