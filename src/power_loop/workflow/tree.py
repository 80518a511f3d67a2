"""Draws a run as a tree of its nodes: what each has come to so far, read from the spec and the journal alone."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from power_loop.contracts.frozen import frozen
from power_loop.contracts.workflow_runs import WorkflowStepRecord
from power_loop.workflow.parse import parse_workflow
from power_loop.workflow.spec import BranchNode, ForeachNode, LoopNode, Node, ParallelNode, SequenceNode

#: The state of what was not begun.
PENDING = "pending"
_WITHIN = re.compile(r"\[(\d+)\]/|~(\d+)/")
# What a node is whose parts stand so; the first that one of them has.
_BY_PARTS = ("started", "waiting", "failed", "cancelled")


@frozen
class RunNode:
    """Is one node of a run: its `id` (an item of a foreach or a loop has its place, `[3]`), its `kind`, its `state`.

    A node with parts has the state of these: `started` while one of them is, `completed` once all that were begun are.
    `role` is `fallback` or `undo` where it stands in for a node or undoes it, else empty. `step` is its record in the
    journal, which agents, tools and waits have once they were begun. `parts` are the nodes within it, in the order of
    the spec.
    """

    id: str
    kind: str
    state: str
    path: str
    role: str = ""
    step: WorkflowStepRecord | None = None
    parts: tuple[RunNode, ...] = ()


def run_tree(spec: Mapping[str, Any], steps: Iterable[WorkflowStepRecord]) -> RunNode:
    """Return the root of a run, of its spec and its steps as `get_run()` tells them. Raises `workflow.invalid_spec`."""
    return _Tree({step.path: step for step in steps}).node(parse_workflow(spec).root, "")


class _Tree:
    def __init__(self, steps: Mapping[str, WorkflowStepRecord]) -> None:
        self._steps = steps
        # The places of each foreach and loop, and the last attempt at each node, by its path.
        self._places: dict[str, set[int]] = {}
        self._attempts: dict[str, int] = {}
        for path in steps:
            for found in _WITHIN.finditer(path):
                of = path[: found.start()]
                if found[1] is not None:
                    self._places.setdefault(of, set()).add(int(found[1]))
                else:
                    self._attempts[of] = max(self._attempts.get(of, 1), int(found[2]))

    def node(self, node: Node, prefix: str, role: str = "") -> RunNode:
        path = prefix + node.id
        step = self._steps.get(path)
        # What the paths within it begin with, which each further attempt has of its own.
        attempt = self._attempts.get(path)
        inner = prefix if attempt is None else f"{path}~{attempt}/"
        parts = [*self._parts(node, inner), *self._besides(node, prefix)]
        own = PENDING if step is None else step.state
        is_leaf = step is not None or not isinstance(
            node, (SequenceNode, ParallelNode, ForeachNode, BranchNode, LoopNode)
        )
        state = own if is_leaf else _state_of(parts)
        return RunNode(node.id, node.kind, state, path, role, step, tuple(parts))

    def _parts(self, node: Node, prefix: str) -> list[RunNode]:
        if isinstance(node, (SequenceNode, ParallelNode)):
            return [self.node(one, prefix) for one in node.steps]
        if isinstance(node, BranchNode):
            cases = [*[one for _, one in node.cases], *([] if node.otherwise is None else [node.otherwise])]
            drawn = [self.node(one, prefix) for one in cases]
            # Of cases one is taken; before that, it may be any.
            return [one for one in drawn if one.state != PENDING] or drawn
        if isinstance(node, (ForeachNode, LoopNode)):
            path = prefix + node.id
            items = []
            for place in sorted(self._places.get(path, ())):
                body = self.node(node.body, f"{path}[{place}]/")
                items.append(RunNode(f"[{place}]", "item", body.state, f"{path}[{place}]", parts=(body,)))
            return items
        return []

    def _besides(self, node: Node, prefix: str) -> Iterable[RunNode]:
        """Return what stands in for a node and what undoes it, as far as that was begun."""
        for role, other in (("fallback", node.fallback), ("undo", node.compensate)):
            if other is not None:
                drawn = self.node(other, prefix, role)
                if drawn.state != PENDING:
                    yield drawn


def _state_of(parts: Sequence[RunNode]) -> str:
    states = {part.state for part in parts if not part.role}
    for state in _BY_PARTS:
        if state in states:
            return state
    if not states or states == {PENDING}:
        return PENDING
    return "completed" if PENDING not in states else "started"
