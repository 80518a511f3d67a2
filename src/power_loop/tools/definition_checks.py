"""Finds every reason why a tool cannot be offered as it is defined."""

from __future__ import annotations

import functools
import inspect
import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from power_loop.contracts.errors import ToolDefinitionError
from power_loop.contracts.json_schema import SchemaError, Validator, compile_schema
from power_loop.contracts.live import LiveState
from power_loop.contracts.numbers import is_number, is_whole
from power_loop.contracts.states import Effect, OnUnknown
from power_loop.contracts.tools import ToolDefinition
from power_loop.tools.context_hint import context_parameter, transaction_parameter

# What both wire formats take; the stricter of the two decides.
MAX_NAME_CHARS = 64
# It goes with every model call.
MAX_GUIDANCE_CHARS = 4_000
_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_NOT_IN_NAMES = re.compile(r"[^a-zA-Z0-9_-]+")
_PROPERTY_NAME = re.compile(r"[a-zA-Z0-9_.-]{1,64}")
# Both providers answer 400 to a whole request because of one tool with one of these beside `type: object`.
_REFUSED_AT_TOP = ("anyOf", "oneOf", "allOf", "enum", "not")
_UNNAMED = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def definition_error(name: object, problems: list[str]) -> ToolDefinitionError:
    """Return the error that says why a tool cannot be offered."""
    reasons = "; ".join(problems)
    return ToolDefinitionError(f"the tool {name!r} cannot be offered as it is defined: {reasons}", problems=problems)


def portable_name(name: str, *, fallback: str = "tool") -> str:
    """Return the nearest name that every provider accepts: `fs.read` becomes `fs_read`; `fallback` where none is
    near."""
    return _NOT_IN_NAMES.sub("_", name).strip("_")[:MAX_NAME_CHARS] or fallback


def examine(definition: ToolDefinition) -> tuple[list[str], Validator | None]:
    """Return every problem of a definition, and the compiled schema unless the schema itself is one of them."""
    problems = _name_problems(definition.name) + _description_problems(definition.description)
    problems += _option_problems(definition)
    schema_problems, validator = _schema_problems(definition.input_schema)
    problems += schema_problems
    if definition.handler is not None:
        problems += _handler_problems(definition, definition.handler)
    else:
        problems += [
            f"it takes {what} as {name!r}, but has no handler to give it to"
            for what, name in (("a context", definition.takes_context), ("a transaction", definition.takes_transaction))
            if name is not None
        ]
        if definition.effect is Effect.TRANSACTIONAL:
            problems.append("its effect is 'transactional', but it has no handler that could run in a transaction")
    return problems, validator


def accepted_names(handler: Callable[..., Any]) -> frozenset[str] | None:
    """Return the names that a handler can be given, or None where it takes any."""
    parameters = inspect.signature(handler).parameters.values()
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return None
    return frozenset(parameter.name for parameter in parameters if parameter.kind not in _UNNAMED)


def _name_problems(name: Any) -> list[str]:
    if not isinstance(name, str):
        return [f"its name {name!r} is of the type {type(name).__name__!r}, not text"]
    if _NAME.fullmatch(name) is not None:
        return []
    refused = ", ".join(map(repr, sorted(set(_NOT_IN_NAMES.findall(name)))))
    reason = f"holds {refused}" if refused else f"is {len(name)} characters long" if name else "is empty"
    accepted = f"1 to {MAX_NAME_CHARS} of the characters a-z, A-Z, 0-9, _ and -"
    advice = f"give a name=, such as {portable_name(name)!r}"
    return [f"its name {name!r} {reason}, but model providers take {accepted}: {advice}"]


def _description_problems(description: Any) -> list[str]:
    if isinstance(description, str) and description.strip():
        return []
    return ["it has no description: models choose tools by it, so write a docstring or give a description="]


def _option_problems(definition: ToolDefinition) -> list[str]:
    problems: list[str] = []
    # Types are checked, because a wrong option would show only in the middle of a turn.
    options: dict[str, Any] = {
        name: getattr(definition, name)
        for name in ("effect", "timeout_s", "max_result_chars", "probe", "parallel", "requires_approval")
    }
    if not isinstance(options["effect"], Effect):
        choices = ", ".join(f"Effect.{effect.name}" for effect in Effect)
        problems.append(f"its effect {options['effect']!r} is none of {choices}")
    timeout_s = options["timeout_s"]
    if timeout_s is not None and not is_number(timeout_s, above=0):
        problems.append(
            f"its timeout_s {timeout_s!r} is not a number of seconds above 0, or None for the send's own limit"
        )
    limit = options["max_result_chars"]
    if not is_whole(limit, least=1):
        problems.append(f"its max_result_chars {limit!r} is not a whole number of at least 1")
    problems += [
        f"its {name} {options[name]!r} is neither True nor False"
        for name in ("parallel", "requires_approval")
        if not isinstance(options[name], bool)
    ]
    probe = options["probe"]
    if probe is not None and not takes(probe, 1):
        problems.append(f"its probe {probe!r} cannot be called with one argument, the idempotency key")
    guidance: Any = definition.guidance
    if guidance is not None and not (isinstance(guidance, str) and len(guidance) <= MAX_GUIDANCE_CHARS):
        problems.append(f"its guidance {guidance!r:.200} is no text of at most {MAX_GUIDANCE_CHARS} characters")
    project: Any = definition.project
    if project is not None and not takes(project, 2):
        problems.append(f"its project {project!r} cannot be called with a call's arguments and its result's text")
    live: Any = definition.live
    if live is not None and not isinstance(live, LiveState):
        problems.append(f"its live {live!r:.200} is no LiveState")
    resource: Any = definition.resource
    if resource is not None and not all(callable(getattr(resource, name, None)) for name in ("end_session", "aclose")):
        problems.append(f"its resource {resource!r:.200} is no ToolResource with async end_session() and aclose()")
    return problems + _key_problems(definition)


