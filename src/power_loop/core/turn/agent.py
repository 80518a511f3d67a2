"""Is what a sub-agent's session is stored with: what of its parent's it has, and whom it reports to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from power_loop.contracts.agent_spec import AgentLifecycle, AgentSpec
from power_loop.contracts.budgets import Budget
from power_loop.contracts.frozen import frozen
from power_loop.contracts.limits import SendLimits
from power_loop.contracts.llm import OutputSchema
from power_loop.contracts.messages import Message, Role
from power_loop.contracts.permissions import PermissionMode, PermissionRule
from power_loop.contracts.records import AgentReport
from power_loop.contracts.session_ids import is_run_id
from power_loop.contracts.states import SendStatus
from power_loop.core.context import texts
from power_loop.tools.permissions import PermissionPolicy

_NO_END = frozenset({SendStatus.RUNNING, SendStatus.WAITING_FOR_INPUT})


@frozen
class Agent:
    """Is what one sub-agent may do, resolved: `above` is the sessions from the top of its tree to its parent, `tools`
    the names that it is offered, `policies` hold besides the loop's own.

    `key` is that of the call whose work a detached one reports on. `budget` is that of each of its sends.
    """

    name: str
    above: tuple[str, ...]
    tools: tuple[str, ...]
    model: str | None
    limits: SendLimits
    policies: tuple[PermissionPolicy, ...]
    lifecycle: AgentLifecycle
    output_schema: OutputSchema | None = None
    key: str | None = None
    budget: Budget | None = None

    def to_json(self) -> dict[str, Any]:
        """Return it as it is stored."""
        schema = self.output_schema
        return {
            "name": self.name,
            "above": list(self.above),
            "tools": list(self.tools),
            "model": self.model,
            "limits": self.limits.to_json(),
            "policies": [
                {"mode": one.mode.value, "rules": [rule.to_json() for rule in one.rules]} for one in self.policies
            ],
            "lifecycle": self.lifecycle.value,
            "output_schema": None if schema is None else schema.to_json(),
            "key": self.key,
            "budget": None if self.budget is None else self.budget.to_json(),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Agent:
        """Return what `to_json` gave."""
        policies = [
            PermissionPolicy(tuple(PermissionRule.from_json(rule) for rule in one["rules"]), one["mode"])
            for one in value["policies"]
        ]
        return cls(
            value["name"],
            tuple(value["above"]),
            tuple(value["tools"]),
            value["model"],
            SendLimits.from_json(value["limits"]),
            tuple(policies),
            AgentLifecycle(value["lifecycle"]),
            None if value["output_schema"] is None else OutputSchema(**value["output_schema"]),
            value["key"],
            None if value.get("budget") is None else Budget.from_json(value["budget"]),
        )

    def permissions(self, loop_policy: PermissionPolicy | None) -> PermissionPolicy | None:
        """Return what holds for its calls: the strictest of its own policy and those of all above it."""
        own, *above = (*self.policies, *([] if loop_policy is None else [loop_policy])) or (None,)
        for one in above:
            own = one if own is None else own.under(one)
        return own

    def report(self, request_id: str | None, status: SendStatus, text: str, reason: str | None) -> AgentReport | None:
        """Return what it leaves to its parent when a send of its ends; None where nobody waits to hear of it."""
        is_asked = self.lifecycle is AgentLifecycle.DETACHED and self.key is not None and request_id == self.key
        if not is_asked or not self.above or status in _NO_END:
            return None
        said = texts.agent_report(self.name, status.value, text, reason)
        message = Message(Role.USER, texts.content(said))
        return AgentReport(self.above[-1], f"{self.key}:end", message)

    def run_to_wake(self, status: SendStatus) -> str | None:
        """Return the workflow's run above it that may rest until a send of its ends so; None where it has none."""
        if self.lifecycle is AgentLifecycle.DETACHED or status is SendStatus.WAITING_FOR_INPUT:
            return None
        return next((one for one in reversed(self.above) if is_run_id(one)), None)


def policy_of(spec: AgentSpec) -> PermissionPolicy | None:
    """Return the policy of a spec's own; None if it holds nothing back."""
    if not spec.permission_rules and spec.permission_mode is None:
        return None
    return PermissionPolicy(tuple(spec.permission_rules), spec.permission_mode or PermissionMode.AUTO)
