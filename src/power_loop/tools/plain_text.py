"""Writes messages of a log as plain text, for a reader who is told of them and not shown them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from power_loop.contracts.messages import (
    AudioPart,
    ContentPart,
    FilePart,
    ImagePart,
    Message,
    Part,
    RefusalPart,
    Role,
    TextPart,
    ToolCallPart,
    ToolResultPart,
)

_MAX_NAME_CHARS = 100


def message_text(message: Message) -> str:
    """Return everything of a message that was said, called or answered: texts whole, media by name, no reasoning."""
    return "\n".join(_lines(message.parts))


def speaker(message: Message) -> str:
    """Return who speaks, for the head of a message."""
    result = message.tool_result
    if result is not None:
        return f"{'error' if result.is_error else 'result'} of call {result.call_id}"
    return "user" if message.role is Role.USER else "assistant"


def medium_name(part: ImagePart | FilePart | AudioPart) -> str:
    """Return what an image, a file or a sound is called where it is not shown."""
    if isinstance(part, ImagePart):
        what = "an image"
    elif isinstance(part, AudioPart):
        what = "a sound"
    else:
        what = f"the file {part.filename[:_MAX_NAME_CHARS]!r}" if part.filename else "a file"
    return f"{what} of {_size(len(part.data) * 3 // 4)}" if part.data else what


def content_text(content: Iterable[ContentPart]) -> str:
    """Return content with its media named."""
    return "\n".join(part.text if isinstance(part, TextPart) else f"[{medium_name(part)}]" for part in content)


def _lines(parts: Iterable[Part]) -> Iterator[str]:
    for part in parts:
        if isinstance(part, (TextPart, RefusalPart)):
            yield part.text
        elif isinstance(part, ToolCallPart):
            yield f"(call {part.id}) {part.name} {part.arguments}"
        elif isinstance(part, ToolResultPart):
            yield content_text(part.content)
        elif isinstance(part, (ImagePart, FilePart, AudioPart)):
            yield f"[{medium_name(part)}]"


def _size(count_bytes: int) -> str:
    if count_bytes >= 1_000_000:
        return f"{count_bytes / 1_000_000:.1f} MB"
    return f"{max(count_bytes // 1_000, 1)} kB"
