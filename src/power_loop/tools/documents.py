"""Lets a model read the text of the PDF files of its workspace."""

from __future__ import annotations

import asyncio
import base64
from typing import Annotated

from power_loop.contracts.errors import ToolError
from power_loop.contracts.tools import ToolDefinition
from power_loop.runtime.host.files import read_file
from power_loop.runtime.host.paths import PathGuard
from power_loop.runtime.host.pdf import MAX_PDF_BYTES, PdfProblem, read_pdf
from power_loop.tools.decorator import tool
from power_loop.tools.numbered_lines import AtLeast, page

_PROBLEMS = {
    PdfProblem.NOT_INSTALLED: "cannot be read, because the package for it is missing: ask the user to install"
    " power-loop[pdf], or use bash",
    PdfProblem.TOO_LARGE: "is too large: cut pages out with bash",
    PdfProblem.ENCRYPTED: "needs a password: ask the user for a copy without one",
    PdfProblem.BROKEN: "is no PDF file that can be read: look at its first bytes with bash",
    PdfProblem.NO_TEXT: "has no text, only pictures: turn pages into images with bash, then use view_image",
    PdfProblem.TOO_MUCH: "takes too long to read: cut pages out with bash",
    PdfProblem.NOT_STARTED: "cannot be read, because no process could be started for it: tell the user",
}


def read_pdf_tool(guard: PathGuard) -> ToolDefinition:
    """Return `read_pdf`, which shows the text of a PDF file, a page of lines at a time."""
    limits = guard.env.limits

    @tool(name="read_pdf", effect="read")
    async def read(
        path: Annotated[str, "Path of a PDF file."],
        offset: Annotated[int, AtLeast(1), "Number of the first line of its text to show."] = 1,
    ) -> str:
        """Read the text of a PDF file. Each line is shown behind its number and a tab."""
        shown, data = await asyncio.to_thread(_load, guard, path)
        found = await read_pdf(base64.b64encode(data).decode("ascii"))
        if found.problem is not None:
            raise ToolError(f"{shown!r} {_PROBLEMS[found.problem]}")
        text, last, total = page(
            found.text, first=offset, max_lines=limits.max_page_lines, max_line_chars=limits.max_line_chars
        )
        if last < offset:
            raise ToolError(f"the text of {shown!r} has {total:,} lines: give an offset from 1 to {total}")
        notes = [f"go on with offset={last + 1}"] if last < total else []
        if found.pages_read < found.pages or found.is_cut:
            notes.append(f"only {found.pages_read} of {found.pages} pages are read")
        return f"{text}\n(lines {offset:,} to {last:,} of {total:,}: {'; '.join(notes) or 'this is the end'})"

    return read


def _load(guard: PathGuard, path: str) -> tuple[str, bytes]:
    place = guard.find(path)
    limit = min(guard.env.limits.max_pdf_bytes, MAX_PDF_BYTES)
    data = read_file(place, max_bytes=limit, advice="cut pages out with bash").data
    if b"%PDF-" not in data[:1024]:
        raise ToolError(f"{place.shown!r} is no PDF file: use read_file or view_image")
    return place.shown, data
