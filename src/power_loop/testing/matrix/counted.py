"""Puts a counter between a loop and its model and tools, so that what really ran is known outside of the database."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import Any

from power_loop import Effect, LLMRequest, LLMResponse, StatefulAgentLoop, ToolContext, ToolDefinition
from power_loop.errors import ConfigError
from power_loop.llm import Emit
from power_loop.testing.matrix.outside import Ledger, digest_of, problems_of_transcript, tokens_of
from power_loop.testing.matrix.points import Points

_CONTEXT = "crash_matrix_context"


def count_model(loop: StatefulAgentLoop, ledger: Ledger, points: Points) -> None:
    """Write down every request that the loop's models get and every reply that they give."""
    # One may stand under several names.
    for llm in {id(one): one for one in (loop.llm, *loop.config.models.values())}.values():
        _count(llm, ledger, points)


def _count(llm: Any, ledger: Ledger, points: Points) -> None:
    generate = llm.generate

    async def counted(request: LLMRequest, emit: Emit) -> LLMResponse:
        ledger.note("asked", problems=problems_of_transcript(request.messages))
        if not points.hears_models:
            points.passed(f"model.before {llm.info.model}")
        response: LLMResponse = await generate(request, emit)
        ledger.note("replied", digest=digest_of(response.message), usage=tokens_of(response.usage))
        if not points.hears_models:
            points.passed(f"model.after {llm.info.model}")
        return response

    try:
        llm.generate = counted
    except AttributeError as error:
        raise ConfigError(
            f"the calls of the model {llm!r:.200} cannot be counted: its class has __slots__; give a subclass without"
        ) from error


def count_tools(loop: StatefulAgentLoop, ledger: Ledger, points: Points) -> dict[str, dict[str, Any]]:
    """Write down every run of every tool; return by name what each says of its effect."""
    told = {}
    for definition in list(loop.tools):
        told[definition.name] = {
            "effect": definition.effect.value,
            # Somebody who knows better than the ledger may let it run again.
            "may_rerun": definition.probe is not None or _on_unknown(definition) in ("rerun", "ask"),
            "is_counted": definition.handler is not None and definition.effect.value != "transactional",
        }
        if told[definition.name]["is_counted"]:
            loop.tools.register(_counted(definition, ledger, points), replace=True)
    return told


def _on_unknown(definition: ToolDefinition) -> str | None:
    wish = getattr(definition, "on_unknown", None)
    return None if wish is None else str(getattr(wish, "value", wish))


def _counted(definition: ToolDefinition, ledger: Ledger, points: Points) -> ToolDefinition:
    handler: Callable[..., Any] = definition.handler  # type: ignore[assignment]
    own = definition.takes_context or _context_of(handler)
    name = definition.name

    def begin(keywords: dict[str, Any]) -> dict[str, Any]:
        context: ToolContext = keywords[own] if own else keywords.pop(_CONTEXT)
        facts = {
            "tool": name,
            "key": context.idempotency_key,
            "session": context.session_id,
            "call": context.call_id,
            "attempt": context.attempt,
        }
        if not points.hears_effects:
            points.passed(f"effect.before {name}")
        ledger.note("begin", **facts)
        return facts

    def end(facts: dict[str, Any], what: str) -> None:
        ledger.note(what, **facts)
        if what == "end" and not points.hears_effects:
            points.passed(f"effect.after {name}")

    if _is_async(handler):

        async def run(**keywords: Any) -> Any:
            facts = begin(keywords)
            try:
                given = await handler(**keywords)
            except BaseException:
                end(facts, "raised")
                raise
            end(facts, "end")
            return given
    else:

        def run(**keywords: Any) -> Any:  # type: ignore[misc]
            facts = begin(keywords)
            try:
                given = handler(**keywords)
            except BaseException:
                end(facts, "raised")
                raise
            end(facts, "end")
            return given

    functools.update_wrapper(run, handler)
    signature = inspect.signature(handler)
    if own is None:
        last = [one for one in signature.parameters.values() if one.kind is inspect.Parameter.VAR_KEYWORD]
        first = [one for one in signature.parameters.values() if one not in last]
        added = inspect.Parameter(_CONTEXT, inspect.Parameter.KEYWORD_ONLY, annotation=ToolContext)
        signature = signature.replace(parameters=[*first, added, *last])
    run.__signature__ = signature  # type: ignore[attr-defined]
    return dataclasses.replace(definition, handler=run, takes_context=own or _CONTEXT, memo={})


def _context_of(handler: Callable[..., Any]) -> str | None:
    for parameter in inspect.signature(handler).parameters.values():
        hint = parameter.annotation
        if hint is ToolContext or (isinstance(hint, str) and hint.split(".")[-1].startswith("ToolContext")):
            return parameter.name
    return None


def _is_async(handler: Callable[..., Any]) -> bool:
    while isinstance(handler, functools.partial):
        handler = handler.func
    return inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(getattr(handler, "__call__", None))  # noqa: B004


#: The classes of which a second run is a fault.
ONLY_ONCE = frozenset({Effect.ONCE.value, "transactional"})
