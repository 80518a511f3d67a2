"""Is a workflow as it was understood: one class a kind of node, with its references and conditions taken apart."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from enum import Enum
from typing import Any

from power_loop.contracts.frozen import frozen
from power_loop.workflow.actions import WaitFor
from power_loop.workflow.conditions import Condition
from power_loop.workflow.refs import Reference, Template


class OnError(str, Enum):
    """Is what becomes of a node that failed, after its retries."""

    HALT = "halt"  # what it belongs to fails too
    CONTINUE = "continue"  # its output is null
    FALLBACK = "fallback"  # another node gives its output


class OnExhausted(str, Enum):
    """Is what becomes of a loop whose bound is reached before its condition holds."""

    ACCEPT = "accept"  # the last output counts
    FAIL = "fail"


@frozen
class Backoff:
    """Is how long a retry waits: `first_s` before the first, `factor` times as long before each further one, at most
    `max_s`. Nothing is random, so that a run that is taken up again waits for the same moment."""

    first_s: float = 1.0
    factor: float = 2.0
    max_s: float = 60.0

    def wait_ms(self, failed: int) -> int:
        """Return the wait after so many failed attempts, in milliseconds."""
        wait_s = self.first_s
        for _ in range(failed - 1):
            if wait_s >= self.max_s:
                break
            wait_s *= self.factor
        return round(min(wait_s, self.max_s) * 1000)


@frozen
class Retry:
    """Is how often a node is tried in all, how long each retry waits, and after which failures.

    `on` holds `any`, `transient`, `timeout`, or codes of errors (`llm.rate_limited`); `llm.*` stands for all that begin
    so.
    """

    attempts: int = 1
    backoff: Backoff = Backoff()
    on: tuple[str, ...] = ("any",)


@frozen
class Node:
    """Is what all nodes have. `id` is the given one, or one that cannot be given (`sequence#1`); `place` is where the
    node stands in the spec. `order` counts the nodes as they are written."""

    id: str
    place: str
    order: int
    description: str = ""
    when: Condition | None = None
    retry: Retry | None = None
    timeout_s: float | None = None
    on_error: OnError = OnError.HALT
    fallback: Node | None = None
    compensate: Node | None = None

    @property
    def kind(self) -> str:
        """Its `type` in the spec."""
        return KINDS[type(self)]


@frozen
class AgentNode(Node):
    """Is an agent: `agent` holds its AgentSpec as JSON, `texts` those of its fields in which references may stand,
    `input` what it is told, `inputs_from` the nodes whose outputs stand behind that."""

    agent: Mapping[str, Any] = field(default_factory=dict)
    texts: Template = Template({})
    input: Template = Template("")
    inputs_from: tuple[Reference, ...] = ()


@frozen
class ToolNode(Node):
    """Is one call of a registered tool."""

    tool: str = ""
    args: Template = Template({})


@frozen
class WaitNode(Node):
    """Waits for a signal, a person or a time."""

    wait_for: WaitFor = WaitFor.TIME
    signal: str = ""
    question: Template = Template("")
    choices: tuple[str, ...] = ()
    delay_s: float | None = None
    at: Template | None = None


@frozen
class SequenceNode(Node):
    """Runs its steps one after the other; its output is that of the last one."""

    steps: tuple[Node, ...] = ()


@frozen
class ParallelNode(Node):
    """Runs its steps side by side; its output holds theirs by their ids."""

    steps: tuple[Node, ...] = ()
    max_concurrency: int | None = None


@frozen
class ForeachNode(Node):
    """Runs its body once an item; its output is the list of theirs, in the order of the items."""

    items_from: Reference | None = None
    items: Template | None = None
    variable: str = "item"
    index_variable: str | None = None
    is_parallel: bool = False
    max_concurrency: int | None = None
    body: Node = Node("", "", 0)


@frozen
class BranchNode(Node):
    """Runs the first case whose condition holds, or `otherwise`; its output is that node's, or null."""

    cases: tuple[tuple[Condition, Node], ...] = ()
    otherwise: Node | None = None


@frozen
class LoopNode(Node):
    """Runs its body until a condition holds behind it, at most so many times; its output is the last one's."""

    body: Node = Node("", "", 0)
    until: Condition | None = None
    max_iterations: int = 1
    variable: str | None = None
    index_variable: str | None = None
    on_exhausted: OnExhausted = OnExhausted.ACCEPT


KINDS: dict[type[Node], str] = {
    AgentNode: "agent",
    ToolNode: "tool",
    WaitNode: "wait",
    SequenceNode: "sequence",
    ParallelNode: "parallel",
    ForeachNode: "foreach",
    BranchNode: "branch",
    LoopNode: "loop",
}


@frozen
class WorkflowSpec:
    """Is a whole workflow that was found good.

    `source` is the plain JSON that it was read from, which can be stored and read again. `max_concurrency` bounds the
    steps that run at one time (default None: the engine's own bound). `undo_on_cancel` tells that compensations run
    when the run is cancelled, too.
    """

    name: str
    root: Node
    source: Mapping[str, Any]
    input: Any = None
    description: str = ""
    max_concurrency: int | None = None
    undo_on_cancel: bool = False
    nodes: Mapping[str, Node] = field(default_factory=dict, compare=False, repr=False)
