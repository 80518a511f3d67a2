"""Starts the processes of a crash matrix, and knows what became of each."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from power_loop.errors import ConfigError

# What does not end within so many seconds behind its owner is left behind; on a machine under load it takes some.
_ORPHANS_S = 30.0


class Nursery:
    """Is a process that forks others; one at a time asks it something."""

    def __init__(self, scheme: str, *references: str, environment: Mapping[str, str] | None = None) -> None:
        self.started = self.killed = 0
        self._loaded: set[str] = set()
        words = [sys.executable, "-c", _PROGRAM, json.dumps(sys.path), scheme, *references]
        self._process = subprocess.Popen(
            words,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **(environment or {})},
        )

    def start(self, job: Mapping[str, Any]) -> int:
        """Start a process and return its id."""
        self.started += 1
        pid: int = self._ask(job=dict(job))["pid"]
        return pid

    def wait(self, pid: int) -> dict[str, int]:
        """Wait until a process ends (`exit`: a code, or a signal's number below zero) or stops (`stopped`)."""
        told: dict[str, int] = self._ask(wait=pid)
        self.killed += told.get("exit") == -signal.SIGKILL
        return told

    def send_signal(self, pid: int, number: int) -> None:
        """Send a signal."""
        self._ask(signal=pid, number=int(number))

    def orphans(self) -> list[int]:
        """Return what is left of processes that have all ended, where the kernel tells: it gets the time in which the
        keeper of a program ends it."""
        told: list[int] = self._ask(orphans=_ORPHANS_S)["orphans"]
        return told

    def preload(self, modules: Sequence[str]) -> None:
        """Import what a process had imported at its end, so that the next ones have it."""
        self._ask(modules=[name for name in modules if name not in self._loaded and name != "__main__"])
        self._loaded.update(modules)

    def close(self) -> None:
        """End it and whatever it started."""
        self._process.communicate()

    def _ask(self, **asked: Any) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(asked) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except OSError:
            line = ""
        if not line:
            raise ConfigError(
                f"the process that starts the others ended with {self._process.wait()}: what it printed says why; the"
                " agent and its scenarios have to be importable there"
            )
        told: dict[str, Any] = json.loads(line)
        return told


_PROGRAM = (
    "import sys, json; sys.path[:] = json.loads(sys.argv[1]);"
    " from power_loop.testing.matrix.life import serve; serve(*sys.argv[2:])"
)
