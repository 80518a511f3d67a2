"""Reads a unified diff as models write it: what is unambiguous is taken, whatever its headers and counts say.

Taken are diffs with and without `diff --git` lines and `a/`, `b/` prefixes; counts and line numbers that are wrong or
missing; an empty line where a context line of one space was meant; a fence of backticks around the whole. What a hunk
removes and keeps has to be in the file to the letter.
"""

from __future__ import annotations

import re

from power_loop.contracts.errors import ToolError
from power_loop.contracts.frozen import frozen

# A patch is what a model writes in one reply.
MAX_PATCH_CHARS = 2_000_000
_HUNK = re.compile(r"@@+(?: -(\d+)(?:,(\d+))? \+(\d+)(?:,(\d+))?)?.*")
_NOTHING = "/dev/null"
_REFUSED = ("GIT binary patch", "Binary files ")
_UNNAMED = "the patch changes a file whose name it does not say: put '--- a/NAME' and '+++ b/NAME' before its hunks"


@frozen
class Hunk:
    """Is one change: the lines that are there, and those that stand in their place.

    `first` is the number of its first line in the old file as its header has it, None where it has none. `old_at_end`
    and `new_at_end` tell that the last line is the last of the file and has no line end, `header` is for messages.
    """

    header: str
    first: int | None
    old: tuple[str, ...]
    new: tuple[str, ...]
    old_at_end: bool = False
    new_at_end: bool = False


@frozen
class FilePatch:
    """Is what a patch does to one file: `old` None makes it, `new` None deletes it, two names rename it."""

    old: str | None
    new: str | None
    hunks: tuple[Hunk, ...]
    is_executable: bool | None = None

    @property
    def shown(self) -> str:
        """The name for messages."""
        return self.new or self.old or ""


def read_patch(text: str) -> tuple[FilePatch, ...]:
    """Return the changes of a patch, file by file. Raises `tool.failed` with what is wrong and where."""
    if len(text) > MAX_PATCH_CHARS:
        raise ToolError(f"the patch has {len(text):,} characters, and {MAX_PATCH_CHARS:,} are taken: give several")
    if text.lstrip().startswith("*** Begin Patch"):
        raise ToolError("the patch is no unified diff: write '--- a/NAME', '+++ b/NAME' and '@@ -1,3 +1,4 @@' hunks")
    lines = text.split("\n")
    if lines and lines[-1] == "":
        lines.pop()
    patches = _Reader(_unfenced(lines)).read()
    if not patches:
        raise ToolError("the patch changes nothing: write '--- a/NAME', '+++ b/NAME' and '@@ -1,3 +1,4 @@' hunks")
    return tuple(patches)


def _unfenced(lines: list[str]) -> list[str]:
    first = next((at for at, line in enumerate(lines) if line.strip()), 0)
    if lines and lines[first].startswith("```"):
        last = max(at for at, line in enumerate(lines) if line.strip())
        end = last if last > first and lines[last].strip() == "```" else last + 1
        return lines[first + 1 : end]
    return lines


