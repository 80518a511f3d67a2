"""Reads lines that a person types, or that a program gives, without ever holding up the event loop."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import sys
import threading
from collections import deque

if sys.platform != "win32":
    import termios

_PIECE_BYTES = 65_536


class Keyboard:
    """Gives the lines of standard input, which a thread of its own reads from the first `line` on.

    `is_terminal` tells whether a person types them and can be asked something.
    """

    def __init__(self) -> None:
        self.is_terminal = sys.stdin.isatty()
        self._fd = sys.stdin.fileno()
        # The lines that were read, and None behind the last one; of one that has not ended there is the rest.
        self._lines: deque[str | None] = deque()
        self._rest = b""
        self._has_more = asyncio.Event()
        # Held from the look into the terminal until what was there is among the lines: in between nobody could forget
        # it.
        self._taking = threading.Lock()
        self._thread: threading.Thread | None = None

    async def line(self, prompt: str = "") -> str | None:
        """Return the next line, None at the end; a person sees the prompt."""
        if self._thread is None:
            # It waits for input as long as the process lives, and nobody waits for it.
            here = asyncio.get_running_loop()
            self._thread = threading.Thread(target=self._read, args=(here,), name="keyboard", daemon=True)
            self._thread.start()
        if self.is_terminal:
            sys.stdout.write(prompt)
            sys.stdout.flush()
        while not self._lines:
            self._has_more.clear()
            await self._has_more.wait()
        return None if self._lines[0] is None else self._lines.popleft()

    def forget_typed(self) -> None:
        """Throw away what was typed before a question was seen: it is no answer to it."""
        if not self.is_terminal:
            return
        with self._taking:
            is_over = None in self._lines
            self._lines.clear()
            self._rest = b""
            if is_over:
                self._lines.append(None)
            if sys.platform != "win32":
                with contextlib.suppress(termios.error):
                    termios.tcflush(self._fd, termios.TCIFLUSH)

    def _read(self, loop: asyncio.AbstractEventLoop) -> None:
        # Windows cannot look without waiting.
        looks_first = self.is_terminal and sys.platform != "win32"
        has_more = True
        # Where the event loop is closed, nobody wants a line any more.
        with contextlib.suppress(RuntimeError):
            while has_more:
                has_more = self._take_typed() if looks_first else self._keep(self._piece())
                loop.call_soon_threadsafe(self._has_more.set)

    def _take_typed(self) -> bool:
        """Keep what is typed next; False at the end."""
        select.select([self._fd], [], [])
        with self._taking:
            # It may have been forgotten since.
            is_there = bool(select.select([self._fd], [], [], 0)[0])
            return self._keep(self._piece()) if is_there else True

    def _keep(self, piece: bytes) -> bool:
        """Keep the lines of a piece; False if it is empty, which is the end."""
        *lines, self._rest = (self._rest + piece).split(b"\n")
        if not piece and self._rest:
            lines.append(self._rest)
        self._lines += [_text(one) for one in lines]
        if not piece:
            self._lines.append(None)
        return bool(piece)

    def _piece(self) -> bytes:
        try:
            return os.read(self._fd, _PIECE_BYTES)
        except OSError:
            return b""  # the terminal is gone


def _text(line: bytes) -> str:
    return line.decode("utf-8", "replace").rstrip("\r")
