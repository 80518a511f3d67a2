"""Makes summaries of conversations with a model: plainly, or with tools to write notes."""

from __future__ import annotations

import copy
from collections import deque
from typing import Any

from power_loop.contracts.errors import (
    ConfigError,
    LLMContextOverflowError,
    LLMProtocolError,
    LLMTooLargeError,
    ToolError,
)
from power_loop.contracts.folding import Folded, FoldTask
from power_loop.contracts.llm import LLMDelta, LLMRequest, LLMResponse, LLMService, ModelInfo, StopReason
from power_loop.contracts.messages import Message, ToolCallPart, tool_message, user_message
from power_loop.contracts.numbers import is_whole
from power_loop.core.context import fold_texts, texts
from power_loop.core.context.room import room_for
from power_loop.core.context.tokens import estimate_text
from power_loop.core.context.transcript import repair
from power_loop.tools.notes import Notes, NotesPolicy, notes_tools
from power_loop.tools.plain_text import message_text, speaker
from power_loop.tools.preview import shortened
from power_loop.tools.registry import ToolRegistry

#: Pieces in which a model goes through what is to be folded; texts are shortened, and the oldest left out, for it.
MAX_PIECES = 16
#: How often a piece is made half as big because the model refused it for its size.
MAX_HALVINGS = 4
#: A piece has at least so many tokens, however small the window of the model.
MIN_PIECE_TOKENS = 200
# What a text is shortened to, in characters, where all of it is too much for so many pieces.
_LEVELS = (20_000, 5_000, 1_000, 300)
# What is left of the room for a piece: estimates are off, and the frame takes some.
_ROOM_SHARE = 0.85
# A reply may have so many times the tokens that its summary should have: a model that thinks takes them too.
_CAP_FACTOR = 2
# A reply that ended like this holds no summary, whatever it says.
_NO_SUMMARY = (StopReason.REFUSAL, StopReason.CONTENT_FILTER)
# One that was cut off is a summary if it has this part of the tokens that it may have.
_CUT = (StopReason.LENGTH, StopReason.CONTEXT_FULL)
_STUMP_SHARE = 0.5


class LLMSummaryFold:
    """Has a model write the summary.

    `llm` is the model (default: the loop's own), `instructions` are added to the kernel's own. A reply without a
    summary is asked for again, `max_attempts` times in all (default 2). What does not fit the model's window is gone
    through in pieces, with a summary that is carried on.
    """

    name = "llm_summary"

    def __init__(
        self, llm: LLMService | None = None, *, instructions: str | None = None, max_attempts: int = 2
    ) -> None:
        if llm is not None and not isinstance(getattr(llm, "info", None), ModelInfo):
            raise ConfigError(f"llm is {llm!r:.200}: give an LLMService, whose info is a ModelInfo")
        if instructions is not None and not isinstance(instructions, str):
            raise ConfigError(f"instructions is {instructions!r:.200}: give text, or None")
        _check_count("max_attempts", max_attempts)
        self._llm = llm
        self._instructions = instructions
        self._max_attempts = max_attempts

    async def fold(self, task: FoldTask) -> Folded:
        """Return the summary of a task. Raises what the model raises, and `llm.protocol` where it gives none."""
        writer = _Writer(task, self._llm, self._instructions, self._max_attempts)
        summary = await writer.summary()
        return Folded(summary, model=writer.llm.info.model)


class AgenticFold:
    """Has a model write the summary with tools at hand to write notes, which are stored together with the fold and
    outlast it.

    The model may call them in `max_rounds` rounds (default 8) for each piece that it goes through; `notes` is how much
    it may note. For the rest it is like `LLMSummaryFold`.
    """

    name = "agentic"

    def __init__(
        self,
        llm: LLMService | None = None,
        *,
        instructions: str | None = None,
        max_attempts: int = 2,
        max_rounds: int = 8,
        notes: NotesPolicy | None = None,
    ) -> None:
        self._plain = LLMSummaryFold(llm, instructions=instructions, max_attempts=max_attempts)
        _check_count("max_rounds", max_rounds)
        self._llm = llm
        self._instructions = instructions
        self._max_attempts = max_attempts
        self._max_rounds = max_rounds
        self._policy = notes

    async def fold(self, task: FoldTask) -> Folded:
        """Return the summary of a task, and the session's state with the notes."""
        llm = task.llm if self._llm is None else self._llm
        if not llm.info.has_tools:
            return await self._plain.fold(task)
        state: dict[str, Any] = copy.deepcopy(dict(task.tool_state or {}))
        desk = _NotesDesk(state, self._policy)
        writer = _Writer(task, self._llm, self._instructions, self._max_attempts, desk, self._max_rounds)
        summary = await writer.summary()
        return Folded(summary, model=writer.llm.info.model, tool_state=state if desk.has_written else None)


