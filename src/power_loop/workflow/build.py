"""Makes the nodes of a workflow from JSON that was found good."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from power_loop.workflow import conditions
from power_loop.workflow.actions import WaitFor
from power_loop.workflow.conditions import Condition
from power_loop.workflow.refs import Reference, Template, parse_reference
from power_loop.workflow.spec import (
    AgentNode,
    Backoff,
    BranchNode,
    ForeachNode,
    LoopNode,
    Node,
    OnError,
    OnExhausted,
    ParallelNode,
    Retry,
    SequenceNode,
    ToolNode,
    WaitNode,
    WorkflowSpec,
)

#: The fields of an agent's spec in which references may stand.
TEXTS = ("name", "system_prompt", "description", "model")


def build(source: Mapping[str, Any]) -> WorkflowSpec:
    """Return the workflow that was read and checked."""
    builder = _Builder()
    root = builder.node(source["root"], "root")
    return WorkflowSpec(
        name=source["name"],
        root=root,
        source=source,
        input=source.get("input"),
        description=source.get("description", ""),
        max_concurrency=source.get("max_concurrency"),
        undo_on_cancel=source.get("undo_on_cancel", False),
        nodes=builder.nodes,
    )


def agent_json(node: Mapping[str, Any]) -> dict[str, Any]:
    """Return the AgentSpec of an agent node as JSON, with its references as they are written."""
    spec = node["spec"]
    schema = node.get("output_schema")
    return {
        "name": spec.get("name", node["id"]),
        "system_prompt": spec["system_prompt"],
        "description": spec.get("description", ""),
        "tools": spec.get("tools"),
        "model": spec.get("model"),
        "limits": spec.get("limits"),
        "output_schema": None if schema is None else {"name": "output", "description": "", **schema},
        "permission_rules": [
            {"command": None, "arguments": {}, "reason": "", **rule} for rule in spec.get("permission_rules", ())
        ],
        "permission_mode": spec.get("permission_mode"),
        "lifecycle": "ephemeral",
        "budget": spec.get("budget"),
    }


def moment_ms(text: str) -> int | None:
    """Return the moment that a text names, with its time zone, in epoch milliseconds; None if it names none."""
    try:
        moment = datetime.fromisoformat(text.strip().replace("Z", "+00:00").replace("z", "+00:00"))
        return None if moment.tzinfo is None else round(moment.timestamp() * 1000)
    except (ValueError, OverflowError):
        return None


def condition_of(value: Mapping[str, Any]) -> Condition:
    """Return the condition that some JSON is."""
    if "all" in value:
        return conditions.All(tuple(map(condition_of, value["all"])))
    if "any" in value:
        return conditions.AnyOf(tuple(map(condition_of, value["any"])))
    if "not" in value:
        return conditions.Not(condition_of(value["not"]))
    wanted = Template(value["value"]) if "value" in value else None
    return conditions.Compare(_reference(value["ref"]), value["op"], wanted)


def _reference(text: str) -> Reference:
    reference = parse_reference(text)
    assert reference is not None, text
    return reference


class _Builder:
    def __init__(self) -> None:
        self.nodes: dict[str, Node] = {}
        self._unnamed: dict[str, int] = {}
        self._order = 0

    def node(self, value: Mapping[str, Any], place: str) -> Node:
        """Return a node, and keep it under its id."""
        self._order += 1
        common = self._common(value, place)
        made = getattr(self, f"_{value['type']}")(value, place, common)
        self.nodes[made.id] = made
        return made  # type: ignore[no-any-return]

    def _common(self, value: Mapping[str, Any], place: str) -> dict[str, Any]:
        kind, on_error = value["type"], value.get("on_error", "halt")
        if "id" not in value:
            # No id can be given that has a # in it.
            self._unnamed[kind] = self._unnamed.get(kind, 0) + 1
        name = value.get("id", f"{kind}#{self._unnamed.get(kind, 0)}")
        common: dict[str, Any] = {
            "id": name,
            "place": place,
            "order": self._order,
            "description": value.get("description", ""),
            "when": condition_of(value["when"]) if "when" in value else None,
            "retry": _retry(value["retry"]) if "retry" in value else None,
            "timeout_s": value.get("timeout_s"),
        }
        if isinstance(on_error, dict):
            common["on_error"] = OnError.FALLBACK
            common["fallback"] = self.node(on_error["fallback"], f"{place}.on_error.fallback")
        else:
            common["on_error"] = OnError(on_error)
        if "compensate" in value:
            common["compensate"] = self.node(value["compensate"], f"{place}.compensate")
        return common

    def _agent(self, value: Mapping[str, Any], place: str, common: dict[str, Any]) -> Node:
        agent = agent_json({**value, "id": common["id"]})
        return AgentNode(
            **common,
            agent=agent,
            texts=Template({name: agent[name] for name in TEXTS}),
            input=Template(value.get("input", "{{input}}")),
            inputs_from=tuple(map(_reference, value.get("inputs_from", ()))),
        )

    def _tool(self, value: Mapping[str, Any], place: str, common: dict[str, Any]) -> Node:
        return ToolNode(**common, tool=value["tool"], args=Template(value.get("args", {})))

    def _wait(self, value: Mapping[str, Any], place: str, common: dict[str, Any]) -> Node:
        if "signal" in value:
            return WaitNode(**common, wait_for=WaitFor.SIGNAL, signal=value["signal"])
        if "person" in value:
            question, choices = Template(value["person"]), tuple(value.get("choices", ()))
            return WaitNode(**common, wait_for=WaitFor.PERSON, question=question, choices=choices)
        at = Template(value["at"]) if "at" in value else None
        return WaitNode(**common, wait_for=WaitFor.TIME, delay_s=value.get("delay_s"), at=at)

    def _sequence(self, value: Mapping[str, Any], place: str, common: dict[str, Any]) -> Node:
        return SequenceNode(**common, steps=self._steps(value, place))

    def _parallel(self, value: Mapping[str, Any], place: str, common: dict[str, Any]) -> Node:
        return ParallelNode(**common, steps=self._steps(value, place), max_concurrency=value.get("max_concurrency"))

    def _steps(self, value: Mapping[str, Any], place: str) -> tuple[Node, ...]:
        return tuple(self.node(step, f"{place}.steps[{number}]") for number, step in enumerate(value["steps"]))

    def _foreach(self, value: Mapping[str, Any], place: str, common: dict[str, Any]) -> Node:
        return ForeachNode(
            **common,
            items_from=_reference(value["items_from"]) if "items_from" in value else None,
            items=Template(value["items"]) if "items" in value else None,
            variable=value.get("as", "item"),
            index_variable=value.get("index_as"),
            is_parallel=value.get("parallel", False),
            max_concurrency=value.get("max_concurrency"),
            body=self.node(value["body"], f"{place}.body"),
        )

    def _branch(self, value: Mapping[str, Any], place: str, common: dict[str, Any]) -> Node:
        cases = tuple(
            (condition_of(case["when"]), self.node(case["then"], f"{place}.cases[{number}].then"))
            for number, case in enumerate(value["cases"])
        )
        otherwise = self.node(value["else"], f"{place}.else") if "else" in value else None
        return BranchNode(**common, cases=cases, otherwise=otherwise)

    def _loop(self, value: Mapping[str, Any], place: str, common: dict[str, Any]) -> Node:
        return LoopNode(
            **common,
            body=self.node(value["body"], f"{place}.body"),
            until=condition_of(value["until"]),
            max_iterations=value["max_iterations"],
            variable=value.get("as"),
            index_variable=value.get("index_as"),
            on_exhausted=OnExhausted(value.get("on_exhausted", "accept")),
        )


def _retry(value: Mapping[str, Any]) -> Retry:
    backoff = value.get("backoff", {})
    if not isinstance(backoff, dict):
        backoff = {"first_s": backoff, "factor": 1, "max_s": backoff}
    return Retry(value["attempts"], Backoff(**backoff), tuple(value.get("on", ("any",))))
