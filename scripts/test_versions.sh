#!/bin/sh
# Runs the tests on several Pythons, each in its own environment:  scripts/test_versions.sh oldest newest | 3.11 3.12 ...
set -u
cd "$(dirname "$0")/.." || exit 1
here=$(sh scripts/pythons.sh)
# What processes leave when they die, and what servers make of it, does not depend on the Python that asks. What a Python
# does with a driver is held by one suite on one server, and by how connections fail.
chosen='not (postgres or mysql or mariadb) or (conformance and postgres) or test_server_connecting'
failed=
done=

for wanted in "$@"; do
    case "$wanted" in
    oldest) version=$(echo "$here" | sed -n '1s/ .*//p') ;;
    newest) version=$(echo "$here" | sed -n '$s/ .*//p') ;;
    *) version=$wanted ;;
    esac
    case " $done " in *" $version "*) continue ;; esac
    done="$done $version"
    if ! python=$(sh scripts/pythons.sh "$version"); then
        echo "Python $version is not on this machine." >&2
        failed="$failed $version"
        continue
    fi
    printf '\ntests on Python %s (%s)\n' "$version" "$python"
    venv=.venv-$version
    sh scripts/make_venv.sh "$python" "$venv" \
        && "$venv/bin/python" -m pip install --quiet --quiet --disable-pip-version-check --editable '.[all,test]' \
        && "$venv/bin/python" -m pytest --no-real -n auto --maxprocesses 4 --dist worksteal -q \
            --ignore tests/crash --ignore tests/testing/matrix --ignore tests/servers -k "$chosen" ${PYTEST_ARGS:-} \
        || failed="$failed $version"
done

if [ -n "$failed" ]; then
    echo "failed on Python$failed" >&2
    exit 1
fi
echo "passed on Python$done"
echo "left out here, because make test has them: the crash tests and the crash matrix, and the servers but for the conformance suite on PostgreSQL"
