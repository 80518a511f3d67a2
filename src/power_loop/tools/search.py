"""Lets a model find files by their names and lines by their text."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from enum import Enum
from typing import Annotated

from power_loop.contracts.errors import ToolError
from power_loop.contracts.tools import ToolContext, ToolDefinition
from power_loop.runtime.host.files import STAGED_PREFIX, read_entry, read_file
from power_loop.runtime.host.paths import Entry, PathGuard, Place, missing
from power_loop.runtime.host.ripgrep import files_with
from power_loop.tools.decorator import tool
from power_loop.tools.line_patterns import LinePattern, OutOfSteps
from power_loop.tools.name_patterns import NamePattern
from power_loop.tools.numbered_lines import PAGE_CHARS, short_line
from power_loop.tools.one_line import one_line
from power_loop.tools.text_files import decode, is_binary

# A line of a hit is shown so far.
_MAX_HIT_CHARS = 300
# Below this much text a search is over before another program has started.
_WORTH_RIPGREP_BYTES = 20_000_000
_MIN_LITERAL_CHARS = 3


class GrepOutput(str, Enum):
    """Is what a search shows of what it finds."""

    LINES = "lines"
    FILES = "files"


def glob_tool(guard: PathGuard) -> ToolDefinition:
    """Return `glob`, which lists paths that match a pattern."""

    @tool(effect="read")
    def glob(
        context: ToolContext,
        pattern: Annotated[str, "Such as *.py (any depth), src/*.py (in src only) or src/**/test_*.{py,txt}."],
        path: Annotated[str, "Folder to begin at."] = ".",
    ) -> str:
        """Find files and folders by name. Folders end in a slash; .git, node_modules and the like are left out."""
        names = NamePattern(pattern)
        place = guard.find(path)
        search = _Search(guard, context)
        found = [
            _shown(place, entry) + ("/" if entry.is_folder else "")
            for entry in search.entries(place)
            if names.matches(entry.parts)
        ]
        return search.answer(sorted(found), "path")

    return glob


def grep_tool(guard: PathGuard) -> ToolDefinition:
    """Return `grep`, which lists lines that match a regular expression."""

    @tool(effect="read")
    def grep(
        context: ToolContext,
        pattern: Annotated[str, "A regular expression (JavaScript's), matched against single lines."],
        path: Annotated[str, "Folder or file to search."] = ".",
        glob: Annotated[str | None, "Search only files that match, such as *.py."] = None,
        output: Annotated[GrepOutput, "Show matching lines, or only the files that have one."] = GrepOutput.LINES,
        ignore_case: bool = False,
        literal: Annotated[bool, "Take the pattern as plain text."] = False,
    ) -> str:
        """Search the text of files. Hits are shown as path:line number:line."""
        wanted = LinePattern(pattern, is_literal=literal, ignores_case=ignore_case)
        names = None if glob is None else NamePattern(glob)
        place = guard.find(path)
        search = _Search(guard, context)
        lines: list[str] = []
        for shown, text in search.texts(place, names, wanted.literal):
            try:
                for number, line in wanted.search(text):
                    if output is GrepOutput.FILES:
                        lines.append(shown)
                        break
                    lines.append(f"{shown}:{number}:{short_line(line, _MAX_HIT_CHARS)}")
                    if len(lines) > search.max_results:
                        break
            except OutOfSteps:
                search.said.append(f"{shown} has a line on which the pattern takes too long")
            if len(lines) > search.max_results:
                search.said.append("there are more hits")
                break
        return search.answer(lines, "hit")

    return grep


class _Search:
    """Is one search: what it may still take, and what it has to say of what it left out."""

    __slots__ = ("_context", "_deadline", "_guard", "_left", "_limits", "max_results", "said")

    def __init__(self, guard: PathGuard, context: ToolContext) -> None:
        self._guard = guard
        self._context = context
        self._limits = guard.env.limits
        self._left = self._limits.max_entries
        self._deadline = time.monotonic() + self._limits.max_search_s
        self.max_results = self._limits.max_results
        self.said: list[str] = []

    def entries(self, place: Place) -> Iterator[Entry]:
        """Yield what is below a folder, within the limits."""
        if place.status is None:
            raise missing(place.directory, place.name, place.shown, is_folder=True)
        for entry in self._guard.walk(place, skips=frozenset(self._guard.env.unsearched)):
            if not self._goes_on():
                return
            if not entry.name.startswith(STAGED_PREFIX):
                yield entry

    def texts(self, place: Place, names: NamePattern | None, literal: str) -> Iterator[tuple[str, str]]:
        """Yield each text file with its text, in order."""
        limit = self._limits.max_read_bytes
        if place.status is not None and not place.is_folder:
            content = read_file(place, max_bytes=limit, advice="search it with bash")
            yield place.shown, decode(content.data, place.shown).text
            return
        if place.status is None:
            raise missing(place.directory, place.name, place.shown, is_folder=True)
        found = [
            (_shown(place, entry), entry.parts, entry.status.st_size)
            for entry in self.entries(place)
            if entry.is_file and (names is None or names.matches(entry.parts))
        ]
        narrowed = self._narrowed(place, sum(size for _, _, size in found), literal)
        for shown, parts, size in sorted(found):
            if size > limit:
                self.said.append(f"{shown} has more than {limit:,} bytes and was left out")
            elif size and (narrowed is None or "/".join(parts) in narrowed):
                if not self._goes_on():
                    return
                text = self._text(place, parts, shown)
                if text is not None:
                    yield shown, text

    def _narrowed(self, place: Place, size: int, literal: str) -> frozenset[str] | None:
        """Return the only files that can have a hit, where finding them out is worth it."""
        is_plain = len(literal) >= _MIN_LITERAL_CHARS and literal.isascii()
        if size < _WORTH_RIPGREP_BYTES or not is_plain:
            return None
        folder = os.path.join(self._guard.env.workspace, place.shown)
        return files_with(self._guard.env, folder, literal, timeout_s=max(self._deadline - time.monotonic(), 0.1))

    def _text(self, place: Place, parts: tuple[str, ...], shown: str) -> str | None:
        """Return the text of a file below a folder; None for what is none, or has gone."""
        try:
            directory = place.folder()
            for name in parts[:-1]:
                directory = directory.enter(name)
            content = read_entry(directory, parts[-1], shown, max_bytes=self._limits.max_read_bytes, advice="")
            return None if is_binary(content.data) else decode(content.data, shown).text
        except (OSError, ToolError):
            return None

    def _goes_on(self) -> bool:
        """Tell whether there is time and room to look at one thing more; say it once if there is not."""
        self._left -= 1
        if self._left < 0:
            self.said.append(f"only the first {self._limits.max_entries:,} files and folders were looked at")
        elif time.monotonic() > self._deadline or self._context.cancellation.is_cancelled:
            self.said.append(f"the search ended after {self._limits.max_search_s:g} seconds")
        else:
            return True
        return False

    def answer(self, lines: list[str], what: str) -> str:
        """Return what was found, as much as is shown of it, with what was left out."""
        shown: list[str] = []
        room = PAGE_CHARS
        for line in lines[: self.max_results]:
            room -= len(line) + 1
            if room < 0:
                break
            shown.append(line)
        if len(shown) < len(lines):
            self.said.insert(0, f"the first {len(shown)} are shown: narrow the path, the pattern or the glob")
        text = "\n".join(shown) or f"(no {what} found)"
        notes = self.said[:5]
        return f"{text}\n({'; '.join(notes)})" if notes else text


def _shown(place: Place, entry: Entry) -> str:
    """Return the path of an entry; a name that could be taken for more than one, or that is none in UTF-8, is
    quoted."""
    path = "/".join(entry.parts if place.shown == "." else (place.shown, *entry.parts))
    if path.isprintable():
        return path
    return one_line(os.fsencode(path).decode("utf-8", "backslashreplace"))
