"""Shows a turn while it runs: what the model says as it says it, and what its tools do."""

from __future__ import annotations

import json
import sys
from typing import Any

from power_loop import AgentEvent, SendStatus, StatefulResult
from power_loop.cli.output import paint, say_json
from power_loop.cli.printable import one_line, plain, printable
from power_loop.cli.transcript import called, money, tokens
from power_loop.events import (
    FoldFinished,
    LLMCallFailed,
    ReasoningDelta,
    StreamReset,
    TextDelta,
    ToolCallFinished,
    ToolCallProgressed,
    ToolCallStarted,
    ToolCallWaiting,
)

_ENDS_WELL = (SendStatus.COMPLETED, SendStatus.QUEUED)


class TurnView:
    """Writes the events of turns to standard output as they come, as text or as a JSON object a line."""

    def __init__(self, *, is_json: bool, shows_reasoning: bool = False) -> None:
        self._is_json = is_json
        self._shows_reasoning = shows_reasoning
        self._is_in_line = False

    def hear(self, event: AgentEvent) -> None:
        """Show one event; those that say nothing to a person are passed over."""
        payload = event.payload
        if self._is_json:
            kind = _JSON_TYPES.get(type(payload))
            if kind is not None:
                say_json({"type": kind, **plain(payload)})
        elif isinstance(payload, TextDelta):
            self._write(printable(payload.text))
        elif isinstance(payload, ReasoningDelta):
            if self._shows_reasoning:
                self._write(paint(printable(payload.text), "dim"))
        elif isinstance(payload, ToolCallStarted):
            arguments = json.dumps(dict(payload.arguments), ensure_ascii=False)
            again = f" (attempt {payload.attempt})" if payload.attempt > 1 else ""
            self.note(called(payload.name, arguments) + again)
        elif isinstance(payload, ToolCallProgressed):
            self.note(paint(f"  {one_line(payload.message, 200)}", "dim"))
        elif isinstance(payload, ToolCallFinished):
            colour = "red" if payload.is_error else "green"
            name = printable(payload.name)
            self.note(f"  {paint(payload.state, colour)} {paint(f'{name}, {payload.duration_s:.1f} s', 'dim')}")
        elif isinstance(payload, StreamReset):
            self.note(paint("(the stream broke off: what stands above is void)", "yellow"))
        elif isinstance(payload, LLMCallFailed):
            if payload.retry_in_s is not None:
                self.note(paint(f"({payload.code}: again in {payload.retry_in_s:.0f} s)", "yellow"))
        elif isinstance(payload, FoldFinished):
            self.note(paint(f"(folded up to message {payload.to_seq})", "dim"))

    def end(self, result: StatefulResult) -> None:
        """Show how a turn came to rest."""
        if self._is_json:
            say_json({"type": "result", **plain(result)})
            return
        self.note("")
        if result.status not in (*_ENDS_WELL, SendStatus.WAITING_FOR_INPUT):
            why = f": {one_line(result.reason, 300)}" if result.reason else ""
            self.note(paint(f"({result.status.value}{why})", "yellow"))
        if sys.stdout.isatty():
            cost = "" if result.cost is None else f", {money(result.cost)}"
            self.note(paint(f"({tokens(result.usage)}{cost})", "dim"))

    def note(self, line: str) -> None:
        """Write a line of its own; an empty one only ends the line that is being written."""
        if self._is_in_line:
            sys.stdout.write("\n")
            self._is_in_line = False
        if line:
            sys.stdout.write(f"{line}\n")
        sys.stdout.flush()

    def _write(self, text: str) -> None:
        if text:
            sys.stdout.write(text)
            sys.stdout.flush()
            self._is_in_line = not text.endswith("\n")


_JSON_TYPES: dict[type[Any], str] = {
    TextDelta: "text",
    ReasoningDelta: "reasoning",
    ToolCallStarted: "tool_started",
    ToolCallProgressed: "tool_progressed",
    ToolCallFinished: "tool_finished",
    ToolCallWaiting: "tool_waiting",
    StreamReset: "reset",
    LLMCallFailed: "model_failed",
    FoldFinished: "folded",
}


def ends_well(result: StatefulResult) -> bool:
    """Tell whether a turn did what was asked."""
    return result.status in _ENDS_WELL
