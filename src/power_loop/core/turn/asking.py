"""Asks the hooks, a person's approval and the tool's own rules whether a call may run, and with which arguments."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from power_loop.contracts.errors import HookError, ToolError
from power_loop.contracts.hooks import (
    Decision,
    HookPoint,
    Park,
    RequireApproval,
    Skip,
    ToolBeforeContext,
    ToolsBeforeContext,
    Veto,
)
from power_loop.contracts.states import WaitKind
from power_loop.contracts.tools import Waiting
from power_loop.core.context import texts
from power_loop.core.turn.settled import Ready, Settled, fail, park, refuse, settle_output
from power_loop.core.turn.turn import Turn, json_object_of
from power_loop.tools.output import output_of


async def ask_for_all(turn: Turn, ready: list[Ready]) -> tuple[list[Ready], list[Settled]]:
    """Ask the hooks about the calls of a reply together; return those that may go on, and the others settled."""
    hooks = turn.kit.hooks
    if not ready or not hooks.has(HookPoint.TOOLS_BEFORE):
        return ready, []
    context = turn.context_of(ToolsBeforeContext, calls=tuple(one.planned() for one in ready))
    try:
        decision = (await turn.consult(context)).decision
    except HookError:
        decision = Veto(texts.CHECK_FAILED)
    if isinstance(decision, Veto):
        return [], [refuse(one.call, texts.denied(one.call.name, decision.reason)) for one in ready]
    return ready, []


async def ask(turn: Turn, one: Ready) -> Settled | None:
    """Ask the hooks and the tool's own rule whether a call may run; None if it may."""
    call, definition = one.call, one.prepared.definition
    decision, arguments = await _consult(turn, one)
    if arguments is not one.arguments:
        refused = _rewrite(turn, one, arguments)
        if refused is not None:
            return refused
    if isinstance(decision, Veto):
        return refuse(call, texts.denied(call.name, decision.reason))
    if isinstance(decision, Skip):
        return settle_output(call, output_of(decision.result))
    if isinstance(decision, Park):
        return park(call, Waiting(decision.prompt, decision.kind, decision.answer_schema, decision.data))
    if turn.kit.permissions is not None:
        # Behind the hooks, so that it judges the arguments with which the call runs, and no approval goes round it.
        allowed = turn.kit.permissions.decide(one.planned())
        if isinstance(allowed, Veto):
            return refuse(call, texts.denied(call.name, allowed.reason))
        decision = decision if isinstance(decision, RequireApproval) else allowed
    if not call.is_approved and (isinstance(decision, RequireApproval) or definition.requires_approval):
        asked = decision if isinstance(decision, RequireApproval) else RequireApproval(f"Run {call.name}?")
        return park(call, Waiting(asked.prompt, WaitKind.APPROVAL, data=asked.data))
    if definition.handler is None:
        return park(call, Waiting(f"The result of {call.name}.", WaitKind.RESULT))
    return None


async def _consult(turn: Turn, one: Ready) -> tuple[Decision | None, Mapping[str, Any]]:
    """Return what the hooks decide about a call, and its arguments as they leave them."""
    hooks = turn.kit.hooks
    if not hooks.has(HookPoint.TOOL_BEFORE):
        return None, one.arguments
    context: ToolBeforeContext = turn.context_of(ToolBeforeContext, call=one.planned())
    try:
        consulted = await turn.consult(context)
    except HookError:
        return Veto(texts.CHECK_FAILED), one.arguments
    return consulted.decision, consulted.context.call.arguments


def _rewrite(turn: Turn, one: Ready, arguments: Mapping[str, Any]) -> Settled | None:
    try:
        text, changed = json_object_of(arguments)
    except ValueError as error:
        turn.hook_failed(HookPoint.TOOL_BEFORE, "arguments", error)
        return refuse(one.call, texts.denied(one.call.name, texts.CHECK_FAILED))
    problems = one.prepared.problems(changed)
    if problems:
        return refuse(one.call, texts.invalid_arguments(one.call.name, problems))
    if changed != one.arguments:
        # An approval was given for other arguments than these.
        one.call.is_approved = False
        one.call.arguments = text
        one.arguments = changed
        return _name_anew(turn, one)
    return None


def _name_anew(turn: Turn, one: Ready) -> Settled | None:
    """Let the key of a call follow other arguments, until it has run: then it stays what others were told."""
    call = one.call
    if call.is_keyed and not call.attempt:
        try:
            key = one.prepared.call_key(one.arguments, turn.session_id)
        except ToolError as error:
            return fail(call, texts.no_key(call.name, error.message))
        call.idempotency_key = key or call.idempotency_key
    return None
