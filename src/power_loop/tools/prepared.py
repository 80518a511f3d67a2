"""Makes a definition ready to meet a model: its spec, its compiled schema, and the way from a call to its handler."""

from __future__ import annotations

import functools
import hashlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from power_loop.contracts.errors import ToolError
from power_loop.contracts.json_schema import InvalidJson, Problem, drop_added_nulls, loads_strict
from power_loop.contracts.json_schema.check import MAX_PROBLEMS
from power_loop.contracts.json_schema.problems import MAX_SHOWN_CHARS, path_text, quoted
from power_loop.contracts.llm import ToolSpec
from power_loop.contracts.messages import clean_text
from power_loop.contracts.tools import ToolContext, ToolDefinition
from power_loop.tools.context_hint import context_parameter, transaction_parameter
from power_loop.tools.definition_checks import accepted_names, definition_error, examine, takes
from power_loop.tools.function_tool import FunctionTool
from power_loop.tools.shape import Convert, Unconvertible

_MEMO = "prepared"
# What the ledger's column holds; a longer key stands there as its hash.
MAX_KEY_CHARS = 255


@dataclass(frozen=True, slots=True)
class ParsedArguments:
    """Is what a call's argument text holds: `arguments` if it is acceptable, else None and every problem of it."""

    arguments: dict[str, Any] | None
    problems: tuple[Problem, ...] = ()


class PreparedTool:
    """Is a definition that passed every check, with its compiled schema; made once a definition and safe to share.

    `is_async` tells whether the handler gives a coroutine when it is called; without a handler it is False.
    `transaction` names the parameter that receives the transaction which commits the call.
    """

    __slots__ = ("_accepted", "_context", "_converts", "_validator", "definition", "is_async", "spec", "transaction")

    def __init__(self, definition: ToolDefinition) -> None:
        """Prepare a definition. Raises `tool.invalid_definition` with every problem at once."""
        problems, validator = examine(definition)
        if validator is None or problems:
            raise definition_error(definition.name, problems)
        handler = definition.handler
        schema = validator.schema
        self.definition = definition
        self.spec = ToolSpec(definition.name, clean_text(definition.description), schema)
        self.is_async = handler is not None and is_async_handler(handler)
        self._validator = validator
        self._converts: Mapping[str, Convert] = definition.converts if isinstance(definition, FunctionTool) else {}
        self._context = None if handler is None else context_parameter(handler, definition.takes_context)
        self.transaction = None if handler is None else transaction_parameter(handler, definition.takes_transaction)
        self._accepted: frozenset[str] | None = None
        if handler is not None and schema.get("additionalProperties") is not False:
            accepted = accepted_names(handler)
            self._accepted = None if accepted is None else accepted - {self._context or "", self.transaction or ""}

    def parse(self, text: str) -> ParsedArguments:
        """Read and check the argument text of a call; empty text means no arguments.

        A null that stands for an optional property which takes none is dropped: so do models leave an argument out.
        """
        if not text or text.isspace():
            arguments: Any = {}
        else:
            try:
                arguments = loads_strict(text)
            except InvalidJson as error:
                return ParsedArguments(None, (Problem("$", str(error), "json"),))
        problems = self.problems(arguments)
        if problems and "null" in text:
            arguments = drop_added_nulls(arguments, self.spec.input_schema)
            problems = self.problems(arguments)
        return ParsedArguments(None, problems) if problems else ParsedArguments(arguments)

    def problems(self, arguments: Any) -> tuple[Problem, ...]:
        """Return all that is wrong with arguments (JSON values), by their schema and by their hinted types."""
        problems = self._validator.problems(arguments)
        if self._accepted is not None and isinstance(arguments, dict) and not arguments.keys() <= self._accepted:
            problems += self._unknown(arguments)
        if not self._converts or not isinstance(arguments, dict) or not _are_all(problems):
            return problems
        converts = self._converts
        if problems:
            wrong = {name for name in converts if any(_is_within(problem.path, name) for problem in problems)}
            converts = {name: convert for name, convert in converts.items() if name not in wrong}
        return problems + _converted(arguments, converts)[1]

    def call_arguments(self, arguments: Mapping[str, Any], context: ToolContext | None = None) -> dict[str, Any]:
        """Return the keyword arguments of the handler: values of the hinted types, and the context if it asks for one.

        `arguments` came from `parse` or passed `problems`. Raises `tool.failed` if one cannot be brought to its type.
        """
        problems: tuple[Problem, ...] = ()
        if self._converts:
            keywords, problems = _converted(arguments, self._converts)
        else:
            keywords = dict(arguments)
        if problems:
            reasons = "; ".join(f"{problem.path}: {problem.message}" for problem in problems)
            raise ToolError(f"the arguments of {self.definition.name!r} cannot be used: {reasons}")
        if self._context is not None:
            keywords[self._context] = context
        return keywords

    def call_key(self, arguments: Mapping[str, Any], session_id: str) -> str | None:
        """Return what the tool's own `key` names a call with these arguments; None if it has none.

        Raises `tool.failed` where it gives no text, or raises.
        """
        name_of = self.definition.key
        if name_of is None:
            return None
        try:
            given: Any = name_of(dict(arguments), session_id) if takes(name_of, 2) else name_of(dict(arguments))
        except Exception as error:  # a stranger's code
            raise ToolError(f"its key raised {type(error).__name__}: {error}") from error
        if not isinstance(given, str) or not given.strip():
            raise ToolError(f"its key is {given!r:.100}, which is no text")
        key = clean_text(given)
        return key if len(key) <= MAX_KEY_CHARS else "sha256_" + hashlib.sha256(key.encode()).hexdigest()

    def _unknown(self, arguments: dict[str, Any]) -> tuple[Problem, ...]:
        accepted = self._accepted or frozenset()
        allowed = ", ".join(map(quoted, sorted(accepted))) or "none"
        return tuple(
            Problem(
                path_text((name,)),
                f"the property {quoted(name)} is not allowed; allowed: {allowed}",
                "additionalProperties",
            )
            for name in arguments
            if name not in accepted
        )


