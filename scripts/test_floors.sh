#!/bin/sh
# Runs the tests that talk to the SDKs and to the database drivers on the oldest ones that pyproject.toml allows, in an
# environment of their own.
set -eu
cd "$(dirname "$0")/.."
# asyncpg's oldest version has no wheel for Python 3.13, and does not compile there.
python=
for version in 3.12 3.11 3.10; do
    [ -n "$python" ] || python=$(sh scripts/pythons.sh "$version") || python=
done
if [ -z "$python" ]; then
    echo "the oldest SDKs and drivers run on Python 3.10 to 3.12, and none of these is on this machine" >&2
    exit 1
fi
venv=.venv-floors
sh scripts/make_venv.sh "$python" "$venv"
install="$venv/bin/python -m pip install --quiet --quiet --disable-pip-version-check"

$install --editable '.[test]'
floors=$("$venv/bin/python" - <<'PYTHON'
import importlib.metadata, re

extras = "openai|anthropic|postgres|mysql"
for line in importlib.metadata.requires("power-loop"):
    found = re.match(rf"([\w-]+).*>=([\d.]+).*extra == ['\"]({extras})['\"]", line)
    if found:
        print(f"{found[1]}=={found[2]}")
PYTHON
)
# httpx 0.28 dropped an argument that these SDKs still pass.
# shellcheck disable=SC2086
$install $floors 'httpx<0.28'
echo "tests of the model transports and of the stores on" $floors
# How tables grow is the servers' affair, and MariaDB has the driver that MySQL has.
chosen='(llm or server or postgres or mysql) and not (mariadb or test_migrations or test_provisioning)'
# shellcheck disable=SC2086
"$venv/bin/python" -m pytest --no-real -q -n auto --maxprocesses 4 --dist worksteal -k "$chosen" ${PYTEST_ARGS:-} \
    tests/runtime/llm tests/runtime/store tests/conformance
echo "left out here, because make test has them: SQLite, MariaDB, and how the tables are made and grow"
