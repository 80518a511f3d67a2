"""Lets a model read, write and edit the text files of its workspace."""

from __future__ import annotations

from typing import Annotated

from power_loop.contracts.errors import ToolError
from power_loop.contracts.tools import ToolContext, ToolDefinition
from power_loop.runtime.host.files import Change, Staging, digest_of, read_file
from power_loop.runtime.host.paths import PathGuard, Place
from power_loop.tools.decorator import tool
from power_loop.tools.known_files import check_known, known_digest, remember
from power_loop.tools.numbered_lines import AtLeast, lines_of, short_line, shown_page
from power_loop.tools.text_files import FileText, check_text, decode, is_binary

# Places of a text that are tried when it is to be found out whether an edit was made already.
_MAX_PLACES_TRIED = 1_000
_MAX_BYTES_TRIED = 20_000_000
# Lines of a changed place that are shown, with those around.
_MAX_SHOWN_LINES = 30
_LINES_AROUND = 3
_MAX_NUMBERS_SHOWN = 10
_TOO_LARGE = "look for what you need with grep, or cut a part out with bash"


def read_file_tool(guard: PathGuard) -> ToolDefinition:
    """Return `read_file`, which shows a page of a text file with the numbers of its lines."""
    limits = guard.env.limits

    @tool(name="read_file", effect="read")
    def read(
        context: ToolContext,
        path: Annotated[str, "Path in the workspace, such as src/main.py."],
        offset: Annotated[int, AtLeast(1), "Number of the first line to show."] = 1,
        limit: Annotated[int | None, AtLeast(1), "How many lines to show."] = None,
    ) -> str:
        """Read a text file. Each line is shown behind its number and a tab, which are not part of the file. Read a file
        before you edit it."""
        place = guard.find(path)
        content = read_file(place, max_bytes=limits.max_read_bytes, advice=_TOO_LARGE)
        _refuse_documents(content.data, place.shown)
        text = decode(content.data, place.shown).text
        remember(context, place.shown, content.digest)
        max_lines = min(limit or limits.max_page_lines, limits.max_page_lines)
        return shown_page(text, place.shown, offset=offset, max_lines=max_lines, max_line_chars=limits.max_line_chars)

    return read


def write_file_tool(guard: PathGuard) -> ToolDefinition:
    """Return `write_file`, which makes a file or replaces a known one as a whole."""

    # Idempotent: a second run finds its content in place and changes nothing; what somebody else has written in
    # between is not what the session knows, and is refused.
    @tool(name="write_file", effect="idempotent", parallel=False)
    def write(
        context: ToolContext,
        path: Annotated[str, "Path in the workspace; folders that are missing are made."],
        content: Annotated[str, "The whole content of the file."],
    ) -> str:
        """Make a text file, or replace all of one that you have read. To change a part, use edit_file."""
        check_text(content, "content")
        _check_size(guard, len(content.encode()))
        place = guard.find_for_write(path, makes_parents=True)
        if place.status is None:
            data = content.encode()
        else:
            old = _read_known(guard, place, context, content=content)
            form = old.form
            data = form.encode(content.replace("\n", "\r\n") if form.is_crlf and "\r" not in content else content)
        _put(guard, place, data, context)
        lines = len(lines_of(content))
        return f"{'Made' if place.status is None else 'Replaced'} {place.shown} ({lines:,} lines){_other_names(place)}."

    return write


def edit_file_tool(guard: PathGuard) -> ToolDefinition:
    """Return `edit_file`, which replaces one text in a known file by another."""

    # Idempotent: a second run of an edit that was made finds by the digest of what it was based on that it was, and
    # changes nothing; on any content but that one an edit is refused.
    @tool(name="edit_file", effect="idempotent", parallel=False)
    def edit(
        context: ToolContext,
        path: Annotated[str, "Path of a file that you have read."],
        old_text: Annotated[str, "The text to replace, exactly as in the file, without line numbers."],
        new_text: Annotated[str, "What stands in its place."],
        replace_all: Annotated[bool, "Replace every occurrence; otherwise there must be only one."] = False,
    ) -> str:
        """Replace a text in a file that you have read. Give enough lines around it to make it unique."""
        check_text(old_text, "old_text")
        check_text(new_text, "new_text")
        if not old_text:
            raise ToolError("old_text is empty: give the text to replace, or use write_file for a new file")
        if old_text == new_text:
            raise ToolError("old_text and new_text are the same: nothing would change")
        place = guard.find_for_write(path)
        limit = guard.env.limits.max_read_bytes
        found = read_file(place, max_bytes=limit, advice="change it with bash")
        old = decode(found.data, place.shown)
        base = known_digest(context, place.shown)
        if context.attempt > 1:
            Staging(guard, key=context.idempotency_key).sweep(place.directory)
        if context.attempt > 1 and base not in (None, found.digest):
            for one, other in _spellings(old_text, new_text):
                if _was_made(old, one, other, base or "", replace_all=replace_all):
                    remember(context, place.shown, found.digest)
                    return f"Edited {place.shown}."
        check_known(context, place.shown, found.digest)
        one, other = _one_that_is_there(old, old_text, new_text)
        count = old.text.count(one)
        if count == 0:
            raise ToolError(_why_missing(old.text, old_text, place.shown))
        if count > 1 and not replace_all:
            numbers = _line_numbers(old.text, one)
            raise ToolError(
                f"old_text stands {count} times in {place.shown!r} (lines {numbers}): give more lines around it, or"
                " replace_all"
            )
        text = old.text.replace(one, other)
        _put(guard, place, old.form.encode(text), context)
        times = f" {count} times" if count > 1 else ""
        shown = _changed_lines(text, old.text.index(one), other, guard.env.limits.max_line_chars)
        return f"Edited {place.shown}{times}{_other_names(place)}:\n{shown}"

    return edit


