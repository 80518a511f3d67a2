"""Turns what a person or the application says to waiting calls into steps of the ledger."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from power_loop.contracts.answers import Answer, Approve, Deny, Give
from power_loop.contracts.errors import (
    CallNotFoundError,
    CallNotWaitingError,
    ConfigError,
    InputError,
    ToolError,
)
from power_loop.contracts.events import ToolCallAnswered, ToolCallFinished
from power_loop.contracts.json_schema import SchemaError, compile_schema
from power_loop.contracts.messages import Message, tool_message
from power_loop.contracts.records import CallRecord, CallStep
from power_loop.contracts.states import CallState, WaitKind
from power_loop.contracts.tools import ToolResult
from power_loop.core.context import texts
from power_loop.core.turn.turn import OpenCall, Turn, json_object_of, step_of
from power_loop.tools.output import Output, error_output, output_of


def check_waiting(session_id: str, calls: tuple[CallRecord, ...], answers: Mapping[str, Answer]) -> None:
    """Raise `call.not_found` or `call.not_waiting` for the first answer that has no waiting call."""
    by_id = {call.call_id: call for call in calls}
    for call_id in answers:
        call = by_id.get(call_id)
        if call is None:
            waiting = ", ".join(repr(one.call_id) for one in calls if one.state is CallState.WAITING) or "none"
            raise CallNotFoundError(
                f"session {session_id!r} has no call {call_id!r}: the calls that wait are {waiting}",
                session_id=session_id,
                call_id=call_id,
            )
        if call.state is not CallState.WAITING:
            raise _not_waiting(session_id, call_id, call.state.value)


def _not_waiting(session_id: str, call_id: str, state: str) -> CallNotWaitingError:
    return CallNotWaitingError(
        f"call {call_id!r} of session {session_id!r} is {state!r} and waits for no answer:"
        " get_pending() lists the calls that do",
        session_id=session_id,
        call_id=call_id,
        state=state,
    )


class Answers:
    """Is answers to waiting calls of a turn, read and found right, on their way into the ledger.

    Raises `input.invalid` and `call.not_waiting`, with nothing written.
    """

    def __init__(self, turn: Turn, answers: Mapping[str, Answer]) -> None:
        self._turn = turn
        self._taken = [
            _Taken(turn, call, answers[call.call_id])
            for call in turn.calls
            if call.call_id in answers and call.state is CallState.WAITING
        ]
        late = answers.keys() - {one.call.call_id for one in self._taken}
        if late:
            # Somebody else answered since the caller looked.
            raise _not_waiting(turn.session_id, min(late), "settled")

    @property
    def left_agents(self) -> list[OpenCall]:
        """The calls that are settled by an answer while a sub-agent of theirs still has something to do."""
        return [one.call for one in self._taken if one.is_final and one.call.wait_kind is WaitKind.AGENT]

    async def commit(self) -> None:
        """Make all of them durable in one transaction, and announce them."""
        turn, taken = self._turn, self._taken
        if not taken:
            return
        messages = [one.step.message for one in taken if one.step.message is not None]
        await turn.advance_calls([one.step for one in taken])
        for one in taken:
            one.apply(turn)
        await turn.note_appended(messages)
        for one in taken:
            turn.announce(ToolCallAnswered(one.call.call_id, one.call.name, one.decision))
            if one.is_final:
                state = one.step.state.value
                turn.announce(ToolCallFinished(one.call.call_id, one.call.name, state, one.is_error, 0.0))
        if not turn.calls:
            await turn.end_round()


class _Taken:
    """Is one answer with the step that it makes."""

    def __init__(self, turn: Turn, call: OpenCall, answer: Answer) -> None:
        self.call = call
        self.is_error = False
        self.arguments = call.arguments
        if isinstance(answer, Approve):
            self.decision = "approved"
            self.step = self._approved(turn, answer)
        elif isinstance(answer, Deny):
            self.decision = "denied"
            is_outcome = call.wait_kind is WaitKind.OUTCOME
            text = (texts.did_not_happen if is_outcome else texts.denied)(call.name, answer.reason)
            self.step = self._settled(turn, error_output(text))
        elif isinstance(answer, Give):
            self.decision = "result"
            self.step = self._given(turn, answer)
        else:
            raise InputError(f"answer {answer!r} to call {call.call_id!r} is none of Approve, Deny and Give")

    @property
    def is_final(self) -> bool:
        return self.step.state is not CallState.REQUESTED

    def apply(self, turn: Turn) -> None:
        """Take the step in memory too."""
        self.call.state = self.step.state
        if self.is_final:
            turn.calls.remove(self.call)
            return
        self.call.arguments = self.arguments
        self.call.is_approved = True
        self.call.wait_kind = self.call.prompt = self.call.wait_data = None

    def _approved(self, turn: Turn, answer: Approve) -> CallStep:
        call = self.call
        if call.wait_kind not in (WaitKind.APPROVAL, WaitKind.OUTCOME):
            kind = None if call.wait_kind is None else call.wait_kind.value
            raise InputError(
                f"call {call.call_id!r} waits for its {kind}, not for an approval: answer with Give(result)"
            )
        if turn.tools.prepared(call.name) is None:
            raise ConfigError(
                f"call {call.call_id!r} cannot be approved here, because this process has no tool {call.name!r} to run"
                " it: add it to the loop's registry, or give it as resume(..., tools=[...]); the call waits on"
            )
        if answer.arguments is not None:
            if call.wait_kind is WaitKind.OUTCOME:
                raise InputError(
                    f"call {call.call_id!r} may have happened with the arguments that it has: Approve() runs it again"
                    " with these, and takes no others"
                )
            self.arguments = _edited(turn, call, answer.arguments)
        return step_of(call, CallState.REQUESTED, arguments=self.arguments, is_approved=True)

    def _given(self, turn: Turn, answer: Give) -> CallStep:
        call = self.call
        schema = (call.wait_data or {}).get("answer_schema")
        if schema is not None and not answer.is_error:
            _check_answer(call, answer.result, schema)
        output = output_of(ToolResult(answer.result, is_error=True) if answer.is_error else answer.result)
        if not isinstance(output, Output):
            raise InputError(f"the result for call {call.call_id!r} is Waiting: give a value")
        return self._settled(turn, output)

    def _settled(self, turn: Turn, output: Output) -> CallStep:
        self.is_error = output.is_error
        prepared = turn.tools.prepared(self.call.name)
        shown = output.content
        if prepared is not None:
            shown = output.preview(prepared.definition.max_result_chars)
        message: Message = tool_message(self.call.call_id, shown, is_error=output.is_error)
        state = CallState.FAILED if output.is_error else CallState.SUCCEEDED
        whole = output.content if shown is not output.content else None
        return step_of(self.call, state, message=message, whole=whole)


def _edited(turn: Turn, call: OpenCall, arguments: Mapping[str, Any]) -> str:
    prepared = turn.tools.prepared(call.name)
    try:
        text, changed = json_object_of(arguments)
    except ValueError as error:
        raise InputError(f"the arguments for call {call.call_id!r} cannot be used: {error}") from error
    problems = () if prepared is None else prepared.problems(changed)
    if problems:
        reasons = "; ".join(f"{problem.path}: {problem.message}" for problem in problems)
        raise InputError(f"the arguments for call {call.call_id!r} do not fit tool {call.name!r}: {reasons}")
    if prepared is not None and call.is_keyed and not call.attempt:
        try:
            call.idempotency_key = prepared.call_key(changed, turn.session_id) or call.idempotency_key
        except ToolError as error:
            raise InputError(
                f"the arguments for call {call.call_id!r} cannot be used: {error.message}; give others, or Deny()"
            ) from error
    return text


def _check_answer(call: OpenCall, result: Any, schema: Mapping[str, Any]) -> None:
    try:
        problems = compile_schema(schema).problems(result)
    except SchemaError:
        return  # the tool asked with a schema that is none: there is nothing to hold the answer to
    if problems:
        reasons = "; ".join(f"{problem.path}: {problem.message}" for problem in problems)
        raise InputError(f"the result for call {call.call_id!r} is not what was asked for: {reasons}")
