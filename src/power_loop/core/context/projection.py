"""Renders a finished send as the projection shows it: the user's words as they are, the rest as terse plain text."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from power_loop.contracts.frozen import frozen
from power_loop.contracts.json_schema import InvalidJson, loads_strict
from power_loop.contracts.messages import (
    Message,
    RefusalPart,
    Role,
    TextPart,
    ToolCallPart,
    ToolResultPart,
)
from power_loop.contracts.records import ProjectedMessage
from power_loop.contracts.tools import ToolProject
from power_loop.core.context import texts
from power_loop.core.context.settings import Projection
from power_loop.core.stray import EXITS
from power_loop.tools.plain_text import content_text

#: The calls of one stretch that have a line of their own, the first and the last of them; the others are counted.
MAX_FIRST_CALLS = 20
MAX_LAST_CALLS = 40
#: What a tool's own `project` may say of one call.
MAX_OWN_CHARS = 2_000

# Of a text that is too long for a line, the end is shown as well: that is where results say how it came out.
_TAIL_SHARE = 0.25


@frozen
class Projected:
    """Is a send in rows, and what went wrong in the `project` of a tool, by the tool's name: its default stood in."""

    rows: tuple[ProjectedMessage, ...]
    failures: Mapping[str, BaseException]


def project_send(
    messages: Sequence[tuple[int, Message]],
    *,
    send_index: int,
    settings: Projection,
    project_of: Callable[[str], ToolProject | None],
) -> Projected:
    """Return the rows that stand for the messages of a finished send, each given with its seq, in order.

    A user message is a row of its own, the same message, and so is a reply that is nothing but text and stands alone.
    Any other stretch of replies and results becomes one reply of plain text, which comes from no model: what was said,
    and a line for each call. `project_of` gives the `project` of a tool by its name.
    """
    writer = _Writer(send_index, settings, project_of, _results_of(message for _, message in messages))
    rows: list[ProjectedMessage] = []
    stretch: list[tuple[int, Message]] = []
    for seq, message in (*messages, (0, _END)):
        if message.role is not Role.USER:
            stretch.append((seq, message))
            continue
        if stretch:
            _add_stretch(rows, stretch, _shown(stretch, writer))
            stretch = []
        if message is not _END:
            rows.append(ProjectedMessage(seq, seq, message))
    return Projected(tuple(rows), writer.failures)


_END = Message(Role.USER, ())


def _shown(stretch: Sequence[tuple[int, Message]], writer: _Writer) -> Message | None:
    """Return how a stretch is shown; None if nothing was said or done in it."""
    messages = [message for _, message in stretch]
    text = writer.text_of(messages)
    if len(messages) == 1 and text and all(isinstance(part, TextPart) and part.text for part in messages[0].parts):
        return messages[0]
    return Message(Role.ASSISTANT, (TextPart(text),)) if text else None


def _add_stretch(rows: list[ProjectedMessage], stretch: Sequence[tuple[int, Message]], message: Message | None) -> None:
    first, last = stretch[0][0], stretch[-1][0]
    if message is not None:
        rows.append(ProjectedMessage(first, last, message))
    elif rows:
        # Nothing was said or done: the row before it stands for it too.
        rows[-1] = ProjectedMessage(rows[-1].seq, last, rows[-1].message)


def _results_of(messages: Iterable[Message]) -> dict[str, ToolResultPart]:
    results = (message.tool_result for message in messages)
    return {result.call_id: result for result in results if result is not None}


class _Writer:
    """Writes the stretches of one send."""

    def __init__(
        self,
        send_index: int,
        settings: Projection,
        project_of: Callable[[str], ToolProject | None],
        results: Mapping[str, ToolResultPart],
    ) -> None:
        self.failures: dict[str, BaseException] = {}
        self._send_index = send_index
        self._settings = settings
        self._project_of = project_of
        self._results = results

    def text_of(self, stretch: Sequence[Message]) -> str:
        """Return what was said and done in a stretch; calls that follow each other stand in one record."""
        hidden = _hidden_calls([call for message in stretch for call in message.tool_calls])
        blocks: list[str] = []
        lines: list[str] = []
        for message in stretch:
            if message.role is not Role.ASSISTANT:
                continue
            said = "".join(part.text for part in message.parts if isinstance(part, (TextPart, RefusalPart))).strip()
            if said:
                self._close_record(blocks, lines)
                blocks.append(said)
            for call in message.tool_calls:
                number = hidden.get(id(call))
                if number is None:
                    lines.append(self._line(call))
                elif number:
                    lines.append(texts.calls_not_shown(number))
        self._close_record(blocks, lines)
        return "\n\n".join(blocks)

    def _close_record(self, blocks: list[str], lines: list[str]) -> None:
        if lines:
            blocks.append(texts.record("\n".join(lines), send_index=self._send_index))
            lines.clear()

    def _line(self, call: ToolCallPart) -> str:
        result = self._results.get(call.id)
        if result is None:
            outcome, text = "no result", ""
        else:
            outcome, text = "error" if result.is_error else "ok", content_text(result.content)
        own = None if result is None or result.is_error else self._own(call, text)
        if own is None:
            arguments = _cut(" ".join(call.arguments.split()), self._settings.max_arguments_chars)
            own = _cut(" ".join(text.split()), self._settings.max_result_chars)
            return _joined((call.name, arguments, "->", f"{outcome}:" if own else outcome, own))
        return _joined((call.name, "->", f"{outcome}:" if own else outcome, own))

    def _own(self, call: ToolCallPart, result_text: str) -> str | None:
        """Return what the tool itself says of a call; None where it has nothing to say, or fails to."""
        project = self._project_of(call.name)
        if project is None or call.name in self.failures:
            return None
        try:
            arguments: Any = loads_strict(call.arguments) if call.arguments.strip() else {}
        except InvalidJson:
            return None
        try:
            own: Any = project(arguments, result_text)
            if not isinstance(own, str):
                raise TypeError(f"it returned {own!r:.80}, which is no text")
        except EXITS:
            raise
        except BaseException as error:  # a stranger's code
            self.failures[call.name] = error
            return None
        return _cut(own.strip(), MAX_OWN_CHARS)


def _hidden_calls(calls: Sequence[ToolCallPart]) -> dict[int, int]:
    """Return which calls have no line, by identity: the first of them with how many there are, the others with 0."""
    hidden = calls[MAX_FIRST_CALLS : max(len(calls) - MAX_LAST_CALLS, MAX_FIRST_CALLS)]
    return {id(call): 0 if place else len(hidden) for place, call in enumerate(hidden)}


def _joined(words: Iterable[str]) -> str:
    return " ".join(word for word in words if word)


def _cut(text: str, max_chars: int) -> str:
    """Return a text of at most about `max_chars` characters, with its beginning and its end."""
    if len(text) <= max_chars:
        return text
    tail = int(max_chars * _TAIL_SHARE)
    return f"{text[: max_chars - tail].rstrip()} … {text[len(text) - tail :].lstrip()}".rstrip()
