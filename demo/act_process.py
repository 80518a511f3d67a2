"""Runs one act of the demo as a process of its own and hands its facts on as they come."""

from __future__ import annotations

import json
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
_ERROR_CHARS = 3000


class ActFailedError(Exception):
    """Says that an act ended otherwise than it should, with its last words."""


class ActProcess:
    """`python -m demo.acts NAME`, run in the demo's folder: a context manager that leaves no process behind.

    An act that waits to be killed waits for the end of its standard input, so it ends with its parent.
    """

    def __init__(
        self, name: str, *arguments: str, folder: Path, environment: Mapping[str, str], limit_s: float = 60.0
    ) -> None:
        self._name = name
        self._arguments = arguments
        self._folder = folder
        self._environment = dict(environment)
        self._limit_s = limit_s
        self._facts: queue.SimpleQueue[str | None] = queue.SimpleQueue()

    def __enter__(self) -> ActProcess:
        self._errors = (self._folder / f"{self._name}.log").open("w+", encoding="utf-8")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "demo.acts", self._name, *self._arguments],
            cwd=self._folder,
            env={**self._environment, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            encoding="utf-8",
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self._deadline_s = time.monotonic() + self._limit_s
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        self._reader.join()
        for stream in (self._process.stdin, self._process.stdout, self._errors):
            if stream is not None:
                stream.close()

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def facts(self) -> Iterator[dict[str, Any]]:
        """Yield what the act tells until it ends. Raises ActFailedError if it takes too long or fails."""
        while True:
            try:
                line = self._facts.get(timeout=max(0.0, self._deadline_s - time.monotonic()))
            except queue.Empty:
                raise ActFailedError(f"the act {self._name!r} took more than {self._limit_s:.0f} s") from None
            if line is None:
                break
            yield json.loads(line)
        code = self._process.wait()
        if code != 0:
            raise ActFailedError(f"the act {self._name!r} failed (exit code {code}):\n{self._last_words()}")

    def kill(self) -> signal.Signals:
        """Kill it as `kill -9` does; return the signal that ended it, as the system tells."""
        self._process.send_signal(signal.SIGKILL)
        return signal.Signals(-self._process.wait())

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._facts.put(line)
        self._facts.put(None)

    def _last_words(self) -> str:
        self._errors.seek(0)
        return self._errors.read()[-_ERROR_CHARS:].strip()
