"""The canonical conversation: immutable messages made of typed parts, in no provider's format."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import field
from enum import Enum
from typing import Any

from power_loop.contracts.errors import InputError
from power_loop.contracts.frozen import frozen

#: The images that every provider takes, and how their bytes begin.
IMAGE_TYPES = {"image/png": b"\x89PNG", "image/jpeg": b"\xff\xd8\xff", "image/gif": b"GIF8", "image/webp": b"RIFF"}
#: The media types by which PDF files go.
PDF_TYPES = ("application/pdf", "application/x-pdf")
# As much base64 of an image as tells its type.
_MARK_CHARS = 16
_BASE64 = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
# Compiled when the first one is met: most conversations are text.
_MEDIA_TYPE = r"[A-Za-z0-9][A-Za-z0-9_.+-]*/[A-Za-z0-9][A-Za-z0-9_.+-]*"
_WEB_ADDRESS = r"(?i:https?)://[^\s/?#]+\S*"
_DATA_ADDRESS = r"(?i:data):([^;,]*)(?:;[^;,]+)*;base64,([^,]*)"
# More of a value than tells what it is has no place in an error.
_SHOWN_CHARS = 40


class Role(str, Enum):
    """Is who speaks."""

    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"


def clean_text(text: str) -> str:
    """Return `text` with U+0000 and lone surrogates replaced by U+FFFD, which no database or wire refuses.

    Every text enters a message through this one door, so that memory, database and wire hold the same characters.
    """
    if "\0" in text:
        text = text.replace("\0", "\ufffd")
    if text.isascii():
        return text
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        # A high and a low surrogate that belong together are one character that was cut in two on its way.
        text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


@frozen
class TextPart:
    """Is plain text."""

    text: str

    def __post_init__(self) -> None:
        text: Any = self.text
        if not isinstance(text, str):
            raise InputError(f"the text of a TextPart is {_shown(text)}: give text")
        object.__setattr__(self, "text", clean_text(text))


@frozen
class ImagePart:
    """Is an image: base64 `data` with its `media_type`, or a `url`. `detail` is OpenAI's `low|high|auto`."""

    media_type: str = "image/png"
    data: str | None = None
    url: str | None = None
    detail: str | None = None

    @classmethod
    def from_bytes(cls, data: bytes, media_type: str | None = None) -> ImagePart:
        """Return an image part of these bytes, whose type is read from how they begin unless it is given."""
        if media_type is None:
            media_type = _image_type(data) or "image/png"
        return cls(media_type=media_type, data=base64.b64encode(data).decode("ascii"))


@frozen
class FilePart:
    """Is a file such as a PDF: base64 `data` with its `media_type`, a `url`, or a provider's `file_id`."""

    media_type: str = "application/pdf"
    data: str | None = None
    url: str | None = None
    file_id: str | None = None
    filename: str | None = None

    @classmethod
    def from_bytes(cls, data: bytes, media_type: str = "application/pdf", *, filename: str | None = None) -> FilePart:
        """Return a file part of these bytes."""
        return cls(media_type=media_type, data=base64.b64encode(data).decode("ascii"), filename=filename)


@frozen
class AudioPart:
    """Is a sound: base64 `data` in `format` `wav` or `mp3`."""

    data: str
    format: str = "wav"


@frozen
class ReasoningPart:
    """Is a model's reasoning. `raw` is the provider's own JSON block, byte-exact, which goes back to the same model
    only.

    Where the provider sends plain reasoning text and no block, `raw` is None and `field` names the wire field it came
    in.
    """

    text: str
    raw: str | None = None
    field: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "text", clean_text(self.text))


@frozen
class ToolCallPart:
    """Is the model's wish to call a tool. `arguments` is its JSON text exactly as it came, valid or not.

    `id` is unique in the session; a provider's missing, doubled or unportable id is replaced before the part is made.
    """

    id: str
    name: str
    arguments: str

    def __post_init__(self) -> None:
        # What is no text is told to whoever made it when the reply is read.
        if isinstance(self.id, str):
            object.__setattr__(self, "id", clean_text(self.id))
        object.__setattr__(self, "name", clean_text(self.name))
        object.__setattr__(self, "arguments", clean_text(self.arguments))


