"""Holds what runs of one run, a frame for each node instance, and what they wait for: a pure view of the journal."""

from __future__ import annotations

import heapq
from collections.abc import Mapping

from power_loop.workflow.actions import RunStatus, WaitFor
from power_loop.workflow.containers import Branch, Foreach, Loop, Parallel, Sequence
from power_loop.workflow.frame import Frame, Names, Outcome
from power_loop.workflow.journal import Journal, StepState
from power_loop.workflow.leaf_frame import Leaf
from power_loop.workflow.spec import (
    AgentNode,
    BranchNode,
    ForeachNode,
    LoopNode,
    Node,
    ParallelNode,
    SequenceNode,
    ToolNode,
    WaitNode,
    WorkflowSpec,
)

_FRAMES: Mapping[type[Node], type[Frame]] = {
    AgentNode: Leaf,
    ToolNode: Leaf,
    WaitNode: Leaf,
    SequenceNode: Sequence,
    ParallelNode: Parallel,
    ForeachNode: Foreach,
    BranchNode: Branch,
    LoopNode: Loop,
}


class Run:
    """Is the frames of one run, and what they wait for."""

    def __init__(self, spec: WorkflowSpec, journal: Journal) -> None:
        self.spec = spec
        self.journal = journal
        self.names = Names({"input": journal.input})
        self.leaves: dict[str, Leaf] = {}
        self.not_undone: list[str] = []
        self.is_cancelled = False
        self.ready: list[tuple[tuple[int, ...], Leaf]] = []
        self.waits: dict[str, Leaf] = {}
        self.waiting_for: dict[str, dict[str, Leaf]] = {}
        self.stopping: dict[str, Leaf] = {}
        self._alarms: list[tuple[int, tuple[int, ...], int, Frame]] = []
        self._alarm_count = 0
        self._attempts_begun: set[str] = set()
        self._names_within: dict[str, tuple[str, ...]] = {}
        for path in journal.records:
            self._learn(path)
        journal.changed.clear()
        self.root: Frame = self.made(spec.root, self.names, prefix="", around=None)
        self.root.halted = self.root.is_stopped = self.is_cancelled = journal.is_cancelled
        self.root.open()

    def catch_up(self) -> None:
        """Read what changed in the journal."""
        if self.journal.is_cancelled and not self.is_cancelled:
            self.is_cancelled = True
            self.root.halt(stop=True)
        changed, self.journal.changed = self.journal.changed, []
        for path in changed:
            self._learn(path)
            leaf = self.leaves.get(path)
            if leaf is not None:
                leaf.look()

    def status(self) -> RunStatus:
        """Return what a run comes to whose root has settled."""
        if self.root.outcome is Outcome.DONE:
            return RunStatus.COMPLETED
        return RunStatus.CANCELLED if self.is_cancelled else RunStatus.FAILED

    def made(self, node: Node, names: Names, *, prefix: str, around: Frame | None, place: int = 0) -> Frame:
        """Return a frame for a node, which is not open yet."""
        return _FRAMES[type(node)](self, node, names=names, prefix=prefix, around=around, place=place)

    def meets(self, leaf: Leaf) -> None:
        """Learn of a leaf that begins."""
        self.leaves[leaf.path] = leaf

    def wants(self, leaf: Leaf) -> None:
        """Remember that something may have to be done about a leaf."""
        if isinstance(leaf.node, WaitNode):
            self.waits[leaf.path] = leaf
            record = leaf.record
            if record is not None and record.state is StepState.WAITING and leaf.node.wait_for is not WaitFor.TIME:
                name = leaf.node.signal if leaf.node.wait_for is WaitFor.SIGNAL else leaf.path
                self.waiting_for.setdefault(name, {})[leaf.path] = leaf
        elif leaf.is_stopped:
            self.stopping[leaf.path] = leaf
        elif not leaf.is_queued:
            leaf.is_queued = True
            heapq.heappush(self.ready, (leaf.key, leaf))

    def wake_at(self, at_ms: int, frame: Frame) -> None:
        """Remember when a frame has something to do."""
        self._alarm_count += 1
        heapq.heappush(self._alarms, (at_ms, frame.key, self._alarm_count, frame))

    def ring(self, now_ms: int) -> None:
        """Let every frame act whose time has come."""
        while self._alarms and self._alarms[0][0] <= now_ms:
            frame = heapq.heappop(self._alarms)[3]
            frame.tick(now_ms)
            if isinstance(frame, Leaf) and frame.outcome is None:
                self.wants(frame)

    def next_alarm(self) -> int | None:
        """Return when a frame has something to do, if one has."""
        while self._alarms and not self._alarms[0][3].waits_for(self._alarms[0][0]):
            heapq.heappop(self._alarms)
        return self._alarms[0][0] if self._alarms else None

    def has_begun(self, prefix: str) -> bool:
        """Tell whether a further attempt of a node has records."""
        return prefix in self._attempts_begun

    def _learn(self, path: str) -> None:
        """Learn which attempts have begun."""
        at = path.find("~")
        while at >= 0:
            end = path.find("/", at)
            self._attempts_begun.add(path[: end + 1])
            at = path.find("~", end)

    def names_within(self, node: Node) -> tuple[str, ...]:
        """Return the ids that an attempt of a node may have given a meaning to."""
        if node.id not in self._names_within:
            inside = f"{node.place}."
            self._names_within[node.id] = tuple(
                one.id for one in self.spec.nodes.values() if one.place.startswith(inside)
            )
        return self._names_within[node.id]
