#!/bin/sh
# Finds the CPythons (3.10 or newer) of this machine.
#
#   scripts/pythons.sh           every one, oldest first, a line each:  3.12 /usr/bin/python3.12
#   scripts/pythons.sh default   the path of the one that `make` builds .venv from
#   scripts/pythons.sh 3.10      the path of that version; exit 1 when it is not here
set -u

# A shim answers with the real interpreter's own path, so that no wrapper ends up in a virtual environment.
ask='import platform, sys
if sys.version_info >= (3, 10) and platform.python_implementation() == "CPython" and sys.version_info.releaselevel == "final":
    print("%d.%d" % sys.version_info[:2], getattr(sys, "_base_executable", sys.executable))'

probe() { "$1" -I -c "$ask" 2>/dev/null; }

every() {
    for version in 10 11 12 13 14 15; do
        for candidate in "python3.$version" \
            "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3."$version".*/bin/python3 \
            /opt/homebrew/bin/python3."$version" /usr/local/bin/python3."$version" \
            /Library/Frameworks/Python.framework/Versions/3."$version"/bin/python3; do
            found=$(probe "$candidate") || continue
            case "$found" in "3.$version "*) echo "$found"; break ;; esac
        done
    done
    probe python3
}

case "${1:-all}" in
all)
    every | sort -t. -k2,2n -u
    ;;
default)
    # python3 is what the user means by Python; only an old one makes us look further, at the newest.
    found=$(probe "${PYTHON:-python3}")
    [ -n "$found" ] || found=$(every | sort -t. -k2,2n | tail -n 1)
    if [ -z "$found" ]; then
        echo "power-loop needs CPython 3.10 or newer, and none was found on PATH or under ~/.pyenv/versions." >&2
        echo "  Debian, Ubuntu:  apt-get install python3 python3-venv        macOS:  brew install python" >&2
        echo "  or name one:     make PYTHON=/path/to/python3 ..." >&2
        exit 1
    fi
    echo "${found#* }"
    ;;
*)
    found=$(every | grep -m 1 "^$1 ") || exit 1
    echo "${found#* }"
    ;;
esac