@frozen
class RefusalPart:
    """Is a refusal in the model's words."""

    text: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "text", clean_text(self.text))


@frozen
class OpaquePart:
    """Is a provider's block that the kernel does not interpret; `raw` is its JSON, byte-exact, for the same model
    only."""

    raw: str


#: What a person or an application can put into an input, and a tool into its result.
ContentPart = TextPart | ImagePart | FilePart | AudioPart


@frozen
class ToolResultPart:
    """Is the answer to one tool call."""

    call_id: str
    content: tuple[ContentPart, ...]
    is_error: bool = False

    @property
    def text(self) -> str:
        """The text parts joined."""
        return "".join(part.text for part in self.content if isinstance(part, TextPart))


Part = ContentPart | ReasoningPart | ToolCallPart | ToolResultPart | RefusalPart | OpaquePart


@frozen
class Origin:
    """Is where an assistant message came from: reasoning and opaque parts go back only where wire and model are the
    same."""

    wire: str
    model: str


@frozen
class Message:
    """Is one message of the log. A tool message holds exactly one `ToolResultPart`.

    `memo` is scratch space for wires: a message never changes, so each wire encodes it once and keeps the bytes here.
    """

    role: Role
    parts: tuple[Part, ...]
    origin: Origin | None = None
    memo: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)

    @property
    def text(self) -> str:
        """The text parts joined."""
        return "".join(part.text for part in self.parts if isinstance(part, TextPart))

    @property
    def refusal(self) -> str:
        """The refusals joined."""
        return "".join(part.text for part in self.parts if isinstance(part, RefusalPart))

    @property
    def tool_calls(self) -> tuple[ToolCallPart, ...]:
        """The calls that this message asks for, in order."""
        return tuple(part for part in self.parts if isinstance(part, ToolCallPart))

    @property
    def tool_result(self) -> ToolResultPart | None:
        """The result that this message brings, if it is a tool message."""
        part = self.parts[0] if self.role is Role.TOOL and self.parts else None
        return part if isinstance(part, ToolResultPart) else None


UserInput = str | ContentPart | Sequence[str | ContentPart]


def inline_data(part: ImagePart | FilePart) -> tuple[str, str] | None:
    """Return the media type and the base64 data that a part holds itself, be it in its address; None if its data are
    elsewhere."""
    if part.data is not None:
        return part.media_type, part.data
    if part.url is None or part.url[:5].lower() != "data:":
        return None
    head, _, data = part.url.partition(",")
    return head[5:].partition(";")[0] or part.media_type, data


def is_pdf(part: object) -> bool:
    """Tell whether a part is a PDF file that holds its data itself."""
    inline = inline_data(part) if isinstance(part, FilePart) and part.file_id is None else None
    return inline is not None and inline[0].lower() in PDF_TYPES


def part_problem(part: ContentPart) -> str | None:
    """Return what no provider would take of a part, in words that name the field; None if all is well.

    A message that a provider refuses can never be taken out of a conversation again, so it is asked before anything is
    stored. The check of the data is cheap: its alphabet and its first bytes.
    """
    if isinstance(part, ImagePart):
        if part.detail not in (None, "auto", "low", "high", "original"):
            return f"ImagePart.detail is {part.detail!r}: give 'auto', 'low', 'high' or 'original'"
        if part.data is None:
            return _address_problem(part, _image_problem)
        return _image_problem("ImagePart.data", part.data, part.media_type)
    if isinstance(part, FilePart):
        for name, text in (("filename", part.filename), ("file_id", part.file_id)):
            if text is not None and not _is_text(text):
                return f"FilePart.{name} is {_shown(text)}: give a text or None"
        if part.file_id is not None:
            return None
        if part.data is None:
            return _address_problem(part, _file_problem)
        return _file_problem("FilePart.data", part.data, part.media_type)
    if isinstance(part, AudioPart):
        if part.format not in ("wav", "mp3"):
            return f"AudioPart.format is {part.format!r}: give 'wav' or 'mp3'"
        return _base64_problem("AudioPart.data", part.data)
    return None


