"""Lets a model change several files with one unified diff, all of them or none."""

from __future__ import annotations

from typing import Annotated

from power_loop.contracts.errors import ToolError
from power_loop.contracts.frozen import frozen
from power_loop.contracts.tools import ToolContext, ToolDefinition
from power_loop.runtime.host.files import Change, FileContent, Staging, digest_of, read_file
from power_loop.runtime.host.paths import PathGuard, Place, missing
from power_loop.tools.decorator import tool
from power_loop.tools.known_files import check_known, forget, remember
from power_loop.tools.numbered_lines import short_line
from power_loop.tools.patch_text import FilePatch, Hunk, read_patch
from power_loop.tools.text_files import FileText, TextForm, check_text, decode

# Lines of the file that a failed hunk is shown.
_SHOWN_LINES = 8
_SHOWN_LINE_CHARS = 200
_MAX_NUMBERS = 10
# Comparisons of lines for one hunk: a second of them.
_MAX_COMPARED = 20_000_000


def apply_patch_tool(guard: PathGuard) -> ToolDefinition:
    """Return `apply_patch`, which applies a unified diff."""

    # Idempotent: a second run that finds a file as the patch makes it takes it as done, and one that stands as it was
    # read is changed, so that a patch which was cut in the middle is brought to its end and never applied twice.
    @tool(name="apply_patch", effect="idempotent", parallel=False)
    def apply_patch(
        context: ToolContext,
        patch: Annotated[str, "A unified diff: '--- a/NAME', '+++ b/NAME', '@@ -1,3 +1,4 @@', then lines."],
    ) -> str:
        """Apply a unified diff to one or more files: change, make (--- /dev/null), delete (+++ /dev/null) or rename
        them. Either all of it is done or nothing. Read the files first that it changes; context lines have to be as
        they are in the file."""
        check_text(patch, "the patch")
        patches = read_patch(patch)
        limit = guard.env.limits.max_patch_files
        if len(patches) > limit:
            raise ToolError(f"the patch changes {len(patches)} files, and {limit} are the most: give several patches")
        is_again = context.attempt > 1
        staging = Staging(guard, key=context.idempotency_key)
        plan = _Plan(guard, context, is_again=is_again)
        try:
            for one in patches:
                plan.add(one)
        except BaseException:
            staging.remove_made(plan.places)
            raise
        if is_again:
            for place in plan.places:
                staging.sweep(place.directory)
        staging.apply(plan.changes)
        for change in plan.changes:
            if change.data is None:
                forget(context, change.place.shown)
            else:
                remember(context, change.place.shown, digest_of(change.data))
        return "\n".join(plan.said)

    return apply_patch