def prepare(definition: ToolDefinition) -> PreparedTool:
    """Return the prepared form of a definition, made once and kept with it. Raises `tool.invalid_definition`."""
    known = definition.memo.get(_MEMO)
    # A copy made with dataclasses.replace() shares the memo of its model, but nothing else.
    if isinstance(known, PreparedTool) and known.definition is definition:
        return known
    prepared = PreparedTool(definition)
    definition.memo[_MEMO] = prepared
    return prepared


def is_async_handler(handler: Callable[..., Any]) -> bool:
    """Tell whether calling a handler gives a coroutine.

    So do an async function, a partial of one, and an object whose `__call__` is async.
    """
    while isinstance(handler, functools.partial):
        handler = handler.func
    return inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(getattr(handler, "__call__", None))  # noqa: B004


def _are_all(problems: tuple[Problem, ...]) -> bool:
    """Tell whether the check looked at everything: what it did not look at may be of any type."""
    return len(problems) < MAX_PROBLEMS and all(problem.keyword != "limit" for problem in problems)


def _is_within(path: str, name: str) -> bool:
    """Tell whether a problem is one of the argument `name`."""
    start = path_text((name,))
    return path.startswith(start) and path[len(start) : len(start) + 1] in ("", ".", "[")


def _converted(
    arguments: Mapping[str, Any], converts: Mapping[str, Convert]
) -> tuple[dict[str, Any], tuple[Problem, ...]]:
    """Return the arguments in their hinted types, and a problem for each one that has no such value."""
    converted = dict(arguments)
    problems: list[Problem] = []
    for name, convert in converts.items():
        if name in converted:
            try:
                converted[name] = convert(converted[name])
            except Unconvertible as failure:
                path = path_text((name, *reversed(failure.steps)))
                problems.append(Problem(path, str(failure)[: 10 * MAX_SHOWN_CHARS], "type"))
    return converted, tuple(problems)
