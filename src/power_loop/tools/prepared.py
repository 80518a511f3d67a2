"""Checks that a tool can be offered as it is defined, and makes its definition ready to meet a model."""

from __future__ import annotations

import functools
import inspect
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Any

from power_loop.contracts.errors import ToolDefinitionError
from power_loop.contracts.json_schema import InvalidJson, Problem, SchemaError, Validator, compile_schema, loads_strict
from power_loop.contracts.llm import ToolSpec
from power_loop.contracts.states import Effect
from power_loop.contracts.tools import ToolDefinition, ToolHandler

# What both wire formats take; the stricter of the two decides.
_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_PROPERTY_NAME = re.compile(r"[a-zA-Z0-9_.-]{1,64}")
# Both providers answer 400 to a whole request because of one tool with one of these beside `type: object`.
_REFUSED_AT_TOP = ("anyOf", "oneOf", "allOf", "enum", "not")


@dataclass(frozen=True, slots=True)
class ParsedArguments:
    """Is what a call's argument text holds: `arguments` if it is acceptable, else None and every problem of it."""

    arguments: dict[str, Any] | None
    problems: tuple[Problem, ...] = ()


class PreparedTool:
    """Is a definition that passed every check, with its compiled schema; made once a tool and safe to share."""

    __slots__ = ("_accepted", "_validator", "definition", "spec")

    def __init__(self, definition: ToolDefinition) -> None:
        """Prepare a definition. Raises `tool.invalid_definition` with every problem at once."""
        problems, validator = _examine(definition)
        if validator is None or problems:
            raise definition_error(definition.name, problems)
        self.definition = definition
        # A copy, so that nobody changes what the validator was made of.
        schema = json.loads(json.dumps(definition.input_schema))
        self.spec = ToolSpec(definition.name, definition.description, schema)
        self._validator = validator
        self._accepted = _accepted_names(definition)

    def parse(self, text: str) -> ParsedArguments:
        """Read and check the argument text of a call; empty text means no arguments."""
        if not text or text.isspace():
            arguments: Any = {}
        else:
            try:
                arguments = loads_strict(text)
            except InvalidJson as error:
                return ParsedArguments(None, (Problem("$", str(error), "json"),))
        problems = self.problems(arguments)
        return ParsedArguments(None, problems) if problems else ParsedArguments(arguments)

    def problems(self, arguments: Any) -> tuple[Problem, ...]:
        """Return all that is wrong with arguments; they are JSON values in a dict."""
        problems = self._validator.problems(arguments)
        if self._accepted is None or not isinstance(arguments, Mapping) or arguments.keys() <= self._accepted:
            return problems
        allowed = ", ".join(f'"{name}"' for name in sorted(self._accepted)) or "none"
        unknown = tuple(
            Problem("$", f'the property "{name}" is not allowed; allowed: {allowed}', "additionalProperties")
            for name in arguments
            if name not in self._accepted
        )
        return problems + unknown


def definition_error(name: object, problems: list[str]) -> ToolDefinitionError:
    """Return the error that says why a tool cannot be offered."""
    reasons = "; ".join(problems)
    return ToolDefinitionError(f"the tool {name!r} cannot be offered as it is defined: {reasons}", problems=problems)


def is_async_handler(handler: ToolHandler) -> bool:
    """Tell whether calling the handler gives a coroutine: an async function, a partial of one, or an object with an async `__call__`."""
    while isinstance(handler, functools.partial):
        handler = handler.func
    return inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(getattr(handler, "__call__", None))  # noqa: B004


def definition_problems(definition: ToolDefinition) -> list[str]:
    """Return every reason why a tool cannot be offered as it is defined."""
    return _examine(definition)[0]


def _examine(definition: ToolDefinition) -> tuple[list[str], Validator | None]:
    problems: list[str] = []
    if not isinstance(definition.name, str) or _NAME.fullmatch(definition.name) is None:
        problems.append(
            f"its name {definition.name!r} is not 1 to 64 of the characters a-z, A-Z, 0-9, _ and -: give a name="
        )
    if not isinstance(definition.description, str) or not definition.description.strip():
        problems.append("it has no description: models choose tools by it, so write a docstring or give a description=")
    problems += _option_problems(definition)
    schema_problems, validator = _schema_problems(definition.input_schema)
    problems += schema_problems
    if definition.handler is not None:
        problems += _handler_problems(definition, definition.handler)
    elif definition.takes_context is not None:
        problems.append(f"it takes a context as {definition.takes_context!r}, but has no handler to give it to")
    return problems, validator


