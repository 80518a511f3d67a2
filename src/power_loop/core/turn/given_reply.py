"""Reads what a user's own model or hook gave as a reply, and says what is wrong with one that is none."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, get_args

from power_loop.contracts.errors import LLMProtocolError
from power_loop.contracts.llm import LLMResponse, StopReason, Usage
from power_loop.contracts.messages import Message, OpaquePart, Part, ReasoningPart, Role, ToolCallPart, ToolResultPart
from power_loop.contracts.numbers import is_whole

# More tokens than any call can take, and few enough that sums of them stay what every database and JSON reader takes.
MAX_TOKENS = 2**40

_PARTS = tuple(one for one in get_args(Part) if one is not ToolResultPart)
_COUNTS = ("input_tokens", "output_tokens", "cached_input_tokens", "cache_write_tokens", "reasoning_tokens")


def read_reply(given: Any, *, giver: str, model: str) -> LLMResponse:
    """Return a reply as the kernel takes it: a list of parts becomes a tuple, the word of a `StopReason` the member.

    `giver` begins the sentence of an error. Raises `llm.protocol`, not to be tried again, that names the first thing
    which is wrong: the same code would give the same once more.
    """
    problem, parts = _problem(given)
    if problem is not None:
        raise LLMProtocolError(f"{giver} {problem}", model=model, may_retry=False)
    response: LLMResponse = given
    if parts is not response.message.parts:
        response = replace(response, message=replace(response.message, parts=parts, memo={}))
    stop = StopReason(response.stop)
    return response if stop is response.stop else replace(response, stop=stop)


def _problem(given: Any) -> tuple[str | None, tuple[Part, ...]]:
    """Return what is wrong with a reply, if anything is, and its parts as a tuple."""
    if not isinstance(given, LLMResponse):
        return f"gave {given!r:.200}: a reply is an LLMResponse", ()
    message: Any = given.message
    if not isinstance(message, Message) or message.role is not Role.ASSISTANT:
        return f"gave an LLMResponse with message {message!r:.200}: a reply is a Message of the assistant", ()
    parts: Any = message.parts
    if not isinstance(parts, (tuple, list)):
        return f"gave a message with parts {parts!r:.200}: give a tuple of parts such as TextPart", ()
    problem = next(filter(None, map(_part_problem, parts)), None) or _stop_problem(given.stop)
    if problem is None and given.usage is not None:
        wrong = usage_problem(given.usage)
        problem = None if wrong is None else f"gave {wrong}, or None where it is not known"
    for name in ("id", "request_id", "model"):
        value = getattr(given, name)
        if problem is None and value is not None and not isinstance(value, str):
            problem = f"gave an LLMResponse with {name} {value!r:.200}: give text or None"
    return problem, parts if isinstance(parts, tuple) else tuple(parts)


def _part_problem(part: Any) -> str | None:
    if not isinstance(part, _PARTS):
        return f"gave a message with the part {part!r:.200}: give parts such as TextPart and ToolCallPart"
    call_id: Any = part.id if isinstance(part, ToolCallPart) else ""
    if not isinstance(call_id, str):
        return f"gave a call with id {call_id!r:.200}: give text; an empty one is replaced"
    raw: Any = part.raw if isinstance(part, (ReasoningPart, OpaquePart)) else None
    if raw is not None and not isinstance(raw, str):
        return f"gave a {type(part).__name__} with raw {raw!r:.200}: give JSON text"
    return None


def _stop_problem(stop: Any) -> str | None:
    try:
        StopReason(stop)
    except ValueError:
        known = ", ".join(repr(one.value) for one in StopReason)
        return f"gave an LLMResponse with stop {stop!r:.200}: the reasons are {known}"
    return None


def usage_problem(usage: Any) -> str | None:
    """Return what is wrong with what is given for a usage, if anything is."""
    if not isinstance(usage, Usage):
        return f"the usage {usage!r:.200}: give a Usage"
    for name in _COUNTS:
        count: Any = getattr(usage, name)
        if not is_count(count):
            return f"a Usage with {name} {count!r:.200}: give a whole number of tokens from 0 to 2**40"
    return None


def is_count(value: Any) -> bool:
    """Tell whether a value is a count that every database and JSON reader takes, as are sums of it."""
    return is_whole(value, most=MAX_TOKENS)
