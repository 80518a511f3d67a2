#!/bin/sh
# Brings bubblewrap, in which the commands of agents are run, where it is missing:  scripts/install_sandbox.sh
#
# Whether it works is another matter: it needs user namespaces, which some containers and kernels refuse. What cannot be
# had is said in one line, with status 1; the tests of the sandbox are skipped then, and say so.
set -u

sh "$(dirname "$0")/install_program.sh" bwrap bubblewrap || exit 1
if why=$(bwrap --unshare-all --ro-bind / / true 2>&1); then
    echo "sandbox: $(bwrap --version)"
else
    echo "sandbox: $(bwrap --version) makes no sandbox here: $why" >&2
    exit 1
fi