def _key_problems(definition: ToolDefinition) -> list[str]:
    problems: list[str] = []
    choice: Any = definition.on_unknown
    if choice is not None and not isinstance(choice, OnUnknown):
        choices = ", ".join(f"OnUnknown.{one.name}" for one in OnUnknown)
        problems.append(f"its on_unknown {choice!r} is none of {choices}")
    key: Any = definition.key
    if key is None:
        return problems
    if not takes(key, 1) and not takes(key, 2):
        problems.append(
            f"its key {key!r} cannot be called with one argument, the dict of a call's arguments (or with two: the"
            " session's id is the second)"
        )
    if definition.effect is Effect.READ:
        problems.append("its effect is 'read', so that a key of its calls would say nothing: leave it out")
    return problems


def takes(function: Any, count: int) -> bool:
    """Tell whether something can be called with so many arguments by position."""
    try:
        inspect.signature(function).bind(*[""] * count)
    except (TypeError, ValueError):
        return False
    return True


def _schema_problems(schema: Any) -> tuple[list[str], Validator | None]:
    if not isinstance(schema, Mapping):
        return [f"its input_schema is of the type {type(schema).__name__!r}, not a JSON Schema object"], None
    problems: list[str] = []
    if schema.get("type") != "object":
        problems.append(
            f"its input_schema has the type {schema.get('type')!r}, not 'object':"
            " arguments come as an object, so put other values into its properties"
        )
    refused = [keyword for keyword in _REFUSED_AT_TOP if keyword in schema]
    if refused:
        problems.append(
            f"its input_schema has {', '.join(refused)} at the top, which model providers refuse:"
            " put it into a property"
        )
    problems += [
        f"its property {name!r} is not 1 to 64 of the characters a-z, A-Z, 0-9, _, . and -"
        for name in _properties(schema)
        if not isinstance(name, str) or _PROPERTY_NAME.fullmatch(name) is None
    ]
    try:
        validator = compile_schema(schema)
        json.dumps(validator.schema, ensure_ascii=False).encode()
    except SchemaError as error:
        return problems + [f"its input_schema at {problem.path}: {problem.message}" for problem in error.problems], None
    except UnicodeEncodeError:
        return [*problems, "its input_schema holds a lone surrogate, which no provider takes"], None
    return problems, validator


def _properties(schema: Mapping[str, Any]) -> Mapping[Any, Any]:
    properties = schema.get("properties")
    return properties if isinstance(properties, Mapping) else {}


def _transaction_problems(definition: ToolDefinition, handler: Any) -> list[str]:
    problems: list[str] = []
    if definition.effect is not Effect.TRANSACTIONAL:
        effect = getattr(definition.effect, "value", definition.effect)
        problems.append(
            f"its handler takes the transaction that commits its call, so its effect is not {effect!r}: say"
            " effect='transactional'"
        )
    while isinstance(handler, functools.partial):
        handler = handler.func
    call = getattr(handler, "__call__", None)  # noqa: B004 - an object that can be called may have an async one
    if not inspect.iscoroutinefunction(handler) and not inspect.iscoroutinefunction(call):
        problems.append("its handler takes a transaction, whose statements are awaited: make it an `async def`")
    return problems


def _handler_problems(definition: ToolDefinition, handler: Any) -> list[str]:
    if not callable(handler):
        return [f"its handler {handler!r} cannot be called"]
    function = inspect.unwrap(handler.func if isinstance(handler, functools.partial) else handler)
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        return ["its handler is a generator: return the whole result, and report pieces with the context's progress()"]
    try:
        parameters = inspect.signature(handler).parameters
    except (TypeError, ValueError) as error:
        return [f"the signature of its handler cannot be read ({error}): wrap it in a function"]
    context = context_parameter(handler, definition.takes_context)
    transaction = transaction_parameter(handler, definition.takes_transaction)
    given = [name for name in (context, transaction) if name is not None]
    schema: Any = definition.input_schema
    properties = _properties(schema) if isinstance(schema, Mapping) else {}
    required = schema.get("required") if isinstance(schema, Mapping) else None
    required = required if isinstance(required, (list, tuple)) else ()
    problems: list[str] = []
    problems += [
        f"it takes its {what} as {name!r}, which is also a property of its input_schema"
        for what, name in (("context", context), ("transaction", transaction))
        if name is not None and name in properties
    ]
    if transaction is not None:
        problems += _transaction_problems(definition, handler)
    for name, parameter in parameters.items():
        if parameter.kind is parameter.POSITIONAL_ONLY:
            problems.append(f"its handler takes {name!r} by position only, but arguments are given by name")
        elif parameter.kind in _UNNAMED or name in given or parameter.default is not parameter.empty:
            continue
        elif name == "self":
            problems.append("its handler is a method without its object: register it from an instance")
        elif name not in required:
            problems.append(f"its handler needs {name!r}, which its input_schema does not require")
    accepted = accepted_names(handler)
    if accepted is not None:
        missing = [name for name in (*properties, *given) if name not in accepted]
        problems += [f"its handler has no parameter {name!r}" for name in missing if name not in parameters]
    return problems
