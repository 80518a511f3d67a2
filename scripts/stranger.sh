#!/bin/sh
# Goes a stranger's way: a fresh clone of what is committed, the demo, an install without its source, and every tutorial with that.
set -eu
here=$(cd "$(dirname "$0")/.." && pwd)
python=$(sh "$here/scripts/pythons.sh" default)
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

echo "cloning into $folder"
git clone --quiet --depth 1 "file://$here" "$folder/power-loop"
cd "$folder/power-loop"
if [ -z "${WITHOUT_DEMO:-}" ]; then
    make demo
fi

echo "installing it, as README says"
"$python" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --quiet --disable-pip-version-check '.[postgres]' fastapi uvicorn
cd "$folder"
"$folder/venv/bin/python" -c 'import power_loop, sys; sys.exit(not power_loop.__file__.startswith(sys.prefix))'

echo "following the tutorials with it"
cd "$here"
POWER_LOOP_TUTORIALS_BIN="$folder/venv/bin" "$here/.venv/bin/python" -m pytest -q tests/house/test_tutorials.py
