"""Holds what several tests of the SQLite store need: bodies of transactions, and looks at threads and files."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from power_loop.runtime.store.sql.sqlite import SqliteDatabase


def put(word: str, *, key: int | None = None) -> Callable[[Any], Coroutine[Any, Any, str]]:
    async def body(tx: Any) -> str:
        await tx.execute("INSERT INTO t (id, word) VALUES (?, ?)", (key, word))
        return word

    return body


async def words(database: SqliteDatabase) -> list[str]:
    async def body(tx: Any) -> list[str]:
        return [word for (word,) in await tx.query("SELECT word FROM t ORDER BY id")]

    return await database.read(body)


def store_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("power-loop-store")]


#: Gives the threads of stores that were not there when the test began.
OwnThreads = Callable[[], list[threading.Thread]]


def open_files(folder: Path) -> int:
    """Count this process's descriptors on files of a folder; only where /proc tells."""
    count = 0
    for descriptor in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):
            count += os.readlink(f"/proc/self/fd/{descriptor}").startswith(str(folder))
    return count


class Points:
    """Notes the points around commits: `calls` is every (point, move), `commits` the moves of each COMMIT."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str]] = []
        self.commits: list[list[str]] = []
        self._is_after = True

    def __call__(self, point: str, move: str) -> None:
        self.calls.append((point, move))
        if point == "commit.before":
            if self._is_after:
                self.commits.append([])
            self.commits[-1].append(move)
        self._is_after = point == "commit.after"