class _Reader:
    """Goes through the lines of a patch once."""

    __slots__ = ("_at", "_lines", "_patches")

    def __init__(self, lines: list[str]) -> None:
        self._lines = lines
        self._at = 0
        self._patches: list[FilePatch] = []

    def read(self) -> list[FilePatch]:
        while self._at < len(self._lines):
            line = self._lines[self._at]
            if line.startswith("diff --git ") or self._is_file_header(self._at):
                self._patches.append(self._file())
            elif line.startswith("@@"):
                raise ToolError(f"line {self._at + 1}: {_UNNAMED}")
            else:  # what stands between files: a commit message, a sentence
                self._at += 1
        return self._patches

    def _is_file_header(self, at: int) -> bool:
        pair = self._lines[at : at + 2]
        return len(pair) == 2 and pair[0].startswith("--- ") and pair[1].startswith("+++ ")

    def _file(self) -> FilePatch:
        """Read one file's part: git's lines, if any, then the names, if any, then the hunks."""
        said: dict[str, str] = {}
        start = self._at
        if self._lines[self._at].startswith("diff --git "):
            self._at += 1
            self._git_lines(said)
        old = new = None
        has_names = self._at < len(self._lines) and self._is_file_header(self._at)
        if has_names:
            old = _name(self._lines[self._at][4:], "a/")
            new = _name(self._lines[self._at + 1][4:], "b/")
            self._at += 2
        else:
            old, new = _git_names(self._lines[start], said)
        if "rename to" in said:
            old, new = _plain(said["rename from"]) if "rename from" in said else old, _plain(said["rename to"])
        if old is None and new is None:
            raise ToolError(f"line {start + 1}: {_UNNAMED}")
        hunks: list[Hunk] = []
        while self._at < len(self._lines):
            if self._lines[self._at].startswith("@@"):
                hunks.append(self._hunk())
            elif not self._lines[self._at].strip():
                self._at += 1
            else:
                break
        if not hunks and not said:
            raise ToolError(f"the patch of {new or old!r} has no hunk: write one as '@@ -1,3 +1,4 @@' and its lines")
        return FilePatch(old, new, tuple(hunks), _executable(said))

    def _git_lines(self, said: dict[str, str]) -> None:
        while self._at < len(self._lines):
            line = self._lines[self._at]
            if line.startswith(("@@", "diff --git ")) or self._is_file_header(self._at):
                return
            if line.startswith(_REFUSED):
                raise ToolError(f"line {self._at + 1}: the patch is binary: write the file with bash")
            for key in ("rename from", "rename to", "new file mode", "deleted file mode", "new mode", "copy from"):
                if line.startswith(key + " "):
                    said[key] = line[len(key) + 1 :].rstrip("\r")
            if "copy from" in said:
                raise ToolError(f"line {self._at + 1}: the patch copies a file: write the copy as a new file")
            self._at += 1

    def _hunk(self) -> Hunk:
        header = self._lines[self._at].rstrip("\r")
        match = _HUNK.fullmatch(header)
        numbers = match.groups() if match is not None else (None, None, None, None)
        self._at += 1
        body = self._counted(numbers)
        if body is None:
            body = self._until_header()
        return _hunk_of(header, numbers[0], body)

    def _counted(self, numbers: tuple[str | None, ...]) -> list[str] | None:
        """Return the lines that the header counts, if what follows them is no line of a hunk; else None."""
        if numbers[0] is None:
            return None
        old, new = (int(count) if count is not None else 1 for count in (numbers[1], numbers[3]))
        at = self._at
        while old > 0 or new > 0:
            if at == len(self._lines):
                return None
            mark = self._lines[at][:1]
            if mark not in (" ", "", "+", "-", "\\", "\r"):
                return None
            old -= mark in (" ", "", "-", "\r")
            new -= mark in (" ", "", "+", "\r")
            at += 1
        if at < len(self._lines) and self._lines[at].startswith("\\"):
            at += 1
        is_end = at == len(self._lines) or not self._lines[at].strip()
        is_end = is_end or self._begins_something(at) or self._is_file_header(at)
        if old < 0 or new < 0 or not is_end:
            return None
        body = self._lines[self._at : at]
        self._at = at
        return body

    def _until_header(self) -> list[str]:
        """Return the lines up to what is none of a hunk."""
        start = self._at
        while self._at < len(self._lines) and not self._begins_something(self._at):
            if self._lines[self._at][:1] not in (" ", "", "+", "-", "\\", "\r"):
                break
            self._at += 1
        body = self._lines[start : self._at]
        while body and not body[-1].strip("\r"):  # empty lines between two files
            body.pop()
        return body

    def _begins_something(self, at: int) -> bool:
        line = self._lines[at]
        if line.startswith(("@@", "diff --git ", "-- ")) and not line.startswith("--- "):
            return True
        return self._is_file_header(at) and self._lines[at + 2 : at + 3] != [] and self._lines[at + 2].startswith("@@")


def _hunk_of(header: str, first: str | None, body: list[str]) -> Hunk:
    old: list[str] = []
    new: list[str] = []
    old_at_end = new_at_end = False
    last = ""
    for line in body:
        mark, rest = line[:1], line[1:]
        if mark == "\\":
            old_at_end = old_at_end or last in (" ", "-")
            new_at_end = new_at_end or last in (" ", "+")
            continue
        last = mark if mark in ("+", "-") else " "
        if mark in ("", "\r"):
            rest = line
        if last != "+":
            old.append(rest)
        if last != "-":
            new.append(rest)
    if not old and not new:
        raise ToolError(f"the hunk {header!r} has no lines: begin each with a space, '-' or '+'")
    return Hunk(header, None if first is None else int(first), tuple(old), tuple(new), old_at_end, new_at_end)


def _git_names(line: str, said: dict[str, str]) -> tuple[str | None, str | None]:
    """Return the names of a `diff --git` line, for a part that has no others: both are the same there."""
    names = line[len("diff --git ") :].rstrip("\r")
    middle = len(names) // 2
    old, new = _plain(names[:middle]), _plain(names[middle + 1 :])
    old, new = old.removeprefix("a/"), new.removeprefix("b/")
    if old != new or names[middle : middle + 1] != " ":
        return None, None
    return None if "new file mode" in said else old, None if "deleted file mode" in said else new


def _name(text: str, prefix: str) -> str | None:
    """Return the name in a `---` or `+++` line, without prefix and time; None for no file."""
    name = text.split("\t")[0].strip()
    return None if name == _NOTHING else _plain(name).removeprefix(prefix)


def _plain(name: str) -> str:
    """Return a name without the quotes that git puts round one with unusual characters."""
    name = name.strip()
    if len(name) < 2 or name[0] != '"' or name[-1] != '"':
        return name
    try:
        return name[1:-1].encode("latin-1").decode("unicode_escape").encode("latin-1").decode()
    except UnicodeError:
        return name[1:-1]


def _executable(said: dict[str, str]) -> bool | None:
    mode = said.get("new file mode") or said.get("new mode")
    if mode is None or mode not in ("100644", "100755"):
        if mode is not None:
            raise ToolError(f"the patch makes something of the mode {mode!r}: only files (100644, 100755) are made")
        return None
    # A new file is no program unless it is said.
    return True if mode == "100755" else None if "new file mode" in said else False
