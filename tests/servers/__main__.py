"""Prints which database servers are here; with `--missing` only the names of those that are not."""

import sys

from tests.servers.kinds import find_servers

for kind in find_servers():
    if "--missing" not in sys.argv:
        print(kind)
    elif kind.missing is not None:
        print(kind.name)
