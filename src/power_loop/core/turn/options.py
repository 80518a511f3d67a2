"""Is what was asked of one send beside its input, in the form that a resume finds stored."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from typing import Any

from power_loop.contracts.budgets import Budget, BudgetKey
from power_loop.contracts.errors import ConfigError, StoreCorruptError
from power_loop.contracts.frozen import frozen
from power_loop.contracts.limits import SendLimits
from power_loop.contracts.llm import OutputSchema
from power_loop.contracts.numbers import is_number, is_whole
from power_loop.tools.definition_checks import portable_name


@frozen
class SendOptions:
    """Is how one send differs from its loop's configuration; None leaves the configuration's choice.

    `tools` names the tools that the model is offered. `system_prompt` stands in for the session's. `tool_choice` holds
    for the first model call of the send only: a forced call that came again every round would never let the model
    answer. `budget` is the send's own, `payer` one above it that pays for whatever the send takes. `is_whole` keeps an
    input that waits from being taken in by a turn that runs: it becomes a send of its own.
    """

    tools: tuple[str, ...] | None = None
    system_prompt: str | None = None
    output_schema: OutputSchema | None = None
    limits: SendLimits | None = None
    max_output_tokens: int | None = None
    temperature: float | None = None
    reasoning_effort: str | None = None
    tool_choice: str | None = None
    budget: Budget | None = None
    payer: BudgetKey | None = None
    is_whole: bool | None = None

    def to_json(self) -> dict[str, Any]:
        """Return what differs as JSON."""
        chosen: dict[str, Any] = {}
        for name in _FIELDS:
            value = getattr(self, name)
            if value is None:
                continue
            if isinstance(value, (OutputSchema, SendLimits, Budget)):
                value = value.to_json()
            elif isinstance(value, BudgetKey):
                value = [value.session_id, value.send_index]
            chosen[name] = value
        return chosen

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> SendOptions:
        """Return options of what `to_json` gave; what a later version may have added is passed over.

        Raises `store.corrupt` for what it cannot have given.
        """
        if not value:
            return _PLAIN
        chosen = {name: value[name] for name in _FIELDS if value.get(name) is not None}
        try:
            if "tools" in chosen:
                chosen["tools"] = tuple(chosen["tools"])
            if "output_schema" in chosen:
                chosen["output_schema"] = OutputSchema(**chosen["output_schema"])
            if "limits" in chosen:
                chosen["limits"] = SendLimits.from_json(chosen["limits"])
            if "budget" in chosen:
                chosen["budget"] = Budget.from_json(chosen["budget"])
            if "payer" in chosen:
                chosen["payer"] = BudgetKey(*chosen["payer"])
            return check_options(cls(**chosen))
        except (TypeError, AttributeError, ConfigError) as error:
            raise StoreCorruptError(
                f"the options that are stored with a send are damaged, because {error}: a new send with"
                " heal_pending=True, or abort_pending(), goes on without it"
            ) from error

    def budget_of(self, session_id: str, send_index: int) -> BudgetKey | None:
        """Return the budget that pays for the send which has these options: its own, or the one above it."""
        return self.payer if self.budget is None else BudgetKey(session_id, send_index)

    def over(self, defaults: SendOptions) -> SendOptions:
        """Return these options with those of `defaults` where there is no choice."""
        if self == _PLAIN:
            return defaults
        missing = {name: getattr(defaults, name) for name in _FIELDS if getattr(self, name) is None}
        return replace(self, **missing)


_FIELDS = tuple(field.name for field in fields(SendOptions))
_PLAIN = SendOptions()


def check_options(options: SendOptions) -> SendOptions:
    """Return the options if each is of its kind. Raises `config.invalid` for the first that is not."""
    for name, is_valid, wanted in _CHECKS:
        value = getattr(options, name)
        if value is not None and not is_valid(value):
            raise ConfigError(f"{name} is {value!r:.200}: give {wanted}")
    return options


def _is_count(value: object) -> bool:
    return is_whole(value, least=1)


def _is_temperature(value: object) -> bool:
    return is_number(value, least=0)


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _are_names(value: object) -> bool:
    return isinstance(value, tuple) and all(map(_is_text, value))


_CHECKS: tuple[tuple[str, Callable[[Any], bool], str], ...] = (
    ("tools", _are_names, "names of tools"),
    ("output_schema", lambda value: isinstance(value.schema, Mapping), "an OutputSchema of a JSON object"),
    ("system_prompt", _is_text, "text"),
    ("limits", lambda value: isinstance(value, SendLimits), "a SendLimits"),
    ("budget", lambda value: isinstance(value, Budget), "a Budget"),
    ("payer", lambda value: _is_text(value.session_id) and _is_count(value.send_index), "a send's BudgetKey"),
    ("is_whole", lambda value: isinstance(value, bool), "True or False"),
    ("max_output_tokens", _is_count, "a whole number of at least 1"),
    ("temperature", _is_temperature, "a number of at least 0"),
    ("reasoning_effort", _is_text, "a word such as 'low'"),
    ("tool_choice", _is_text, "'auto', 'none', 'required' or the name of an offered tool"),
)


def output_schema_of(value: OutputSchema | Mapping[str, Any] | None) -> OutputSchema | None:
    """Return an output schema of what `send(output_schema=...)` takes: an `OutputSchema`, a JSON Schema, or `{"name",
    "schema"}`.

    Raises `config.invalid` for anything else.
    """
    if value is None or isinstance(value, OutputSchema):
        return value
    if not isinstance(value, Mapping):
        raise ConfigError(
            f"output_schema is a {type(value).__name__}: give a JSON Schema as a dict, or an OutputSchema"
        )
    schema = value.get("schema")
    if (
        isinstance(schema, Mapping)
        and "type" not in value
        and not value.keys() - {"name", "schema", "description", "strict"}
    ):
        return OutputSchema(schema, str(value.get("name", _OUTPUT_NAME)), str(value.get("description", "")))
    title = value.get("title")
    # A title is for people; only a name that somebody gave as such is held to what providers take.
    name = portable_name(title, fallback=_OUTPUT_NAME) if isinstance(title, str) else _OUTPUT_NAME
    return OutputSchema(value, name)


_OUTPUT_NAME = "output"
