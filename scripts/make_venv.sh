#!/bin/sh
# Makes a virtual environment with pip in it:  scripts/make_venv.sh PYTHON FOLDER
#
# Debian and Ubuntu ship python3 without ensurepip, so a plain `python3 -m venv` fails on a fresh machine. The ways out,
# in this order: a pip that the interpreter already has fills the environment; root installs Debian's python3-venv; or
# we say what to install.
set -u
python=$1
folder=$2

works() { "$folder/bin/python" -m pip --version >/dev/null 2>&1; }

if [ -x "$folder/bin/python" ] && works; then
    exit 0
fi

plain() { "$python" -m venv --clear "$folder" >"$folder.log" 2>&1 && works; }

from_another_pip() {
    "$python" -m pip --version >/dev/null 2>&1 || return 1
    "$python" -m venv --clear --without-pip "$folder" >"$folder.log" 2>&1 || return 1
    "$python" -m pip --python "$folder/bin/python" install --quiet pip >>"$folder.log" 2>&1 && works
}

from_debian() {
    [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1 || return 1
    package="python$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')-venv"
    echo "  installing Debian's $package, because this Python cannot make environments without it"
    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$package"; } \
        >"$folder.log" 2>&1 && plain
}

if plain || from_another_pip || from_debian; then
    rm -f "$folder.log"
    exit 0
fi

echo "Could not make a virtual environment in $folder with $python:" >&2
sed 's/^/    /' "$folder.log" >&2
echo "On Debian or Ubuntu this is mended by:  sudo apt-get install python3-venv" >&2
echo "Elsewhere, name a complete Python:      make PYTHON=/path/to/python3 ..." >&2
rm -rf "$folder" "$folder.log"
exit 1
