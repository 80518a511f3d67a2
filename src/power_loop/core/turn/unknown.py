"""Settles what nobody saw the end of: asks the tool's probe, then does what its `on_unknown` says."""

from __future__ import annotations

import asyncio
import inspect
from functools import partial
from typing import Any

from power_loop.contracts.errors import ResultPrunedError
from power_loop.contracts.messages import ContentPart
from power_loop.contracts.records import CallRecord
from power_loop.contracts.states import OPEN_CALLS, CallState, Effect, OnUnknown, WaitKind
from power_loop.contracts.tools import ToolProbe, Waiting
from power_loop.core.context import texts
from power_loop.core.turn.chain import start
from power_loop.core.turn.points import pass_point
from power_loop.core.turn.settled import Ready, Settled, fail, park, refuse, settle, settle_output
from power_loop.core.turn.turn import OpenCall, Turn
from power_loop.tools.output import Output, error_output, output_of
from power_loop.tools.prepared import PreparedTool, is_async_handler


class _NoAnswer(Exception):  # noqa: N818  (a signal of this room to itself, not an error)
    """Says that a probe cannot tell what became of its call."""


async def settle_stale(turn: Turn, call: OpenCall, prepared: PreparedTool | None) -> Settled | None:
    """Return what becomes of a call that was started when its process died; None if it runs again."""
    effects = {call.effect, Effect.ONCE if prepared is None else prepared.definition.effect}
    if not call.is_stale or Effect.ONCE not in effects:
        return None
    given = await _probed(turn, call, prepared)
    if isinstance(given, Settled):
        return given
    policy = _policy(turn, prepared)
    if given is None:
        return None if policy is OnUnknown.RERUN else fail(call, texts.had_no_effect(call.name))
    return _unknown(call, policy)


async def settle_by_twin(turn: Turn, one: Ready) -> Settled | None:
    """Return what a call gets from earlier ones about the same thing: their result, or their fate; None if it runs."""
    call, definition = one.call, one.prepared.definition
    found = await turn.kit.store.get_keyed_calls(turn.session_id, call.idempotency_key)
    twins = [twin for twin in found if twin.name == call.name and twin.call_id != call.call_id]
    # The first that succeeded is the one that ran.
    done = next((twin for twin in twins if twin.state is CallState.SUCCEEDED), None)
    if done is not None:
        output = Output((*await _recorded(turn, done), *texts.content(texts.NOT_RUN_AGAIN)))
        return settle(call, CallState.SUCCEEDED, output, definition)
    if any(twin.state is CallState.WAITING for twin in twins):
        return refuse(call, texts.twin_waits(call.name))
    # One that was refused, or given up before it began, says nothing of those before it.
    ended = [twin for twin in twins if twin.attempt or twin.state is CallState.UNKNOWN]
    ended = [twin for twin in ended if twin.state not in OPEN_CALLS]
    is_unsure = bool(ended) and _may_have_happened(ended[-1])
    # One that has run before, or that a person let run after all, has been here.
    if not is_unsure or call.attempt or definition.effect is not Effect.ONCE:
        return None
    given = await _probed(turn, call, one.prepared)
    if isinstance(given, Settled) or given is None:
        return given
    call.attempt = ended[-1].attempt
    return _unknown(call, _policy(turn, one.prepared))


async def _recorded(turn: Turn, done: CallRecord) -> tuple[ContentPart, ...]:
    """Return what a call gave: all of it, or what the model was shown of it where the rest was pruned."""
    store = turn.kit.store
    try:
        return await store.get_tool_result(turn.session_id, done.call_id) or ()
    except ResultPrunedError:
        shown = await store.get_messages(turn.session_id, after_seq=(done.result_seq or 1) - 1, limit=1)
    result = shown[0].message.tool_result if shown else None
    return () if result is None else result.content


def _may_have_happened(twin: CallRecord) -> bool:
    is_cut = twin.state is CallState.ABORTED and twin.started_at_ms is not None
    return is_cut or twin.state is CallState.UNKNOWN


def _policy(turn: Turn, prepared: PreparedTool | None) -> OnUnknown:
    own = None if prepared is None else prepared.definition.on_unknown
    policy = turn.kit.on_unknown if own is None else own
    # What is not here cannot run again.
    return OnUnknown.TELL_MODEL if prepared is None and policy is OnUnknown.RERUN else policy


def _unknown(call: OpenCall, policy: OnUnknown) -> Settled | None:
    if policy is OnUnknown.RERUN:
        return None
    if policy is OnUnknown.TELL_MODEL:
        return settle(call, CallState.UNKNOWN, error_output(texts.unknown_outcome(call.name)), attempt=call.attempt)
    prompt = (
        f"{call.name} was interrupted after it had started, and nobody saw how it ended. Give(result) says that it"
        " happened, Deny(reason) that it did not, Approve() runs it again."
    )
    data = {"idempotency_key": call.idempotency_key, "attempt": call.attempt}
    return park(call, Waiting(prompt, WaitKind.OUTCOME, data=data))


async def _probed(turn: Turn, call: OpenCall, prepared: PreparedTool | None) -> Settled | _NoAnswer | None:
    """Return what a call's probe tells: its end, None where it had no effect, or that there is no answer."""
    definition = None if prepared is None else prepared.definition
    if definition is None or definition.probe is None:
        return _NoAnswer()
    try:
        given = await _ask(turn, call, definition.probe, timeout_s=definition.timeout_s)
    except _NoAnswer as no_answer:
        return no_answer
    if given is None:
        return None
    output = output_of(given)
    return settle_output(call, output, definition) if isinstance(output, Output) else _NoAnswer()


async def _ask(turn: Turn, call: OpenCall, probe: ToolProbe, *, timeout_s: float | None) -> Any:
    """Return what a probe says within the tool's time limit. Raises `_NoAnswer`, whatever the probe does instead.

    A plain function is run in a thread, like a handler.
    """
    key = call.idempotency_key

    async def ask() -> Any:
        pass_point(turn.kit.store, "effect.before", call.name)
        given = probe(key) if is_async_handler(probe) else await turn.kit.desk.threads.run(partial(probe, key))
        given = await given if inspect.isawaitable(given) else given
        pass_point(turn.kit.store, "effect.after", call.name)
        return given

    asking = start(ask())
    # One that is left behind may still fail.
    asking.add_done_callback(lambda task: task.cancelled() or task.exception())
    try:
        await turn.scope.interruptible(asyncio.wait((asking,), timeout=timeout_s))
        if not asking.done() or asking.cancelled() or asking.exception() is not None:
            raise _NoAnswer
        return asking.result()
    finally:
        if not asking.done():
            asking.cancel()