class _Plan:
    """Is what a patch comes to: every change in memory, before anything is touched but missing folders."""

    __slots__ = ("_context", "_guard", "_is_again", "_seen", "changes", "places", "said")

    def __init__(self, guard: PathGuard, context: ToolContext, *, is_again: bool) -> None:
        self._guard = guard
        self._context = context
        self._is_again = is_again
        self._seen: set[tuple[str, ...]] = set()
        self.places: list[Place] = []
        self.changes: list[Change] = []
        self.said: list[str] = []

    def add(self, patch: FilePatch) -> None:
        """Take one file's part. Raises `tool.failed` with what does not fit."""
        if patch.old is None:
            self._make(patch)
        elif patch.new is None:
            self._delete(patch, patch.old)
        elif patch.old != patch.new:
            self._rename(patch, patch.old)
        else:
            self._change(patch, patch.old)

    def _make(self, patch: FilePatch) -> None:
        text = _new_text(patch)
        place = self._place(patch.shown, makes_parents=True)
        if place.status is not None:
            found = self._read(place)
            if self._is_again and found.data == text.encode():
                self.said.append(f"Made {place.shown}.")
                return
            raise ToolError(f"{place.shown!r} is there already, and the patch makes it: change it, or delete it first")
        self._take(Change(place, text.encode(), patch.is_executable or None), f"Made {place.shown}.")

    def _delete(self, patch: FilePatch, name: str) -> None:
        place = self._place(name)
        said = f"Deleted {place.shown}."
        if place.status is None:
            if self._is_again:
                self.said.append(said)
                return
            raise missing(place.directory, place.name, place.shown)
        found = self._read(place)
        check_known(self._context, place.shown, found.digest)
        if patch.hunks:
            left = _applied(patch, decode(found.data, place.shown))
            if left.text:
                raise ToolError(
                    f"the patch deletes {place.shown!r}, but not all of its lines: what would be left begins with"
                    f" {left.text[:_SHOWN_LINE_CHARS]!r}"
                )
        self._take(Change(place, None), said)

    def _rename(self, patch: FilePatch, name: str) -> None:
        place = self._place(name)
        target = self._place(patch.shown, makes_parents=True)
        said = f"Renamed {place.shown} to {target.shown}."
        if place.status is None:
            if self._is_again and target.status is not None:
                self.said.append(said)
                return
            raise missing(place.directory, place.name, place.shown)
        found = self._read(place)
        check_known(self._context, place.shown, found.digest)
        data = _encoded(patch, found, place.shown)
        if target.status is not None and not (self._is_again and self._read(target).data == data):
            raise ToolError(f"{target.shown!r} is there already: choose another name, or delete it first")
        if target.status is None:
            is_executable = bool(found.status.st_mode & 0o100) if patch.is_executable is None else patch.is_executable
            self._take(Change(target, data, is_executable or None), said)
        else:
            self.said.append(said)
        self._take(Change(place, None), "")

    def _change(self, patch: FilePatch, name: str) -> None:
        place = self._place(name)
        if place.status is None:
            raise missing(place.directory, place.name, place.shown)
        found = self._read(place)
        said = f"Changed {place.shown}."
        if self._is_again and patch.hunks and _is_done(patch, decode(found.data, place.shown)):
            self.said.append(said)
            return
        check_known(self._context, place.shown, found.digest)
        self._take(Change(place, _encoded(patch, found, place.shown), patch.is_executable), said)

    def _place(self, name: str, *, makes_parents: bool = False) -> Place:
        place = self._guard.find_for_write(name, makes_parents=makes_parents)
        self.places.append(place)
        return place

    def _read(self, place: Place) -> FileContent:
        return read_file(place, max_bytes=self._guard.env.limits.max_read_bytes, advice="change it with bash")

    def _take(self, change: Change, said: str) -> None:
        place = change.place
        if place.parts in self._seen:
            raise ToolError(f"the patch names {place.shown!r} twice: put all of its hunks under one header")
        limit = self._guard.env.limits.max_write_bytes
        if change.data is not None and len(change.data) > limit:
            raise ToolError(f"{place.shown!r} would have {len(change.data):,} bytes, and {limit:,} are the most")
        self._seen.add(place.parts)
        self.changes.append(change)
        if said:
            self.said.append(said)


def _encoded(patch: FilePatch, found: FileContent, shown: str) -> bytes:
    """Return what a patch makes of a file; what has no hunk stays as it is, text or not."""
    if not patch.hunks:
        return found.data
    text = _applied(patch, decode(found.data, shown))
    return text.form.encode(text.text)


def _new_text(patch: FilePatch) -> str:
    """Return the content of a file that a patch makes."""
    if any(hunk.old for hunk in patch.hunks):
        raise ToolError(f"the patch makes {patch.shown!r}, but a hunk of it has lines with ' ' or '-': use '+' alone")
    lines = [line for hunk in patch.hunks for line in hunk.new]
    if not lines:
        return ""
    return "\n".join(lines) + ("" if patch.hunks[-1].new_at_end else "\n")


@frozen
class _Lines:
    """Is a text as lines without their ends, and whether the last one has an end."""

    lines: tuple[str, ...]
    has_end: bool
    end: str


def _split(file: FileText) -> _Lines:
    lines = file.text.split("\n")
    has_end = lines[-1] == ""
    if has_end:
        lines.pop()
    if file.form.is_crlf:
        # A last line without an end has none of its own to lose.
        lines = [line[:-1] if line.endswith("\r") else line for line in lines]
    return _Lines(tuple(lines), has_end or not lines, "\r\n" if file.form.is_crlf else "\n")


def _joined(lines: list[str], file: _Lines, form: TextForm, *, has_end: bool) -> FileText:
    text = file.end.join(lines)
    return FileText(text + file.end if lines and has_end else text, form)