def _address_problem(part: ImagePart | FilePart, problem: Callable[[str, str, str], str | None]) -> str | None:
    """What is wrong with the address of a part; `problem` judges the data of one that holds its data itself."""
    kind, url = type(part).__name__, part.url
    if url is None:
        choices = "data or a url" if isinstance(part, ImagePart) else "data, a url or a file_id"
        return f"{kind} is empty: give {choices}"
    if not _is_text(url):
        return f"{kind}.url is {_shown(url)}: give an address"
    if url[:5].lower() == "data:":
        whole = re.fullmatch(_DATA_ADDRESS, url)
        if whole is None:
            return (
                f"{kind}.url is {_shown(url)}: an address that holds its data begins with 'data:<media type>;base64,'"
            )
        return problem(f"{kind}.url", whole[2], whole[1])
    if not url.isprintable() or re.fullmatch(_WEB_ADDRESS, url) is None:
        return f"{kind}.url is {_shown(url)}: give an address that begins with http://, https:// or data:"
    return None


def _image_problem(place: str, data: str, media_type: str) -> str | None:
    if media_type not in IMAGE_TYPES:
        return f"the media type of an image is {media_type!r}: providers take {', '.join(IMAGE_TYPES)}"
    problem = _base64_problem(place, data)
    if problem is not None:
        return problem
    found = _image_type(binascii.a2b_base64(data[:_MARK_CHARS]))
    if found is not None and found != media_type:
        return f"the media type of an image is {media_type!r}, but its bytes are {found!r}: say what they are"
    return None


def _file_problem(place: str, data: str, media_type: str) -> str | None:
    if not _is_text(media_type) or re.fullmatch(_MEDIA_TYPE, media_type) is None:
        return f"the media type of a file is {media_type!r}: give one such as 'application/pdf'"
    return _base64_problem(place, data)


def _base64_problem(place: str, data: Any) -> str | None:
    if not isinstance(data, str):
        return f"{place} is a {type(data).__name__}: give base64 text, or bytes to from_bytes()"
    if not data:
        return f"{place} is empty"
    # What is left without the alphabet is the padding. This looks at 10 MB in about 20 ms.
    left = data.encode("ascii", "replace").translate(None, _BASE64)
    if len(data) % 4 or left not in (b"", b"=", b"==") or not data.endswith(left.decode("ascii")):
        return f"{place} is {_shown(data)}, which is no base64: give plain base64 text, or bytes to from_bytes()"
    return None


def _image_type(data: bytes) -> str | None:
    """The type of an image by how it begins, None if it is none that is known."""
    found = next((name for name, beginning in IMAGE_TYPES.items() if data.startswith(beginning)), None)
    # A container of sounds and films begins like a WebP.
    return None if found == "image/webp" and data[8:12] != b"WEBP" else found


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN_CHARS else f"{text[:_SHOWN_CHARS]}…"


def content_of(value: UserInput) -> tuple[ContentPart, ...]:
    """Return text or parts as a tuple of parts. Raises `input.invalid` for anything else, for nothing at all, and
    for what `part_problem` finds."""
    if isinstance(value, str):
        items: Iterable[object] = (value,)
    elif isinstance(value, (TextPart, ImagePart, FilePart, AudioPart)):
        items = (value,)
    elif isinstance(value, (list, tuple)):
        items = value
    else:
        raise InputError(f"input is a {type(value).__name__}: give text or content parts (TextPart, ImagePart, ...)")
    parts: list[ContentPart] = []
    for item in items:
        if isinstance(item, str):
            item = TextPart(item)
        if not isinstance(item, (TextPart, ImagePart, FilePart, AudioPart)):
            raise InputError(f"content part {item!r} is a {type(item).__name__}: give text, TextPart, ImagePart, ...")
        if isinstance(item, TextPart) and not item.text.strip():
            continue
        problem = part_problem(item)
        if problem is not None:
            raise InputError(f"content cannot be sent to a model: {problem}")
        parts.append(item)
    if not parts:
        raise InputError("input is empty: providers refuse a message without content, so give some text")
    return tuple(parts)


def user_message(value: UserInput) -> Message:
    """Return the user message of an input. Raises `input.invalid`."""
    return Message(Role.USER, content_of(value))


def tool_message(call_id: str, content: tuple[ContentPart, ...], *, is_error: bool = False) -> Message:
    """Return the message that answers a call."""
    return Message(Role.TOOL, (ToolResultPart(call_id, content, is_error),))
