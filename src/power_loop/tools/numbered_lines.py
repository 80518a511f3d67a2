"""Shows lines of a text with their numbers, a page at a time."""

from __future__ import annotations

from power_loop.contracts.errors import ToolError
from power_loop.contracts.frozen import frozen
from power_loop.tools.text_files import visible

#: Characters of one page: with the sentence behind it, it fits into what a model is shown of a result.
PAGE_CHARS = 28_000


@frozen
class AtLeast:
    """Is a bound for the schema of a number."""

    ge: int


def lines_of(text: str) -> list[str]:
    """Return the lines of a text without their ends; a last one that is empty is none."""
    lines = text.split("\n")
    if lines[-1] == "":
        lines.pop()
    return lines


def page(text: str, *, first: int, max_lines: int, max_line_chars: int) -> tuple[str, int, int]:
    """Return lines from the number `first` on with their numbers, the number of the last, and how many there are."""
    lines = lines_of(text)
    shown: list[str] = []
    room = PAGE_CHARS
    for number, line in enumerate(lines[first - 1 : first - 1 + max_lines], first):
        one = f"{number}\t{short_line(line, max_line_chars)}"
        room -= len(one) + 1
        if room < 0 and shown:
            break
        shown.append(one)
    return "\n".join(shown), first + len(shown) - 1, len(lines)


def shown_page(text: str, name: str, *, offset: int, max_lines: int, max_line_chars: int) -> str:
    """Return what a model is shown of a file from the line `offset` on, with how to go on. Raises `tool.failed` behind
    its end."""
    if not text:
        return "(the file is empty)"
    shown, last, total = page(text, first=offset, max_lines=max_lines, max_line_chars=max_line_chars)
    if last < offset:
        raise ToolError(f"{name!r} has {total:,} lines: give an offset from 1 to {total}")
    if offset == 1 and last == total:
        return shown
    rest = f"go on with offset={last + 1}" if last < total else "this is the end"
    return f"{shown}\n(lines {offset:,} to {last:,} of {total:,}: {rest})"


def short_line(line: str, max_chars: int) -> str:
    """Return a line as a model is shown it, cut where it is too long."""
    line = line[:-1] if line.endswith("\r") else line
    if len(line) > max_chars:
        return f"{visible(line[:max_chars])}… (cut: the line has {len(line):,} characters)"
    return visible(line)