def _refuse_documents(data: bytes, shown: str) -> None:
    """Tell which tool reads what is no text."""
    if data.startswith(b"%PDF-"):
        raise ToolError(f"{shown!r} is a PDF: use read_pdf")
    if is_binary(data) and data.startswith((b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"RIFF")):
        raise ToolError(f"{shown!r} is an image or the like: use view_image")


def _read_known(guard: PathGuard, place: Place, context: ToolContext, *, content: str) -> FileText:
    """Return the text of a file that is to be replaced. Raises `tool.failed` for one that the session does not know as
    it is."""
    limits = guard.env.limits
    found = read_file(
        place, max_bytes=max(limits.max_read_bytes, limits.max_write_bytes), advice="replace it with bash"
    )
    if is_binary(found.data):
        raise ToolError(f"{place.shown!r} is binary: choose another name, or remove it first with bash")
    old = decode(found.data, place.shown)
    # What a first attempt wrote is there already.
    if content not in (old.text, old.text.replace("\r\n", "\n")):
        check_known(context, place.shown, found.digest)
    return old


def _put(guard: PathGuard, place: Place, data: bytes, context: ToolContext) -> None:
    _check_size(guard, len(data))
    staging = Staging(guard, key=context.idempotency_key)
    if context.attempt > 1:
        staging.sweep(place.directory)
    staging.apply([Change(place, data)])
    remember(context, place.shown, digest_of(data))


def _check_size(guard: PathGuard, size: int) -> None:
    limit = guard.env.limits.max_write_bytes
    if size > limit:
        raise ToolError(f"the content has {size:,} bytes, and {limit:,} are written at most: write less")


def _other_names(place: Place) -> str:
    links = 0 if place.status is None else place.status.st_nlink - 1
    return f" (it had {links} more names, hard links, which keep the old content)" if links > 0 else ""


def _spellings(old: str, new: str) -> tuple[tuple[str, str], ...]:
    """Return an edit as it was given, and with the line ends of Windows."""
    if "\r" in old:
        return ((old, new),)
    return (old, new), (old.replace("\n", "\r\n"), new.replace("\r\n", "\n").replace("\n", "\r\n"))


def _one_that_is_there(file: FileText, old: str, new: str) -> tuple[str, str]:
    """Return the spelling of an edit whose lines end as those of the file."""
    spellings = _spellings(old, new)
    if file.form.is_crlf:
        return spellings[-1]
    return next((one for one in spellings if one[0] in file.text), spellings[0])


def _was_made(file: FileText, old: str, new: str, base: str, *, replace_all: bool) -> bool:
    """Tell whether an edit turned content of the digest `base` into the text, by taking it back."""
    text = file.text
    if replace_all:
        return bool(new) and digest_of(file.form.encode(text.replace(new, old))) == base
    limit = min(_MAX_PLACES_TRIED, _MAX_BYTES_TRIED // (len(text) + 1) + 1)
    # What was cut out began at a line, or where it began cannot be seen.
    places = _places(text, new, limit) if new else [0, *(at + 1 for at in _places(text, "\n", limit))]
    return any(digest_of(file.form.encode(text[:at] + old + text[at + len(new) :])) == base for at in places)


def _places(text: str, part: str, limit: int) -> list[int]:
    places: list[int] = []
    at = text.find(part)
    while at >= 0 and len(places) < limit:
        places.append(at)
        at = text.find(part, at + 1)
    return places


def _line_numbers(text: str, part: str) -> str:
    places = _places(text, part, _MAX_NUMBERS_SHOWN + 1)
    shown = ", ".join(str(text.count("\n", 0, at) + 1) for at in places[:_MAX_NUMBERS_SHOWN])
    return shown + (", …" if len(places) > _MAX_NUMBERS_SHOWN else "")


def _why_missing(text: str, wanted: str, shown: str) -> str:
    start = f"old_text is not in {shown!r}"
    wanted_lines = [line.strip() for line in lines_of(wanted)]
    numbers = [line.split("\t")[0].strip() for line in lines_of(wanted) if line.strip()]
    if all(number.isdigit() for number in numbers) and "\t" in wanted:
        return f"{start}: leave out the line numbers that read_file shows"
    lines = [line.strip() for line in lines_of(text)]
    if any(wanted_lines):
        for at in range(len(lines) - len(wanted_lines) + 1):
            if lines[at] == wanted_lines[0] and lines[at : at + len(wanted_lines)] == wanted_lines:
                last = at + len(wanted_lines)
                return f"{start}, but lines {at + 1} to {last} differ in white space only: copy them exactly"
    return f"{start}: read the place again and copy it exactly"


def _changed_lines(text: str, at: int, new: str, max_line_chars: int) -> str:
    """Return the lines of a changed place with a few around it."""
    first = text.count("\n", 0, at) + 1
    start = max(first - _LINES_AROUND, 1)
    stop = min(first + new.count("\n") + _LINES_AROUND, start + _MAX_SHOWN_LINES)
    lines = lines_of(text)[start - 1 : stop]
    return "\n".join(f"{number}\t{short_line(line, max_line_chars)}" for number, line in enumerate(lines, start))
