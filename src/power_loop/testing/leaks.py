"""Fails a test that leaves something behind: a task, a thread, a child process, a descriptor, a file."""

from __future__ import annotations

import asyncio
import gc
import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType

from power_loop.testing.belongings import Belongings, Found, Leak, LeakKind
from power_loop.tools import choice_of

#: How long things that are on their way out may take, in seconds.
_WITHIN_S = 5.0
# Looks come soon at first and then seldom, in seconds.
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.001, 0.05


class LeakError(AssertionError):
    """Says what was left behind; `leaks` holds each thing."""

    def __init__(self, leaks: Iterable[Leak], unchecked: Iterable[str] = ()) -> None:
        self.leaks = tuple(leaks)
        count = len(self.leaks)
        lines = [f"{count} {'thing was' if count == 1 else 'things were'} left behind:", *map(str, self.leaks)]
        super().__init__("\n".join([*lines, *(f"not checked here: {one}" for one in unchecked)]))


class leak_check:  # noqa: N801 - it is used as a function
    """Checks that a block leaves nothing behind, in `with` or `async with`.

        async with leak_check():
            async with StatefulAgentLoop(llm=llm, dsn="app.db", tool_registry=tools) as loop:
                await loop.send("Hi.", session_id=await loop.new_session())

    At the block's end it looks at what there is that was not there before. What is on its way out has `within_s`
    seconds for it; then a `LeakError` names each thing that is left, and where it stands if that is known. An error of
    the block itself goes on as it is. Tasks are those of the running event loop: only `async with` lets them end.

    `kinds` are the kinds to look at (default: tasks, threads, child processes and their children, descriptors), and
    files in `folders` and below if there are any. `ignore` holds texts: what has one of them in its description may
    stay. `unchecked` says what this system does not show, so that it was not checked: without a `/proc`, child
    processes are not. Raises `config.invalid`.
    """

    def __init__(
        self,
        *,
        kinds: Iterable[LeakKind | str] = (LeakKind.TASK, LeakKind.THREAD, LeakKind.CHILD, LeakKind.DESCRIPTOR),
        folders: Iterable[str | os.PathLike[str]] = (),
        within_s: float = _WITHIN_S,
        ignore: Iterable[str] = (),
        proc: str | os.PathLike[str] = "/proc",
    ) -> None:
        paths = [Path(one) for one in folders]
        wanted = {choice_of(LeakKind, one, "the kind of leaks to look for") for one in kinds}
        wanted |= {LeakKind.FILE} if paths else set()
        self._belongings = Belongings(wanted, folders=paths, proc=Path(proc))
        self._within_s = within_s
        self._ignore = (ignore,) if isinstance(ignore, str) else tuple(ignore)
        self._before: Found = {}
        self._leaks: list[Leak] = []
        #: What was not checked, and why.
        self.unchecked = self._belongings.unchecked

    def __enter__(self) -> leak_check:
        self._before = self._belongings.look()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            return
        for pause_s in self._pauses():
            time.sleep(pause_s)
        self._fail_on_leaks()

    async def __aenter__(self) -> leak_check:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            return
        for pause_s in self._pauses():
            await asyncio.sleep(pause_s)
        self._fail_on_leaks()

    def _pauses(self) -> Iterator[float]:
        """Give pauses to make as long as something is left that may still go."""
        self._leaks = self._left()
        if not self._leaks:
            return
        # What only a cycle of garbage holds is nobody's any more.
        gc.collect()
        until_s, pause_s = time.monotonic() + self._within_s, 0.0
        while True:
            self._leaks = self._left()
            if not self._leaks or time.monotonic() >= until_s:
                return
            yield pause_s
            pause_s = min(max(pause_s * 2, _FIRST_PAUSE_S), _LONGEST_PAUSE_S)

    def _left(self) -> list[Leak]:
        found = self._belongings.look()
        leaks = [describe() for one, describe in found.items() if one not in self._before]
        return [one for one in leaks if not any(text in str(one) for text in self._ignore)]

    def _fail_on_leaks(self) -> None:
        if self._leaks:
            raise LeakError(self._leaks, self.unchecked)
