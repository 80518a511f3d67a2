"""Frames what a memory provider recalled, best first and within a budget, so that a model takes it for data."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from typing import Any

from power_loop.contracts.frozen import frozen
from power_loop.contracts.memory import Memory
from power_loop.contracts.messages import clean_text
from power_loop.core.context import texts
from power_loop.core.context.tokens import estimate_text
from power_loop.tools.one_line import one_line

#: So many memories of one answer are looked at.
MAX_MEMORIES = 1_000
# Less of a memory than that says nothing, in characters.
_LEAST_CUT_CHARS = 80
# A token of an estimate has fewer characters than these.
_MOST_CHARS = 4
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


@frozen
class FramedMemories:
    """Is what a model is shown of an answer: the `text`, None where nothing fits or nothing came, about how many
    `tokens` it takes, how many memories are in it, and how many are not."""

    text: str | None
    tokens: int
    memories: int
    left_out: int


def framed(memories: Sequence[Memory], *, max_tokens: int) -> FramedMemories:
    """Return memories as a model is shown them, the best first, in at most `max_tokens` tokens.

    One that does not fit is left out, and those behind it may still be in; if not even the first fits, it is cut. A
    text that says the same as one before is left out. Raises TypeError for what is no memory.
    """
    _check(memories)
    room = max_tokens - estimate_text(texts.memories(""))
    lines: list[str] = []
    seen: set[str] = set()
    for memory in memories[:MAX_MEMORIES]:
        if not memory.text.strip() or memory.text in seen:
            continue
        line = _whole_line(memory, room) or ("" if seen else _cut_line(memory, room))
        seen.add(memory.text)
        if line:
            room -= _line_tokens(line)
            lines.append(line)
    text = texts.memories("\n".join(lines)) if lines else None
    tokens = 0 if text is None else estimate_text(text)
    return FramedMemories(text, tokens, len(lines), len(memories) - len(lines))


def _check(memories: Any) -> None:
    if not isinstance(memories, Sequence) or isinstance(memories, (str, bytes)):
        raise TypeError(f"recall() gave a {type(memories).__name__}: give a list of Memory")
    for memory in memories[:MAX_MEMORIES]:
        if not isinstance(memory, Memory) or not isinstance(memory.text, str):
            raise TypeError(f"recall() gave {memory!r:.200} in its list: give Memory(text) for each")


def _whole_line(memory: Memory, room: int) -> str:
    """Return the line of a memory; nothing if it does not fit."""
    if len(memory.text) > room * _MOST_CHARS:
        return ""
    line = _line(memory, memory.text)
    return line if _line_tokens(line) <= room else ""


def _line(memory: Memory, text: str) -> str:
    return f"- {_day(memory.created_at_ms)}{one_line(clean_text(text))}"


def _line_tokens(line: str) -> int:
    # With the line break before it.
    return estimate_text("\n" + line)


def _cut_line(memory: Memory, room: int) -> str:
    """Return the line of as much of a memory's beginning as fits; nothing if that is too little."""
    text = memory.text
    least, most = 0, min(len(text), room * _MOST_CHARS)
    while least < most:
        middle = (least + most + 1) // 2
        if _line_tokens(_line(memory, text[:middle] + texts.CUT)) <= room:
            least = middle
        else:
            most = middle - 1
    return _line(memory, text[:least] + texts.CUT) if least >= _LEAST_CUT_CHARS else ""


def _day(created_at_ms: int | None) -> str:
    if not isinstance(created_at_ms, int):
        return ""
    try:
        return f"({(_EPOCH + timedelta(milliseconds=created_at_ms)).date().isoformat()}) "
    except (OverflowError, ValueError):
        return ""
