"""Runs one case of the published suite on a kernel that is broken in one way, in a process of its own.

`python -m tests.crash.conform MUTANT ROOM CASE FOLDER` ends with 1 where the case fails.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from power_loop import SessionStore, open_store
from power_loop.testing.conformance import cases
from power_loop.timers import Clock
from tests.crash.mutants import MUTANTS


class File:
    """Is a fresh SQLite file."""

    def __init__(self, folder: Path) -> None:
        self.path = str(folder / "app.db")

    async def open(self, clock: Clock) -> SessionStore:
        return await open_store(self.path, clock=clock)


def main() -> None:
    """Break the kernel and run."""
    mutant, room, name, folder = sys.argv[1:]
    if mutant:
        MUTANTS[mutant]()
    [case] = [case for case in cases(room) if case.name == name]
    try:
        asyncio.run(case.run(File(Path(folder))))
    except AssertionError as error:
        print(f"{case}: {error}")
        sys.exit(1)


if __name__ == "__main__":
    main()
