"""Reads the text of PDF files in a process of its own, because a file that a stranger made may never end."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import sys
from enum import Enum
from importlib.util import find_spec
from pathlib import Path

from power_loop.contracts.errors import ProcessError
from power_loop.contracts.frozen import frozen

#: The most bytes of a file that is read at all: providers take no larger ones either.
MAX_PDF_BYTES = 32 * 1024 * 1024
#: The most pages that are read of a file; a book has about as many.
MAX_PAGES = 500
#: The most bytes of text that are taken from a file: about 100,000 tokens.
MAX_TEXT_BYTES = 400_000
#: How long reading a file may take, in seconds of the processor and of the clock: a book takes about 20.
MAX_CPU_S = 60
MAX_S = 120.0
#: How much memory it may take: files of 500 kB are known that take half of it, and honest ones of 30 MB that take less.
MAX_MEMORY_BYTES = 1024 * 1024 * 1024

_READER = Path(__file__).with_name("pdf_reader.py")
# JSON writes a character of one byte in six at most.
_JSON_SHARE = 6
_HEAD_BYTES = 10_000
# A Python that is linked against a library of its own place does not start without it.
_KEPT_VARIABLES = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")


class PdfProblem(str, Enum):
    """Is why a PDF file has no text for a model."""

    NOT_INSTALLED = "not_installed"  # the extra `pdf` is missing
    TOO_LARGE = "too_large"  # of more than MAX_PDF_BYTES bytes
    ENCRYPTED = "encrypted"  # a password opens it
    BROKEN = "broken"  # it is no PDF file that can be read
    NO_TEXT = "no_text"  # what was read of it is pictures
    TOO_MUCH = "too_much"  # reading it took more time or memory than there is for it
    NOT_STARTED = "not_started"  # this machine starts no process for it


@frozen
class PdfText:
    """Is the text of a PDF file: of its first `pages_read` pages of `pages`, or the problem. `is_cut` tells that the
    last of them is not whole."""

    text: str = ""
    pages: int = 0
    pages_read: int = 0
    is_cut: bool = False
    problem: PdfProblem | None = None


def can_read_pdf() -> bool:
    """Tell whether the package that reads PDF files is installed."""
    return find_spec("pypdf") is not None


async def read_pdf(data: str, *, max_text_bytes: int = MAX_TEXT_BYTES) -> PdfText:
    """Return the text of a file, given in base64, of at most `max_text_bytes` bytes. Never raises for what stands in
    it.

    The same bytes give the same text, but where reading is ended for its time: that depends on the machine. Cancelled,
    nothing of the process is alive any more.
    """
    if not can_read_pdf():
        return PdfText(problem=PdfProblem.NOT_INSTALLED)
    if len(data) * 3 // 4 > MAX_PDF_BYTES:
        return PdfText(problem=PdfProblem.TOO_LARGE)
    # Most processes never see a PDF file, and start in less than what this takes to load.
    import tempfile

    # A file that nobody else may open.
    descriptor, path = tempfile.mkstemp(suffix=".pdf")
    try:
        await asyncio.to_thread(_write, descriptor, data)
        return await _read(path, max_text_bytes)
    finally:
        os.unlink(path)


def _write(descriptor: int, data: str) -> None:
    with os.fdopen(descriptor, "wb") as file:
        file.write(base64.b64decode(data))


async def _read(path: str, max_text_bytes: int) -> PdfText:
    from power_loop.runtime.host.process import EndCause, OutputLimits, ProcessLimits, Program, run  # see read_pdf

    settings = {"path": sys.path, "file": path, "max_pages": MAX_PAGES, "max_text_bytes": max_text_bytes}
    program = Program(
        (sys.executable, "-I", "-S", str(_READER), json.dumps(settings)),
        {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ},
        output=OutputLimits(head_bytes=max_text_bytes * _JSON_SHARE + _HEAD_BYTES, tail_bytes=0),
        # What a parser complains of is nobody's concern here.
        keeps_errors=True,
        timeout_s=MAX_S,
        limits=ProcessLimits(cpu_s=MAX_CPU_S, memory_bytes=MAX_MEMORY_BYTES, file_bytes=0),
    )
    try:
        ended = await run(program)
    except ProcessError:
        return PdfText(problem=PdfProblem.NOT_STARTED)
    if ended.cause is not EndCause.EXIT or ended.exit_status is None or ended.exit_status < 0:
        return PdfText(problem=PdfProblem.TOO_MUCH)
    if ended.exit_status:
        return PdfText(problem=PdfProblem.NOT_STARTED)
    found = json.loads(ended.output.head)
    if "problem" in found:
        return PdfText(problem=PdfProblem(found["problem"]))
    return PdfText(**found)
