"""Follows a tutorial as its reader would: from an empty folder, file by file and command by command, in one shell.

A block with a title is a file of that name, and is written when its turn comes. A `bash` block is typed into the page's
one shell; a `text` block right behind it is all that it prints, with `…` for what differs from day to day. What the
model answers stands hidden before a block, as on every page. `<!-- status: 137 -->` says how the block's last command
ends, and `<!-- not run: why -->` that a block is for the reader alone.
"""

from __future__ import annotations

import json
import os
import queue
import re
import secrets
import signal
import subprocess
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

# Far more than any block takes, on a machine that has much else to do.
BLOCK_LIMIT_S = 150.0

_BLOCK = re.compile(
    r"(?P<notes>(?:^<!-- (?:model|status|not run): .*? -->\s*\n)*)"
    r"^```(?P<language>\w+)(?: title=\"(?P<title>[^\"]+)\")?\n(?P<source>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
_NOTE = re.compile(r"<!-- (?P<kind>model|status|not run): (?P<text>.*?) -->", re.DOTALL)
# What a shell says of a command that was killed names the command and its place; a reader's says the last word only.
_KILLED = re.compile(r"^\S+: line \d+: +\d+ (?P<word>Killed|Terminated) .*$", re.MULTILINE)


@dataclass(frozen=True)
class Step:
    """Is one thing that the reader does: writes a file, or types commands and sees what they print."""

    line: int
    title: str | None
    source: str
    answers: list[Any]
    status: int
    expected: str | None


def steps_of(text: str) -> Iterator[Step]:
    """Yield the steps of a tutorial in order."""
    found = list(_BLOCK.finditer(text))
    for place, block in enumerate(found):
        notes = {note["kind"]: note["text"] for note in _NOTE.finditer(block["notes"])}
        if "not run" in notes or (block["title"] is None and block["language"] != "bash"):
            continue
        expected = None
        for behind in found[place + 1 : place + 2]:
            is_output = (behind["language"], behind["title"]) == ("text", None)
            if is_output and not text[block.end() : behind.start()].strip():
                expected = behind["source"]
        yield Step(
            line=text.count("\n", 0, block.start("source")) + 1,
            title=block["title"],
            source=block["source"],
            answers=json.loads(notes.get("model", "[]")),
            status=int(notes.get("status", "0")),
            expected=expected,
        )


def fits(expected: str, printed: str) -> bool:
    """Tell whether a text is what a page says, each `…` of which stands for any text."""
    pattern = ".*?".join(re.escape(part) for part in expected.strip().split("…"))
    return re.fullmatch(pattern, printed.strip(), re.DOTALL) is not None


class Shell:
    """Is one bash in a folder, which is given blocks one after the other; it ends with everything that it started."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self._folder = folder
        self._environment = {**os.environ, **environment, "PYTHONUNBUFFERED": "1", "NO_COLOR": "1", "COLUMNS": "100"}
        self._mark = f"-- {secrets.token_hex(8)}"
        self._lines: queue.Queue[str | None] = queue.Queue()

    def __enter__(self) -> Shell:
        self._process = subprocess.Popen(
            ["bash", "--noprofile", "--norc"],
            cwd=self._folder,
            env=self._environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        return self

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put(None)

    def run(self, source: str) -> tuple[int, str]:
        """Type a block; return the status of its last command, and all that was printed until it ended."""
        assert self._process.stdin is not None
        # A block that ends without a line's end would hide the mark; the empty line before it is taken off again.
        self._process.stdin.write(f"{source}\nprintf '\\n%s %s\\n' '{self._mark}' $?\n")
        self._process.stdin.flush()
        printed: list[str] = []
        while True:
            line = self._lines.get(timeout=BLOCK_LIMIT_S)
            assert line is not None, f"the shell ended: {''.join(printed)}"
            if line.startswith(self._mark):
                said = _KILLED.sub(lambda found: found["word"], "".join(printed))
                return int(line.removeprefix(self._mark)), said
            printed.append(line)

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._reader.join()
        self._process.stdin.close()
        self._process.stdout.close()
