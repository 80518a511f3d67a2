"""Reads the bytes of a file as text, and brings text back into the form that the file had."""

from __future__ import annotations

import codecs

from power_loop.contracts.errors import ToolError
from power_loop.contracts.frozen import frozen

# As far as git looks for a NUL, which tells that a file is no text.
_LOOKED_AT_BYTES = 8_000
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)


@frozen
class TextForm:
    """Is how a file holds its text: `mark` are the bytes before it, `is_crlf` tells that its lines end as on
    Windows."""

    encoding: str = "utf-8"
    mark: bytes = b""
    is_crlf: bool = False

    def encode(self, text: str) -> bytes:
        """Return the bytes of a text in this form; its line ends stay as they are. Raises `tool.failed` for half
        characters."""
        try:
            # What was no text in the encoding of the file, and came in by `decode`, goes out as it was.
            return self.mark + text.encode(self.encoding, "surrogateescape")
        except UnicodeEncodeError as error:
            raise ToolError(
                f"the text holds half a character ({text[error.start]!a} at {error.start}): leave it out"
            ) from error


@frozen
class FileText:
    """Is a file's text and its form. Bytes that are no text in its encoding stand in it as half characters."""

    text: str
    form: TextForm


def is_binary(data: bytes) -> bool:
    """Tell whether bytes are no text."""
    return not data.startswith(tuple(mark for mark, _ in _MARKS)) and b"\0" in data[:_LOOKED_AT_BYTES]


def decode(data: bytes, shown: str) -> FileText:
    """Return the text of a file. Raises `tool.failed` for one that is no text."""
    if is_binary(data):
        raise ToolError(f"{shown!r} is binary ({len(data):,} bytes): these tools read and change text only")
    mark, encoding = next((one for one in _MARKS if data.startswith(one[0])), (b"", "utf-8"))
    try:
        # Only UTF-8 keeps what is no text byte by byte.
        text = data[len(mark) :].decode(encoding, "surrogateescape" if encoding == "utf-8" else "strict")
    except UnicodeDecodeError as error:
        raise ToolError(f"{shown!r} begins as {encoding} and is none (byte {error.start:,}): use bash") from error
    return FileText(text, TextForm(encoding, mark, is_crlf="\r\n" in text and text.count("\n") == text.count("\r\n")))


def visible(text: str) -> str:
    """Return text as a model may be shown it: bytes that are none stand as `\\xNN`."""
    if text.isascii():
        return text
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def check_text(text: str, what: str) -> None:
    """Refuse text from a model that no file can hold. Raises `tool.failed`."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ToolError(f"{what} holds half a character ({text[error.start]!a}): leave it out") from error
