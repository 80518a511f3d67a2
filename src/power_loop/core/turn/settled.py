"""Makes of what becomes of a call the step that is committed for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from power_loop.contracts.frozen import frozen
from power_loop.contracts.hooks import PlannedCall
from power_loop.contracts.messages import clean_text, tool_message
from power_loop.contracts.records import CallStep
from power_loop.contracts.states import LASTING_EFFECTS, CallState, Effect, WaitKind
from power_loop.contracts.tools import ToolDefinition, Waiting
from power_loop.core.context import texts
from power_loop.core.turn.turn import OpenCall, json_object_of, step_of
from power_loop.tools.output import Output, error_output
from power_loop.tools.prepared import PreparedTool


@dataclass(slots=True)
class Ready:
    """Is a call that may run: its tool, its checked arguments."""

    call: OpenCall
    prepared: PreparedTool
    arguments: dict[str, Any]
    began_s: float = 0.0

    @property
    def has_lasting_effect(self) -> bool:
        """True if the ledger has to say that it started before it does: by what the tool was, or by what it is."""
        return self.call.effect in LASTING_EFFECTS or self.prepared.definition.effect in LASTING_EFFECTS

    @property
    def twin_key(self) -> tuple[str, str] | None:
        """What it is about, where its tool tells; of calls with the same one, one runs at a time."""
        return (self.call.name, self.call.idempotency_key) if self.call.is_keyed else None

    @property
    def is_once_by_key(self) -> bool:
        """True if what it is about may be done once only."""
        return self.call.is_keyed and self.prepared.definition.effect is Effect.ONCE

    def planned(self) -> PlannedCall:
        """Return it as hooks see it."""
        call = self.call
        return PlannedCall(
            call.call_id,
            self.prepared.definition,
            self.arguments,
            call.idempotency_key,
            max(call.attempt, 1),
            call.is_approved,
        )


@frozen
class Settled:
    """Is a step that is ready to be committed, and what is announced behind it.

    `has_run` marks the outcome of a handler, which is made durable before another one begins.
    """

    call: OpenCall
    step: CallStep
    waiting: Waiting | None = None
    duration_s: float = 0.0
    has_run: bool = False


def fail(call: OpenCall, text: str) -> Settled:
    """Answer a call with an error in words of the kernel's."""
    return settle(call, CallState.FAILED, error_output(text))


def refuse(call: OpenCall, text: str) -> Settled:
    """Answer a call that may not run; one that had started when its process died may have happened all the same."""
    if not call.is_stale:
        return fail(call, text)
    return settle(call, CallState.UNKNOWN, error_output(texts.not_run_again(call.name, text)))


def settle_output(call: OpenCall, output: Output | Waiting, definition: ToolDefinition | None = None) -> Settled:
    """Answer a call with what it gave, or let it wait."""
    if isinstance(output, Waiting):
        return park(call, output)
    return settle(call, CallState.FAILED if output.is_error else CallState.SUCCEEDED, output, definition)


def settle(
    call: OpenCall,
    state: CallState,
    output: Output,
    definition: ToolDefinition | None = None,
    *,
    duration_s: float = 0.0,
    attempt: int | None = None,
) -> Settled:
    """Bring a call to its end; with its tool's definition, the model is shown a preview of what is too long."""
    shown = output.content
    if definition is not None:
        shown = output.preview(definition.max_result_chars)
    message = tool_message(call.call_id, shown, is_error=output.is_error)
    whole = output.content if shown is not output.content else None
    return Settled(call, step_of(call, state, message=message, whole=whole, attempt=attempt), duration_s=duration_s)


def park(call: OpenCall, waiting: Waiting) -> Settled:
    """Let a call wait; what cannot be put to anybody is an error for the model."""
    asked: dict[str, Any] = {}
    if waiting.answer_schema is not None:
        asked["answer_schema"] = waiting.answer_schema
    if waiting.data is not None:
        asked["data"] = waiting.data
    try:
        kind, data, prompt = WaitKind(waiting.kind), json_object_of(asked)[1] or None, clean_text(waiting.prompt)
    except (ValueError, TypeError) as error:
        return fail(call, texts.cannot_be_asked(call.name, str(error)))
    call.wait_kind, call.prompt, call.wait_data = kind, prompt, data
    step = step_of(
        call,
        CallState.WAITING,
        # A read that ran has left no trace of it so far.
        attempt=call.attempt or None,
        wait_kind=kind,
        prompt=prompt,
        wait_data=data,
        arguments=call.arguments,
        # It goes on with the same work behind the wait for a sub-agent.
        is_approved=call.is_approved and kind is WaitKind.AGENT,
    )
    return Settled(call, step, waiting=waiting)