class _Writer:
    """Goes through one task, piece by piece."""

    def __init__(
        self,
        task: FoldTask,
        llm: LLMService | None,
        more: str | None,
        max_attempts: int,
        desk: _NotesDesk | None = None,
        max_rounds: int = 0,
    ) -> None:
        self._task = task
        if llm is None:
            self.llm = task.llm
        else:
            self.llm = llm if task.with_retries is None else task.with_retries(llm)
        self._more = more
        self._max_attempts = max_attempts
        self._desk = desk
        self._max_rounds = max_rounds
        self._cap = min(self.llm.info.max_output_tokens, task.max_summary_tokens * _CAP_FACTOR)
        self._pinned = "\n\n".join(map(_unit, task.pinned))

    async def summary(self) -> str:
        task = self._task
        messages = task.messages if task.previous_summary is None else task.messages[1:]
        piece_tokens = self._piece_tokens()
        units = _bounded([unit for unit in map(_unit, messages) if unit], piece_tokens * MAX_PIECES)
        summary = task.previous_summary
        if not units:
            return summary or ""
        waiting, halvings, done = deque(units), 0, 0
        while waiting:
            piece, rest = _next_piece(waiting, piece_tokens)
            if task.tell is not None:
                task.tell(f"piece {done + 1}, with {len(rest)} of {len(units)} messages behind it")
            try:
                summary = await self._fold_piece(piece, summary)
            except (LLMContextOverflowError, LLMTooLargeError):
                halvings += 1
                piece_tokens //= 2
                if halvings > MAX_HALVINGS or piece_tokens < MIN_PIECE_TOKENS:
                    raise
                continue
            waiting = rest
            done += 1
        return summary or ""

    def _piece_tokens(self) -> int:
        """Return how much of the record the model can be shown at a time."""
        frame = fold_texts.instructions(
            max_tokens=self._task.max_summary_tokens, more=self._more, mark="", writes_notes=self._desk is not None
        )
        room = int(room_for(self.llm.info, self._cap) * _ROOM_SHARE) - estimate_text(frame)
        # The summary so far and what stays pinned go along with every piece.
        self._pinned = _shortened_to(self._pinned, max(room // 4, 1))
        return max(room - self._task.max_summary_tokens - estimate_text(self._pinned), MIN_PIECE_TOKENS)

    async def _fold_piece(self, piece: str, summary: str | None) -> str:
        mark = fold_texts.mark_of(f"{summary}{self._pinned}{piece}")
        system = fold_texts.instructions(
            max_tokens=self._task.max_summary_tokens, more=self._more, mark=mark, writes_notes=self._desk is not None
        )
        asked = user_message(fold_texts.task(piece, summary=summary, pinned=self._pinned, mark=mark))
        text, stop = "", StopReason.END
        for attempt in range(self._max_attempts):
            # A model that thought until its cap was reached gets more of it.
            cap = self.llm.info.max_output_tokens if attempt else self._cap
            response = await self._ask(LLMRequest(messages=(asked,), system=system, max_output_tokens=cap))
            text, stop = response.message.text.strip(), response.stop
            if text and stop not in _NO_SUMMARY and not self._is_stump(text, stop, cap):
                return _shortened_to(text, self._task.max_summary_tokens)
        raise LLMProtocolError(
            f"the model {self.llm.info.model!r} gave no summary in {self._max_attempts} attempts: its last reply had"
            f" {len(text)} characters of text and ended with {stop.value!r}",
            model=self.llm.info.model,
        )

    def _is_stump(self, text: str, stop: StopReason, cap: int) -> bool:
        """Tell whether a reply was cut off before it had said much: its model thought, or a budget paid for no more."""
        least = int(min(self._task.max_summary_tokens, cap) * _STUMP_SHARE)
        return stop in _CUT and estimate_text(text) < least

    async def _ask(self, request: LLMRequest) -> LLMResponse:
        desk = self._desk
        if desk is None:
            return await self.llm.generate(request, _ignore)
        log: list[Message] = list(request.messages)
        for turn in range(self._max_rounds + 1):
            is_last = turn == self._max_rounds
            response = await self.llm.generate(
                LLMRequest(
                    messages=repair(log).messages,
                    system=request.system,
                    tools=desk.specs,
                    tool_choice="none" if is_last else "auto",
                    tail=fold_texts.NOTES_OVER if is_last else None,
                    max_output_tokens=request.max_output_tokens,
                ),
                _ignore,
            )
            calls = response.message.tool_calls
            if not calls or is_last:
                return response
            log.append(response.message)
            if response.stop in (*_CUT, *_NO_SUMMARY):
                cut = texts.content(texts.TRUNCATED_CALL)
                log += [tool_message(call.id, cut, is_error=True) for call in calls]
            else:
                log += [desk.answer(call) for call in calls]
        raise AssertionError("unreachable")


class _NotesDesk:
    """Runs the calls of note tools on a copy of the session's state."""

    def __init__(self, state: dict[str, Any], policy: NotesPolicy | None) -> None:
        self._notes = Notes(state, policy)
        self._tools = ToolRegistry.of(list(notes_tools(policy)))
        self.specs = self._tools.specs()
        self.has_written = False

    def answer(self, call: ToolCallPart) -> Message:
        """Return the result of a call."""
        try:
            return tool_message(call.id, texts.content(self._run(call)))
        except ToolError as error:
            return tool_message(call.id, texts.content(error.message), is_error=True)

    def _run(self, call: ToolCallPart) -> str:
        prepared = self._tools.prepared(call.name)
        if prepared is None:
            raise ToolError(texts.unknown_tool(self._tools.unknown_name_text(call.name)))
        parsed = prepared.parse(call.arguments)
        if parsed.arguments is None:
            raise ToolError(texts.invalid_arguments(call.name, parsed.problems))
        arguments = parsed.arguments
        if call.name == "note_write":
            self._notes.write(arguments["title"], arguments["text"])
            self.has_written = True
            return "Note kept."
        if call.name == "note_remove":
            self._notes.remove(arguments["title"])
            self.has_written = True
            return "Note removed."
        if call.name == "note_read":
            return self._notes.read(arguments["title"])
        return "\n".join(f"- {title}" for title in self._notes.texts) or "There are no notes."


# ---- the record as text ----


def _unit(message: Message) -> str:
    text = message_text(message).strip()
    return f"[{speaker(message)}]\n{text}" if text else ""


def _bounded(units: list[str], max_tokens: int) -> list[str]:
    """Return texts that take at most `max_tokens` in all: long ones lose their middle, and then the oldest go."""
    for max_chars in (0, *_LEVELS):
        if max_chars:
            units = [
                shortened(unit, max_chars, fate=fold_texts.CUT_FOR_SUMMARY) if len(unit) > max_chars else unit
                for unit in units
            ]
        if sum(map(estimate_text, units)) <= max_tokens:
            return units
    left, first = max_tokens, len(units)
    while first and left >= estimate_text(units[first - 1]):
        first -= 1
        left -= estimate_text(units[first])
    return [fold_texts.messages_left_out(first), *units[first:]]


def _next_piece(units: deque[str], max_tokens: int) -> tuple[str, deque[str]]:
    """Return the next piece, and the texts behind it; one that is too long for a piece is split."""
    rest, piece, left = deque(units), [], max_tokens
    while rest:
        tokens = estimate_text(rest[0]) + 1
        if tokens <= left:
            piece.append(rest.popleft())
            left -= tokens
            continue
        if not piece:
            unit = rest.popleft()
            chars = max(len(unit) * max_tokens // tokens, 1)
            piece.append(unit[:chars])
            rest.appendleft(unit[chars:])
        break
    return "\n\n".join(piece), rest


def _shortened_to(text: str, max_tokens: int) -> str:
    """Return a text that takes at most about `max_tokens` tokens: without its middle if it takes more."""
    return shorten_to_tokens(text, max_tokens, fate=fold_texts.CUT_SUMMARY)


def shorten_to_tokens(text: str, max_tokens: int, *, fate: str) -> str:
    """Return a text that takes at most about `max_tokens` tokens; `fate` says what became of its middle."""
    tokens = estimate_text(text)
    if tokens <= max_tokens:
        return text
    return shortened(text, len(text) * max_tokens // tokens, fate=fate)


def _ignore(delta: LLMDelta) -> None:
    """Hear nothing: a summary is read when it is whole."""


def _check_count(name: str, value: Any) -> None:
    if not is_whole(value, least=1):
        raise ConfigError(f"{name} is {value!r:.200}: give a whole number of at least 1")


def strategy_name(strategy: Any) -> str:
    """Return what a strategy is called in folds and events."""
    try:
        name = getattr(strategy, "name", None)
    except Exception:  # a user's own strategy may raise anything
        name = None
    return (name if isinstance(name, str) and name.strip() else type(strategy).__name__)[:_MAX_NAME_CHARS]


# The column of the store takes so many.
_MAX_NAME_CHARS = 64
