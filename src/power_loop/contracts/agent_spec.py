"""Is what a sub-agent is: its prompt, and what of its parent's it may use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from enum import Enum
from typing import TYPE_CHECKING, Any

from power_loop.contracts.budgets import Budget
from power_loop.contracts.choices import choice_problem
from power_loop.contracts.errors import AgentSpecError, ConfigError
from power_loop.contracts.frozen import frozen
from power_loop.contracts.limits import SendLimits
from power_loop.contracts.llm import OutputSchema
from power_loop.contracts.permissions import PermissionMode, PermissionRule

_MAX_NAME_CHARS = 64
_MAX_DESCRIPTION_CHARS = 1_000
_MAX_TOOLS = 1_000
_MAX_RULES = 1_000


class AgentLifecycle(str, Enum):
    """Is how long the session of a sub-agent lasts."""

    EPHEMERAL = "ephemeral"  # it is closed behind its answer, and a prune takes it
    LINKED = "linked"  # it stays open, and its parent can go on talking to it
    DETACHED = "detached"  # it works on by itself, and its end comes to its parent's inbox


@frozen
class AgentSpec:
    """Is a sub-agent; all that it is given is a part of what its parent has.

    `name` is what its parent's model calls it, `description` tells that model what it is for. `tools` are names of
    tools of its parent's (default None: all of them; `()`: none). `model` is a name in `LoopConfig.models` (default
    None: its parent's model). `limits` are its own, and those of its parent hold besides; so does the `budget` of each
    of its sends (default None: its parent's pays alone). `output_schema` is what its
    answer has to fit. `permission_rules` and `permission_mode` hold calls back beside its parent's policy; with rules
    and no mode everything else goes on. `lifecycle` says how long its session lasts (default `ephemeral`).
    """

    name: str
    system_prompt: str
    description: str = ""
    tools: Sequence[str] | None = None
    model: str | None = None
    limits: SendLimits | None = None
    output_schema: OutputSchema | Mapping[str, Any] | None = None
    permission_rules: Sequence[PermissionRule] = ()
    permission_mode: PermissionMode | None = None
    lifecycle: AgentLifecycle = AgentLifecycle.EPHEMERAL
    budget: Budget | None = None

    if TYPE_CHECKING:  # what is given may be wider than what is kept

        def __init__(
            self,
            name: str,
            system_prompt: str,
            description: str = "",
            tools: Sequence[str] | None = None,
            model: str | None = None,
            limits: SendLimits | None = None,
            output_schema: OutputSchema | Mapping[str, Any] | None = None,
            permission_rules: Sequence[PermissionRule] = (),
            permission_mode: PermissionMode | str | None = None,
            lifecycle: AgentLifecycle | str = AgentLifecycle.EPHEMERAL,
            budget: Budget | None = None,
        ) -> None: ...

    def __post_init__(self) -> None:
        problems = [problem for claim, problem in self._claims() if not claim]
        if self.permission_mode is not None:
            problems.append(choice_problem(PermissionMode, self.permission_mode, "permission_mode"))
        problems.append(choice_problem(AgentLifecycle, self.lifecycle, "lifecycle"))
        problems = [problem for problem in problems if problem]
        if problems:
            raise AgentSpecError(
                f"the sub-agent {self.name!r:.200} cannot be used: {'; '.join(problems)}", problems=problems
            )
        if self.tools is not None:
            object.__setattr__(self, "tools", tuple(dict.fromkeys(self.tools)))
        object.__setattr__(self, "permission_rules", tuple(self.permission_rules))
        object.__setattr__(self, "lifecycle", AgentLifecycle(self.lifecycle))
        if self.permission_mode is not None:
            object.__setattr__(self, "permission_mode", PermissionMode(self.permission_mode))

    def to_json(self) -> dict[str, Any]:
        """Return the spec as JSON."""
        schema = self.output_schema
        if isinstance(schema, Mapping):
            schema = OutputSchema(schema)
        return {
            "name": self.name,
            "system_prompt": self.system_prompt,
            "description": self.description,
            "tools": None if self.tools is None else list(self.tools),
            "model": self.model,
            "limits": None if self.limits is None else self.limits.to_json(),
            "output_schema": None if schema is None else schema.to_json(),
            "permission_rules": [rule.to_json() for rule in self.permission_rules],
            "permission_mode": None if self.permission_mode is None else self.permission_mode.value,
            "lifecycle": self.lifecycle.value,
            "budget": None if self.budget is None else self.budget.to_json(),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> AgentSpec:
        """Return the spec of what `to_json` gave; what is missing has its default. Raises `agent.invalid_spec`."""
        known = {field.name for field in fields(cls)}
        made = {name: one for name, one in value.items() if name in known and one is not None}
        try:
            for name, kind in (("limits", SendLimits), ("budget", Budget)):
                if name in made:
                    made[name] = kind.from_json(made[name])
            if "output_schema" in made:
                made["output_schema"] = OutputSchema(**made["output_schema"])
            if "permission_rules" in made:
                made["permission_rules"] = [PermissionRule.from_json(rule) for rule in made["permission_rules"]]
            return cls(**made)
        except (TypeError, ValueError, KeyError, AttributeError, ConfigError) as error:
            raise AgentSpecError(f"this is no sub-agent as AgentSpec.to_json() gives one: {error}") from error

    def _claims(self) -> list[tuple[bool, str]]:
        """Return what has to hold, each with what is said where it does not."""
        schema: Any = self.output_schema
        return [
            (_is_text(self.name, _MAX_NAME_CHARS), f"name is no text of 1 to {_MAX_NAME_CHARS} characters"),
            (_is_text(self.system_prompt, None), "system_prompt is no text: say what the agent is and does"),
            (
                self.description == "" or _is_text(self.description, _MAX_DESCRIPTION_CHARS),
                f"description is no text of at most {_MAX_DESCRIPTION_CHARS} characters",
            ),
            (self.tools is None or _are_names(self.tools), f"tools is {self.tools!r:.200}: give a list of tool names"),
            (
                self.model is None or _is_text(self.model, None),
                f"model is {self.model!r:.200}: give a name in LoopConfig.models",
            ),
            (
                self.limits is None or isinstance(self.limits, SendLimits),
                f"limits is {self.limits!r:.200}: give a SendLimits",
            ),
            (
                self.budget is None or isinstance(self.budget, Budget),
                f"budget is {self.budget!r:.200}: give a Budget",
            ),
            (
                schema is None or isinstance(schema, (OutputSchema, Mapping)),
                f"output_schema is {schema!r:.200}: give a JSON Schema as a dict, or an OutputSchema",
            ),
            (
                _are_rules(self.permission_rules),
                f"permission_rules is {self.permission_rules!r:.200}: give a list of PermissionRules",
            ),
        ]


def _is_text(value: Any, most: int | None) -> bool:
    return isinstance(value, str) and bool(value.strip()) and (most is None or len(value) <= most)


def _are_names(value: Any) -> bool:
    is_list = isinstance(value, Sequence) and not isinstance(value, str) and len(value) <= _MAX_TOOLS
    return is_list and all(_is_text(one, None) for one in value)


def _are_rules(value: Any) -> bool:
    is_list = isinstance(value, (list, tuple)) and len(value) <= _MAX_RULES
    return is_list and all(isinstance(one, PermissionRule) for one in value)
