"""Gives the command a real terminal: what it writes can be waited for, and keys can be pressed."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path
from types import TracebackType

# Long enough for a machine with much else to do; nobody waits that long where it works.
LIMIT_S = 90.0


class Terminal:
    """Is the command on a pseudo terminal of its own, as its controlling terminal."""

    def __init__(self, *arguments: str, folder: Path, environment: dict[str, str]) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 100, 0, 0))
        self.screen = ""
        self._read_to = 0
        self.process = subprocess.Popen(
            [sys.executable, "-m", "power_loop", *arguments],
            cwd=folder,
            env={**os.environ, "TERM": "xterm", "NO_COLOR": "1", **environment},
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(slave)

    def expect(self, text: str) -> str:
        """Wait for a text behind the last one that was waited for; return what stood before it."""
        until_s = time.monotonic() + LIMIT_S
        while text not in self.screen[self._read_to :]:
            if not self._read(until_s - time.monotonic()):
                raise AssertionError(f"{text!r} did not come; the screen is:\n{self.screen}")
        at = self.screen.index(text, self._read_to)
        before = self.screen[self._read_to : at]
        self._read_to = at + len(text)
        return before

    def press(self, keys: str) -> None:
        """Press keys."""
        os.write(self._master, keys.encode())

    def end(self) -> int:
        """Wait for the end of the process; return its status."""
        while self._read(LIMIT_S):
            pass
        return self.process.wait(LIMIT_S)

    def _read(self, within_s: float) -> bool:
        ready, _, _ = select.select([self._master], [], [], max(within_s, 0.0))
        if not ready:
            return False
        try:
            piece = os.read(self._master, 65_536)
        except OSError:
            return False  # the other end is closed
        self.screen += piece.decode("utf-8", "replace").replace("\r\n", "\n")
        return bool(piece)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        self.process.wait()
        os.close(self._master)