def _applied(patch: FilePatch, file: FileText) -> FileText:
    """Return what the hunks make of a file. Raises `tool.failed` with the hunk that does not fit, and what is there."""
    old = _split(file)
    made: list[str] = []
    at = 0
    has_end = old.has_end
    shift = 0
    for number, given in enumerate(patch.hunks, 1):
        hunk = _in_line_ends(given, file.form)
        found = _place_of(hunk, old, start=at, shift=shift)
        if isinstance(found, str):
            raise ToolError(f"hunk {number} of {patch.shown!r} ({hunk.header}) {found}")
        if hunk.first is not None and hunk.old:
            shift = found - (hunk.first - 1)
        made += old.lines[at:found]
        made += hunk.new
        at = found + len(hunk.old)
        if at == len(old.lines):
            has_end = not hunk.new_at_end if hunk.new_at_end or hunk.old_at_end else old.has_end
    made += old.lines[at:]
    return _joined(made, old, file.form, has_end=has_end)


def _is_done(patch: FilePatch, file: FileText) -> bool:
    """Tell whether a file is as the patch makes it and not as it finds it."""
    back = FilePatch(
        patch.new,
        patch.old,
        tuple([Hunk(one.header, None, one.new, one.old, one.new_at_end, one.old_at_end) for one in patch.hunks]),
    )
    try:
        before = _applied(back, file)
        return _applied(patch, before).text == file.text
    except ToolError:
        return False


def _in_line_ends(hunk: Hunk, form: TextForm) -> Hunk:
    """Return a hunk without the line ends of Windows where the file's lines are compared without."""
    if not form.is_crlf:
        return hunk
    old, new = (tuple([line.removesuffix("\r") for line in lines]) for lines in (hunk.old, hunk.new))
    return Hunk(hunk.header, hunk.first, old, new, hunk.old_at_end, hunk.new_at_end)


def _place_of(hunk: Hunk, file: _Lines, *, start: int, shift: int) -> int | str:
    """Return at which line, counted from 0, a hunk fits, or why it fits nowhere or in several places."""
    lines, count = file.lines, len(hunk.old)
    if not count:
        return _place_of_insertion(hunk, file, start=start)
    wanted = -1 if hunk.first is None else hunk.first - 1 + shift
    if wanted >= start and _fits(hunk, file, wanted):
        return wanted
    first_line = hunk.old[0]
    candidates = [at for at in range(start, len(lines) - count + 1) if lines[at] == first_line]
    if len(candidates) * count > _MAX_COMPARED:
        return f"begins with a line that stands at {len(candidates):,} places: give its line number in the header"
    places = [at for at in candidates if _fits(hunk, file, at)]
    if len(places) == 1:
        return places[0]
    if places:
        shown = ", ".join(str(at + 1) for at in places[:_MAX_NUMBERS])
        return f"fits at several places (lines {shown}): give more context lines"
    return _why_not(hunk, file, start=start)


def _place_of_insertion(hunk: Hunk, file: _Lines, *, start: int) -> int | str:
    if not file.lines:
        return 0
    if hunk.first is None or not start <= hunk.first <= len(file.lines):
        return "only adds lines and does not say where: give a context line before or behind them"
    return hunk.first


def _fits(hunk: Hunk, file: _Lines, at: int) -> bool:
    end = at + len(hunk.old)
    if file.lines[at:end] != hunk.old:
        return False
    return not hunk.old_at_end or (end == len(file.lines) and not file.has_end)


def _why_not(hunk: Hunk, file: _Lines, *, start: int) -> str:
    """Return what is in the file where the most of a hunk's first lines are."""
    best, at = 0, min(max((hunk.first or 1) - 1, start), max(len(file.lines) - 1, 0))
    candidates = [place for place in range(start, len(file.lines)) if file.lines[place] == hunk.old[0]]
    for place in candidates[:_MAX_NUMBERS]:
        there = file.lines[place : place + len(hunk.old)]
        same = next((n for n, line in enumerate(there) if line != hunk.old[n]), len(there))
        if same > best:
            best, at = same, place
    if best and at + best < len(file.lines) and best < len(hunk.old):
        is_there = short_line(file.lines[at + best], _SHOWN_LINE_CHARS)
        wanted = short_line(hunk.old[best], _SHOWN_LINE_CHARS)
        return f"does not fit: line {at + best + 1} of the file is {is_there!r}, and the hunk has {wanted!r}"
    shown = [
        f"{number}\t{short_line(line, _SHOWN_LINE_CHARS)}"
        for number, line in enumerate(file.lines[at : at + _SHOWN_LINES], at + 1)
    ]
    lines = "\n".join(shown) or "(the file is empty)"
    first = short_line(hunk.old[0], _SHOWN_LINE_CHARS)
    return f"does not fit: its lines do not stand in the file from {first!r} on. There it has:\n{lines}"
