"""The canonical conversation: immutable messages made of typed parts, in no provider's format."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from dataclasses import field
from enum import Enum
from typing import Any

from power_loop.contracts.errors import InputError
from power_loop.contracts.frozen import frozen


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
        object.__setattr__(self, "text", clean_text(self.text))


@frozen
class ImagePart:
    """Is an image: base64 `data` with its `media_type`, or a `url`. `detail` is OpenAI's `low|high|auto`."""

    media_type: str = "image/png"
    data: str | None = None
    url: str | None = None
    detail: str | None = None

    @classmethod
    def from_bytes(cls, data: bytes, media_type: str = "image/png") -> ImagePart:
        """Return an image part of these bytes."""
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


def content_of(value: UserInput) -> tuple[ContentPart, ...]:
    """Return text or parts as a tuple of parts. Raises `input.invalid` for anything else, and for nothing at all."""
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
