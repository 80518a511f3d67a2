"""Makes a transcript that a provider found too large smaller: media go, and the middle of long texts."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

from power_loop.contracts.frozen import frozen
from power_loop.contracts.messages import (
    AudioPart,
    ContentPart,
    FilePart,
    ImagePart,
    Message,
    Part,
    Role,
    TextPart,
    ToolResultPart,
)
from power_loop.core.context import texts
from power_loop.tools.preview import shortened

# How each level spares: the share of the media (by size, the oldest first) that goes, and the characters that a text
# keeps. The first still shows a whole book chapter, the last little more than what a text is about: 64 results of
# parallel calls then take 20,000 tokens.
_LEVELS: tuple[tuple[float, int], ...] = ((0.5, 100_000), (1.0, 20_000), (1.0, 5_000), (1.0, 1_000))
MAX_LEVEL = len(_LEVELS)

_Media = ImagePart | FilePart | AudioPart
_MEDIA = (ImagePart, FilePart, AudioPart)
# What a medium weighs whose data are elsewhere: a link brings about as many tokens as so many characters.
_LINK_CHARS = 5_000


@frozen
class Spared:
    """Is a transcript with less in it: how many media it lost, and how many texts their middle."""

    messages: tuple[Message, ...]
    media: int = 0
    texts: int = 0


def spare(messages: Sequence[Message], level: int) -> Spared:
    """Return the transcript at a level of sparing from 1 to `MAX_LEVEL`; level 0 leaves everything as it is.

    Only inputs and results of tools are spared, never what the model itself said. Each message stays in its place, and
    one with nothing to spare stays the same object, so what was a valid transcript is one still.
    """
    if not level:
        return Spared(tuple(messages))
    media_share, max_chars = _LEVELS[level - 1]
    task = _Task(_going([_weight(part) for part in _media_in(messages)], media_share), max_chars)
    spared = tuple(map(task.message, messages))
    return Spared(spared, task.media, task.texts)


def has_media(messages: Iterable[Message]) -> bool:
    """Tell whether there is an image, a file or a sound in a transcript."""
    return any(True for _ in _media_in(messages))


class _Task:
    """Goes through a transcript from the oldest message on, and counts what it takes out."""

    def __init__(self, going: int, max_chars: int) -> None:
        self.media = 0
        self.texts = 0
        self._going = going
        self._max_chars = max_chars

    def message(self, message: Message) -> Message:
        if message.role is Role.ASSISTANT:
            return message
        parts = tuple(map(self._part, message.parts))
        if all(new is old for new, old in zip(parts, message.parts, strict=True)):
            return message
        return dataclasses.replace(message, parts=parts, memo={})

    def _part(self, part: Part) -> Part:
        if not isinstance(part, ToolResultPart):
            return self._content(part) if isinstance(part, (TextPart, *_MEDIA)) else part
        content = tuple(map(self._content, part.content))
        if all(new is old for new, old in zip(content, part.content, strict=True)):
            return part
        return dataclasses.replace(part, content=content)

    def _content(self, part: ContentPart) -> ContentPart:
        if not isinstance(part, TextPart):
            return self._medium(part)
        if len(part.text) <= self._max_chars:
            return part
        self.texts += 1
        return TextPart(shortened(part.text, self._max_chars, fate=texts.CUT_TO_FIT))

    def _medium(self, part: _Media) -> ContentPart:
        if self.media >= self._going:
            return part
        self.media += 1
        return TextPart(texts.medium_left_out(part))


def _media_in(messages: Iterable[Message]) -> Iterable[_Media]:
    for message in messages:
        for part in message.parts:
            for one in part.content if isinstance(part, ToolResultPart) else (part,):
                if isinstance(one, _MEDIA):
                    yield one


def _going(weights: list[int], share: float) -> int:
    """Return how many media go, the oldest first; the newest one, which the conversation may be about, goes last."""
    if share >= 1.0:
        return len(weights)
    count, left = 0, sum(weights) * share
    while left > 0 and count < len(weights) - 1:
        left -= weights[count]
        count += 1
    return count


def _weight(part: _Media) -> int:
    return len(part.data or "") + _LINK_CHARS