def _option_problems(definition: ToolDefinition) -> list[str]:
    problems: list[str] = []
    # Types are checked, because a wrong option would show only in the middle of a turn.
    options: dict[str, Any] = {
        name: getattr(definition, name) for name in ("effect", "timeout_s", "max_result_chars", "probe")
    }
    if not isinstance(options["effect"], Effect):
        problems.append(f"its effect {options['effect']!r} is none of {', '.join(effect.value for effect in Effect)}")
    timeout_s = options["timeout_s"]
    if timeout_s is not None and not (_is_number(timeout_s) and isfinite(timeout_s) and timeout_s > 0):
        problems.append(
            f"its timeout_s {timeout_s!r} is not a number of seconds above 0, or None for the send's own limit"
        )
    limit = options["max_result_chars"]
    if not isinstance(limit, int) or isinstance(limit, bool) or limit < 1:
        problems.append(f"its max_result_chars {limit!r} is not a whole number of at least 1")
    for name in ("parallel", "requires_approval"):
        if not isinstance(getattr(definition, name), bool):
            problems.append(f"its {name} {getattr(definition, name)!r} is neither True nor False")
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
        return [f"its input_schema is a {type(schema).__name__}, not a JSON Schema object"], None
    problems: list[str] = []
    if schema.get("type") != "object":
        problems.append(
            f"its input_schema has the type {schema.get('type')!r}, not 'object':"
            " arguments come as an object, so put other values into its properties"
        )
    refused = [keyword for keyword in _REFUSED_AT_TOP if keyword in schema]
    if refused:
        problems.append(
            f"its input_schema has {', '.join(refused)} at the top, which model providers refuse: put it into a property"
        )
    properties = schema.get("properties")
    for name in properties if isinstance(properties, Mapping) else ():
        if not isinstance(name, str) or _PROPERTY_NAME.fullmatch(name) is None:
            problems.append(f"its property {name!r} is not 1 to 64 of the characters a-z, A-Z, 0-9, _, . and -")
    try:
        validator = compile_schema(schema)
    except SchemaError as error:
        return problems + [f"its input_schema at {problem.path}: {problem.message}" for problem in error.problems], None
    try:
        json.dumps(schema, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        return [*problems, f"its input_schema is not JSON: {error}"], None
    return problems, validator


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
    schema = definition.input_schema if isinstance(definition.input_schema, Mapping) else {}
    properties, required = schema.get("properties"), schema.get("required")
    properties = properties if isinstance(properties, Mapping) else {}
    required = required if isinstance(required, (list, tuple)) else ()
    problems: list[str] = []
    context = definition.takes_context
    if context is not None and context in properties:
        problems.append(f"it takes its context as {context!r}, which is also a property of its input_schema")
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    named = {name for name, parameter in parameters.items() if parameter.kind not in _UNNAMED}
    for name, parameter in parameters.items():
        if parameter.kind is parameter.POSITIONAL_ONLY:
            problems.append(f"its handler takes {name!r} by position only, but arguments are given by name")
        elif name in named and name != context and parameter.default is parameter.empty and name not in required:
            problems.append(f"its handler needs {name!r}, which its input_schema does not require")
    if not takes_any:
        missing = [name for name in (*properties, *([context] if context else [])) if name not in parameters]
        problems += [f"its handler has no parameter {name!r}" for name in missing]
    return problems


_UNNAMED = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def _accepted_names(definition: ToolDefinition) -> frozenset[str] | None:
    """Return the names that the handler can be given, or None where the schema or the handler settles it."""
    if definition.handler is None or definition.input_schema.get("additionalProperties") is False:
        return None
    parameters = inspect.signature(definition.handler).parameters.values()
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return None
    return frozenset(parameter.name for parameter in parameters) - {definition.takes_context or ""}
