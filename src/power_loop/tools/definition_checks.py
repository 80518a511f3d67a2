"""Finds every reason why a tool cannot be offered as it is defined."""

from __future__ import annotations

import functools
import inspect
import json
import re
from collections.abc import Callable, Mapping
from math import isfinite
from typing import Any

from power_loop.contracts.errors import ToolDefinitionError
from power_loop.contracts.json_schema import SchemaError, Validator, compile_schema
from power_loop.contracts.states import Effect
from power_loop.contracts.tools import ToolDefinition
from power_loop.tools.context_hint import context_parameter

# What both wire formats take; the stricter of the two decides.
MAX_NAME_CHARS = 64
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
    elif definition.takes_context is not None:
        problems.append(f"it takes a context as {definition.takes_context!r}, but has no handler to give it to")
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
    if timeout_s is not None and not (_is_number(timeout_s) and isfinite(timeout_s) and timeout_s > 0):
        problems.append(
            f"its timeout_s {timeout_s!r} is not a number of seconds above 0, or None for the send's own limit"
        )
    limit = options["max_result_chars"]
    if not isinstance(limit, int) or isinstance(limit, bool) or limit < 1:
        problems.append(f"its max_result_chars {limit!r} is not a whole number of at least 1")
    problems += [
        f"its {name} {options[name]!r} is neither True nor False"
        for name in ("parallel", "requires_approval")
        if not isinstance(options[name], bool)
    ]
    probe = options["probe"]
    if probe is not None and not _takes_one(probe):
        problems.append(f"its probe {probe!r} cannot be called with one argument, the idempotency key")
    return problems


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _takes_one(probe: Any) -> bool:
    try:
        inspect.signature(probe).bind("")
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
    schema: Any = definition.input_schema
    properties = _properties(schema) if isinstance(schema, Mapping) else {}
    required = schema.get("required") if isinstance(schema, Mapping) else None
    required = required if isinstance(required, (list, tuple)) else ()
    problems: list[str] = []
    if context is not None and context in properties:
        problems.append(f"it takes its context as {context!r}, which is also a property of its input_schema")
    for name, parameter in parameters.items():
        if parameter.kind is parameter.POSITIONAL_ONLY:
            problems.append(f"its handler takes {name!r} by position only, but arguments are given by name")
        elif parameter.kind in _UNNAMED or name == context or parameter.default is not parameter.empty:
            continue
        elif name == "self":
            problems.append("its handler is a method without its object: register it from an instance")
        elif name not in required:
            problems.append(f"its handler needs {name!r}, which its input_schema does not require")
    accepted = accepted_names(handler)
    if accepted is not None:
        missing = [name for name in (*properties, *([context] if context else [])) if name not in accepted]
        problems += [f"its handler has no parameter {name!r}" for name in missing if name not in parameters]
    return problems
