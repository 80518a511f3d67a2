"""Runs the `power-loop` command as `python -m power_loop`."""

from __future__ import annotations

import sys

from power_loop.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
