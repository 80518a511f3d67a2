"""Shows the demo: ANSI in a terminal, plain text in a pipe or under NO_COLOR, never wider than 92 columns."""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
from collections.abc import Mapping, Sequence
from typing import TextIO

# Wider lines are hard to read, narrower terminals wrap worse than we do.
MAX_COLUMNS = 92
MIN_COLUMNS = 60
_INDENT = "  "
_WHO_COLUMNS = 11

_STYLES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "teal": "36"}
_ASCII = {
    "─": "-",
    "│": "|",
    "✓": "+",
    "✗": "x",
    "·": "-",
    "→": "->",
    "█": "#",
    "░": ".",
    "…": "...",
    "×": "x",
    "“": '"',
    "”": '"',
    "’": "'",
}


class Screen:
    """Prints the parts of a demo to one stream.

    Colour needs a terminal and an unset NO_COLOR; glyphs beyond ASCII need a stream that can encode them.
    """

    def __init__(self, stream: TextIO | None = None, environment: Mapping[str, str] | None = None) -> None:
        self._stream = stream if stream is not None else sys.stdout
        self.environment = dict(os.environ if environment is None else environment)
        self.is_terminal = self._stream.isatty() and self.environment.get("TERM") != "dumb"
        self._has_colour = self.is_terminal and not self.environment.get("NO_COLOR")
        self._has_progress = False
        columns = shutil.get_terminal_size((MAX_COLUMNS, 24)).columns if self.is_terminal else MAX_COLUMNS
        self.columns = max(MIN_COLUMNS, min(MAX_COLUMNS, columns - 1))
        self._table = {} if _can_encode(self._stream) else {ord(glyph): plain for glyph, plain in _ASCII.items()}

    def style(self, text: str, *names: str) -> str:
        """Return `text` in these styles, or as it is where there is no colour."""
        if not self._has_colour or not text:
            return text
        codes = ";".join(_STYLES[name] for name in names)
        return f"\033[{codes}m{text}\033[0m"

    def line(self, text: str = "") -> None:
        """Print one line as it is."""
        self.clear_progress()
        self._write(f"{text}\n")

    def title(self, name: str, claim: str) -> None:
        """Open the demo."""
        self.line()
        self.line(f"{_INDENT}{self.style(name, 'bold', 'teal')}  {self.style(claim, 'dim')}")
        self.line(f"{_INDENT}{self.style('─' * (self.columns - 2 * len(_INDENT)), 'dim')}")

    def heading(self, number: int, text: str) -> None:
        """Open a part."""
        self.line()
        self.line(f"{_INDENT}{self.style(str(number), 'bold', 'teal')}  {self.style(text, 'bold')}")

    def note(self, text: str) -> None:
        """Print a paragraph of explanation."""
        for row in self._wrap(text, self.columns - 5):
            self.line(f"     {self.style(row, 'dim')}")

    def code(self, source: str) -> None:
        """Print lines of code behind a bar."""
        for row in source.splitlines():
            self.line(f"   {self.style('│', 'teal')} {row}")
        self.line()

    def says(self, who: str, text: str, *, style: str = "", rows_at_most: int | None = None) -> None:
        """Print what somebody says, wrapped beside the name; more than `rows_at_most` rows are cut."""
        name = self.style(who.ljust(_WHO_COLUMNS), style) if style else who.ljust(_WHO_COLUMNS)
        rows = self._wrap(text, self.columns - 5 - _WHO_COLUMNS) or [""]
        if rows_at_most is not None and len(rows) > rows_at_most:
            rows = [*rows[: rows_at_most - 1], f"{rows[rows_at_most - 1]} …"]
        for index, row in enumerate(rows):
            self.line(f"     {name if index == 0 else ' ' * _WHO_COLUMNS}{row}")

    def table(self, head: Sequence[str], rows: Sequence[Sequence[str]], *, marked: int | None = None) -> None:
        """Print rows under a head, the last column cut to fit; the row `marked` stands out."""
        sizes = [max(len(row[place]) for row in (head, *rows)) for place in range(len(head))]
        room = self.columns - 5 - sum(sizes[:-1]) - 2 * (len(head) - 1)
        for index, row in enumerate((head, *rows)):
            *first, last = row
            cells = [cell.ljust(size) for cell, size in zip(first, sizes, strict=False)]
            text = "  ".join([*cells, _cut(last, room)]).rstrip()
            if index == 0:
                self.line(f"     {self.style(text, 'dim')}")
            else:
                self.line(f"     {self.style(text, 'bold', 'yellow') if index - 1 == marked else text}")

    def done(self, text: str) -> None:
        """Print something that holds."""
        self._marked("✓", "green", text)

    def failed(self, text: str) -> None:
        """Print something that does not hold."""
        self._marked("✗", "red", text)

    def killed(self, text: str) -> None:
        """Print the kill."""
        self.clear_progress()
        self.line(f"     {self.style('✗', 'bold', 'red')} {self.style(text, 'bold', 'red')}")

    def error(self, text: str) -> None:
        """Print why the demo cannot go on."""
        self.clear_progress()
        self.line()
        for index, row in enumerate(text.splitlines()):
            self.line(f"{_INDENT}{self.style('✗', 'red') + ' ' if index == 0 else '  '}{row}")

    def progress(self, what: str, fraction: float, detail: str) -> None:
        """Redraw one line that tells how far something is; nothing in a pipe."""
        if not self.is_terminal:
            return
        width = 24
        filled = round(fraction * width)
        bar = self.style("█" * filled, "teal") + self.style("░" * (width - filled), "dim")
        self._write(f"\r\033[2K{_INDENT}{what}  {bar}  {detail}")
        self._has_progress = True

    def clear_progress(self) -> None:
        """Take the progress line away."""
        if self._has_progress:
            self._has_progress = False
            self._write("\r\033[2K")

    def _marked(self, glyph: str, colour: str, text: str) -> None:
        self.clear_progress()
        for index, row in enumerate(self._wrap(text, self.columns - 7)):
            self.line(f"     {self.style(glyph, colour) if index == 0 else ' '} {row}")

    def _wrap(self, text: str, columns: int) -> list[str]:
        rows: list[str] = []
        for paragraph in text.splitlines():
            rows += textwrap.wrap(paragraph, columns, break_on_hyphens=False) or [""]
        return rows

    def _write(self, text: str) -> None:
        self._stream.write(text.translate(self._table) if self._table else text)
        self._stream.flush()


def _can_encode(stream: TextIO) -> bool:
    """Return whether the stream takes the glyphs that are drawn with."""
    try:
        "".join(_ASCII).encode(stream.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def _cut(text: str, columns: int) -> str:
    """Return `text` on one line and no longer than `columns`."""
    line = " ".join(text.split())
    return line if len(line) <= columns else f"{line[: max(0, columns - 1)]}…"
