#!/bin/sh
# Runs the tests of the model transports on the oldest SDKs that pyproject.toml allows, in an environment of their own.
set -eu
cd "$(dirname "$0")/.."
python=$(sh scripts/pythons.sh default)
venv=.venv-floors
sh scripts/make_venv.sh "$python" "$venv"
install="$venv/bin/python -m pip install --quiet --quiet --disable-pip-version-check"

$install --editable '.[test]'
floors=$("$venv/bin/python" - <<'PYTHON'
import importlib.metadata, re

for line in importlib.metadata.requires("power-loop"):
    found = re.match(r"([\w-]+).*>=([\d.]+).*extra == ['\"](openai|anthropic)['\"]", line)
    if found:
        print(f"{found[1]}=={found[2]}")
PYTHON
)
# httpx 0.28 dropped an argument that these SDKs still pass.
# shellcheck disable=SC2086
$install $floors 'httpx<0.28'
echo "tests of the model transports on" $floors
"$venv/bin/python" -m pytest --no-real -q tests/runtime/llm
