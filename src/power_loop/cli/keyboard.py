"""Reads lines that a person types, or that a program gives, without ever holding up the event loop."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import threading

_PIECE_BYTES = 65_536


class Keyboard:
    """Gives the lines of standard input, which a thread of its own reads from the first `line` on.

    `is_terminal` tells whether a person types them and can be asked something.
    """

    def __init__(self) -> None:
        self.is_terminal = sys.stdin.isatty()
        self._fd = sys.stdin.fileno()
        self._lines: asyncio.Queue[str | None] = asyncio.Queue()
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
        found = await self._lines.get()
        if found is None:
            self._lines.put_nowait(None)
        return found

    def forget_typed(self) -> None:
        """Throw away what was typed before a question was seen: it is no answer to it."""
        if not self.is_terminal:
            return
        is_over = False
        while not self._lines.empty():
            is_over = self._lines.get_nowait() is None or is_over
        if is_over:
            self._lines.put_nowait(None)
        with contextlib.suppress(ImportError, OSError):
            import termios

            with contextlib.suppress(termios.error):
                termios.tcflush(self._fd, termios.TCIFLUSH)

    def _read(self, loop: asyncio.AbstractEventLoop) -> None:
        rest = b""
        # Where the event loop is closed, nobody wants a line any more.
        with contextlib.suppress(RuntimeError):
            while piece := self._piece():
                *lines, rest = (rest + piece).split(b"\n")
                for one in lines:
                    loop.call_soon_threadsafe(self._lines.put_nowait, _text(one))
            if rest:
                loop.call_soon_threadsafe(self._lines.put_nowait, _text(rest))
            loop.call_soon_threadsafe(self._lines.put_nowait, None)

    def _piece(self) -> bytes:
        try:
            return os.read(self._fd, _PIECE_BYTES)
        except OSError:
            return b""  # the terminal is gone


def _text(line: bytes) -> str:
    return line.decode("utf-8", "replace").rstrip("\r")
