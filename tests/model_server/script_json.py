"""The JSON form of a script, for a server in another process.

A script is a list; each item is one of

- `"some text"`: an answer of one delta;
- an answer: `{"text": "…" | [pieces], "reasoning": "…" | [pieces], "refusal": …, "calls": [{"name", "arguments", …}],
  "usage": null | {"input_tokens", "output_tokens", …}, "faults": ["name" | {"name": …, option: value}], …}`; the
  calls have the fields of `ToolCall` (arguments: a text, an object, or a list of pieces), the other keys are fields
  of `Answer` (finish, stop_details, stop_sequence, id, model, whole), and a fault is a function of `faults.FAULTS`
  with its options;
- a failure: `{"failure": "name", option: value}`, a function of `faults.FAILURES` with its options.
"""

from __future__ import annotations

from typing import Any

from .faults import FAILURES, FAULTS
from .reply import Fault, ScriptError
from .script import ESTIMATED, Answer, Part, Reasoning, Refusal, Step, Text, ToolCall, Usage, say


def steps_from_json(items: Any) -> list[Step]:
    """Read a script; raises ScriptError naming the item that is wrong."""
    if not isinstance(items, list):
        raise ScriptError(f"a script is a list of answers, this is {type(items).__name__}")
    return [_step(item, place) for place, item in enumerate(items)]


def _step(item: Any, place: int) -> Step:
    try:
        return _read(item)
    except (KeyError, TypeError, AttributeError) as exc:
        raise ScriptError(f"item {place} of the script, {item!r}: {type(exc).__name__}: {exc}") from exc


def _read(item: Any) -> Step:
    if isinstance(item, str):
        return say(item)
    fields = dict(item)
    if "failure" in fields:
        return FAILURES[fields.pop("failure")](**fields)
    parts: list[Part] = []
    for key, kind in (("reasoning", Reasoning), ("text", Text), ("refusal", Refusal)):
        if key in fields:
            parts.append(kind(_pieces(fields.pop(key))))
    parts += [_call(one) for one in fields.pop("calls", ())]
    usage = fields.pop("usage", ESTIMATED)
    if isinstance(usage, dict):
        usage = Usage(**usage)
    faults = tuple(_fault(one) for one in fields.pop("faults", ()))
    return Answer(parts=tuple(parts), usage=usage, faults=faults, **fields)


def _pieces(value: str | list[str]) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value)


def _call(fields: dict[str, Any]) -> ToolCall:
    arguments = fields.get("arguments", "{}")
    return ToolCall(**{**fields, "arguments": tuple(arguments) if isinstance(arguments, list) else arguments})


def _fault(item: str | dict[str, Any]) -> Fault:
    options = {"name": item} if isinstance(item, str) else dict(item)
    return FAULTS[options.pop("name")](**options)
